//! A database file in use: one writer thread, a few read-only connections, and the handle that is
//! cheap to clone. Callers give closures and a completion; no runtime is needed here.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use crate::checkpoint;
use crate::error::{Error, Result};
use crate::figures::Figures;
use crate::open::{self, FileKind};
use crate::physical::Pages;
use crate::physical::moment::Claim;
use crate::readers::Readers;
use crate::snapshot::Snapshot;
use crate::tap::Tap;
use crate::writer::{PagesWork, Published, Writer};

/// What one kind of database can do inside a transaction.
pub trait Database: Send + Sync + 'static {
    /// The file's mark and schema.
    const KIND: FileKind;
    /// Reads of one consistent state.
    type Read<'c>;
    /// Reads and writes of one transaction.
    type Write<'c>;
    /// Wraps a connection for reading.
    fn read(connection: &Connection) -> Self::Read<'_>;
    /// Wraps a connection inside a write transaction.
    fn write(connection: &Connection) -> Self::Write<'_>;
}

/// Which queued write goes first into the next commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// A person waits at this device's panel.
    Panel,
    /// Another device waits.
    Sync,
}

/// A handle on an open database. The file is closed when the last clone is dropped, or by
/// [`Store::close`].
pub struct Store<D: Database> {
    inner: Arc<Inner<D>>,
}

struct Inner<D: Database> {
    path: PathBuf,
    // Ended first: the writer has the descriptor whose end gives up their locks.
    readers: Readers<D>,
    writer: Writer<D>,
}

impl<D: Database> Clone for Store<D> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<D: Database> std::fmt::Debug for Store<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

impl<D: Database> Store<D> {
    /// Opens a database, creating it when `create` is set.
    ///
    /// `published` runs on the writer thread after each commit that is on stable storage, before
    /// the writers are answered.
    ///
    /// # Errors
    /// A missing, foreign, damaged or newer file, or a device that fails.
    pub fn open(path: &Path, create: bool, published: Published<D>) -> Result<Self> {
        let writer = Writer::start(path, create, published)?;
        let readers = Readers::start(path)?;
        Ok(Self { inner: Arc::new(Inner { path: path.to_owned(), writer, readers }) })
    }

    /// Queues a write. `done` gets the result once the commit that holds it is on stable storage;
    /// it runs on the writer thread and must not block.
    ///
    /// The closure may run again, when one it was to be committed with failed: what it did before is undone.
    pub fn write<T: Send + 'static>(
        &self,
        priority: Priority,
        write: impl FnMut(&D::Write<'_>) -> Result<T> + Send + 'static,
        done: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        self.inner.writer.submit(priority, write, done);
    }

    /// Queues a read of one consistent state; with a deadline beyond [`SHORT_READ`](crate::SHORT_READ) it
    /// is a scan, and waits for other scans. `done` runs on a reader thread and must not block.
    pub fn read<T: Send + 'static>(
        &self,
        deadline: Duration,
        read: impl FnOnce(&D::Read<'_>) -> Result<T> + Send + 'static,
        done: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        self.inner.readers.submit(deadline, || false, read, done);
    }

    /// [`Store::read`], given up when `stop` says so.
    pub fn read_unless<T: Send + 'static>(
        &self,
        stop: impl Fn() -> bool + Send + 'static,
        deadline: Duration,
        read: impl FnOnce(&D::Read<'_>) -> Result<T> + Send + 'static,
        done: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        self.inner.readers.submit(deadline, stop, read, done);
    }

    /// [`Store::write`] for callers with a thread of their own: waits for the result.
    ///
    /// # Errors
    /// As the closure, or the commit.
    pub fn write_and_wait<T: Send + 'static>(
        &self,
        write: impl FnMut(&D::Write<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        self.write(Priority::Panel, write, move |result| drop(tell.send(result)));
        told.recv().unwrap_or(Err(Error::Closed))
    }

    /// [`Store::read`] for callers with a thread of their own: waits for the result.
    ///
    /// # Errors
    /// As the closure, or the deadline.
    pub fn read_and_wait<T: Send + 'static>(
        &self,
        deadline: Duration,
        read: impl FnOnce(&D::Read<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        self.read(deadline, read, move |result| drop(tell.send(result)));
        told.recv().unwrap_or(Err(Error::Closed))
    }

    /// Has a tap follow the commits from now on, or nobody. What is queued already is committed before
    /// or after; whoever waits for another tap's verdict is answered.
    pub fn set_tap(&self, tap: Option<Box<dyn Tap<D>>>) {
        self.inner.writer.set_tap(tap);
    }

    /// Gives work to the tap: `job` runs on the writer thread with the pages at rest, and must be short.
    /// It gets an error if there is no tap, or the files cannot be read.
    pub fn with_pages(&self, job: impl FnOnce(Result<(&mut Pages, D::Read<'_>)>) + Send + 'static) {
        self.inner.writer.with_pages(PagesWork { job: Box::new(job), anyway: false });
    }

    /// As [`Store::with_pages`], also without a tap.
    pub(crate) fn with_pages_anyway(
        &self,
        job: impl FnOnce(Result<(&mut Pages, D::Read<'_>)>) + Send + 'static,
    ) {
        self.inner.writer.with_pages(PagesWork { job: Box::new(job), anyway: true });
    }

    /// The pages as of now, to be read at leisure, and what `read` finds in them. For callers with a thread
    /// of their own.
    ///
    /// # Errors
    /// [`Error::Busy`] while another snapshot is being read; the file system's; as the closure.
    pub fn snapshot<T: Send + 'static>(
        &self,
        read: impl FnOnce(&D::Read<'_>) -> Result<T> + Send + 'static,
    ) -> Result<(Snapshot<D>, T)> {
        let (claim, path) = (Claim::default(), self.inner.path.clone());
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let held = claim.clone();
        self.with_pages_anyway(move |pages| {
            let begun = pages.and_then(|(pages, state)| {
                let found = read(&state)?;
                Ok((pages.hold_moment(&path, held)?, found))
            });
            drop(tell.send(begun));
        });
        let (pages, found) = told.recv().unwrap_or(Err(Error::Closed))?;
        Ok((Snapshot::new(self.clone(), claim, pages), found))
    }

    /// Size of the database and its log, in bytes.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        (size(&self.inner.path), size(&open::with_suffix(&self.inner.path, "-wal")))
    }

    /// What its writer counted since it was opened.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        self.inner.writer.figures()
    }

    /// Has the log folded back and emptied as soon as its readers allow, so that nothing that was
    /// overwritten lives on in it. Returns at once; it is tried again after each commit.
    pub fn truncate_log(&self) {
        self.inner.writer.truncate_log();
        // An empty write makes the writer look; how it ends does not matter.
        self.write(Priority::Sync, |_| Ok(()), drop);
    }

    /// Refuses further work, finishes what is queued but scans, folds the log back and closes the file.
    /// Blocks until that is done.
    ///
    /// # Errors
    /// A device that fails in the last checkpoint; what was acknowledged is safe in the log.
    pub fn close(&self) -> Result<()> {
        self.inner.readers.stop();
        self.inner.writer.stop()
    }
}

/// A database used directly on the caller's thread: simulations and tools.
#[derive(Debug)]
pub struct Inline<D: Database> {
    connection: Connection,
    database: std::marker::PhantomData<D>,
}

impl<D: Database> Inline<D> {
    /// A database in memory.
    ///
    /// # Errors
    /// None in practice: memory has no device to fail.
    pub fn in_memory() -> Result<Self> {
        Ok(Self { connection: open::in_memory(D::KIND)?, database: std::marker::PhantomData })
    }

    /// A database file.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open(path: &Path, create: bool) -> Result<Self> {
        let connection = open::writable(path, D::KIND, create)?;
        Ok(Self { connection, database: std::marker::PhantomData })
    }

    /// Runs one transaction: committed if the closure succeeds, undone if not.
    ///
    /// # Errors
    /// As the closure, or the commit.
    pub fn write<T>(&mut self, write: impl FnOnce(&D::Write<'_>) -> Result<T>) -> Result<T> {
        let transaction = self.connection.transaction()?;
        let result = write(&D::write(&transaction))?;
        transaction.commit()?;
        Ok(result)
    }

    /// Folds the log back and closes the file, which then stands alone.
    ///
    /// # Errors
    /// A device that fails, or [`Error::Busy`] while somebody else reads it.
    pub fn close(self) -> Result<()> {
        if !checkpoint::at_close(&self.connection)? {
            return Err(Error::Busy);
        }
        self.connection.close().map_err(|(_connection, error)| error.into())
    }

    /// A database in memory that holds what is here now: what an image of a disk would.
    ///
    /// # Errors
    /// What is here cannot be read.
    pub fn image(&self) -> Result<Self> {
        let mut connection = open::in_memory(D::KIND)?;
        let copying = rusqlite::backup::Backup::new(&self.connection, &mut connection)?;
        copying.step(-1)?;
        drop(copying);
        Ok(Self { connection, database: std::marker::PhantomData })
    }

    /// Reads the current state.
    ///
    /// # Errors
    /// As the closure.
    pub fn read<T>(&self, read: impl FnOnce(&D::Read<'_>) -> Result<T>) -> Result<T> {
        read(&D::read(&self.connection))
    }
}
