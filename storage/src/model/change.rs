//! Accepted changes as they travel to followers, and content hashes.

use sha2::{Digest as _, Sha256};

use super::{Chain, Fields, ItemKey, Sequence};
use crate::codec::{DecodeError, Decoder, Encoder};

/// One item as the server has it, with the sequence that last changed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which item.
    pub key: ItemKey,
    /// Its place in the order.
    pub sequence: Sequence,
    /// A tombstone: the item was deleted.
    pub deleted: bool,
    /// All its fields; none in a tombstone.
    pub fields: Fields,
}

/// Builds and reads the `changes` bytes of a batch: a header, then change records.
#[derive(Debug)]
pub struct ChangeBatch {
    encoder: Encoder,
    count: u32,
}

impl Default for ChangeBatch {
    fn default() -> Self {
        Self { encoder: Encoder::record(Self::MAGIC, Self::VERSION), count: 0 }
    }
}

impl ChangeBatch {
    const MAGIC: [u8; 4] = *b"MFPB";
    const VERSION: u8 = 1;

    /// Appends a row as stored; `fields` is its canonical encoding, passed on untouched.
    pub(crate) fn push_row(&mut self, key: [&str; 4], sequence: Sequence, deleted: bool, fields: &[u8]) {
        for part in key {
            self.encoder.text(part);
        }
        self.encoder.varint(sequence.0).fixed(&[u8::from(deleted)]).bytes(fields);
        self.count += 1;
    }

    /// Size so far, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.encoder.as_bytes().len()
    }

    /// Whether no change was appended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many changes were appended.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The bytes that travel.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.encoder.finish()
    }

    /// Parses the bytes of a batch.
    ///
    /// # Errors
    /// Not such bytes, newer, or sequences that fall.
    pub fn decode(bytes: &[u8]) -> Result<Vec<Change>, DecodeError> {
        let mut from = Decoder::record(bytes, Self::MAGIC, Self::VERSION, "batch")?;
        let mut changes: Vec<Change> = Vec::new();
        while !from.is_empty() {
            let key = ItemKey::decode(&mut from)?;
            let sequence = Sequence(from.varint()?);
            if changes.last().is_some_and(|last| last.sequence > sequence) {
                return Err(DecodeError::Invalid("sequences fall within a batch"));
            }
            let deleted = from.flag()?;
            let fields = Fields::decode(from.bytes()?)?;
            changes.push(Change { key, sequence, deleted, fields });
        }
        Ok(changes)
    }
}

/// Order-independent hash of the live items of one scope and kind: equal content, equal hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentHash {
    /// Exclusive or of the SHA-256 of every item's key and fields.
    pub hash: [u8; 32],
    /// How many items.
    pub items: u64,
}

impl ContentHash {
    /// The hash of nothing.
    pub const EMPTY: Self = Self { hash: [0; 32], items: 0 };

    /// The hash of all that two hashes are of, which have nothing in common.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.hash.iter_mut().zip(other.hash).for_each(|(byte, with)| *byte ^= with);
        self.items += other.items;
        self
    }

    /// Adds one live item; `fields` is its canonical encoding.
    pub(crate) fn add(&mut self, key: [&str; 4], fields: &[u8]) {
        let mut encoder = Encoder::new();
        for part in key {
            encoder.text(part);
        }
        encoder.bytes(fields);
        for (byte, with) in self.hash.iter_mut().zip(sha256(encoder.as_bytes())) {
            *byte ^= with;
        }
        self.items += 1;
    }
}

impl Chain {
    /// The chain after one accepted operation, over what it did to each item.
    #[must_use]
    pub fn after(self, sequence: Sequence, changes: &[u8]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(self.0);
        hasher.update(sequence.0.to_be_bytes());
        hasher.update(changes);
        Self(hasher.finalize().into())
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
