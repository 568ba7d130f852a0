//! Promotion records: the signed links of a group's lineage, one for each reign.

use super::membership::short_text;
use super::{Chain, DeviceId, Epoch, GroupId, Sequence, Signed};
use crate::codec::{DecodeError, Decoder, Encoder};

/// Why a reign began. Numbers are frozen; new reasons are added at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromotionReason {
    /// The group was made.
    Founded,
    /// An operator promoted the replica.
    Promoted,
    /// An archive was restored.
    Restored,
    /// A lost server was recovered from a replica's copy.
    Recovered,
    /// The group moved to another server by plan.
    Transferred,
    /// Two reigns followed one parent, and an operator chose this one.
    Chosen,
    /// One this build has no word for, by its number: a newer server's.
    Unknown(u8),
}

impl PromotionReason {
    const KNOWN: [Self; 6] =
        [Self::Founded, Self::Promoted, Self::Restored, Self::Recovered, Self::Transferred, Self::Chosen];

    fn number(self) -> u8 {
        match self {
            Self::Founded => 0,
            Self::Promoted => 1,
            Self::Restored => 2,
            Self::Recovered => 3,
            Self::Transferred => 4,
            Self::Chosen => 5,
            Self::Unknown(number) => number,
        }
    }

    fn from_number(number: u8) -> Self {
        Self::KNOWN.get(usize::from(number)).copied().unwrap_or(Self::Unknown(number))
    }
}

/// Where the reign before ended, as far as the new one knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// The reign before.
    pub epoch: Epoch,
    /// Its last accepted operation that the new reign holds.
    pub sequence: Sequence,
    /// The chain there.
    pub chain: Chain,
    /// Transaction of the replicated file, when the copy was physical.
    pub transaction: u64,
    /// Digest of its pages there; zero when the copy was not physical.
    pub page_digest: [u8; 16],
}

/// The statement that a device reigns over the group from here on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promotion {
    /// Which group.
    pub group: GroupId,
    /// The new reign.
    pub epoch: Epoch,
    /// The reign before; none when the group was founded.
    pub parent: Option<Parent>,
    /// Reigns of other branches that end here as well, because an operator chose between them; at most
    /// [`Promotion::MAX_ENDS`].
    pub ends: Vec<Epoch>,
    /// The server from here on.
    pub device: DeviceId,
    /// Who decided.
    pub operator: String,
    /// Why.
    pub reason: PromotionReason,
    /// Wall clock of the deciding device, Unix milliseconds. Informs, never decides.
    pub made_at: u64,
}

impl Promotion {
    const MAGIC: [u8; 4] = *b"MFPP";
    const VERSION: u8 = 1;
    /// Branches that one record can end.
    pub const MAX_ENDS: usize = 16;

    /// The bytes to sign, by the device's issuing key.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut to = Encoder::record(Self::MAGIC, Self::VERSION);
        to.fixed(&self.group.0);
        self.epoch.encode(&mut to);
        match &self.parent {
            None => {
                to.fixed(&[0]);
            }
            Some(parent) => {
                to.fixed(&[1]);
                parent.epoch.encode(&mut to);
                to.varint(parent.sequence.0).fixed(&parent.chain.0);
                to.varint(parent.transaction).fixed(&parent.page_digest);
            }
        }
        to.varint(self.ends.len() as u64);
        self.ends.iter().for_each(|epoch| epoch.encode(&mut to));
        to.fixed(&self.device.0).text(&self.operator).fixed(&[self.reason.number()]).varint(self.made_at);
        to.finish()
    }

    /// Parses a signed record; the signature is still to be verified.
    ///
    /// # Errors
    /// Not such a record, or a newer one.
    pub fn decode(bytes: &[u8]) -> Result<Signed<Self>, DecodeError> {
        Signed::split(bytes, Self::parse)
    }

    fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::record(body, Self::MAGIC, Self::VERSION, "promotion")?;
        let promotion = Self {
            group: GroupId(from.array()?),
            epoch: Epoch::decode(&mut from)?,
            parent: if from.flag()? { Some(Parent::decode(&mut from)?) } else { None },
            ends: Self::parse_ends(&mut from)?,
            device: DeviceId(from.array()?),
            operator: short_text(&mut from)?,
            reason: PromotionReason::from_number(from.byte()?),
            made_at: from.varint()?,
        };
        from.finish()?;
        Ok(promotion)
    }

    fn parse_ends(from: &mut Decoder<'_>) -> Result<Vec<Epoch>, DecodeError> {
        let count = from.varint()?;
        if count > Self::MAX_ENDS as u64 {
            return Err(DecodeError::Invalid("too many reigns end with one promotion"));
        }
        (0..count).map(|_| Epoch::decode(from)).collect()
    }
}

impl Parent {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            epoch: Epoch::decode(from)?,
            sequence: Sequence(from.varint()?),
            chain: Chain(from.array()?),
            transaction: from.varint()?,
            page_digest: from.array()?,
        })
    }
}
