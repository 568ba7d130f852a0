//! What keeps entries from being written, and what a written file does not hold. Names positions and fields, and of
//! values single characters at most.

use std::fmt;

use thiserror::Error;

/// Why entries cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// An entry lacks its class, without which no row can be made.
    #[error("entry {entry} has no class")]
    NoClass {
        /// Position among the entries, from 0.
        entry: usize,
    },
    /// A text where a set belongs, or a set where a text belongs.
    #[error("field `{field}` of entry {entry} has the wrong type")]
    WrongType {
        /// Position among the entries, from 0.
        entry: usize,
        /// Name of the field.
        field: String,
    },
    /// An index that is not a number of one to nine digits.
    #[error("index of entry {entry} is not a number of one to nine digits")]
    NotANumber {
        /// Position among the entries, from 0.
        entry: usize,
    },
    /// Two entries of the same id.
    #[error("entry {entry} has the id of entry {first}")]
    DuplicateId {
        /// Position among the entries, from 0.
        entry: usize,
        /// The earlier one.
        first: usize,
    },
    /// A value longer than a reader accepts.
    #[error("field `{field}` of entry {entry} is longer than {limit_bytes} bytes")]
    CellTooLarge {
        /// Position among the entries, from 0.
        entry: usize,
        /// Name of the field.
        field: String,
        /// The limit.
        limit_bytes: usize,
    },
    /// More entries than a reader accepts.
    #[error("more than {limit} entries")]
    TooManyEntries {
        /// The limit.
        limit: usize,
    },
    /// More bytes than a reader accepts.
    #[error("file would be longer than {limit_bytes} bytes")]
    FileTooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// Column names that could not be read back.
    #[error("unusable column names")]
    BadColumns,
    /// A character between members that would not be read back as one.
    #[error("unusable separator of members")]
    BadMemberSeparator,
    /// Characters that the file's character set does not have.
    #[error(
        "{charset} has no {}; first in field `{field}` of entry {entry}. Nothing was written; choose UTF-8",
        Characters(characters)
    )]
    NotInCharSet {
        /// As files name it.
        charset: &'static str,
        /// The characters of the first field that has some, each once.
        characters: Vec<char>,
        /// Position among the entries, from 0.
        entry: usize,
        /// Name of the field.
        field: String,
    },
    /// A header line that could not be read back as one, from 0.
    #[error("unusable header line {line}")]
    BadHeaderLine {
        /// Position among the header lines, from 0.
        line: usize,
    },
}

struct Characters<'a>(&'a [char]);

impl fmt::Display for Characters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, character) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            write!(f, "{separator}U+{:04X}", u32::from(*character))?;
            if character.is_alphanumeric() {
                write!(f, " `{character}`")?;
            }
        }
        Ok(())
    }
}

/// Something of an entry that the written file does not hold as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Position among the entries, from 0.
    pub entry: usize,
    /// Name of the field.
    pub field: String,
    /// What happened to it.
    pub what: LeftOutKind,
}

/// What happened to a field that could not be written as it was.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LeftOutKind {
    /// The file has no column for it.
    #[error("no column for this field")]
    NoColumn,
    /// The format has no such kind of destination, so the whole entry is not in the file.
    #[error("entry left out: the format has no destinations of this class")]
    NoSuchClass,
    /// Members of a group that are not among the entries.
    #[error("{count} members are not among the entries")]
    UnknownMembers {
        /// How many.
        count: usize,
    },
    /// An earlier entry has the same distinguished name; this one was given another.
    #[error("name is taken by another entry; replaced by a free one")]
    NameReplaced,
    /// An earlier entry has the same index; this one was given a free one.
    #[error("index is taken by another entry; replaced by a free one")]
    IndexReplaced,
}
