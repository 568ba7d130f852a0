//! Bytes to a book: cards to entries, then what needs the whole file (ids, members).
//!
//! All problems of a file are gathered before it is refused. Called through [`super::read`].

use std::collections::{BTreeSet, HashMap};

use super::property::{Property, escape, unescape};
use super::{Book, PREFIX, TEXT_PROPERTIES, UUID_URN, Version, comparable, is_own_head, makes_group, suits};
use crate::csv::{LineEnd, MAX_COLUMNS, MAX_FILE_BYTES, MAX_ROWS};
use crate::draft::Draft;
use crate::entry::{Entry, Value, field};
use crate::error::{Notice, NoticeKind, Problem, ProblemKind, Problems, ReadError};
use crate::identity::{Ids, Stated};
use crate::lines::{BOM, Lines};

/// Reads a whole file or nothing of it; the notices tell what was left out or looked odd.
///
/// # Errors
///
/// Every problem found, located, at most [`crate::MAX_PROBLEMS`] of them. Nothing gets better by trying again.
pub fn read(bytes: &[u8]) -> Result<(Book, Vec<Notice>), ReadError> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(Problem::alone(1, None, ProblemKind::FileTooLarge { limit_bytes: MAX_FILE_BYTES }));
    }
    let mut lines = Lines::new(bytes.strip_prefix(BOM).unwrap_or(bytes), b" \t");
    let mut cards = Cards { problems: Problems::default(), notices: Vec::new() };
    let mut drafts = Vec::new();
    let mut version = None;
    let mut count = 0;
    while let Some(card) = cards.next(&mut lines, count == 0)? {
        count += 1;
        if count > MAX_ROWS {
            cards.problems.add(card.line, None, ProblemKind::TooManyRows { limit: MAX_ROWS });
            break;
        }
        if let Some((found, draft)) = cards.read(&card) {
            version.get_or_insert(found);
            drafts.extend(draft);
        }
    }
    if count == 0 {
        return Err(Problem::alone(1, None, ProblemKind::UnknownFormat));
    }
    let Cards { problems, mut notices } = cards;
    let drafts = problems.or(drafts)?;
    let entries = finish(drafts, &mut notices);
    notices.sort_by_key(|notice| notice.line);
    let line_end = lines.line_end.unwrap_or(LineEnd::CrLf);
    Ok((Book { version: version.unwrap_or(Version::V4), line_end, entries }, notices))
}

/// The lines between `BEGIN` and `END`.
struct Card {
    line: u64,
    lines: Vec<(u64, String)>,
    /// Lines that name no member: a group may have any number of these.
    counted: usize,
}

impl Card {
    const fn begun(line: u64) -> Self {
        Self { line, lines: Vec::new(), counted: 0 }
    }

    fn take(&mut self, line: u64, text: String, problems: &mut Problems) {
        let name = text.split([':', ';']).next().unwrap_or_default();
        let member = Version::ALL.iter().any(|version| name.eq_ignore_ascii_case(version.member()));
        self.counted += usize::from(!member);
        if self.counted > MAX_COLUMNS {
            problems.add(line, None, ProblemKind::TooManyAttributes { limit: MAX_COLUMNS });
        } else {
            self.lines.push((line, text));
        }
    }
}

struct Block {
    draft: Draft,
    /// Line and value of `UID`.
    uid: Option<(u64, String)>,
    /// Line, name and whole text of what names a member, and the member's `UID`.
    members: Vec<(u64, String, String, String)>,
    /// Line, name and whole text of further properties that could hold a shared field. They are kept behind the one
    /// that does, as they are written.
    further: Vec<(u64, String, String)>,
}

struct Cards {
    problems: Problems,
    notices: Vec<Notice>,
}

impl Cards {
    /// The next card, whole; one that does not end is a problem and the last.
    fn next(&mut self, lines: &mut Lines<'_>, first: bool) -> Result<Option<Card>, ReadError> {
        let begins = |text: &str| text.trim_end().eq_ignore_ascii_case("BEGIN:VCARD");
        let mut card: Option<Card> = None;
        for line in lines.by_ref() {
            if line.bytes.is_empty() {
                continue;
            }
            let text = String::from_utf8_lossy(&line.bytes);
            match &mut card {
                None if begins(&text) => card = Some(Card::begun(line.number)),
                None if first => return Err(Problem::alone(line.number, None, ProblemKind::UnknownFormat)),
                None => self.problems.add(line.number, None, ProblemKind::OutsideCard),
                Some(_) if text.trim_end().eq_ignore_ascii_case("END:VCARD") => return Ok(card),
                Some(open) if begins(&text) => {
                    self.problems.add(open.line, None, ProblemKind::UnclosedCard);
                    *open = Card::begun(line.number);
                }
                Some(open) => match String::from_utf8(line.bytes) {
                    Ok(text) => open.take(line.number, text, &mut self.problems),
                    Err(_) => self.problems.add(line.number, None, ProblemKind::InvalidUtf8),
                },
            }
        }
        if let Some(open) = card {
            self.problems.add(open.line, None, ProblemKind::UnclosedCard);
            // The file is refused, but for this and not for its format.
            return if first {
                Err(Problem::alone(open.line, None, ProblemKind::UnclosedCard))
            } else {
                Ok(None)
            };
        }
        Ok(None)
    }

    /// The card's version and its entry, unless it has no destination.
    fn read(&mut self, card: &Card) -> Option<(Version, Option<Block>)> {
        let mut properties = Vec::new();
        for (line, text) in &card.lines {
            match Property::parse(text) {
                Some(property) => properties.push((*line, text.as_str(), property)),
                None => self.problems.add(*line, None, ProblemKind::NotAnAttribute),
            }
        }
        let Some((stated_at, _, stated)) = properties.iter().find(|(_, _, property)| property.is("VERSION"))
        else {
            self.problems.add(card.line, Some("VERSION".to_owned()), ProblemKind::MissingAttribute);
            return None;
        };
        let Some(version) = Version::of(stated.value) else {
            self.problems.add(*stated_at, Some("VERSION".to_owned()), ProblemKind::UnsupportedVersion);
            return None;
        };
        if !properties.iter().any(|(_, _, property)| property.is("FN")) {
            self.problems.add(card.line, Some("FN".to_owned()), ProblemKind::MissingAttribute);
        }
        let mut made = Block {
            draft: Draft::new(card.line, PREFIX),
            uid: None,
            members: Vec::new(),
            further: Vec::new(),
        };
        let mut group = false;
        for (line, text, property) in &properties {
            if property.is("BEGIN") || property.is("END") {
                self.problems.add(*line, None, ProblemKind::StrayDelimiter);
            } else if property.is("VERSION") {
                if line != stated_at {
                    self.problems.add(*line, Some("VERSION".to_owned()), ProblemKind::DuplicateAttribute);
                }
            } else if makes_group(property) {
                group = true;
            } else {
                self.read_property(&mut made, (*line, text), property);
            }
        }
        // Version 3 demands a property that says no more than the name does: it takes no place of what is kept.
        let implied = format!("N:{};;;;", escape(made.draft.text(field::NAME).unwrap_or_default()));
        let mut further = std::mem::take(&mut made.further);
        let first = further.iter().position(|(_, name, _)| name == "N");
        if let Some(at) = first.filter(|at| further[*at].2 == implied) {
            further.remove(at);
        }
        for (line, name, text) in further {
            made.draft.keep(&name, &text, line, &mut self.notices);
        }
        Some((version, made.draft.classify(group, &mut self.notices).then_some(made)))
    }

    fn read_property(&mut self, made: &mut Block, (line, text): (u64, &str), property: &Property<'_>) {
        let name = property.name.to_ascii_uppercase();
        if name == "UID" {
            if made.uid.is_some() {
                self.problems.add(line, Some(name), ProblemKind::DuplicateAttribute);
            } else if !property.value.is_empty() {
                made.uid = Some((line, text.to_owned()));
            }
            return;
        }
        if Version::ALL.iter().any(|version| name == version.member()) {
            made.members.push((line, name, text.to_owned(), comparable(property.value.trim())));
            return;
        }
        let shared = TEXT_PROPERTIES
            .iter()
            .find(|(known, _)| *known == name && (name != "TEL" || property.has("TYPE", "fax")));
        let Some((known, field)) = shared else {
            made.further.push((line, name, text.to_owned()));
            return;
        };
        let uri = property.value.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("tel:"));
        let value =
            if *known == "TEL" && uri { property.value[4..].to_owned() } else { unescape(property.value) };
        if value.is_empty() {
            return;
        }
        if !made.draft.put(field, &value, (line, known), &mut self.problems) {
            made.further.push((line, name, text.to_owned()));
        } else if !is_own_head(property.head, known, &value) && suits(property.head, known, &value) {
            made.draft.keep(known, property.head, line, &mut self.notices);
        }
    }
}

fn finish(mut drafts: Vec<Block>, notices: &mut Vec<Notice>) -> Vec<Entry> {
    let mut ids = Ids::default();
    let mut by_uid: HashMap<String, usize> = HashMap::new();
    let mut identified = Vec::new();
    for (at, block) in drafts.iter_mut().enumerate() {
        let uid = block.uid.take();
        let value =
            uid.as_ref().and_then(|(_, text)| Property::parse(text)).map(|uid| comparable(uid.value.trim()));
        // An id that we derived once is no UUID and no surprise.
        let derived = |uid: &&String| uid.len() == 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit());
        let stated = uid.as_ref().zip(value.as_ref().filter(|uid| !derived(uid)));
        let stated = stated.map(|((line, _), text)| Stated { line: *line, column: "UID", text });
        let id = ids.give(block.draft.line, stated, &block.draft.fields, notices);
        if let (Some((line, text)), Some(value)) = (uid, value) {
            by_uid.entry(value).or_insert(at);
            if text != own_uid(&id) {
                block.draft.keep_name("UID", &text, line, notices);
            }
        }
        identified.push(id);
    }
    for block in &mut drafts {
        let mut found = BTreeSet::new();
        let mut unknown = None;
        for (line, name, text, uid) in &block.members {
            if let Some(&at) = by_uid.get(uid) {
                found.insert(identified[at].clone());
            } else {
                unknown.get_or_insert((*line, name, 0)).2 += 1;
                block.draft.keep(name, text, *line, notices);
            }
        }
        if !found.is_empty() {
            block.draft.fields.insert(field::MEMBERS.to_owned(), Value::Set(found));
        }
        if let Some((line, name, count)) = unknown {
            let what = NoticeKind::UnknownMembers { count };
            notices.push(Notice { line, column: Some(name.clone()), what });
        }
    }
    identified.into_iter().zip(drafts).map(|(id, block)| Entry { id, fields: block.draft.fields }).collect()
}

/// The line that states an id.
pub(super) fn own_uid(id: &str) -> String {
    let scheme = if crate::entry::is_uuid(id) { UUID_URN } else { "" };
    format!("UID:{scheme}{id}")
}
