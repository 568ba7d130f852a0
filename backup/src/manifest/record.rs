//! The manifest as bytes.
//!
//! **Source**: `docs/formats.md`, "Manifest".

use mfpsync_storage::codec::{DecodeError, Decoder, Encoder};
use mfpsync_storage::model::{
    Chain, ContentHash, Cursor, Epoch, IssuingCertificate, PublicKey, SIGNATURE_BYTES, Sequence, Signed,
};
use ring::signature::{ED25519, UnparsedPublicKey};

use super::{Began, Counts, File, Inventory, Manifest, ManifestError};

const MAGIC: [u8; 4] = *b"MFPV";
const VERSION: u8 = 1;
const NAME: &str = "manifest";

/// Longest manifest that is looked at, in bytes; 256 reigns fit.
pub const MANIFEST_BYTES: usize = 32 << 10;
/// Reigns that are named.
pub(super) const REIGNS: usize = 256;
/// Longest name of a version.
const PROGRAM_BYTES: usize = 64;
/// Longest database or archive: above what the limits of a group allow.
const FILE_BYTES: u64 = 256 << 30;

impl Manifest {
    /// The bytes to sign.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut to = Encoder::record(MAGIC, VERSION);
        self.held.encode(&mut to);
        to.varint(self.reigns.len() as u64);
        for Began { epoch, sequence, chain } in &self.reigns {
            to.varint(epoch.number).fixed(&epoch.nonce).varint(sequence.0).fixed(&chain.0);
        }
        to.varint(self.schema.into());
        self.database.encode(&mut to);
        self.archive.encode(&mut to);
        to.text(&self.program).varint(self.made_at).bytes(&self.issuer.encode());
        to.finish()
    }

    /// Parses a manifest and verifies it as far as it can be by itself: nobody changed it, and the key it was
    /// signed with is certified by the root key it names. Whether that is the group's is told by
    /// [`Manifest::check_group`].
    ///
    /// # Errors
    /// Not a manifest, truncated, newer, malformed, tampered with.
    pub fn decode(bytes: &[u8]) -> Result<Signed<Self>, ManifestError> {
        if bytes.len() > MANIFEST_BYTES {
            return Err(ManifestError::Malformed(DecodeError::Invalid("manifest is too long")));
        }
        // Called what it is by its beginning, whatever becomes of the end.
        let behind_header = Decoder::record(bytes, MAGIC, VERSION, NAME)?;
        if behind_header.rest().len() < SIGNATURE_BYTES {
            return Err(ManifestError::Truncated);
        }
        let signed = Signed::split(bytes, parse)?;
        let Self { issuer, held, .. } = &signed.record;
        let certified =
            verifies(&held.root_key, &issuer.body, &issuer.signature) && issuer.record.group == held.at.group;
        if certified && verifies(&issuer.record.public_key, &signed.body, &signed.signature) {
            Ok(signed)
        } else {
            Err(ManifestError::Tampered)
        }
    }
}

fn parse(body: &[u8]) -> Result<Manifest, DecodeError> {
    let mut from = Decoder::record(body, MAGIC, VERSION, NAME)?;
    let manifest = Manifest {
        held: Inventory::decode(&mut from)?,
        reigns: reigns(&mut from)?,
        schema: u32::try_from(from.varint()?).map_err(|_| DecodeError::Invalid("schema"))?,
        database: File::decode(&mut from)?,
        archive: File::decode(&mut from)?,
        program: program(&mut from)?,
        made_at: from.varint()?,
        issuer: IssuingCertificate::decode(from.bytes()?)?,
    };
    from.finish()?;
    Ok(manifest)
}

fn reigns(from: &mut Decoder<'_>) -> Result<Vec<Began>, DecodeError> {
    let count = from.count()?;
    if count > REIGNS {
        return Err(DecodeError::Invalid("more than 256 reigns"));
    }
    let began = |_| {
        let epoch = Epoch { number: from.varint()?, nonce: from.array()? };
        Ok(Began { epoch, sequence: Sequence(from.varint()?), chain: Chain(from.array()?) })
    };
    (0..count).map(began).collect()
}

fn program(from: &mut Decoder<'_>) -> Result<String, DecodeError> {
    let text = from.text()?;
    if text.len() > PROGRAM_BYTES || !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(DecodeError::Invalid("version of the program"));
    }
    Ok(text.to_owned())
}

impl Inventory {
    pub(crate) fn encode(&self, to: &mut Encoder) {
        to.bytes(&self.at.encode()).fixed(&self.root_key.0);
        to.varint(self.content.items).fixed(&self.content.hash);
        self.counts.encode(to);
    }

    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let (at, root_key) = (Cursor::decode(from.bytes()?)?, PublicKey(from.array()?));
        let content = ContentHash { items: from.varint()?, hash: from.array()? };
        Ok(Self { at, root_key, content, counts: Counts::decode(from)? })
    }
}

impl File {
    pub(crate) fn encode(&self, to: &mut Encoder) {
        to.varint(self.bytes).fixed(&self.sha256);
    }

    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let file = Self { bytes: from.varint()?, sha256: from.array()? };
        if file.bytes > FILE_BYTES { Err(DecodeError::Invalid("file is too long")) } else { Ok(file) }
    }
}

fn verifies(key: &PublicKey, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
    UnparsedPublicKey::new(&ED25519, key.0).verify(message, signature).is_ok()
}
