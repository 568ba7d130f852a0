//! What stands before the column names: the format line with its version, the character set and the list's name.
//!
//! Lines are kept as they are, known or not. This file decides whether the bytes are a file of this format at all and
//! in a character set we read; it does not touch rows. Called by `read.rs`; `write.rs` checks its lines here.

use super::cells::Scanner;
use super::{Layout, LineEnd, MAX_CELL_BYTES, MAX_HEADER_LINES};
use crate::error::{Notice, NoticeKind, Problem, ProblemKind, ReadError};

const MAGIC: &str = "Canon AddressBook CSV version";
const CHARSET: &str = "CharSet";
const LIST_NAME: &str = "SubAddressBookName";
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Version of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 0x0002.
    V2,
    /// 0x0003, with the column `folderidflag`.
    V3,
    /// Any other; never the number of a named one in what [`Version::new`] gives.
    Other(u32),
}

impl Version {
    /// The newest version whose columns we know.
    pub const NEWEST: Self = Self::V3;

    /// The version of this number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        match number {
            2 => Self::V2,
            3 => Self::V3,
            other => Self::Other(other),
        }
    }

    /// The number in the format line.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
            Self::Other(number) => number,
        }
    }
}

/// What stands before the column names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Version in the format line.
    pub version: Version,
    /// The lines between format line and column names as they are, empty ones too, without line ends.
    pub lines: Vec<String>,
}

impl Header {
    /// A header for an address list, as machines write it; the name may be empty.
    #[must_use]
    pub fn address_list(version: Version, name: &str) -> Self {
        Self::with(version, name, None)
    }

    /// A header for one-touch buttons, where `indxid` is the button's number.
    #[must_use]
    pub fn one_touch(version: Version, name: &str) -> Self {
        Self::with(version, name, Some("# dn: fixed"))
    }

    fn with(version: Version, name: &str, kind: Option<&str>) -> Self {
        let database = if version == Version::V2 { "0x010a" } else { "0x010b" };
        let mut lines = vec![format!("# {CHARSET}: UTF-8")];
        lines.extend(kind.map(str::to_owned));
        lines.push(format!("# {LIST_NAME}: {name}"));
        lines.push(format!("# DB Version: {database}"));
        lines.push(String::new());
        Self { version, lines }
    }

    /// The value of a header line, its name in any case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        self.lines.iter().find_map(|line| {
            let (found, value) = key_and_value(line)?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// Name of the list, without the quotes that some machines put around it; nothing when it has none.
    #[must_use]
    pub fn list_name(&self) -> Option<String> {
        let value = self.get(LIST_NAME)?;
        let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let name = inner.map_or_else(|| value.clone(), |inner| inner.replace("\"\"", "\""));
        (!name.is_empty()).then_some(name)
    }

    /// Whether the entries are one-touch buttons.
    #[must_use]
    pub fn is_one_touch(&self) -> bool {
        self.get("dn").is_some_and(|value| value.eq_ignore_ascii_case("fixed"))
    }

    /// Whether the column's cells are encrypted.
    pub(super) fn encrypts(&self, column: &str) -> bool {
        self.get("Crypto Attribute").is_some_and(|value| {
            value.split([',', ';', ' ']).any(|attribute| attribute.eq_ignore_ascii_case(column))
        })
    }

    pub(super) fn remove_starting_with(&mut self, lowercase: &str) {
        self.lines.retain(|line| {
            !key_and_value(line).is_some_and(|(name, _)| name.to_ascii_lowercase().starts_with(lowercase))
        });
    }

    /// The first line.
    pub(super) fn format_line(&self) -> String {
        format!("# {MAGIC}: 0x{:04x}", self.version.number())
    }

    /// The first line of the header that would not be read back as one.
    pub(super) fn unusable_line(&self) -> Option<usize> {
        let unusable = |line: &String| {
            !is_header_line(line.as_bytes()) || line.contains(['\r', '\n']) || line.len() > MAX_CELL_BYTES
        };
        self.lines
            .iter()
            .position(unusable)
            .or((self.lines.len() > MAX_HEADER_LINES).then_some(MAX_HEADER_LINES))
    }
}

/// What the beginning of a file tells.
#[derive(Debug)]
pub(super) struct Beginning<'a> {
    pub(super) header: Header,
    pub(super) layout: Layout,
    pub(super) notices: Vec<Notice>,
    /// Stands before the column names.
    pub(super) scanner: Scanner<'a>,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Beginning<'_>, ReadError> {
    if matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
        return Err(Problem::alone(1, None, ProblemKind::CharSet { name: "UTF-16".to_owned() }));
    }
    let text = bytes.strip_prefix(BOM);
    let mut scanner = Scanner::new(text.unwrap_or(bytes));
    let unknown = || Problem::alone(1, None, ProblemKind::UnknownFormat);
    let (first, end) = scanner.next_line().ok_or_else(unknown)?;
    let version = version(first)?;
    let lines = header_lines(&mut scanner)?;
    let mut notices = Vec::new();
    if version.number() > Version::NEWEST.number() {
        let what = NoticeKind::NewerVersion { version: version.number() };
        notices.push(Notice { line: 1, column: None, what });
    }
    notices.extend(check_charset(&lines)?);
    let line_end = if end == b"\n" { LineEnd::Lf } else { LineEnd::CrLf };
    let layout = Layout { bom: text.is_some(), line_end, ..Layout::default() };
    Ok(Beginning { header: Header { version, lines: in_utf8(lines)? }, layout, notices, scanner })
}

fn version(first: &[u8]) -> Result<Version, ReadError> {
    let line = String::from_utf8_lossy(first);
    let value =
        key_and_value(&line).filter(|(name, _)| name.eq_ignore_ascii_case(MAGIC)).map(|(_, value)| value);
    let value = value.ok_or_else(|| Problem::alone(1, None, ProblemKind::UnknownFormat))?;
    let number = match value.get(..2) {
        Some("0x" | "0X") => u32::from_str_radix(&value[2..], 16),
        Some(_) | None => value.parse(),
    };
    number.map(Version::new).map_err(|_| Problem::alone(1, None, ProblemKind::BadVersion))
}

/// All lines up to the first that is none of the header; at the end of the file the column names are missing.
fn header_lines<'a>(scanner: &mut Scanner<'a>) -> Result<Vec<&'a [u8]>, ReadError> {
    let mut lines = Vec::new();
    loop {
        let line_number = scanner.line();
        let before = scanner.clone();
        let problem = match scanner.next_line() {
            None => ProblemKind::MissingColumns,
            Some((line, _)) if !is_header_line(line) => {
                *scanner = before;
                return Ok(lines);
            }
            Some((line, _)) if line.len() > MAX_CELL_BYTES => {
                ProblemKind::CellTooLarge { limit_bytes: MAX_CELL_BYTES }
            }
            Some(_) if lines.len() == MAX_HEADER_LINES => {
                ProblemKind::TooManyHeaderLines { limit: MAX_HEADER_LINES }
            }
            Some((line, _)) => {
                lines.push(line);
                continue;
            }
        };
        return Err(Problem::alone(line_number, None, problem));
    }
}

/// Empty (a spreadsheet makes it a row of commas), or begins with `#` (a spreadsheet may quote it).
fn is_header_line(line: &[u8]) -> bool {
    line.starts_with(b"#")
        || line.starts_with(b"\"#")
        || line.iter().all(|byte| matches!(byte, b',' | b' ' | b'\t'))
}

/// Comes before the check for UTF-8: in another character set the list's name would fail that one.
fn check_charset(lines: &[&[u8]]) -> Result<Option<Notice>, ReadError> {
    for (at, line) in (2..).zip(lines) {
        let text = String::from_utf8_lossy(line);
        let Some((_, value)) = key_and_value(&text).filter(|(name, _)| name.eq_ignore_ascii_case(CHARSET))
        else {
            continue;
        };
        if value.eq_ignore_ascii_case("UTF-8") || value.eq_ignore_ascii_case("UTF8") {
            return Ok(None);
        }
        let shown = value.len() <= 32 && value.bytes().all(|byte| byte.is_ascii_graphic());
        let name = if shown { value } else { "of unreadable name".to_owned() };
        return Err(Problem::alone(at, None, ProblemKind::CharSet { name }));
    }
    Ok(Some(Notice { line: 1, column: None, what: NoticeKind::CharSetAssumed }))
}

fn in_utf8(lines: Vec<&[u8]>) -> Result<Vec<String>, ReadError> {
    let decode = |(at, line): (u64, &[u8])| match std::str::from_utf8(line) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(Problem::alone(at, None, ProblemKind::InvalidUtf8)),
    };
    (2..).zip(lines).map(decode).collect()
}

/// Name and value of `# name: value`, also when a spreadsheet has quoted the line or added commas.
fn key_and_value(line: &str) -> Option<(String, String)> {
    let text = if line.starts_with('"') {
        let row = Scanner::new(line.as_bytes()).next_row()?;
        String::from_utf8_lossy(&row.cells.first()?.bytes).into_owned()
    } else {
        line.trim_end_matches(',').to_owned()
    };
    let (name, value) = text.strip_prefix('#')?.split_once(':')?;
    Some((name.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(lines: &str) -> Header {
        parse(format!("# Canon AddressBook CSV version: 0x0002\n{lines}\n\nobjectclass\n").as_bytes())
            .unwrap()
            .header
    }

    #[test]
    fn list_names_are_found_quoted_or_not() {
        for line in [
            "# SubAddressBookName: Tokyo, Sales",
            "# SubAddressBookName: \"Tokyo, Sales\"",
            "#SubAddressBookname:Tokyo, Sales",
            "\"# SubAddressBookName: Tokyo, Sales\",,,",
        ] {
            assert_eq!(header(line).list_name().as_deref(), Some("Tokyo, Sales"), "{line}");
        }
        assert_eq!(header("# SubAddressBookName: \"a \"\"b\"\"\"").list_name().as_deref(), Some("a \"b\""));
        assert_eq!(header("# SubAddressBookName: ").list_name(), None);
    }

    #[test]
    fn one_touch_lists_and_encryption_are_recognised() {
        let header = header("# dn: fixed,,,\n# Crypto Version: 2\n# Crypto Attribute: pwd");
        assert!(header.is_one_touch());
        assert!(header.encrypts("pwd"));
        assert!(!header.encrypts("cn"));
    }

    #[test]
    fn a_made_header_is_read_back() {
        for made in [Header::address_list(Version::V2, "Tokyo"), Header::one_touch(Version::Other(9), "")] {
            let text = format!("{}\n{}\nobjectclass\n", made.format_line(), made.lines.join("\n"));
            assert_eq!(parse(text.as_bytes()).unwrap().header, made);
        }
    }

    #[test]
    fn a_version_is_its_number() {
        for version in [Version::V2, Version::V3, Version::Other(1), Version::Other(4)] {
            assert_eq!(Version::new(version.number()), version);
        }
    }
}
