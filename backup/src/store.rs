//! A place for archives, whatever it is: one folder that can be listed, written, read, renamed in and
//! removed from.
//!
//! Blocking throughout: a job runs on a thread of its own, and is told to end by [`Cancel`]. An
//! [`ArchiveStore`] makes connections; a [`Connection`] that broke is dropped and a new one made, so that
//! every demand on the server is checked anew. [`local`] is a directory, [`smb`] a share behind the helper
//! program. Never decides what to keep or what an archive is.

mod cancel;
mod error;
pub mod local;
#[cfg(test)]
pub(crate) mod memory;
mod name;
pub mod smb;

pub use cancel::Cancel;
pub use error::{Breach, Class, Error, Kind, Result};
pub use name::Name;

/// Most bytes in one [`Connection::write`] and one [`Connection::read`].
pub const CHUNK: usize = 1 << 20;

/// Most entries of a folder that are listed; more are [`Kind::TooMany`].
pub const MOST_ENTRIES: usize = 10_000;

/// A file in the folder. Folders and names that are not a [`Name`] are never listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Name,
    /// Its bytes.
    pub size: u64,
}

/// How well a connection is protected, as the connection itself was seen to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// There is no network between: a directory of this machine.
    Local,
    /// Signed SMB of this dialect (0x0311 for 3.1.1), in clear.
    Signed(u16),
    /// Encrypted SMB of this dialect.
    Encrypted(u16),
}

/// A place for archives.
pub trait ArchiveStore {
    /// Makes a connection that has passed every demand on the server, to a folder that exists.
    ///
    /// # Errors
    /// All of [`Kind`] that concern reaching a server and its folder.
    fn connect(&self, cancel: &Cancel) -> Result<Box<dyn Connection>>;
}

/// A folder, over one connection. After an error of [`Class::Retry`] or [`Kind::Cancelled`] a connection is
/// of no more use. One file is open at a time, for writing or for reading.
pub trait Connection {
    /// How well the connection is protected.
    fn protection(&self) -> Protection;

    /// Bytes that are free on the share; advice only.
    ///
    /// # Errors
    /// As the server.
    fn room(&mut self) -> Result<u64>;

    /// The folder's files: all of them, or an error.
    ///
    /// # Errors
    /// As the server; [`Kind::TooMany`].
    fn list(&mut self) -> Result<Vec<Entry>>;

    /// The size of a file, `None` if there is nothing of that name.
    ///
    /// # Errors
    /// As the server; [`Kind::WrongType`] for a folder.
    fn size(&mut self, name: &Name) -> Result<Option<u64>>;

    /// Makes a file that does not exist, and opens it for writing.
    ///
    /// # Errors
    /// [`Kind::Exists`]; as the server.
    fn create(&mut self, name: &Name) -> Result<()>;

    /// Opens a file that exists for writing from `offset` on.
    ///
    /// # Errors
    /// As the server.
    fn resume(&mut self, name: &Name, offset: u64) -> Result<()>;

    /// Appends up to [`CHUNK`] bytes to the file that is open for writing; the server has taken them then.
    ///
    /// # Errors
    /// As the server.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// Closes the file that is open for writing, its bytes on stable storage if the store can have that.
    ///
    /// # Errors
    /// As the server.
    fn finish(&mut self) -> Result<()>;

    /// Opens a file for reading from its start.
    ///
    /// # Errors
    /// As the server; [`Kind::WrongType`] for a folder.
    fn open(&mut self, name: &Name) -> Result<()>;

    /// Reads on, up to [`CHUNK`] bytes; none at the end.
    ///
    /// # Errors
    /// As the server.
    fn read(&mut self) -> Result<Vec<u8>>;

    /// Gives a file another name that is free. Nothing is ever replaced.
    ///
    /// # Errors
    /// [`Kind::Exists`]; as the server. After one of [`Class::Retry`] nobody knows whether it happened.
    fn rename(&mut self, from: &Name, to: &Name) -> Result<()>;

    /// Removes a file, never a folder.
    ///
    /// # Errors
    /// As the server. After one of [`Class::Retry`] nobody knows whether it happened.
    fn remove(&mut self, name: &Name) -> Result<()>;
}
