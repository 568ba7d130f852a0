//! Edits at a device: what readers see, and what enters the outbox.

use mfpsync_storage::Error;
use mfpsync_storage::local::{EditContext, ItemState, LocalEdit, OutboxLimits};
use mfpsync_storage::model::{Action, Fields, ItemKey, Kind, OperationNumber, Scope, Value, limit};

use crate::support::{Device, change, context, delete, fields, key, patch, put, revision};

#[test]
fn an_edit_outside_a_group_shows_at_once_and_leaves_no_operation() {
    let mut device = Device::alone();
    assert_eq!(device.edit(vec![put("a", &[("language", "ja")])]), None);
    assert_eq!(device.sees("a", "language").as_deref(), Some("ja"));
    assert_eq!(device.state("a"), Some(ItemState::Own));
    assert_eq!(device.waiting(), 0);
    assert_eq!(device.edit(vec![delete("a")]), None);
    assert!(!device.exists("a"));
    assert_eq!(device.edit(vec![put("a", &[("language", "en")])]), None);
    assert_eq!(device.sees("a", "language").as_deref(), Some("en"));
}

#[test]
fn an_edit_in_a_group_waits_with_the_base_its_author_saw() {
    let mut device = Device::in_group();
    device.apply(&[change("a", 4, &[("x", "0")])], 4);
    assert_eq!(device.edit(vec![patch("a", &[("x", "1")])]), Some(1));
    assert_eq!(device.edit(vec![patch("a", &[("x", "2")])]), Some(2));
    assert_eq!(device.edit(vec![put("b", &[("y", "1")])]), Some(3));
    assert_eq!(device.state("a"), Some(ItemState::Pending));

    let outbox = device.outbox();
    let bases: Vec<_> = outbox.iter().map(|operation| operation.edits[0].base).collect();
    assert_eq!((bases[0].revision, bases[0].after), (revision(4), None));
    assert_eq!((bases[1].revision, bases[1].after), (revision(4), Some(OperationNumber(1))));
    assert_eq!((bases[2].revision.sequence.0, bases[2].after), (0, None));
    assert_eq!((outbox[0].actor.as_str(), outbox[0].made_at), ("sato", 1_000));
}

#[test]
fn edits_made_together_are_one_operation() {
    let mut device = Device::in_group();
    assert_eq!(device.edit(vec![put("a", &[("x", "1")]), put("b", &[("x", "2")])]), Some(1));
    assert_eq!(device.outbox()[0].edits.len(), 2);
}

#[test]
fn an_edit_that_changes_nothing_makes_no_operation() {
    let mut device = Device::in_group();
    device.apply(&[change("a", 1, &[("x", "1")])], 1);
    assert_eq!(device.edit(vec![put("a", &[("x", "1")])]), None);
    assert_eq!(device.edit(vec![delete("b")]), None);
    assert_eq!(device.state("a"), Some(ItemState::Synced));
}

#[test]
fn a_full_outbox_refuses_and_keeps_what_it_has() {
    let mut device = Device::in_group();
    let full =
        |operations, bytes| EditContext { limits: Some(OutboxLimits { operations, bytes }), ..context() };
    device.edit(vec![put("a", &[("x", "1")])]);
    for context in [full(1, 1 << 20), full(100, 40)] {
        let refused = device.0.write(|write| write.edit(vec![put("b", &[("x", "1")])], &context));
        assert!(matches!(refused, Err(Error::OutboxFull { waiting: 1 })), "{refused:?}");
    }
    assert!(!device.exists("b"));
    assert_eq!(device.waiting(), 1);
    assert_eq!(device.edit(vec![put("b", &[("x", "1")])]), Some(2));
}

#[test]
fn counters_agree_with_what_waits() {
    let mut device = Device::in_group();
    for number in 0..5 {
        device.edit(vec![put("a", &[("x", &number.to_string())])]);
    }
    let bytes: usize = device.outbox().iter().map(|operation| operation.encode().len()).sum();
    let waiting = device.0.read(|read| read.waiting()).unwrap();
    assert_eq!((waiting.operations, waiting.bytes), (5, bytes as u64));
}

#[test]
fn an_edit_that_no_server_could_read_is_refused_when_it_is_made() {
    let huge: Fields = [("x", Value::Bytes(vec![0; limit::ITEM_BYTES]))].into_iter().collect();
    let many: Fields = (0..=limit::ITEM_FIELDS).map(|n| (format!("f{n}"), Value::Flag(true))).collect();
    let nameless: Fields = [("", Value::Flag(true))].into_iter().collect();
    for mut device in [Device::alone(), Device::in_group()] {
        for (fields, too_large) in [(&huge, true), (&many, true), (&nameless, false)] {
            let edit = LocalEdit { key: key("a"), action: Action::Put(fields.clone()) };
            let refused = device.0.write(|write| write.edit(vec![edit], &context()));
            match refused {
                Err(Error::ItemTooLarge) => assert!(too_large),
                Err(Error::Unacceptable(_)) => assert!(!too_large),
                other => panic!("{other:?}"),
            }
            assert!(!device.exists("a"));
        }
    }
    let mut device = Device::in_group();
    let twice = vec![put("a", &[("x", "1")]), put("a", &[("x", "2")])];
    let many = (0..=limit::OPERATION_EDITS).map(|n| put(&n.to_string(), &[("x", "1")])).collect();
    for edits in [twice, many] {
        let refused = device.0.write(|write| write.edit(edits, &context()));
        assert!(matches!(refused, Err(Error::Unacceptable(_))), "{refused:?}");
    }
    assert_eq!(device.waiting(), 0);
}

#[test]
fn a_patch_may_name_removed_fields_in_any_order() {
    let mut device = Device::in_group();
    device.apply(&[change("a", 1, &[("p", "1"), ("q", "1"), ("r", "1")])], 1);
    let remove = ["r", "p", "r", "q"].map(str::to_owned).to_vec();
    let action = Action::Patch { set: fields(&[("q", "2")]), remove };
    device.edit(vec![LocalEdit { key: key("a"), action }]);
    assert_eq!(device.sees("a", "q").as_deref(), Some("2"));
    assert_eq!(device.sees("a", "p"), None);
    let Action::Patch { remove, .. } = &device.outbox()[0].edits[0].action else { panic!("not a patch") };
    assert_eq!(remove, &["p", "r"]);
}

#[test]
fn lists_come_in_key_order_and_continue_behind_a_key() {
    let mut device = Device::alone();
    let keys: Vec<ItemKey> = ["button.personal", "ui.language"]
        .iter()
        .flat_map(|kind| ["1", "2", "3", "4", "5", "6"].map(|id| (*kind, id)))
        .map(|(kind, id)| ItemKey::parse("user/sato", kind, "", id).unwrap())
        .collect();
    for key in keys.iter().rev() {
        device.edit(vec![LocalEdit { key: key.clone(), action: Action::Put(fields(&[("x", "1")])) }]);
    }
    device.edit(vec![LocalEdit {
        key: ItemKey::parse("user/suzuki", "ui.language", "", "1").unwrap(),
        action: Action::Put(fields(&[("x", "1")])),
    }]);

    let scope = Scope::user("sato").unwrap();
    let list = |kind: Option<&str>, after: Option<&ItemKey>, limit| {
        let kind = kind.map(|kind| Kind::parse(kind).unwrap());
        let items = device.0.read(|read| read.items(&scope, kind.as_ref(), after, limit)).unwrap();
        items.into_iter().map(|item| item.key).collect::<Vec<_>>()
    };
    assert_eq!(list(None, None, 100), keys);
    assert_eq!(list(Some("ui.language"), None, 100), keys[6..]);
    assert_eq!(list(Some("button.personal"), None, 100), keys[..6]);
    assert_eq!(list(Some("button.personal"), Some(&keys[1]), 3), keys[2..5]);
    assert_eq!(list(Some("ui.language"), Some(&keys[1]), 100), keys[6..]);
    assert_eq!(list(Some("button.personal"), Some(&keys[7]), 100), []);
    let mut paged = Vec::new();
    while paged.len() < keys.len() {
        paged.extend(list(None, paged.last(), 5));
    }
    assert_eq!(paged, keys);
}

#[test]
fn a_user_over_a_limit_may_shrink_but_not_grow() {
    use mfpsync_storage::Error;
    use mfpsync_storage::model::limit;
    let mut device = Device::alone();
    for number in 0..limit::USER_ITEMS {
        device.edit(vec![put(&number.to_string(), &[("x", "1")])]);
    }
    let more = device.0.write(|write| write.edit_counted(vec![put("more", &[("x", "1")])], &context()));
    assert!(matches!(more, Err(Error::UserFull { items: 2_001, .. })));
    assert!(!device.exists("more"));
    device.edit(vec![patch("1", &[("x", "22")])]);
    let swapped = vec![delete("1"), put("more", &[("x", "1")])];
    let edited = device.0.write(|write| write.edit_counted(swapped, &context())).unwrap();
    assert!(edited.users[0].is_nearly_full() && edited.users[0].items == 2_000);
}
