//! One address, group or folder, and the names of its fields: the meeting point of all formats.
//!
//! Field names are those that travel as item fields in the product; columns that only one format knows stay under
//! that format's prefix (`csv.`). Nothing here parses or writes a file. Called by every format of this crate and by
//! those who turn entries into items.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

/// Values of the field [`field::CLASS`]; any other value is a vendor's own word, kept as it came.
pub mod class {
    /// A mail destination.
    pub const EMAIL: &str = "email";
    /// A telephone fax.
    pub const FAX: &str = "fax";
    /// A fax delivered by mail.
    pub const IFAX: &str = "ifax";
    /// A folder on a file server.
    pub const FOLDER: &str = "folder";
    /// A list of other entries.
    pub const GROUP: &str = "group";
}

/// Names of the fields that all formats share.
pub mod field {
    /// Kind of destination, see [`class`](super::class).
    pub const CLASS: &str = "class";
    /// Full name.
    pub const NAME: &str = "name";
    /// Phonetic form of the name, used for sorting in Japanese.
    pub const READING: &str = "reading";
    /// Short name for a button.
    pub const SHORT_NAME: &str = "short_name";
    /// Mail address.
    pub const MAIL: &str = "mail";
    /// Telephone number of a fax.
    pub const NUMBER: &str = "number";
    /// File server, with the share where the protocol has one.
    pub const HOST: &str = "host";
    /// Folder below `host`.
    pub const PATH: &str = "path";
    /// How the destination is reached (`smtp`, `smb`, `ftp` …).
    pub const PROTOCOL: &str = "protocol";
    /// Account on the file server.
    pub const USERNAME: &str = "username";
    /// Entry ids of a group's members, a [`Value::Set`](super::Value::Set).
    pub const MEMBERS: &str = "members";
    /// Number of the entry in its list or of its one-touch button, as text.
    pub const INDEX: &str = "index";
}

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text, never empty in what this crate reads: an empty cell is an absent field.
    Text(String),
    /// An unordered set of texts.
    Set(BTreeSet<String>),
}

/// One address, group or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Identity that survives export and import: the file's UUID in lower case, or 32 hexadecimal digits derived
    /// from the content where the file has none.
    pub id: String,
    /// Named values; see [`field`] for the shared names.
    pub fields: BTreeMap<String, Value>,
}

impl Entry {
    /// The text of a field, or nothing when it is absent or a set.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.fields.get(name)? {
            Value::Text(text) => Some(text),
            Value::Set(_) => None,
        }
    }

    /// The set of a field, or nothing when it is absent or a text.
    #[must_use]
    pub fn set(&self, name: &str) -> Option<&BTreeSet<String>> {
        match self.fields.get(name)? {
            Value::Set(set) => Some(set),
            Value::Text(_) => None,
        }
    }
}

/// Derives an id for an entry whose file gives it none: the same content has the same id in every file.
///
/// It is the first 16 bytes, in hexadecimal, of SHA-256 over class, destination, name and index, each preceded by
/// its length. `repeat` counts earlier entries of the same file with the same content and keeps their ids apart.
pub(crate) fn derived_id(fields: &BTreeMap<String, Value>, repeat: u32) -> String {
    const HASHED: [&str; 7] =
        [field::CLASS, field::MAIL, field::NUMBER, field::HOST, field::PATH, field::NAME, field::INDEX];
    let mut hash = Sha256::new();
    hash.update(b"mfpsync address entry 1\n");
    for name in HASHED {
        let text = match fields.get(name) {
            Some(Value::Text(text)) => text.as_str(),
            Some(Value::Set(_)) | None => "",
        };
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    hash.update(repeat.to_be_bytes());
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether `text` has the form of a UUID: 8-4-4-4-12 hexadecimal digits of either case.
///
/// **Source**: RFC 9562 section 4. Variant and version are not looked at: vendors fill them freely.
pub(crate) fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(name: &str, mail: &str) -> BTreeMap<String, Value> {
        [(field::CLASS, class::EMAIL), (field::NAME, name), (field::MAIL, mail)]
            .into_iter()
            .map(|(key, text)| (key.to_owned(), Value::Text(text.to_owned())))
            .collect()
    }

    #[test]
    fn a_derived_id_depends_on_content_and_repeat_alone() {
        let id = derived_id(&fields("Ann", "ann@example.com"), 0);
        assert_eq!(id, "180816153d988b244f3cf86cb57f1796", "ids are stored: they may never change");
        assert_ne!(id, derived_id(&fields("Ann", "ann@example.com"), 1));
        assert_ne!(id, derived_id(&fields("ann@example.com", "Ann"), 0), "which field holds a text matters");
        let mut with_extra = fields("Ann", "ann@example.com");
        with_extra.insert("csv.accesscode".to_owned(), Value::Text("0".to_owned()));
        assert_eq!(id, derived_id(&with_extra, 0));
    }

    #[test]
    fn only_the_dashed_form_is_a_uuid() {
        assert!(is_uuid("230824d2-15ce-43a1-8b35-10b0b46ee1da"));
        assert!(is_uuid("230824D2-15CE-43A1-8B35-10B0B46EE1DA"));
        for text in ["", "230824d215ce43a18b3510b0b46ee1da", "230824d2-15ce-43a1-8b35-10b0b46ee1dg"] {
            assert!(!is_uuid(text), "{text}");
        }
    }
}
