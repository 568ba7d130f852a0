//! What goes wrong with a share, by what the caller does next. Numbers of the system and of SMB are read in
//! the helper, never here; texts are never compared.

use std::fmt;

use thiserror::Error;

/// What the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Try again after a while, over a new connection.
    Retry,
    /// A person must change something: settings, rights, room on the share.
    Fault,
    /// The job was told to end.
    Stopped,
}

/// Which demand on the connection the server does not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breach {
    /// It speaks no SMB as new as demanded.
    Dialect,
    /// It does not sign, or accepts what is not signed.
    Signing,
    /// It does not encrypt, or the library cannot, and that was demanded.
    Encryption,
    /// It demands encryption, and that was switched off, or the library cannot.
    EncryptionOff,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// User or password is wrong, or the account may not log in. Never tried again: accounts lock.
    Auth,
    /// The server took the user for a guest or for nobody.
    Guest,
    /// The server does not meet a demand on the connection.
    Policy(Breach),
    /// The server has no such share.
    NoSuchShare,
    /// There is no such file or folder.
    NotFound,
    /// The server does not allow it.
    Denied,
    /// No room on the share.
    Full,
    /// There is something of that name already.
    Exists,
    /// A folder stands where a file is expected, or a file where a folder is.
    WrongType,
    /// Somebody else has the file open, or the server takes no more sessions.
    Busy,
    /// The connection broke.
    Lost,
    /// No answer in time.
    Timeout,
    /// Nobody answers there, or somebody who speaks no SMB.
    Unreachable,
    /// What came back is not what was sent.
    Altered,
    /// The name, the share or the folder cannot be used.
    InvalidName,
    /// The folder holds more than is read.
    TooMany,
    /// The helper program cannot be started, or does not keep to the protocol.
    Helper,
    /// No room on this device for what the helper program writes for itself.
    NoRoomHere,
    /// What is to be uploaded cannot be read, or is not what it was.
    Source,
    /// The job was told to end.
    Cancelled,
    /// Something that has no name here; the number with it is the system's.
    Other,
}

impl Kind {
    /// What the caller does next.
    #[must_use]
    pub fn class(self) -> Class {
        match self {
            Self::Busy | Self::Lost | Self::Timeout | Self::Unreachable => Class::Retry,
            Self::Cancelled => Class::Stopped,
            Self::Auth
            | Self::Guest
            | Self::Policy(_)
            | Self::NoSuchShare
            | Self::NotFound
            | Self::Denied
            | Self::Full
            | Self::Exists
            | Self::WrongType
            | Self::Altered
            | Self::InvalidName
            | Self::TooMany
            | Self::Helper
            | Self::NoRoomHere
            | Self::Source
            | Self::Other => Class::Fault,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Auth => "user or password is refused",
            Self::Guest => "server takes the user for a guest",
            Self::Policy(Breach::Dialect) => "server speaks no SMB as new as demanded",
            Self::Policy(Breach::Signing) => "server does not sign",
            Self::Policy(Breach::Encryption) => "connection would not be encrypted",
            Self::Policy(Breach::EncryptionOff) => {
                "server demands encryption, which is switched off or cannot be had"
            }
            Self::NoSuchShare => "server has no such share",
            Self::NotFound => "no such file or folder",
            Self::Denied => "server does not allow it",
            Self::Full => "share is full",
            Self::Exists => "name is taken",
            Self::WrongType => "a folder is no file",
            Self::Busy => "file is open elsewhere",
            Self::Lost => "connection broke",
            Self::Timeout => "no answer in time",
            Self::Unreachable => "nobody answers there",
            Self::Altered => "what came back is not what was sent",
            Self::InvalidName => "name cannot be used",
            Self::TooMany => "folder holds too many files",
            Self::Helper => "helper program does not work",
            Self::NoRoomHere => "no room on this device",
            Self::Source => "archive cannot be read",
            Self::Cancelled => "told to end",
            Self::Other => "unexpected answer",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Something with a share that did not happen, or of which nobody knows whether it did.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{doing}: {kind}{}", Number(*.number))]
pub struct Error {
    /// What went wrong.
    pub kind: Kind,
    /// What was tried.
    pub doing: &'static str,
    /// The system's number for it or, negative, the server's status, if it had one; for people.
    pub number: Option<i32>,
}

struct Number(Option<i32>);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => Ok(()),
            Some(status) if status < 0 => write!(f, " ({status:#010x})"),
            Some(number) => write!(f, " ({number})"),
        }
    }
}

impl Error {
    /// An error without a number.
    #[must_use]
    pub fn new(doing: &'static str, kind: Kind) -> Self {
        Self { kind, doing, number: None }
    }

    /// An error of this machine's file system.
    #[must_use]
    pub fn local(doing: &'static str, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::NotFound => Kind::NotFound,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => Kind::Denied,
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => Kind::Full,
            Io::AlreadyExists => Kind::Exists,
            Io::IsADirectory | Io::NotADirectory => Kind::WrongType,
            Io::ResourceBusy => Kind::Busy,
            Io::TimedOut => Kind::Timeout,
            Io::StaleNetworkFileHandle | Io::HostUnreachable | Io::NetworkUnreachable => Kind::Lost,
            Io::InvalidFilename => Kind::InvalidName,
            _ => Kind::Other,
        };
        Self { kind, doing, number: error.raw_os_error() }
    }
}

/// Shorthand of this module.
pub type Result<T> = std::result::Result<T, Error>;
