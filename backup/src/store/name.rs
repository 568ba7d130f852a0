//! Names of files on a share: few characters, so that every server keeps them as they are, whatever it does
//! about case, code pages and names of devices.

use std::fmt;

use super::{Error, Kind, Result};

/// Longest name, in bytes.
const LONGEST: usize = 80;

/// A file's name: 1 to 80 of `A-Z a-z 0-9 . _ -`, the first a letter or digit, the last no dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// Takes a name, of ours or from a server.
    ///
    /// # Errors
    /// [`Kind::InvalidName`].
    pub fn parse(text: &str) -> Result<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let whole = text.len() <= LONGEST
            && text.bytes().all(plain)
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && !text.ends_with('.');
        if whole { Ok(Self(text.to_owned())) } else { Err(Error::new("take name", Kind::InvalidName)) }
    }

    /// A name that is known to be one.
    pub(crate) fn made(text: String) -> Self {
        debug_assert!(Self::parse(&text).is_ok(), "{text} is no name");
        Self(text)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
