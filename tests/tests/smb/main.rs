//! Archives on a real SMB server, with faults.
//!
//! Each test has an `smbd` of its own, on an address of its own. What an archive is does not matter here: it is
//! bytes, and its manifest their hash.

mod archive;
mod auth;
mod connection;
mod held;
mod hooked;
mod killed;
mod memory;
mod policy;
mod resuming;
mod secrets;
mod serving;
mod space;

use mfpsync_backup::store::{ArchiveStore, Cancel, Connection, Error, Kind, Result};

/// A connection, or why there is none.
fn connect(store: &dyn ArchiveStore) -> Result<Box<dyn Connection>> {
    store.connect(&Cancel::new()?)
}

/// Why there is no connection.
fn refused(store: &dyn ArchiveStore) -> Option<Kind> {
    connect(store).err().map(|error: Error| error.kind)
}

/// Why something did not happen.
fn kind<T>(result: Result<T>) -> Option<Kind> {
    result.err().map(|error| error.kind)
}
