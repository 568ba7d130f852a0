//! An operator who switches the sharing of kinds at any moment: in the product, and said a second time
//! in the model.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use mfpsync_replication::operator::Operator;
use mfpsync_replication::sharing::{Begun, Choice, Order, Start, Step, Target, begin, plan, step};
use mfpsync_storage::model::{Action, EditOutcome, ItemKey, Kind, Operation, Outcome, Scope, Sharing};
use rand::RngExt;

use super::history::{Decision, Done};
use super::house::device_id;
use super::model::{FieldMap, Item, Key, Model, Val};
use super::swarm::pick;
use super::translate;
use super::users::KINDS;
use super::world::World;

const SCOPES: [&str; 3] = ["shared", "user/1", "user/2"];
/// Writes of a switch that share one sequence.
const TOGETHER: usize = 100;

/// Most values that a step of a switch moves: some steps for a kind, sometimes one.
const VALUES: usize = 40;

/// Which values a switch takes, in the model's words.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Values {
    Seen,
    OwnBefore,
    Newest,
    Of(String),
    GroupsBefore,
}

impl Values {
    fn of(to: Target) -> Self {
        match to {
            Target::DeviceSpecific(Start::Seen) => Self::Seen,
            Target::DeviceSpecific(Start::Before) => Self::OwnBefore,
            Target::Shared(Choice::Newest) => Self::Newest,
            Target::Shared(Choice::Before) => Self::GroupsBefore,
            Target::Shared(Choice::Of(of)) => Self::Of(of.to_string()),
        }
    }

    fn to_own(&self) -> bool {
        matches!(self, Self::Seen | Self::OwnBefore)
    }
}

/// A switch that is under way, as the model has it: items up to here, by scope and id, have moved.
#[derive(Debug, Clone)]
pub(super) struct Moving {
    kind: String,
    values: Values,
    through: Option<(String, String)>,
}

pub(super) fn parsed([scope, kind, device, id]: &Key) -> ItemKey {
    ItemKey::parse(scope, kind, device, id).expect("a key")
}

impl World {
    /// Somebody switches a kind the other way, or the switch that is under way goes on.
    pub(super) fn shares(&mut self, device: usize) {
        let Some(house) = self.present_server() else { return };
        if self.houses[house].full_until > self.now || self.carries_on(house) {
            return;
        }
        let (_, mut name) = pick(&mut self.rng, &KINDS);
        let own: Vec<&str> = KINDS
            .iter()
            .map(|(_, name)| *name)
            .filter(|name| self.houses[house].line.model.own_kinds.contains(*name))
            .collect();
        if !own.is_empty() && self.rng.random_bool(0.5) {
            name = pick(&mut self.rng, &own);
        }
        let choice = self.rng.random_range(0..4);
        let kind = Kind::parse(name).expect("a kind");
        if !mfpsync_replication::sharing::can_switch(&kind) {
            return;
        }
        let now = self.houses[house].read(|read| read.sharing(&kind)).sharing;
        let of = self.devices[device].id;
        let to = match (now, choice) {
            (Sharing::Shared, 0 | 1) => Target::DeviceSpecific(Start::Seen),
            (Sharing::Shared, _) => Target::DeviceSpecific(Start::Before),
            (Sharing::DeviceSpecific, 0) => Target::Shared(Choice::Newest),
            (Sharing::DeviceSpecific, 1) => Target::Shared(Choice::Before),
            (Sharing::DeviceSpecific, _) => Target::Shared(Choice::Of(of)),
        };
        self.note(format_args!("{name} is switched: {to:?}"));
        let order = Order { kind, to };
        let plan = self.houses[house].read(|read| plan(read, &order, true)).expect("not so already");
        let values = self.rng.random_range(1..=VALUES);
        let operator = self.operator(house);
        let begun =
            self.commit(house, Vec::new(), |write| Ok(begin(write, &operator, &order, &plan, true, values)));
        match begun {
            Ok(Begun::NothingChosen) => {
                let has_some = self.houses[house].line.model.has_own(name, &of.to_string());
                self.require(!has_some, "I-05", format_args!("a device's items of {name} were not found"));
            }
            Ok(Begun::Stepped(step)) => {
                self.counters.sometimes(match now {
                    Sharing::Shared => "kind became device-specific",
                    Sharing::DeviceSpecific => "kind became shared",
                });
                self.houses[house].line().model.moving =
                    Some(Moving { kind: name.to_owned(), values: Values::of(to), through: None });
                self.has_stepped(house, &step, operator.now);
            }
            other => self.violate("I-05", format_args!("a switch began with {other:?}")),
        }
    }

    /// One step of the switch that is under way; false when there is none.
    pub(super) fn carries_on(&mut self, house: usize) -> bool {
        let values = self.rng.random_range(1..=VALUES);
        let operator = self.operator(house);
        let stepped = self.commit(house, Vec::new(), |write| Ok(step(write, &operator, values)));
        let expected = self.houses[house].line.model.moving.is_some();
        match stepped {
            Ok(Some(step)) if expected => {
                self.counters.sometimes("switch went on after other things");
                self.has_stepped(house, &step, operator.now);
                true
            }
            Ok(None) if !expected => false,
            other => {
                self.violate("I-05", format_args!("a step of a switch ended with {other:?}"));
                false
            }
        }
    }

    fn operator(&self, house: usize) -> Operator {
        let now = self.wall_clock(self.houses[house].clock_error);
        Operator { server: device_id(house), actor: "operator".to_owned(), now, keep_values: true }
    }

    fn has_stepped(&mut self, house: usize, step: &Step, at: u64) {
        let (name, before) = (step.switching.kind.as_str().to_owned(), self.houses[house].line.model.head);
        let members = self.houses[house].read(|read| read.members());
        let members: BTreeSet<String> = members
            .into_iter()
            .filter(|member| !member.record.released)
            .map(|member| member.record.device.to_string())
            .collect();
        let place = &step.switching.through;
        let through = (!step.ended).then(|| (place.scope.as_str().to_owned(), place.id.clone()));
        let head = self.houses[house].head().sequence.0;
        let line = self.houses[house].line();
        line.model.moves(through, &members, at);
        let modelled = line.model.head;
        line.switches.extend(before + 1..=head);
        line.order.push(Rc::new(Done::Switched(name)));
        self.require(
            modelled == head,
            "I-05",
            format_args!("a step of a switch ended at {head}, expected {modelled}"),
        );
        self.committed(house);
    }

    /// Where the edits of an operation go, as the model says.
    pub(super) fn places(&mut self, house: usize, device: usize, record: &[u8]) -> Vec<Option<Key>> {
        let operation = Operation::decode(record).expect("an acknowledged operation");
        let of = self.devices[device].id.to_string();
        let mut places = Vec::new();
        for edit in &operation.edits {
            let (asked, place) = (
                translate::key(&edit.key),
                self.houses[house].line.model.place(&of, &translate::key(&edit.key)),
            );
            match &place {
                None => self.counters.sometimes("edit of an own item was set aside"),
                Some(key) if *key != asked => {
                    self.counters.sometimes("edit of a shared item went to its author's own");
                }
                Some(_) => {}
            }
            places.push(place);
        }
        places
    }

    /// A device shows what all share and what is its own, and nothing of others.
    pub(super) fn shows_what_is_its_own(&self, device: usize) -> bool {
        let own = &self.devices[device];
        let of = own.id.to_string();
        SCOPES.into_iter().map(|scope| Scope::parse(scope).expect("a scope")).all(|scope| {
            let due: BTreeMap<ItemKey, FieldMap> = self.last_server().read(|read| {
                let mut due = BTreeMap::new();
                for key in read.scope_items(&scope)? {
                    let item = read.item(&key)?.filter(|item| !item.deleted);
                    if let Some(item) = item.filter(|_| key.device.is_empty() || key.device == of) {
                        due.insert(key, translate::fields(&item.fields));
                    }
                }
                Ok(due)
            });
            let shown = own.read(|read| read.items(&scope, None, None, u32::MAX));
            let shown: BTreeMap<ItemKey, FieldMap> =
                shown.into_iter().map(|item| (item.key, translate::fields(&item.fields))).collect();
            shown == due
        })
    }

    /// Of kinds that were switched: every value that was taken is in an item, whosever, or in the
    /// history of one.
    pub(super) fn check_kept(&self) -> Vec<(&'static str, String)> {
        let line = self.last_line();
        let switched: BTreeSet<&str> = line
            .order
            .iter()
            .filter_map(|done| match &**done {
                Done::Switched(kind) => Some(kind.as_str()),
                Done::Decided(_) => None,
            })
            .filter(|kind| *kind != "keychain")
            .collect();
        let mut known: BTreeMap<Key, BTreeSet<(String, String)>> = BTreeMap::new();
        let mut faults = Vec::new();
        for (id, decision) in &line.decisions {
            let Decision { record, outcome, places } = &**decision;
            let Outcome::Accepted { edits, .. } = outcome else { continue };
            let operation = Operation::decode(record).expect("an acknowledged operation");
            for ((edit, outcome), place) in operation.edits.iter().zip(edits).zip(places) {
                let refused: &[String] = match outcome {
                    EditOutcome::Superseded { fields, .. } if fields.is_empty() => continue,
                    EditOutcome::Superseded { fields, .. } => fields,
                    _ => &[],
                };
                let (Some(key), true) = (place, switched.contains(edit.key.kind.as_str())) else { continue };
                // The history of what was deleted and forgotten is out of the undo window.
                if line.model.forgotten.contains(key) {
                    continue;
                }
                let (Action::Put(set) | Action::Patch { set, .. }) = &edit.action else { continue };
                let held = known.entry(key.clone()).or_insert_with(|| self.ever_held(key));
                for (name, value) in translate::fields(set) {
                    let there = refused.contains(&name) || held.contains(&(name.clone(), text(&value)));
                    if !there {
                        faults.push(("I-02", format!("field {name} of operation {} vanished", id.1)));
                    }
                }
            }
        }
        faults
    }

    fn ever_held(&self, key: &Key) -> BTreeSet<(String, String)> {
        let parsed = parsed(key);
        let (item, history) =
            self.last_server().read(|read| Ok((read.item(&parsed)?, read.history(&parsed, u32::MAX)?)));
        let before = history.iter().filter_map(|entry| entry.before.fields());
        let lost = history.iter().filter_map(|entry| entry.lost.as_ref());
        let all = item.iter().map(|item| &item.fields).chain(before).chain(lost);
        all.flat_map(|fields| translate::fields(fields).into_iter().map(|(name, value)| (name, text(&value))))
            .collect()
    }
}

fn text(value: &Val) -> String {
    format!("{value:?}")
}

impl Model {
    /// Whether each device has its own of an item: as its kind, or as a switch has left it so far.
    pub(super) fn is_own(&self, [scope, kind, _, id]: &Key) -> bool {
        let moving = self.moving.as_ref().filter(|moving| moving.kind == *kind);
        let place = Some((scope.clone(), id.clone()));
        match moving.filter(|moving| place <= moving.through) {
            Some(moving) => moving.values.to_own(),
            None => self.own_kinds.contains(kind),
        }
    }

    /// Says what a step of a switch does: it moves the items up to a place, by scope and id; without one
    /// it moves all the rest and changes the setting.
    fn moves(&mut self, through: Option<(String, String)>, members: &BTreeSet<String>, at: u64) {
        let Some(Moving { kind, values, through: after }) = self.moving.take() else { return };
        let places = self.items.keys().filter(|key| key[1] == kind);
        let places: BTreeSet<(String, String)> = places
            .map(|key| (key[0].clone(), key[3].clone()))
            .filter(|place| after.as_ref().is_none_or(|after| place > after))
            .filter(|place| through.as_ref().is_none_or(|through| place <= through))
            .collect();
        let mut writes: Vec<Option<(Key, Option<Item>)>> = Vec::new();
        for (scope, id) in places {
            let key = |device: &str| [scope.clone(), kind.clone(), device.to_owned(), id.clone()];
            let moved = if values.to_own() {
                self.apart(key, values == Values::OwnBefore, members)
            } else {
                self.together(key, &values)
            };
            writes.extend(moved.into_iter().map(Some));
        }
        if through.is_none() {
            writes.push(None);
        }
        for together in writes.chunks(TOGETHER) {
            self.head += 1;
            self.authors.insert(self.head, 0);
            for write in together {
                match write {
                    Some((key, value)) => self.put(key, value.clone(), self.head),
                    None => self.set_sharing(&kind, values.to_own(), at),
                }
            }
        }
        self.moving = through.map(|through| Moving { kind, values, through: Some(through) });
    }

    fn set_sharing(&mut self, kind: &str, to_own: bool, at: u64) {
        let word = if to_own { "device-specific" } else { "shared" };
        let fields = FieldMap::from([
            ("sharing".to_owned(), Val::Other(format!("text {word}"))),
            ("at".to_owned(), Val::Other(format!("integer {at}"))),
        ]);
        let key = ["shared", "group.sharing", "", kind].map(str::to_owned);
        self.items.insert(key, Item { fields, sequence: self.head, ..Item::default() });
        if to_own {
            self.own_kinds.insert(kind.to_owned())
        } else {
            self.own_kinds.remove(kind)
        };
    }

    /// A value moves with the stamps of its fields; what goes keeps them.
    fn put(&mut self, key: &Key, value: Option<Item>, sequence: u64) {
        let secret = key[1] == "keychain";
        let item = self.items.entry(key.clone()).or_default();
        match value {
            Some(value) => {
                *item = Item { fields: value.fields, stamps: value.stamps, ..Item::default() };
            }
            None => {
                item.before = std::mem::take(&mut item.fields);
                item.taken = (!secret).then(|| item.before.clone());
                item.deleted = true;
            }
        }
        (item.sequence, item.switched) = (sequence, true);
    }

    fn has_own(&self, kind: &str, device: &str) -> bool {
        self.items.iter().any(|(key, item)| key[1] == kind && key[2] == device && !item.deleted)
    }

    fn living(&self, key: &Key) -> Option<&Item> {
        self.items.get(key).filter(|item| !item.deleted)
    }

    /// All devices that are known to have, or have had, the item for themselves.
    fn owners(&self, of: &Key) -> BTreeSet<String> {
        let same = |key: &&Key| key[0] == of[0] && key[1] == of[1] && key[3] == of[3] && !key[2].is_empty();
        self.items.keys().filter(same).map(|key| key[2].clone()).collect()
    }

    fn apart(
        &self,
        key: impl Fn(&str) -> Key,
        own_before: bool,
        members: &BTreeSet<String>,
    ) -> Vec<(Key, Option<Item>)> {
        let shared = self.living(&key(""));
        let deleted_since = self.items.get(&key("")).is_some_and(|item| item.deleted && item.taken.is_none());
        let mut writes = Vec::new();
        for device in members | &self.owners(&key("")) {
            let own = self.items.get(&key(&device));
            if own.is_some_and(|item| !item.deleted) {
                continue;
            }
            let had = own.and_then(|item| {
                Some(Item { fields: item.taken.clone()?, stamps: item.stamps.clone(), ..Item::default() })
            });
            let back = had.filter(|_| own_before && !deleted_since);
            let copy = shared.filter(|_| members.contains(&device)).cloned();
            if let Some(value) = back.or(copy) {
                writes.push((key(&device), Some(value)));
            }
        }
        writes.extend(shared.map(|_| (key(""), None)));
        writes
    }

    fn together(&self, key: impl Fn(&str) -> Key, values: &Values) -> Vec<(Key, Option<Item>)> {
        let owners: Vec<String> =
            self.owners(&key("")).into_iter().filter(|of| self.living(&key(of)).is_some()).collect();
        let mut newest: Option<&Item> = None;
        for item in owners.iter().filter_map(|of| self.living(&key(of))) {
            let rank = |item: &Item| (item.stamps.values().max().copied().unwrap_or(0), item.sequence);
            if newest.is_none_or(|best| rank(item) > rank(best)) {
                newest = Some(item);
            }
        }
        let groups = self.items.get(&key("")).filter(|item| item.deleted && !owners.is_empty());
        let groups = groups.and_then(|item| {
            Some(Item { fields: item.taken.clone()?, stamps: item.stamps.clone(), ..Item::default() })
        });
        let chosen = match values {
            Values::Of(device) => self.living(&key(device)).cloned(),
            Values::GroupsBefore => groups.or(newest.cloned()),
            Values::Newest | Values::Seen | Values::OwnBefore => newest.cloned(),
        };
        let mut writes: Vec<(Key, Option<Item>)> = Vec::new();
        writes.extend(chosen.map(|value| (key(""), Some(value))));
        writes.extend(owners.iter().map(|of| (key(of), None)));
        writes
    }
}
