//! Bytes to a book: header, blocks to entries, then what needs the whole file (ids, numbers, members).
//!
//! All problems of a file are gathered before it is refused. Called through [`super::read`].

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::collections::hash_map::{Entry as Slot, HashMap};

use super::{
    Book, CHARSET, CLASS_PREAMBLE, CharSet, Header, MAGIC, PREFIX, RAW_CLASS, RAW_MEMBER, RAW_UUID,
    key_and_value, text_attributes,
};
use crate::attributes::{self, Attribute};
use crate::csv::columns::class_of;
use crate::csv::{LineEnd, MAX_CELL_BYTES, MAX_FILE_BYTES, MAX_HEADER_LINES, MAX_ROWS};
use crate::draft::Draft;
use crate::entry::{Entry, Value, field};
use crate::error::{Notice, NoticeKind, Problem, ProblemKind, Problems, ReadError};
use crate::identity::{Ids, Stated};
use crate::lines::{BOM, Line, Lines};
use crate::members;

/// Reads a whole file or nothing of it; the notices tell what was left out or looked odd.
///
/// Two entries with the same `dn` are a problem, since a group's members could mean either.
///
/// # Errors
///
/// Every problem found, located, at most [`crate::MAX_PROBLEMS`] of them. Nothing gets better by trying again.
pub fn read(bytes: &[u8]) -> Result<(Book, Vec<Notice>), ReadError> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(Problem::alone(1, None, ProblemKind::FileTooLarge { limit_bytes: MAX_FILE_BYTES }));
    }
    let text = bytes.strip_prefix(BOM);
    let mut lines = Lines::new(text.unwrap_or(bytes), b" ");
    let mut notices = Vec::new();
    let (header, charset) = header(&mut lines, &mut notices)?;
    let encrypted = header.get("Crypto Attribute").is_some_and(|value| {
        value.split([',', ';', ' ']).any(|attribute| attribute.eq_ignore_ascii_case("pwd"))
    });
    let mut blocks = Blocks { charset, encrypted, problems: Problems::default(), notices };
    let mut drafts = Vec::new();
    while let Some(block) = attributes::next_block(&mut lines, &mut blocks.problems) {
        let line = block.first().map_or(lines.number(), |first| first.line);
        if drafts.len() == MAX_ROWS {
            blocks.problems.add(line, None, ProblemKind::TooManyRows { limit: MAX_ROWS });
            break;
        }
        drafts.extend((!block.is_empty()).then(|| blocks.read(line, &block)));
    }
    let Blocks { mut problems, mut notices, .. } = blocks;
    let numbers = numbers(&drafts, &mut problems);
    let drafts = problems.or(drafts)?;
    if let (false, Some(last)) = (lines.ended, drafts.last()) {
        notices.push(Notice { line: last.draft.line, column: None, what: NoticeKind::NoFinalLineEnd });
    }
    let entries = finish(drafts, &numbers, &mut notices);
    notices.sort_by_key(|notice| notice.line);
    let line_end = lines.line_end.unwrap_or(LineEnd::CrLf);
    Ok((Book { header, bom: text.is_some(), line_end, entries }, notices))
}

fn header(lines: &mut Lines<'_>, notices: &mut Vec<Notice>) -> Result<(Header, CharSet), ReadError> {
    let refuse = |line, what| Err(Problem::alone(line, None, what));
    let first =
        lines.next().map(|line| String::from_utf8_lossy(&line.bytes).into_owned()).unwrap_or_default();
    let version = match key_and_value(&first) {
        Some((name, version)) if name.eq_ignore_ascii_case(MAGIC) => version,
        Some(_) | None => return refuse(1, ProblemKind::UnknownFormat),
    };
    let Ok(version) = version.parse::<u32>() else { return refuse(1, ProblemKind::BadVersion) };
    if version > 1 {
        notices.push(Notice { line: 1, column: None, what: NoticeKind::NewerVersion { version } });
    }
    let mut found = Vec::new();
    loop {
        let before = lines.clone();
        let Some(line) = lines.next().filter(|line| line.bytes.starts_with(b"#")) else {
            *lines = before;
            break;
        };
        if found.len() == MAX_HEADER_LINES {
            return refuse(line.number, ProblemKind::TooManyHeaderLines { limit: MAX_HEADER_LINES });
        }
        if line.bytes.len() > MAX_CELL_BYTES {
            return refuse(line.number, ProblemKind::CellTooLarge { limit_bytes: MAX_CELL_BYTES });
        }
        found.push(line);
    }
    let charset = found.iter().find_map(|line| {
        let text = String::from_utf8_lossy(&line.bytes);
        let (name, value) = key_and_value(&text)?;
        name.eq_ignore_ascii_case(CHARSET).then(|| (line.number, value.to_owned()))
    });
    let charset = match charset {
        None => {
            notices.push(Notice { line: 1, column: None, what: NoticeKind::CharSetAssumed });
            CharSet::Utf8
        }
        Some((line, name)) => match CharSet::of(&name) {
            Some(charset) => charset,
            None => {
                let shown = name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_graphic());
                let name = if shown { name } else { "of unreadable name".to_owned() };
                return refuse(line, ProblemKind::CharSet { name });
            }
        },
    };
    let decode = |line: &Line| match charset.decode(&line.bytes) {
        Some(text) => Ok(text.into_owned()),
        None => {
            let what = ProblemKind::NotInCharSet { charset: charset.name() };
            Err(Problem::alone(line.number, None, what))
        }
    };
    let lines = found.iter().map(decode).collect::<Result<_, _>>()?;
    Ok((Header { version, lines }, charset))
}

/// A text that cannot become a field before all entries are known.
struct Pending {
    line: u64,
    text: String,
}

struct Block {
    draft: Draft,
    uuid: Option<Pending>,
    members: Option<Pending>,
    index: Option<(u64, u32)>,
}

struct Blocks {
    charset: CharSet,
    encrypted: bool,
    problems: Problems,
    notices: Vec<Notice>,
}

impl Blocks {
    fn read(&mut self, line: u64, block: &[Attribute]) -> Block {
        let mut made = Block { draft: Draft::new(line, PREFIX), uuid: None, members: None, index: None };
        let mut classes: Vec<String> = Vec::new();
        for attribute in block {
            let Some(text) = self.charset.decode(&attribute.value) else {
                let what = ProblemKind::NotInCharSet { charset: self.charset.name() };
                self.problems.add(attribute.line, Some(attribute.name.clone()), what);
                continue;
            };
            if text.is_empty() {
                continue;
            }
            if attribute.is("objectclass") {
                if text.contains('\n') {
                    let what = ProblemKind::NotAnAttribute;
                    self.problems.add(attribute.line, Some(attribute.name.clone()), what);
                }
                classes.push(text.into_owned());
            } else {
                self.read_attribute(&mut made, attribute, text);
            }
        }
        self.put_class(&mut made.draft, &classes);
        made
    }

    fn read_attribute(&mut self, made: &mut Block, attribute: &Attribute, text: Cow<'_, str>) {
        let line = attribute.line;
        if attribute.is("pwd") {
            let what =
                if self.encrypted { NoticeKind::PasswordUnreadable } else { NoticeKind::PasswordNotImported };
            self.notices.push(Notice { line, column: Some(attribute.name.clone()), what });
            return;
        }
        if attribute.is("uuid") {
            if made.uuid.is_some() {
                self.problems.add(line, Some(attribute.name.clone()), ProblemKind::DuplicateAttribute);
            }
            made.uuid = Some(Pending { line, text: text.into_owned() });
            return;
        }
        if attribute.is("member") {
            match &mut made.members {
                Some(members) => {
                    members.text.push(',');
                    members.text.push_str(&text);
                }
                None => made.members = Some(Pending { line, text: text.into_owned() }),
            }
            return;
        }
        if attribute.is("dn") && made.index.is_none() {
            match members::number(&text) {
                Some(number) => made.index = Some((line, number)),
                None => self.problems.add(line, Some(attribute.name.clone()), ProblemKind::NotANumber),
            }
        }
        let shared = text_attributes().find(|(name, _)| attribute.is(name));
        let put = shared.is_some_and(|(_, field)| {
            made.draft.put(field, &text, (line, &attribute.name), &mut self.problems)
        });
        if !put {
            let name = shared.map_or(attribute.name.as_str(), |(name, _)| name);
            made.draft.keep(name, &text, line, &mut self.notices);
        }
    }

    fn put_class(&mut self, draft: &mut Draft, classes: &[String]) {
        let is_class = |word: &&String| !CLASS_PREAMBLE.iter().any(|known| word.eq_ignore_ascii_case(known));
        let at = (draft.line, "objectclass");
        let Some(word) = classes.iter().rfind(is_class) else {
            self.problems.add(at.0, Some(at.1.to_owned()), ProblemKind::MissingAttribute);
            return;
        };
        draft.put(field::CLASS, class_of(word), at, &mut self.problems);
        let usual = classes.len() == 3
            && classes[..2] == CLASS_PREAMBLE
            && super::write::word(class_of(word)) == word;
        if !usual {
            let all = classes.join("\n");
            let (_, name) = RAW_CLASS.split_at(PREFIX.len());
            draft.keep(name, &all, at.0, &mut self.notices);
        }
    }
}

/// Which entry has which number.
fn numbers(drafts: &[Block], problems: &mut Problems) -> HashMap<u32, usize> {
    let mut numbers = HashMap::new();
    for (at, block) in drafts.iter().enumerate() {
        let Some((line, number)) = block.index else { continue };
        match numbers.entry(number) {
            Slot::Vacant(slot) => {
                slot.insert(at);
            }
            Slot::Occupied(first) => {
                let first_line = drafts[*first.get()].draft.line;
                problems.add(line, Some("dn".to_owned()), ProblemKind::DuplicateIndex { first_line });
            }
        }
    }
    numbers
}

fn finish(mut drafts: Vec<Block>, numbers: &HashMap<u32, usize>, notices: &mut Vec<Notice>) -> Vec<Entry> {
    let mut ids = Ids::default();
    let mut identify = |block: &mut Block| {
        let uuid = block.uuid.take();
        let stated = uuid.as_ref().map(|uuid| Stated { line: uuid.line, column: "uuid", text: &uuid.text });
        let id = ids.give(block.draft.line, stated, &block.draft.fields, notices);
        if let Some(uuid) = uuid.filter(|uuid| uuid.text != id) {
            block.draft.fields.insert(RAW_UUID.to_owned(), Value::Text(uuid.text));
        }
        id
    };
    let ids: Vec<String> = drafts.iter_mut().map(&mut identify).collect();
    for block in &mut drafts {
        let Some(members) = block.members.take() else { continue };
        let mut found = BTreeSet::new();
        let mut unknown = Vec::new();
        for token in members::listed(&members.text) {
            match members::number(token).and_then(|number| numbers.get(&number)) {
                Some(&at) => {
                    found.insert(ids[at].clone());
                }
                None => unknown.push(token),
            }
        }
        if !found.is_empty() {
            block.draft.fields.insert(field::MEMBERS.to_owned(), Value::Set(found));
        }
        if !unknown.is_empty() {
            let what = NoticeKind::UnknownMembers { count: unknown.len() };
            notices.push(Notice { line: members.line, column: Some("member".to_owned()), what });
            block.draft.fields.insert(RAW_MEMBER.to_owned(), Value::Text(unknown.join(",")));
        }
    }
    ids.into_iter().zip(drafts).map(|(id, block)| Entry { id, fields: block.draft.fields }).collect()
}
