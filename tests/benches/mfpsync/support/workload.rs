//! What is written: address entries of made-up people, one author for each connection. Every target
//! gets the same records under the same keys.

use anyhow::Result;
use mfpsync_storage::model::{
    Action, Base, Edit, Fields, ItemKey, Operation, OperationNumber, Revision, Value,
};

/// Items one author edits in turn.
const ITEMS: usize = 100;
/// Items of one user in a filled database, below the product's limit of 2,000.
pub(crate) const ITEMS_PER_USER: usize = 1_000;
/// Wall clock of the made-up edits; informs only, so a constant keeps records the same in every run.
const MADE_AT: u64 = 1_750_000_000_000;
const KIND: &str = "address.personal";

/// One entry of an address list, about 150 bytes of fields.
pub(crate) fn entry(number: usize, version: u64) -> Fields {
    let mut fields = Fields::new();
    let mut text = |name: &str, value: String| fields.insert(name, Value::Text(value));
    text("class", "email".to_owned());
    text("name", format!("Person {number:06}"));
    text("reading", format!("person {number:06}"));
    text("mail", format!("person.{number:06}@example.com"));
    text("company", "Example Trading".to_owned());
    text("note", format!("version {version}"));
    fields
}

/// An author who replaces one item after the other, each edit based on the last accepted one.
#[derive(Debug)]
pub(crate) struct Author {
    author: usize,
    scope: String,
    number: u64,
    seen: Vec<Revision>,
    patches: bool,
}

impl Author {
    pub(crate) fn new(number: usize) -> Self {
        Self {
            author: number,
            scope: format!("user/author-{number:04}"),
            number: 0,
            seen: vec![Revision::default(); ITEMS],
            patches: false,
        }
    }

    /// Sets one field only of an item that is there; the items are those of a hundred people of a filled
    /// database, so that edits fall on pages all over it.
    pub(crate) fn patching(self) -> Self {
        Self { patches: true, ..self }
    }

    fn current(&self) -> usize {
        self.number as usize % ITEMS
    }

    /// The next operation's number and record.
    ///
    /// # Errors
    /// A key is malformed.
    pub(crate) fn next(&mut self) -> Result<(u64, Vec<u8>)> {
        self.number += 1;
        let at = self.current();
        let revision = self.seen.get(at).copied().unwrap_or_default();
        let action = if self.patches && revision != Revision::default() {
            let mut set = Fields::new();
            set.insert("note", Value::Text(format!("version {}", self.number)));
            Action::Patch { set, remove: Vec::new() }
        } else {
            Action::Put(entry(at, self.number))
        };
        let key = if self.patches {
            ItemKey::parse(&format!("user/{}", person(at)), KIND, "", &format!("{}-{at}", self.author))?
        } else {
            ItemKey::parse(&self.scope, KIND, "", &at.to_string())?
        };
        let edit = Edit { key, base: Base { revision, after: None }, action };
        let operation = Operation {
            number: OperationNumber(self.number),
            made_at: MADE_AT,
            actor: "bench".to_owned(),
            yields: false,
            was: None,
            edits: vec![edit],
        };
        Ok((self.number, operation.encode()))
    }

    /// The key of the item that the last operation edits, for stores that want one.
    pub(crate) fn key(&self) -> String {
        format!("{}/{KIND}/{}", self.scope, self.current())
    }

    /// Notes the revision the last operation was accepted at.
    pub(crate) fn accepted(&mut self, revision: Revision) {
        let at = self.current();
        if let Some(seen) = self.seen.get_mut(at) {
            *seen = revision;
        }
    }
}

/// The id of a user of a filled database.
pub(crate) fn person(number: usize) -> String {
    format!("person-{number:04}")
}

/// An operation that creates the items `from..to`, spread over many users.
///
/// # Errors
/// A key is malformed.
pub(crate) fn creation(number: u64, from: usize, to: usize) -> Result<Vec<u8>> {
    let edit = |at: usize| -> Result<Edit> {
        let scope = format!("user/{}", person(at / ITEMS_PER_USER));
        Ok(Edit {
            key: ItemKey::parse(&scope, KIND, "", &format!("{at:06}"))?,
            base: Base::default(),
            action: Action::Put(entry(at, 0)),
        })
    };
    let edits = (from..to).map(edit).collect::<Result<_>>()?;
    let number = OperationNumber(number);
    Ok(Operation { number, made_at: MADE_AT, actor: "bench".to_owned(), yields: false, was: None, edits }
        .encode())
}
