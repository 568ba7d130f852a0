//! What must hold for every item, every edit and every kind.

use std::collections::BTreeMap;

use mfpsync_storage::model::Kind;
use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;

use super::*;

const KINDS: [&str; 6] =
    ["ui.language", "ui.accessibility", "address.personal", "address.shared", "keychain", "vendor.x"];
const NAMES: [&str; 7] = ["name", "mail", "host", "path", "large", "second.mail", "second.path"];
const NOW: Sequence = Sequence(100);

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        "[ab]".prop_map(Value::Text),
        any::<bool>().prop_map(Value::Flag),
        prop::sample::select(vec![1_u8, 2]).prop_map(|byte| Value::Sealed(mfpsync_storage::model::Sealed {
            key_id: vec![],
            sealed: vec![byte],
        })),
    ]
}

fn any_fields() -> impl Strategy<Value = Fields> {
    btree_map(prop::sample::select(&NAMES[..]), value(), 0..5).prop_map(|map| map.into_iter().collect())
}

fn action() -> impl Strategy<Value = Action> {
    let patch =
        (any_fields(), btree_set(prop::sample::select(&NAMES[..]), 0..3)).prop_map(|(set, remove)| {
            let remove = remove.into_iter().filter(|name| set.get(name).is_none());
            Action::Patch { remove: remove.map(str::to_owned).collect(), set }
        });
    prop_oneof![3 => any_fields().prop_map(Action::Put), 3 => patch, 1 => Just(Action::Delete)]
}

fn standing() -> impl Strategy<Value = Standing> {
    let sequences = btree_map(prop::sample::select(&NAMES[..]), 1_u64..20, 0..7);
    (any_fields(), sequences, prop::bool::weighted(0.2)).prop_map(|(fields, given, deleted)| {
        let mut sequences = FieldSequences::default();
        for name in fields.names() {
            sequences.set(name, Sequence(1));
        }
        for (name, sequence) in given {
            sequences.set(name, Sequence(sequence));
        }
        let fields = if deleted { Fields::new() } else { fields };
        Standing { fields, deleted, sequence: sequences.latest().next(), sequences }
    })
}

fn seen() -> impl Strategy<Value = Seen> {
    (0_u64..22, btree_set((1_u64..22).prop_map(Sequence), 0..3))
        .prop_map(|(base, own)| Seen { base: Sequence(base), own })
}

fn any_rule() -> impl Strategy<Value = Rule> {
    prop::sample::select(&KINDS[..]).prop_map(|kind| rule(&Kind::parse(kind).unwrap()))
}

/// The item after a merge was stored at `NOW`.
fn stored(standing: Option<&Standing>, merge: &Merge) -> Option<Standing> {
    let Merge::Write { fields, deleted, touched, .. } = merge else { return standing.cloned() };
    let mut sequences = standing.map(|old| old.sequences.clone()).unwrap_or_default();
    touched.iter().for_each(|name| sequences.set(name, NOW));
    Some(Standing { fields: fields.clone(), sequences, deleted: *deleted, sequence: NOW })
}

fn lost(merge: &Merge) -> Fields {
    match merge {
        Merge::Write { lost, .. } | Merge::Superseded { lost, .. } => lost.clone(),
        Merge::Unchanged | Merge::Rejected(_) => Fields::new(),
    }
}

fn holds(fields: &Fields, value: &Value) -> bool {
    fields.iter().any(|(_, held)| held == value)
}

proptest! {
    #[test]
    fn the_same_question_gets_the_same_answer(
        rule in any_rule(), standing in prop::option::of(standing()), action in action(), seen in seen(),
    ) {
        let first = merge(&rule, standing.as_ref(), &action, &seen);
        prop_assert_eq!(first, merge(&rule, standing.as_ref(), &action, &seen));
    }

    #[test]
    fn offering_the_merged_item_again_changes_nothing(
        rule in any_rule(), standing in prop::option::of(standing()), action in action(), seen in seen(),
    ) {
        let first = merge(&rule, standing.as_ref(), &action, &seen);
        let Some(after) = stored(standing.as_ref(), &first) else { return Ok(()) };
        let again = if after.deleted { Action::Delete } else { Action::Put(after.fields.clone()) };
        let known = Seen::up_to(after.sequence);
        let replay = merge(&rule, Some(&after), &again, &known);
        prop_assert!(matches!(replay, Merge::Unchanged | Merge::Rejected(RejectReason::NotSealed)));
    }

    #[test]
    fn the_same_edit_again_changes_nothing(
        rule in any_rule(), standing in prop::option::of(standing()), action in action(), seen in seen(),
    ) {
        let first = merge(&rule, standing.as_ref(), &action, &seen);
        let after = stored(standing.as_ref(), &first);
        let replay = merge(&rule, after.as_ref(), &action, &seen);
        prop_assert!(!matches!(replay, Merge::Write { .. }), "{:?} then {:?}", first, replay);
    }

    #[test]
    fn edits_of_different_fields_commute(
        rule in any_rule(), standing in standing(), names in btree_map(0_usize..5, (value(), any::<bool>()), 2..5),
    ) {
        // Destinations of one pair count as one, and second ones belong to merges: left out here.
        let pool = ["name", "mail", "large", "x", "y"];
        let mut sides: BTreeMap<bool, Fields> = BTreeMap::new();
        for (index, (value, side)) in names {
            sides.entry(side).or_default().insert(pool[index], value);
        }
        if sides.len() != 2 || standing.deleted {
            return Ok(());
        }
        let seen = Seen::up_to(standing.sequence);
        let run = |order: [bool; 2]| {
            let mut item = Some(standing.clone());
            for side in order {
                let action = Action::Patch { set: sides[&side].clone(), remove: Vec::new() };
                item = stored(item.as_ref(), &merge(&rule, item.as_ref(), &action, &seen));
            }
            item
        };
        prop_assert_eq!(run([true, false]).map(|item| item.fields), run([false, true]).map(|item| item.fields));
    }

    #[test]
    fn no_value_of_the_author_vanishes(
        rule in any_rule(), standing in prop::option::of(standing()), action in action(), seen in seen(),
    ) {
        let result = merge(&rule, standing.as_ref(), &action, &seen);
        if !rule.keep_loser || matches!(result, Merge::Rejected(_)) {
            return Ok(());
        }
        let after = stored(standing.as_ref(), &result).map(|item| item.fields).unwrap_or_default();
        for (name, value) in named(&action).iter() {
            prop_assert!(after.get(name) == Some(value) || lost(&result).get(name) == Some(value), "{}", name);
        }
    }

    #[test]
    fn no_unseen_value_of_others_vanishes(
        rule in any_rule(), standing in standing(), action in action(), seen in seen(),
    ) {
        let result = merge(&rule, Some(&standing), &action, &seen);
        if !rule.keep_loser {
            return Ok(());
        }
        let after = stored(Some(&standing), &result).map(|item| item.fields).unwrap_or_default();
        for (name, value) in standing.fields.iter().filter(|(name, _)| !seen.covers(standing.sequences.get(name))) {
            prop_assert!(holds(&after, value) || holds(&lost(&result), value), "{}", name);
        }
    }

    #[test]
    fn a_field_nobody_named_stays_as_it_was(
        rule in any_rule(), standing in standing(), action in action(), seen in seen(),
    ) {
        if standing.deleted {
            return Ok(());
        }
        let Action::Patch { set, remove } = &action else { return Ok(()) };
        let result = merge(&rule, Some(&standing), &action, &seen);
        let after = stored(Some(&standing), &result).map(|item| item.fields).unwrap_or_default();
        for (name, value) in standing.fields.iter().filter(|(name, _)| !name.starts_with(SECOND)) {
            let named = set.get(name).is_some() || remove.iter().any(|removed| removed == name);
            prop_assert!(named || after.get(name) == Some(value), "{}", name);
        }
    }

    #[test]
    fn touched_names_exactly_the_fields_that_changed(
        rule in any_rule(), standing in standing(), action in action(), seen in seen(),
    ) {
        if standing.deleted {
            return Ok(());
        }
        if let Merge::Write { fields, touched, .. } = merge(&rule, Some(&standing), &action, &seen) {
            for name in NAMES {
                let changed = fields.get(name) != standing.fields.get(name);
                let named = touched.iter().any(|one| one == name);
                prop_assert!(named == changed || (named && name.starts_with(SECOND)), "{}", name);
            }
        }
    }
}
