//! What each column of the vendor's CSV becomes: the only place that knows both vocabularies.
//!
//! Column names are recognised in any case and kept as they are written. Called by `read.rs` and `write.rs`.

use std::collections::HashSet;

use super::cells::Row;
use super::{MAX_COLUMNS, Version};
use crate::entry::{class, field};
use crate::error::{Problem, ProblemKind, Problems, ReadError};

/// Columns that machines write, version 0x0002; version 0x0003 adds the last one.
const VENDOR_COLUMNS: [&str; 50] = [
    "objectclass",
    "cn",
    "cnread",
    "cnshort",
    "subdbid",
    "mailaddress",
    "dialdata",
    "uri",
    "url",
    "path",
    "protocol",
    "username",
    "pwd",
    "member",
    "indxid",
    "enablepartial",
    "sub",
    "faxprotocol",
    "ecm",
    "txstartspeed",
    "commode",
    "lineselect",
    "uricommode",
    "uriflag",
    "pwdinputflag",
    "ifaxmode",
    "transsvcstr1",
    "transsvcstr2",
    "ifaxdirectmode",
    "documenttype",
    "bwpapersize",
    "bwcompressiontype",
    "bwpixeltype",
    "bwbitsperpixel",
    "bwresolution",
    "clpapersize",
    "clcompressiontype",
    "clpixeltype",
    "clbitsperpixel",
    "clresolution",
    "accesscode",
    "uuid",
    "cnreadlang",
    "enablesfp",
    "memberobjectuuid",
    "loginusername",
    "logindomainname",
    "usergroupname",
    "personalid",
    "folderidflag",
];

/// Columns that hold a shared text field.
pub(crate) const TEXT_COLUMNS: [(&str, &str); 9] = [
    ("cn", field::NAME),
    ("cnread", field::READING),
    ("cnshort", field::SHORT_NAME),
    ("mailaddress", field::MAIL),
    ("dialdata", field::NUMBER),
    ("url", field::HOST),
    ("path", field::PATH),
    ("protocol", field::PROTOCOL),
    ("username", field::USERNAME),
];

const CLASSES: [(&str, &str); 5] = [
    ("email", class::EMAIL),
    ("g3fax", class::FAX),
    ("ifax", class::IFAX),
    ("remotefilesystem", class::FOLDER),
    ("groupfids", class::GROUP),
];

const CLASS: &str = "objectclass";
const INDEX: &str = "indxid";

/// Longest column name, in bytes: with the prefix it becomes the name of a field, which the product bounds by 255.
pub(super) const MAX_NAME_BYTES: usize = 200;
/// Keeps a cell of `objectclass` that the class alone would not give back.
pub(super) const RAW_CLASS: &str = "csv.objectclass";
/// Keeps a cell of `uuid` that the id alone would not give back.
pub(super) const RAW_UUID: &str = "csv.uuid";
/// Keeps members that no entry of the file is.
pub(super) const RAW_MEMBER: &str = "csv.member";

/// What a column is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Column {
    Class,
    Uuid,
    Password,
    Members,
    Index,
    /// A text field of this name.
    Text(String),
}

impl Column {
    pub(super) fn of(name: &str) -> Self {
        let known = name.trim().to_ascii_lowercase();
        match known.as_str() {
            CLASS => Self::Class,
            "uuid" => Self::Uuid,
            "pwd" => Self::Password,
            "member" => Self::Members,
            INDEX => Self::Index,
            _ => {
                let shared = TEXT_COLUMNS.iter().find(|(column, _)| *column == known);
                Self::Text(shared.map_or_else(|| format!("csv.{name}"), |(_, field)| (*field).to_owned()))
            }
        }
    }

    /// Whether the column has a say in what becomes of the field.
    pub(super) fn carries(&self, field_name: &str) -> bool {
        match self {
            Self::Class => matches!(field_name, field::CLASS | RAW_CLASS),
            Self::Uuid => field_name == RAW_UUID,
            Self::Password => false,
            Self::Members => matches!(field_name, field::MEMBERS | RAW_MEMBER),
            Self::Index => field_name == field::INDEX,
            Self::Text(name) => field_name == name,
        }
    }
}

pub(super) fn vendor_columns(version: Version) -> &'static [&'static str] {
    match version {
        Version::V2 => &VENDOR_COLUMNS[..VENDOR_COLUMNS.len() - 1],
        Version::V3 | Version::Other(_) => &VENDOR_COLUMNS,
    }
}

/// Our word for the vendor's, or the vendor's own.
pub(crate) fn class_of(vendor_word: &str) -> &str {
    CLASSES.iter().find(|(vendor, _)| *vendor == vendor_word).map_or(vendor_word, |(_, ours)| ours)
}

/// The vendor's word for ours.
pub(crate) fn vendor_word(class: &str) -> &str {
    CLASSES.iter().find(|(_, ours)| *ours == class).map_or(class, |(vendor, _)| vendor)
}

/// The row of column names, understood.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) names: Vec<String>,
    pub(super) kinds: Vec<Column>,
    /// Nameless columns behind the last name: one for a trailing comma, more after a spreadsheet's work.
    pub(super) nameless: usize,
}

impl Columns {
    pub(super) fn parse(row: &Row<'_>) -> Result<Self, ReadError> {
        if let Some((_, line, what)) = &row.fault {
            return Err(Problem::alone(*line, None, what.clone()));
        }
        let mut names = Vec::with_capacity(row.cells.len());
        for cell in &row.cells {
            match std::str::from_utf8(&cell.bytes) {
                Ok(name) => names.push(name.to_owned()),
                Err(_) => return Err(Problem::alone(cell.line, None, ProblemKind::InvalidUtf8)),
            }
        }
        while names.last().is_some_and(|name| name.trim().is_empty()) {
            names.pop();
        }
        if names.len() > MAX_COLUMNS || row.count > row.cells.len() {
            return Err(Problem::alone(row.line, None, ProblemKind::TooManyColumns { limit: MAX_COLUMNS }));
        }
        let kinds: Vec<Column> = names.iter().map(|name| Column::of(name)).collect();
        let columns = Self { nameless: row.count - names.len(), names, kinds };
        columns.check(row.line)?;
        Ok(columns)
    }

    /// Whether a column's name may become the name of a field.
    pub(super) fn is_usable_name(name: &str) -> bool {
        name.len() <= MAX_NAME_BYTES && !name.chars().any(char::is_control)
    }

    fn check(&self, line: u64) -> Result<(), ReadError> {
        // Without this column the row is probably an entry: its cells must not be shown as column names.
        if !self.kinds.contains(&Column::Class) {
            return Err(Problem::alone(line, Some(CLASS.to_owned()), ProblemKind::MissingColumn));
        }
        let mut problems = Problems::default();
        let mut seen = HashSet::new();
        for (at, name) in self.names.iter().enumerate() {
            if name.trim().is_empty() {
                problems.add(line, Some(self.shown(at)), ProblemKind::NamelessColumn);
            } else if !Self::is_usable_name(name) {
                let what = ProblemKind::UnusableColumnName { limit_bytes: MAX_NAME_BYTES };
                problems.add(line, Some(self.shown(at)), what);
            } else if !seen.insert(name.trim().to_ascii_lowercase()) {
                problems.add(line, Some(self.shown(at)), ProblemKind::DuplicateColumn);
            }
        }
        problems.or(())
    }

    /// The column's name for a person; its number where the name might be data gone astray.
    pub(super) fn shown(&self, at: usize) -> String {
        let sound = |name: &&String| {
            (1..=40).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        };
        self.names.get(at).filter(sound).cloned().unwrap_or_else(|| format!("#{}", at + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_a_word_of_the_vendor_and_back() {
        for (vendor, ours) in CLASSES {
            assert_eq!((class_of(vendor), vendor_word(ours)), (ours, vendor));
        }
        assert_eq!((class_of("ipfax"), vendor_word("ipfax")), ("ipfax", "ipfax"));
    }

    #[test]
    fn columns_are_recognised_in_any_case_and_unknown_ones_kept_as_written() {
        assert_eq!(Column::of("IndxId"), Column::Index);
        assert_eq!(Column::of("mailaddress"), Column::Text("mail".to_owned()));
        assert_eq!(Column::of("newThing"), Column::Text("csv.newThing".to_owned()));
    }
}
