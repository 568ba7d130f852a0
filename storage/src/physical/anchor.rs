//! The anchor: where the master database stood when its log was last folded back, so that after a crash
//! the log leads from there to where it stands now. Pure.
//!
//! It is written before every fold, so it is always of the log that is there, or of the one before it.

use super::page::PageDigest;
use super::position::LogId;
use super::wal::Salts;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::model::sha256;

/// What tells that a file was not touched: its size, and when the kernel last noted a change to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Evidence {
    pub(crate) bytes: u64,
    pub(crate) changed_seconds: i64,
    pub(crate) changed_nanos: i64,
}

/// The run of transactions at one moment, and the log there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Anchor {
    /// The run of transactions.
    pub(crate) log: LogId,
    /// Its last transaction.
    pub(crate) transaction: u64,
    /// Pages of the database.
    pub(crate) pages: u32,
    /// Digest of all of them.
    pub(crate) digest: PageDigest,
    /// The log's salts.
    pub(crate) salts: Salts,
    /// Frames of the log up to this transaction.
    pub(crate) frames: u32,
    /// The database was closed with nothing in its log, and looked like this.
    pub(crate) closed: Option<Evidence>,
    /// What the tap wants to know again.
    pub(crate) kept: Vec<u8>,
}

impl Anchor {
    const MAGIC: [u8; 4] = *b"MFPA";
    const VERSION: u8 = 1;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = Encoder::record(Self::MAGIC, Self::VERSION);
        to.fixed(&self.log.0).varint(self.transaction).varint(self.pages.into());
        to.fixed(&self.digest.to_bytes());
        to.varint(self.salts.count.into()).varint(self.salts.random.into()).varint(self.frames.into());
        match &self.closed {
            None => to.fixed(&[0]),
            Some(evidence) => {
                to.fixed(&[1]).varint(evidence.bytes);
                to.signed(evidence.changed_seconds).signed(evidence.changed_nanos)
            }
        };
        to.bytes(&self.kept);
        let hash = sha256(to.as_bytes());
        to.fixed(&hash);
        to.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (body, hash) = bytes.split_last_chunk::<32>().ok_or(DecodeError::Truncated)?;
        if sha256(body) != *hash {
            return Err(DecodeError::Invalid("anchor is torn"));
        }
        let mut from = Decoder::record(body, Self::MAGIC, Self::VERSION, "anchor")?;
        let anchor = Self {
            log: LogId(from.array()?),
            transaction: from.varint()?,
            pages: word(&mut from)?,
            digest: PageDigest::from_bytes(from.array()?),
            salts: Salts { count: word(&mut from)?, random: word(&mut from)? },
            frames: word(&mut from)?,
            closed: if from.flag()? { Some(Evidence::decode(&mut from)?) } else { None },
            kept: from.bytes()?.to_owned(),
        };
        from.finish()?;
        Ok(anchor)
    }
}

impl Evidence {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { bytes: from.varint()?, changed_seconds: from.signed()?, changed_nanos: from.signed()? })
    }
}

fn word(from: &mut Decoder<'_>) -> Result<u32, DecodeError> {
    u32::try_from(from.varint()?).map_err(|_| DecodeError::Invalid("number over 32 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frozen::record;

    #[test]
    fn an_anchor_is_written_as_released_devices_read_it() {
        let anchor = Anchor {
            log: LogId([2; 16]),
            transaction: 300,
            pages: 70_000,
            digest: PageDigest::from_bytes([3; 16]),
            salts: Salts { count: 5, random: u32::MAX },
            frames: 1_000,
            closed: None,
            kept: vec![4; 5],
        };
        record("anchor-v1.hex", &anchor, &anchor.encode(), Anchor::decode);
        let evidence = Evidence { bytes: 1 << 31, changed_seconds: -1, changed_nanos: 999_999_999 };
        let closed = Anchor { closed: Some(evidence), ..anchor };
        record("anchor-closed-v1.hex", &closed, &closed.encode(), Anchor::decode);
    }

    #[test]
    fn a_damaged_anchor_leads_nowhere() {
        let anchor = Anchor {
            log: LogId([2; 16]),
            transaction: 300,
            pages: 9,
            digest: PageDigest::EMPTY,
            salts: Salts { count: 5, random: 6 },
            frames: 7,
            closed: None,
            kept: vec![4; 5],
        };
        let bytes = anchor.encode();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            assert!(Anchor::decode(&damaged).is_err(), "byte {at}");
            assert!(Anchor::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
