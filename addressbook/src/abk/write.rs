//! Entries to bytes that [`super::read`] and the vendor's machines take.
//!
//! What a file cannot hold is told; a character that its character set lacks refuses the file before a byte of it
//! leaves. Called through [`super::write`].

use super::{
    CLASS_PREAMBLE, CharSet, MAGIC, PREFIX, RAW_CLASS, RAW_MEMBER, RAW_UUID, WriteOptions, carries,
    text_attributes,
};
use crate::attributes;
use crate::csv::columns::{class_of, vendor_word};
use crate::csv::{MAX_CELL_BYTES, MAX_FILE_BYTES, MAX_HEADER_LINES, MAX_ROWS};
use crate::draft;
use crate::entry::{Entry, field, is_uuid};
use crate::error::{LeftOut, LeftOutKind, WriteError};
use crate::lines::BOM;
use crate::numbers::{Numbers, text};

/// Attributes that machines write, in their order; others follow, the classes come last.
const ORDER: [&str; 13] = [
    "subdbid",
    "dn",
    "cn",
    "cnread",
    "cnshort",
    "mailaddress",
    "dialdata",
    "url",
    "path",
    "username",
    "enablepartial",
    "accesscode",
    "protocol",
];

/// Writes entries in the given order, and tells what the file does not hold as it was.
///
/// An id that is no UUID is not written. A member without a number is given a free one; so is an entry whose number an
/// earlier one has.
///
/// # Errors
///
/// Entries or options that could not be read back: wrong types, missing classes, exceeded limits, characters that the
/// character set lacks.
pub fn write(entries: &[Entry], options: &WriteOptions) -> Result<(Vec<u8>, Vec<LeftOut>), WriteError> {
    let charset = options.header.charset().ok_or(WriteError::BadHeaderLine { line: 0 })?;
    if entries.len() > MAX_ROWS {
        return Err(WriteError::TooManyEntries { limit: MAX_ROWS });
    }
    let mut out = beginning(options, charset)?;
    let mut left_out = Vec::new();
    let numbers = Numbers::assign(entries, true, &mut left_out)?;
    for (at, entry) in entries.iter().enumerate() {
        draft::note_homeless(at, entry, carries, &mut left_out);
        let mut block = Block { at, entry, charset, options, out: &mut out };
        block.write(&numbers, &mut left_out)?;
        if out.len() > MAX_FILE_BYTES {
            return Err(WriteError::FileTooLarge { limit_bytes: MAX_FILE_BYTES });
        }
    }
    left_out.sort_by_key(|left_out| left_out.entry);
    Ok((out, left_out))
}

/// The word by which machines name a class.
pub(super) fn word(class: &str) -> &str {
    vendor_word(class)
}

fn beginning(options: &WriteOptions, charset: CharSet) -> Result<Vec<u8>, WriteError> {
    let line_end = options.line_end.as_str().as_bytes();
    let mut out = if options.bom { BOM.to_vec() } else { Vec::new() };
    out.extend_from_slice(format!("# {MAGIC}: {}", options.header.version).as_bytes());
    out.extend_from_slice(line_end);
    for (at, line) in options.header.lines.iter().enumerate() {
        let bad = WriteError::BadHeaderLine { line: at };
        let usable = line.starts_with('#') && !line.contains(['\r', '\n']) && line.len() <= MAX_CELL_BYTES;
        if !usable || at >= MAX_HEADER_LINES {
            return Err(bad);
        }
        out.extend_from_slice(&charset.encode(line).map_err(|_| bad)?);
        out.extend_from_slice(line_end);
    }
    Ok(out)
}

struct Block<'a> {
    at: usize,
    entry: &'a Entry,
    charset: CharSet,
    options: &'a WriteOptions,
    out: &'a mut Vec<u8>,
}

impl<'a> Block<'a> {
    fn write(&mut self, numbers: &Numbers<'_>, left_out: &mut Vec<LeftOut>) -> Result<(), WriteError> {
        let entry = self.entry;
        let classes = self.classes()?;
        let mut kept = draft::kept(self.at, entry, PREFIX)?;
        kept.retain(|(name, _)| {
            ![RAW_CLASS, RAW_UUID, RAW_MEMBER].contains(&format!("{PREFIX}{name}").as_str())
        });
        self.end_line();
        for name in ORDER {
            self.known(name, numbers, &kept)?;
        }
        for (name, value) in kept {
            if ORDER.contains(&name) {
                continue;
            }
            if attributes::is_name(name) && !name.eq_ignore_ascii_case("pwd") {
                self.line(name, value, &format!("{PREFIX}{name}"))?;
            } else {
                let field = format!("{PREFIX}{name}");
                left_out.push(LeftOut { entry: self.at, field, what: LeftOutKind::NoColumn });
            }
        }
        let unknown = self.text(RAW_MEMBER)?;
        for member in numbers.members(self.at, entry, (RAW_MEMBER, unknown), left_out)? {
            self.line("member", &member, field::MEMBERS)?;
        }
        let uuid = self.text(RAW_UUID)?;
        if !uuid.is_empty() || is_uuid(&entry.id) {
            self.line("uuid", if uuid.is_empty() { &entry.id } else { uuid }, RAW_UUID)?;
        }
        classes.into_iter().try_for_each(|class| self.line("objectclass", class, field::CLASS))
    }

    /// An attribute that machines write: its shared field, else its default, then further values.
    fn known(&mut self, name: &str, numbers: &Numbers<'_>, kept: &[(&str, &str)]) -> Result<(), WriteError> {
        let field = text_attributes().find(|(known, _)| *known == name).map(|(_, field)| field);
        let given = numbers.given(self.at).filter(|_| name == "dn").map(|number| number.to_string());
        let value = match (&given, field) {
            (Some(number), _) => number,
            (None, Some(field)) => self.text(field)?,
            (None, None) => "",
        };
        if !value.is_empty() {
            self.line(name, value, field.unwrap_or(name))?;
        }
        let mut more = kept.iter().filter(|(kept, _)| *kept == name).peekable();
        let default = self.options.defaults.get(name).filter(|_| value.is_empty() && more.peek().is_none());
        if let Some(default) = default {
            return self.line(name, default, name);
        }
        more.try_for_each(|(_, value)| self.line(name, value, &format!("{PREFIX}{name}")))
    }

    fn classes(&self) -> Result<Vec<&'a str>, WriteError> {
        let class = self.text(field::CLASS)?;
        // One of the preamble's words would not be read back as a class, nor would one that spans lines.
        if class.is_empty()
            || class.contains('\n')
            || CLASS_PREAMBLE.iter().any(|word| word.eq_ignore_ascii_case(class))
        {
            return Err(WriteError::NoClass { entry: self.at });
        }
        let raw = self.text(RAW_CLASS)?.split('\n').filter(|word| !word.is_empty()).collect::<Vec<_>>();
        let is_class = |word: &&&str| !CLASS_PREAMBLE.iter().any(|known| word.eq_ignore_ascii_case(known));
        let fits = raw.iter().rfind(is_class).is_some_and(|word| class_of(word) == class);
        Ok(if fits { raw } else { [CLASS_PREAMBLE.as_slice(), &[word(class)]].concat() })
    }

    fn text(&self, field: &str) -> Result<&'a str, WriteError> {
        Ok(text(self.at, self.entry, field)?.unwrap_or_default())
    }

    fn line(&mut self, name: &str, value: &str, field: &str) -> Result<(), WriteError> {
        if value.len() > MAX_CELL_BYTES {
            let field = field.to_owned();
            return Err(WriteError::CellTooLarge { entry: self.at, field, limit_bytes: MAX_CELL_BYTES });
        }
        let bytes = self.charset.encode(value).map_err(|characters| WriteError::NotInCharSet {
            charset: self.charset.name(),
            characters,
            entry: self.at,
            field: field.to_owned(),
        })?;
        self.out.extend_from_slice(&attributes::line(name, &bytes, false));
        self.end_line();
        Ok(())
    }

    fn end_line(&mut self) {
        self.out.extend_from_slice(self.options.line_end.as_str().as_bytes());
    }
}
