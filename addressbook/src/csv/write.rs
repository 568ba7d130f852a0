//! Entries to bytes that [`super::read`] and the vendor's machines take.
//!
//! What a file cannot hold is told, not dropped in silence. Entries come from many devices here: two may claim one
//! number, a group may list an entry that has gone. Neither keeps a list from being exported. Called through
//! [`super::write`].

use std::borrow::Cow;
use std::collections::HashSet;

use super::cells::push_cell;
use super::columns::{self, Column, Columns};
use super::{MAX_CELL_BYTES, MAX_COLUMNS, MAX_FILE_BYTES, MAX_ROWS, WriteOptions};
use crate::entry::{Entry, field, is_uuid};
use crate::error::{LeftOut, LeftOutKind, WriteError};
use crate::members;
use crate::numbers::{Numbers, text};

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
        && options.columns.iter().all(|name| !name.trim().is_empty() && Columns::is_usable_name(name))
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
        match self.numbers.given(self.at) {
            Some(number) => Ok(Cow::Owned(number.to_string())),
            None => self.text(field::INDEX).map(Cow::Borrowed),
        }
    }

    fn members(&mut self) -> Result<String, WriteError> {
        let raw = self.text(columns::RAW_MEMBER)?;
        let tokens = self.numbers.members(self.at, self.entry, (columns::RAW_MEMBER, raw), self.left_out)?;
        Ok(tokens.join(&self.options.layout.member_separator.to_string()))
    }
}
