//! A job as people see it while it goes on, and how it came to nothing.

use std::io;

use mfpsync_backup::archive::ArchiveError;
use mfpsync_backup::manifest::ManifestError;
use mfpsync_backup::restore::RestoreError;
use mfpsync_backup::retention::Refusal;
use mfpsync_backup::store::{self, Cancel, Class, Kind, Protection};
use mfpsync_proto::backup as wire;
use thiserror::Error;
use tokio::sync::watch;

use super::settings::SettingsError;

/// Why a job came to nothing.
#[derive(Debug, Error)]
pub enum JobError {
    /// What is set does not do.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The share.
    #[error(transparent)]
    Share(#[from] store::Error),
    /// The archive could not be made.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The archive could not be opened.
    #[error(transparent)]
    Open(#[from] RestoreError),
    /// The archive's manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A database of this device.
    #[error(transparent)]
    Storage(#[from] mfpsync_storage::Error),
    /// This device's file system.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// It may not be done now.
    #[error("{0}")]
    Refused(String),
    /// It was told to end.
    #[error("stopped")]
    Stopped,
}

impl JobError {
    /// An error of this device's file system.
    pub(super) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }

    /// Of the share, if it is the share's, also while an archive was read from it.
    pub(super) fn of_share(&self) -> Option<&store::Error> {
        match self {
            Self::Share(error) => Some(error),
            Self::Open(RestoreError::Source(source)) => source.get_ref()?.downcast_ref(),
            _ => None,
        }
    }

    /// Whether the next attempt may end otherwise without anybody doing anything.
    pub fn passes(&self) -> bool {
        match self {
            Self::Storage(error) | Self::Archive(ArchiveError::Storage(error)) => {
                error.class() == mfpsync_storage::Class::Busy
            }
            error => error.of_share().is_some_and(|error| error.kind.class() == Class::Retry),
        }
    }

    /// Whether the archive on its way is given up: another one must be made.
    pub(super) fn gives_up(&self) -> bool {
        self.of_share().is_some_and(|error| matches!(error.kind, Kind::Source | Kind::Altered | Kind::Exists))
    }

    /// Whether trying it again can lock an account.
    pub(super) fn locks_accounts(&self) -> bool {
        self.of_share().is_some_and(|error| error.kind == Kind::Auth)
    }

    /// Whether it only says, in whatever way, that the job was told to end.
    pub(super) fn was_told_to_end(&self) -> bool {
        let by_share = self.of_share().is_some_and(|error| error.kind == Kind::Cancelled);
        by_share
            || matches!(
                self,
                Self::Stopped | Self::Archive(ArchiveError::Stopped) | Self::Open(RestoreError::Stopped)
            )
    }

    /// One word for it, for counters and the log.
    pub(super) fn word(&self) -> &'static str {
        if let Some(error) = self.of_share() {
            return match error.kind {
                Kind::Auth => "auth",
                Kind::Guest | Kind::Policy(_) => "policy",
                Kind::NoSuchShare | Kind::NotFound | Kind::WrongType | Kind::InvalidName => "not-found",
                Kind::Denied => "denied",
                Kind::Full => "full",
                Kind::Altered => "altered",
                Kind::Busy | Kind::Lost | Kind::Timeout | Kind::Unreachable => "unreachable",
                Kind::Helper => "helper",
                Kind::NoRoomHere => "device",
                Kind::Cancelled => "stopped",
                Kind::Exists | Kind::TooMany | Kind::Source | Kind::Other => "share",
            };
        }
        match self {
            Self::Settings(_) => "settings",
            Self::Storage(_) | Self::Io { .. } | Self::Archive(_) => "device",
            Self::Open(_) | Self::Manifest(_) => "archive",
            Self::Refused(_) => "refused",
            Self::Stopped | Self::Share(_) => "stopped",
        }
    }

    /// Whether this device's own disk has no room.
    fn is_for_want_of_room_here(&self) -> bool {
        match self {
            Self::Share(error) => error.kind == Kind::NoRoomHere,
            Self::Storage(mfpsync_storage::Error::Full)
            | Self::Archive(ArchiveError::Storage(mfpsync_storage::Error::Full))
            | Self::Open(RestoreError::Full) => true,
            Self::Archive(ArchiveError::Write(source))
            | Self::Open(RestoreError::Scratch(source))
            | Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }

    /// What happened, with what the system said.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Archive(ArchiveError::Write(source))
            | Self::Open(RestoreError::Scratch(source) | RestoreError::Helper(source)) => {
                format!("{self}: {source}")
            }
            _ => self.to_string(),
        }
    }

    /// What happened, what is safe, and what to do next.
    #[must_use]
    pub fn explained(&self) -> String {
        let next = match self.of_share().map(|error| error.kind) {
            Some(Kind::Auth) => {
                "it is not tried again by itself, because accounts lock: enter it again (`mfpsync backup set`)"
            }
            Some(Kind::Guest | Kind::Policy(_)) => {
                "no data was sent: change what the file server does, or what is demanded of it (`mfpsync backup set`)"
            }
            Some(Kind::NoSuchShare | Kind::NotFound | Kind::WrongType | Kind::InvalidName) => {
                "check share and folder (`mfpsync backup test`); the folder must exist"
            }
            Some(Kind::Denied) => "let the account read, write and delete in the folder",
            Some(Kind::Full) => "make room on the share, or keep fewer archives (`mfpsync backup set`)",
            Some(Kind::Altered) => {
                "what the share returns is not what was sent: do not rely on it, check its disks"
            }
            Some(Kind::Busy | Kind::Lost | Kind::Timeout | Kind::Unreachable) => {
                "check the file server and the network between; an upload goes on where it was"
            }
            Some(Kind::Helper) => "the package `mfpsync` is not installed as a whole on this device",
            _ => match self {
                Self::Open(RestoreError::WrongKey) => "check passphrase or key",
                Self::Open(RestoreError::NewerSchema { .. })
                | Self::Manifest(ManifestError::NewerSchema { .. }) => {
                    "install the release that made it, or a later one"
                }
                _ if self.is_for_want_of_room_here() => {
                    "the group's data and the archives on the share are as they were: make room on this device"
                }
                Self::Open(RestoreError::Helper(_)) => {
                    "the package `mfpsync` is not installed as a whole on this device"
                }
                Self::Open(_) | Self::Manifest(_) => {
                    "nothing was changed; take another archive (`mfpsync backup list`)"
                }
                _ => return self.told(),
            },
        };
        format!("{}; {next}", self.told())
    }
}

impl From<Refusal> for JobError {
    fn from(refusal: Refusal) -> Self {
        let next = match refusal {
            Refusal::Short { .. } => {
                "if somebody removed them, say so (`mfpsync backup now --accept-missing`); until then all stay"
            }
            Refusal::TooMany { .. } => "remove some by hand if that is meant; until then all stay",
        };
        Self::Refused(format!("{refusal}; {next}"))
    }
}

/// Where a job says how it goes, and hears whether it is to go on. Clones are of the same job.
#[derive(Debug, Clone)]
pub struct Shown {
    job: watch::Sender<wire::Job>,
    cancel: Cancel,
}

impl Shown {
    pub(super) fn new(job: watch::Sender<wire::Job>, cancel: Cancel) -> Self {
        Self { job, cancel }
    }

    /// By what it is told to end.
    pub(super) fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Whether the schedule began it.
    pub(super) fn is_scheduled(&self) -> bool {
        self.job.borrow().scheduled
    }

    /// Whether it is to go on.
    pub(super) fn goes_on(&self) -> bool {
        !self.cancel.is_cancelled()
    }

    /// Ends a job that was told to.
    pub(super) fn check(&self) -> Result<(), JobError> {
        if self.goes_on() { Ok(()) } else { Err(JobError::Stopped) }
    }

    /// It is at this step, so far.
    pub(super) fn step(&self, step: wire::Step, done: u64, of: u64) {
        self.tell(|job| {
            job.set_step(step);
            (job.done_bytes, job.of_bytes) = (done, of);
            job.retrying.clear();
        });
    }

    /// Something failed and is tried again.
    pub(super) fn retrying(&self, kind: Kind, times: u32) {
        self.tell(|job| job.retrying = format!("{kind}, {times} in a row"));
    }

    /// The connection is protected so.
    pub(super) fn protected(&self, protection: Protection) {
        self.tell(|job| job.protection = protection_text(protection));
    }

    /// The archive that it is about, as far as is known.
    pub(super) fn archive(&self) -> Option<String> {
        self.job.borrow().archive.as_ref().map(|archive| archive.id.clone())
    }

    /// Something else of it.
    pub(super) fn tell(&self, change: impl FnOnce(&mut wire::Job)) {
        self.job.send_modify(change);
    }
}

/// How a connection is protected, for people.
#[must_use]
pub fn protection_text(protection: Protection) -> String {
    let dialect = |number: u16| match number {
        0x0300 => "SMB 3.0",
        0x0302 => "SMB 3.0.2",
        _ => "SMB 3.1.1",
    };
    match protection {
        Protection::Local => "on this machine".to_owned(),
        Protection::Signed(number) => format!("signed, not encrypted, {}", dialect(number)),
        Protection::Encrypted(number) => format!("encrypted, {}", dialect(number)),
    }
}
