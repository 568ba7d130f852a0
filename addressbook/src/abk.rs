//! The vendor's ABK text: what a file is made of, and the doors in and out.
//!
//! A file is a format line, more `#` header lines, and a block of `name: value` lines per entry, blocks separated by
//! empty lines. Lines are cut in `lines.rs`, values in `attributes.rs` beside this module. Passwords never pass: they
//! are neither read nor written. Comments between entries are not kept.
//!
//! # Fields
//!
//! | attribute | field |
//! |---|---|
//! | `objectclass` | `class`: the last word but `top` and `extensibleobject`, translated as in the CSV; another list of words stays in `abk.objectclass` |
//! | `dn` | `index`: one to nine digits, unique in the file |
//! | `cn`, `cnread`, `cnshort`, `mailaddress`, `dialdata`, `url`, `path`, `protocol`, `username` | as in the CSV |
//! | `member` | `members`: ids of the entries with these `dn`; numbers that no entry has stay in `abk.member`, with a notice |
//! | `uuid` | the entry's id in lower case, as in the CSV |
//! | `pwd` | nothing, with a notice |
//! | any other, and further values of the above | `abk.` and the name; `abk.name#2` and so on when it is repeated |
//!
//! **Source**: exported files; the vendor documents the CSV alone.

mod charset;
mod read;
mod write;

use std::collections::BTreeMap;

pub use charset::CharSet;
pub use read::read;
pub use write::write;

use crate::csv::LineEnd;
use crate::entry::{Entry, field};

/// What this format's own fields begin with.
pub(crate) const PREFIX: &str = "abk.";
/// How a file begins.
pub(crate) const MAGIC: &str = "Canon AddressBook version";
const CHARSET: &str = "CharSet";
const RAW_CLASS: &str = "abk.objectclass";
const RAW_UUID: &str = "abk.uuid";
const RAW_MEMBER: &str = "abk.member";
/// Words that stand before the class.
const CLASS_PREAMBLE: [&str; 2] = ["top", "extensibleobject"];

/// A whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Book {
    /// What stands before the first entry.
    pub header: Header,
    /// Whether the file begins with a UTF-8 byte order mark.
    pub bom: bool,
    /// What ends a line.
    pub line_end: LineEnd,
    /// The entries in the file's order; their ids are unique.
    pub entries: Vec<Entry>,
}

impl Book {
    /// Options that write the book the way it was read, without the `Crypto` lines of passwords that were left out.
    #[must_use]
    pub fn options(&self) -> WriteOptions {
        let mut header = self.header.clone();
        header.lines.retain(|line| {
            !key_and_value(line).is_some_and(|(name, _)| name.to_ascii_lowercase().starts_with("crypto "))
        });
        WriteOptions { header, bom: self.bom, line_end: self.line_end, defaults: BTreeMap::new() }
    }
}

/// What stands before the first entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Version in the format line.
    pub version: u32,
    /// The `#` lines behind the format line as they are, without line ends; they name the character set.
    pub lines: Vec<String>,
}

impl Header {
    /// A header as machines write it; the list's name may be empty.
    #[must_use]
    pub fn new(charset: CharSet, list_name: &str) -> Self {
        let lines = vec![
            format!("# {CHARSET}: {}", charset.name()),
            format!("# SubAddressBookName: {list_name}"),
            "# DB Version: 0x0108".to_owned(),
        ];
        Self { version: 1, lines }
    }

    /// The same header of a file in another character set.
    #[must_use]
    pub fn in_charset(mut self, charset: CharSet) -> Self {
        if self.charset() != Some(charset) {
            self.lines.retain(|line| {
                !key_and_value(line).is_some_and(|(name, _)| name.eq_ignore_ascii_case(CHARSET))
            });
            self.lines.insert(0, format!("# {CHARSET}: {}", charset.name()));
        }
        self
    }

    /// The value of a header line, its name in any case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| {
            let (found, value) = key_and_value(line)?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The character set it names, UTF-8 when it names none; nothing for one that is not translated.
    #[must_use]
    pub fn charset(&self) -> Option<CharSet> {
        self.get(CHARSET).map_or(Some(CharSet::Utf8), CharSet::of)
    }
}

/// How to write entries as a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOptions {
    /// What stands before the first entry.
    pub header: Header,
    /// Whether the file begins with a UTF-8 byte order mark.
    pub bom: bool,
    /// What ends a line.
    pub line_end: LineEnd,
    /// By attribute name: the value of an entry that lacks it.
    pub defaults: BTreeMap<String, String>,
}

impl WriteOptions {
    /// As machines export, for entries that may never have been in such a file.
    #[must_use]
    pub fn new(charset: CharSet) -> Self {
        let defaults = [("subdbid", "1"), ("enablepartial", "false"), ("accesscode", "0")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let header = Header::new(charset, "");
        Self { header, bom: false, line_end: LineEnd::CrLf, defaults: defaults.into() }
    }
}

/// Whether a file has a place for the field.
pub(crate) fn carries(name: &str) -> bool {
    matches!(name, field::CLASS | field::INDEX | field::MEMBERS)
        || text_attributes().any(|(_, field)| field == name)
        || name.starts_with(PREFIX)
}

/// Attributes that hold a shared text field.
fn text_attributes() -> impl Iterator<Item = (&'static str, &'static str)> {
    crate::csv::columns::TEXT_COLUMNS.into_iter().chain([("dn", field::INDEX)])
}

fn key_and_value(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.strip_prefix('#')?.split_once(':')?;
    Some((name.trim(), value.trim()))
}
