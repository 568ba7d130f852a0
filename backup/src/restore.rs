//! From an archive to a database again: in a process of its own, which is given the bytes and a scratch
//! directory and can do nothing else. I-18.
//!
//! [`Helper::prove`] is how an archive becomes a good one, and a drill. [`Helper::restore`] gives a
//! [`Restored`], over which nobody reigns yet.

mod child;
mod confine;
mod error;
mod helper;
mod protocol;
mod scratch;
mod unpack;

use std::io::Read;
use std::path::{Path, PathBuf};

use mfpsync_storage::Inline;
use mfpsync_storage::master::{Master, MasterRead};
use mfpsync_storage::model::Cursor;

use crate::archive::{Key, Taken};
use crate::manifest::{File, Inventory, Manifest};
use protocol::{Request, Task};
use scratch::Scratch;

pub use error::RestoreError;
pub use helper::main as helper_main;

/// The program that opens archives, `mfpsync-restore`.
#[derive(Debug, Clone)]
pub struct Helper {
    program: PathBuf,
}

/// What an archive is to be.
#[derive(Debug, Clone)]
pub struct Sought {
    database: File,
    archive: File,
    at: Cursor,
    held: Option<Inventory>,
}

impl From<&Taken> for Sought {
    fn from(taken: &Taken) -> Self {
        let Taken { database, archive, .. } = *taken;
        Self { database, archive, at: taken.head.cursor(), held: None }
    }
}

impl From<&Manifest> for Sought {
    fn from(manifest: &Manifest) -> Self {
        let Manifest { database, archive, .. } = *manifest;
        Self { database, archive, at: manifest.held.at, held: Some(manifest.held.clone()) }
    }
}

impl Sought {
    fn check(&self, held: &Inventory) -> Result<(), RestoreError> {
        let is = held.at == self.at && self.held.as_ref().is_none_or(|sought| sought == held);
        if is { Ok(()) } else { Err(RestoreError::Differs) }
    }
}

impl Helper {
    /// Where the program is.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self { program }
    }

    /// Opens an archive in scratch: it is what it is said to be, SQLite finds nothing wrong with the database
    /// inside, and that holds what it should. I-20. Blocks a thread; `stop` is asked several times a second.
    ///
    /// Below `directory`, on any file system, there must be room for the database; nothing is left there.
    ///
    /// # Errors
    /// What is wrong with the archive, by name; or that it could not be told.
    pub fn prove(
        &self,
        archive: impl Read,
        sought: &Sought,
        key: &Key,
        directory: &Path,
        stop: &dyn Fn() -> bool,
    ) -> Result<Inventory, RestoreError> {
        let scratch = Scratch::new(directory)?;
        self.run(Task::Prove, archive, sought, key, &scratch, stop)
    }

    /// As [`Helper::prove`], and reads the rows into a database of our own making. There must be room for both,
    /// on the file system where the database is to be.
    ///
    /// # Errors
    /// As [`Helper::prove`]; then nothing is left.
    pub fn restore(
        &self,
        archive: impl Read,
        sought: &Sought,
        key: &Key,
        directory: &Path,
        stop: &dyn Fn() -> bool,
    ) -> Result<Restored, RestoreError> {
        let scratch = Scratch::new(directory)?;
        let held = self.run(Task::Restore, archive, sought, key, &scratch, stop)?;
        Ok(Restored { scratch, held })
    }

    fn run(
        &self,
        task: Task,
        archive: impl Read,
        sought: &Sought,
        key: &Key,
        scratch: &Scratch,
        stop: &dyn Fn() -> bool,
    ) -> Result<Inventory, RestoreError> {
        let Sought { database, archive: file, .. } = *sought;
        let request = Request { task, database, archive: file, scratch: scratch.path().to_owned() };
        let held = child::run(&self.program, &request.encode(key), archive, stop)?;
        sought.check(&held)?;
        Ok(held)
    }
}

/// A database that was made from an archive, and over which nobody reigns. It goes when this is dropped.
#[derive(Debug)]
pub struct Restored {
    scratch: Scratch,
    held: Inventory,
}

impl Restored {
    /// What it holds.
    #[must_use]
    pub fn held(&self) -> &Inventory {
        &self.held
    }

    /// Reads it: for a preview, and to see what happened since.
    ///
    /// # Errors
    /// As the closure; the database's.
    pub fn read<T>(
        &self,
        read: impl FnOnce(&MasterRead<'_>) -> mfpsync_storage::Result<T>,
    ) -> mfpsync_storage::Result<T> {
        Inline::<Master>::open(&self.scratch.fresh(), false)?.read(read)
    }

    /// Moves it to `path`, at once and as a whole. A reign over it begins there, when it is known what happened since:
    /// [`MasterWrite::begin_restored_reign`](mfpsync_storage::master::MasterWrite::begin_restored_reign).
    ///
    /// # Errors
    /// The place is taken; the file system's. Nothing is left then.
    pub fn stage(self, path: &Path) -> mfpsync_storage::Result<()> {
        Inline::<Master>::open(&self.scratch.fresh(), false)?.close()?;
        mfpsync_storage::place(&self.scratch.fresh(), path)
    }
}
