//! LDIF of people and groups in a directory: what an entry's attributes mean, and the doors in and out.
//!
//! Content records alone are read; change records and values given by URL are refused by name. Passwords are neither
//! read nor written, and comments are not kept. Entries without destination are left out with a notice. What the format has no
//! destination for (folders, Internet faxes) is not written, and told.
//!
//! # Fields
//!
//! | attribute | field |
//! |---|---|
//! | `cn`, `cn;lang-ja;phonetic` | `name`, `reading` |
//! | `mail`, `facsimileTelephoneNumber` | `mail`, `number` |
//! | `objectClass` | `class` is `group` for `groupOfNames` and `groupOfUniqueNames`, else `email` where there is a mail address, else `fax`; another list of classes than ours stays in `ldif.objectClass` |
//! | `member`, `uniqueMember` | `members`: ids of the entries of these names; names that no entry has are kept, with a notice |
//! | `entryUUID` | the entry's id in lower case |
//! | `dn`, `sn` | `ldif.dn` and `ldif.sn`, unless they say no more than id and name |
//! | `userPassword` | nothing, with a notice |
//! | any other, and further values of the above | `ldif.` and the name; `ldif.name#2` and so on when it is repeated |
//!
//! A value that is no text stays in base64, its field's name ending in `::`.
//!
//! **Source**: RFC 2849 (the format), RFC 4519 and RFC 2798 (attributes).

mod read;
mod write;

pub use read::read;
pub use write::write;

use crate::csv::LineEnd;
use crate::entry::{Entry, field};

/// What this format's own fields begin with.
pub(crate) const PREFIX: &str = "ldif.";
/// Attributes that hold a shared text field.
const TEXT_ATTRIBUTES: [(&str, &str); 4] = [
    ("cn", field::NAME),
    ("cn;lang-ja;phonetic", field::READING),
    ("mail", field::MAIL),
    ("facsimileTelephoneNumber", field::NUMBER),
];
const PERSON: [&str; 3] = ["top", "person", "inetOrgPerson"];
const GROUP: [&str; 2] = ["top", "groupOfNames"];
const UNIQUE_GROUP: &str = "groupOfUniqueNames";

/// A whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Book {
    /// What ends a line.
    pub line_end: LineEnd,
    /// The entries in the file's order; their ids are unique.
    pub entries: Vec<Entry>,
}

/// Whether a file has a place for the field.
pub(crate) fn carries(name: &str) -> bool {
    matches!(name, field::CLASS | field::MEMBERS)
        || TEXT_ATTRIBUTES.iter().any(|(_, field)| *field == name)
        || name.starts_with(PREFIX)
}

fn is_group<'a>(mut classes: impl Iterator<Item = &'a str>) -> bool {
    classes.any(|class| class.eq_ignore_ascii_case(GROUP[1]) || class.eq_ignore_ascii_case(UNIQUE_GROUP))
}

/// The name of an entry that has none in a directory.
fn own_dn(id: &str) -> String {
    format!("uid={id},ou=addressbook")
}

/// A distinguished name in comparable form: letter case and blanks around separators do not count.
fn comparable(dn: &str) -> String {
    dn.split(',').map(|part| part.trim().to_lowercase()).collect::<Vec<_>>().join(",")
}
