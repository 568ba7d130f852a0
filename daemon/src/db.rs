//! The databases as async code sees them: the same closures, awaited.

use std::time::Duration;

use mfpsync_storage::{Database, Error, Priority, Result, SHORT_READ, Store};
use tokio::sync::oneshot;

/// Bound on a read a person or a device waits for; no scan keeps it from its connection.
pub const READ_DEADLINE: Duration = SHORT_READ;
/// Bound on a read that walks the whole database: hashes, counts.
pub const SCAN_DEADLINE: Duration = Duration::from_secs(60);

/// A store whose answers are awaited.
#[derive(Debug)]
pub struct Db<D: Database>(Store<D>);

impl<D: Database> Clone for Db<D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D: Database> Db<D> {
    /// Wraps an open store.
    #[must_use]
    pub fn new(store: Store<D>) -> Self {
        Self(store)
    }

    /// The store itself.
    #[must_use]
    pub fn store(&self) -> &Store<D> {
        &self.0
    }

    /// Runs a write and waits until it is on stable storage.
    ///
    /// # Errors
    /// As the closure, or the commit.
    ///
    /// # Cancel safety
    /// Dropping the future does not undo the write: it may still be committed.
    pub async fn write<T: Send + 'static>(
        &self,
        priority: Priority,
        write: impl FnMut(&D::Write<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (tell, told) = oneshot::channel();
        // The receiver is gone when the caller was cancelled; the write stands all the same.
        self.0.write(priority, write, move |result| drop(tell.send(result)));
        told.await.unwrap_or(Err(Error::Closed))
    }

    /// Runs a read of one consistent state.
    ///
    /// # Errors
    /// As the closure, or the deadline.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub async fn read<T: Send + 'static>(
        &self,
        deadline: Duration,
        read: impl FnOnce(&D::Read<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (tell, told) = oneshot::channel();
        self.0.read(deadline, read, move |result| drop(tell.send(result)));
        told.await.unwrap_or(Err(Error::Closed))
    }

    /// Finishes what is queued and closes the file, on a thread that may block.
    ///
    /// # Errors
    /// As [`Store::close`].
    pub async fn close(&self) -> Result<()> {
        let store = self.0.clone();
        tokio::task::spawn_blocking(move || store.close()).await.unwrap_or(Err(Error::Closed))
    }
}
