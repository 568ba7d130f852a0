//! The canonical encoding: one value has one byte string, so that bytes can be hashed, signed,
//! compared and kept as they came.
//!
//! Integers are LEB128 varints in their shortest form, strings and byte strings carry their length
//! before them, lists their count. Records that stand alone begin with a four-byte magic and a
//! version byte. Everything here is bounded by the length of its input and never panics on it.
//!
//! **Source**: `docs/formats.md`, frozen by the golden files under `storage/tests/golden`.

use thiserror::Error;

/// Why bytes are not a canonical encoding of what was expected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The input ends inside a value.
    #[error("input ends early")]
    Truncated,
    /// Bytes are left over after the value.
    #[error("{0} bytes left over")]
    Trailing(usize),
    /// The record begins with another magic.
    #[error("not a {0} record")]
    Magic(&'static str),
    /// The record's version is newer than this build understands.
    #[error("{what} record of version {found}, newer than {known}")]
    Newer {
        /// The record's name.
        what: &'static str,
        /// Its version.
        found: u8,
        /// The newest version this build understands.
        known: u8,
    },
    /// A value that breaks a rule of its type: not the shortest form, out of order, over a limit.
    #[error("{0}")]
    Invalid(&'static str),
}

/// Appends canonical values to a buffer.
#[derive(Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// An empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A buffer that begins with a record's magic and version.
    #[must_use]
    pub fn record(magic: [u8; 4], version: u8) -> Self {
        let mut encoder = Self::new();
        encoder.fixed(&magic).fixed(&[version]);
        encoder
    }

    /// Appends an unsigned integer as a varint.
    pub fn varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
        self
    }

    /// Appends a signed integer, zigzag-coded so that small magnitudes stay short.
    pub fn signed(&mut self, value: i64) -> &mut Self {
        self.varint(((value << 1) ^ (value >> 63)) as u64)
    }

    /// Appends bytes whose length both sides know.
    pub fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Appends a length and the bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.varint(bytes.len() as u64).fixed(bytes)
    }

    /// Appends a text as its UTF-8 bytes.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// Appends a presence byte and, if present, the varint.
    pub fn optional(&mut self, value: Option<u64>) -> &mut Self {
        match value {
            None => self.fixed(&[0]),
            Some(value) => self.fixed(&[1]).varint(value),
        }
    }

    /// The bytes so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Ends the encoding.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Takes canonical values from the front of a byte string.
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Reads from the beginning of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Checks magic and version of a record and goes on behind them.
    ///
    /// # Errors
    /// [`DecodeError::Magic`] or [`DecodeError::Newer`].
    pub fn record(
        bytes: &'a [u8],
        magic: [u8; 4],
        version: u8,
        what: &'static str,
    ) -> Result<Self, DecodeError> {
        let mut decoder = Self::new(bytes);
        if decoder.fixed(4).map_err(|_| DecodeError::Magic(what))? != magic {
            return Err(DecodeError::Magic(what));
        }
        match decoder.byte()? {
            found if found > version => Err(DecodeError::Newer { what, found, known: version }),
            0 => Err(DecodeError::Invalid("record of version 0")),
            _ => Ok(decoder),
        }
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn byte(&mut self) -> Result<u8, DecodeError> {
        let (&first, rest) = self.rest.split_first().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(first)
    }

    /// A varint in its shortest form.
    ///
    /// # Errors
    /// Truncated, longer than needed, or over 64 bits.
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return Err(DecodeError::Invalid("integer over 64 bits"));
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 {
                    Err(DecodeError::Invalid("integer not in its shortest form"))
                } else {
                    Ok(value)
                };
            }
        }
        Err(DecodeError::Invalid("integer over 64 bits"))
    }

    /// A zigzag-coded signed integer.
    ///
    /// # Errors
    /// As [`Decoder::varint`].
    pub fn signed(&mut self) -> Result<i64, DecodeError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// `count` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn fixed(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Exactly `N` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// A length and that many bytes.
    ///
    /// # Errors
    /// Truncated, or a malformed length.
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(self.varint()?).map_err(|_| DecodeError::Truncated)?;
        self.fixed(length)
    }

    /// A text.
    ///
    /// # Errors
    /// Truncated, or not UTF-8.
    pub fn text(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::Invalid("text is not UTF-8"))
    }

    /// A presence byte and, if present, a varint.
    ///
    /// # Errors
    /// Truncated, or a presence byte other than 0 and 1.
    pub fn optional(&mut self) -> Result<Option<u64>, DecodeError> {
        Ok(if self.flag()? { Some(self.varint()?) } else { None })
    }

    /// A byte that is 0 or 1.
    ///
    /// # Errors
    /// Truncated, or another byte.
    pub fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Invalid("flag is neither 0 nor 1")),
        }
    }

    /// A count for a list whose elements take at least one byte each.
    ///
    /// # Errors
    /// A count that the remaining input cannot hold, so that nobody reserves memory for it.
    pub fn count(&mut self) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.varint()?).map_err(|_| DecodeError::Truncated)?;
        if count > self.rest.len() { Err(DecodeError::Truncated) } else { Ok(count) }
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What is left, untouched.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Ends the decoding; nothing may be left.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`].
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing(left)),
        }
    }
}
