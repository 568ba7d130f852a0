//! Values and fields of an item, and their canonical encoding.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Sequence, limit};
use crate::codec::{DecodeError, Decoder, Encoder};

/// A secret sealed on a device: opaque to everything but the sealing code.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Which wrapped key opens it.
    pub key_id: Vec<u8>,
    /// Nonce and ciphertext.
    pub sealed: Vec<u8>,
}

/// A field's value.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A signed integer.
    Integer(i64),
    /// A flag.
    Flag(bool),
    /// Uninterpreted bytes.
    Bytes(Vec<u8>),
    /// A set of texts.
    Set(BTreeSet<String>),
    /// A sealed secret.
    Sealed(Sealed),
    /// A value of a type this build does not know, kept as it came (I-26).
    Opaque {
        /// The unknown type's number.
        type_number: u64,
        /// Its payload.
        payload: Vec<u8>,
    },
}

const TEXT: u64 = 1;
const INTEGER: u64 = 2;
const FLAG: u64 = 3;
const BYTES: u64 = 4;
const SET: u64 = 5;
const SEALED: u64 = 6;

impl Value {
    fn type_number(&self) -> u64 {
        match self {
            Self::Text(_) => TEXT,
            Self::Integer(_) => INTEGER,
            Self::Flag(_) => FLAG,
            Self::Bytes(_) => BYTES,
            Self::Set(_) => SET,
            Self::Sealed(_) => SEALED,
            Self::Opaque { type_number, .. } => *type_number,
        }
    }

    fn payload(&self) -> Vec<u8> {
        let mut to = Encoder::new();
        match self {
            Self::Text(text) => to.fixed(text.as_bytes()),
            Self::Integer(value) => to.signed(*value),
            Self::Flag(value) => to.fixed(&[u8::from(*value)]),
            Self::Bytes(bytes) => to.fixed(bytes),
            Self::Set(texts) => {
                to.varint(texts.len() as u64);
                texts.iter().fold(&mut to, |to, text| to.text(text))
            }
            Self::Sealed(Sealed { key_id, sealed }) => to.bytes(key_id).bytes(sealed),
            Self::Opaque { payload, .. } => to.fixed(payload),
        };
        to.finish()
    }

    fn decode(type_number: u64, payload: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(payload);
        let value = match type_number {
            TEXT => {
                let text =
                    std::str::from_utf8(payload).map_err(|_| DecodeError::Invalid("text is not UTF-8"))?;
                return Ok(Self::Text(text.to_owned()));
            }
            BYTES => return Ok(Self::Bytes(payload.to_owned())),
            INTEGER => Self::Integer(from.signed()?),
            FLAG => Self::Flag(from.flag()?),
            SET => Self::Set(decode_set(&mut from)?),
            SEALED => {
                Self::Sealed(Sealed { key_id: from.bytes()?.to_owned(), sealed: from.bytes()?.to_owned() })
            }
            _ => return Ok(Self::Opaque { type_number, payload: payload.to_owned() }),
        };
        from.finish()?;
        Ok(value)
    }
}

fn decode_set(from: &mut Decoder<'_>) -> Result<BTreeSet<String>, DecodeError> {
    let count = from.count()?;
    let mut texts = BTreeSet::new();
    for _ in 0..count {
        let text = from.text()?;
        if texts.last().is_some_and(|last: &String| last.as_str() >= text) {
            return Err(DecodeError::Invalid("set is not in order"));
        }
        texts.insert(text.to_owned());
    }
    Ok(texts)
}

/// Prints the type only: values are personal data.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "integer",
            Self::Flag(_) => "flag",
            Self::Bytes(_) => "bytes",
            Self::Set(_) => "set",
            Self::Sealed(_) => "sealed",
            Self::Opaque { .. } => "opaque",
        })
    }
}

/// An item's fields by name. Names nobody knows are fields like any other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fields(BTreeMap<String, Value>);

impl Fields {
    /// No fields.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One field's value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Sets a field.
    pub fn insert(&mut self, name: impl Into<String>, value: Value) {
        self.0.insert(name.into(), value);
    }

    /// Removes a field.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// Sets a field to a value, or removes it.
    pub fn assign(&mut self, name: &str, value: Option<&Value>) {
        match value {
            Some(value) => self.insert(name, value.clone()),
            None => drop(self.remove(name)),
        }
    }

    /// All fields in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// All names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The canonical encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Encoder::new();
        to.varint(self.0.len() as u64);
        for (name, value) in &self.0 {
            to.text(name).varint(value.type_number()).bytes(&value.payload());
        }
        to.finish()
    }

    /// Parses a canonical encoding.
    ///
    /// # Errors
    /// Not canonical, or over [`limit::ITEM_BYTES`] or [`limit::ITEM_FIELDS`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > limit::ITEM_BYTES {
            return Err(DecodeError::Invalid("item over 64 KiB"));
        }
        let mut from = Decoder::new(bytes);
        let count = from.count()?;
        if count > limit::ITEM_FIELDS {
            return Err(DecodeError::Invalid("item with more than 128 fields"));
        }
        let mut fields = BTreeMap::new();
        for _ in 0..count {
            let name = decode_name(&mut from, fields.last_key_value())?;
            let type_number = from.varint()?;
            fields.insert(name, Value::decode(type_number, from.bytes()?)?);
        }
        from.finish()?;
        Ok(Self(fields))
    }
}

impl<N: Into<String>> FromIterator<(N, Value)> for Fields {
    fn from_iter<I: IntoIterator<Item = (N, Value)>>(fields: I) -> Self {
        Self(fields.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }
}

/// For each field of a master's item, removed ones included: the sequence that last changed it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSequences(BTreeMap<String, Sequence>);

impl FieldSequences {
    /// When the field was last changed; zero when it never was.
    #[must_use]
    pub fn get(&self, name: &str) -> Sequence {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Notes that `sequence` changed the field.
    pub fn set(&mut self, name: &str, sequence: Sequence) {
        self.0.insert(name.to_owned(), sequence);
    }

    /// The highest sequence of any field.
    #[must_use]
    pub fn latest(&self) -> Sequence {
        self.0.values().copied().max().unwrap_or_default()
    }

    /// All fields in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Sequence)> {
        self.0.iter().map(|(name, sequence)| (name.as_str(), *sequence))
    }

    /// The canonical encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Encoder::new();
        to.varint(self.0.len() as u64);
        for (name, sequence) in &self.0 {
            to.text(name).varint(sequence.0);
        }
        to.finish()
    }

    /// Parses a canonical encoding.
    ///
    /// # Errors
    /// Not canonical.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(bytes);
        let mut sequences = BTreeMap::new();
        for _ in 0..from.count()? {
            let name = decode_name(&mut from, sequences.last_key_value())?;
            sequences.insert(name, Sequence(from.varint()?));
        }
        from.finish()?;
        Ok(Self(sequences))
    }
}

fn decode_name<V>(from: &mut Decoder<'_>, last: Option<(&String, &V)>) -> Result<String, DecodeError> {
    let name = from.text()?;
    if name.is_empty() || name.len() > limit::NAME_BYTES || name.chars().any(char::is_control) {
        return Err(DecodeError::Invalid("field name"));
    }
    if last.is_some_and(|(last, _)| last.as_str() >= name) {
        return Err(DecodeError::Invalid("fields are not in order"));
    }
    Ok(name.to_owned())
}
