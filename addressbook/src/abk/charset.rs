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
        let (mut out, mut missing) = (Vec::new(), Vec::new());
        for char in text.chars() {
            match self.encode_one(char) {
                Some(bytes) => out.extend(bytes),
                None if missing.contains(&char) => {}
                None => missing.push(char),
            }
        }
        if missing.is_empty() { Ok(Cow::Owned(out)) } else { Err(missing) }
    }

    fn encode_one(self, char: char) -> Option<Vec<u8>> {
        if let (Self::ShiftJis, Some(bytes)) = (self, user_defined(char)) {
            return Some(bytes.to_vec());
        }
        let one = char.to_string();
        let (bytes, _, unmappable) = self.encoding().encode(&one);
        (!unmappable && self.decode(&bytes).as_deref() == Some(one.as_str())).then(|| bytes.into_owned())
    }
}

/// The bytes of a character that machines let their users draw: rows 0xF0 to 0xF9, read as U+E000 and on. The web's
/// encoder reads them and does not write them.
///
/// **Source**: WHATWG Encoding Standard, Shift_JIS decoder.
fn user_defined(char: char) -> Option<[u8; 2]> {
    const FIRST: u32 = 0xe000;
    /// Characters of a row: 0x40 to 0xFC without 0x7F.
    const ROW: u32 = 188;
    const ROWS: u32 = 10;
    let at = u32::from(char).checked_sub(FIRST).filter(|at| *at < ROWS * ROW)?;
    let (lead, trail) = (0xf0 + at / ROW, 0x40 + at % ROW);
    let trail = if trail < 0x7f { trail } else { trail + 1 };
    Some([u8::try_from(lead).ok()?, u8::try_from(trail).ok()?])
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
    fn all_characters_of_a_users_own_are_read_and_written() {
        for code in 0xe000..0xe000 + 1880 {
            let text = format!("山{}ｱ", char::from_u32(code).unwrap());
            let bytes = CharSet::ShiftJis.encode(&text).unwrap();
            assert_eq!(CharSet::ShiftJis.decode(&bytes).as_deref(), Some(text.as_str()), "{code:x}");
        }
        assert_eq!(
            CharSet::ShiftJis.encode("\u{e000}\u{e03f}").as_deref(),
            Ok(b"\xf0\x40\xf0\x80".as_slice())
        );
        assert_eq!(CharSet::ShiftJis.encode("\u{e758}").unwrap_err(), ['\u{e758}']);
        assert_eq!(CharSet::Wcp1252.encode("\u{e000}").unwrap_err(), ['\u{e000}']);
    }

    #[test]
    fn names_are_known_in_any_case() {
        for charset in CharSet::ALL {
            assert_eq!(CharSet::of(&charset.name().to_lowercase()), Some(charset));
        }
        assert_eq!(CharSet::of("EUC-JP"), None);
    }
}
