//! The character sets of ABK files.
//!
//! Only what comes back the same is written: the tables of the web's encodings, which `encoding_rs` has, fold a few
//! characters (`¥` into `\`) that a name or a path must not lose. Called by `read.rs` and `write.rs`.

use std::borrow::Cow;

use encoding_rs::{Encoding, SHIFT_JIS, UTF_8, WINDOWS_1252};

/// Character set of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CharSet {
    /// All characters.
    Utf8,
    /// Windows code page 1252, western European.
    Wcp1252,
    /// Shift JIS with the extensions of Windows, Japanese.
    ShiftJis,
}

impl CharSet {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Utf8, Self::Wcp1252, Self::ShiftJis];

    /// As files name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UTF-8",
            Self::Wcp1252 => "WCP1252",
            Self::ShiftJis => "SHIFT_JIS",
        }
    }

    /// By its name in any case.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let name = name.to_ascii_uppercase();
        match name.as_str() {
            "UTF8" => Some(Self::Utf8),
            "SJIS" => Some(Self::ShiftJis),
            _ => Self::ALL.into_iter().find(|charset| charset.name() == name),
        }
    }

    fn encoding(self) -> &'static Encoding {
        match self {
            Self::Utf8 => UTF_8,
            Self::Wcp1252 => WINDOWS_1252,
            Self::ShiftJis => SHIFT_JIS,
        }
    }

    pub(super) fn decode(self, bytes: &[u8]) -> Option<Cow<'_, str>> {
        self.encoding().decode_without_bom_handling_and_without_replacement(bytes)
    }

    /// The bytes, or the characters that would not come back, each once.
    pub(super) fn encode(self, text: &str) -> Result<Cow<'_, [u8]>, Vec<char>> {
        let (bytes, _, unmappable) = self.encoding().encode(text);
        if !unmappable && self.decode(&bytes).as_deref() == Some(text) {
            return Ok(bytes);
        }
        let mut missing = Vec::new();
        for char in text.chars() {
            let one = char.to_string();
            let (bytes, _, unmappable) = self.encoding().encode(&one);
            let lost = unmappable || self.decode(&bytes).as_deref() != Some(one.as_str());
            if lost && !missing.contains(&char) {
                missing.push(char);
            }
        }
        Err(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_not_come_back_is_named() {
        assert_eq!(CharSet::ShiftJis.encode("山田ｱ").as_deref(), Ok(b"\x8eR\x93c\xb1".as_slice()));
        assert_eq!(CharSet::ShiftJis.encode("é¥aé").unwrap_err(), ['é', '¥']);
        assert_eq!(CharSet::Wcp1252.encode("é€").as_deref(), Ok(b"\xe9\x80".as_slice()));
        assert_eq!(CharSet::Wcp1252.encode("山a").unwrap_err(), ['山']);
        assert_eq!(CharSet::Utf8.encode("山").as_deref(), Ok("山".as_bytes()));
    }

    #[test]
    fn names_are_known_in_any_case() {
        for charset in CharSet::ALL {
            assert_eq!(CharSet::of(&charset.name().to_lowercase()), Some(charset));
        }
        assert_eq!(CharSet::of("EUC-JP"), None);
    }
}
