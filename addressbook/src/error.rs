//! What can be wrong with a file, or worth knowing about it, located and without personal data.
//!
//! A column is named only when its name looks like one; a cell's content is never repeated. Formats build these, the
//! command line and the daemon print or translate them.

use std::fmt;

use thiserror::Error;

mod writing;

pub use writing::{LeftOut, LeftOutKind, WriteError};

/// At most so many problems are listed; the rest are counted.
pub const MAX_PROBLEMS: usize = 100;

/// Why a file was refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("read address book: {}{}", .problems.first().map(ToString::to_string).unwrap_or_default(), Others(self.count()))]
pub struct ReadError {
    /// In the order of the file, at most [`MAX_PROBLEMS`], at least one.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub unlisted: u64,
}

impl ReadError {
    /// Number of problems, listed or not.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.problems.len() as u64 + self.unlisted
    }
}

struct Others(u64);

impl fmt::Display for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 | 1 => Ok(()),
            2 => f.write_str(", and 1 more problem"),
            count => write!(f, ", and {} more problems", count - 1),
        }
    }
}

/// One thing that keeps a file from being read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1; a cell that spans lines counts where it begins.
    pub line: u64,
    /// Name of the column, or `#n` for the n-th when its name is none that can be shown.
    pub column: Option<String>,
    /// What is wrong.
    pub what: ProblemKind,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        located(f, self.line, self.column.as_deref())?;
        self.what.fmt(f)
    }
}

/// What is wrong at a place of a file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The file begins with something else than its format demands.
    #[error("not an address book of this format")]
    UnknownFormat,
    /// The file begins like none of the formats.
    #[error("not an address book: neither AddressBook CSV, ABK, LDIF nor vCard")]
    NoFormat,
    /// The format's name is followed by something that is no version.
    #[error("unreadable version number")]
    BadVersion,
    /// Text in a character set that is not translated.
    #[error("character set {name} is not supported yet")]
    CharSet {
        /// As the file names it.
        name: String,
    },
    /// Bytes that are not UTF-8 where the file promises it.
    #[error("invalid UTF-8")]
    InvalidUtf8,
    /// No row of column names before the end of the file.
    #[error("row of column names is missing")]
    MissingColumns,
    /// The column names lack one that entries cannot do without.
    #[error("column is missing")]
    MissingColumn,
    /// Two columns of the same name.
    #[error("column appears twice")]
    DuplicateColumn,
    /// A column whose name could not be the name of a field.
    #[error("name of the column is longer than {limit_bytes} bytes or holds control characters")]
    UnusableColumnName {
        /// The limit.
        limit_bytes: usize,
    },
    /// A nameless column amid the others.
    #[error("column has no name")]
    NamelessColumn,
    /// A row with fewer or more cells than there are columns; the column is the first without a cell.
    #[error("row has {found} cells instead of {expected}")]
    CellCount {
        /// As many as there are columns.
        expected: usize,
        /// In this row.
        found: usize,
    },
    /// A quoted cell that never ends.
    #[error("quote is never closed")]
    UnterminatedQuote,
    /// Text between a closing quote and the next comma.
    #[error("text follows a closing quote")]
    TextAfterQuote,
    /// A cell that must not be empty.
    #[error("cell is empty")]
    EmptyCell,
    /// A number cell with something else than one to nine digits.
    #[error("not a number of one to nine digits")]
    NotANumber,
    /// An index number that an earlier row has.
    #[error("number already stands in line {first_line}")]
    DuplicateIndex {
        /// Where it stands first.
        first_line: u64,
    },
    /// The file exceeds a limit as a whole.
    #[error("file is longer than {limit_bytes} bytes")]
    FileTooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// More header lines than sensible.
    #[error("more than {limit} header lines")]
    TooManyHeaderLines {
        /// The limit.
        limit: usize,
    },
    /// More columns than an entry may have fields.
    #[error("more than {limit} columns")]
    TooManyColumns {
        /// The limit.
        limit: usize,
    },
    /// More rows than are accepted.
    #[error("more than {limit} rows")]
    TooManyRows {
        /// The limit.
        limit: usize,
    },
    /// A line that is no `name: value`, or whose name has characters that names do not have.
    #[error("not of the form `name: value`")]
    NotAnAttribute,
    /// A continuation line with nothing before it to continue.
    #[error("continues no line")]
    ContinuesNothing,
    /// A value marked as base64 that is not.
    #[error("value is not base64")]
    NotBase64,
    /// A value given by its address; nothing is fetched.
    #[error("value is given by a URL and is not fetched; put the value itself into the file")]
    UrlValue,
    /// An entry without an attribute it cannot do without.
    #[error("attribute is missing")]
    MissingAttribute,
    /// A version of the format that is not read.
    #[error("version is not read; export as 3.0 or 4.0")]
    UnsupportedVersion,
    /// A card that does not end, in the line where it begins.
    #[error("card has no END:VCARD: the file may have been cut")]
    UnclosedCard,
    /// A `BEGIN` or `END` amid a card that neither begins nor ends one.
    #[error("BEGIN and END stand around a card, not in it")]
    StrayDelimiter,
    /// A line between cards.
    #[error("line belongs to no card")]
    OutsideCard,
    /// An attribute of which an entry has one at most.
    #[error("attribute appears twice")]
    DuplicateAttribute,
    /// A record that changes a directory instead of describing an entry.
    #[error("change records are not imported; export the entries themselves")]
    ChangeRecord,
    /// More attributes than an entry may have fields.
    #[error("more than {limit} attributes")]
    TooManyAttributes {
        /// The limit.
        limit: usize,
    },
    /// Bytes that are no text in the file's character set.
    #[error("not text in {charset}")]
    NotInCharSet {
        /// As files name it.
        charset: &'static str,
    },
    /// A cell or header line exceeds a limit.
    #[error("longer than {limit_bytes} bytes")]
    CellTooLarge {
        /// The limit.
        limit_bytes: usize,
    },
}

/// Something the operator should know about a file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Line in the file, from 1.
    pub line: u64,
    /// Name of the column, if it concerns one.
    pub column: Option<String>,
    /// What was noticed.
    pub what: NoticeKind,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        located(f, self.line, self.column.as_deref())?;
        self.what.fmt(f)
    }
}

/// What was noticed in a file that was read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NoticeKind {
    /// A version newer than the newest known; read by the rules of that one.
    #[error("version 0x{version:04x} is newer than those known; unknown columns are kept")]
    NewerVersion {
        /// As the file says.
        version: u32,
    },
    /// The file does not name its character set.
    #[error("no character set is named; read as UTF-8")]
    CharSetAssumed,
    /// An encrypted password was left out.
    #[error("password left out: only the exporting machine can read it")]
    PasswordUnreadable,
    /// A plain password was left out.
    #[error("password left out: passwords are not imported from files")]
    PasswordNotImported,
    /// Not a UUID; the entry's id was derived from its content.
    #[error("not a UUID; identity derived from the content")]
    NotAUuid,
    /// The UUID of an earlier row; this entry's id was derived from its content.
    #[error("identity already stands in line {first_line}; another one derived from the content")]
    DuplicateUuid {
        /// Where it stands first.
        first_line: u64,
    },
    /// Name, destination and number of an earlier row, and no UUID to tell them apart.
    #[error("same entry as in line {first_line}; both are kept")]
    DuplicateEntry {
        /// The earlier one.
        first_line: u64,
    },
    /// The distinguished name of an earlier entry; a group's members of that name could be either.
    #[error("name already stands in line {first_line}; both are kept, members of that name are not followed")]
    DuplicateName {
        /// The earlier one.
        first_line: u64,
    },
    /// A group lists numbers that no entry of the file has; they are kept as they are.
    #[error("{count} members are not in the file")]
    UnknownMembers {
        /// How many.
        count: usize,
    },
    /// An entry of no destination: nothing in it that a machine could send to.
    #[error("entry left out: it has no mail address, fax number or members")]
    NoDestination,
    /// An attribute of no use to a machine that is too long to be kept.
    #[error("value left out: an entry keeps at most {limit_bytes} bytes of what machines do not use")]
    ValueTooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// An attribute of no use to a machine, beside as many as can be kept.
    #[error("value left out: an entry keeps at most {limit} values that machines do not use")]
    TooManyValues {
        /// The limit.
        limit: usize,
    },
    /// A row without any content was left out.
    #[error("empty row left out")]
    EmptyRow,
    /// The last line has no line end and the format cannot tell a shortened last cell from a whole one.
    #[error("last line has no line end: the file may have been cut")]
    NoFinalLineEnd,
}

fn located(f: &mut fmt::Formatter<'_>, line: u64, column: Option<&str>) -> fmt::Result {
    match column {
        Some(column) => write!(f, "line {line}, column {column}: "),
        None => write!(f, "line {line}: "),
    }
}

/// Gathers problems up to the limit and counts the rest.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    listed: Vec<Problem>,
    unlisted: u64,
}

impl Problems {
    pub(crate) fn add(&mut self, line: u64, column: Option<String>, what: ProblemKind) {
        if self.listed.len() < MAX_PROBLEMS {
            self.listed.push(Problem { line, column, what });
        } else {
            self.unlisted += 1;
        }
    }

    /// `value` when no problem was found.
    pub(crate) fn or<T>(self, value: T) -> Result<T, ReadError> {
        if self.listed.is_empty() { Ok(value) } else { Err(self.into()) }
    }
}

impl From<Problems> for ReadError {
    fn from(problems: Problems) -> Self {
        Self { problems: problems.listed, unlisted: problems.unlisted }
    }
}

impl Problem {
    /// A file refused for this one reason.
    pub(crate) fn alone(line: u64, column: Option<String>, what: ProblemKind) -> ReadError {
        ReadError { problems: vec![Self { line, column, what }], unlisted: 0 }
    }
}
