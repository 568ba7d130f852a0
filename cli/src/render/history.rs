//! The history and what an undo does, as text and JSON. Pure.

use mfpsync_proto::local::{Field, ItemKey};
use mfpsync_proto::records::{Change, Event, ItemHistoryReply, UndoReply};
use serde_json::{Value, json};

use super::units::{ago, count, revision, revision_json};
use crate::output::printable;
use crate::value;

/// Items named below an undo.
const NAMED: usize = 10;

/// One line a change.
pub(crate) fn text(changes: &[Change], more: bool, now_unix_millis: u64) -> String {
    if changes.is_empty() {
        return "nothing of this kind is in the history".to_owned();
    }
    let mut lines: Vec<String> = changes.iter().map(|change| line(change, now_unix_millis)).collect();
    if more {
        lines.push("there is more: raise --limit".to_owned());
    }
    lines.join("\n")
}

fn line(change: &Change, now_unix_millis: u64) -> String {
    let at = change.revision.as_ref().map(revision).unwrap_or_default();
    let fields =
        if change.fields.is_empty() { String::new() } else { format!(" ({})", change.fields.join(", ")) };
    let lost = match (&change.lost_fields[..], change.lost_against) {
        ([], None) => String::new(),
        (_, Some(by)) => format!(" against {by}"),
        (lost, None) => format!("; lost against it: {}", lost.join(", ")),
    };
    let key = change.key.clone().unwrap_or_default();
    format!(
        "{at:>10}  {:<12}  {:<8}  {}{}{}  by {} at {}",
        ago(change.accepted_unix_millis, now_unix_millis),
        event(change),
        printable(&key_text(&key)),
        printable(&fields),
        printable(&lost),
        printable(if change.actor.is_empty() { "(nobody)" } else { &change.actor }),
        printable(if change.device_name.is_empty() { &change.device_id } else { &change.device_name }),
    )
}

fn event(change: &Change) -> &str {
    match (change.act.as_str(), change.event()) {
        ("undo", _) => "undone",
        ("erase", _) => "erased",
        ("readmit", _) => "readmitted",
        (_, Event::Created) => "created",
        (_, Event::Changed) => "changed",
        (_, Event::Deleted) => "deleted",
        (_, Event::Lost) => "lost",
        (_, Event::Unspecified) => "unknown",
    }
}

pub(super) fn key_text(key: &ItemKey) -> String {
    let device = if key.device.is_empty() { String::new() } else { format!(" on {}", key.device) };
    format!("{} {} {}{device}", key.scope, key.kind, key.id)
}

pub(super) fn key_json(key: Option<&ItemKey>) -> Value {
    key.map_or(
        Value::Null,
        |key| json!({ "scope": key.scope, "kind": key.kind, "device": key.device, "id": key.id }),
    )
}

fn change_json(change: &Change) -> Value {
    json!({
        "revision": revision_json(change.revision.as_ref()),
        "accepted_unix_millis": change.accepted_unix_millis,
        "actor": change.actor,
        "device_id": change.device_id,
        "device_name": change.device_name,
        "key": key_json(change.key.as_ref()),
        "event": match change.event() {
            Event::Created => "created",
            Event::Changed => "changed",
            Event::Deleted => "deleted",
            Event::Lost => "lost",
            Event::Unspecified => "unknown",
        },
        "act": change.act,
        "fields": change.fields,
        "lost_fields": change.lost_fields,
        "lost_against": change.lost_against,
        "forgotten": change.forgotten,
    })
}

/// The same for scripts.
pub(crate) fn json(changes: &[Change], more: bool) -> Value {
    json!({ "changes": changes.iter().map(change_json).collect::<Vec<_>>(), "more": more })
}

/// One item's changes, each with its values.
pub(crate) fn item_text(reply: &ItemHistoryReply, now_unix_millis: u64) -> String {
    if reply.changes.is_empty() {
        return "nothing is known of such an item".to_owned();
    }
    let mut lines = Vec::new();
    for one in &reply.changes {
        let change = one.change.clone().unwrap_or_default();
        lines.push(line(&change, now_unix_millis));
        if change.forgotten {
            lines.push("        the values before are not kept".to_owned());
        }
        let fields = |mark: &'static str, fields: &[Field]| -> Vec<String> {
            let shown = |field: &Field| {
                format!("      {mark} {} = {}", printable(&field.name), value::to_text(field.value.as_ref()))
            };
            fields.iter().map(shown).collect()
        };
        lines.extend(fields("-", &one.before));
        lines.extend(fields("+", &one.after));
        lines.extend(fields("lost", &one.lost));
    }
    lines.join("\n")
}

/// The same for scripts.
pub(crate) fn item_json(reply: &ItemHistoryReply) -> Value {
    let fields = |fields: &[Field]| -> serde_json::Map<String, Value> {
        fields.iter().map(|field| (field.name.clone(), value::to_json(field.value.as_ref()))).collect()
    };
    let changes = reply.changes.iter().map(|one| {
        let mut json = change_json(&one.change.clone().unwrap_or_default());
        json["before"] = Value::Object(fields(&one.before));
        json["after"] = Value::Object(fields(&one.after));
        json["lost"] = Value::Object(fields(&one.lost));
        json
    });
    json!({ "changes": changes.collect::<Vec<_>>() })
}

/// What an undo does, or did.
pub(crate) fn undo_text(reply: &UndoReply, done: bool) -> String {
    let what = if done { "taken back" } else { "would be taken back, nothing was written yet" };
    let mut lines = vec![format!(
        "{what}: {} of {} (revisions {} to {})",
        count(reply.fields, "field", "fields"),
        count(reply.items, "item", "items"),
        reply.from_sequence,
        reply.through_sequence,
    )];
    if reply.restored > 0 {
        lines.push(format!("{} deleted since come back", count(reply.restored, "item", "items")));
    }
    if reply.removed > 0 {
        lines.push(format!("{} made since go", count(reply.removed, "item", "items")));
    }
    for item in reply.first.iter().take(NAMED) {
        let key = item.key.clone().unwrap_or_default();
        let how = if item.removed { "goes".to_owned() } else { item.fields.join(", ") };
        lines.push(format!("    {}: {}", printable(&key_text(&key)), printable(&how)));
    }
    if reply.items > NAMED as u64 {
        lines.push(format!("    and {} more", reply.items - NAMED as u64));
    }
    let left = [
        (reply.stands, "field(s) stand: others wrote them later"),
        (reply.forgotten, "field(s) cannot be undone: what was there before is no longer kept"),
        (
            reply.not_kept,
            "item(s) cannot be undone: secrets and the server's own settings keep no old values",
        ),
        (reply.erased, "item(s) stay: their user was erased"),
        (reply.too_large, "item(s) stay: they would exceed what an item may hold"),
        (reply.other_sharing, "item(s) stay: the sharing of their kind was switched since"),
    ];
    lines
        .extend(left.iter().filter(|(number, _)| *number > 0).map(|(number, why)| format!("{number} {why}")));
    lines.join("\n")
}

/// The same for scripts.
pub(crate) fn undo_json(reply: &UndoReply) -> Value {
    let first = reply.first.iter().map(
        |item| json!({ "key": key_json(item.key.as_ref()), "fields": item.fields, "removed": item.removed }),
    );
    json!({
        "from_sequence": reply.from_sequence,
        "through_sequence": reply.through_sequence,
        "items": reply.items,
        "restored": reply.restored,
        "removed": reply.removed,
        "fields": reply.fields,
        "stands": reply.stands,
        "forgotten": reply.forgotten,
        "not_kept": reply.not_kept,
        "erased": reply.erased,
        "too_large": reply.too_large,
        "other_sharing": reply.other_sharing,
        "first": first.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mfpsync_proto::panel::Revision;

    #[test]
    fn a_line_says_when_what_which_who_and_where() {
        let change = Change {
            revision: Some(Revision { epoch: 1, sequence: 212 }),
            accepted_unix_millis: 1_000,
            actor: "sato".to_owned(),
            device_name: "copier-2".to_owned(),
            key: Some(ItemKey {
                scope: "shared".to_owned(),
                kind: "address.shared".to_owned(),
                id: "a1".to_owned(),
                ..ItemKey::default()
            }),
            event: Event::Changed.into(),
            fields: vec!["mail".to_owned()],
            lost_fields: vec!["mail".to_owned()],
            ..Change::default()
        };
        assert_eq!(
            text(&[change], false, 3_000),
            "     1:212  2 s ago       changed   shared address.shared a1 (mail); lost against it: mail  by sato \
             at copier-2"
        );
    }

    #[test]
    fn an_undo_says_what_it_cannot_do() {
        let reply = UndoReply { items: 1, fields: 2, stands: 1, not_kept: 3, ..UndoReply::default() };
        let text = undo_text(&reply, false);
        assert!(text.contains("nothing was written yet") && text.contains("1 field(s) stand"), "{text}");
        assert!(text.contains("3 item(s) cannot be undone") && !text.contains("erased"), "{text}");
    }
}
