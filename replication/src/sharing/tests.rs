//! Switches over real databases: a master, devices that edit, push and pull in any order, and what
//! each of them shows.

mod fleet;
mod random;
mod table;

use std::collections::BTreeMap;

use mfpsync_storage::model::{Action, Incarnation, Outcome, Sequence, Value};

use self::fleet::{A, B, C, Fleet, context, id, key, kind, member, operator, texts};
use super::*;
use crate::accept::{Answer, Limits, Submission, Usage, accept};

const LANGUAGE: &str = "ui.language";

/// Three devices with one language.
fn with_language() -> (Fleet, ItemKey) {
    let mut fleet = Fleet::of(3);
    let key = key(LANGUAGE, "panel");
    fleet.put(A, &key, &[("language", "ja"), ("voice", "on")]);
    fleet.sync_all();
    (fleet, key)
}

#[test]
fn each_device_keeps_what_it_sees_and_goes_its_own_way() {
    let (mut fleet, key) = with_language();
    let plan = fleet.switch(LANGUAGE, Target::DeviceSpecific(Start::Seen));
    assert_eq!(plan.tally, Tally { items: 1, copies: 3, ..Tally::default() });
    fleet.sync_all();
    for device in [A, B, C] {
        let (whose, fields) = fleet.item(device, &key).unwrap();
        assert_eq!((whose, fields), (id(device).to_string(), texts(&[("language", "ja"), ("voice", "on")])));
    }
    fleet.patch(B, &key, &[("language", "en")]);
    fleet.put(C, &key.of_device(id(C)), &[("language", "fr")]);
    fleet.sync_all();
    let seen = [A, B, C].map(|device| fleet.sees(device, &key, "language").unwrap());
    assert_eq!(seen, ["ja", "en", "fr"]);
    assert_eq!(fleet.sees(C, &key, "voice"), None);
    fleet.agrees();
}

#[test]
fn an_edit_made_before_the_switch_lands_at_its_author_alone() {
    let (mut fleet, key) = with_language();
    fleet.patch(B, &key, &[("language", "en")]);
    fleet.patch(B, &key, &[("voice", "off")]);
    fleet.edit(C, &key, Action::Delete);
    fleet.switch(LANGUAGE, Target::DeviceSpecific(Start::Seen));
    fleet.pull(B);
    assert_eq!(fleet.sees(B, &key, "language").as_deref(), Some("en"), "an edit that waits goes on showing");
    let outcomes = fleet.push(B);
    assert_eq!(fleet.sees(B, &key, "language").as_deref(), Some("en"));
    assert!(
        outcomes.iter().all(|outcome| matches!(outcome, Outcome::Accepted { edits, .. }
        if edits == &[mfpsync_storage::model::EditOutcome::Applied])),
        "{outcomes:?}"
    );
    fleet.sync_all();
    assert_eq!(fleet.item(C, &key), None, "a deletion deletes what its author saw");
    assert_eq!(fleet.sees(A, &key, "language").as_deref(), Some("ja"));
    assert_eq!(fleet.item(B, &key).unwrap().1, texts(&[("language", "en"), ("voice", "off")]));
    assert_eq!([A, B, C].map(|device| fleet.set_aside(device)), [0, 0, 0]);
    fleet.agrees();
}

#[test]
fn an_item_made_before_the_switch_shows_all_the_way() {
    let (mut fleet, _) = with_language();
    let new = key(LANGUAGE, "new");
    fleet.put(B, &new, &[("language", "de")]);
    fleet.switch(LANGUAGE, Target::DeviceSpecific(Start::Seen));
    fleet.batch = 1;
    fleet.push(B);
    loop {
        assert_eq!(fleet.sees(B, &new, "language").as_deref(), Some("de"));
        if !fleet.pull_batch(B) {
            break;
        }
    }
    fleet.sync_all();
    assert_eq!(fleet.item(B, &new).unwrap().0, id(B).to_string());
    assert_eq!(fleet.item(A, &new), None);
    fleet.agrees();
}

#[test]
fn one_devices_value_becomes_the_groups_and_undoing_brings_the_others_back() {
    let (mut fleet, key) = with_language();
    fleet.switch(LANGUAGE, Target::DeviceSpecific(Start::Seen));
    fleet.sync_all();
    fleet.patch(B, &key, &[("language", "en")]);
    fleet.patch(C, &key, &[("language", "fr")]);
    fleet.sync_all();
    let plan = fleet.switch(LANGUAGE, Target::Shared(Choice::Of(id(B))));
    assert_eq!(plan.tally, Tally { items: 1, chosen: 1, identical: 1, kept: 2, ..Tally::default() });
    fleet.sync_all();
    for device in [A, B, C] {
        let (whose, fields) = fleet.item(device, &key).unwrap();
        assert_eq!((whose.as_str(), fields), ("", texts(&[("language", "en"), ("voice", "on")])));
    }
    fleet.agrees();
    let plan = fleet.switch(LANGUAGE, Target::DeviceSpecific(Start::Before));
    assert_eq!((plan.tally.copies, plan.tally.brought_back), (3, 3));
    fleet.sync_all();
    let seen = [A, B, C].map(|device| fleet.sees(device, &key, "language").unwrap());
    assert_eq!(seen, ["ja", "en", "fr"]);
    fleet.switch(LANGUAGE, Target::Shared(Choice::Before));
    fleet.sync_all();
    let seen = [A, B, C].map(|device| fleet.sees(device, &key, "language").unwrap());
    assert_eq!(seen, ["en", "en", "en"], "the group's value as it last was");
    fleet.agrees();
}

#[test]
fn an_edit_of_ones_own_value_never_becomes_everybodys_by_itself() {
    let (mut fleet, key) = with_language();
    fleet.switch(LANGUAGE, Target::DeviceSpecific(Start::Seen));
    fleet.sync_all();
    fleet.patch(B, &key, &[("language", "en")]);
    fleet.switch(LANGUAGE, Target::Shared(Choice::Of(id(A))));
    fleet.pull(B);
    assert_eq!(fleet.sees(B, &key, "language").as_deref(), Some("ja"));
    fleet.sync_all();
    assert_eq!(fleet.set_aside(B), 1, "it waits for its author");
    let kept = fleet.master.read(|read| read.superseded_operations(Incarnation(101))).unwrap();
    assert_eq!(kept.len(), 1);
    let entry = fleet.devices[B].read(|read| read.set_aside(1)).unwrap()[0].entry;
    fleet.devices[B].write(|write| write.retry_set_aside(entry, &context())).unwrap();
    fleet.sync_all();
    assert_eq!(fleet.sees(C, &key, "language").as_deref(), Some("en"), "now it is meant for everybody");
    fleet.agrees();
}

#[test]
fn a_device_away_during_two_switches_loses_nothing() {
    let (mut fleet, key) = with_language();
    fleet.patch(B, &key, &[("voice", "off")]);
    fleet.switch(LANGUAGE, Target::DeviceSpecific(Start::Seen));
    fleet.sync(A);
    fleet.patch(A, &key, &[("language", "en")]);
    fleet.sync(A);
    fleet.switch(LANGUAGE, Target::Shared(Choice::Of(id(A))));
    fleet.sync_all();
    for device in [A, B, C] {
        assert_eq!(fleet.item(device, &key).unwrap().1, texts(&[("language", "en"), ("voice", "off")]));
    }
    fleet.agrees();
}

#[test]
fn the_newest_of_every_item_is_what_devices_changed_last() {
    let (mut fleet, key) = with_language();
    let only_c = self::key(LANGUAGE, "only");
    fleet.switch(LANGUAGE, Target::DeviceSpecific(Start::Seen));
    fleet.sync_all();
    fleet.patch(C, &key, &[("language", "fr")]);
    fleet.put(C, &only_c, &[("language", "it")]);
    fleet.sync_all();
    fleet.patch(B, &key, &[("language", "en")]);
    fleet.sync_all();
    let of_b = fleet.plan(LANGUAGE, Target::Shared(Choice::Of(id(B)))).unwrap();
    assert_eq!((of_b.tally.items, of_b.tally.left_out), (2, 1));
    let of_nobody = Target::Shared(Choice::Of(id(9)));
    assert_eq!(fleet.begin(LANGUAGE, of_nobody, None, STEP), Begun::NothingChosen);
    fleet.switch(LANGUAGE, Target::Shared(Choice::Newest));
    fleet.sync_all();
    assert_eq!(fleet.sees(A, &key, "language").as_deref(), Some("en"));
    assert_eq!(fleet.sees(A, &only_c, "language").as_deref(), Some("it"));
}

#[test]
fn what_was_deleted_stays_deleted_when_values_come_back() {
    let (mut fleet, key) = with_language();
    fleet.switch(LANGUAGE, Target::DeviceSpecific(Start::Seen));
    fleet.sync_all();
    fleet.switch(LANGUAGE, Target::Shared(Choice::Newest));
    fleet.sync_all();
    fleet.edit(A, &key, Action::Delete);
    fleet.sync_all();
    fleet.switch(LANGUAGE, Target::DeviceSpecific(Start::Before));
    fleet.sync_all();
    assert_eq!([A, B, C].map(|device| fleet.item(device, &key)), [None, None, None]);
    fleet.agrees();
}

#[test]
fn who_joins_later_has_its_own_and_a_released_device_can_still_be_chosen() {
    let (mut fleet, key) = with_language();
    fleet.switch(LANGUAGE, Target::DeviceSpecific(Start::Seen));
    fleet.sync_all();
    fleet.patch(C, &key, &[("language", "fr")]);
    fleet.sync_all();
    fleet.master.write(|write| write.put_member(&member(id(C), true))).unwrap();
    fleet.arrives(&[(key.clone(), texts(&[("language", "ko")]))]);
    let newcomer = fleet.devices.len() - 1;
    assert_eq!(fleet.item(newcomer, &key).unwrap().0, id(newcomer).to_string());
    assert_eq!(fleet.sees(newcomer, &key, "language").as_deref(), Some("ko"));
    assert_eq!(fleet.sees(A, &key, "language").as_deref(), Some("ja"));
    fleet.switch(LANGUAGE, Target::Shared(Choice::Of(id(C))));
    fleet.sync_all();
    assert_eq!(fleet.sees(newcomer, &key, "language").as_deref(), Some("fr"));
    fleet.agrees();
}

#[test]
fn leaving_takes_along_what_the_device_shows() {
    let (mut fleet, key) = with_language();
    fleet.switch(LANGUAGE, Target::DeviceSpecific(Start::Seen));
    fleet.sync_all();
    fleet.patch(B, &key, &[("language", "en")]);
    fleet.sync_all();
    fleet.devices[B].write(|write| write.leave()).unwrap();
    let items = fleet.devices[B].read(|read| read.items(&key.scope, None, None, 10)).unwrap();
    assert_eq!(items.len(), 1);
    assert_eq!(items[0].key, key);
    assert_eq!(fleet.sees(B, &key, "language").as_deref(), Some("en"));
}

#[test]
fn a_plan_is_what_happens_and_is_refused_when_the_data_moved() {
    let (mut fleet, key) = with_language();
    let to = Target::DeviceSpecific(Start::Seen);
    let planned = fleet.plan(LANGUAGE, to).unwrap();
    fleet.patch(A, &key, &[("language", "en")]);
    fleet.sync_all();
    assert_eq!(fleet.begin(LANGUAGE, to, Some(&planned), STEP), Begun::Moved);
    assert_eq!(fleet.master.read(|read| read.sharing(&kind(LANGUAGE))).unwrap(), Setting::default());
    let before = fleet.plan(LANGUAGE, to).unwrap();
    fleet.arrives(&[]);
    assert_eq!(fleet.begin(LANGUAGE, to, Some(&before), STEP), Begun::Moved, "one more gets a copy");
    let planned = fleet.plan(LANGUAGE, to).unwrap();
    assert_ne!(planned.digest, before.digest);
    fleet.put(A, &self::key("job.recall", "other"), &[("tray", "2")]);
    fleet.sync(A);
    let Begun::Stepped(step) = fleet.begin(LANGUAGE, to, Some(&planned), STEP) else { panic!("not begun") };
    assert_eq!((step.ended, step.switching.tally), (true, planned.tally));
    assert_eq!(fleet.begin(LANGUAGE, to, None, STEP), Begun::Already);
}

/// Items in the order in which a switch moves them.
fn with_languages(devices: usize, items: usize) -> (Fleet, Vec<ItemKey>) {
    let mut fleet = Fleet::of(devices);
    let keys: Vec<ItemKey> = (0..items).map(|number| key(LANGUAGE, &format!("i{number:03}"))).collect();
    keys.iter().for_each(|key| fleet.put(A, key, &[("language", "ja")]));
    fleet.sync_all();
    (fleet, keys)
}

/// Begins a switch with a step that moves one item.
fn begun(fleet: &mut Fleet, to: Target) {
    match fleet.begin(LANGUAGE, to, None, 1) {
        Begun::Stepped(step) => assert!(!step.ended && step.switching.tally.items == 1, "{step:?}"),
        other => panic!("not begun: {other:?}"),
    }
}

#[test]
fn between_two_steps_an_item_is_by_the_new_setting_once_it_has_moved() {
    let (mut fleet, keys) = with_languages(2, 3);
    begun(&mut fleet, Target::DeviceSpecific(Start::Seen));
    assert_eq!(fleet.master.read(|read| read.sharing(&kind(LANGUAGE))).unwrap(), Setting::default());
    let new = [key(LANGUAGE, "h"), key(LANGUAGE, "z")];
    for key in keys.iter().chain(&new) {
        fleet.put(B, key, &[("language", "en")]);
    }
    fleet.sync_all();
    let at_a = |fleet: &Fleet, key: &ItemKey| fleet.sees(A, key, "language");
    assert_eq!(at_a(&fleet, &keys[0]).as_deref(), Some("ja"), "it has moved: B's edit is B's");
    assert_eq!(at_a(&fleet, &keys[2]).as_deref(), Some("en"), "it has not: B's edit is for all");
    assert_eq!(at_a(&fleet, &new[0]), None, "made where all has moved");
    assert_eq!(at_a(&fleet, &new[1]).as_deref(), Some("en"));
    assert!(keys.iter().chain(&new).all(|key| fleet.sees(B, key, "language").as_deref() == Some("en")));
    while !fleet.step(1).unwrap().ended {}
    fleet.sync_all();
    assert_eq!([A, B].map(|device| fleet.set_aside(device)), [0, 0]);
    fleet.put(A, &new[1], &[("language", "fr")]);
    fleet.sync_all();
    assert_eq!(
        fleet.sees(B, &new[1], "language").as_deref(),
        Some("en"),
        "what came meanwhile has moved, too"
    );
    fleet.agrees();
}

#[test]
fn between_two_steps_an_own_value_is_taken_until_its_item_has_moved() {
    let (mut fleet, keys) = with_languages(2, 2);
    fleet.switch(LANGUAGE, Target::DeviceSpecific(Start::Seen));
    fleet.sync_all();
    begun(&mut fleet, Target::Shared(Choice::Of(id(B))));
    keys.iter().for_each(|key| fleet.patch(B, key, &[("language", "en")]));
    fleet.sync_all();
    assert_eq!(fleet.sees(A, &keys[0], "language").as_deref(), Some("ja"));
    assert_eq!(fleet.set_aside(B), 1, "the group's value was chosen before this one came");
    while !fleet.step(1).unwrap().ended {}
    fleet.sync_all();
    assert_eq!(fleet.sees(A, &keys[1], "language").as_deref(), Some("en"), "chosen as it was when it moved");
    fleet.agrees();
}

#[test]
fn one_switch_is_under_way_at_a_time_and_it_goes_on_as_its_orderer_said() {
    let (mut fleet, keys) = with_languages(2, 3);
    begun(&mut fleet, Target::DeviceSpecific(Start::Seen));
    for (kind, to) in [
        (LANGUAGE, Target::DeviceSpecific(Start::Before)),
        ("job.recall", Target::DeviceSpecific(Start::Seen)),
    ] {
        let begun = fleet.begin(kind, to, None, 1);
        assert!(matches!(&begun, Begun::UnderWay(switching) if switching.tally.items == 1), "{begun:?}");
    }
    let other = Operator { actor: "somebody".to_owned(), ..operator() };
    let next = fleet.master.write(|write| step(write, &other, STEP)).unwrap().unwrap();
    assert!(next.ended);
    let entry = fleet.master.read(|read| read.history(&keys[2], 1)).unwrap().pop().unwrap();
    assert_eq!(entry.actor, operator().actor);
}

#[test]
fn who_joins_while_a_kind_is_switched_keeps_what_it_saw() {
    let (mut fleet, keys) = with_languages(2, 3);
    begun(&mut fleet, Target::DeviceSpecific(Start::Seen));
    fleet.arrives(&[]);
    let saw = keys.iter().map(|key| fleet.sees(C, key, "language")).collect::<Vec<_>>();
    assert_eq!(saw, [None, Some("ja".to_owned()), Some("ja".to_owned())]);
    while !fleet.step(1).unwrap().ended {}
    fleet.sync_all();
    assert_eq!(keys.iter().map(|key| fleet.sees(C, key, "language")).collect::<Vec<_>>(), saw);
    fleet.agrees();
}

#[test]
fn undo_does_not_reach_behind_a_switch() {
    let (mut fleet, key) = with_language();
    fleet.patch(A, &key, &[("language", "en")]);
    fleet.sync_all();
    fleet.switch(LANGUAGE, Target::DeviceSpecific(Start::Seen));
    fleet.sync_all();
    fleet.patch(A, &key, &[("language", "fr")]);
    fleet.sync_all();
    let head = fleet.master.read(|read| read.founded_head()).unwrap().sequence;
    let selection = crate::undo::Selection { from: Sequence(1), through: head, device: None };
    let wanted = crate::operator::Wanted::Items { scope: Some(key.scope.clone()), kind: None };
    let step = fleet
        .master
        .write(|write| crate::operator::take_back(write, &operator(), &wanted, &selection, -1, 100))
        .unwrap();
    assert_eq!((step.tally.items, step.tally.removed), (1, 0));
    fleet.sync_all();
    assert_eq!(fleet.sees(A, &key, "language").as_deref(), Some("en"));
    assert_eq!(fleet.sees(B, &key, "language").as_deref(), Some("en"));
}

#[test]
fn a_kind_nobody_has_heard_of_can_be_switched_and_the_servers_own_cannot() {
    let mut fleet = Fleet::of(2);
    let key = key("vendor.x-finisher", "tray");
    fleet.put(A, &key, &[("fold", "z")]);
    fleet.sync_all();
    fleet.switch("vendor.x-finisher", Target::DeviceSpecific(Start::Seen));
    fleet.sync_all();
    fleet.patch(B, &key, &[("fold", "c")]);
    fleet.sync_all();
    assert_eq!(fleet.sees(A, &key, "fold").as_deref(), Some("z"));
    assert_eq!(fleet.sees(B, &key, "fold").as_deref(), Some("c"));
    assert!(can_switch(&kind("vendor.x-finisher")));
    assert!(!can_switch(&kind("group.sharing")) && !can_switch(&kind("network")));
}

#[test]
fn an_items_room_is_that_of_one_device() {
    let (mut fleet, key) = with_language();
    fleet.switch(LANGUAGE, Target::DeviceSpecific(Start::Seen));
    fleet.sync_all();
    assert_eq!(fleet.master.read(|read| read.scope_usage(&key.scope, &id(B).to_string())).unwrap().0, 1);
    assert_eq!(fleet.devices[B].read(|read| read.scope_usage(&key.scope)).unwrap().items, 1);
    assert_eq!(fleet.devices[B].read(|read| read.users("", 10)).unwrap()[0].items, 1);
}

#[test]
fn no_device_loses_sight_of_an_item_between_two_batches() {
    const ITEMS: usize = 120;
    let mut fleet = Fleet::of(3);
    fleet.batch = 1;
    let item = |number: usize| key(LANGUAGE, &format!("i{number:03}"));
    (0..ITEMS).for_each(|number| fleet.put(A, &item(number), &[("language", "ja")]));
    fleet.sync_all();
    for to in [
        Target::DeviceSpecific(Start::Seen),
        Target::Shared(Choice::Newest),
        Target::DeviceSpecific(Start::Before),
        Target::Shared(Choice::Before),
    ] {
        let head = |fleet: &Fleet| fleet.master.read(|read| read.founded_head()).unwrap().sequence.0;
        let before = head(&fleet);
        fleet.switch(LANGUAGE, to);
        assert!(head(&fleet) > before + 2, "it takes several batches");
        for device in [A, B, C] {
            while fleet.pull_batch(device) {
                let shown = fleet.devices[device].read(|read| read.items(&item(0).scope, None, None, 1000));
                let shown = shown.unwrap();
                assert_eq!(shown.len(), ITEMS, "each item shows once");
                assert!(shown.iter().all(|item| item.fields == texts(&[("language", "ja")])));
            }
        }
    }
    fleet.agrees();
}

#[test]
fn an_item_made_under_the_setting_it_was_deleted_under_comes_back_there() {
    let (mut fleet, key) = with_language();
    fleet.switch(LANGUAGE, Target::DeviceSpecific(Start::Seen));
    fleet.sync_all();
    fleet.edit(B, &key, Action::Delete);
    fleet.sync_all();
    fleet.put(B, &key, &[("language", "de")]);
    assert_eq!(fleet.item(B, &key).unwrap().0, id(B).to_string());
    fleet.sync_all();
    assert_eq!(fleet.sees(B, &key, "language").as_deref(), Some("de"));
    assert_eq!(fleet.sees(A, &key, "language").as_deref(), Some("ja"));
    fleet.agrees();
}

#[test]
fn what_a_device_must_not_write_is_refused() {
    let (mut fleet, key) = with_language();
    fleet.switch(LANGUAGE, Target::DeviceSpecific(Start::Seen));
    fleet.sync_all();
    let edit = |key: ItemKey| mfpsync_storage::model::Edit {
        key,
        base: Default::default(),
        action: Action::Put(texts(&[("language", "xx")])),
    };
    let mut push = |edits: Vec<mfpsync_storage::model::Edit>, life: u64| {
        let number = mfpsync_storage::model::OperationNumber(1);
        let operation = mfpsync_storage::model::Operation {
            number,
            made_at: 0,
            actor: String::new(),
            yields: false,
            was: None,
            edits,
        };
        let submission = Submission {
            device: id(B),
            incarnation: Incarnation(life),
            low_water: Default::default(),
            operations: vec![operation.encode()],
            now: 0,
        };
        match fleet
            .master
            .write(|write| accept(write, &mut Usage::default(), &submission, Limits::default()))
            .unwrap()
        {
            Answer::Outcomes(outcomes) => outcomes[0].1.clone(),
            other => panic!("{other:?}"),
        }
    };
    use mfpsync_storage::model::RejectReason::{Malformed, OtherDevice};
    let refused = |reason, edit| Outcome::Rejected { reason, edit };
    assert_eq!(push(vec![edit(key.of_device(id(A)))], 900), refused(OtherDevice, 0));
    let both = vec![edit(key.clone()), edit(key.of_device(id(B)))];
    assert_eq!(push(both, 901), refused(Malformed, 1), "two keys of one item");
    assert_eq!(fleet.sees(A, &key, "language").as_deref(), Some("ja"));
}

#[test]
fn of_an_erased_user_nothing_is_kept_for_an_author_either() {
    let (mut fleet, key) = with_language();
    fleet.switch(LANGUAGE, Target::DeviceSpecific(Start::Seen));
    fleet.sync_all();
    fleet.patch(B, &key, &[("language", "en")]);
    fleet.switch(LANGUAGE, Target::Shared(Choice::Of(id(A))));
    fleet.master.write(|write| crate::operator::erase(write, &operator(), &key.scope)).unwrap();
    let outcomes = fleet.push(B);
    let erased = mfpsync_storage::model::RejectReason::Erased;
    assert_eq!(outcomes, [Outcome::Rejected { reason: erased, edit: 0 }]);
    let kept = fleet.master.read(|read| read.superseded_operations(Incarnation(101))).unwrap();
    assert!(kept.is_empty(), "a value of an erased user is kept");
    fleet.sync_all();
    assert_eq!([A, B, C].map(|device| fleet.item(device, &key)), [None, None, None]);
}

#[test]
fn secrets_can_be_each_devices_own_and_those_not_chosen_are_gone() {
    let mut fleet = Fleet::of(2);
    let key = key("keychain", "smb");
    let secret = |byte| {
        let sealed = mfpsync_storage::model::Sealed { key_id: vec![1], sealed: vec![byte] };
        Action::Put(Fields::from_iter([("password", Value::Sealed(sealed))]))
    };
    fleet.edit(A, &key, secret(1));
    fleet.sync_all();
    fleet.switch("keychain", Target::DeviceSpecific(Start::Seen));
    fleet.sync_all();
    fleet.edit(B, &key, secret(2));
    fleet.sync_all();
    let plan = fleet.switch("keychain", Target::Shared(Choice::Of(id(B))));
    assert_eq!((plan.tally.kept, plan.tally.not_kept), (0, 1));
    fleet.sync_all();
    let history = fleet.master.read(|read| read.history(&key.of_device(id(A)), u32::MAX)).unwrap();
    assert!(history.iter().all(|entry| entry.before.fields().is_none()), "a secret is in the history");
    fleet.agrees();
}
