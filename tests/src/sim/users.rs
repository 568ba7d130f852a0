//! People at the devices: they look at what their device shows and change it.

use std::collections::BTreeSet;

use mfpsync_storage::Error;
use mfpsync_storage::local::{EditContext, LocalEdit, OutboxLimits};
use mfpsync_storage::model::{Action, Fields, ItemKey, Operation, Sealed, Value};
use rand::RngExt;

use super::swarm::{Defect, pick};
use super::world::{Event, World};

/// Scope and kind; the empty scope stands for one of two users.
pub(super) const KINDS: [(&str, &str); 12] = [
    ("", "ui.language"),
    ("", "ui.accessibility"),
    ("", "ui.accessibility"),
    ("", "address.personal"),
    ("", "address.personal"),
    ("shared", "address.shared"),
    ("shared", "address.shared"),
    ("shared", "button.shared"),
    ("", "button.personal"),
    ("", "keychain"),
    ("", "vendor.x-finisher"),
    ("shared", "group.settings"),
];
const NAMES: [&str; 5] = ["name", "mail", "large", "tone", "note"];

impl World {
    /// Somebody makes an edit, of one item or of several together.
    pub(super) fn user_edits(&mut self, device: usize) {
        let several = if self.rng.random_bool(0.2) { self.rng.random_range(2..=4) } else { 1 };
        let mut keys: Vec<ItemKey> = Vec::new();
        for _ in 0..several {
            let key = self.some_key(device);
            if keys.iter().all(|other| !other.is_same_item(&key)) {
                keys.push(key);
            }
        }
        let edits: Vec<LocalEdit> =
            keys.into_iter().map(|key| LocalEdit { action: self.some_action(device, &key), key }).collect();
        if self.devices[device].full_until > self.now {
            return;
        }
        let context = EditContext {
            actor: format!("user-{device}@example.com"),
            now: self.wall_clock(self.devices[device].clock_error),
            limits: Some(OutboxLimits::default()),
        };
        match self.devices[device].db.write(|write| write.edit(edits, &context)) {
            Ok(None) => {}
            Ok(Some(number)) => {
                self.note(format_args!("device {device} makes operation {}", number.0));
                self.acknowledge_new(device, 1);
                self.check_device(device);
                if self.options.defect == Some(Defect::LosesAnEdit) && self.chance(100) {
                    self.lose_edit(device, number);
                }
                let boot = self.devices[device].boot;
                let wait = self.rng.random_range(0..50_000);
                self.schedule(wait, Event::EditSeen { device, boot });
            }
            Err(Error::OutboxFull { .. }) => {}
            Err(error) => self.violate("I-02", format_args!("an edit at {device} is refused: {error}")),
        }
    }

    /// The device has acknowledged its latest `count` operations to whoever made them.
    pub(super) fn acknowledge_new(&mut self, device: usize, count: u64) {
        let own = &self.devices[device];
        let (incarnation, records) =
            (own.incarnation, own.read(|read| read.outbox(usize::MAX >> 1, usize::MAX)));
        let new = records.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
        for (number, record) in records.into_iter().skip(new) {
            let operation = Operation::decode(&record).expect("an operation just made");
            if operation.edits.len() > 1 {
                self.counters.sometimes("operation of several edits");
            }
            if operation.edits.iter().any(|edit| edit.base.after.is_some()) {
                self.counters.sometimes("second edit of an item still waiting");
            }
            self.history.acknowledged(device, incarnation, number, record);
        }
    }

    fn some_key(&mut self, device: usize) -> ItemKey {
        let (scope, kind) = pick(&mut self.rng, &KINDS);
        let scope = if scope.is_empty() { pick(&mut self.rng, &["user/1", "user/2"]) } else { scope };
        // Either key names the item as this device has it.
        let of_device = self.rng.random_bool(0.1);
        let of_device = if of_device { self.devices[device].id.to_string() } else { String::new() };
        let id = format!("i{}", self.rng.random_range(0..self.swarm.ids));
        ItemKey::parse(scope, kind, &of_device, &id).expect("a key")
    }

    fn some_action(&mut self, device: usize, key: &ItemKey) -> Action {
        let shown = self.devices[device].read(|read| read.item(key)).map(|item| item.fields);
        let choice = self.rng.random_range(0..100);
        match shown {
            Some(_) if choice < 15 => Action::Delete,
            Some(shown) if choice < 55 => {
                let mut fields = shown;
                if self.rng.random_bool(0.3) {
                    fields.remove(pick(&mut self.rng, &NAMES));
                }
                self.some_fields(key).iter().for_each(|(name, value)| fields.insert(name, value.clone()));
                Action::Put(fields)
            }
            Some(_) => self.some_patch(key),
            None if choice < 15 => self.some_patch(key),
            None => Action::Put(self.some_fields(key)),
        }
    }

    fn some_patch(&mut self, key: &ItemKey) -> Action {
        let set = self.some_fields(key);
        let mut remove = BTreeSet::new();
        if self.rng.random_bool(0.3) {
            remove.insert(pick(&mut self.rng, &NAMES).to_owned());
        }
        if key.kind.as_str() == "address.personal" && self.rng.random_bool(0.2) {
            remove.insert("second.mail".to_owned());
        }
        remove.retain(|name| set.get(name).is_none());
        Action::Patch { set, remove: remove.into_iter().collect() }
    }

    fn some_fields(&mut self, key: &ItemKey) -> Fields {
        let mut fields = Fields::new();
        for _ in 0..self.rng.random_range(1..=3) {
            let value = self.some_value(key.kind.as_str());
            fields.insert(pick(&mut self.rng, &NAMES), value);
        }
        fields
    }

    fn some_value(&mut self, kind: &str) -> Value {
        // Few values often, so that the same change is made twice; any otherwise.
        let number = if self.rng.random_bool(0.3) { self.rng.random_range(0..2) } else { self.rng.random() };
        match kind {
            "keychain" if self.rng.random_bool(0.8) => {
                Value::Sealed(Sealed { key_id: vec![1], sealed: u32::to_be_bytes(number).to_vec() })
            }
            "ui.accessibility" if self.rng.random_bool(0.7) => Value::Flag(self.rng.random()),
            "vendor.x-finisher" => match self.rng.random_range(0..4) {
                0 => Value::Integer(i64::from(number)),
                1 => Value::Set([format!("{number}")].into()),
                _ => Value::Opaque { type_number: 77, payload: u32::to_be_bytes(number).to_vec() },
            },
            _ => Value::Text(format!("{number}@example.com")),
        }
    }
}
