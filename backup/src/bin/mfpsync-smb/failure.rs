//! The library's errors and the system's numbers, in our words.

use std::io;

use mfpsync_backup::smb::protocol::Answer;
use mfpsync_backup::store::{Breach, Class, Kind};
use pavao::SmbError;
use rustix::io::Errno;

/// Something that did not happen.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    number: Option<i32>,
}

impl Failure {
    pub(crate) fn answer(&self) -> Answer<'static> {
        Answer::Failed { kind: self.kind, number: self.number }
    }

    /// Whether the connection is of no more use.
    pub(crate) fn ends(&self) -> bool {
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

impl From<SmbError> for Failure {
    fn from(error: SmbError) -> Self {
        match error {
            SmbError::Io(error) => error.into(),
            SmbError::NulInPath(_) => Kind::InvalidName.into(),
            SmbError::InvalidProtocolRange { .. } | SmbError::ProtocolConfiguration => {
                Kind::Policy(Breach::Dialect).into()
            }
            SmbError::BadFileDescriptor
            | SmbError::BadValue
            | SmbError::ProtocolConfigurationConflict
            | SmbError::Mutex => Kind::Other.into(),
        }
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
