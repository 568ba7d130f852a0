//! Bytes to a book: blocks to entries, then what needs the whole file (ids, names, members).
//!
//! All problems of a file are gathered before it is refused. Called through [`super::read`].

use std::collections::BTreeSet;
use std::collections::hash_map::{Entry as Slot, HashMap};

use data_encoding::BASE64;

use super::{Book, GROUP, PERSON, PREFIX, TEXT_ATTRIBUTES, comparable, is_group, own_dn};
use crate::attributes::{self, Attribute};
use crate::csv::{LineEnd, MAX_FILE_BYTES, MAX_ROWS};
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
    let mut lines = Lines::new(bytes.strip_prefix(BOM).unwrap_or(bytes), b" ");
    let mut blocks = Blocks { problems: Problems::default(), notices: Vec::new() };
    let mut drafts = Vec::new();
    let mut first = true;
    let mut last_line = 1;
    while let Some(mut block) = attributes::next_block(&mut lines, &mut blocks.problems) {
        let line = block.first().map_or(1, |first| first.line);
        if std::mem::take(&mut first) {
            if !block.first().is_some_and(|first| first.is("version") || first.is("dn")) {
                return Err(Problem::alone(line, None, ProblemKind::UnknownFormat));
            }
            if block[0].is("version") && block.remove(0).value != b"1" {
                blocks.problems.add(line, Some("version".to_owned()), ProblemKind::BadVersion);
            }
        }
        if drafts.len() == MAX_ROWS {
            blocks.problems.add(line, None, ProblemKind::TooManyRows { limit: MAX_ROWS });
            break;
        }
        last_line = line;
        if !block.is_empty() {
            drafts.extend(blocks.read(&block));
        }
    }
    if first {
        return Err(Problem::alone(1, None, ProblemKind::UnknownFormat));
    }
    let Blocks { problems, mut notices } = blocks;
    let drafts = problems.or(drafts)?;
    let names = names(&drafts, &mut notices);
    if !lines.ended {
        notices.push(Notice { line: last_line, column: None, what: NoticeKind::NoFinalLineEnd });
    }
    let entries = finish(drafts, &names, &mut notices);
    notices.sort_by_key(|notice| notice.line);
    Ok((Book { line_end: lines.line_end.unwrap_or(LineEnd::Lf), entries }, notices))
}

/// A text that cannot become a field before all entries are known.
struct Pending {
    line: u64,
    name: String,
    text: String,
}

struct Block {
    draft: Draft,
    dn: Pending,
    uuid: Option<Pending>,
    members: Vec<Pending>,
}

struct Blocks {
    problems: Problems,
    notices: Vec<Notice>,
}

impl Blocks {
    fn read(&mut self, block: &[Attribute]) -> Option<Block> {
        let (first, rest) = block.split_first()?;
        let mut made = Block {
            draft: Draft::new(first.line, PREFIX),
            dn: self.dn(first)?,
            uuid: None,
            members: Vec::new(),
        };
        let mut classes: Vec<Pending> = Vec::new();
        if let Some(change) = rest.iter().find(|one| one.is("changetype") || one.is("control")) {
            self.problem(change, ProblemKind::ChangeRecord);
            return None;
        }
        for attribute in rest {
            match std::str::from_utf8(&attribute.value) {
                Ok("") => {}
                Ok(text) if attribute.is("objectClass") => classes.push(pending(attribute, text)),
                Ok(text) => self.read_attribute(&mut made, attribute, text),
                Err(_) if attribute.was_base64 && meaning(attribute).is_none() => {
                    let name = format!("{}::", attribute.name);
                    made.draft.keep(
                        &name,
                        &BASE64.encode(&attribute.value),
                        attribute.line,
                        &mut self.notices,
                    );
                }
                Err(_) => self.problem(attribute, ProblemKind::InvalidUtf8),
            }
        }
        self.put_class(made, &classes)
    }

    fn dn(&mut self, first: &Attribute) -> Option<Pending> {
        if !first.is("dn") {
            self.problems.add(first.line, Some("dn".to_owned()), ProblemKind::MissingAttribute);
            return None;
        }
        match std::str::from_utf8(&first.value) {
            Ok(dn) => Some(pending(first, dn)),
            Err(_) => {
                self.problem(first, ProblemKind::InvalidUtf8);
                None
            }
        }
    }

    fn read_attribute(&mut self, made: &mut Block, attribute: &Attribute, text: &str) {
        let at = (attribute.line, attribute.name.as_str());
        match meaning(attribute) {
            Some(Meaning::Dn) => self.problem(attribute, ProblemKind::DuplicateAttribute),
            Some(Meaning::Uuid) if made.uuid.is_some() => {
                self.problem(attribute, ProblemKind::DuplicateAttribute)
            }
            Some(Meaning::Uuid) => made.uuid = Some(pending(attribute, text)),
            Some(Meaning::Member) => made.members.push(pending(attribute, text)),
            Some(Meaning::Password) => {
                let what = NoticeKind::PasswordNotImported;
                self.notices.push(Notice { line: at.0, column: Some(attribute.name.clone()), what });
            }
            Some(Meaning::Text(name, field)) => {
                if !made.draft.put(field, text, at, &mut self.problems) {
                    made.draft.keep(name, text, at.0, &mut self.notices);
                }
            }
            Some(Meaning::Class) | None => made.draft.keep(at.1, text, at.0, &mut self.notices),
        }
    }

    /// The class, unless the entry has no destination.
    fn put_class(&mut self, mut made: Block, classes: &[Pending]) -> Option<Block> {
        let draft = &mut made.draft;
        let group = is_group(classes.iter().map(|class| class.text.as_str()));
        if !draft.classify(group, &mut self.notices) {
            return None;
        }
        let usual: &[&str] = if group { &GROUP } else { &PERSON };
        if !classes.iter().map(|class| class.text.as_str()).eq(usual.iter().copied()) {
            for class in classes {
                draft.keep("objectClass", &class.text, class.line, &mut self.notices);
            }
        }
        if draft.text("ldif.sn") == draft.text(field::NAME) && !draft.fields.contains_key("ldif.sn#2") {
            draft.fields.remove("ldif.sn");
        }
        Some(made)
    }

    fn problem(&mut self, attribute: &Attribute, what: ProblemKind) {
        self.problems.add(attribute.line, Some(attribute.name.clone()), what);
    }
}

fn pending(attribute: &Attribute, text: &str) -> Pending {
    Pending { line: attribute.line, name: attribute.name.clone(), text: text.to_owned() }
}

/// Attributes that are more than kept.
enum Meaning {
    Dn,
    Class,
    Uuid,
    Member,
    Password,
    Text(&'static str, &'static str),
}

fn meaning(attribute: &Attribute) -> Option<Meaning> {
    let text = TEXT_ATTRIBUTES.iter().find(|(name, _)| attribute.is(name));
    Some(match attribute.name.to_ascii_lowercase().as_str() {
        "dn" => Meaning::Dn,
        "objectclass" => Meaning::Class,
        "entryuuid" => Meaning::Uuid,
        "member" | "uniquemember" => Meaning::Member,
        "userpassword" => Meaning::Password,
        _ => return text.map(|&(name, field)| Meaning::Text(name, field)),
    })
}

/// Which entry has which name; nothing for a name that several have.
fn names(drafts: &[Block], notices: &mut Vec<Notice>) -> HashMap<String, Option<usize>> {
    let mut names = HashMap::new();
    let mut first_lines = HashMap::new();
    for (at, block) in drafts.iter().enumerate() {
        let line = block.dn.line;
        match names.entry(comparable(&block.dn.text)) {
            Slot::Vacant(slot) => {
                first_lines.insert(slot.key().clone(), line);
                slot.insert(Some(at));
            }
            Slot::Occupied(mut found) => {
                let first_line = first_lines.get(found.key()).copied().unwrap_or(line);
                found.insert(None);
                let what = NoticeKind::DuplicateName { first_line };
                notices.push(Notice { line, column: Some("dn".to_owned()), what });
            }
        }
    }
    names
}

fn finish(
    mut drafts: Vec<Block>,
    names: &HashMap<String, Option<usize>>,
    notices: &mut Vec<Notice>,
) -> Vec<Entry> {
    let mut ids = Ids::default();
    let mut identify = |block: &mut Block| {
        let uuid = block.uuid.take();
        let stated =
            uuid.as_ref().map(|uuid| Stated { line: uuid.line, column: &uuid.name, text: &uuid.text });
        let id = ids.give(block.draft.line, stated, &block.draft.fields, notices);
        if let Some(uuid) = uuid.filter(|uuid| uuid.text != id) {
            block.draft.keep_name("entryUUID", &uuid.text, uuid.line, notices);
        }
        if block.dn.text != own_dn(&id) {
            block.draft.keep_name("dn", &block.dn.text, block.dn.line, notices);
        }
        id
    };
    let ids: Vec<String> = drafts.iter_mut().map(&mut identify).collect();
    for block in &mut drafts {
        let mut found = BTreeSet::new();
        let mut unknown = 0;
        for member in &block.members {
            match names.get(&comparable(&member.text)).copied().flatten() {
                Some(at) => {
                    found.insert(ids[at].clone());
                }
                None => {
                    unknown += 1;
                    block.draft.keep(&member.name, &member.text, member.line, notices);
                }
            }
        }
        if !found.is_empty() {
            block.draft.fields.insert(field::MEMBERS.to_owned(), Value::Set(found));
        }
        if let (1.., Some(first)) = (unknown, block.members.first()) {
            let what = NoticeKind::UnknownMembers { count: unknown };
            notices.push(Notice { line: first.line, column: Some(first.name.clone()), what });
        }
    }
    ids.into_iter().zip(drafts).map(|(id, block)| Entry { id, fields: block.draft.fields }).collect()
}
