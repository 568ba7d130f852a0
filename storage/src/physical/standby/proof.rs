//! A look at the copy as it was committed at one moment: page by page, and through SQLite's own eyes.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::log::{Log, read_frame};
use super::{lock, read_page, scan};
use crate::error::Result;
use crate::master::{Master, MasterRead};
use crate::open;
use crate::physical::page::{PageDigest, PageNumber};
use crate::store::Database;

/// A proof that takes longer is given up: the copy's log grows meanwhile.
const DEADLINE: Duration = Duration::from_secs(300);
/// Virtual-machine steps between two looks whether to stop.
const STEPS: i32 = 10_000;

/// The copy as it was committed when this was made. As long as it is there, the copy's log is not folded.
pub struct Prover {
    // Closed first: that gives up the lock, which `pages` takes again.
    connection: Connection,
    pages: View,
    stop: Stop,
}

/// Whether to give up.
type Stop = Arc<dyn Fn() -> bool + Send + Sync>;

/// The pages of the copy, while nothing is folded.
#[derive(Debug)]
pub(super) struct View {
    /// The descriptor that has the lock, and not one of its own: closing that would give it up.
    main: Arc<File>,
    log: File,
    index: HashMap<PageNumber, u32>,
    count: u32,
}

impl View {
    pub(super) fn new(main: &Arc<File>, log: &Log, count: u32) -> Result<Self> {
        let (log, index) = log.view()?;
        Ok(Self { main: Arc::clone(main), log, index, count })
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // Whoever got in between is noticed at the next transaction.
        if let Err(error) = lock(&self.main) {
            tracing::warn!(%error, "lock the copy after a proof");
        }
    }
}

impl std::fmt::Debug for Prover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prover").finish_non_exhaustive()
    }
}

impl Prover {
    pub(super) fn open(path: &Path, pages: View, told: Stop) -> Result<Self> {
        let mut connection = open::copy(path)?;
        let until = Instant::now() + DEADLINE;
        let stop: Stop = Arc::new(move || told() || Instant::now() >= until);
        let interrupt = stop.clone();
        connection.progress_handler(STEPS, Some(move || interrupt()))?;
        Ok(Self { connection, pages, stop })
    }

    /// The digest of all pages as they are on the disk.
    ///
    /// # Errors
    /// They cannot be read, not in time, or it was given up.
    pub fn digest(&self) -> Result<PageDigest> {
        let View { main, log, index, count } = &self.pages;
        let page =
            |page| index.get(&page).map_or_else(|| read_page(main, page), |frame| read_frame(log, *frame));
        scan(*count, page, &*self.stop)
    }

    /// What SQLite finds wrong with the copy; nothing if all is right.
    ///
    /// # Errors
    /// It cannot be read, or not in time.
    pub fn check(&self) -> Result<Vec<String>> {
        let mut statement = self.connection.prepare("PRAGMA integrity_check(10)")?;
        let found = statement.query_map([], |row| row.get::<_, String>(0))?;
        let found: Vec<String> = found.collect::<rusqlite::Result<_>>()?;
        Ok(if found == ["ok"] { Vec::new() } else { found })
    }

    /// Reads the copy.
    ///
    /// # Errors
    /// As the closure, or not in time.
    pub fn read<T>(&self, read: impl FnOnce(&MasterRead<'_>) -> Result<T>) -> Result<T> {
        read(&Master::read(&self.connection))
    }
}
