//! What an import would do: which entries are new, which differ, which are the same. Pure.
//!
//! A changed entry becomes a patch of what differs, so that fields a file cannot carry (a secret, a
//! value of a newer firmware) survive. A field the file has a column for and leaves empty is removed.
//! Entries that only the group has stay: absence is never a deletion.

use std::collections::HashMap;

use mfpsync_addressbook::{Book, Entry, Format, LeftOutKind, csv};
use mfpsync_proto::local::edit::Edit as EditKind;
use mfpsync_proto::local::value::Value as Kind;
use mfpsync_proto::local::{Edit, Field, Item, ItemKey, Patch, Put};

use super::layout::{self, Looks};
use super::meeting::met;
use super::{Target, entry};
use crate::value::by_name;

/// Edits in one write: atomic together, and a progress bar moves.
const BATCH_EDITS: usize = 50;
/// Bytes of one write: it becomes one operation, which must fit a push.
const BATCH_BYTES: usize = mfpsync_proto::limit::PUSH_BYTES / 4 * 3;

/// Most bytes of a file's looks: an item holds 64 KiB, keys and framing included.
const MAX_LOOKS_BYTES: usize = 60 << 10;

/// What an import would do.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) edits: Vec<Edit>,
    pub(crate) added: u64,
    pub(crate) changed: u64,
    pub(crate) identical: u64,
    /// Entries that are there and not in the file.
    pub(crate) untouched: u64,
}

impl Plan {
    /// Compares a file with what is there.
    pub(crate) fn new(book: &Book, target: &Target, present: &[Item], looks: &[Item]) -> Self {
        let format = book.format();
        let own_looks = Looks::of(book);
        let entries = met(book.entries(), present);
        let present: HashMap<&str, &Item> =
            present.iter().filter_map(|item| Some((id_of(item)?, item))).collect();
        let mut plan = Self::default();
        for incoming in entries.iter() {
            let key = target.key(&incoming.id);
            match present.get(incoming.id.as_str()) {
                None => {
                    plan.added += 1;
                    plan.edits.push(put(key, entry::fields(incoming)));
                }
                Some(item) => match difference(incoming, item, format, own_looks.as_ref()) {
                    Some((set, remove)) => {
                        plan.changed += 1;
                        plan.edits.push(patch(key, set, remove));
                    }
                    None => plan.identical += 1,
                },
            }
        }
        plan.untouched = (present.len() as u64).saturating_sub(plan.changed + plan.identical);
        plan.edits.extend(own_looks.and_then(|own| looks_edit(&entries, &own, target, looks)));
        plan
    }

    /// Entries that would be written.
    pub(crate) fn entries(&self) -> u64 {
        self.added + self.changed
    }

    /// The edits in writes that each are stored wholly or not at all.
    pub(crate) fn into_batches(self) -> Vec<Vec<Edit>> {
        let mut batches: Vec<Vec<Edit>> = Vec::new();
        let mut bytes = 0;
        for edit in self.edits {
            let size = weight(&edit);
            match batches.last_mut() {
                Some(batch) if batch.len() < BATCH_EDITS && bytes + size <= BATCH_BYTES => {
                    bytes += size;
                    batch.push(edit);
                }
                Some(_) | None => {
                    bytes = size;
                    batches.push(vec![edit]);
                }
            }
        }
        batches
    }
}

/// The id of an item, which this device may share with all or have for itself.
fn id_of(item: &Item) -> Option<&str> {
    item.key.as_ref().map(|key| key.id.as_str())
}

fn difference(
    incoming: &Entry,
    item: &Item,
    format: Format,
    looks: Option<&Looks>,
) -> Option<(Vec<Field>, Vec<String>)> {
    let wanted = entry::fields(incoming);
    let there = by_name(&item.fields);
    let normal = by_name(&wanted);
    let set: Vec<Field> = wanted
        .iter()
        .filter(|field| there.get(field.name.as_str()) != normal.get(field.name.as_str()))
        .cloned()
        .collect();
    let surplus = there.keys().any(|name| !normal.contains_key(name));
    let remove = if surplus { emptied(incoming, item, format, looks) } else { Vec::new() };
    (!set.is_empty() || !remove.is_empty()).then_some((set, remove))
}

/// Fields of the item that the file could have carried and does not: the columns of a CSV say which. Other formats have
/// none, so an attribute that is missing says nothing of the shared fields, and only the format's own ones go.
fn emptied(incoming: &Entry, item: &Item, format: Format, looks: Option<&Looks>) -> Vec<String> {
    let stored = entry::entry(item);
    let Some(Looks::Csv(options)) = looks else {
        let gone = |name: &String| name.starts_with(format.prefix()) && !incoming.fields.contains_key(name);
        return stored.fields.into_keys().filter(gone).collect();
    };
    // An entry no file could hold tells nothing about columns; then nothing is removed.
    let Ok((_bytes, left_out)) = csv::write(std::slice::from_ref(&stored), options) else {
        return Vec::new();
    };
    let homeless = |name: &str| {
        left_out.iter().any(|left_out| left_out.what == LeftOutKind::NoColumn && left_out.field == name)
    };
    stored.fields.into_keys().filter(|name| !incoming.fields.contains_key(name) && !homeless(name)).collect()
}

/// The file's looks are written with the last entries, and only when they changed. Those that no item could hold are
/// not kept: a header of such a length is no machine's.
fn looks_edit(entries: &[Entry], own: &Looks, target: &Target, looks: &[Item]) -> Option<Edit> {
    let key = own.key(&target.scope);
    let wanted = own.to_fields(entries);
    let same = looks
        .iter()
        .filter(|item| item.key.as_ref() == Some(&key))
        .any(|item| by_name(&item.fields) == by_name(&wanted));
    Some(put(key, wanted)).filter(|edit| !same && weight(edit) <= MAX_LOOKS_BYTES)
}

fn put(key: ItemKey, fields: Vec<Field>) -> Edit {
    Edit { edit: Some(EditKind::Put(Put { key: Some(key), fields })) }
}

fn patch(key: ItemKey, set: Vec<Field>, remove: Vec<String>) -> Edit {
    Edit { edit: Some(EditKind::Patch(Patch { key: Some(key), set, remove })) }
}

/// Whether an edit writes an entry rather than the file's looks.
pub(crate) fn is_entry(edit: &Edit) -> bool {
    let key = match &edit.edit {
        Some(EditKind::Put(put)) => put.key.as_ref(),
        Some(EditKind::Patch(patch)) => patch.key.as_ref(),
        Some(EditKind::Delete(delete)) => delete.key.as_ref(),
        None => None,
    };
    key.is_some_and(|key| key.kind != layout::KIND)
}

/// About the encoded size: texts, plus a bound for keys and framing.
fn weight(edit: &Edit) -> usize {
    const KEY_BYTES: usize = 512;
    const FRAMING_BYTES: usize = 16;
    let field =
        |field: &Field| field.name.len() + FRAMING_BYTES + field.value.as_ref().map_or(0, value_bytes);
    let fields = match &edit.edit {
        Some(EditKind::Put(put)) => &put.fields,
        Some(EditKind::Patch(patch)) => &patch.set,
        Some(EditKind::Delete(_)) | None => return KEY_BYTES,
    };
    KEY_BYTES + fields.iter().map(field).sum::<usize>()
}

fn value_bytes(value: &mfpsync_proto::local::Value) -> usize {
    match &value.value {
        Some(Kind::Text(text)) => text.len(),
        Some(Kind::Set(set)) => set.texts.iter().map(|text| text.len() + 4).sum(),
        Some(Kind::Bytes(bytes)) => bytes.len(),
        Some(Kind::Sealed(sealed)) => sealed.key_id.len() + sealed.r#box.len(),
        Some(Kind::Opaque(opaque)) => opaque.payload.len(),
        Some(Kind::Integer(_) | Kind::Flag(_)) | None => 10,
    }
}

#[cfg(test)]
mod tests;
