//! When the write-ahead log is folded back into the database, and how hard that is tried.
//!
//! The writer asks after each group commit; nobody else ever checkpoints.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rusqlite::Connection;
use rusqlite::hooks::Wal;

use crate::error::Result;
use crate::figures::{Figures, Mode};

/// From here on the log is folded back without waiting for anybody (4 MiB of 4 KiB pages).
const PASSIVE_FRAMES: u32 = 1_000;
/// From here on the writer waits for readers, as long as its busy timeout, so that the log starts
/// over and stays under 16 MiB.
const RESTART_FRAMES: u32 = 3_000;
/// From here on nothing more is written until the readers of old states have ended, which their
/// deadlines see to; so that not even readers that follow one another closely make the log grow.
const HOLD_FRAMES: u32 = 3_300;
/// How often that is tried, each as long as the busy timeout (together 4 s), before a reader without
/// a sensible deadline is let win: a long log is less bad than a device that takes no edits.
const HOLD_TRIES: u32 = 16;

/// Follows the length of one writer's log.
#[derive(Debug, Default)]
pub(crate) struct Checkpointer {
    /// Frames in the log after the last commit, as SQLite reported it.
    frames: Arc<AtomicU32>,
    /// The log is to be emptied whatever its length.
    truncate: Arc<AtomicBool>,
    figures: Arc<Figures>,
}

impl Checkpointer {
    /// Has SQLite report the log's length after each commit on this connection.
    ///
    /// # Errors
    /// None in practice.
    pub(crate) fn watch(&self, connection: &mut Connection) -> Result<()> {
        let frames = self.frames.clone();
        connection.wal_hook(Some(move |_: &mut Wal, length: std::ffi::c_int| {
            frames.store(u32::try_from(length).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(())
    }

    /// Follows the same requests to empty the log, and counts in the same figures.
    pub(crate) fn truncate_on(truncate: Arc<AtomicBool>, figures: Arc<Figures>) -> Self {
        Self { truncate, figures, ..Self::default() }
    }

    /// The log's length after the last commit, in frames.
    pub(crate) fn frames(&self) -> u32 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Folds the log back when it is long, after `before`. Called between transactions.
    ///
    /// # Errors
    /// A failing device. A reader that holds the log back is no error: the next call tries again.
    pub(crate) fn after_commit(
        &self,
        connection: &Connection,
        before: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let truncate = self.truncate.load(Ordering::Relaxed);
        if !truncate && self.frames() < PASSIVE_FRAMES {
            return Ok(());
        }
        before()?;
        if truncate && self.run(connection, Mode::Truncate)? {
            self.truncate.store(false, Ordering::Relaxed);
            return Ok(());
        }
        let (mode, tries) = match self.frames() {
            // SQLite waits for readers as long as the connection's busy timeout says.
            frames if frames >= HOLD_FRAMES => (Mode::Restart, HOLD_TRIES),
            frames if frames >= RESTART_FRAMES => (Mode::Restart, 1),
            frames if frames >= PASSIVE_FRAMES => (Mode::Passive, 1),
            _ => return Ok(()),
        };
        for _ in 0..tries {
            if self.run(connection, mode)? {
                break;
            }
        }
        Ok(())
    }

    fn run(&self, connection: &Connection, mode: Mode) -> Result<bool> {
        self.figures.checkpointed(mode);
        let whole = run(connection, mode)?;
        if whole && mode == Mode::Truncate {
            self.frames.store(0, Ordering::Relaxed);
        }
        Ok(whole)
    }
}

/// Folds everything back and empties the log, at a clean stop. Whether that came to its end.
///
/// # Errors
/// A failing device.
pub(crate) fn at_close(connection: &Connection) -> Result<bool> {
    run(connection, Mode::Truncate)
}

/// Whether it came to its end; readers may hold it up.
fn run(connection: &Connection, mode: Mode) -> Result<bool> {
    let sql = format!("PRAGMA wal_checkpoint({})", mode.sql());
    Ok(connection.query_row(&sql, [], |row| row.get(0).map(|busy: bool| !busy))?)
}
