//! Messages of the local API to and from the domain, validated once, here. The records API speaks
//! the same words.

use mfpsync_proto::local as wire;
use mfpsync_replication::merge::{SameField, rule};
use mfpsync_storage::local::{ItemState, LocalEdit, LocalItem};
use mfpsync_storage::model::{Action, DeviceId, Fields, ItemKey, Kind, Sealed, Value};
use tonic::Status;

use crate::own_data::Freshness;

/// Parses an item key.
pub(crate) fn key(key: Option<wire::ItemKey>) -> Result<ItemKey, Status> {
    let key = key.ok_or_else(|| Status::invalid_argument("the item key is missing"))?;
    ItemKey::parse(&key.scope, &key.kind, &key.device, &key.id)
        .map_err(|error| Status::invalid_argument(format!("item key: {error}")))
}

/// Parses an edit and checks what its kind allows.
pub(super) fn edit(edit: wire::Edit, own_id: DeviceId) -> Result<LocalEdit, Status> {
    let (key, action) = match edit.edit {
        Some(wire::edit::Edit::Put(put)) => (key(put.key)?, Action::Put(fields(put.fields)?)),
        Some(wire::edit::Edit::Patch(patch)) => {
            let set = fields(patch.set)?;
            let mut remove = patch.remove;
            remove.sort_unstable();
            remove.dedup();
            if remove.iter().any(|name| set.get(name).is_some()) {
                return Err(Status::invalid_argument("a field is both set and removed"));
            }
            (key(patch.key)?, Action::Patch { set, remove })
        }
        Some(wire::edit::Edit::Delete(delete)) => (key(delete.key)?, Action::Delete),
        None => return Err(Status::invalid_argument("an edit is neither put, patch nor delete")),
    };
    if !key.device.is_empty() && key != key.of_device(own_id) {
        return Err(Status::permission_denied(
            "the item is another device's own and is edited there; nothing was stored",
        ));
    }
    allowed(&key.kind, &action)?;
    Ok(LocalEdit { key, action })
}

fn allowed(kind: &Kind, action: &Action) -> Result<(), Status> {
    let rule = rule(kind);
    if rule.same_field == SameField::ServerOnly {
        return Err(Status::permission_denied(format!(
            "kind {} is changed at the server only",
            kind.as_str()
        )));
    }
    let sealed = match action {
        Action::Put(fields) | Action::Patch { set: fields, .. } => {
            fields.iter().all(|(_, value)| matches!(value, Value::Sealed(_)))
        }
        Action::Delete => true,
    };
    if rule.sealed_only && !sealed {
        return Err(Status::invalid_argument(format!(
            "values of kind {} must be sealed before they are stored; nothing was stored",
            kind.as_str()
        )));
    }
    Ok(())
}

fn fields(fields: Vec<wire::Field>) -> Result<Fields, Status> {
    let mut parsed = Fields::new();
    for field in fields {
        let value = field.value.and_then(|value| value.value);
        let value = value.ok_or_else(|| Status::invalid_argument("a field has no value"))?;
        if parsed.get(&field.name).is_some() {
            return Err(Status::invalid_argument("a field is named twice"));
        }
        parsed.insert(field.name, self::value(value)?);
    }
    // The canonical form checks names, order and sizes in one place.
    Fields::decode(&parsed.encode()).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn value(value: wire::value::Value) -> Result<Value, Status> {
    use wire::value::Value as Wire;
    Ok(match value {
        Wire::Text(text) => Value::Text(text),
        Wire::Integer(number) => Value::Integer(number),
        Wire::Flag(flag) => Value::Flag(flag),
        Wire::Bytes(bytes) => Value::Bytes(bytes.into()),
        Wire::Set(set) => Value::Set(set.texts.into_iter().collect()),
        Wire::Sealed(sealed) if sealed.r#box.is_empty() => {
            return Err(Status::invalid_argument(
                "a sealed value is written with its box; patch other fields",
            ));
        }
        Wire::Sealed(sealed) => {
            Value::Sealed(Sealed { key_id: sealed.key_id.into(), sealed: sealed.r#box.into() })
        }
        Wire::Opaque(opaque) => {
            Value::Opaque { type_number: opaque.r#type.into(), payload: opaque.payload.into() }
        }
    })
}

/// An item for an answer; secrets stay behind.
pub(crate) fn item(item: LocalItem) -> wire::Item {
    let fields = item.fields.iter().map(|(name, value)| wire::Field {
        name: name.to_owned(),
        value: Some(wire::Value { value: Some(shown(value)) }),
    });
    wire::Item {
        fields: fields.collect(),
        state: match item.state {
            ItemState::Synced => wire::ItemState::Synced,
            ItemState::Pending => wire::ItemState::Pending,
            ItemState::Own => wire::ItemState::Local,
        }
        .into(),
        key: Some(shown_key(&item.key)),
    }
}

/// A key for an answer.
pub(crate) fn shown_key(key: &ItemKey) -> wire::ItemKey {
    wire::ItemKey {
        scope: key.scope.as_str().to_owned(),
        kind: key.kind.as_str().to_owned(),
        device: key.device.clone(),
        id: key.id.clone(),
    }
}

/// A value for an answer: of a secret the key id alone.
pub(crate) fn shown(value: &Value) -> wire::value::Value {
    use wire::value::Value as Wire;
    match value {
        Value::Text(text) => Wire::Text(text.clone()),
        Value::Integer(number) => Wire::Integer(*number),
        Value::Flag(flag) => Wire::Flag(*flag),
        Value::Bytes(bytes) => Wire::Bytes(bytes.clone().into()),
        Value::Set(texts) => Wire::Set(wire::TextSet { texts: texts.iter().cloned().collect() }),
        Value::Sealed(sealed) => {
            Wire::Sealed(wire::Sealed { key_id: sealed.key_id.clone().into(), r#box: bytes::Bytes::new() })
        }
        Value::Opaque { type_number, payload } => Wire::Opaque(wire::Opaque {
            r#type: u32::try_from(*type_number).unwrap_or(u32::MAX),
            payload: payload.clone().into(),
        }),
    }
}

/// How current an answer is.
pub(super) fn freshness(freshness: Freshness) -> wire::Freshness {
    wire::Freshness {
        current: freshness.current,
        age_millis: freshness.age().map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
    }
}
