//! What the server answers to an operation, and keeps in its ledger.

use std::fmt;

use super::{Revision, Sequence};
use crate::codec::{DecodeError, Decoder, Encoder};

/// Why an operation was set aside. Numbers are frozen; new reasons are added at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// Not a well-formed operation.
    Malformed,
    /// The same number came before with other content: two devices share one identity.
    NumberReused,
    /// The scope, user or item would exceed a limit.
    OverLimit,
    /// Clients may not write this kind.
    ReadOnlyKind,
    /// A secret was not sealed.
    NotSealed,
    /// It builds on an operation that was itself rejected.
    BuildsOnRejected,
    /// The user was erased, and the author did not know of a readmission.
    Erased,
    /// The item is another device's own.
    OtherDevice,
    /// One this build has no word for, by its number: a newer server's.
    Unknown(u8),
}

impl RejectReason {
    const KNOWN: [Self; 8] = [
        Self::Malformed,
        Self::NumberReused,
        Self::OverLimit,
        Self::ReadOnlyKind,
        Self::NotSealed,
        Self::BuildsOnRejected,
        Self::Erased,
        Self::OtherDevice,
    ];

    fn number(self) -> u8 {
        match self {
            Self::Malformed => 0,
            Self::NumberReused => 1,
            Self::OverLimit => 2,
            Self::ReadOnlyKind => 3,
            Self::NotSealed => 4,
            Self::BuildsOnRejected => 5,
            Self::Erased => 6,
            Self::OtherDevice => 7,
            Self::Unknown(number) => number,
        }
    }

    fn from_number(number: u8) -> Self {
        Self::KNOWN.get(usize::from(number)).copied().unwrap_or(Self::Unknown(number))
    }
}

/// A stable word for APIs and logs.
impl fmt::Display for RejectReason {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Malformed => "malformed",
            Self::NumberReused => "number-reused",
            Self::OverLimit => "over-limit",
            Self::ReadOnlyKind => "read-only-kind",
            Self::NotSealed => "not-sealed",
            Self::BuildsOnRejected => "builds-on-rejected",
            Self::Erased => "erased",
            Self::OtherDevice => "other-device",
            Self::Unknown(number) => return write!(to, "reason-{number}"),
        })
    }
}

/// What became of one edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EditOutcome {
    /// Taken as it was.
    Applied,
    /// Taken, together with what others had changed meanwhile; the other side's losing values of
    /// the named fields are in the history.
    Merged {
        /// Fields where another value stood and lost, or was kept beside this one.
        fields: Vec<String>,
    },
    /// Some or all of its fields lost against a change accepted earlier.
    Superseded {
        /// The change that stands.
        by: Revision,
        /// Fields whose new value was not taken; none when a whole put or delete was not.
        fields: Vec<String>,
    },
    /// Nothing to do: the item was so already.
    Unchanged,
}

/// What became of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Accepted at this revision; one entry for each edit, in order.
    Accepted {
        /// Where in the history.
        revision: Revision,
        /// What became of each edit.
        edits: Vec<EditOutcome>,
    },
    /// Set aside; nothing of it was applied.
    Rejected {
        /// Why.
        reason: RejectReason,
        /// Which edit was the cause.
        edit: usize,
    },
}

const ACCEPTED: u8 = 1;
const REJECTED: u8 = 2;

impl Outcome {
    const MAGIC: [u8; 4] = *b"MFPU";
    const VERSION: u8 = 1;

    /// The revision, if accepted.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        match self {
            Self::Accepted { revision, .. } => Some(*revision),
            Self::Rejected { .. } => None,
        }
    }

    /// The canonical record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Encoder::record(Self::MAGIC, Self::VERSION);
        match self {
            Self::Accepted { revision, edits } => {
                to.fixed(&[ACCEPTED]).varint(revision.epoch).varint(revision.sequence.0);
                to.varint(edits.len() as u64);
                for edit in edits {
                    edit.encode(&mut to);
                }
            }
            Self::Rejected { reason, edit } => {
                to.fixed(&[REJECTED, reason.number()]).varint(*edit as u64);
            }
        }
        to.finish()
    }

    /// Parses the canonical record.
    ///
    /// # Errors
    /// Not such a record, or a newer one.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::record(bytes, Self::MAGIC, Self::VERSION, "outcome")?;
        let outcome = match from.byte()? {
            ACCEPTED => {
                let revision = Revision { epoch: from.varint()?, sequence: Sequence(from.varint()?) };
                let count = from.count()?;
                let edits = (0..count).map(|_| EditOutcome::decode(&mut from)).collect::<Result<_, _>>()?;
                Self::Accepted { revision, edits }
            }
            REJECTED => {
                let reason = RejectReason::from_number(from.byte()?);
                let edit =
                    usize::try_from(from.varint()?).map_err(|_| DecodeError::Invalid("edit number"))?;
                Self::Rejected { reason, edit }
            }
            _ => return Err(DecodeError::Invalid("unknown outcome")),
        };
        from.finish()?;
        Ok(outcome)
    }
}

impl EditOutcome {
    fn encode(&self, to: &mut Encoder) {
        match self {
            Self::Applied => {
                to.fixed(&[1]);
            }
            Self::Merged { fields } => {
                to.fixed(&[2]);
                encode_names(to, fields);
            }
            Self::Superseded { by, fields } => {
                to.fixed(&[3]).varint(by.epoch).varint(by.sequence.0);
                encode_names(to, fields);
            }
            Self::Unchanged => {
                to.fixed(&[4]);
            }
        }
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(match from.byte()? {
            1 => Self::Applied,
            2 => Self::Merged { fields: decode_names(from)? },
            3 => {
                let by = Revision { epoch: from.varint()?, sequence: Sequence(from.varint()?) };
                Self::Superseded { by, fields: decode_names(from)? }
            }
            4 => Self::Unchanged,
            _ => return Err(DecodeError::Invalid("unknown edit outcome")),
        })
    }
}

fn encode_names(to: &mut Encoder, names: &[String]) {
    to.varint(names.len() as u64);
    for name in names {
        to.text(name);
    }
}

fn decode_names(from: &mut Decoder<'_>) -> Result<Vec<String>, DecodeError> {
    (0..from.count()?).map(|_| Ok(from.text()?.to_owned())).collect()
}
