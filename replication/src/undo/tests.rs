//! Undo against a model that simply remembers every state.

use std::collections::{BTreeMap, BTreeSet};

use mfpsync_storage::master::{Before, HistoryEntry, OPERATOR};
use mfpsync_storage::model::{
    DeviceId, Fields, Incarnation, Kind, OperationNumber, Revision, Sequence, Value,
};
use proptest::prelude::*;

use super::*;

fn fields(pairs: &[(&str, u8)]) -> Fields {
    pairs.iter().map(|(name, value)| (*name, Value::Integer((*value).into()))).collect()
}

fn kind(name: &str) -> Kind {
    Kind::parse(name).unwrap()
}

/// Writes one after another, and the history they leave.
#[derive(Default)]
struct Past {
    states: Vec<Option<Fields>>,
    chain: Vec<HistoryEntry>,
}

impl Past {
    fn of(writes: &[(u8, Option<Fields>)]) -> Self {
        let mut past = Self::default();
        for (device, state) in writes {
            past.write(*device, state.clone());
        }
        past
    }

    fn present(&self) -> Option<&Fields> {
        self.states.last().and_then(Option::as_ref)
    }

    fn write(&mut self, device: u8, state: Option<Fields>) {
        let present = self.present().cloned();
        let none = Fields::new();
        let (old, new) = (present.as_ref().unwrap_or(&none), state.as_ref().unwrap_or(&none));
        let touched = old.names().chain(new.names()).filter(|name| old.get(name) != new.get(name));
        let touched: BTreeSet<String> = touched.map(str::to_owned).collect();
        let before = match (self.states.is_empty(), present.clone()) {
            (true, _) => Before::Absent,
            (false, None) => Before::Deleted,
            (false, Some(fields)) => Before::Fields(fields),
        };
        if present == state && !self.states.is_empty() {
            return;
        }
        let sequence = Sequence(self.chain.len() as u64 + 1);
        self.chain.insert(
            0,
            HistoryEntry {
                revision: Revision { epoch: 1, sequence },
                device: DeviceId([device; 16]),
                incarnation: Incarnation(1),
                operation: OperationNumber(sequence.0),
                actor: String::new(),
                made_at: 0,
                accepted_at: 0,
                deleted: state.is_none(),
                touched: touched.into_iter().collect(),
                before,
                lost: None,
            },
        );
        self.states.push(state);
    }

    fn undo(&self, from: u64, device: Option<u8>) -> Undone {
        let device = device.map(|device| DeviceId([device; 16]));
        let selection = Selection { from: Sequence(from), through: Sequence(u64::MAX), device };
        undo(&kind("address.personal"), self.present(), &self.chain, &selection)
    }

    fn after(&self, undone: &Undone) -> Option<Fields> {
        match &undone.write {
            None => self.present().cloned(),
            Some(restored) => (!restored.deleted).then(|| restored.fields.clone()),
        }
    }
}

#[test]
fn one_change_goes_back_to_what_stood_before() {
    let past =
        Past::of(&[(1, Some(fields(&[("a", 1), ("b", 1)]))), (2, Some(fields(&[("a", 2), ("b", 1)])))]);
    let write = past.undo(2, None).write.unwrap();
    assert_eq!((write.fields, write.touched), (fields(&[("a", 1), ("b", 1)]), vec!["a".to_owned()]));
}

#[test]
fn what_others_wrote_later_stands_and_is_counted() {
    let past = Past::of(&[
        (1, Some(fields(&[("a", 1), ("b", 1)]))),
        (2, Some(fields(&[("a", 2), ("b", 2)]))),
        (1, Some(fields(&[("a", 3), ("b", 2)]))),
    ]);
    let undone = past.undo(1, Some(2));
    assert_eq!((undone.stands, past.after(&undone)), (1, Some(fields(&[("a", 3), ("b", 1)]))));
}

#[test]
fn a_field_written_in_turns_goes_back_to_the_others_value() {
    let past = Past::of(&[
        (1, Some(fields(&[("a", 1)]))),
        (2, Some(fields(&[("a", 2)]))),
        (1, Some(fields(&[("a", 3)]))),
        (2, Some(fields(&[("a", 4)]))),
        (2, Some(fields(&[("a", 5)]))),
    ]);
    assert_eq!(past.after(&past.undo(1, Some(2))), Some(fields(&[("a", 3)])));
}

#[test]
fn a_deletion_brings_the_item_back_and_a_creation_takes_it_away() {
    let gone = Past::of(&[(1, Some(fields(&[("a", 1)]))), (2, None)]);
    assert_eq!(gone.after(&gone.undo(1, Some(2))), Some(fields(&[("a", 1)])));
    let made = Past::of(&[(2, Some(fields(&[("a", 1)])))]);
    assert_eq!(made.after(&made.undo(1, Some(2))), None);
    let shared = Past::of(&[(2, Some(fields(&[("a", 1)]))), (1, Some(fields(&[("a", 1), ("b", 2)])))]);
    assert_eq!(shared.after(&shared.undo(1, Some(2))), Some(fields(&[("b", 2)])), "another's field keeps it");
}

#[test]
fn a_later_deletion_by_somebody_else_stands() {
    let past = Past::of(&[(1, Some(fields(&[("a", 1)]))), (2, Some(fields(&[("a", 2)]))), (1, None)]);
    let undone = past.undo(1, Some(2));
    assert_eq!((undone.write, undone.stands), (None, 1));
}

#[test]
fn forgotten_values_are_counted_and_nothing_is_invented() {
    let mut past = Past::of(&[(1, Some(fields(&[("a", 1)]))), (2, Some(fields(&[("a", 2)])))]);
    past.chain[0].before = Before::Forgotten;
    let undone = past.undo(2, None);
    assert_eq!((undone.write, undone.forgotten), (None, 1));
    let mut gone = Past::of(&[(1, Some(fields(&[("a", 1)]))), (2, None)]);
    gone.chain[0].before = Before::Forgotten;
    assert_eq!(gone.undo(2, None).write, None);
    assert_eq!(gone.undo(2, None).forgotten, 1);
}

#[test]
fn secrets_and_the_servers_own_kinds_do_not_go_back() {
    let past = Past::of(&[(1, Some(fields(&[("a", 1)]))), (2, Some(fields(&[("a", 2)])))]);
    let selection = Selection { from: Sequence(1), through: Sequence(9), device: None };
    for name in ["keychain", "group.erased", "network"] {
        let undone = undo(&kind(name), past.present(), &past.chain, &selection);
        assert_eq!(undone, Undone { not_kept: true, ..Undone::default() }, "{name}");
    }
}

#[test]
fn what_the_operator_did_is_not_the_servers_own_device() {
    let mut past = Past::of(&[(1, Some(fields(&[("a", 1)]))), (2, Some(fields(&[("a", 2)])))]);
    past.chain[0].incarnation = OPERATOR;
    assert_eq!(past.undo(1, Some(2)), Undone::default());
    assert!(past.undo(2, None).write.is_some(), "but it can be taken back as a change");
}

fn writes() -> impl Strategy<Value = Vec<(u8, Option<Fields>)>> {
    let state = prop::option::weighted(
        0.8,
        prop::collection::btree_map("[a-d]", 0u8..4, 1..4).prop_map(|map| {
            map.into_iter().map(|(name, value)| (name, Value::Integer(value.into()))).collect()
        }),
    );
    prop::collection::vec((1u8..4, state), 1..12)
}

proptest! {
    #[test]
    fn taking_everything_back_since_then_is_the_state_then(writes in writes(), cut in 1u64..12) {
        let past = Past::of(&writes);
        let undone = past.undo(cut, None);
        let then = (cut as usize).min(past.states.len() + 1) - 1;
        let expected = then.checked_sub(1).and_then(|at| past.states[at].clone());
        prop_assert_eq!(past.after(&undone), expected);
    }

    #[test]
    fn fields_nobody_else_touched_are_as_they_were(writes in writes(), cut in 1u64..12, device in 1u8..4) {
        let past = Past::of(&writes);
        let undone = past.undo(cut, Some(device));
        let then = (cut as usize).min(past.states.len() + 1) - 1;
        let at_that_time = then.checked_sub(1).and_then(|at| past.states[at].clone());
        let since = past.chain.iter().filter(|entry| entry.revision.sequence.0 >= cut);
        let mut others: BTreeMap<String, bool> = BTreeMap::new();
        for entry in since {
            for name in &entry.touched {
                *others.entry(name.clone()).or_default() |= entry.device != DeviceId([device; 16]);
            }
        }
        let (Some(now), Some(then)) = (past.after(&undone), at_that_time) else { return Ok(()) };
        for (name, by_others) in others {
            if !by_others {
                prop_assert_eq!(now.get(&name), then.get(&name), "{}", name);
            }
        }
    }

    #[test]
    fn an_undo_can_be_undone(writes in writes(), cut in 1u64..12, device in 1u8..4) {
        let mut past = Past::of(&writes);
        let before = past.present().cloned();
        let undone = past.undo(cut, Some(device));
        let length = past.chain.len() as u64;
        past.write(9, past.after(&undone));
        let again = past.undo(length + 1, None);
        prop_assert_eq!(past.after(&again), before);
    }
}
