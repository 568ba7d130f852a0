//! Whether a running server takes changes, and what keeps it from doing so. I-08: while two claim a reign
//! neither goes on, so nothing is written that a choice would have to undo.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mfpsync_proto::sync::Reason;
use mfpsync_storage::model::{Promotion, Signed};
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::refusal::{self, status};

/// How long a server that stands down waits for its successor.
pub const STANDS_DOWN: Duration = Duration::from_secs(30);

/// Why no change is taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The server stands down, or another one reigns.
    Stopping,
    /// Another device claims this reign, and nobody has decided yet.
    Contested,
}

impl From<Held> for Status {
    fn from(held: Held) -> Self {
        match held {
            Held::Stopping => refusal::stopping(),
            Held::Contested => {
                let text = "two devices became the group's server; changes wait on the devices until an \
                            operator decides which one stays";
                status(Code::Unavailable, Reason::Stopping, text)
            }
        }
    }
}

/// Asked before every change, on the thread that writes it: what is decided here holds for all changes
/// behind it.
#[derive(Debug, Default)]
pub struct Gate(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    standing_down: Option<Instant>,
    /// Verified records of other reigns that claim to follow the same parent.
    rivals: Vec<Signed<Promotion>>,
}

impl Gate {
    /// Takes nothing more, until [`Gate::go_on`] or for [`STANDS_DOWN`].
    pub fn stand_down(&self) {
        self.lock().standing_down = Some(Instant::now());
    }

    /// Nobody takes over.
    pub fn go_on(&self) {
        self.lock().standing_down = None;
    }

    /// Another device claims this reign; its record was verified. More than one record can end are not
    /// remembered: they show up again. True for one that is new.
    pub fn contest(&self, rival: &Signed<Promotion>) -> bool {
        let mut state = self.lock();
        let known = state.rivals.iter().any(|known| known.record.epoch == rival.record.epoch);
        let remembered = !known && state.rivals.len() < Promotion::MAX_ENDS;
        if remembered {
            state.rivals.push(rival.clone());
        }
        remembered
    }

    /// Who claims this reign.
    pub fn rivals(&self) -> Vec<Signed<Promotion>> {
        self.lock().rivals.clone()
    }

    /// An operator has decided for this server.
    pub fn settle(&self) {
        self.lock().rivals.clear();
    }

    /// Whether a change is taken now, as far as this gate knows.
    ///
    /// # Errors
    /// It is not.
    pub fn pass(&self) -> Result<(), Held> {
        let mut state = self.lock();
        if state.standing_down.is_some_and(|since| since.elapsed() >= STANDS_DOWN) {
            tracing::warn!("nobody took over; this server goes on");
            state.standing_down = None;
        }
        if state.standing_down.is_some() {
            return Err(Held::Stopping);
        }
        if state.rivals.is_empty() { Ok(()) } else { Err(Held::Contested) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use mfpsync_storage::model::{DeviceId, Epoch, GroupId, PromotionReason};

    use super::*;

    fn rival(nonce: u8) -> Signed<Promotion> {
        let record = Promotion {
            group: GroupId([1; 16]),
            epoch: Epoch { number: 2, nonce: [nonce; 16] },
            parent: None,
            ends: Vec::new(),
            device: DeviceId([nonce; 16]),
            operator: "panel".to_owned(),
            reason: PromotionReason::Promoted,
            made_at: 0,
        };
        Signed { body: record.body(), record, signature: [0; 64] }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_stands_down_goes_on_when_nobody_takes_over() {
        let gate = Gate::default();
        assert_eq!(gate.pass(), Ok(()));
        gate.stand_down();
        assert_eq!(gate.pass(), Err(Held::Stopping));
        gate.go_on();
        assert_eq!(gate.pass(), Ok(()));
        gate.stand_down();
        tokio::time::advance(STANDS_DOWN).await;
        assert_eq!(gate.pass(), Ok(()));
    }

    #[test]
    fn a_contested_server_takes_nothing_until_somebody_decides() {
        let gate = Gate::default();
        for nonce in [1, 1, 2] {
            gate.contest(&rival(nonce));
        }
        assert!(!gate.contest(&rival(2)), "known already");
        assert_eq!((gate.pass(), gate.rivals().len()), (Err(Held::Contested), 2));
        for nonce in 3..100 {
            gate.contest(&rival(nonce));
        }
        assert_eq!(gate.rivals().len(), Promotion::MAX_ENDS);
        gate.settle();
        assert_eq!(gate.pass(), Ok(()));
    }
}
