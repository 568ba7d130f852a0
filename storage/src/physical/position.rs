//! Where a copy of the master database stands. Pure.

use super::page::PageDigest;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::model::{Chain, Epoch, GroupId, Sequence};

/// Names one unbroken run of transactions, drawn at random when it begins: at a server's first
/// transaction for a replica, and whenever it cannot prove that nothing was written since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogId(pub [u8; 16]);

/// Where a copy stands: in the run of transactions and page by page, and which of the group's history
/// that amounts to. Two copies of one position are the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Whose data.
    pub group: GroupId,
    /// The run of transactions.
    pub log: LogId,
    /// Its last transaction in the copy.
    pub transaction: u64,
    /// Pages of the database.
    pub pages: u32,
    /// Digest of all of them.
    pub digest: PageDigest,
    /// Whose reign.
    pub epoch: Epoch,
    /// The last accepted operation in the copy.
    pub sequence: Sequence,
    /// The running hash there.
    pub chain: Chain,
}

impl Position {
    const MAGIC: [u8; 4] = *b"MFPX";
    const VERSION: u8 = 1;

    /// Its place in the group's history; only what rises replaces a copy.
    #[must_use]
    pub fn place(&self) -> (u64, Sequence) {
        (self.epoch.number, self.sequence)
    }

    /// The canonical record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Encoder::record(Self::MAGIC, Self::VERSION);
        to.fixed(&self.group.0).fixed(&self.log.0).varint(self.transaction);
        to.varint(self.pages.into()).fixed(&self.digest.to_bytes());
        self.epoch.encode(&mut to);
        to.varint(self.sequence.0).fixed(&self.chain.0);
        to.finish()
    }

    /// Parses the canonical record.
    ///
    /// # Errors
    /// Not such a record, or a newer one.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::record(bytes, Self::MAGIC, Self::VERSION, "position")?;
        let position = Self {
            group: GroupId(from.array()?),
            log: LogId(from.array()?),
            transaction: from.varint()?,
            pages: u32::try_from(from.varint()?).map_err(|_| DecodeError::Invalid("number of pages"))?,
            digest: PageDigest::from_bytes(from.array()?),
            epoch: Epoch::decode(&mut from)?,
            sequence: Sequence(from.varint()?),
            chain: Chain(from.array()?),
        };
        from.finish()?;
        Ok(position)
    }
}
