//! Items, events and how fresh they are. Pure.

use std::collections::BTreeMap;

use mfpsync_proto::local::watch_event::Event;
use mfpsync_proto::local::{Freshness, Item, ItemKey, ItemState, WatchEvent};
use serde_json::{Value, json};

use super::units::{count, span};
use crate::output::printable;
use crate::value;

/// One item with a line per field.
pub(crate) fn text(item: &Item) -> String {
    let mut lines = vec![format!("{}{}", key_text(item.key.as_ref()), state_mark(item.state()))];
    lines.extend(
        item.fields.iter().map(|field| {
            format!("    {} = {}", printable(&field.name), value::to_text(field.value.as_ref()))
        }),
    );
    lines.join("\n")
}

/// Items under a heading per kind, as a panel shows them.
pub(crate) fn by_kind(items: &[Item]) -> String {
    let mut kinds: BTreeMap<&str, Vec<&Item>> = BTreeMap::new();
    for item in items {
        kinds.entry(item.key.as_ref().map_or("", |key| &key.kind)).or_default().push(item);
    }
    let heading = |(kind, items): (&str, Vec<&Item>)| {
        let mut lines = vec![format!("{} ({})", printable(kind), items.len())];
        lines.extend(items.into_iter().map(short));
        lines.join("\n")
    };
    let mut text: Vec<String> = kinds.into_iter().map(heading).collect();
    text.push(count(items.len() as u64, "item", "items"));
    text.join("\n\n")
}

/// One line an item, below a heading that names its kind.
fn short(item: &Item) -> String {
    let key = item.key.clone().unwrap_or_default();
    let device = if key.device.is_empty() { String::new() } else { format!(" on {}", key.device) };
    let name = format!("{}{device}", key.id);
    format!("    {}{}: {}", printable(&name), state_mark(item.state()), fields_line(item))
}

fn fields_line(item: &Item) -> String {
    let field = |field: &mfpsync_proto::local::Field| {
        format!("{}={}", printable(&field.name), value::to_text(field.value.as_ref()))
    };
    item.fields.iter().map(field).collect::<Vec<_>>().join(", ")
}

fn key_text(key: Option<&ItemKey>) -> String {
    let Some(key) = key else { return "(no key)".to_owned() };
    let device = if key.device.is_empty() { String::new() } else { format!(" on {}", key.device) };
    printable(&format!("{} {} {}{device}", key.scope, key.kind, key.id)).into_owned()
}

/// Only what is not yet agreed is worth a word.
fn state_mark(state: ItemState) -> &'static str {
    match state {
        ItemState::Unspecified | ItemState::Synced => "",
        ItemState::Pending => " [on its way]",
        ItemState::Local => " [this device only]",
    }
}

fn state_name(state: ItemState) -> &'static str {
    match state {
        ItemState::Unspecified => "unknown",
        ItemState::Synced => "synced",
        ItemState::Pending => "pending",
        ItemState::Local => "local",
    }
}

/// How current an answer is, as a sentence.
pub(crate) fn freshness_text(freshness: Option<&Freshness>) -> String {
    match freshness {
        Some(Freshness { current: true, .. }) => "current".to_owned(),
        Some(Freshness { age_millis: Some(millis), .. }) => {
            format!("as of {} ago: the server is not reached now", span(*millis))
        }
        Some(Freshness { age_millis: None, .. }) | None => "this device's own data".to_owned(),
    }
}

/// How current an answer is, for scripts.
pub(crate) fn freshness_json(freshness: Option<&Freshness>) -> Value {
    freshness.map_or(Value::Null, |fresh| json!({ "current": fresh.current, "age_millis": fresh.age_millis }))
}

/// One item for scripts.
pub(crate) fn json(item: &Item) -> Value {
    let fields: serde_json::Map<String, Value> =
        item.fields.iter().map(|field| (field.name.clone(), value::to_json(field.value.as_ref()))).collect();
    json!({ "key": key_json(item.key.as_ref()), "fields": fields, "state": state_name(item.state()) })
}

fn key_json(key: Option<&ItemKey>) -> Value {
    key.map_or(
        Value::Null,
        |key| json!({ "scope": key.scope, "kind": key.kind, "device": key.device, "id": key.id }),
    )
}

/// One event as a line and as JSON.
pub(crate) fn event(event: &WatchEvent) -> (String, Value) {
    match &event.event {
        Some(Event::Changed(item)) => (
            format!(
                "changed {}{}: {}",
                key_text(item.key.as_ref()),
                state_mark(item.state()),
                fields_line(item)
            ),
            json!({ "event": "changed", "item": json(item) }),
        ),
        Some(Event::Deleted(key)) => (
            format!("deleted {}", key_text(Some(key))),
            json!({ "event": "deleted", "key": key_json(Some(key)) }),
        ),
        Some(Event::Missed(_)) => (
            "missed  events were lost because this watcher read too slowly: list again".to_owned(),
            json!({ "event": "missed" }),
        ),
        Some(Event::Started(_)) => {
            ("started what is written from now on is shown".to_owned(), json!({ "event": "started" }))
        }
        None => ("unknown an event this version does not know".to_owned(), json!({ "event": "unknown" })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mfpsync_proto::local::{Missed, Started};

    fn item(kind: &str, id: &str, state: ItemState) -> Item {
        let key = ItemKey {
            scope: "user/alice".to_owned(),
            kind: kind.to_owned(),
            id: id.to_owned(),
            ..ItemKey::default()
        };
        let fields = vec![value::field("name=Alice \u{7}").unwrap(), value::field("big:=true").unwrap()];
        Item { key: Some(key), fields, state: state.into() }
    }

    #[test]
    fn an_item_lists_its_fields_and_says_when_it_is_on_its_way() {
        assert_eq!(
            text(&item("ui.language", "1", ItemState::Pending)),
            "user/alice ui.language 1 [on its way]\n    name = Alice \\u{7}\n    big = yes"
        );
    }

    #[test]
    fn items_are_grouped_by_kind() {
        let items = [
            item("ui.language", "1", ItemState::Synced),
            item("address.personal", "2", ItemState::Local),
            item("address.personal", "3", ItemState::Synced),
        ];
        assert_eq!(
            by_kind(&items),
            "address.personal (2)\n    2 [this device only]: name=Alice \\u{7}, big=yes\n    \
             3: name=Alice \\u{7}, big=yes\n\nui.language (1)\n    1: name=Alice \\u{7}, big=yes\n\n3 items"
        );
    }

    #[test]
    fn every_event_has_a_line_and_an_object() {
        let events = [
            (Event::Changed(item("k", "1", ItemState::Synced)), "changed"),
            (Event::Deleted(ItemKey::default()), "deleted"),
            (Event::Missed(Missed {}), "missed"),
            (Event::Started(Started {}), "started"),
        ];
        for (kind, name) in events {
            let (line, json) = event(&WatchEvent { event: Some(kind) });
            assert!(line.starts_with(name), "{line}");
            assert_eq!(json["event"], name);
        }
    }

    #[test]
    fn freshness_is_a_sentence() {
        let fresh = |current, age_millis| freshness_text(Some(&Freshness { current, age_millis }));
        assert_eq!(fresh(true, Some(0)), "current");
        assert!(fresh(false, Some(5_000)).starts_with("as of 5 s ago"));
        assert_eq!(fresh(false, None), "this device's own data");
    }
}
