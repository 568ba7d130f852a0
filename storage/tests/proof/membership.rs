//! Entering and leaving a group.

use mfpsync_storage::Error;
use mfpsync_storage::local::ItemState;
use mfpsync_storage::model::{DeviceId, Incarnation};

use crate::support::{Device, accepted, change, delete, fields, founding, key, membership, patch, put};

#[test]
fn while_joining_readers_and_edits_see_the_own_items_alone() {
    let mut device = Device::alone();
    device.edit(vec![put("a", &[("x", "own")])]);
    device.begin_join();
    device.apply(&[change("a", 1, &[("x", "group")]), change("b", 2, &[("x", "group")])], 2);
    assert_eq!(device.sees("a", "x").as_deref(), Some("own"));
    assert_eq!(device.sees("b", "x"), None);
    assert_eq!(device.edit(vec![patch("b", &[("x", "mine")]), patch("a", &[("y", "too")])]), None);
    assert_eq!(device.edit(vec![delete("a")]), None);
    assert_eq!(device.sees("a", "x"), None);
    assert_eq!(device.sees("b", "x").as_deref(), Some("mine"));
    assert_eq!((device.waiting(), device.state("b")), (0, Some(ItemState::Own)));
    let mirrored = device.0.read(|read| read.mirrored(&key("a"))).unwrap().unwrap();
    assert_eq!((mirrored.sequence.0, mirrored.fields), (1, Some(fields(&[("x", "group")]))));
}

#[test]
fn entering_shows_the_group_and_numbers_operations_anew() {
    let mut device = Device::alone();
    device.edit(vec![put("a", &[("x", "1")])]);
    device.begin_join();
    device.apply(&[change("b", 1, &[("x", "group")])], 1);
    device.0.write(|write| write.enter(5)).unwrap();
    let state = device.0.read(|read| read.device()).unwrap();
    assert_eq!((state.incarnation, state.last_operation.0), (Incarnation(12), 0));
    assert_eq!(device.sees("b", "x").as_deref(), Some("group"));
    assert_eq!(device.edit(vec![patch("b", &[("x", "9")])]), Some(1));
    assert_eq!(device.0.read(|read| read.joined_at()).unwrap(), Some(5));
    assert!(matches!(device.0.write(|write| write.enter(6)), Err(Error::Busy)));
}

#[test]
fn leaving_while_joining_keeps_the_own_items_alone() {
    let mut device = Device::alone();
    device.edit(vec![put("a", &[("x", "own")])]);
    let before = device.0.read(|read| read.visible_hashes()).unwrap();
    device.begin_join();
    device.apply(&[change("a", 1, &[("x", "group")]), change("b", 2, &[("x", "group")])], 2);
    assert_eq!(device.0.write(|write| write.leave()).unwrap(), 0);
    assert_eq!(device.0.read(|read| read.visible_hashes()).unwrap(), before);
    assert_eq!(device.state("a"), Some(ItemState::Own));
}

#[test]
fn leaving_as_before_brings_back_what_the_device_had() {
    let mut device = Device::alone();
    device.edit(vec![put("a", &[("x", "own")]), put("c", &[("x", "own")])]);
    let before = device.0.read(|read| read.visible_hashes()).unwrap();
    device.begin_join();
    device.apply(&[change("a", 1, &[("x", "group")]), change("b", 2, &[("x", "group")])], 2);
    device
        .0
        .write(|write| {
            write.enter(5)?;
            write.drop_own(&key("a"))?;
            write.drop_own(&key("c"))
        })
        .unwrap();
    device.edit(vec![patch("b", &[("x", "mine")])]);
    device.0.write(|write| write.begin_undo()).unwrap();
    assert!(matches!(device.0.write(|write| write.leave_as_before(0)), Err(Error::Busy)), "an edit waits");
    device.settle(&[accepted(1, 3)]);
    device.0.write(|write| write.leave_as_before(0)).unwrap();
    assert_eq!(device.0.read(|read| read.visible_hashes()).unwrap(), before);
    assert_eq!(device.0.read(|read| read.joined_at()).unwrap(), None);
}

#[test]
fn what_the_group_had_is_remembered_until_the_next_membership_and_comes_back_with_its_undo() {
    let mut device = Device::in_group();
    device.apply(&[change("a", 1, &[("x", "1")]), change("b", 2, &[("x", "1")])], 2);
    device.edit(vec![patch("a", &[("x", "mine")])]);
    device.0.write(|write| write.leave()).unwrap();
    device.edit(vec![put("n", &[("x", "new")])]);
    let unsent = device.0.read(|read| read.unsent(None, 10)).unwrap();
    let keys = |unsent: &[mfpsync_storage::local::Unsent]| {
        unsent.iter().map(|unsent| unsent.key.clone()).collect::<Vec<_>>()
    };
    assert_eq!(keys(&unsent), [key("a"), key("n")]);
    assert_eq!(device.0.read(|read| read.unsent(Some(&key("a")), 10)).unwrap(), unsent[1..]);

    device.begin_join();
    device.apply(&[change("a", 1, &[("x", "1")])], 1);
    assert_eq!(device.0.read(|read| read.unsent(None, 10)).unwrap(), unsent, "also while joining");
    device.0.write(|write| write.leave()).unwrap();
    assert_eq!(device.0.read(|read| read.unsent(None, 10)).unwrap(), unsent, "and after giving that up");

    device.begin_join();
    device.0.write(|write| write.enter(5)).unwrap();
    assert_eq!(device.0.read(|read| read.parted_from()).unwrap(), None);
    assert_eq!(device.0.read(|read| read.parted(&key("b"))).unwrap(), None);
    assert!(device.0.read(|read| read.unsent(None, 10)).unwrap().is_empty(), "nothing waits");
    device.0.write(|write| write.begin_undo()).unwrap();
    device.0.write(|write| write.leave_as_before(0)).unwrap();
    assert_eq!(device.0.read(|read| read.unsent(None, 10)).unwrap(), unsent, "as before the join");
    assert_eq!(device.0.read(|read| read.parted_from()).unwrap(), Some(membership().group));
}

#[test]
fn a_device_that_was_in_no_group_has_nothing_unsent() {
    let mut device = Device::alone();
    device.edit(vec![put("a", &[("x", "own")])]);
    assert_eq!(device.0.read(|read| read.unsent_count()).unwrap(), 0);
    device.begin_join();
    assert_eq!(device.0.read(|read| read.unsent_count()).unwrap(), 0);
}

#[test]
fn what_is_kept_of_a_join_is_dropped_when_it_is_old() {
    let mut device = Device::alone();
    device.edit(vec![put("a", &[("x", "own")])]);
    device.join();
    let hour_passes = |device: &mut Device| {
        device.0.write(|write| write.age_join(3)).unwrap();
        device.0.read(|read| read.joined_at()).unwrap().is_some()
    };
    assert_eq!([(); 3].map(|()| hour_passes(&mut device)), [true, true, false]);
    assert!(!hour_passes(&mut device), "nothing is left to grow old");
}

#[test]
fn a_join_that_is_being_taken_back_does_not_grow_too_old_for_it() {
    let mut device = Device::alone();
    device.edit(vec![put("a", &[("x", "own")])]);
    device.join();
    device.0.write(|write| write.begin_undo()).unwrap();
    device.0.write(|write| write.age_join(1)).unwrap();
    device.0.write(|write| write.leave_as_before(0)).unwrap();
    assert_eq!(device.sees("a", "x").as_deref(), Some("own"));
}

#[test]
fn a_device_belongs_to_one_group_at_a_time() {
    let mut device = Device::in_group();
    let again = device.0.write(|write| write.join(&membership(), Incarnation(13), None));
    assert!(matches!(again, Err(Error::Busy)));
    assert_eq!(device.0.read(|read| read.device()).unwrap().incarnation, Incarnation(12));
}

#[test]
fn the_incarnation_of_a_file_is_given_once() {
    let mut device = Device::alone();
    device.0.write(|write| write.initialise(Incarnation(99), DeviceId([1; 16]))).unwrap();
    assert_eq!(device.0.read(|read| read.device()).unwrap().incarnation, Incarnation(11));
}

#[test]
fn leaving_keeps_what_readers_see_as_the_devices_own() {
    let mut device = Device::in_group();
    let founding = founding();
    device
        .0
        .write(|write| write.adopt_roster(&[founding.promotion], &[founding.issuer], &[founding.member]))
        .unwrap();
    device.apply(&[change("a", 1, &[("x", "1")]), change("b", 2, &[("x", "1")])], 2);
    device.apply(&[change("c", 3, &[("x", "1")]), change("d", 4, &[("x", "1")])], 4);
    device.edit(vec![patch("b", &[("x", "mine")])]);
    device.edit(vec![delete("c")]);
    device.edit(vec![patch("d", &[("x", "taken")])]);
    device.settle(&[accepted(3, 9)]);
    let before = device.0.read(|read| read.visible_hashes()).unwrap();

    let waiting = device.0.read(|read| read.unsent(None, 10)).unwrap();
    assert_eq!(waiting.iter().map(|unsent| unsent.key.clone()).collect::<Vec<_>>(), [key("b"), key("c")]);
    assert_eq!((waiting[1].before.is_some(), &waiting[1].after), (true, &None), "a deletion waits");
    assert_eq!(device.0.write(|write| write.leave()).unwrap(), 2);
    assert_eq!(device.0.read(|read| read.visible_hashes()).unwrap(), before);
    let unsent = device.0.read(|read| read.unsent(None, 10)).unwrap();
    assert_eq!(unsent, waiting[..1], "what was accepted, as d, is the group's");
    assert_eq!(device.0.read(|read| read.unsent_count()).unwrap(), 1);
    assert!(device.0.read(|read| read.mirror_hashes()).unwrap().is_empty());
    for id in ["a", "b", "d"] {
        assert_eq!(device.state(id), Some(ItemState::Own));
    }
    assert_eq!((device.waiting(), device.cursor()), (0, None));
    let rest = device
        .0
        .read(|read| {
            Ok((read.lineage()?.len(), read.issuers()?.len(), read.members()?.len(), read.retained_count()?))
        })
        .unwrap();
    assert_eq!(rest, (0, 0, 0, 0));
    assert_eq!(device.edit(vec![delete("a")]), None);
    device.begin_join();
    let left = device.0.read(|read| read.own_keys()).unwrap();
    assert_eq!(left, [key("b"), key("d")], "what is left is the device's own in the next group");
}
