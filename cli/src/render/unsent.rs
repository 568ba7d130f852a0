//! Edits that the group never got, for people and for scripts. Pure.

use mfpsync_proto::records::{UnsentChange, UnsentItem};
use serde_json::{Value, json};

use super::items;
use super::units::count;
use crate::output::printable;

const FORMAT: &str = "mfpsync-unsent";
const VERSION: u64 = 1;

/// One line for each item, then their number.
pub(crate) fn text(items: &[UnsentItem]) -> String {
    if items.is_empty() {
        return "nothing is unsent".to_owned();
    }
    let mut lines: Vec<String> = items.iter().map(line).collect();
    lines.push(format!("{} with edits that the group never got", count(items.len() as u64, "item", "items")));
    lines.join("\n")
}

fn line(item: &UnsentItem) -> String {
    let key = item.key.clone().unwrap_or_default();
    let device = if key.device.is_empty() { String::new() } else { format!(" on {}", key.device) };
    let fields = if item.fields.is_empty() { String::new() } else { format!(": {}", item.fields.join(", ")) };
    let line = format!("{:<8} {} {} {}{device}{fields}", change(item), key.scope, key.kind, key.id);
    printable(&line).into_owned()
}

fn change(item: &UnsentItem) -> &'static str {
    match item.change() {
        UnsentChange::Unspecified => "unknown",
        UnsentChange::Added => "added",
        UnsentChange::Changed => "changed",
        UnsentChange::Deleted => "deleted",
    }
}

/// The list for scripts, without values.
pub(crate) fn json(items: &[UnsentItem]) -> Value {
    json!({ "items": items.iter().map(described).collect::<Vec<_>>() })
}

/// The content of an export: the list, each item with its values.
pub(crate) fn document(items: &[UnsentItem]) -> Value {
    let whole = |item: &UnsentItem| {
        let mut whole = described(item);
        if let Some(values) = &item.item {
            whole["values"] = items::json(values)["fields"].take();
        }
        whole
    };
    json!({ "format": FORMAT, "version": VERSION, "items": items.iter().map(whole).collect::<Vec<_>>() })
}

fn described(item: &UnsentItem) -> Value {
    let key = item.key.clone().unwrap_or_default();
    json!({
        "scope": key.scope,
        "kind": key.kind,
        "device": key.device,
        "item_id": key.id,
        "change": change(item),
        "fields": item.fields,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mfpsync_proto::local::value::Value as Kind;
    use mfpsync_proto::local::{Field, Item, ItemKey, Value as FieldValue};

    fn changed() -> UnsentItem {
        let key = ItemKey {
            scope: "shared".to_owned(),
            kind: "address.shared".to_owned(),
            device: String::new(),
            id: "a1".to_owned(),
        };
        let value = Some(FieldValue { value: Some(Kind::Text("a@example.com".to_owned())) });
        let fields = vec![Field { name: "mail".to_owned(), value }];
        UnsentItem {
            key: Some(key.clone()),
            change: UnsentChange::Changed.into(),
            fields: vec!["mail".to_owned()],
            item: Some(Item { key: Some(key), fields, ..Item::default() }),
        }
    }

    #[test]
    fn a_list_names_items_and_fields_but_no_values() {
        assert_eq!(
            text(&[changed()]),
            "changed  shared address.shared a1: mail\n1 item with edits that the group never got"
        );
        assert!(!json(&[changed()]).to_string().contains("example.com"));
        assert_eq!(text(&[]), "nothing is unsent");
    }

    #[test]
    fn an_export_holds_the_values() {
        let document = document(&[changed()]);
        assert_eq!(document["items"][0]["values"]["mail"], "a@example.com", "{document}");
    }
}
