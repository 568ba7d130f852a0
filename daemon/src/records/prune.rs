//! Forgetting: old values, which the history keeps for the undo window and no longer, and behind them
//! deletions that every member has seen.
//!
//! A task of the server part. Each transaction looks at a bounded number of changes, and the next
//! one waits behind the pushes that came meanwhile.

use std::time::Duration;

use mfpsync_replication::tombstones::horizon_of;
use mfpsync_storage::master::{Master, MasterWrite};
use mfpsync_storage::{Priority, Result};
use tokio_util::sync::CancellationToken;

use crate::clock::unix_millis;
use crate::db::{Db, SCAN_DEADLINE};
use crate::settings::Settings;

/// Changes, or items, looked at in one transaction.
const ROWS: u32 = 2_000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Forgets at once, then every day and when settings change, until `stop`.
///
/// # Cancel safety
/// Dropping the future leaves the rest to the next run.
pub(crate) async fn run(master: Db<Master>, settings: Settings, stop: CancellationToken) {
    let mut changes = settings.watch();
    let daily = async {
        loop {
            let days = changes.borrow_and_update().history_days;
            match prune(&master, days).await {
                Ok((0, 0)) => {}
                Ok((values, tombstones)) => {
                    tracing::info!(values, tombstones, "forgot what is older than the undo window");
                }
                // The storage's own faults are shown by whoever writes for people.
                Err(error) => tracing::warn!(%error, "forget what is old"),
            }
            tokio::select! {
                () = tokio::time::sleep(DAY) => {}
                // The window may be another; the sender lives in `settings`.
                _ = changes.changed() => {}
            }
        }
    };
    tokio::select! {
        () = daily => {}
        () = stop.cancelled() => {}
    }
}

/// Forgets what is older than so many days; returns how many values and tombstones were.
async fn prune(master: &Db<Master>, days: u64) -> Result<(usize, usize)> {
    let window = u64::try_from(DAY.as_millis()).unwrap_or(u64::MAX).saturating_mul(days);
    // A window of nothing forgets also what is accepted within this very millisecond.
    let before = unix_millis().saturating_sub(window).saturating_add(u64::from(days == 0));
    let (mut values, mut after) = (0, Some(-1));
    while let Some(from) = after {
        let pruned =
            master.write(Priority::Sync, move |write| write.prune_history(before, from, ROWS)).await?;
        values += pruned.rows;
        after = pruned.next;
    }
    let through = master.read(SCAN_DEADLINE, horizon_of).await?.through;
    let (mut tombstones, mut after) = (0, Some(-1));
    while let Some(from) = after {
        let collect = move |write: &MasterWrite<'_>| write.collect_tombstones(through, before, from, ROWS);
        let collected = master.write(Priority::Sync, collect).await?;
        tombstones += collected.rows;
        after = collected.next;
    }
    Ok((values, tombstones))
}
