//! What is said of an archive in the clear: whose it is, where it stands, how to tell that it is whole. It
//! lies beside the archive, for everybody who can list the share: nothing personal is in it.
//!
//! Signed with the server's issuing key, whose certificate it carries: so the group's root key alone is
//! needed to believe it, as a recovery kit has it; see ADR 29.

mod counts;
mod error;
mod record;
#[cfg(test)]
mod tests;

use mfpsync_storage::master::archived::SCHEMA;
use mfpsync_storage::model::{
    Chain, ContentHash, Cursor, DeviceId, Epoch, GroupId, IssuingCertificate, PublicKey, SIGNATURE_BYTES,
    Sequence, Signed,
};

use crate::archive::Taken;

pub use counts::{Class, Counts};
pub use error::ManifestError;
pub use record::MANIFEST_BYTES;

/// A file: how long, and its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// Length.
    pub bytes: u64,
    /// Hash.
    pub sha256: [u8; 32],
}

/// What a database holds: what it is proven by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// Where it stands.
    pub at: Cursor,
    /// The group's root key.
    pub root_key: PublicKey,
    /// All living items.
    pub content: ContentHash,
    /// How many of what.
    pub counts: Counts,
}

/// Where a reign began: so that an archive's place in a lineage is known without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Began {
    /// The reign.
    pub epoch: Epoch,
    /// The last change of the reign before that it has.
    pub sequence: Sequence,
    /// The chain there.
    pub chain: Chain,
}

/// The description of one archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What the database inside holds.
    pub held: Inventory,
    /// The reigns up to there, oldest first; at most the last 256.
    pub reigns: Vec<Began>,
    /// The database's schema.
    pub schema: u32,
    /// The database inside.
    pub database: File,
    /// The archive.
    pub archive: File,
    /// Which version of this product made it.
    pub program: String,
    /// When, by that server's wall clock, Unix milliseconds. For people; nothing is decided by it.
    pub made_at: u64,
    /// The certificate of the key that signed.
    pub issuer: Signed<IssuingCertificate>,
}

/// What whoever makes a manifest adds to what was taken and proven.
#[derive(Debug, Clone)]
pub struct Maker {
    /// The program's version: at most 64 printable ASCII characters.
    pub program: String,
    /// The wall clock, Unix milliseconds.
    pub made_at: u64,
    /// The certificate of the server's issuing key.
    pub issuer: Signed<IssuingCertificate>,
}

impl Manifest {
    /// Describes an archive that was taken and proven to hold this.
    #[must_use]
    pub fn of(taken: &Taken, held: Inventory, maker: Maker) -> Self {
        let began = taken.lineage.iter().map(|promotion| {
            let promotion = &promotion.record;
            let (sequence, chain) = promotion
                .parent
                .as_ref()
                .map_or((Sequence::ZERO, Chain::START), |parent| (parent.sequence, parent.chain));
            Began { epoch: promotion.epoch, sequence, chain }
        });
        let mut reigns: Vec<Began> = began.collect();
        reigns.drain(..reigns.len().saturating_sub(record::REIGNS));
        Self {
            held,
            reigns,
            schema: SCHEMA,
            database: taken.database,
            archive: taken.archive,
            program: maker.program,
            made_at: maker.made_at,
            issuer: maker.issuer,
        }
    }

    /// Signs it: `sign` is Ed25519 by the issuing key whose certificate it carries.
    #[must_use]
    pub fn sign(self, sign: impl FnOnce(&[u8]) -> [u8; SIGNATURE_BYTES]) -> Signed<Self> {
        let body = self.body();
        Signed { signature: sign(&body), record: self, body }
    }

    /// The server that made it.
    #[must_use]
    pub fn signer(&self) -> DeviceId {
        self.issuer.record.device
    }

    /// Refuses an archive of another group, or one that only claims to be of this group.
    ///
    /// # Errors
    /// [`ManifestError::ForeignGroup`].
    pub fn check_group(&self, group: GroupId, root: &PublicKey) -> Result<(), ManifestError> {
        let found = self.held.at.group;
        if found == group && self.held.root_key == *root {
            return Ok(());
        }
        Err(ManifestError::ForeignGroup(found))
    }

    /// Refuses an archive that this version cannot restore.
    ///
    /// # Errors
    /// [`ManifestError::NewerSchema`].
    pub fn check_schema(&self) -> Result<(), ManifestError> {
        if self.schema > SCHEMA {
            return Err(ManifestError::NewerSchema { found: self.schema, known: SCHEMA });
        }
        Ok(())
    }
}
