//! The tap on the master's writer thread: hears of each commit, and says who is answered.

use std::sync::Arc;

use mfpsync_replication::ship::Logical;
use mfpsync_storage::master::{Master, MasterRead};
use mfpsync_storage::physical::{Changed, LogId, Pages};
use mfpsync_storage::tap::{Tap, Verdict};

use super::Replicating;

/// Feeds the replica from the writer thread.
pub(super) struct ServerTap(pub(super) Arc<Replicating>);

impl Tap<Master> for ServerTap {
    fn name(&mut self) -> LogId {
        let mut name = [0; 16];
        if self.0.random.fill(&mut name).is_err() {
            // A name that came before is noticed: its transactions do not lead to the same pages.
            tracing::error!("the system gives no random numbers");
        }
        LogId(name)
    }

    fn begin(&mut self, pages: &mut Pages, kept: Option<&[u8]>, read: &MasterRead<'_>) {
        let mut state = self.0.state();
        state.shipping.begin(kept, logical(read));
        state.protection.begin(pages.transaction());
        state.recent.clear();
        self.0.show(&state);
        self.0.pump(&mut state, pages);
    }

    fn changed(&mut self, changed: Changed<'_>) {
        self.0.state().shipping.changed(&changed);
    }

    fn committed(&mut self, pages: &mut Pages, read: &MasterRead<'_>) {
        let mut state = self.0.state();
        state.shipping.committed(logical(read));
        state.protection.committed(pages.transaction(), self.0.began.elapsed());
        state.recent.committed(pages.transaction());
        self.0.pump(&mut state, pages);
    }

    fn verdict(&self) -> Verdict {
        self.0.state().protection.verdict()
    }

    fn keep(&self) -> Vec<u8> {
        self.0.state().shipping.keep()
    }
}

fn logical(read: &MasterRead<'_>) -> Option<Logical> {
    let head = read.head().inspect_err(|error| tracing::warn!(%error, "read the head")).ok()??;
    Some(Logical { group: head.group, epoch: head.epoch, sequence: head.sequence, chain: head.chain })
}
