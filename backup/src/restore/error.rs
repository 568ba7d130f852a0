//! Why an archive is not restored, and how the helper says so.

use std::io;

use mfpsync_storage::Error;
use mfpsync_storage::codec::{DecodeError, Decoder, Encoder};
use mfpsync_storage::master::archived::ArchivedError;
use thiserror::Error;

use crate::archive::KeyError;

/// Why an archive is not restored, or not proven. Nothing has changed.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The passphrase or identity does not open it.
    #[error("wrong passphrase or identity")]
    WrongKey,
    /// Opening it would take more memory than is allowed.
    #[error("archive sealed with an excessive work factor")]
    ExcessiveWork,
    /// It is not sealed as archives are.
    #[error("not an archive")]
    NotAnArchive,
    /// It ends early.
    #[error("archive is truncated")]
    Truncated,
    /// It is not the file that its manifest describes.
    #[error("archive was tampered with")]
    Tampered,
    /// There is more in it than its manifest says.
    #[error("archive holds more than its manifest says")]
    TooLarge,
    /// Not a master database.
    #[error("archive holds something else than a master database")]
    Foreign,
    /// A newer version of this product made it.
    #[error("archived database has schema {found}, newer than {known} of this version")]
    NewerSchema {
        /// Its schema.
        found: u32,
        /// The newest this build knows.
        known: u32,
    },
    /// Its tables are not those of its version.
    #[error("archived database has other tables than its schema")]
    AlteredSchema,
    /// The database inside, or what it was packed in, is damaged.
    #[error("archived database is damaged: {0}")]
    Damaged(String),
    /// A row that no device of ours wrote.
    #[error("archived database has a damaged row in {0}")]
    Row(String),
    /// It is whole, and holds something else than its manifest says.
    #[error("archive does not hold what its manifest says")]
    Differs,
    /// There is no room to open it.
    #[error("no room to open the archive")]
    Full,
    /// This system does not let the helper give up its rights.
    #[error("helper cannot be confined: {0}")]
    Unconfined(String),
    /// This device's storage.
    #[error("open archive: {0}")]
    Storage(String),
    /// The scratch directory.
    #[error("make scratch directory")]
    Scratch(#[source] io::Error),
    /// The archive could not be read where it comes from.
    #[error("read archive")]
    Source(#[source] io::Error),
    /// The helper could not be started or spoken to.
    #[error("run restore helper")]
    Helper(#[source] io::Error),
    /// The helper ended without an answer, by this signal if by one: it went over its limits, or did what it
    /// may not.
    #[error("restore helper died of signal {0:?}")]
    Died(Option<i32>),
    /// The helper is of another version.
    #[error("answer of the restore helper: {0}")]
    Answer(#[from] DecodeError),
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
}

impl From<ArchivedError> for RestoreError {
    fn from(error: ArchivedError) -> Self {
        match error {
            ArchivedError::Foreign => Self::Foreign,
            ArchivedError::Newer { found, known } => Self::NewerSchema { found, known },
            ArchivedError::Schema(_) => Self::AlteredSchema,
            ArchivedError::Damaged(what) => Self::Damaged(what),
            ArchivedError::Row { table, .. } => Self::Row(table.to_owned()),
            ArchivedError::Differs => Self::Differs,
            ArchivedError::Stopped => Self::Stopped,
            ArchivedError::Storage(Error::Full) => Self::Full,
            ArchivedError::Storage(error) => Self::Storage(error.to_string()),
        }
    }
}

impl From<KeyError> for RestoreError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Wrong => Self::WrongKey,
            KeyError::ExcessiveWork => Self::ExcessiveWork,
            _ => Self::NotAnArchive,
        }
    }
}

impl RestoreError {
    /// As the helper says it; what only its caller can find is storage's.
    pub(super) fn encode(&self, to: &mut Encoder) {
        match self {
            Self::WrongKey => to.fixed(&[1]),
            Self::ExcessiveWork => to.fixed(&[2]),
            Self::NotAnArchive => to.fixed(&[3]),
            Self::Truncated => to.fixed(&[4]),
            Self::Tampered => to.fixed(&[5]),
            Self::TooLarge => to.fixed(&[6]),
            Self::Foreign => to.fixed(&[7]),
            Self::NewerSchema { found, known } => {
                to.fixed(&[8]).varint((*found).into()).varint((*known).into())
            }
            Self::AlteredSchema => to.fixed(&[9]),
            Self::Damaged(what) => to.fixed(&[10]).text(what),
            Self::Row(table) => to.fixed(&[11]).text(table),
            Self::Differs => to.fixed(&[12]),
            Self::Full => to.fixed(&[13]),
            Self::Unconfined(why) => to.fixed(&[14]).text(why),
            Self::Storage(what) => to.fixed(&[15]).text(what),
            other => to.fixed(&[15]).text(&other.to_string()),
        };
    }

    pub(super) fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let word = |from: &mut Decoder<'_>| {
            u32::try_from(from.varint()?).map_err(|_| DecodeError::Invalid("number over 32 bits"))
        };
        Ok(match from.byte()? {
            1 => Self::WrongKey,
            2 => Self::ExcessiveWork,
            3 => Self::NotAnArchive,
            4 => Self::Truncated,
            5 => Self::Tampered,
            6 => Self::TooLarge,
            7 => Self::Foreign,
            8 => Self::NewerSchema { found: word(from)?, known: word(from)? },
            9 => Self::AlteredSchema,
            10 => Self::Damaged(from.text()?.to_owned()),
            11 => Self::Row(from.text()?.to_owned()),
            12 => Self::Differs,
            13 => Self::Full,
            14 => Self::Unconfined(from.text()?.to_owned()),
            15 => Self::Storage(from.text()?.to_owned()),
            _ => return Err(DecodeError::Invalid("reason of the restore helper")),
        })
    }
}
