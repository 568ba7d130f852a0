//! vCard 3.0 and 4.0: what a card's properties mean, and the doors in and out.
//!
//! Content lines are cut in `property.rs`. Cards without destination are left out with a notice; what the format has
//! no destination for (folders, Internet faxes) is not written, and told.
//!
//! # Fields
//!
//! | property | field |
//! |---|---|
//! | `FN`, `SORT-STRING` | `name`, `reading` |
//! | `EMAIL`, `TEL` of type `fax` | `mail`, `number`: the first of each |
//! | `KIND` | `class` is `group` for a group, else `email` where there is a mail address, else `fax` |
//! | `MEMBER` | `members`: ids of the cards of these `UID`; others are kept, with a notice |
//! | `UID` | the entry's id in lower case, when it is a UUID |
//! | any other, and further ones of the above | `vcard.` and the name: the whole line as it is; `vcard.NAME#2` and so on when it is repeated |
//!
//! Of a property that became a field, `vcard.NAME` keeps what stands before the value when it is not what we write. In
//! 3.0 groups are written by the `X-ADDRESSBOOKSERVER-` properties that address books agreed on. A line end within a
//! value comes back as a line feed.
//!
//! **Source**: RFC 6350 (4.0), RFC 2426 (3.0).

mod property;
mod read;
mod write;

pub use read::read;
pub use write::write;

use self::property::Property;
use crate::csv::LineEnd;
use crate::entry::{Entry, field, is_uuid};

/// What this format's own fields begin with.
pub(crate) const PREFIX: &str = "vcard.";
const UUID_URN: &str = "urn:uuid:";
/// Properties that hold a shared text field.
const TEXT_PROPERTIES: [(&str, &str); 4] =
    [("FN", field::NAME), ("SORT-STRING", field::READING), ("EMAIL", field::MAIL), ("TEL", field::NUMBER)];

/// Version of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 3.0.
    V3,
    /// 4.0.
    V4,
}

impl Version {
    /// As cards name it.
    #[must_use]
    pub const fn number(self) -> &'static str {
        match self {
            Self::V3 => "3.0",
            Self::V4 => "4.0",
        }
    }

    fn of(number: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.number() == number.trim())
    }

    const fn kind(self) -> &'static str {
        match self {
            Self::V3 => "X-ADDRESSBOOKSERVER-KIND",
            Self::V4 => "KIND",
        }
    }

    const ALL: [Self; 2] = [Self::V3, Self::V4];

    const fn member(self) -> &'static str {
        match self {
            Self::V3 => "X-ADDRESSBOOKSERVER-MEMBER",
            Self::V4 => "MEMBER",
        }
    }
}

/// A whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Book {
    /// Version of the first card.
    pub version: Version,
    /// What ends a line.
    pub line_end: LineEnd,
    /// The entries in the file's order; their ids are unique.
    pub entries: Vec<Entry>,
}

/// Whether a file has a place for the field.
pub(crate) fn carries(name: &str) -> bool {
    matches!(name, field::CLASS | field::MEMBERS)
        || TEXT_PROPERTIES.iter().any(|(_, field)| *field == name)
        || name.starts_with(PREFIX)
}

/// Whether a card is a group by this property; either version's, since address books mix them.
fn makes_group(property: &Property<'_>) -> bool {
    Version::ALL.iter().any(|version| property.is(version.kind()))
        && property.value.trim().eq_ignore_ascii_case("group")
}

/// Whether we write this before a value ourselves, in either version.
fn is_own_head(head: &str, name: &str, value: &str) -> bool {
    Version::ALL.iter().any(|version| head == own_head(name, *version, value))
}

/// What we write before a value.
fn own_head(name: &str, version: Version, value: &str) -> String {
    match (name, version) {
        ("EMAIL", _) => "EMAIL;TYPE=work".to_owned(),
        ("TEL", Version::V4) if is_dialable(value) => "TEL;TYPE=fax;VALUE=uri".to_owned(),
        ("TEL", _) => "TEL;TYPE=fax".to_owned(),
        _ => name.to_owned(),
    }
}

/// Whether what stands before a value promises an address (`tel:`).
fn promises_uri(head: &str) -> bool {
    head.to_ascii_uppercase().contains("VALUE=URI")
}

/// Whether a value can be written behind a head: one that promises an address is no use for a number that is none.
fn suits(head: &str, name: &str, value: &str) -> bool {
    name != "TEL" || !promises_uri(head) || is_dialable(value)
}

/// Whether a number needs no escaping in a `tel:` address.
fn is_dialable(number: &str) -> bool {
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit() || b"+-.()".contains(&byte))
}

/// A `UID` in comparable form: a UUID in lower case and without its `urn:`.
fn comparable(uid: &str) -> String {
    let urn = uid.get(..UUID_URN.len()).is_some_and(|urn| urn.eq_ignore_ascii_case(UUID_URN));
    let bare = if urn { &uid[UUID_URN.len()..] } else { uid };
    if urn || is_uuid(bare) { bare.to_ascii_lowercase() } else { bare.to_owned() }
}
