//! What readers at a device see, in a form two devices can be compared by.
//!
//! An independent check: it asks the local API item by item, where [`crate::Hashes`] asks the
//! daemon for sums.

use std::collections::BTreeMap;

use mfpsync_proto::local::{Field, Item, ItemKey, value};

/// The visible items of some scopes: key to fields.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Contents(BTreeMap<[String; 4], BTreeMap<String, value::Value>>);

impl Contents {
    pub(crate) fn add(&mut self, item: Item) {
        let key = item.key.unwrap_or_default();
        self.0.insert(address(&key), fields(item.fields));
    }

    /// How many items there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields of one item.
    #[must_use]
    pub fn item(&self, key: &ItemKey) -> Option<&BTreeMap<String, value::Value>> {
        self.0.get(&address(key))
    }

    /// One text field of one item.
    #[must_use]
    pub fn text(&self, key: &ItemKey, name: &str) -> Option<&str> {
        match self.item(key)?.get(name)? {
            value::Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Every item with its fields, in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&[String; 4], &BTreeMap<String, value::Value>)> {
        self.0.iter()
    }
}

fn address(key: &ItemKey) -> [String; 4] {
    [key.scope.clone(), key.kind.clone(), key.device.clone(), key.id.clone()]
}

/// Fields by name; sets in order, because theirs carries no meaning.
#[must_use]
pub fn fields(fields: Vec<Field>) -> BTreeMap<String, value::Value> {
    let named = |field: Field| {
        let value = field.value.and_then(|value| value.value)?;
        Some((field.name, ordered(value)))
    };
    fields.into_iter().filter_map(named).collect()
}

fn ordered(value: value::Value) -> value::Value {
    match value {
        value::Value::Set(mut set) => {
            set.texts.sort_unstable();
            value::Value::Set(set)
        }
        other => other,
    }
}
