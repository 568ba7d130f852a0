//! Why a manifest is not believed.

use mfpsync_storage::codec::DecodeError;
use mfpsync_storage::model::GroupId;
use thiserror::Error;

/// Why a manifest is not believed, or its archive not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ManifestError {
    /// Something else.
    #[error("not a manifest")]
    NotAManifest,
    /// It ends early.
    #[error("manifest is truncated")]
    Truncated,
    /// A newer version of this product wrote it.
    #[error("manifest has version {found}, newer than {known} of this version")]
    Newer {
        /// Its version.
        found: u8,
        /// The newest this build knows.
        known: u8,
    },
    /// It breaks a rule that whoever signs keeps.
    #[error("malformed manifest: {0}")]
    Malformed(DecodeError),
    /// It was changed after it was signed, or signed by somebody whom its group did not certify.
    #[error("manifest was tampered with")]
    Tampered,
    /// The archive belongs to another group.
    #[error("archive of another group, {0}")]
    ForeignGroup(GroupId),
    /// A newer version of this product made the archive.
    #[error("archive has schema {found}, newer than {known} of this version")]
    NewerSchema {
        /// Its schema.
        found: u32,
        /// The newest this build knows.
        known: u32,
    },
}

impl From<DecodeError> for ManifestError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Magic("manifest") => Self::NotAManifest,
            DecodeError::Newer { found, known, what: "manifest" } => Self::Newer { found, known },
            DecodeError::Truncated => Self::Truncated,
            error => Self::Malformed(error),
        }
    }
}
