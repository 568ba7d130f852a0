//! Gives each entry of a file its id: the UUID the file states, or one derived from the content.
//!
//! Ids are unique in a file. Called by the readers of all formats.

use std::collections::BTreeMap;
use std::collections::hash_map::{Entry as Slot, HashMap};

use crate::entry::{Value, derived_id, is_uuid};
use crate::error::{Notice, NoticeKind};

/// What a file states as an entry's identity, and where.
pub(crate) struct Stated<'a> {
    pub(crate) line: u64,
    pub(crate) column: &'a str,
    pub(crate) text: &'a str,
}

/// Ids given so far, each with the line of its entry.
#[derive(Default)]
pub(crate) struct Ids {
    from_uuid: HashMap<String, u64>,
    /// By the id that the content alone gives: the line where it is first, and how often it was.
    from_content: HashMap<String, (u64, u32)>,
}

impl Ids {
    /// The id of the entry that begins in this line; a stated text that is not it must be kept by the caller.
    pub(crate) fn give(
        &mut self,
        line: u64,
        stated: Option<Stated<'_>>,
        fields: &BTreeMap<String, Value>,
        notices: &mut Vec<Notice>,
    ) -> String {
        let Some(stated) = stated else { return self.derive(line, fields, notices) };
        let id = stated.text.to_ascii_lowercase();
        let fault = if is_uuid(&id) {
            match self.from_uuid.entry(id.clone()) {
                Slot::Vacant(slot) => {
                    slot.insert(line);
                    return id;
                }
                Slot::Occupied(first) => NoticeKind::DuplicateUuid { first_line: *first.get() },
            }
        } else {
            NoticeKind::NotAUuid
        };
        notices.push(Notice { line: stated.line, column: Some(stated.column.to_owned()), what: fault });
        self.derive(line, fields, notices)
    }

    fn derive(&mut self, line: u64, fields: &BTreeMap<String, Value>, notices: &mut Vec<Notice>) -> String {
        let id = derived_id(fields, 0);
        match self.from_content.entry(id.clone()) {
            Slot::Vacant(slot) => {
                slot.insert((line, 0));
                id
            }
            Slot::Occupied(mut first) => {
                let (first_line, repeats) = first.get_mut();
                *repeats += 1;
                let what = NoticeKind::DuplicateEntry { first_line: *first_line };
                notices.push(Notice { line, column: None, what });
                derived_id(fields, *repeats)
            }
        }
    }
}
