//! The numbers by which the vendor's files name entries, and with them a group's members.
//!
//! Decides which entry is written with which number. Called by the writers of the vendor's formats.

use std::collections::hash_map::{Entry as Slot, HashMap};
use std::collections::{BTreeSet, HashSet};

use crate::entry::{Entry, Value, field};
use crate::error::{LeftOut, LeftOutKind, WriteError};
use crate::members;

/// The number each entry is written with, and by which groups name it.
pub(crate) struct Numbers<'a> {
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
    pub(crate) fn assign(
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

    /// The number of the entry at this position, when it is not the one in its field.
    pub(crate) fn given(&self, at: usize) -> Option<u32> {
        self.numbers[at].filter(|_| self.given.contains(&at))
    }

    /// A group's members in ascending order, then what no entry of the file was when the list was read (`kept`: name
    /// and text of its field). A number among the latter that has an owner by now is not written: mail must not go to
    /// whoever inherited it.
    pub(crate) fn members(
        &self,
        at: usize,
        entry: &Entry,
        (kept_in, kept): (&str, &str),
        left_out: &mut Vec<LeftOut>,
    ) -> Result<Vec<String>, WriteError> {
        let mut numbers = BTreeSet::new();
        let mut unknown = 0;
        match entry.fields.get(field::MEMBERS) {
            None => {}
            Some(Value::Text(_)) => return Err(wrong_type(at, field::MEMBERS)),
            Some(Value::Set(ids)) => {
                for id in ids {
                    match self.of(id) {
                        Some(number) => {
                            numbers.insert(number);
                        }
                        None => unknown += 1,
                    }
                }
            }
        }
        let owned =
            |token: &&str| members::number(token).is_some_and(|number| self.owners.contains_key(&number));
        let (taken, kept): (Vec<_>, Vec<_>) = members::listed(kept).partition(owned);
        for (field, count) in [(field::MEMBERS, unknown), (kept_in, taken.len())] {
            if count > 0 {
                let what = LeftOutKind::UnknownMembers { count };
                left_out.push(LeftOut { entry: at, field: field.to_owned(), what });
            }
        }
        Ok(numbers.iter().map(u32::to_string).chain(kept.into_iter().map(str::to_owned)).collect())
    }
}

/// The text of a field, or nothing when it is absent.
pub(crate) fn text<'a>(at: usize, entry: &'a Entry, field_name: &str) -> Result<Option<&'a str>, WriteError> {
    match entry.fields.get(field_name) {
        None => Ok(None),
        Some(Value::Text(text)) => Ok(Some(text)),
        Some(Value::Set(_)) => Err(wrong_type(at, field_name)),
    }
}

/// A field of another type than its name demands.
pub(crate) fn wrong_type(at: usize, field_name: &str) -> WriteError {
    WriteError::WrongType { entry: at, field: field_name.to_owned() }
}
