//! An address-book entry as an item's fields, and back. Pure.

use std::collections::BTreeMap;

use mfpsync_addressbook::{Entry, Value};
use mfpsync_proto::local::value::Value as Kind;
use mfpsync_proto::local::{Field, Item, TextSet, Value as WireValue};

/// The fields an entry is stored with.
pub(crate) fn fields(entry: &Entry) -> Vec<Field> {
    let field = |(name, value): (&String, &Value)| Field {
        name: name.clone(),
        value: Some(WireValue { value: Some(kind(value)) }),
    };
    entry.fields.iter().map(field).collect()
}

fn kind(value: &Value) -> Kind {
    match value {
        Value::Text(text) => Kind::Text(text.clone()),
        Value::Set(texts) => Kind::Set(TextSet { texts: texts.iter().cloned().collect() }),
    }
}

/// The entry an item holds; fields that no file can carry (secrets, flags, unknown types) are not in it.
pub(crate) fn entry(item: &Item) -> Entry {
    let id = item.key.as_ref().map_or_else(String::new, |key| key.id.clone());
    let fields: BTreeMap<String, Value> =
        item.fields.iter().filter_map(|field| Some((field.name.clone(), carried(field)?))).collect();
    Entry { id, fields }
}

fn carried(field: &Field) -> Option<Value> {
    match field.value.as_ref()?.value.as_ref()? {
        Kind::Text(text) => Some(Value::Text(text.clone())),
        Kind::Set(set) => Some(Value::Set(set.texts.iter().cloned().collect())),
        Kind::Integer(_) | Kind::Flag(_) | Kind::Bytes(_) | Kind::Sealed(_) | Kind::Opaque(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mfpsync_proto::local::ItemKey;

    #[test]
    fn an_entry_survives_being_an_item() {
        let members = ["b", "a"].map(str::to_owned).into();
        let original = Entry {
            id: "e1".to_owned(),
            fields: [
                ("name".to_owned(), Value::Text("All".to_owned())),
                ("members".to_owned(), Value::Set(members)),
            ]
            .into(),
        };
        let mut item = Item {
            key: Some(ItemKey { id: "e1".to_owned(), ..ItemKey::default() }),
            fields: fields(&original),
            ..Item::default()
        };
        item.fields.push(crate::value::field("pinned:=true").unwrap());
        assert_eq!(entry(&item), original);
    }
}
