//! Which format a file has, and one door in and out for all of them.
//!
//! Called by those who take a file whatever it is; what a format is like is known to its own module.

use std::path::Path;

use crate::entry::Entry;
use crate::error::{LeftOut, Notice, Problem, ProblemKind, ReadError, WriteError};
use crate::{abk, csv, ldif, vcard};

/// A format of address books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The vendor's AddressBook CSV.
    Csv,
    /// The vendor's ABK text.
    Abk,
    /// LDIF of a directory.
    Ldif,
    /// vCard.
    Vcard,
}

/// A file that was read, with what its own format knows beside the entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Book {
    /// Of the vendor's CSV.
    Csv(csv::Book),
    /// Of the vendor's ABK text.
    Abk(abk::Book),
    /// Of LDIF.
    Ldif(ldif::Book),
    /// Of vCard.
    Vcard(vcard::Book),
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Csv, Self::Abk, Self::Ldif, Self::Vcard];

    /// By how the content begins; nothing when it begins like none of them.
    #[must_use]
    pub fn detect(bytes: &[u8]) -> Option<Self> {
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut lines = text.split(|byte| matches!(byte, b'\r' | b'\n')).map(<[u8]>::trim_ascii);
        let first = lines.find(|line| !line.is_empty())?;
        // A spreadsheet may have quoted the first line.
        let title = String::from_utf8_lossy(first).trim_start_matches(['"', '#', ' ']).to_ascii_lowercase();
        let begins = |start: &str| title.starts_with(start);
        if begins("canon addressbook csv version") {
            return Some(Self::Csv);
        }
        if begins("canon addressbook version") {
            return Some(Self::Abk);
        }
        if begins("begin:vcard") {
            return Some(Self::Vcard);
        }
        // Directories write comments before the first entry.
        let mut content =
            std::iter::once(first).chain(lines).filter(|line| !line.is_empty() && !line.starts_with(b"#"));
        let content = content.next().unwrap_or_default().to_ascii_lowercase();
        (content.starts_with(b"version:") || content.starts_with(b"dn:")).then_some(Self::Ldif)
    }

    /// By the suffix of a file's name.
    #[must_use]
    pub fn of_name(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "abk" => Some(Self::Abk),
            "ldif" | "ldi" => Some(Self::Ldif),
            "vcf" | "vcard" => Some(Self::Vcard),
            _ => None,
        }
    }

    /// As commands and answers name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Abk => "abk",
            Self::Ldif => "ldif",
            Self::Vcard => "vcard",
        }
    }

    /// What the names of its own fields begin with.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Csv => csv::PREFIX,
            Self::Abk => abk::PREFIX,
            Self::Ldif => ldif::PREFIX,
            Self::Vcard => vcard::PREFIX,
        }
    }

    /// Reads a file of this format.
    ///
    /// # Errors
    ///
    /// Every problem found, located.
    pub fn read(self, bytes: &[u8]) -> Result<(Book, Vec<Notice>), ReadError> {
        match self {
            Self::Csv => csv::read(bytes).map(|(book, notices)| (Book::Csv(book), notices)),
            Self::Abk => abk::read(bytes).map(|(book, notices)| (Book::Abk(book), notices)),
            Self::Ldif => ldif::read(bytes).map(|(book, notices)| (Book::Ldif(book), notices)),
            Self::Vcard => vcard::read(bytes).map(|(book, notices)| (Book::Vcard(book), notices)),
        }
    }
}

/// Reads a file of whatever format it has.
///
/// # Errors
///
/// Content of no format known, or every problem found, located.
pub fn read(bytes: &[u8]) -> Result<(Book, Vec<Notice>), ReadError> {
    match Format::detect(bytes) {
        Some(format) => format.read(bytes),
        // The CSV's reader tells UTF-16 from what is no address book at all.
        None if matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) => Format::Csv.read(bytes),
        None => Err(Problem::alone(1, None, ProblemKind::NoFormat)),
    }
}

impl Book {
    /// The entries in the file's order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        match self {
            Self::Csv(book) => &book.entries,
            Self::Abk(book) => &book.entries,
            Self::Ldif(book) => &book.entries,
            Self::Vcard(book) => &book.entries,
        }
    }

    /// The format it was read from.
    #[must_use]
    pub const fn format(&self) -> Format {
        match self {
            Self::Csv(_) => Format::Csv,
            Self::Abk(_) => Format::Abk,
            Self::Ldif(_) => Format::Ldif,
            Self::Vcard(_) => Format::Vcard,
        }
    }

    /// Writes the book the way it was read.
    ///
    /// # Errors
    ///
    /// Never for a book as it was read; see the formats for one that was changed.
    pub fn write(&self) -> Result<(Vec<u8>, Vec<LeftOut>), WriteError> {
        match self {
            Self::Csv(book) => csv::write(&book.entries, &book.options()),
            Self::Abk(book) => abk::write(&book.entries, &book.options()),
            Self::Ldif(book) => ldif::write(&book.entries, book.line_end),
            Self::Vcard(book) => vcard::write(&book.entries, book.version, book.line_end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_tells_the_format() {
        for (text, format) in [
            ("# Canon AddressBook CSV version: 0x0002\n", Some(Format::Csv)),
            ("\u{feff}\"# Canon AddressBook CSV version: 0x0002\",,\n", Some(Format::Csv)),
            ("# Canon AddressBook version: 1\n", Some(Format::Abk)),
            ("\r\nBEGIN:vcard\r\n", Some(Format::Vcard)),
            ("# extended LDIF\n#\n\ndn: x\n", Some(Format::Ldif)),
            ("version: 1\n", Some(Format::Ldif)),
            ("", None),
            ("name,mail\n", None),
        ] {
            assert_eq!(Format::detect(text.as_bytes()), format, "{text}");
        }
    }

    #[test]
    fn suffixes_are_known_in_any_case() {
        for (name, format) in [("a.CSV", Some(Format::Csv)), ("a.vcf", Some(Format::Vcard)), ("-", None)] {
            assert_eq!(Format::of_name(Path::new(name)), format);
        }
    }
}
