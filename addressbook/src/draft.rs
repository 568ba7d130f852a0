//! An entry in the making, shared by the readers of ABK, LDIF and vCard: shared fields, and what is kept of the rest.
//!
//! What a format knows alone is kept as `PREFIX.name`, further values of the same name as `PREFIX.name#2` and so on.
//! This file owns that naming in both directions and the limits; what a name means is the formats' business.

use std::collections::BTreeMap;

use crate::csv::MAX_CELL_BYTES;
use crate::entry::{Entry, Value, class, field};
use crate::error::{LeftOut, LeftOutKind, Notice, NoticeKind, ProblemKind, Problems, WriteError};
use crate::numbers;

/// Most bytes of an entry that are kept although no machine uses them: an item of the product holds 64 KiB.
pub(crate) const MAX_KEPT_BYTES: usize = 32 * 1024;
/// Most values so kept. What else an entry is written with has room beside them in a file's limit of
/// [`crate::csv::MAX_COLUMNS`] lines, and in the item's of fields.
pub(crate) const MAX_KEPT: usize = 100;

/// An entry on its way.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) line: u64,
    pub(crate) fields: BTreeMap<String, Value>,
    prefix: &'static str,
    kept: usize,
    kept_bytes: usize,
}

impl Draft {
    pub(crate) const fn new(line: u64, prefix: &'static str) -> Self {
        Self { line, fields: BTreeMap::new(), prefix, kept: 0, kept_bytes: 0 }
    }

    /// Sets a shared field; false when it has a value already, which a further one does not replace.
    pub(crate) fn put(&mut self, field: &str, text: &str, at: (u64, &str), problems: &mut Problems) -> bool {
        if self.fields.contains_key(field) {
            return false;
        }
        if text.len() > MAX_CELL_BYTES {
            let what = ProblemKind::CellTooLarge { limit_bytes: MAX_CELL_BYTES };
            problems.add(at.0, Some(at.1.to_owned()), what);
        } else if !text.is_empty() {
            self.fields.insert(field.to_owned(), Value::Text(text.to_owned()));
        }
        true
    }

    pub(crate) fn text(&self, field: &str) -> Option<&str> {
        match self.fields.get(field)? {
            Value::Text(text) => Some(text),
            Value::Set(_) => None,
        }
    }

    /// Sets the class of an entry whose format names groups alone, by what can be sent to: a mail address before a
    /// fax number. False when there is neither; then the entry is none, which a notice says.
    pub(crate) fn classify(&mut self, is_group: bool, notices: &mut Vec<Notice>) -> bool {
        let class = if is_group {
            class::GROUP
        } else if self.text(field::MAIL).is_some() {
            class::EMAIL
        } else if self.text(field::NUMBER).is_some() {
            class::FAX
        } else {
            notices.push(Notice { line: self.line, column: None, what: NoticeKind::NoDestination });
            return false;
        };
        self.fields.insert(field::CLASS.to_owned(), Value::Text(class.to_owned()));
        true
    }

    /// Keeps what only this format knows; what is too long or too much is left out with a notice.
    pub(crate) fn keep(&mut self, name: &str, text: &str, line: u64, notices: &mut Vec<Notice>) {
        if self.kept == MAX_KEPT && !text.is_empty() {
            let what = NoticeKind::TooManyValues { limit: MAX_KEPT };
            notices.push(Notice { line, column: Some(name.to_owned()), what });
            return;
        }
        self.keep_name(name, text, line, notices);
    }

    /// As [`Self::keep`], for what names the entry: it is kept however much else is.
    pub(crate) fn keep_name(&mut self, name: &str, text: &str, line: u64, notices: &mut Vec<Notice>) {
        if text.is_empty() {
            return;
        }
        if self.kept_bytes + name.len() + text.len() > MAX_KEPT_BYTES {
            let what = NoticeKind::ValueTooLarge { limit_bytes: MAX_KEPT_BYTES };
            notices.push(Notice { line, column: Some(name.to_owned()), what });
            return;
        }
        self.kept += 1;
        self.kept_bytes += name.len() + text.len();
        let first = format!("{}{name}", self.prefix);
        let free = (2..).map(|number| format!("{first}#{number}"));
        let key = std::iter::once(first.clone()).chain(free).find(|key| !self.fields.contains_key(key));
        self.fields.insert(key.unwrap_or(first), Value::Text(text.to_owned()));
    }
}

/// Whether [`Draft::classify`] would give the entry the class it has.
///
/// # Errors
/// An entry without class, or with a set where a text belongs.
pub(crate) fn has_destination(at: usize, entry: &Entry) -> Result<bool, WriteError> {
    let has = |name| Ok(numbers::text(at, entry, name)?.is_some_and(|text| !text.is_empty()));
    match numbers::text(at, entry, field::CLASS)?.unwrap_or_default() {
        "" => Err(WriteError::NoClass { entry: at }),
        class::GROUP => Ok(true),
        class::EMAIL => has(field::MAIL),
        class::FAX => has(field::NUMBER),
        _ => Ok(false),
    }
}

/// What an entry keeps under a prefix, as name and text, repeated names in their order.
pub(crate) fn kept<'a>(
    at: usize,
    entry: &'a Entry,
    prefix: &str,
) -> Result<Vec<(&'a str, &'a str)>, WriteError> {
    let mut found = Vec::new();
    for key in entry.fields.keys() {
        let Some(name) = key.strip_prefix(prefix) else { continue };
        let (name, number) = match name.rsplit_once('#') {
            Some((name, digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                (name, digits.parse().unwrap_or(u32::MAX))
            }
            Some(_) | None => (name, 1),
        };
        found.push((name, number, numbers::text(at, entry, key)?.unwrap_or_default()));
    }
    found.sort_by_key(|&(name, number, _)| (name, number));
    Ok(found
        .into_iter()
        .filter(|(_, _, text)| !text.is_empty())
        .map(|(name, _, text)| (name, text))
        .collect())
}

/// Tells which fields the format has no place for; `carries` says of which it has.
pub(crate) fn note_homeless(
    at: usize,
    entry: &Entry,
    carries: impl Fn(&str) -> bool,
    left_out: &mut Vec<LeftOut>,
) {
    let homeless = entry.fields.keys().filter(|name| !carries(name));
    left_out.extend(homeless.map(|name| LeftOut {
        entry: at,
        field: name.clone(),
        what: LeftOutKind::NoColumn,
    }));
}
