//! The vendor's AddressBook CSV, versions 0x0002, 0x0003 and later: what a file is made of, and the doors in and out.
//!
//! A file is a format line, `#` header lines, an empty line, a row of column names and a row per entry. What each
//! column becomes is decided in `columns.rs`, how bytes are cut into cells in `cells.rs`, how groups name their
//! members in `members.rs` beside this module. Passwords never pass: they are neither read nor written. Character sets other than UTF-8
//! are refused.
//!
//! # Fields
//!
//! | column | field |
//! |---|---|
//! | `objectclass` | `class`: `remotefilesystem` is `folder`, `g3fax` is `fax`, `groupfids` is `group`, any other word stays |
//! | `cn`, `cnread`, `cnshort` | `name`, `reading`, `short_name` |
//! | `mailaddress`, `dialdata` | `mail`, `number` |
//! | `url`, `path`, `protocol`, `username` | `host`, `path`, `protocol`, `username` |
//! | `indxid` | `index`: one to nine digits, unique in the file |
//! | `member` | `members`: ids of the entries with these `indxid`; numbers that no entry of the file has stay as text in `csv.member`, with a notice |
//! | `uuid` | the entry's id in lower case; `csv.uuid` keeps a cell that is spelled differently, is no UUID or repeats one |
//! | `pwd` | nothing, with a notice |
//! | any other | `csv.` and the column's name, also for columns we have never seen |
//!
//! A cell is kept to the byte and an empty one is an absent field, so reading and writing a book gives the same bytes.
//! Not kept are needless quotes, mixed line ends, blank rows, and the order in which a group lists its members.
//!
//! **Source**: the vendor's user manuals, chapter on address-book items of the CSV file, and exported files.

mod cells;
pub(crate) mod columns;
mod header;
mod read;
mod write;

use std::collections::BTreeMap;

pub use header::{Header, Version};
pub use read::read;
pub use write::write;

use crate::entry::Entry;
use crate::members;

/// What this format's own fields begin with.
pub(crate) const PREFIX: &str = "csv.";
/// Longest file read or written, in bytes.
pub const MAX_FILE_BYTES: usize = 64 * 1024 * 1024;
/// Most entries in a file.
pub const MAX_ROWS: usize = 50_000;
/// Longest cell or header line, in bytes: an item of the product holds no more.
pub const MAX_CELL_BYTES: usize = 64 * 1024;
/// Most columns: an item of the product has 128 fields, and some columns become two.
pub const MAX_COLUMNS: usize = 120;
/// Most lines between the format line and the column names.
pub const MAX_HEADER_LINES: usize = 64;

/// A whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Book {
    /// What stands before the column names.
    pub header: Header,
    /// Column names in the file's order, without the nameless one behind a trailing comma.
    pub columns: Vec<String>,
    /// How the text is laid out.
    pub layout: Layout,
    /// The entries in the file's order; their ids are unique.
    pub entries: Vec<Entry>,
}

impl Book {
    /// Options that write the book the way it was read.
    ///
    /// The `Crypto` header lines go: the passwords they speak of were left out, and with these lines present a machine
    /// could not read passwords that someone adds by hand.
    #[must_use]
    pub fn options(&self) -> WriteOptions {
        let mut header = self.header.clone();
        header.remove_starting_with("crypto ");
        WriteOptions {
            header,
            columns: self.columns.clone(),
            layout: self.layout.clone(),
            defaults: BTreeMap::new(),
        }
    }
}

/// How to write entries as a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOptions {
    /// What stands before the column names.
    pub header: Header,
    /// Column names in order, without a nameless last one.
    pub columns: Vec<String>,
    /// How the text is laid out.
    pub layout: Layout,
    /// By column name: the cell of an entry that lacks the field.
    pub defaults: BTreeMap<String, String>,
}

impl WriteOptions {
    /// What machines of the header's version export, for entries that may never have been in such a file.
    #[must_use]
    pub fn new(header: Header) -> Self {
        let columns = columns::vendor_columns(header.version).iter().map(|name| (*name).to_owned()).collect();
        let defaults = [("subdbid", "1"), ("enablepartial", "off"), ("accesscode", "0")]
            .map(|(column, cell)| (column.to_owned(), cell.to_owned()));
        Self { header, columns, layout: Layout::default(), defaults: defaults.into() }
    }
}

/// Everything about a file's text that carries no meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Whether the file begins with a UTF-8 byte order mark.
    pub bom: bool,
    /// What ends a line.
    pub line_end: LineEnd,
    /// Whether column names and rows end with a comma.
    pub trailing_comma: bool,
    /// Whether the last line is ended too.
    pub final_line_end: bool,
    /// What stands between the numbers in a group's `member` cell: `,`, `;`, `|` or a blank.
    pub member_separator: char,
}

impl Default for Layout {
    /// As machines write it.
    fn default() -> Self {
        Self {
            bom: false,
            line_end: LineEnd::CrLf,
            trailing_comma: true,
            final_line_end: true,
            member_separator: members::SEPARATORS[0],
        }
    }
}

/// What ends a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEnd {
    /// `\r\n`, as machines write it.
    CrLf,
    /// `\n`, as files become on their way through other systems.
    Lf,
}

impl LineEnd {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::CrLf => "\r\n",
            Self::Lf => "\n",
        }
    }
}
