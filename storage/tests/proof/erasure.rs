//! A device that hears of an erasure forgets, in the same transaction; and what goes on after.

use mfpsync_storage::Error;
use mfpsync_storage::local::LocalEdit;
use mfpsync_storage::model::{Action, Change, ErasedMark, ItemKey, Scope, Sequence, erasure_key};

use crate::support::{
    Device, GROUP, accepted, change, context, fields, key, patch, put, rejected, superseded, tombstone,
};

fn mark(sequence: u64, readmitted: bool) -> Change {
    let key = erasure_key(GROUP, &Scope::user("sato").unwrap()).unwrap();
    let mark = ErasedMark { readmitted, at: 5, generation: if readmitted { 2 } else { 1 } };
    Change { key, sequence: Sequence(sequence), deleted: false, fields: mark.fields() }
}

fn shared(id: &str) -> LocalEdit {
    let key = ItemKey::parse("shared", "address.shared", "", id).unwrap();
    LocalEdit { key, action: Action::Put(fields(&[("x", "1")])) }
}

#[test]
fn the_news_takes_everything_of_the_user_along_and_nothing_else() {
    let mut device = Device::in_group();
    device.apply(&[change("a", 1, &[("x", "1")])], 1);
    device.edit(vec![put("b", &[("x", "1")])]);
    device.edit(vec![put("c", &[("x", "1")])]);
    device.edit(vec![shared("s")]);
    device.settle(&[accepted(1, 2), rejected(2)]);
    device.edit(vec![patch("a", &[("x", "2")])]);
    let gone = device.apply(&[tombstone("a", 3), mark(4, false)], 4);
    assert!(gone.contains(&key("a")), "watchers are told");
    assert!(!device.exists("a") && !device.exists("b") && !device.exists("c"));
    assert!(device.0.read(|read| read.set_aside(9)).unwrap().is_empty());
    assert_eq!(device.0.read(|read| read.retained_count()).unwrap(), 0);
    let waiting = device.outbox();
    let withdrawn: Vec<bool> = waiting.iter().map(|operation| operation.is_withdrawn()).collect();
    assert_eq!(withdrawn, [false, true], "the numbers stay without a gap");
    assert!(device.0.read(|read| read.item(&shared("s").key)).unwrap().is_some());
}

#[test]
fn a_device_tells_a_restore_of_whom_it_has_heard() {
    let mut device = Device::in_group();
    assert!(device.0.read(|read| read.erasures()).unwrap().is_empty());
    device.apply(&[mark(4, false)], 4);
    device.apply(&[mark(5, true)], 5);
    let known = device.0.read(|read| read.erasures()).unwrap();
    let (id, mark) = known.first_key_value().unwrap();
    assert_eq!(
        (id, mark.readmitted, mark.generation, known.len()),
        (&self::mark(4, true).key.id, true, 2, 1)
    );
}

#[test]
fn what_stood_beside_the_users_edit_is_offered_anew() {
    let mut device = Device::in_group();
    device.edit(vec![put("b", &[("x", "1")]), shared("s")]);
    device.apply(&[mark(4, false)], 4);
    let waiting = device.outbox();
    assert_eq!(waiting.len(), 2);
    assert!(waiting[0].is_withdrawn() && waiting[0].number.0 == 1);
    assert_eq!((waiting[1].number.0, waiting[1].edits[0].key.clone()), (2, shared("s").key));
    assert_eq!(device.settle(&[rejected(1), accepted(2, 5)]).set_aside, 0, "nobody has to see to it");
    assert!(device.0.read(|read| read.item(&shared("s").key)).unwrap().is_some());
    assert_eq!(device.0.read(|read| read.waiting()).unwrap(), mfpsync_storage::local::Waiting::default());
}

#[test]
fn an_answer_that_was_on_its_way_harms_nothing() {
    let mut device = Device::in_group();
    device.edit(vec![put("b", &[("x", "1")])]);
    device.apply(&[mark(4, false)], 4);
    device.settle(&[accepted(1, 2)]);
    assert_eq!(device.0.read(|read| read.retained_count()).unwrap(), 0);
    assert!(!device.exists("b"));
}

#[test]
fn edits_of_an_erased_user_are_refused_until_readmission_and_then_know_of_it() {
    let mut device = Device::in_group();
    device.apply(&[mark(4, false)], 4);
    let refused = device.0.write(|write| write.edit(vec![put("b", &[("x", "1")])], &context()));
    assert!(matches!(refused, Err(Error::Erased)));
    assert!(device.outbox().is_empty() && !device.exists("b"));
    device.apply(&[mark(5, true)], 5);
    device.edit(vec![put("b", &[("x", "1")])]);
    device.edit(vec![patch("b", &[("x", "2")])]);
    let bases: Vec<u64> = device.outbox().iter().map(|one| one.edits[0].base.revision.sequence.0).collect();
    assert_eq!(bases, [5, 5]);
}

#[test]
fn a_mark_that_is_known_purges_nothing_again() {
    let mut device = Device::in_group();
    device.apply(&[mark(4, false), mark(5, true)], 5);
    device.apply(&[change("a", 6, &[("x", "1")])], 6);
    device.apply(&[mark(5, true)], 6);
    assert!(device.exists("a"));
}

#[test]
fn what_was_set_aside_is_offered_again_or_dropped() {
    let mut device = Device::in_group();
    device.apply(&[change("a", 3, &[("x", "theirs")])], 3);
    device.edit(vec![patch("a", &[("x", "ours"), ("y", "1")])]);
    device.settle(&[superseded(1, 3, 3)]);
    assert_eq!(device.sees("a", "x").as_deref(), Some("theirs"));
    let entries = device.0.read(|read| read.set_aside_entries(None)).unwrap();
    let again = |device: &mut Device| device.0.write(|write| write.retry_set_aside(entries[0].0, &context()));
    assert_eq!(again(&mut device).unwrap(), Some(vec![key("a")]));
    assert_eq!(device.sees("a", "x").as_deref(), Some("ours"));
    let operation = device.outbox().pop().unwrap();
    assert_eq!((operation.number.0, operation.edits[0].base.revision.sequence.0), (2, 3));
    assert_eq!(again(&mut device).unwrap(), None, "once");
    device.settle(&[rejected(2)]);
    let entries = device.0.read(|read| read.set_aside_entries(None)).unwrap();
    assert_eq!(entries.len(), 1, "what is refused again comes back");
    assert!(device.0.write(|write| write.drop_set_aside(entries[0].0)).unwrap());
    assert!(device.0.read(|read| read.set_aside(9)).unwrap().is_empty());
}
