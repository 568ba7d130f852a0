//! A look at the copy through SQLite's own eyes.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use crate::error::Result;
use crate::master::{Master, MasterRead};
use crate::open;
use crate::store::Database;

/// The copy as it was committed when this was made.
pub struct Prover {
    connection: Connection,
    /// As long as it is there, the copy's log is not folded.
    _held: Arc<()>,
}

impl std::fmt::Debug for Prover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prover").finish_non_exhaustive()
    }
}

impl Prover {
    pub(super) fn open(path: &Path, held: Arc<()>) -> Result<Self> {
        Ok(Self { connection: open::copy(path)?, _held: held })
    }

    /// What SQLite finds wrong with the copy; nothing if all is right.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn check(&self) -> Result<Vec<String>> {
        let mut statement = self.connection.prepare("PRAGMA integrity_check(10)")?;
        let found = statement.query_map([], |row| row.get::<_, String>(0))?;
        let found: Vec<String> = found.collect::<rusqlite::Result<_>>()?;
        Ok(if found == ["ok"] { Vec::new() } else { found })
    }

    /// Reads the copy.
    ///
    /// # Errors
    /// As the closure.
    pub fn read<T>(&self, read: impl FnOnce(&MasterRead<'_>) -> Result<T>) -> Result<T> {
        read(&Master::read(&self.connection))
    }
}
