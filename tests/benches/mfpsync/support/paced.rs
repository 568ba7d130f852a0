//! One writer at a steady pace or as fast as it goes, and a watcher beside it that times when each write
//! has arrived. Blocking: for peers that are asked through pipes and files.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::stats::Samples;

/// How often is looked whether a write has arrived.
const LOOK: Duration = Duration::from_micros(300);
/// How long is waited for a write to arrive, and with it for the whole load.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes `per_second` times a second, or without a pause, for `window` and at least once; the lags from each write's
/// return to its arrival. `write` returns what `arrived` knows the write by.
///
/// # Errors
/// A write failed, or one did not arrive.
pub(crate) fn lags<M: Send>(
    per_second: Option<u32>,
    window: Duration,
    mut write: impl FnMut() -> Result<M>,
    mut arrived: impl FnMut(&M) -> Result<bool> + Send,
) -> Result<Samples> {
    thread::scope(|scope| {
        let (told, marks) = mpsc::channel::<(Instant, M)>();
        let watcher = scope.spawn(move || {
            let mut lags = Vec::new();
            for (committed, mark) in marks {
                while !arrived(&mark)? {
                    ensure!(committed.elapsed() < PATIENCE, "a write did not arrive within {PATIENCE:?}");
                    thread::sleep(LOOK);
                }
                lags.push(committed.elapsed());
            }
            Ok(Samples::new(lags))
        });
        let began = Instant::now();
        let mut due = began;
        loop {
            let mark = write()?;
            if told.send((Instant::now(), mark)).is_err() || began.elapsed() >= window {
                break;
            }
            if let Some(rate) = per_second {
                due += Duration::from_secs(1) / rate;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
        drop(told);
        watcher.join().map_err(|_| anyhow!("the watcher failed"))?
    })
}
