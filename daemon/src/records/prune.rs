//! Forgetting: old values, which the history keeps for the undo window and no longer, and behind them
//! deletions that every member has seen.
//!
//! A task of the server part. It counts the hours that the server runs, for days of running are what
//! the window is measured in. Each transaction looks at a bounded number of changes, and the next one
//! waits behind the pushes that came meanwhile.

use std::sync::Arc;

use mfpsync_replication::tombstones::horizon_of;
use mfpsync_replication::window::forgettable_of;
use mfpsync_storage::master::{Master, MasterRead, MasterWrite};
use mfpsync_storage::model::Sequence;
use mfpsync_storage::{Priority, Result};
use tokio_util::sync::CancellationToken;

use crate::clock::running_hours;
use crate::db::{Db, SCAN_DEADLINE};
use crate::server::replicating::Replicating;
use crate::settings::Settings;

/// Changes, or items, looked at in one transaction.
const ROWS: u32 = 2_000;

/// Forgets at once, but for what the newest archive would bring back, then after every day of running and when settings change, until `stop`.
///
/// # Cancel safety
/// Dropping the future leaves the rest to the next run.
pub(crate) async fn run(
    master: Db<Master>,
    replicating: Arc<Replicating>,
    settings: Settings,
    stop: CancellationToken,
) {
    let mut changes = settings.watch();
    let mut hours = running_hours();
    let always = async {
        loop {
            let days = changes.borrow_and_update().history_days;
            match prune(&master, replicating.archived(), days).await {
                Ok((0, 0)) => {}
                Ok((values, tombstones)) => {
                    tracing::info!(values, tombstones, "forgot what is older than the undo window");
                }
                // The storage's own faults are shown by whoever writes for people.
                Err(error) => tracing::warn!(%error, "forget what is old"),
            }
            let day = async {
                loop {
                    hours.tick().await;
                    match master.write(Priority::Sync, |write| write.pass_hour()).await {
                        Ok(true) => return,
                        Ok(false) => {}
                        // An hour that was not counted: what is kept is kept longer.
                        Err(error) => tracing::warn!(%error, "count the hours run"),
                    }
                }
            };
            tokio::select! {
                () = day => {}
                // The window may be another; the sender lives in `settings`.
                _ = changes.changed() => {}
            }
        }
    };
    tokio::select! {
        () = always => {}
        () = stop.cancelled() => {}
    }
}

/// Forgets what is older than so many days of running; returns how many values and tombstones were.
async fn prune(master: &Db<Master>, archive: Option<Sequence>, days: u64) -> Result<(usize, usize)> {
    let read = move |read: &MasterRead<'_>| Ok((forgettable_of(read, days)?, horizon_of(read, archive)?));
    let (Some(mark), horizon) = master.read(SCAN_DEADLINE, read).await? else { return Ok((0, 0)) };
    let (mut values, mut after) = (0, Some(-1));
    while let Some(from) = after {
        let prune = move |write: &MasterWrite<'_>| write.prune_history(mark.extent, from, ROWS);
        let pruned = master.write(Priority::Sync, prune).await?;
        values += pruned.rows;
        after = pruned.next;
    }
    let through = horizon.through.min(mark.extent.sequence);
    let (mut tombstones, mut after) = (0, Some(-1));
    while let Some(from) = after {
        let collect = move |write: &MasterWrite<'_>| write.collect_tombstones(through, from, ROWS);
        let collected = master.write(Priority::Sync, collect).await?;
        tombstones += collected.rows;
        after = collected.next;
    }
    // The mark itself stays: it is the newest one so far back, until the next day ends.
    master.write(Priority::Sync, move |write| write.drop_marks_before(mark.day)).await?;
    Ok((values, tombstones))
}
