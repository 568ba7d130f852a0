//! Lines of the form `name: value` and blocks of them: the grammar that ABK and LDIF share.
//!
//! Knows base64 values and what a name may consist of, nothing of what a name means. Called by the readers and writers
//! of both formats.
//!
//! **Source**: RFC 2849, `attrval-spec`.

use data_encoding::BASE64;

use crate::csv::MAX_COLUMNS;
use crate::error::{ProblemKind, Problems};
use crate::lines::{Line, Lines};

/// Names of what a group has many of.
const MEMBERS: [&str; 2] = ["member", "uniqueMember"];

/// One line of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attribute {
    pub(crate) line: u64,
    pub(crate) name: String,
    /// Decoded when it was base64, in the file's character set.
    pub(crate) value: Vec<u8>,
    pub(crate) was_base64: bool,
}

impl Attribute {
    /// Reads a line.
    pub(crate) fn parse(line: &Line) -> Result<Self, (Option<String>, ProblemKind)> {
        let not_one = || (None, ProblemKind::NotAnAttribute);
        if line.orphan {
            return Err((None, ProblemKind::ContinuesNothing));
        }
        let colon = line.bytes.iter().position(|&byte| byte == b':').ok_or_else(not_one)?;
        let (name, rest) = line.bytes.split_at(colon);
        let name =
            std::str::from_utf8(name).ok().filter(|name| is_name(name)).ok_or_else(not_one)?.to_owned();
        let (value, was_base64) = match &rest[1..] {
            [b':', encoded @ ..] => {
                let decoded = BASE64.decode(encoded.trim_ascii());
                (decoded.map_err(|_| (Some(name.clone()), ProblemKind::NotBase64))?, true)
            }
            [b'<', ..] => return Err((Some(name), ProblemKind::UrlValue)),
            value => (value.trim_ascii_start().to_vec(), false),
        };
        Ok(Self { line: line.number, name, value, was_base64 })
    }

    pub(crate) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// Whether a name is one: letters, digits, and `-`, `_`, `.` and `;` within; of a length that can be shown.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name.starts_with(|char: char| char.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.;".contains(&byte))
}

/// The next block of attributes up to an empty line; comments go, faults are gathered.
///
/// A block with a fault is returned too, so that later ones are checked; the caller refuses the file in the end.
pub(crate) fn next_block(lines: &mut Lines<'_>, problems: &mut Problems) -> Option<Vec<Attribute>> {
    let mut block: Vec<Attribute> = Vec::new();
    // A group may have any number of members.
    let (mut counted, mut seen) = (0, false);
    loop {
        let Some(line) = lines.next() else { return seen.then_some(block) };
        if line.bytes.is_empty() {
            if seen {
                return Some(block);
            }
            continue;
        }
        if line.bytes.starts_with(b"#") {
            continue;
        }
        seen = true;
        if counted == MAX_COLUMNS {
            problems.add(line.number, None, ProblemKind::TooManyAttributes { limit: MAX_COLUMNS });
            // Counted once: what follows in the block is not looked at.
            while lines.next().is_some_and(|line| !line.bytes.is_empty()) {}
            return Some(block);
        }
        match Attribute::parse(&line) {
            Ok(attribute) => {
                counted += usize::from(!MEMBERS.iter().any(|name| attribute.is(name)));
                block.push(attribute);
            }
            Err((name, what)) => problems.add(line.number, name, what),
        }
    }
}

/// `name: value`, or `name:: base64` where the plain form would not be read back.
///
/// `ascii` demands base64 for everything beyond ASCII, as LDIF does.
pub(crate) fn line(name: &str, value: &[u8], ascii: bool) -> Vec<u8> {
    let blank = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_whitespace);
    let plain = !blank(value.first())
        && !blank(value.last())
        && !matches!(value.first(), Some(b':' | b'<'))
        && !value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n') || (ascii && !byte.is_ascii()));
    let mut line = name.as_bytes().to_vec();
    if plain {
        line.extend_from_slice(b": ");
        line.extend_from_slice(value);
    } else {
        line.extend_from_slice(b":: ");
        line.extend_from_slice(BASE64.encode(value).as_bytes());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(String, Vec<u8>), ProblemKind> {
        let line = Lines::new(text.as_bytes(), b" ").next().unwrap();
        Attribute::parse(&line).map(|found| (found.name, found.value)).map_err(|(_, what)| what)
    }

    #[test]
    fn what_is_written_is_read() {
        for value in ["", "a", " a", "a ", ":a", "<a", "a\nb", "あ", "a: b"] {
            for ascii in [false, true] {
                let line = String::from_utf8(line("cn", value.as_bytes(), ascii)).unwrap();
                assert!(!ascii || line.is_ascii());
                assert_eq!(parse(&line), Ok(("cn".to_owned(), value.as_bytes().to_vec())), "{line}");
            }
        }
    }

    #[test]
    fn faults_are_told_apart() {
        assert_eq!(parse("cn"), Err(ProblemKind::NotAnAttribute));
        assert_eq!(parse("c n: x"), Err(ProblemKind::NotAnAttribute));
        assert_eq!(parse("cn:: x"), Err(ProblemKind::NotBase64));
        assert_eq!(parse("cn:< file:///x"), Err(ProblemKind::UrlValue));
        assert_eq!(parse(" cn: x"), Err(ProblemKind::ContinuesNothing));
    }
}
