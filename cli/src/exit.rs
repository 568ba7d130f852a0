//! What a command ends with: the exit code for scripts and the sentence for people.
//!
//! Owns the one list of exit codes and the one translation from errors to them. Every command
//! returns `Result<Exit, Failure>`; `main` alone turns that into a process status.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tonic::{Code, Status};

/// The exit codes, as `--help` lists them.
pub(crate) const EXIT_HELP: &str = "\
Exit codes:
  0  done
  1  the daemon refused, or something failed
  2  wrong usage
  3  the daemon is not reachable
  4  the input file is unusable
  5  timed out waiting
  6  something needs a person: `mfpsync status` names the fault";

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Ok = 0,
    Refused = 1,
    Usage = 2,
    Unreachable = 3,
    BadInput = 4,
    TimedOut = 5,
    NeedsPerson = 6,
}

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The socket could not be opened.
    #[error("cannot reach mfpsyncd at {}: {source}\n{hint}", socket.display())]
    Unreachable { socket: PathBuf, source: io::Error, hint: &'static str },
    /// The daemon went away while it was being asked.
    #[error("mfpsyncd closed the connection before it answered; see `mfpsync status`, then repeat")]
    ConnectionLost,
    /// The daemon's own answer, already written for people.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    /// The command itself could not go on.
    #[error("{0}")]
    Failed(String),
    /// The arguments make no sense together.
    #[error("{0}")]
    Usage(String),
    /// The input file cannot be used; nothing was stored.
    #[error("{0}")]
    BadInput(String),
    /// An import that stopped on the way.
    #[error(
        "{source}\n{stored} of {total} entries are stored, and the write that failed is stored wholly or not at \
         all; run the same command again to finish: what is there already is skipped"
    )]
    Partial { stored: u64, total: u64, source: Box<Failure> },
    /// Something was done before the step that failed, and the operator has to know it.
    #[error("{source}\n{stands}")]
    Halfway { stands: &'static str, source: Box<Failure> },
    /// A file of the operator's could not be read or written.
    #[error("{action} {}: {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    /// The wait was longer than allowed.
    #[error("{what} did not happen within {} s; it may still: see `mfpsync status`", waited.as_secs())]
    TimedOut { what: String, waited: Duration },
    /// The daemon shows a fault that only a person can clear.
    #[error("{0}")]
    NeedsPerson(String),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// Standard output cannot be written; a closed pipe is the reader's choice.
    #[error("write the output: {0}")]
    Output(io::Error),
}

impl Failure {
    /// An import that `source` ended: a refusal of its very first write says all there is to say, and
    /// repeating the command would not help.
    pub(crate) fn stopped_at(stored: u64, total: u64, source: Self) -> Self {
        match source {
            Self::Refused(_) if stored == 0 => source,
            _ => Self::Partial { stored, total, source: Box::new(source) },
        }
    }

    /// The exit code scripts see.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. } | Self::ConnectionLost => Exit::Unreachable,
            Self::Refused(status) => exit_of(status.code()),
            Self::Failed(_) | Self::File { .. } | Self::Interrupted => Exit::Refused,
            Self::Partial { source, .. } | Self::Halfway { source, .. } => source.exit(),
            Self::Usage(_) => Exit::Usage,
            Self::BadInput(_) => Exit::BadInput,
            Self::TimedOut { .. } => Exit::TimedOut,
            Self::NeedsPerson(_) => Exit::NeedsPerson,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
            Self::Output(_) => Exit::Refused,
        }
    }
}

impl From<Status> for Failure {
    /// A status made on this side of the socket carries its cause; one the daemon sent does not.
    fn from(status: Status) -> Self {
        if status.source().is_some() { Self::ConnectionLost } else { Self::Refused(Box::new(status)) }
    }
}

/// Several gRPC codes share one exit code: a script can only act on the difference made here.
fn exit_of(code: Code) -> Exit {
    match code {
        Code::Ok => Exit::Ok,
        Code::InvalidArgument => Exit::Usage,
        Code::DeadlineExceeded => Exit::TimedOut,
        Code::Cancelled
        | Code::Unknown
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => Exit::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_shows_the_daemons_own_words() {
        let failure = Failure::from(Status::failed_precondition("this device is a replica already"));
        assert_eq!(failure.to_string(), "this device is a replica already");
        assert_eq!(failure.exit(), Exit::Refused);
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        assert_eq!(Failure::Output(io::ErrorKind::BrokenPipe.into()).exit(), Exit::Ok);
    }

    #[test]
    fn each_exit_code_is_documented() {
        for code in 0..=Exit::NeedsPerson as u8 {
            assert!(EXIT_HELP.contains(&format!("\n  {code}  ")), "{code}");
        }
    }
}
