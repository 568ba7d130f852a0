//! Which of an item's two rows shows, and where edits go, while a kind changes its sharing.

use mfpsync_storage::local::{ItemState, LocalEdit};
use mfpsync_storage::model::{
    Action, Change, DeviceId, Fields, ItemKey, Kind, Sequence, Sharing, sharing_key,
};

use crate::support::{Device, accepted, change, delete, fields, key, patch, put, superseded, tombstone};

const ME: DeviceId = DeviceId([1; 16]);
const OTHER: DeviceId = DeviceId([2; 16]);

fn own(id: &str, sequence: u64, pairs: &[(&str, &str)]) -> Change {
    Change { key: key(id).of_device(ME), ..change(id, sequence, pairs) }
}

fn setting(sharing: Sharing, sequence: u64) -> Change {
    let key = sharing_key(&Kind::parse("ui.language").unwrap()).unwrap();
    Change { key, sequence: Sequence(sequence), deleted: false, fields: sharing.fields(0) }
}

fn keys(device: &Device) -> Vec<ItemKey> {
    let items = device.0.read(|read| read.items(&key("a").scope, None, None, 100)).unwrap();
    items.into_iter().map(|item| item.key).collect()
}

#[test]
fn other_devices_items_are_held_and_shown_only_by_name() {
    let mut device = Device::in_group();
    let others = Change { key: key("a").of_device(OTHER), ..change("a", 1, &[("x", "theirs")]) };
    device.apply(&[others.clone(), own("a", 2, &[("x", "mine")]), change("b", 3, &[("x", "ours")])], 3);
    assert_eq!(keys(&device), [key("b"), key("a").of_device(ME)]);
    assert_eq!(device.sees("a", "x").as_deref(), Some("mine"));
    let theirs = device.0.read(|read| read.item(&others.key)).unwrap().unwrap();
    assert_eq!(theirs.fields, fields(&[("x", "theirs")]));
    assert_eq!(device.0.read(|read| read.users("", 10)).unwrap()[0].items, 2);
}

#[test]
fn both_keys_name_one_item_and_the_setting_decides_where_a_new_one_goes() {
    let mut device = Device::in_group();
    device.apply(&[setting(Sharing::DeviceSpecific, 1)], 1);
    device.edit(vec![put("a", &[("x", "1")])]);
    assert_eq!(keys(&device), [key("a").of_device(ME)]);
    device.apply(&[setting(Sharing::Shared, 2)], 2);
    let again = LocalEdit { key: key("b").of_device(ME), action: Action::Put(fields(&[("x", "1")])) };
    device.edit(vec![again]);
    assert_eq!(keys(&device), [key("b"), key("a").of_device(ME)]);
    let both = vec![
        patch("a", &[("y", "2")]),
        LocalEdit {
            key: key("a").of_device(ME),
            action: Action::Patch { set: fields(&[("z", "3")]), remove: Vec::new() },
        },
    ];
    let refused = device.0.write(|write| write.edit(both, &crate::support::context()));
    assert!(refused.is_err(), "one operation names one item twice");
}

#[test]
fn what_waits_moves_along_when_an_item_becomes_the_devices_own() {
    let mut device = Device::in_group();
    device.apply(&[change("a", 1, &[("x", "1"), ("y", "1")]), change("b", 2, &[("x", "1")])], 2);
    let number = device.edit(vec![patch("a", &[("x", "2")])]).unwrap();
    device.edit(vec![delete("b")]);
    let record = device.outbox();
    device.apply(&[setting(Sharing::DeviceSpecific, 3)], 3);
    device.apply(
        &[
            own("a", 4, &[("x", "1"), ("y", "1")]),
            own("b", 4, &[("x", "1")]),
            tombstone("a", 4),
            tombstone("b", 4),
        ],
        4,
    );
    assert_eq!(keys(&device), [key("a").of_device(ME)]);
    assert_eq!(device.sees("a", "x").as_deref(), Some("2"));
    assert_eq!(device.sees("a", "y").as_deref(), Some("1"));
    assert_eq!(device.state("a"), Some(ItemState::Pending));
    assert_eq!(device.outbox(), record, "the server knows operations by their bytes");
    device.settle(&[accepted(number, 5)]);
    assert_eq!(device.sees("a", "x").as_deref(), Some("2"), "until the mirror shows it");
    device.apply(&[own("a", 5, &[("x", "2"), ("y", "1")])], 5);
    assert_eq!(device.state("a"), Some(ItemState::Synced));
}

#[test]
fn a_value_chosen_for_all_shows_at_once_over_ones_own_that_waits() {
    let mut device = Device::in_group();
    device.apply(&[setting(Sharing::DeviceSpecific, 1), own("a", 2, &[("x", "1")])], 2);
    let number = device.edit(vec![patch("a", &[("x", "mine")])]).unwrap();
    let gone = Change { key: key("a").of_device(ME), ..tombstone("a", 4) };
    device.apply(&[setting(Sharing::Shared, 3), change("a", 4, &[("x", "ours")]), gone], 4);
    assert_eq!(device.sees("a", "x").as_deref(), Some("ours"));
    assert_eq!(device.settle(&[superseded(number, 4, 3)]).set_aside, 1);
    assert_eq!(keys(&device), [key("a")]);
    assert_eq!(device.waiting(), 0);
    let none: Option<Fields> =
        device.0.read(|read| read.mirrored(&key("a").of_device(ME))).unwrap().unwrap().fields;
    assert_eq!(none, None);
}

#[test]
fn a_device_leaves_with_an_edit_that_waits_beneath_the_form_that_shows() {
    let mut device = Device::in_group();
    device.apply(&[setting(Sharing::DeviceSpecific, 1), own("a", 2, &[("x", "1")])], 2);
    device.edit(vec![patch("a", &[("x", "2")])]);
    device.apply(&[change("a", 3, &[("x", "for all")])], 3);
    assert_eq!((device.sees("a", "x").as_deref(), device.waiting()), (Some("for all"), 1));
    assert_eq!(device.0.write(|write| write.leave()).unwrap(), 1);
    assert_eq!((device.sees("a", "x").as_deref(), device.waiting()), (Some("for all"), 0));
}
