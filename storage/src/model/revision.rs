//! Where in the group's history something stands.

use super::{Chain, GroupId, Sequence, limit};
use crate::codec::{DecodeError, Decoder, Encoder};

/// One reign of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// Rises at every promotion, restore, recovery and transfer; from 1.
    pub number: u64,
    /// Random; tells apart two reigns born from the same parent.
    pub nonce: [u8; 16],
}

impl Epoch {
    pub(crate) fn encode(&self, to: &mut Encoder) {
        to.varint(self.number).fixed(&self.nonce);
    }

    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { number: from.varint()?, nonce: from.array()? })
    }
}

/// The server-given order of an accepted change, with the number of the epoch that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision {
    /// The epoch's number; zero before any.
    pub epoch: u64,
    /// The sequence.
    pub sequence: Sequence,
}

/// Up to where a device has everything; meaningless without all of it.
///
/// Its records have a filter too: what of the history the device asked for. There is none but the empty
/// one, everything; any other is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Whose history.
    pub group: GroupId,
    /// Whose reign.
    pub epoch: Epoch,
    /// Up to which accepted operation.
    pub sequence: Sequence,
    /// The running hash there.
    pub chain: Chain,
}

impl Cursor {
    const MAGIC: [u8; 4] = *b"MFPC";
    const VERSION: u8 = 1;

    /// The canonical record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Encoder::record(Self::MAGIC, Self::VERSION);
        to.fixed(&self.group.0);
        self.epoch.encode(&mut to);
        to.varint(self.sequence.0).fixed(&self.chain.0).bytes(&[]);
        to.finish()
    }

    /// Parses the canonical record.
    ///
    /// # Errors
    /// Not such a record, a newer one, or one with a filter.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::record(bytes, Self::MAGIC, Self::VERSION, "cursor")?;
        let cursor = Self {
            group: GroupId(from.array()?),
            epoch: Epoch::decode(&mut from)?,
            sequence: Sequence(from.varint()?),
            chain: Chain(from.array()?),
        };
        match from.bytes()?.len() {
            0 => {}
            1..=limit::FILTER_BYTES => return Err(DecodeError::Invalid("filter of cursor is not known")),
            _ => return Err(DecodeError::Invalid("filter of cursor is too long")),
        }
        from.finish()?;
        Ok(cursor)
    }
}
