//! What did not happen at a server, as the program at the other end of the pipe is told.

use std::io;

use rustix::io::Errno;

use crate::smb::protocol::Answer;
use crate::store::{Class, Kind};

/// Something that did not happen.
#[derive(Debug)]
pub struct Failure {
    /// What the caller has to know.
    pub kind: Kind,
    /// The system's number for it or, negative, the server's status; for people.
    pub number: Option<i32>,
}

impl Failure {
    pub(super) fn answer(&self) -> Answer<'static> {
        Answer::Failed { kind: self.kind, number: self.number }
    }

    /// Whether the connection is of no more use.
    pub(super) fn ends(&self) -> bool {
        self.kind.class() != Class::Fault || matches!(self.kind, Kind::Auth | Kind::Guest | Kind::Policy(_))
    }
}

impl From<Kind> for Failure {
    fn from(kind: Kind) -> Self {
        Self { kind, number: None }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let number = error.raw_os_error();
        Self { kind: number.map_or(Kind::Other, |number| kind_of(Errno::from_raw_os_error(number))), number }
    }
}

/// **Source**: what libsmbclient 4.17 answers to each fault, measured; the tests hold them.
fn kind_of(number: Errno) -> Kind {
    match number {
        Errno::ACCESS | Errno::PERM | Errno::ROFS => Kind::Denied,
        Errno::NOENT => Kind::NotFound,
        Errno::EXIST => Kind::Exists,
        Errno::ISDIR | Errno::NOTDIR => Kind::WrongType,
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Kind::Full,
        Errno::BUSY | Errno::TXTBSY | Errno::AGAIN => Kind::Busy,
        Errno::TIMEDOUT => Kind::Timeout,
        Errno::CONNREFUSED | Errno::HOSTUNREACH | Errno::NETUNREACH => Kind::Unreachable,
        Errno::CONNRESET
        | Errno::CONNABORTED
        | Errno::NETRESET
        | Errno::NOTCONN
        | Errno::PIPE
        | Errno::SHUTDOWN
        | Errno::BADF
        | Errno::IO => Kind::Lost,
        Errno::INVAL | Errno::NAMETOOLONG | Errno::ILSEQ => Kind::InvalidName,
        _ => Kind::Other,
    }
}
