//! Who is who: own address entries and the group's that stand for one destination under different ids,
//! and references to them.
//!
//! An id that both sides know decides. Among the rest, entries of one scope and kind with the same
//! [natural key](NaturalKey) are paired, each once, in the order of their keys: a list that holds a
//! destination twice keeps it twice.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use mfpsync_addressbook::{NaturalKey, field};
use mfpsync_storage::Result;
use mfpsync_storage::local::LocalRead;
use mfpsync_storage::model::{Fields, ItemKey, Kind, Scope, Sharing, Value};

/// Kinds whose items have a destination.
const ADDRESSES: &str = "address.";

/// The group's names for the own items.
#[derive(Debug, Default)]
pub(super) struct Names {
    targets: HashMap<ItemKey, ItemKey>,
    /// Own ids that the group knows by another, by scope.
    renamed: HashMap<Scope, HashMap<String, String>>,
}

impl Names {
    /// Pairs the own items, in the order of their keys, with the group's.
    pub(super) fn given(read: &LocalRead<'_>, own: &[ItemKey]) -> Result<Self> {
        let mut names = Self::default();
        let mut places: BTreeMap<(&Scope, &Kind), Vec<&ItemKey>> = BTreeMap::new();
        for key in own.iter().filter(|key| key.kind.as_str().starts_with(ADDRESSES)) {
            places.entry((&key.scope, &key.kind)).or_default().push(key);
        }
        for ((scope, kind), keys) in places {
            names.pair(read, scope, kind, &keys)?;
        }
        Ok(names)
    }

    fn pair(&mut self, read: &LocalRead<'_>, scope: &Scope, kind: &Kind, own: &[&ItemKey]) -> Result<()> {
        let own_keys: BTreeSet<&ItemKey> = own.iter().copied().collect();
        let mut met_by_id = BTreeSet::new();
        let is_own = read.sharing(kind)? == Sharing::DeviceSpecific;
        let own_id = read.own_id()?;
        let mut free: BTreeMap<(String, NaturalKey), VecDeque<ItemKey>> = BTreeMap::new();
        for (key, fields) in read.mirror_items(scope, kind)? {
            // Of a device-specific kind an earlier life of this device may have left items.
            let key = match is_own {
                true if key.device == own_id => key.shared(),
                true => continue,
                false => key,
            };
            if own_keys.contains(&key) {
                met_by_id.insert(key);
            } else if let Some(natural) = natural_key(&fields) {
                free.entry((key.device.clone(), natural)).or_default().push_back(key);
            }
        }
        if free.is_empty() {
            return Ok(());
        }
        for key in own.iter().filter(|key| !met_by_id.contains(**key)) {
            let natural = read.item(key)?.and_then(|item| natural_key(&item.fields));
            let meets = natural.and_then(|natural| free.get_mut(&(key.device.clone(), natural))?.pop_front());
            if let Some(target) = meets {
                self.renamed.entry(scope.clone()).or_default().insert(key.id.clone(), target.id.clone());
                self.targets.insert((*key).clone(), target);
            }
        }
        Ok(())
    }

    /// The group's item that an own one meets, or would become, as if its kind were shared.
    pub(super) fn target(&self, own: &ItemKey) -> ItemKey {
        self.targets.get(own).unwrap_or(own).clone()
    }

    /// An own item's fields, its members under the names the group has for them.
    pub(super) fn renamed(&self, own: &ItemKey, mut fields: Fields) -> Fields {
        let Some(renamed) = self.renamed.get(&own.scope) else { return fields };
        if let Some(Value::Set(members)) = fields.get(field::MEMBERS) {
            let named = members.iter().map(|id| renamed.get(id).unwrap_or(id).clone()).collect();
            fields.insert(field::MEMBERS, Value::Set(named));
        }
        fields
    }
}

fn natural_key(fields: &Fields) -> Option<NaturalKey> {
    NaturalKey::of(|name| match fields.get(name) {
        Some(Value::Text(text)) => Some(text.as_str()),
        Some(_) | None => None,
    })
}
