//! What can go wrong with a database, and what the caller does next. SQLite's own codes are read
//! here and nowhere else.

use std::path::PathBuf;

use rusqlite::types::FromSqlError;
use rusqlite::{ErrorCode, ffi};
use thiserror::Error;

use crate::codec::DecodeError;

/// A database operation that did not happen. Nothing of it was stored.
#[derive(Debug, Error)]
pub enum Error {
    /// No room on the device.
    #[error("storage is full")]
    Full,
    /// The file or its file system does not take writes.
    #[error("storage is read-only")]
    ReadOnly,
    /// The device could not read or write.
    #[error("storage does not read or write")]
    Io(#[source] rusqlite::Error),
    /// A file beside the databases could not be read or written.
    #[error("storage does not read or write a file")]
    File(#[source] std::io::Error),
    /// The write-ahead log is not what the last commit left: where the database stands has to be found
    /// out anew.
    #[error("write-ahead log is not what was written last")]
    LogLost,
    /// A copy's pages are not what the position that was to be committed says. The copy is as it was.
    #[error("pages are not those of the position they are said to lead to")]
    Diverged,
    /// Another program touched the files of a copy: what is in it has to be found out anew.
    #[error("another program touched the copy's files")]
    Tampered,
    /// What was written is on stable storage here, and a second device did not confirm it in time.
    #[error("written here, not confirmed by the replica yet")]
    Unconfirmed,
    /// The file is damaged, or no SQLite database.
    #[error("database is damaged")]
    Corrupt(#[source] rusqlite::Error),
    /// A record inside the database is not what this build wrote.
    #[error("database holds a damaged record: {0}")]
    Record(#[from] DecodeError),
    /// The file belongs to something else.
    #[error("{0} is not a database of mfpsync")]
    Foreign(PathBuf),
    /// The file was written by a newer version.
    #[error("database has schema {found}, newer than {known} of this version")]
    Newer {
        /// The file's schema version.
        found: u32,
        /// The newest this build knows.
        known: u32,
    },
    /// There is no such file, and it was not to be created.
    #[error("{0} does not exist")]
    Missing(PathBuf),
    /// A read took longer than its deadline.
    #[error("read took longer than its deadline")]
    Deadline,
    /// Another connection holds the database, or the queue is full.
    #[error("storage is busy")]
    Busy,
    /// The store was closed.
    #[error("storage is closed")]
    Closed,
    /// The outbox holds as much as it may.
    #[error("{waiting} edits wait for the server, no more fit until it takes some")]
    OutboxFull {
        /// Operations waiting.
        waiting: u64,
    },
    /// An item would exceed what an item may hold.
    #[error("item would hold more than 128 fields or 64 KiB")]
    ItemTooLarge,
    /// An edit that no server could take: malformed, or over a limit of one operation.
    #[error("edit is not acceptable: {0}")]
    Unacceptable(DecodeError),
    /// The user was erased from the group.
    #[error("user was erased from the group")]
    Erased,
    /// The user's items would exceed what one user may hold.
    #[error("the user would have {items} items of {bytes} bytes; 2,000 items and 1 MiB are the most")]
    UserFull {
        /// Items the user would have.
        items: u64,
        /// Their encoded bytes.
        bytes: u64,
    },
    /// A statement is wrong: a defect of this build.
    #[error("database refused a statement")]
    Statement(#[source] rusqlite::Error),
}

/// What the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Try again a little later.
    Busy,
    /// The request itself cannot be met; trying again changes nothing.
    Reject,
    /// A person must look at the device.
    Fault,
}

impl Error {
    /// What the caller does next.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Busy | Self::Deadline | Self::Closed | Self::Unconfirmed => Class::Busy,
            Self::OutboxFull { .. }
            | Self::ItemTooLarge
            | Self::Unacceptable(_)
            | Self::Erased
            | Self::UserFull { .. } => Class::Reject,
            Self::Full
            | Self::ReadOnly
            | Self::Io(_)
            | Self::File(_)
            | Self::LogLost
            | Self::Diverged
            | Self::Tampered
            | Self::Corrupt(_)
            | Self::Record(_)
            | Self::Foreign(_)
            | Self::Newer { .. }
            | Self::Missing(_)
            | Self::Statement(_) => Class::Fault,
        }
    }

    /// Whether the connection can no longer be trusted and must be opened anew: after a failed
    /// write or sync SQLite's own recovery decides what happened, never a second try. One whose log was
    /// opened while it could only be read never writes again.
    pub(crate) fn poisons(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Corrupt(_) | Self::ReadOnly)
    }

    /// The same failure for another request of the group that it ended.
    pub(crate) fn for_neighbour(&self) -> Self {
        match self {
            Self::Full => Self::Full,
            Self::ReadOnly => Self::ReadOnly,
            Self::Io(error) => Self::Io(same_code(error)),
            Self::Corrupt(error) => Self::Corrupt(same_code(error)),
            Self::Missing(path) => Self::Missing(path.clone()),
            Self::Foreign(path) => Self::Foreign(path.clone()),
            Self::Newer { found, known } => Self::Newer { found: *found, known: *known },
            Self::Closed => Self::Closed,
            Self::Record(_)
            | Self::File(_)
            | Self::LogLost
            | Self::Diverged
            | Self::Tampered
            | Self::Unconfirmed
            | Self::Deadline
            | Self::Busy
            | Self::OutboxFull { .. }
            | Self::ItemTooLarge
            | Self::Unacceptable(_)
            | Self::Erased
            | Self::UserFull { .. }
            | Self::Statement(_) => Self::Busy,
        }
    }
}

fn same_code(error: &rusqlite::Error) -> rusqlite::Error {
    let code = error.sqlite_error().map_or(ffi::SQLITE_IOERR, |error| error.extended_code);
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        if let rusqlite::Error::InvalidColumnType(..) = error {
            // Columns have one type in every schema; another one was written by nobody.
            return Self::Corrupt(error);
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ReadOnly) => Self::ReadOnly,
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => Self::Io(error),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt(error),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::OperationInterrupted) => Self::Deadline,
            _ => Self::Statement(error),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full,
            std::io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            _ => Self::File(error),
        }
    }
}

impl From<FromSqlError> for Error {
    fn from(_: FromSqlError) -> Self {
        Self::Record(DecodeError::Invalid("a column holds another type"))
    }
}

/// Shorthand of this crate.
pub type Result<T> = std::result::Result<T, Error>;
