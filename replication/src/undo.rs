//! What an item goes back to when changes are taken back.
//!
//! Pure: from an item as it is, its history (newest first) and a selection of changes to the fields
//! it should have. A field goes back when its present value was written by a selected change: to
//! what it was before the unbroken run of selected changes that ends there. Values others wrote
//! later stand, and are counted. An item's existence is decided the same way. Called by
//! [`operator`](crate::operator), for the preview and inside the write.

use std::collections::BTreeSet;

use mfpsync_storage::master::{Before, HistoryEntry, OPERATOR, OperatorAct};
use mfpsync_storage::model::{DeviceId, Fields, Kind, Sequence, Value};

use crate::merge::{SameField, rule};

/// Which changes are taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selection {
    /// From this sequence on.
    pub from: Sequence,
    /// Up to this one: what was written later was not part of the preview.
    pub through: Sequence,
    /// Only what this device wrote; none means everybody.
    pub device: Option<DeviceId>,
}

impl Selection {
    /// Whether a change is to be taken back.
    #[must_use]
    pub fn takes(&self, entry: &HistoryEntry) -> bool {
        let by_device = |device| entry.device == device && entry.incarnation != OPERATOR;
        let sequence = entry.revision.sequence;
        // A switch of sharing moves items of a whole kind; it is taken back by switching again.
        let moved = OperatorAct::of(entry.incarnation, entry.operation) == Some(OperatorAct::Share);
        !moved && (self.from..=self.through).contains(&sequence) && self.device.is_none_or(by_device)
    }
}

/// What taking changes back makes of an item.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Undone {
    /// What to write; none when nothing changes.
    pub write: Option<Restored>,
    /// Fields that others wrote later and that therefore stand.
    pub stands: usize,
    /// Fields whose value before is no longer kept.
    pub forgotten: usize,
    /// The item is of a kind whose values are never kept, or that is the server's own.
    pub not_kept: bool,
}

/// An item as it goes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// All its fields; none in a tombstone.
    pub fields: Fields,
    /// It goes back to not being there.
    pub deleted: bool,
    /// Fields that change.
    pub touched: Vec<String>,
}

/// Whether values of a kind can go back: replaced secrets are not kept, and what only the server may
/// change is not taken back together with people's edits.
#[must_use]
pub fn can_go_back(kind: &Kind) -> bool {
    let rule = rule(kind);
    !rule.sealed_only && rule.same_field != SameField::ServerOnly
}

/// Decides what an item goes back to. `present` are its fields, none when it is a tombstone; `chain`
/// must reach back to the first selected change.
#[must_use]
pub fn undo(kind: &Kind, present: Option<&Fields>, chain: &[HistoryEntry], selection: &Selection) -> Undone {
    if !chain.iter().any(|entry| selection.takes(entry)) {
        return Undone::default();
    }
    if !can_go_back(kind) {
        return Undone { not_kept: true, ..Undone::default() };
    }
    let mut undone = Undone::default();
    let mut fields = present.cloned().unwrap_or_default();
    let mut others_wrote = false;
    for name in names(chain, selection) {
        match field(&name, chain, selection) {
            Back::To(value) => fields.assign(&name, value.as_ref()),
            Back::Stands => undone.stands += 1,
            Back::Forgotten { latest } => {
                undone.forgotten += 1;
                // Of a deleted item, what it last held is better than nothing.
                if present.is_none() {
                    fields.assign(&name, latest.as_ref());
                }
            }
        }
    }
    for (name, _) in present.into_iter().flat_map(Fields::iter) {
        let writer = chain.iter().find(|entry| writes(entry, name));
        others_wrote |= writer.is_none_or(|entry| !selection.takes(entry));
    }
    let lives = match existence(chain, selection) {
        Existence::Untouched => present.is_some(),
        // Brought back by nobody's wish but the selected deletion's.
        Existence::WasThere => true,
        Existence::WasNot => present.is_some() && others_wrote,
        Existence::Forgotten => {
            undone.forgotten = undone.forgotten.max(1);
            return undone;
        }
    };
    // Who deleted an item later did so whatever its fields were.
    let restored = if lives { Some(&fields) } else { None };
    if restored != present {
        undone.write = Some(restored_from(present, restored));
    }
    undone
}

fn restored_from(present: Option<&Fields>, restored: Option<&Fields>) -> Restored {
    let (none, empty) = (Fields::new(), Fields::new());
    let (before, after) = (present.unwrap_or(&none), restored.unwrap_or(&empty));
    let all: BTreeSet<&str> = before.names().chain(after.names()).collect();
    let touched = all.into_iter().filter(|name| before.get(name) != after.get(name));
    Restored {
        touched: touched.map(str::to_owned).collect(),
        fields: after.clone(),
        deleted: restored.is_none(),
    }
}

/// Fields that any selected change wrote.
fn names(chain: &[HistoryEntry], selection: &Selection) -> BTreeSet<String> {
    let selected = chain.iter().filter(|entry| selection.takes(entry));
    selected
        .flat_map(|entry| {
            let gone = entry.before.fields().filter(|_| entry.deleted);
            let gone = gone.into_iter().flat_map(Fields::names).map(str::to_owned);
            entry.touched.iter().cloned().chain(gone)
        })
        .collect()
}

/// Whether a change wrote a field: named it, or deleted it with its item.
fn writes(entry: &HistoryEntry, name: &str) -> bool {
    entry.touched.iter().any(|touched| touched == name)
        || entry.deleted && entry.before.fields().is_some_and(|fields| fields.get(name).is_some())
}

enum Back {
    To(Option<Value>),
    Stands,
    Forgotten {
        /// What the latest selected change replaced.
        latest: Option<Value>,
    },
}

fn field(name: &str, chain: &[HistoryEntry], selection: &Selection) -> Back {
    let writers = chain.iter().filter(|entry| writes(entry, name));
    let mut run = writers.take_while(|entry| selection.takes(entry));
    let Some(first) = run.next() else { return Back::Stands };
    let oldest = run.last().unwrap_or(first);
    match &oldest.before {
        Before::Absent | Before::Deleted => Back::To(None),
        Before::Fields(fields) => Back::To(fields.get(name).cloned()),
        Before::Forgotten => {
            Back::Forgotten { latest: first.before.fields().and_then(|fields| fields.get(name).cloned()) }
        }
    }
}

enum Existence {
    /// No selected change made or deleted the item as it is.
    Untouched,
    WasThere,
    WasNot,
    Forgotten,
}

fn existence(chain: &[HistoryEntry], selection: &Selection) -> Existence {
    let makes_or_deletes = |entry: &&HistoryEntry| match entry.before {
        Before::Absent | Before::Deleted => !entry.deleted,
        Before::Fields(_) | Before::Forgotten => entry.deleted,
    };
    let mut run = chain.iter().filter(makes_or_deletes).take_while(|entry| selection.takes(entry));
    let Some(first) = run.next() else { return Existence::Untouched };
    match run.last().unwrap_or(first).before {
        Before::Absent | Before::Deleted => Existence::WasNot,
        Before::Fields(_) => Existence::WasThere,
        Before::Forgotten => Existence::Forgotten,
    }
}

#[cfg(test)]
mod tests;
