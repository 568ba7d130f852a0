//! What a device asks the server to do: an operation of one or more edits that belong together.

use super::change::sha256;
use super::{ERASED_KIND, Fields, ItemKey, OperationNumber, Revision, Sequence, limit};
use crate::codec::{DecodeError, Decoder, Encoder};

/// SHA-256 of what an operation asks for: a repeated one must ask for the same to the last bit.
pub type Digest = [u8; 32];

/// The highest number an operation may have: databases keep it as a signed integer, and the next one
/// must exist.
const MAX_NUMBER: u64 = i64::MAX as u64 - 1;

/// What the author had seen of the item when editing it: the third leg of the merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Base {
    /// The item's revision in the author's mirror; zero when it had none.
    pub revision: Revision,
    /// The author's own latest operation on the item that was still on its way, and which this edit
    /// therefore builds on.
    pub after: Option<OperationNumber>,
}

/// What an edit does to its item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Replace the whole item; fields not named are removed.
    Put(Fields),
    /// Set some fields and remove others; creates the item when it does not exist.
    Patch {
        /// Fields to set.
        set: Fields,
        /// Fields to remove, in order, none of them also set.
        remove: Vec<String>,
    },
    /// Delete the item.
    Delete,
}

/// One item's part of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Which item.
    pub key: ItemKey,
    /// What the author had seen.
    pub base: Base,
    /// What to do.
    pub action: Action,
}

/// Edits of one device that are accepted together or not at all, and share one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The device's own count, within its incarnation.
    pub number: OperationNumber,
    /// The device's wall clock when the edit was made, Unix milliseconds. Informs, never decides.
    pub made_at: u64,
    /// Who did it, for history and audit.
    pub actor: String,
    /// It gives way: it offers what a reign had that ended early, whoever made it. Where somebody changed
    /// an item since the base, that stands.
    pub yields: bool,
    /// The sequence that what it offers had in a reign that ended early; none for an edit that no reign had.
    pub was: Option<Sequence>,
    /// At least one edit, each of another item.
    pub edits: Vec<Edit>,
}

const PUT: u8 = 1;
const PATCH: u8 = 2;
const DELETE: u8 = 3;

impl Operation {
    const MAGIC: [u8; 4] = *b"MFPO";
    const VERSION: u8 = 1;

    /// The canonical record; never changes once made.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Encoder::record(Self::MAGIC, Self::VERSION);
        to.varint(self.number.0).bytes(&self.content());
        to.optional(self.was.map(|was| was.0));
        self.edits.iter().for_each(|edit| edit.base.encode(&mut to));
        to.finish()
    }

    /// What its author asked for; what it was seen to stand on comes behind.
    fn content(&self) -> Vec<u8> {
        let mut to = Encoder::new();
        to.varint(self.made_at).text(&self.actor).fixed(&[self.yields.into()]);
        to.varint(self.edits.len() as u64);
        for edit in &self.edits {
            edit.encode(&mut to);
        }
        to.finish()
    }

    /// Parses the canonical record.
    ///
    /// # Errors
    /// Not such a record, a newer one, over a limit, or two edits of one item.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > limit::OPERATION_BYTES {
            return Err(DecodeError::Invalid("operation over 1 MiB"));
        }
        let mut from = Decoder::record(bytes, Self::MAGIC, Self::VERSION, "operation")?;
        let number = Self::number(&mut from)?;
        let mut content = Decoder::new(from.bytes()?);
        let made_at = content.varint()?;
        let actor = content.text()?;
        if actor.len() > limit::NAME_BYTES {
            return Err(DecodeError::Invalid("actor"));
        }
        let actor = actor.to_owned();
        let yields = content.flag()?;
        let count = content.count()?;
        if count == 0 || count > limit::OPERATION_EDITS {
            return Err(DecodeError::Invalid("operation without edits, or with more than 100"));
        }
        let mut edits: Vec<Edit> = Vec::with_capacity(count);
        for _ in 0..count {
            let edit = Edit::decode(&mut content)?;
            if edits.iter().any(|other| other.key == edit.key) {
                return Err(DecodeError::Invalid("two edits of one item"));
            }
            edits.push(edit);
        }
        content.finish()?;
        let was = from.optional()?.map(Sequence);
        for edit in &mut edits {
            edit.base = Base::decode(&mut from, number)?;
        }
        from.finish()?;
        Ok(Self { number, made_at, actor, yields, was, edits })
    }

    /// The number of an operation whose other content may be malformed or of a newer version. It
    /// follows the version byte in every version.
    ///
    /// # Errors
    /// Not an operation record, or cut before its number ends.
    pub fn peek_number(bytes: &[u8]) -> Result<OperationNumber, DecodeError> {
        let mut from = Decoder::record(bytes, Self::MAGIC, u8::MAX, "operation")?;
        Self::number(&mut from)
    }

    fn number(from: &mut Decoder<'_>) -> Result<OperationNumber, DecodeError> {
        match from.varint()? {
            number @ 1..=MAX_NUMBER => Ok(OperationNumber(number)),
            _ => Err(DecodeError::Invalid("operation number")),
        }
    }

    /// Whether a device took the operation back before it had an answer: it asks for nothing but the
    /// deletion of a mark, which the server alone may delete.
    ///
    /// **Source**: `docs/formats.md`, "Marks of erased users".
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        let [edit] = self.edits.as_slice() else { return false };
        edit.action == Action::Delete && edit.key.kind.as_str() == ERASED_KIND
    }

    /// The digest of a record: of what was asked for under which number. What it stands on is left out: a device
    /// that meets another reign with its operation still on the way has to name something else, and the server
    /// may have it already.
    #[must_use]
    pub fn digest(record: &[u8]) -> Digest {
        let end = || {
            let mut from = Decoder::record(record, Self::MAGIC, Self::VERSION, "operation").ok()?;
            Self::number(&mut from).ok()?;
            from.bytes().ok()?;
            Some(record.len() - from.rest().len())
        };
        sha256(&record[..end().unwrap_or(record.len())])
    }
}

impl Base {
    fn encode(&self, to: &mut Encoder) {
        to.varint(self.revision.epoch).varint(self.revision.sequence.0);
        to.optional(self.after.map(|number| number.0));
    }

    fn decode(from: &mut Decoder<'_>, number: OperationNumber) -> Result<Self, DecodeError> {
        let revision = Revision { epoch: from.varint()?, sequence: Sequence(from.varint()?) };
        let after = from.optional()?.map(OperationNumber);
        if after.is_some_and(|after| after >= number || after.0 == 0) {
            return Err(DecodeError::Invalid("operation builds on a later one"));
        }
        Ok(Self { revision, after })
    }
}

impl Edit {
    /// The canonical encoding of all but the base, without a header of its own.
    fn encode(&self, to: &mut Encoder) {
        self.key.encode(to);
        match &self.action {
            Action::Put(fields) => {
                to.fixed(&[PUT]).bytes(&fields.encode());
            }
            Action::Patch { set, remove } => {
                to.fixed(&[PATCH]).bytes(&set.encode()).varint(remove.len() as u64);
                for name in remove {
                    to.text(name);
                }
            }
            Action::Delete => {
                to.fixed(&[DELETE]);
            }
        }
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let key = ItemKey::decode(from)?;
        let action = match from.byte()? {
            PUT => Action::Put(Fields::decode(from.bytes()?)?),
            PATCH => decode_patch(from)?,
            DELETE => Action::Delete,
            _ => return Err(DecodeError::Invalid("unknown action")),
        };
        Ok(Self { key, base: Base::default(), action })
    }
}

fn decode_patch(from: &mut Decoder<'_>) -> Result<Action, DecodeError> {
    let set = Fields::decode(from.bytes()?)?;
    let count = from.count()?;
    if count > limit::ITEM_FIELDS {
        return Err(DecodeError::Invalid("patch that removes more than 128 fields"));
    }
    let mut remove: Vec<String> = Vec::with_capacity(count);
    for _ in 0..count {
        let name = from.text()?;
        if remove.last().is_some_and(|last| last.as_str() >= name) || set.get(name).is_some() {
            return Err(DecodeError::Invalid("removed fields out of order, or also set"));
        }
        remove.push(name.to_owned());
    }
    Ok(Action::Patch { set, remove })
}
