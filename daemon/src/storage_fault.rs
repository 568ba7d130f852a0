//! What a database error means to people and to peers: the one translation into faults and the one
//! into refusals.

use std::sync::atomic::{AtomicBool, Ordering};

use mfpsync_proto::sync::Reason;
use mfpsync_storage::{Class, Error};
use tonic::{Code, Status};

use crate::fault::{Fault, FaultBoard, FaultCode};
use crate::refusal::status;

/// Faults that end by themselves once the storage takes a write again.
const PASSING: [FaultCode; 4] =
    [FaultCode::DiskFull, FaultCode::DiskIo, FaultCode::ReadOnly, FaultCode::OutboxFull];

/// Shows the faults of one database, and takes them down when it works again.
#[derive(Debug)]
pub struct StorageFaults {
    board: FaultBoard,
    /// Something stands: a working write has a look at the board only then.
    standing: AtomicBool,
}

impl StorageFaults {
    /// Shows them on `board`.
    #[must_use]
    pub fn new(board: FaultBoard) -> Self {
        Self { board, standing: AtomicBool::new(false) }
    }

    /// Notes how a write ended, and hands the result on.
    ///
    /// # Errors
    /// The write's own.
    pub fn written<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        match &result {
            Ok(_) if self.standing.swap(false, Ordering::Relaxed) => {
                PASSING.into_iter().for_each(|code| self.board.clear(code));
            }
            Ok(_) => {}
            Err(error) => self.failed(error),
        }
        result
    }

    /// Shows what a person should see to.
    pub fn failed(&self, error: &Error) {
        if matches!(error, Error::Erased | Error::UserFull { .. } | Error::Unconfirmed) {
            // The caller's own or the replica's, and the database is well.
            return;
        }
        tracing::warn!(%error, "database");
        if let Some(fault) = fault(error) {
            self.standing.store(true, Ordering::Relaxed);
            self.board.set(fault);
        }
    }
}

/// The fault a person should see to; none for what passes or is the caller's own.
fn fault(error: &Error) -> Option<Fault> {
    let code = match error {
        Error::Full => FaultCode::DiskFull,
        Error::ReadOnly => FaultCode::ReadOnly,
        Error::Io(_) | Error::File(_) | Error::LogLost | Error::Statement(_) => FaultCode::DiskIo,
        Error::Diverged | Error::Tampered => FaultCode::ReplicaWrong,
        Error::Corrupt(_) | Error::Record(_) | Error::Foreign(_) | Error::Missing(_) => FaultCode::DbCorrupt,
        Error::Newer { .. } => FaultCode::DbNewer,
        Error::OutboxFull { .. } => FaultCode::OutboxFull,
        Error::Deadline
        | Error::Busy
        | Error::Closed
        | Error::Unconfirmed
        | Error::ItemTooLarge
        | Error::Unacceptable(_)
        | Error::Erased
        | Error::UserFull { .. } => return None,
    };
    Some(Fault::with_detail(code, chain(error)))
}

/// The fault that keeps a part from starting.
#[must_use]
pub fn start_fault(error: &Error) -> Fault {
    fault(error).unwrap_or_else(|| Fault::with_detail(FaultCode::DiskIo, chain(error)))
}

/// The answer to a caller whose request met the error.
#[must_use]
pub fn refusal(error: &Error) -> Status {
    match error {
        Error::Full => status(
            Code::ResourceExhausted,
            Reason::StorageFull,
            "the storage is full; nothing of this request was stored, everything stored before is safe",
        ),
        Error::OutboxFull { .. } => status(Code::ResourceExhausted, Reason::OverLimit, error.to_string()),
        Error::Erased => Status::failed_precondition(
            "this user was erased from the group; nothing was stored. An operator can open the name again at \
             the server: `mfpsync users readmit`",
        ),
        Error::UserFull { .. } => status(
            Code::ResourceExhausted,
            Reason::OverLimit,
            format!("{error}; nothing of this request was stored, everything stored before is safe"),
        ),
        Error::Unconfirmed => status(
            Code::Unavailable,
            Reason::Busy,
            "the replica does not answer, and nothing is confirmed without it; the change is on the server's \
             disk and counts once, however often it is sent again",
        ),
        Error::ItemTooLarge => status(Code::InvalidArgument, Reason::OverLimit, error.to_string()),
        Error::Unacceptable(_) => status(Code::InvalidArgument, Reason::Malformed, chain(error)),
        _ if error.class() == Class::Busy => status(Code::Unavailable, Reason::Busy, error.to_string()),
        _ => status(
            Code::FailedPrecondition,
            Reason::StorageFault,
            format!("{}; nothing of this request was stored", chain(error)),
        ),
    }
}

/// The error with its sources; SQLite's own texts name no data.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
