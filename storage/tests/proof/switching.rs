//! A switch of sharing that is under way: what is kept of it, and the items it looks at next.

use mfpsync_storage::Inline;
use mfpsync_storage::master::{Author, ItemWrite, Master, OperatorAct, Setting, Switching};
use mfpsync_storage::model::{
    Choice, DeviceId, Fields, ItemKey, Kind, Place, Scope, Sequence, Start, Tally, Target,
};
use proptest::prelude::*;

use crate::support::{fields, founding};

fn write(key: ItemKey) -> ItemWrite {
    ItemWrite {
        deleted: key.id.ends_with('0'),
        fields: fields(&[("text", &key.device)]),
        key,
        touched: vec!["text".to_owned()],
        sequences: None,
        lost: Fields::new(),
        keep_prior: false,
    }
}

fn master(keys: &[ItemKey]) -> Inline<Master> {
    let mut master: Inline<Master> = Inline::in_memory().unwrap();
    master.write(|write| write.found(&founding())).unwrap();
    let author = Author::operator(DeviceId([1; 16]), OperatorAct::Share, String::new(), 0);
    for key in keys {
        master.write(|to| to.accept(&author, &[write(key.clone())])).unwrap();
    }
    master
}

fn keys() -> impl Strategy<Value = Vec<ItemKey>> {
    let scope = prop::sample::select(vec!["shared", "user/a", "user/b", "user/b0", "device/x"]);
    let kind = prop::sample::select(vec!["ui.language", "ui.language", "ui", "ui.sound"]);
    let device = prop::sample::select(vec!["", "aa", "ab", "b"]);
    let key = (scope, kind, device, 0..12u8)
        .prop_map(|(scope, kind, device, id)| ItemKey::parse(scope, kind, device, &format!("{id}")).unwrap());
    prop::collection::btree_set(key, 0..60).prop_map(|keys| keys.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn portions_bring_every_item_once_whole_and_in_order(keys in keys(), rows in 1..20usize) {
        let master = master(&keys);
        let kind = Kind::parse("ui.language").unwrap();
        let (mut seen, mut after, mut ended) = (Vec::new(), None, false);
        while !ended {
            let portion = master.read(|read| read.portion(&kind, after.as_ref(), rows)).unwrap();
            prop_assert!(portion.items.len() < rows + 4, "{} rows", portion.items.len());
            for (key, _) in &portion.items {
                prop_assert!(after.as_ref().is_none_or(|after| Place::of(key) > *after));
                prop_assert!(portion.through.as_ref().is_none_or(|through| Place::of(key) <= *through));
            }
            seen.extend(portion.items.into_iter().map(|(key, _)| key));
            (after, ended) = (portion.through.clone(), portion.through.is_none());
        }
        let mut due: Vec<ItemKey> = keys.into_iter().filter(|key| key.kind == kind).collect();
        due.sort_by_key(|key| (Place::of(key), key.device.clone()));
        prop_assert_eq!(seen, due);
    }
}

#[test]
fn what_is_under_way_is_kept_as_it_was_and_holds_for_items_that_have_moved() {
    let key = |id: &str| ItemKey::parse("user/b", "ui.language", "", id).unwrap();
    let mut master = master(&[]);
    let switching = Switching {
        kind: key("m").kind,
        to: Target::Shared(Choice::Of(DeviceId([7; 16]))),
        actor: "admin".to_owned(),
        began: Sequence(3),
        through: Place::of(&key("m")),
        sequence: Sequence(9),
        expected: 4,
        tally: Tally { items: 2, kept: 300, ..Tally::default() },
    };
    let own = Switching { to: Target::DeviceSpecific(Start::Before), ..switching.clone() };
    for switching in [&switching, &own] {
        master.write(|write| write.put_switching(Some(switching))).unwrap();
        assert_eq!(master.read(|read| read.switching()).unwrap().as_ref(), Some(switching));
    }
    let moved = Setting { sharing: own.to.sharing(), sequence: own.sequence };
    let other = ItemKey { kind: Kind::parse("ui").unwrap(), ..key("a") };
    let before = ItemKey { scope: Scope::user("a").unwrap(), ..key("z") };
    let behind = ItemKey { scope: Scope::user("b0").unwrap(), ..key("a") };
    for (key, expected) in [
        (key("m"), moved),
        (before, moved),
        (key("n"), Setting::default()),
        (behind, Setting::default()),
        (other, Setting::default()),
    ] {
        assert_eq!(master.read(|read| read.sharing_of(&key)).unwrap(), expected, "{key:?}");
    }
    master.write(|write| write.put_switching(None)).unwrap();
    assert_eq!(master.read(|read| read.switching()).unwrap(), None);
}
