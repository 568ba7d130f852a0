//! Short ways to write item keys, fields and edits.

use mfpsync_proto::local::{Delete, Edit, Field, ItemKey, Opaque, Patch, Put, TextSet, Value};
use mfpsync_proto::local::{edit, value};

/// A key of a kind that all devices share.
#[must_use]
pub fn key(scope: &str, kind: &str, id: &str) -> ItemKey {
    ItemKey { scope: scope.into(), kind: kind.into(), device: String::new(), id: id.into() }
}

/// A field of any type.
#[must_use]
pub fn field(name: &str, value: value::Value) -> Field {
    Field { name: name.into(), value: Some(Value { value: Some(value) }) }
}

/// A text field.
#[must_use]
pub fn text(name: &str, text: &str) -> Field {
    field(name, value::Value::Text(text.into()))
}

/// A whole number.
#[must_use]
pub fn integer(name: &str, number: i64) -> Field {
    field(name, value::Value::Integer(number))
}

/// Yes or no.
#[must_use]
pub fn flag(name: &str, flag: bool) -> Field {
    field(name, value::Value::Flag(flag))
}

/// Bytes.
#[must_use]
pub fn bytes(name: &str, bytes: &[u8]) -> Field {
    field(name, value::Value::Bytes(bytes.to_vec().into()))
}

/// A set of texts.
#[must_use]
pub fn set(name: &str, texts: &[&str]) -> Field {
    let texts = texts.iter().map(|&text| text.to_owned()).collect();
    field(name, value::Value::Set(TextSet { texts }))
}

/// A value of a type only a newer firmware knows.
#[must_use]
pub fn opaque(name: &str, type_number: u32, payload: &[u8]) -> Field {
    field(name, value::Value::Opaque(Opaque { r#type: type_number, payload: payload.to_vec().into() }))
}

/// Replaces a whole item.
#[must_use]
pub fn put(key: ItemKey, fields: Vec<Field>) -> Edit {
    Edit { edit: Some(edit::Edit::Put(Put { key: Some(key), fields })) }
}

/// Sets some fields.
#[must_use]
pub fn patch(key: ItemKey, set: Vec<Field>) -> Edit {
    Edit { edit: Some(edit::Edit::Patch(Patch { key: Some(key), set, remove: Vec::new() })) }
}

/// Removes some fields.
#[must_use]
pub fn remove(key: ItemKey, names: &[&str]) -> Edit {
    let remove = names.iter().map(|&name| name.to_owned()).collect();
    Edit { edit: Some(edit::Edit::Patch(Patch { key: Some(key), set: Vec::new(), remove })) }
}

/// Deletes an item.
#[must_use]
pub fn delete(key: ItemKey) -> Edit {
    Edit { edit: Some(edit::Edit::Delete(Delete { key: Some(key) })) }
}
