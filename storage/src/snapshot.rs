//! A database's pages as of one commit, read while it goes on being used and written.
//!
//! No read transaction is held, so the write-ahead log is folded as ever however long the reading takes;
//! see ADR 29. `physical/moment.rs` is where pages wait that change before their turn.

use crate::error::{Error, Result};
use crate::physical::PAGE_BYTES;
use crate::physical::moment::Claim;
use crate::store::{Database, Store};

/// Pages that are read at once: between two commits, so it is short.
const PORTION_PAGES: u32 = 64;

/// Where page 1 says how the file is read and written, and "by a rollback journal".
/// **Source**: SQLite file format, section 1.3.
const FILE_FORMAT: std::ops::Range<usize> = 18..20;
const ROLLBACK_JOURNAL: u8 = 1;

/// The pages as of one commit, in portions: together a database file that stands alone, without a log.
///
/// Whoever reads it blocks until the writer thread has time. It ends when it is dropped.
#[derive(Debug)]
pub struct Snapshot<D: Database> {
    store: Store<D>,
    claim: Claim,
    bytes: u64,
    given: u64,
}

impl<D: Database> Snapshot<D> {
    pub(crate) fn new(store: Store<D>, claim: Claim, pages: u32) -> Self {
        Self { store, claim, bytes: u64::from(pages) * PAGE_BYTES as u64, given: 0 }
    }

    /// Length of all portions together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn portion(&mut self) -> Result<Vec<u8>> {
        let claim = self.claim.clone();
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        self.store.with_pages_anyway(move |pages| {
            let portion = pages.and_then(|(pages, _)| pages.portion(&claim, PORTION_PAGES));
            drop(claim);
            drop(tell.send(portion));
        });
        let mut portion = told.recv().unwrap_or(Err(Error::Closed))?;
        if let Some(format) = portion.get_mut(FILE_FORMAT).filter(|_| self.given == 0) {
            format.fill(ROLLBACK_JOURNAL);
        }
        self.given += portion.len() as u64;
        Ok(portion)
    }
}

/// An error is followed by nothing: [`Error::Busy`] if the snapshot was lost, as when replication is begun or
/// ended meanwhile; then another one is to be taken.
impl<D: Database> Iterator for Snapshot<D> {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.given >= self.bytes {
            return None;
        }
        let portion = self.portion();
        if portion.is_err() {
            self.given = self.bytes;
        }
        Some(portion)
    }
}
