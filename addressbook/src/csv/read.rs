//! Bytes to a book: rows against columns, then what needs the whole file (ids, numbers, members).
//!
//! All problems of a file are gathered before it is refused, so that an operator mends it in one go. Called through
//! [`super::read`].

use std::collections::hash_map::{Entry as Slot, HashMap};
use std::collections::{BTreeMap, BTreeSet};

use super::cells::{Row, Scanner};
use super::columns::{self, Column, Columns};
use super::{Book, MAX_FILE_BYTES, MAX_ROWS, header};
use crate::entry::{Entry, Value, field};
use crate::error::{Notice, NoticeKind, Problem, ProblemKind, Problems, ReadError};
use crate::identity::{Ids, Stated};
use crate::members;

/// Reads a whole file or nothing of it; the notices tell what was left out or looked odd.
///
/// Two rows with the same `indxid` are a problem, since a group's members could mean either; two rows with the same
/// `uuid` are only noticed, and the second is given an id of its own. A row cut short is a problem; a file cut between
/// two rows cannot be told from a whole one.
///
/// # Errors
///
/// Every problem found, located, at most [`crate::MAX_PROBLEMS`] of them. Nothing gets better by trying again.
pub fn read(bytes: &[u8]) -> Result<(Book, Vec<Notice>), ReadError> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(Problem::alone(1, None, ProblemKind::FileTooLarge { limit_bytes: MAX_FILE_BYTES }));
    }
    let header::Beginning { header, mut layout, mut notices, mut scanner } = header::parse(bytes)?;
    let line = scanner.line();
    let missing = || Problem::alone(line, None, ProblemKind::MissingColumns);
    let names = scanner.next_row().ok_or_else(missing)?;
    let columns = Columns::parse(&names)?;
    layout.trailing_comma = columns.nameless > 0;
    layout.final_line_end = names.ended;

    let encrypted = header.encrypts("pwd");
    let mut rows = Rows { columns: &columns, encrypted, problems: Problems::default(), notices: Vec::new() };
    let drafts = rows.read_all(&mut scanner, &mut layout.final_line_end);
    let Rows { mut problems, notices: found, .. } = rows;
    notices.extend(found);
    if !layout.final_line_end && !layout.trailing_comma {
        let line = drafts.last().map_or(line, |draft| draft.line);
        notices.push(Notice { line, column: None, what: NoticeKind::NoFinalLineEnd });
    }
    let separators = drafts.iter().filter_map(|draft| draft.members.as_ref());
    if let Some(separator) = separators.filter_map(|cell| members::separator(&cell.text)).next() {
        layout.member_separator = separator;
    }
    let numbers = numbers(&drafts, &mut problems);
    let drafts = problems.or(drafts)?;
    let entries = finish(drafts, &numbers, layout.member_separator, &mut notices);
    notices.sort_by_key(|notice| notice.line);
    Ok((Book { header, columns: columns.names, layout, entries }, notices))
}

/// A text cell that cannot become a field before all rows are known.
struct Pending {
    line: u64,
    column: String,
    text: String,
}

/// A row on its way to an entry.
struct Draft {
    line: u64,
    fields: BTreeMap<String, Value>,
    uuid: Option<Pending>,
    members: Option<Pending>,
    /// Where the index stands, and its number.
    index: Option<(u64, String, u32)>,
}

struct Rows<'a> {
    columns: &'a Columns,
    encrypted: bool,
    problems: Problems,
    notices: Vec<Notice>,
}

impl Rows<'_> {
    fn read_all(&mut self, scanner: &mut Scanner<'_>, ended: &mut bool) -> Vec<Draft> {
        let mut drafts = Vec::new();
        let mut count = 0;
        while let Some(row) = scanner.next_row() {
            *ended = row.ended;
            if row.is_blank() {
                continue;
            }
            count += 1;
            if count > MAX_ROWS {
                self.problems.add(row.line, None, ProblemKind::TooManyRows { limit: MAX_ROWS });
                break;
            }
            drafts.extend(self.read_row(&row));
        }
        drafts
    }

    fn read_row(&mut self, row: &Row<'_>) -> Option<Draft> {
        if let Some((at, line, what)) = &row.fault {
            self.problems.add(*line, Some(self.columns.shown(*at)), what.clone());
            return None;
        }
        let expected = self.columns.names.len() + self.columns.nameless;
        if row.count != expected {
            let column = self.columns.shown(row.count.min(expected));
            let what = ProblemKind::CellCount { expected, found: row.count };
            self.problems.add(row.line, Some(column), what);
            return None;
        }
        if row.is_empty() {
            self.notices.push(Notice { line: row.line, column: None, what: NoticeKind::EmptyRow });
            return None;
        }
        let mut draft =
            Draft { line: row.line, fields: BTreeMap::new(), uuid: None, members: None, index: None };
        for (at, cell) in row.cells.iter().enumerate() {
            match std::str::from_utf8(&cell.bytes) {
                Ok(text) => self.read_cell(&mut draft, at, cell.line, text),
                Err(_) => self.problem(cell.line, at, ProblemKind::InvalidUtf8),
            }
        }
        Some(draft)
    }

    fn read_cell(&mut self, draft: &mut Draft, at: usize, line: u64, text: &str) {
        let Some(column) = self.columns.kinds.get(at) else {
            if !text.is_empty() {
                self.problem(line, at, ProblemKind::NamelessColumn);
            }
            return;
        };
        if text.is_empty() {
            if *column == Column::Class {
                self.problem(line, at, ProblemKind::EmptyCell);
            }
            return;
        }
        let pending = || Some(Pending { line, column: self.columns.shown(at), text: text.to_owned() });
        match column {
            Column::Class => draft.put_class(text),
            Column::Uuid => draft.uuid = pending(),
            Column::Members => draft.members = pending(),
            Column::Password => self.notices.push(Notice {
                line,
                column: Some(self.columns.shown(at)),
                what: if self.encrypted {
                    NoticeKind::PasswordUnreadable
                } else {
                    NoticeKind::PasswordNotImported
                },
            }),
            Column::Index => {
                draft.put(field::INDEX, text);
                match members::number(text) {
                    Some(number) => draft.index = Some((line, self.columns.shown(at), number)),
                    None => self.problem(line, at, ProblemKind::NotANumber),
                }
            }
            Column::Text(name) => draft.put(name, text),
        }
    }

    fn problem(&mut self, line: u64, at: usize, what: ProblemKind) {
        self.problems.add(line, Some(self.columns.shown(at)), what);
    }
}

impl Draft {
    fn put(&mut self, name: &str, text: &str) {
        self.fields.insert(name.to_owned(), Value::Text(text.to_owned()));
    }

    /// A file may use one of our words where the vendor has another; then the cell is kept beside the class.
    fn put_class(&mut self, word: &str) {
        let class = columns::class_of(word);
        self.put(field::CLASS, class);
        if columns::vendor_word(class) != word {
            self.put(columns::RAW_CLASS, word);
        }
    }
}

/// Which draft has which number.
fn numbers(drafts: &[Draft], problems: &mut Problems) -> HashMap<u32, usize> {
    let mut numbers = HashMap::new();
    for (at, draft) in drafts.iter().enumerate() {
        let Some((line, column, number)) = &draft.index else { continue };
        match numbers.entry(*number) {
            Slot::Vacant(slot) => {
                slot.insert(at);
            }
            Slot::Occupied(first) => {
                let what = ProblemKind::DuplicateIndex { first_line: drafts[*first.get()].line };
                problems.add(*line, Some(column.clone()), what);
            }
        }
    }
    numbers
}

fn finish(
    mut drafts: Vec<Draft>,
    numbers: &HashMap<u32, usize>,
    separator: char,
    notices: &mut Vec<Notice>,
) -> Vec<Entry> {
    let mut ids = Ids::default();
    let ids: Vec<String> = drafts.iter_mut().map(|draft| identify(draft, &mut ids, notices)).collect();
    for draft in &mut drafts {
        if let Some(cell) = draft.members.take() {
            put_members(draft, &cell, |number| numbers.get(&number).map(|&at| &ids[at]), separator, notices);
        }
    }
    ids.iter().zip(drafts).map(|(id, draft)| Entry { id: id.clone(), fields: draft.fields }).collect()
}

fn identify(draft: &mut Draft, ids: &mut Ids, notices: &mut Vec<Notice>) -> String {
    let cell = draft.uuid.take();
    let stated = cell.as_ref().map(|cell| Stated { line: cell.line, column: &cell.column, text: &cell.text });
    let id = ids.give(draft.line, stated, &draft.fields, notices);
    if let Some(cell) = cell.filter(|cell| cell.text != id) {
        draft.put(columns::RAW_UUID, &cell.text);
    }
    id
}

fn put_members<'a>(
    draft: &mut Draft,
    cell: &Pending,
    id_of: impl Fn(u32) -> Option<&'a String>,
    separator: char,
    notices: &mut Vec<Notice>,
) {
    let mut found = BTreeSet::new();
    let mut unknown = Vec::new();
    for token in members::listed(&cell.text) {
        match members::number(token).and_then(&id_of) {
            Some(id) => {
                found.insert(id.clone());
            }
            None => unknown.push(token),
        }
    }
    if !found.is_empty() {
        draft.fields.insert(field::MEMBERS.to_owned(), Value::Set(found));
    }
    if !unknown.is_empty() {
        let what = NoticeKind::UnknownMembers { count: unknown.len() };
        notices.push(Notice { line: cell.line, column: Some(cell.column.clone()), what });
        draft.put(columns::RAW_MEMBER, &unknown.join(&separator.to_string()));
    }
}
