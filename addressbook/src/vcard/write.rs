//! Entries to bytes that [`super::read`] and other address books take.
//!
//! What a file cannot hold is told. Called through [`super::write`].

use std::collections::HashMap;

use super::property::{Property, escape};
use super::read::own_uid;
use super::{PREFIX, TEXT_PROPERTIES, Version, carries, makes_group, own_head, promises_uri, suits};
use crate::csv::{LineEnd, MAX_CELL_BYTES, MAX_FILE_BYTES, MAX_ROWS};
use crate::draft;
use crate::entry::{Entry, Value, class, field};
use crate::error::{LeftOut, LeftOutKind, WriteError};
use crate::lines::push_folded;
use crate::numbers::{text, wrong_type};

/// Longest line, by RFC 6350 section 3.2.
const WIDTH: usize = 75;
/// Properties that are written from something else than what is kept.
const RESERVED: [&str; 3] = ["BEGIN", "END", "VERSION"];

/// Writes entries in the given order, and tells what the file does not hold as it was.
///
/// # Errors
///
/// Entries that could not be read back: wrong types, missing classes, exceeded limits, one id twice.
pub fn write(
    entries: &[Entry],
    version: Version,
    line_end: LineEnd,
) -> Result<(Vec<u8>, Vec<LeftOut>), WriteError> {
    if entries.len() > MAX_ROWS {
        return Err(WriteError::TooManyEntries { limit: MAX_ROWS });
    }
    let mut left_out = Vec::new();
    let mut out = Vec::new();
    let uids = uids(entries)?;
    for (at, entry) in entries.iter().enumerate() {
        if !uids.contains_key(entry.id.as_str()) {
            let field = field::CLASS.to_owned();
            left_out.push(LeftOut { entry: at, field, what: LeftOutKind::NoSuchClass });
            continue;
        }
        draft::note_homeless(at, entry, carries, &mut left_out);
        let mut card = Card { at, entry, version, line_end, out: &mut out, left_out: &mut left_out };
        card.write(&uids)?;
        if out.len() > MAX_FILE_BYTES {
            return Err(WriteError::FileTooLarge { limit_bytes: MAX_FILE_BYTES });
        }
    }
    left_out.sort_by_key(|left_out| left_out.entry);
    Ok((out, left_out))
}

/// The `UID` line of every entry that can be written, by its id.
fn uids(entries: &[Entry]) -> Result<HashMap<&str, String>, WriteError> {
    let mut seen = HashMap::new();
    let mut uids = HashMap::new();
    for (at, entry) in entries.iter().enumerate() {
        if let Some(first) = seen.insert(entry.id.as_str(), at) {
            return Err(WriteError::DuplicateId { entry: at, first });
        }
        if draft::has_destination(at, entry)? {
            let kept = text(at, entry, "vcard.UID")?.filter(|line| is_line(line, "UID"));
            uids.insert(entry.id.as_str(), kept.map_or_else(|| own_uid(&entry.id), str::to_owned));
        }
    }
    Ok(uids)
}

/// Whether a kept text is a whole line of this name.
fn is_line(line: &str, name: &str) -> bool {
    !line.contains(['\r', '\n']) && Property::parse(line).is_some_and(|property| property.is(name))
}

struct Card<'a> {
    at: usize,
    entry: &'a Entry,
    version: Version,
    line_end: LineEnd,
    out: &'a mut Vec<u8>,
    left_out: &'a mut Vec<LeftOut>,
}

impl Card<'_> {
    fn write(&mut self, uids: &HashMap<&str, String>) -> Result<(), WriteError> {
        let (at, entry, version) = (self.at, self.entry, self.version);
        let kept = draft::kept(at, entry, PREFIX)?;
        let class = entry.text(field::CLASS).unwrap_or_default();
        self.line("BEGIN", "BEGIN:VCARD")?;
        self.line("VERSION", &format!("VERSION:{}", version.number()))?;
        if class == class::GROUP {
            self.line("KIND", &format!("{}:group", version.kind()))?;
        }
        let name = text(at, entry, field::NAME)?.unwrap_or_default();
        for (property, field) in TEXT_PROPERTIES {
            let value = text(at, entry, field)?.unwrap_or_default();
            if field == field::MAIL && class == class::FAX && !value.is_empty() {
                // With it the entry would be read as a mail destination.
                self.leave_out(field);
            } else if !value.is_empty() || property == "FN" {
                let head = kept.iter().find(|(name, text)| *name == property && is_head(text, property));
                self.value(property, head.map(|(_, head)| *head), value)?;
            }
            if property == "FN" {
                self.line("UID", &uids[entry.id.as_str()])?;
            }
        }
        if version == Version::V3 && !kept.iter().any(|(name, _)| *name == "N") {
            self.line("N", &format!("N:{};;;;", escape(name)))?;
        }
        for (name, line) in kept {
            let used = name == "UID"
                || TEXT_PROPERTIES.iter().any(|(known, _)| name == *known && is_head(line, name));
            let group = Property::parse(line).is_some_and(|property| makes_group(&property));
            if used {
                continue;
            }
            if is_line(line, name) && !RESERVED.contains(&name) && !group {
                self.line(name, line)?;
            } else {
                self.leave_out(&format!("{PREFIX}{name}"));
            }
        }
        self.members(uids)?;
        self.line("END", "END:VCARD")
    }

    fn value(&mut self, property: &str, head: Option<&str>, value: &str) -> Result<(), WriteError> {
        let own = own_head(property, self.version, value);
        let head = head.filter(|head| suits(head, property, value)).unwrap_or(&own);
        let value = match property {
            "TEL" if promises_uri(head) => format!("tel:{value}"),
            _ => escape(value),
        };
        self.line(property, &format!("{head}:{value}"))
    }

    fn members(&mut self, uids: &HashMap<&str, String>) -> Result<(), WriteError> {
        let members = match self.entry.fields.get(field::MEMBERS) {
            None => return Ok(()),
            Some(Value::Text(_)) => return Err(wrong_type(self.at, field::MEMBERS)),
            Some(Value::Set(members)) => members,
        };
        let mut unknown = 0;
        for member in members {
            match uids.get(member.as_str()).and_then(|line| Property::parse(line)) {
                Some(uid) => self.line("MEMBER", &format!("{}:{}", self.version.member(), uid.value))?,
                None => unknown += 1,
            }
        }
        if unknown > 0 {
            let what = LeftOutKind::UnknownMembers { count: unknown };
            self.left_out.push(LeftOut { entry: self.at, field: field::MEMBERS.to_owned(), what });
        }
        Ok(())
    }

    fn leave_out(&mut self, field: &str) {
        self.left_out.push(LeftOut { entry: self.at, field: field.to_owned(), what: LeftOutKind::NoColumn });
    }

    fn line(&mut self, field: &str, line: &str) -> Result<(), WriteError> {
        if line.len() > 2 * MAX_CELL_BYTES {
            let field = field.to_owned();
            return Err(WriteError::CellTooLarge { entry: self.at, field, limit_bytes: MAX_CELL_BYTES });
        }
        push_folded(self.out, line, WIDTH, self.line_end);
        Ok(())
    }
}

/// Whether a kept text is what stands before a value of this name.
fn is_head(text: &str, name: &str) -> bool {
    !text.contains(['\r', '\n'])
        && Property::parse(text).is_none()
        && Property::parse(&format!("{text}:")).is_some_and(|property| property.is(name))
}
