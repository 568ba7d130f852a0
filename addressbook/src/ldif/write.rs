//! Entries to bytes that [`super::read`] and directories take.
//!
//! What a file cannot hold is told. Called through [`super::write`].

use std::collections::{HashMap, HashSet};

use data_encoding::BASE64;

use super::{GROUP, PERSON, PREFIX, TEXT_ATTRIBUTES, UNIQUE_GROUP, carries, comparable, is_group, own_dn};
use crate::attributes;
use crate::csv::{LineEnd, MAX_CELL_BYTES, MAX_FILE_BYTES, MAX_ROWS};
use crate::draft;
use crate::entry::{Entry, Value, class, field, is_uuid};
use crate::error::{LeftOut, LeftOutKind, WriteError};
use crate::lines::push_folded;
use crate::numbers::{text, wrong_type};

/// Longest line, as RFC 2849 suggests by its example.
const WIDTH: usize = 76;
/// Names that would not be read back as values that are kept.
const RESERVED: [&str; 3] = ["userPassword", "changetype", "control"];

/// Writes entries in the given order, and tells what the file does not hold as it was.
///
/// # Errors
///
/// Entries that could not be read back: wrong types, missing classes, exceeded limits, one id twice.
pub fn write(entries: &[Entry], line_end: LineEnd) -> Result<(Vec<u8>, Vec<LeftOut>), WriteError> {
    if entries.len() > MAX_ROWS {
        return Err(WriteError::TooManyEntries { limit: MAX_ROWS });
    }
    let mut left_out = Vec::new();
    let names = names(entries, &mut left_out)?;
    let mut out = b"version: 1".to_vec();
    out.extend_from_slice(line_end.as_str().as_bytes());
    for (at, entry) in entries.iter().enumerate() {
        let Some(dn) = names.get(entry.id.as_str()) else {
            let field = field::CLASS.to_owned();
            left_out.push(LeftOut { entry: at, field, what: LeftOutKind::NoSuchClass });
            continue;
        };
        draft::note_homeless(at, entry, carries, &mut left_out);
        out.extend_from_slice(line_end.as_str().as_bytes());
        let mut block = Block { at, entry, line_end, out: &mut out, left_out: &mut left_out };
        block.write(dn, &names)?;
        if out.len() > MAX_FILE_BYTES {
            return Err(WriteError::FileTooLarge { limit_bytes: MAX_FILE_BYTES });
        }
    }
    left_out.sort_by_key(|left_out| left_out.entry);
    Ok((out, left_out))
}

/// The name in the directory of every entry that can be written, by its id.
fn names<'a>(
    entries: &'a [Entry],
    left_out: &mut Vec<LeftOut>,
) -> Result<HashMap<&'a str, String>, WriteError> {
    let mut seen = HashMap::new();
    let mut names = HashMap::new();
    let mut taken = HashSet::new();
    for (at, entry) in entries.iter().enumerate() {
        if let Some(first) = seen.insert(entry.id.as_str(), at) {
            return Err(WriteError::DuplicateId { entry: at, first });
        }
        if !draft::has_destination(at, entry)? {
            continue;
        }
        let own = own_dn(&entry.id);
        let mut dn = text(at, entry, "ldif.dn")?.filter(|dn| !dn.is_empty()).unwrap_or(&own).to_owned();
        if !taken.insert(comparable(&dn)) {
            left_out.push(LeftOut {
                entry: at,
                field: "ldif.dn".to_owned(),
                what: LeftOutKind::NameReplaced,
            });
            dn = own;
            taken.insert(comparable(&dn));
        }
        names.insert(entry.id.as_str(), dn);
    }
    Ok(names)
}

struct Block<'a> {
    at: usize,
    entry: &'a Entry,
    line_end: LineEnd,
    out: &'a mut Vec<u8>,
    left_out: &'a mut Vec<LeftOut>,
}

impl Block<'_> {
    fn write(&mut self, dn: &str, names: &HashMap<&str, String>) -> Result<(), WriteError> {
        let (at, entry) = (self.at, self.entry);
        let kept = draft::kept(at, entry, PREFIX)?;
        let of =
            |name: &'static str| kept.iter().filter(move |(kept, _)| *kept == name).map(|(_, text)| *text);
        let class = entry.text(field::CLASS).unwrap_or_default();
        self.line("dn", dn)?;
        let own: Vec<&str> = of("objectClass").collect();
        let group = class == class::GROUP;
        let standard: &[&str] = if group { &GROUP } else { &PERSON };
        let fits = !own.is_empty() && is_group(own.iter().copied()) == group;
        let classes = if fits { own.as_slice() } else { standard };
        classes.iter().try_for_each(|class| self.line("objectClass", class))?;
        let name = text(at, entry, field::NAME)?.unwrap_or_default();
        if of("sn").next().is_none() && !name.is_empty() && !group {
            self.line("sn", name)?;
        }
        for (attribute, field) in TEXT_ATTRIBUTES {
            let value = text(at, entry, field)?.unwrap_or_default();
            if field == field::MAIL && class == class::FAX && !value.is_empty() {
                // With it the entry would be read as a mail destination.
                self.leave_out(field);
            } else if !value.is_empty() {
                self.line(attribute, value)?;
            }
        }
        for (name, value) in &kept {
            if !["dn", "objectClass", "entryUUID"].contains(name) {
                self.keep(name, value)?;
            }
        }
        self.members(if classes.contains(&UNIQUE_GROUP) { "uniqueMember" } else { "member" }, names)?;
        let uuid = of("entryUUID").next().or_else(|| is_uuid(&entry.id).then_some(entry.id.as_str()));
        uuid.map_or(Ok(()), |uuid| self.line("entryUUID", uuid))
    }

    fn keep(&mut self, name: &str, value: &str) -> Result<(), WriteError> {
        let plain = name.trim_end_matches("::");
        let encoded = plain.len() < name.len();
        let sound =
            attributes::is_name(plain) && !RESERVED.iter().any(|known| plain.eq_ignore_ascii_case(known));
        let bytes =
            if encoded { BASE64.decode(value.as_bytes()).ok() } else { Some(value.as_bytes().to_vec()) };
        match bytes.filter(|_| sound) {
            Some(bytes) => self.bytes(plain, &bytes),
            None => {
                self.leave_out(&format!("{PREFIX}{name}"));
                Ok(())
            }
        }
    }

    fn members(&mut self, attribute: &str, names: &HashMap<&str, String>) -> Result<(), WriteError> {
        let members = match self.entry.fields.get(field::MEMBERS) {
            None => return Ok(()),
            Some(Value::Text(_)) => return Err(wrong_type(self.at, field::MEMBERS)),
            Some(Value::Set(members)) => members,
        };
        let (known, unknown): (Vec<_>, Vec<_>) =
            members.iter().map(|id| names.get(id.as_str())).partition(Option::is_some);
        if !unknown.is_empty() {
            let what = LeftOutKind::UnknownMembers { count: unknown.len() };
            self.left_out.push(LeftOut { entry: self.at, field: field::MEMBERS.to_owned(), what });
        }
        known.into_iter().flatten().try_for_each(|dn| self.line(attribute, dn))
    }

    fn leave_out(&mut self, field: &str) {
        self.left_out.push(LeftOut { entry: self.at, field: field.to_owned(), what: LeftOutKind::NoColumn });
    }

    fn line(&mut self, name: &str, value: &str) -> Result<(), WriteError> {
        self.bytes(name, value.as_bytes())
    }

    fn bytes(&mut self, name: &str, value: &[u8]) -> Result<(), WriteError> {
        if value.len() > MAX_CELL_BYTES {
            let field = name.to_owned();
            return Err(WriteError::CellTooLarge { entry: self.at, field, limit_bytes: MAX_CELL_BYTES });
        }
        let line = attributes::line(name, value, true);
        push_folded(self.out, &String::from_utf8_lossy(&line), WIDTH, self.line_end);
        Ok(())
    }
}
