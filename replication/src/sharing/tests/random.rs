//! Any order of edits, pushes, single batches and switches: in the end all agree, and nothing is lost.

use mfpsync_storage::master::HistoryFilter;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Happens {
    Put(usize, u8, u8),
    Patch(usize, u8),
    Delete(usize, u8),
    Push(usize),
    Batch(usize),
    Switch(u8),
    Step,
}

fn happens() -> impl Strategy<Value = Happens> {
    let (device, item, value) = (0..3usize, 0..2u8, any::<u8>());
    prop_oneof![
        3 => (device.clone(), item.clone(), value).prop_map(|(d, i, v)| Happens::Put(d, i, v)),
        4 => (device.clone(), item.clone()).prop_map(|(d, i)| Happens::Patch(d, i)),
        1 => (device.clone(), item).prop_map(|(d, i)| Happens::Delete(d, i)),
        4 => device.clone().prop_map(Happens::Push),
        5 => device.prop_map(Happens::Batch),
        2 => (0..6u8).prop_map(Happens::Switch),
        2 => Just(Happens::Step),
    ]
}

fn target(choice: u8, now: Sharing) -> Target {
    match now {
        Sharing::Shared if choice.is_multiple_of(2) => Target::DeviceSpecific(Start::Seen),
        Sharing::Shared => Target::DeviceSpecific(Start::Before),
        Sharing::DeviceSpecific => Target::Shared(match choice {
            0 => Choice::Newest,
            1 => Choice::Before,
            _ => Choice::Of(id(usize::from(choice) % 3)),
        }),
    }
}

fn run(kind_name: &str, batch: usize, steps: &[Happens]) {
    let mut fleet = Fleet::of(3);
    fleet.batch = batch;
    let item = |number: u8| key(kind_name, &format!("i{number}"));
    let mut written = BTreeMap::new();
    for (at, step) in steps.iter().enumerate() {
        let text = format!("{at}");
        match step {
            Happens::Put(device, number, value) => {
                fleet.put(*device, &item(*number), &[("x", &text), ("y", &value.to_string())]);
                written.insert(text.clone(), *device);
            }
            Happens::Patch(device, number) => {
                fleet.patch(*device, &item(*number), &[("x", &text)]);
                assert_eq!(
                    fleet.sees(*device, &item(*number), "x"),
                    Some(text.clone()),
                    "one's own edit shows"
                );
                written.insert(text.clone(), *device);
            }
            Happens::Delete(device, number) => fleet.edit(*device, &item(*number), Action::Delete),
            Happens::Push(device) => drop(fleet.push(*device)),
            Happens::Batch(device) => drop(fleet.pull_batch(*device)),
            Happens::Switch(choice) => {
                let now = fleet.master.read(|read| read.sharing(&kind(kind_name))).unwrap().sharing;
                let under_way = fleet.master.read(|read| read.switching()).unwrap();
                let begun = fleet.begin(kind_name, target(*choice, now), None, 1);
                let fits = match &begun {
                    Begun::UnderWay(switching) => under_way.as_ref() == Some(switching),
                    Begun::Stepped(_) | Begun::NothingChosen => under_way.is_none(),
                    Begun::Already | Begun::Moved => false,
                };
                assert!(fits, "{begun:?}");
            }
            Happens::Step => drop(fleet.step(1)),
        }
    }
    while fleet.step(1).is_some() {}
    fleet.sync_all();
    fleet.agrees();
    let sharing = fleet.master.read(|read| read.sharing(&kind(kind_name))).unwrap().sharing;
    let items = fleet.master.read(|read| read.items_of_kind(&item(0).scope, &kind(kind_name))).unwrap();
    for (key, held) in items.iter().filter(|(_, held)| !held.deleted) {
        assert_eq!(key.device.is_empty(), sharing == Sharing::Shared, "one form lives");
        for device in [A, B, C] {
            if key.device.is_empty() || key.device == id(device).to_string() {
                let shown = fleet.item(device, key).map(|(_, fields)| fields);
                assert_eq!(shown.as_ref(), Some(&held.fields), "devices show what the server has");
            }
        }
    }
    let kept = everything_kept(&fleet);
    for (text, device) in written {
        assert!(kept.contains(&text), "what device {device} wrote at {text} is nowhere");
    }
}

/// Every text of field `x` that lives, or stands in the history, or is set aside at a device.
fn everything_kept(fleet: &Fleet) -> BTreeSet<String> {
    use mfpsync_storage::master::{HistoryLine, HistoryPlace};
    let mut kept = BTreeSet::new();
    let mut keep = |fields: &Fields| {
        if let Some(Value::Text(text)) = fields.get("x") {
            kept.insert(text.clone());
        }
    };
    let page = fleet.master.read(|read| {
        read.browse(&HistoryFilter::default(), HistoryPlace::NEWEST, usize::MAX, usize::MAX >> 1)
    });
    for line in page.unwrap().lines {
        match line {
            HistoryLine::Change { key, entry } => {
                entry.before.fields().into_iter().chain(&entry.lost).for_each(&mut keep);
                let item = fleet.master.read(|read| read.item(&key)).unwrap();
                item.iter().for_each(|item| keep(&item.fields));
            }
            HistoryLine::Lost(lost) => keep(&lost.fields),
        }
    }
    for device in &fleet.devices {
        for entry in device.read(|read| read.set_aside(u32::MAX)).unwrap() {
            for edit in &entry.operation.edits {
                if let Action::Put(fields) | Action::Patch { set: fields, .. } = &edit.action {
                    keep(fields);
                }
            }
        }
    }
    kept
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn nothing_vanishes_and_all_agree(
        name in prop::sample::select(vec!["ui.language", "address.shared", "vendor.x"]),
        batch in prop::sample::select(vec![1usize, 300, 1 << 20]),
        steps in prop::collection::vec(happens(), 1..60),
    ) {
        run(name, batch, &steps);
    }
}
