//! Entries to bytes that [`super::read`] and the vendor's machines take.
//!
//! What a file cannot hold is told, not dropped in silence. Entries come from many devices here: two may claim one
//! number, a group may list an entry that has gone. Neither keeps a list from being exported. Called through
//! [`super::write`].

use std::borrow::Cow;
use std::collections::hash_map::{Entry as Slot, HashMap};
use std::collections::{BTreeSet, HashSet};

use super::cells::push_cell;
use super::columns::{self, Column};
use super::{MAX_CELL_BYTES, MAX_COLUMNS, MAX_FILE_BYTES, MAX_ROWS, WriteOptions, members};
use crate::entry::{Entry, Value, field, is_uuid};
use crate::error::{LeftOut, LeftOutKind, WriteError};

/// Writes entries in the given order, and tells what the file does not hold as it was.
///
/// An id that is no UUID is not written. A member without a number is given a free one; so is an entry whose number an
/// earlier one has. The column `pwd` stays empty.
///
/// # Errors
///
/// Entries or options that could not be read back: wrong types, missing classes, exceeded limits.
pub fn write(entries: &[Entry], options: &WriteOptions) -> Result<(Vec<u8>, Vec<LeftOut>), WriteError> {
    let columns = checked_columns(options)?;
    if let Some(line) = options.header.unusable_line() {
        return Err(WriteError::BadHeaderLine { line });
    }
    if !members::SEPARATORS.contains(&options.layout.member_separator) {
        return Err(WriteError::BadMemberSeparator);
    }
    if entries.len() > MAX_ROWS {
        return Err(WriteError::TooManyEntries { limit: MAX_ROWS });
    }
    let mut left_out = Vec::new();
    let numbers = Numbers::assign(entries, columns.contains(&Column::Index), &mut left_out)?;
    let mut out = beginning(options);
    for (at, entry) in entries.iter().enumerate() {
        note_fields_without_column(at, entry, &columns, &mut left_out);
        let mut row = Writer { at, entry, options, numbers: &numbers, left_out: &mut left_out };
        let cells = columns.iter().zip(&options.columns).map(|(column, name)| row.cell(column, name));
        let cells = cells.collect::<Result<Vec<_>, _>>()?;
        push_row(&mut out, cells.iter().map(AsRef::as_ref), options);
        if out.len() > MAX_FILE_BYTES {
            return Err(WriteError::FileTooLarge { limit_bytes: MAX_FILE_BYTES });
        }
    }
    if !options.layout.final_line_end {
        out.truncate(out.len() - options.layout.line_end.as_str().len());
    }
    left_out.sort_by_key(|left_out| left_out.entry);
    Ok((out, left_out))
}

fn checked_columns(options: &WriteOptions) -> Result<Vec<Column>, WriteError> {
    let columns: Vec<Column> = options.columns.iter().map(|name| Column::of(name)).collect();
    let unique: HashSet<_> = options.columns.iter().map(|name| name.trim().to_ascii_lowercase()).collect();
    let sound = columns.contains(&Column::Class)
        && columns.len() <= MAX_COLUMNS
        && unique.len() == columns.len()
        && options.columns.iter().all(|name| !name.trim().is_empty() && name.len() <= MAX_CELL_BYTES)
        // It would be taken for a header line.
        && options.columns.first().is_some_and(|name| !name.starts_with('#'));
    if sound { Ok(columns) } else { Err(WriteError::BadColumns) }
}

fn beginning(options: &WriteOptions) -> Vec<u8> {
    let mut out = Vec::new();
    if options.layout.bom {
        out.extend_from_slice(b"\xef\xbb\xbf");
    }
    let lines = std::iter::once(options.header.format_line()).chain(options.header.lines.iter().cloned());
    for line in lines {
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(options.layout.line_end.as_str().as_bytes());
    }
    push_row(&mut out, options.columns.iter().map(String::as_str), options);
    out
}

fn push_row<'a>(out: &mut Vec<u8>, cells: impl Iterator<Item = &'a str>, options: &WriteOptions) {
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push_cell(out, cell);
    }
    if options.layout.trailing_comma {
        out.push(b',');
    }
    out.extend_from_slice(options.layout.line_end.as_str().as_bytes());
}

fn note_fields_without_column(at: usize, entry: &Entry, columns: &[Column], left_out: &mut Vec<LeftOut>) {
    let homeless = entry.fields.keys().filter(|name| !columns.iter().any(|column| column.carries(name)));
    left_out.extend(homeless.map(|name| LeftOut {
        entry: at,
        field: name.clone(),
        what: LeftOutKind::NoColumn,
    }));
}

/// The number each entry is written with, and by which groups name it.
struct Numbers<'a> {
    /// Position of every entry.
    positions: HashMap<&'a str, usize>,
    /// Which entry has the number.
    owners: HashMap<u32, usize>,
    /// Numbers by position; nothing where the file has no column for them or nobody needs one.
    numbers: Vec<Option<u32>>,
    /// Positions whose number is not the one in their field.
    given: HashSet<usize>,
}

impl<'a> Numbers<'a> {
    fn assign(
        entries: &'a [Entry],
        has_column: bool,
        left_out: &mut Vec<LeftOut>,
    ) -> Result<Self, WriteError> {
        let mut this = Self {
            positions: HashMap::new(),
            owners: HashMap::new(),
            numbers: vec![None; entries.len()],
            given: HashSet::new(),
        };
        for (at, entry) in entries.iter().enumerate() {
            if let Some(first) = this.positions.insert(&entry.id, at) {
                return Err(WriteError::DuplicateId { entry: at, first });
            }
        }
        if !has_column {
            return Ok(this);
        }
        let mut wanting = this.claim(entries, left_out)?;
        for id in entries.iter().filter_map(|entry| entry.set(field::MEMBERS)).flatten() {
            wanting.extend(this.positions.get(id.as_str()).filter(|&&at| this.numbers[at].is_none()));
        }
        let free = this.owners.keys().max().map_or(1, |greatest| greatest + 1);
        for (number, at) in (free..).zip(wanting) {
            this.owners.insert(number, at);
            this.numbers[at] = Some(number);
            this.given.insert(at);
        }
        Ok(this)
    }

    /// Gives every entry the number in its field, and returns those that come second to theirs.
    fn claim(
        &mut self,
        entries: &[Entry],
        left_out: &mut Vec<LeftOut>,
    ) -> Result<BTreeSet<usize>, WriteError> {
        let mut second = BTreeSet::new();
        for (at, entry) in entries.iter().enumerate() {
            let Some(index) = text(at, entry, field::INDEX)?.filter(|index| !index.is_empty()) else {
                continue;
            };
            let number = members::number(index).ok_or(WriteError::NotANumber { entry: at })?;
            match self.owners.entry(number) {
                Slot::Vacant(slot) => {
                    slot.insert(at);
                    self.numbers[at] = Some(number);
                }
                Slot::Occupied(_) => {
                    let what = LeftOutKind::IndexReplaced;
                    left_out.push(LeftOut { entry: at, field: field::INDEX.to_owned(), what });
                    second.insert(at);
                }
            }
        }
        Ok(second)
    }

    fn of(&self, id: &str) -> Option<u32> {
        self.positions.get(id).and_then(|&at| self.numbers[at])
    }
}

/// Makes the cells of one row.
struct Writer<'a> {
    at: usize,
    entry: &'a Entry,
    options: &'a WriteOptions,
    numbers: &'a Numbers<'a>,
    left_out: &'a mut Vec<LeftOut>,
}

impl<'a> Writer<'a> {
    fn cell(&mut self, column: &Column, name: &str) -> Result<Cow<'a, str>, WriteError> {
        let (field_name, cell) = match column {
            Column::Class => (field::CLASS, Cow::Borrowed(self.class()?)),
            Column::Uuid => (columns::RAW_UUID, Cow::Borrowed(self.uuid()?)),
            Column::Password => return Ok(Cow::Borrowed("")),
            Column::Members => (field::MEMBERS, Cow::Owned(self.members()?)),
            Column::Index => (field::INDEX, self.index()?),
            Column::Text(field_name) => (field_name.as_str(), Cow::Borrowed(self.text(field_name)?)),
        };
        if cell.len() > MAX_CELL_BYTES {
            let field = field_name.to_owned();
            return Err(WriteError::CellTooLarge { entry: self.at, field, limit_bytes: MAX_CELL_BYTES });
        }
        let default = self.options.defaults.get(name).filter(|_| cell.is_empty());
        Ok(default.map_or(cell, |default| Cow::Borrowed(default)))
    }

    fn text(&self, field_name: &str) -> Result<&'a str, WriteError> {
        Ok(text(self.at, self.entry, field_name)?.unwrap_or_default())
    }

    fn class(&self) -> Result<&'a str, WriteError> {
        let class = self.text(field::CLASS)?;
        if class.is_empty() {
            return Err(WriteError::NoClass { entry: self.at });
        }
        let raw = self.text(columns::RAW_CLASS)?;
        let fits = !raw.is_empty() && columns::class_of(raw) == class;
        Ok(if fits { raw } else { columns::vendor_word(class) })
    }

    fn uuid(&self) -> Result<&'a str, WriteError> {
        let raw = self.text(columns::RAW_UUID)?;
        let id = self.entry.id.as_str();
        Ok(if raw.is_empty() && is_uuid(id) { id } else { raw })
    }

    fn index(&self) -> Result<Cow<'a, str>, WriteError> {
        match self.numbers.numbers[self.at] {
            Some(number) if self.numbers.given.contains(&self.at) => Ok(Cow::Owned(number.to_string())),
            Some(_) | None => self.text(field::INDEX).map(Cow::Borrowed),
        }
    }

    /// Numbers in ascending order, then what no entry of the file was when the list was read. A number among the
    /// latter that has an owner by now is not written: mail must not go to whoever inherited it.
    fn members(&mut self) -> Result<String, WriteError> {
        let mut numbers = BTreeSet::new();
        let mut unknown = 0;
        match self.entry.fields.get(field::MEMBERS) {
            None => {}
            Some(Value::Text(_)) => return Err(wrong_type(self.at, field::MEMBERS)),
            Some(Value::Set(ids)) => {
                for id in ids {
                    match self.numbers.of(id) {
                        Some(number) => {
                            numbers.insert(number);
                        }
                        None => unknown += 1,
                    }
                }
            }
        }
        let owned = |token: &&str| {
            members::number(token).is_some_and(|number| self.numbers.owners.contains_key(&number))
        };
        let (taken, kept): (Vec<_>, Vec<_>) =
            members::listed(self.text(columns::RAW_MEMBER)?).partition(owned);
        let numbers = numbers.iter().map(u32::to_string);
        let tokens: Vec<String> = numbers.chain(kept.into_iter().map(str::to_owned)).collect();
        self.note_members(field::MEMBERS, unknown);
        self.note_members(columns::RAW_MEMBER, taken.len());
        Ok(tokens.join(&self.options.layout.member_separator.to_string()))
    }

    fn note_members(&mut self, field_name: &str, count: usize) {
        if count > 0 {
            let what = LeftOutKind::UnknownMembers { count };
            self.left_out.push(LeftOut { entry: self.at, field: field_name.to_owned(), what });
        }
    }
}

fn text<'a>(at: usize, entry: &'a Entry, field_name: &str) -> Result<Option<&'a str>, WriteError> {
    match entry.fields.get(field_name) {
        None => Ok(None),
        Some(Value::Text(text)) => Ok(Some(text)),
        Some(Value::Set(_)) => Err(wrong_type(at, field_name)),
    }
}

fn wrong_type(at: usize, field_name: &str) -> WriteError {
    WriteError::WrongType { entry: at, field: field_name.to_owned() }
}
