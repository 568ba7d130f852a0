//! Entering and leaving a group.

use mfpsync_storage::Error;
use mfpsync_storage::local::ItemState;
use mfpsync_storage::model::{Action, Incarnation};

use crate::support::{Device, accepted, change, delete, fields, founding, key, membership, patch, put};

#[test]
fn joining_offers_the_devices_own_items() {
    let mut device = Device::alone();
    device.edit(vec![put("a", &[("x", "1")])]);
    device.edit(vec![put("b", &[("x", "2")])]);
    device.edit(vec![put("c", &[("x", "3")]), delete("b")]);
    assert_eq!(device.join(), 2);
    let outbox = device.outbox();
    assert_eq!(outbox.iter().map(|operation| operation.number.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(outbox[0].edits[0].key, key("a"));
    assert_eq!(outbox[0].edits[0].action, Action::Put(fields(&[("x", "1")])));
    assert_eq!(outbox[0].edits[0].base.revision.sequence.0, 0);
    assert_eq!(device.state("a"), Some(ItemState::Pending));
    let state = device.0.read(|read| read.device()).unwrap();
    assert_eq!((state.incarnation, state.last_operation.0), (Incarnation(12), 2));
    assert_eq!(device.edit(vec![put("a", &[("x", "9")])]), Some(3));
}

#[test]
fn a_device_belongs_to_one_group_at_a_time() {
    let mut device = Device::in_group();
    let again = device.0.write(|write| write.join(&membership(), Incarnation(13), 1));
    assert!(matches!(again, Err(Error::Busy)));
    assert_eq!(device.0.read(|read| read.device()).unwrap().incarnation, Incarnation(12));
}

#[test]
fn the_incarnation_of_a_file_is_given_once() {
    let mut device = Device::alone();
    device.0.write(|write| write.initialise(Incarnation(99))).unwrap();
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

    assert_eq!(device.0.write(|write| write.leave()).unwrap(), 2);
    assert_eq!(device.0.read(|read| read.visible_hashes()).unwrap(), before);
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
    assert_eq!(device.join(), 2, "what is left is offered to the next group");
}
