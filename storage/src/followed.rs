//! A database file with a tap, used on the caller's thread: what the writer thread does, one step at a
//! time, for simulations.
//!
//! Nobody is answered here. A caller names what waits for a commit, and is told which of these may be
//! answered; in between it may do what it likes, also leave the files as a killed process leaves them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior};

use crate::checkpoint::Checkpointer;
use crate::error::{Error, Result};
use crate::figures::Figures;
use crate::open;
use crate::physical::{Pages, held};
use crate::store::Database;
use crate::tap::{self, Tap, Tapped};

/// A database file that may have a tap; `J` names what waits for a commit to be confirmed.
pub struct Followed<D: Database, J> {
    path: PathBuf,
    connection: Connection,
    checkpointer: Checkpointer,
    tapped: Option<Tapped<D, J>>,
    /// Nobody follows, so they may be answered.
    free: Vec<J>,
    /// Dropped after the connection.
    held: Option<Arc<File>>,
}

impl<D: Database, J> std::fmt::Debug for Followed<D, J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Followed").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<D: Database, J> Followed<D, J> {
    /// A database file, made when `create` is set.
    ///
    /// # Errors
    /// As [`Store::open`](crate::Store::open).
    pub fn open(path: &Path, create: bool) -> Result<Self> {
        let checkpointer = Checkpointer::truncate_on(Arc::<AtomicBool>::default(), Arc::<Figures>::default());
        let mut connection = open::writable(path, D::KIND, create)?;
        checkpointer.watch(&mut connection)?;
        // What is left of a process that was killed: a log that nobody folded.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        Ok(Self {
            path: path.to_owned(),
            connection,
            checkpointer,
            tapped: None,
            free: Vec::new(),
            held: None,
        })
    }

    /// Has a tap follow the commits from now on, or nobody. Whoever waited for the one before may be answered.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn set_tap(&mut self, tap: Option<Box<dyn Tap<D>>>) -> Result<()> {
        self.held = self.held.take().or_else(|| held::open(&self.path).ok());
        let tapped = tap.map(|tap| Tapped::new(&self.path, tap));
        let before = std::mem::replace(&mut self.tapped, tapped);
        self.free.extend(before.into_iter().flat_map(Tapped::end));
        match &mut self.tapped {
            Some(tapped) => tapped.pages(&self.connection).map(|_| ()),
            None => tap::forget_anchor(&self.path),
        }
    }

    /// Runs one transaction: committed if the closure succeeds, undone if not. `waits` wait for it to be
    /// confirmed, as [`Followed::due`] tells.
    ///
    /// # Errors
    /// As the closure, or the commit.
    pub fn write<T>(&mut self, waits: Vec<J>, write: impl FnOnce(&D::Write<'_>) -> Result<T>) -> Result<T> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if let Some(tapped) = &mut self.tapped {
            tapped.look_for_others(&transaction)?;
        }
        let result = write(&D::write(&transaction))?;
        transaction.commit()?;
        match &mut self.tapped {
            Some(tapped) => tapped.committed(self.checkpointer.frames(), &self.connection, waits)?,
            None => self.free.extend(waits),
        }
        let (tapped, path) = (&self.tapped, &self.path);
        self.checkpointer.after_commit(&self.connection, || {
            tapped.as_ref().map_or_else(|| tap::forget_anchor(path), Tapped::anchor)
        })?;
        Ok(result)
    }

    /// The pages at rest.
    ///
    /// # Errors
    /// There is no tap, or the files cannot be read.
    pub fn pages(&mut self) -> Result<&mut Pages> {
        self.tapped.as_mut().ok_or(Error::Closed)?.pages(&self.connection)
    }

    /// Who is answered now, and whether the commit is confirmed.
    pub fn due(&mut self) -> Vec<(J, bool)> {
        let free = std::mem::take(&mut self.free).into_iter().map(|job| (job, true));
        free.chain(self.tapped.as_mut().map(Tapped::due).unwrap_or_default()).collect()
    }

    /// Reads the current state.
    ///
    /// # Errors
    /// As the closure.
    pub fn read<T>(&self, read: impl FnOnce(&D::Read<'_>) -> Result<T>) -> Result<T> {
        read(&D::read(&self.connection))
    }

    /// Folds the log back and closes the file. Dropping it leaves the files as a killed process does.
    ///
    /// # Errors
    /// A device that fails.
    pub fn close(mut self) -> Result<()> {
        if let Some(tapped) = &mut self.tapped {
            tapped.look_for_others(&self.connection)?;
            tapped.anchor()?;
        }
        let folded = crate::checkpoint::at_close(&self.connection)?;
        match &mut self.tapped {
            Some(tapped) if folded => {
                tapped.look_for_others(&self.connection)?;
                tapped.anchor_closed()
            }
            _ => Ok(()),
        }
    }
}
