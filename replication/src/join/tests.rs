//! Joins over real databases: what is planned is what happens, and can be taken back.

use std::collections::BTreeMap;

use mfpsync_storage::Inline;
use mfpsync_storage::local::{EditContext, Local, LocalEdit, LocalWrite, Membership, RetainedLimits};
use mfpsync_storage::model::{
    Chain, Change, Cursor, DeviceId, EditOutcome, Epoch, GroupId, Incarnation, Operation, Outcome, PublicKey,
    Revision, Sequence, Value, sharing_key,
};
use proptest::prelude::*;

use super::*;

const PERSONAL: &str = "address.personal";

fn key(kind: &str, id: &str) -> ItemKey {
    ItemKey::parse("user/sato", kind, "", id).unwrap()
}

fn texts(pairs: &[(&str, &str)]) -> Fields {
    pairs.iter().map(|(name, text)| (*name, Value::Text((*text).to_owned()))).collect()
}

fn mail(address: &str, name: &str) -> Fields {
    texts(&[("class", "email"), ("mail", address), ("name", name)])
}

/// A device with its group's changes at hand; the group takes every edit as it comes.
struct Device {
    database: Inline<Local>,
    group: BTreeMap<ItemKey, Option<Fields>>,
    sequence: u64,
}

impl Device {
    fn with(own: &[(ItemKey, Fields)]) -> Self {
        let mut database = Inline::in_memory().unwrap();
        database.write(|write: &LocalWrite<'_>| write.initialise(Incarnation(1), DeviceId([1; 16]))).unwrap();
        let context = EditContext { actor: String::new(), now: 1, limits: None };
        for (key, fields) in own {
            let edit = LocalEdit { key: key.clone(), action: Action::Put(fields.clone()) };
            database.write(|write: &LocalWrite<'_>| write.edit(vec![edit.clone()], &context)).unwrap();
        }
        Self { database, group: BTreeMap::new(), sequence: 0 }
    }

    /// Begins to join a group that has these; none was deleted there.
    fn joining(mut self, group: &[(ItemKey, Option<Fields>)]) -> Self {
        let membership = Membership {
            group: GroupId([7; 16]),
            group_name: "third floor".to_owned(),
            root_key: PublicKey([1; 32]),
        };
        self.database.write(|write| write.join(&membership, Incarnation(2), None)).unwrap();
        for (key, fields) in group {
            self.change(key.clone(), fields.clone());
        }
        self
    }

    /// Leaves, edits what it now has alone, and begins to join again; others changed this meanwhile.
    fn returning(mut self, edits: &[(ItemKey, Action)], meanwhile: &[(ItemKey, Option<Fields>)]) -> Self {
        self.database.write(|write| write.leave()).unwrap();
        let context = EditContext { actor: String::new(), now: 1, limits: None };
        for (key, action) in edits {
            let edit = LocalEdit { key: key.clone(), action: action.clone() };
            self.database.write(|write: &LocalWrite<'_>| write.edit(vec![edit.clone()], &context)).unwrap();
        }
        let mut group = std::mem::take(&mut self.group);
        group.extend(meanwhile.iter().cloned());
        // A deletion that everybody has seen is forgotten: the group sends nothing of it.
        group.retain(|_, fields| fields.is_some());
        self.joining(&group.into_iter().collect::<Vec<_>>())
    }

    fn change(&mut self, key: ItemKey, fields: Option<Fields>) {
        self.sequence += 1;
        let change = Change {
            key: key.clone(),
            sequence: Sequence(self.sequence),
            deleted: fields.is_none(),
            fields: fields.clone().unwrap_or_default(),
        };
        self.group.insert(key, fields);
        let cursor = Cursor {
            epoch: Epoch { number: 1, nonce: [0; 16] },
            sequence: Sequence(self.sequence),
            group: GroupId([7; 16]),
            chain: Chain([0; 32]),
        };
        self.database.write(|write| write.apply_changes(&[change], &cursor)).unwrap();
    }

    fn plan(&mut self, policies: &Policies) -> Plan {
        self.database.read(|read| plan(read, policies)).unwrap()
    }

    fn accept(&mut self, policies: &Policies) -> Plan {
        self.database.write(|write| accept(write, policies, None, 9)).unwrap().unwrap()
    }

    /// The group takes everything that waits.
    fn sync(&mut self) {
        let waiting = self.database.read(|read| read.outbox(usize::MAX >> 1, usize::MAX)).unwrap();
        for (number, record) in waiting {
            let operation = Operation::decode(&record).unwrap();
            let count = operation.edits.len();
            for edit in operation.edits {
                let present = self.group.get(&edit.key).cloned().flatten();
                let fields = match edit.action {
                    Action::Put(fields) => Some(fields),
                    Action::Delete => None,
                    Action::Patch { set, remove } => {
                        let mut fields = present.unwrap_or_default();
                        remove.iter().for_each(|name| drop(fields.remove(name)));
                        set.iter().for_each(|(name, value)| fields.assign(name, Some(value)));
                        Some(fields)
                    }
                };
                self.change(edit.key, fields);
            }
            let revision = Revision { epoch: 1, sequence: Sequence(self.sequence) };
            let outcome = Outcome::Accepted { revision, edits: vec![EditOutcome::Applied; count] };
            self.database
                .write(|write| write.settle(&[(number, outcome.clone())], 1, RetainedLimits::default()))
                .unwrap();
        }
    }

    fn sees(&mut self, kind: &str, id: &str) -> Option<Fields> {
        self.database.read(|read| read.item(&key(kind, id))).unwrap().map(|item| item.fields)
    }

    fn own(&mut self) -> BTreeMap<(Scope, Kind), mfpsync_storage::model::ContentHash> {
        self.database.read(|read| read.visible_hashes()).unwrap()
    }

    fn live(&self) -> BTreeMap<ItemKey, Fields> {
        let live = self.group.iter();
        live.filter_map(|(key, fields)| Some((key.clone(), fields.clone()?))).collect()
    }
}

fn all(policy: Policy) -> Policies {
    Policies { others: policy, kinds: BTreeMap::new() }
}

fn tally(plan: &Plan) -> Tally {
    let tallies = plan.tallies();
    assert!(tallies.len() <= 1);
    tallies.into_values().next().unwrap_or_default()
}

#[test]
fn entries_under_other_ids_meet_by_their_destination_and_none_is_there_twice() {
    let own = [
        (key(PERSONAL, "own-1"), mail("ann@example.com", "Ann")),
        (key(PERSONAL, "own-2"), mail("ben@EXAMPLE.com", "Benjamin")),
        (key(PERSONAL, "own-3"), mail("cem@example.com", "Cem")),
    ];
    let group = [
        (key(PERSONAL, "g-1"), Some(mail("ann@example.com", "Ann"))),
        (key(PERSONAL, "g-2"), Some(mail("ben@example.com", "Ben"))),
        (key(PERSONAL, "g-4"), Some(mail("dan@example.com", "Dan"))),
    ];
    let mut device = Device::with(&own).joining(&group);
    let planned = device.plan(&Policies::default());
    assert_eq!(tally(&planned), Tally { identical: 1, changed: 1, added: 1, ..Tally::default() });
    assert_eq!(device.accept(&Policies::default()), planned);
    device.sync();
    let ids: Vec<String> = device.live().into_keys().map(|key| key.id).collect();
    assert_eq!(ids, ["g-1", "g-2", "g-4", "own-3"]);
    let merged = device.sees(PERSONAL, "g-2").unwrap();
    assert_eq!(merged, mail("ben@example.com", "Benjamin"), "one destination, whatever its spelling");
}

#[test]
fn members_follow_their_entries_to_the_groups_ids() {
    let members = |ids: &[&str]| Value::Set(ids.iter().map(|id| (*id).to_owned()).collect());
    let mut list = texts(&[("class", "group"), ("name", "all")]);
    list.insert("members", members(&["own-1", "own-2"]));
    let own = [
        (key(PERSONAL, "own-1"), mail("ann@example.com", "Ann")),
        (key(PERSONAL, "own-2"), mail("ben@example.com", "Ben")),
        (key("address.group", "own-3"), list),
    ];
    let mut device =
        Device::with(&own).joining(&[(key(PERSONAL, "g-1"), Some(mail("ann@example.com", "Ann")))]);
    device.accept(&Policies::default());
    let list = device.sees("address.group", "own-3").unwrap();
    assert_eq!(list.get("members"), Some(&members(&["g-1", "own-2"])));
}

#[test]
fn a_destination_that_stands_twice_meets_twice_and_no_more() {
    let ann = mail("ann@example.com", "Ann");
    let own = [(key(PERSONAL, "a"), ann.clone()), (key(PERSONAL, "b"), ann.clone())];
    let mut device = Device::with(&own).joining(&[(key(PERSONAL, "g"), Some(ann))]);
    assert_eq!(
        tally(&device.plan(&Policies::default())),
        Tally { identical: 1, added: 1, ..Tally::default() }
    );
}

#[test]
fn each_policy_does_what_it_says() {
    let own = [
        (key(PERSONAL, "both"), mail("ann@example.com", "Anna")),
        (key(PERSONAL, "gone"), mail("old@example.com", "Old")),
        (key(PERSONAL, "mine"), mail("me@example.com", "Me")),
        (key(PERSONAL, "same"), mail("sam@example.com", "Sam")),
    ];
    let mut theirs = mail("ann@example.com", "Ann");
    theirs.insert("reading", Value::Text("an".to_owned()));
    let group = [
        (key(PERSONAL, "both"), Some(theirs.clone())),
        (key(PERSONAL, "gone"), None),
        (key(PERSONAL, "same"), Some(mail("sam@example.com", "Sam"))),
    ];
    let mut merged = mail("ann@example.com", "Anna");
    merged.insert("reading", Value::Text("an".to_owned()));
    let cases = [
        (
            Policy::Merge,
            Tally { added: 1, changed: 1, identical: 1, replaced: 1, left_out: 0, unsent: 0 },
            merged,
        ),
        (
            Policy::ServerWins,
            Tally { added: 1, changed: 0, identical: 1, replaced: 2, left_out: 0, unsent: 0 },
            theirs.clone(),
        ),
        (
            Policy::DeviceWins,
            Tally { added: 2, changed: 1, identical: 1, replaced: 0, left_out: 0, unsent: 0 },
            mail("ann@example.com", "Anna"),
        ),
        (
            Policy::Fresh,
            Tally { added: 0, changed: 0, identical: 1, replaced: 1, left_out: 2, unsent: 0 },
            theirs,
        ),
    ];
    for (policy, expected, both) in cases {
        let mut device = Device::with(&own).joining(&group);
        let planned = device.plan(&all(policy));
        assert_eq!(tally(&planned), expected, "{policy:?}");
        device.accept(&all(policy));
        device.sync();
        assert_eq!(device.sees(PERSONAL, "both"), Some(both), "{policy:?}");
        assert_eq!(device.sees(PERSONAL, "gone").is_some(), policy == Policy::DeviceWins);
        assert_eq!(device.sees(PERSONAL, "mine").is_some(), policy != Policy::Fresh);
    }
}

#[test]
fn a_kind_may_have_a_policy_of_its_own() {
    let own =
        [(key(PERSONAL, "a"), mail("a@example.com", "A")), (key("shortcut", "b"), texts(&[("x", "1")]))];
    let mut device = Device::with(&own).joining(&[]);
    let kinds = BTreeMap::from([(Kind::parse("shortcut").unwrap(), Policy::Fresh)]);
    let policies = Policies { others: Policy::Merge, kinds };
    device.accept(&policies);
    assert!(device.sees(PERSONAL, "a").is_some());
    assert_eq!(device.sees("shortcut", "b"), None);
    assert_eq!(policies.to_string().parse(), Ok(policies));
}

#[test]
fn what_only_the_server_writes_is_never_offered() {
    let own = [(key("network", "proxy"), texts(&[("host", "proxy.example.com")]))];
    for policy in [Policy::Merge, Policy::DeviceWins] {
        let mut device = Device::with(&own).joining(&[]);
        assert_eq!(tally(&device.plan(&all(policy))), Tally { left_out: 1, ..Tally::default() });
    }
}

#[test]
fn a_plan_that_is_no_longer_true_is_not_carried_out() {
    let own = [(key(PERSONAL, "a"), mail("a@example.com", "A"))];
    let mut device = Device::with(&own).joining(&[]);
    let digest = device.plan(&Policies::default()).digest();
    device.change(key(PERSONAL, "a"), Some(mail("b@example.com", "B")));
    let policies = Policies::default();
    let refused = device.database.write(|write| accept(write, &policies, Some(digest), 9)).unwrap();
    assert_eq!(refused, None);
    assert_eq!(device.sees(PERSONAL, "a"), Some(mail("a@example.com", "A")), "still apart");
    let digest = device.plan(&policies).digest();
    assert!(device.database.write(|write| accept(write, &policies, Some(digest), 9)).unwrap().is_some());
}

#[test]
fn taking_a_join_back_leaves_what_others_wrote_since() {
    let own = [
        (key(PERSONAL, "a"), mail("a@example.com", "A")),
        (key(PERSONAL, "b"), mail("b@example.com", "B")),
        (key(PERSONAL, "c"), mail("c@example.com", "C")),
    ];
    let group = [(key(PERSONAL, "c"), Some(mail("c@example.com", "Cee")))];
    let mut device = Device::with(&own).joining(&group);
    let before = device.own();
    device.accept(&Policies::default());
    device.sync();
    let mut edited = mail("b@example.com", "B");
    edited.insert("reading", Value::Text("bi".to_owned()));
    device.change(key(PERSONAL, "b"), Some(edited.clone()));
    let preview = device.database.read(undo_preview).unwrap();
    let taken_back = device.database.write(|write| undo(write, 10)).unwrap();
    assert_eq!(taken_back, TakenBack { removed: 1, restored: 1, standing: 1 });
    assert_eq!(preview, Some(taken_back));
    device.sync();
    device.database.write(|write| write.leave_as_before(0)).unwrap();
    assert_eq!(device.own(), before);
    let expected = [(key(PERSONAL, "b"), edited), (key(PERSONAL, "c"), mail("c@example.com", "Cee"))];
    assert_eq!(device.live(), BTreeMap::from(expected));
}

#[test]
fn a_device_that_returns_offers_what_it_edited_and_not_what_grew_old() {
    let there = |name: &str, reading: &str| {
        let mut fields = mail(&format!("{name}@example.com"), name);
        fields.insert("reading", Value::Text(reading.to_owned()));
        fields
    };
    let set = |field: &str, text: &str| Action::Patch { set: texts(&[(field, text)]), remove: Vec::new() };
    let ids = ["old", "edited", "both", "gone", "gone-edited", "same"];
    let group: Vec<_> = ids.iter().map(|id| (key(PERSONAL, id), Some(there(id, "1")))).collect();
    let mut device = Device::with(&[]).joining(&group);
    device.accept(&Policies::default());
    let edits = [
        (key(PERSONAL, "edited"), set("reading", "mine")),
        (key(PERSONAL, "both"), set("reading", "mine")),
        (key(PERSONAL, "gone-edited"), set("reading", "mine")),
        (key(PERSONAL, "new"), Action::Put(there("new", "1"))),
    ];
    let mut renamed = there("both", "1");
    renamed.insert("name", Value::Text("Both".to_owned()));
    let meanwhile = [
        (key(PERSONAL, "old"), Some(there("old", "2"))),
        (key(PERSONAL, "both"), Some(renamed.clone())),
        (key(PERSONAL, "gone"), None),
        (key(PERSONAL, "gone-edited"), None),
    ];
    let mut device = device.returning(&edits, &meanwhile);
    let fates = |plan: &Plan| -> BTreeMap<String, (&'static str, bool)> {
        let word = |fate: &Fate| match fate {
            Fate::Added(_) => "added",
            Fate::Changed(_) => "changed",
            Fate::Identical => "identical",
            Fate::Replaced(_) => "replaced",
            Fate::LeftOut => "left out",
        };
        plan.steps.iter().map(|step| (step.own.id.clone(), (word(&step.fate), step.unsent))).collect()
    };
    let expected = |edited, new| {
        BTreeMap::from(
            [
                ("both", (edited, true)),
                ("edited", (edited, true)),
                ("gone", ("left out", false)),
                ("gone-edited", ("replaced", true)),
                ("new", (new, true)),
                ("old", ("replaced", false)),
                ("same", ("identical", false)),
            ]
            .map(|(id, fate)| (id.to_owned(), fate)),
        )
    };
    assert_eq!(fates(&device.plan(&all(Policy::Merge))), expected("changed", "added"));
    assert_eq!(fates(&device.plan(&all(Policy::ServerWins))), expected("replaced", "added"));
    let wins = fates(&device.plan(&all(Policy::DeviceWins)));
    assert_eq!((wins["old"].0, wins["gone"].0), ("changed", "added"), "said so, the old state wins as well");
    assert_eq!(tally(&device.plan(&all(Policy::Fresh))).unsent, 4);

    device.accept(&all(Policy::Merge));
    device.sync();
    renamed.insert("reading", Value::Text("mine".to_owned()));
    let live = device.live();
    assert_eq!(live[&key(PERSONAL, "both")], renamed, "merged field by field");
    assert_eq!(live[&key(PERSONAL, "old")], there("old", "2"));
    assert_eq!(live.len(), 5, "{:?}", live.keys());
}

#[test]
fn what_became_each_devices_own_meanwhile_is_not_taken_for_deleted() {
    let language = key("ui.language", "l");
    let value = |text: &str| texts(&[("value", text)]);
    let mut device = Device::with(&[]).joining(&[(language.clone(), Some(value("ja")))]);
    device.accept(&Policies::default());
    let others = ItemKey { device: DeviceId([2; 16]).to_string(), ..language.clone() };
    let meanwhile = [
        (language.clone(), None),
        (others, Some(value("ja"))),
        (sharing_key(&language.kind).unwrap(), Some(Sharing::DeviceSpecific.fields(1))),
    ];
    let edits = [(language.clone(), Action::Put(value("en")))];
    let mut device = device.returning(&edits, &meanwhile);
    let added = Tally { added: 1, unsent: 1, ..Tally::default() };
    assert_eq!(tally(&device.plan(&all(Policy::Merge))), added);
    device.accept(&all(Policy::Merge));
    device.sync();
    assert_eq!(device.sees("ui.language", "l"), Some(value("en")));
    // What it made its own and the group then took for all is no longer this device's to take back.
    let own = ItemKey { device: DeviceId([1; 16]).to_string(), ..language.clone() };
    device.change(own, None);
    device.change(language.clone(), Some(value("en")));
    device.change(sharing_key(&language.kind).unwrap(), Some(Sharing::Shared.fields(2)));
    let taken_back = device.database.write(|write| undo(write, 10)).unwrap();
    assert_eq!((taken_back.removed, taken_back.standing), (0, 1));
    device.sync();
    assert_eq!(device.live().get(&language), Some(&value("en")));
}

#[test]
fn in_another_group_a_device_is_a_stranger() {
    let mut device = Device::with(&[]).joining(&[(key(PERSONAL, "a"), Some(mail("a@example.com", "A")))]);
    device.accept(&Policies::default());
    device.database.write(|write| write.leave()).unwrap();
    let other = Membership {
        group: GroupId([8; 16]),
        group_name: "fourth floor".to_owned(),
        root_key: PublicKey([1; 32]),
    };
    device.database.write(|write| write.join(&other, Incarnation(3), None)).unwrap();
    assert_eq!(tally(&device.plan(&all(Policy::Merge))), Tally { added: 1, ..Tally::default() });
}

fn entry() -> impl Strategy<Value = Fields> {
    (0..6u8, 0..3u8, any::<bool>()).prop_map(|(address, name, numbered)| {
        let mut fields = mail(&format!("user{address}@example.com"), &format!("name {name}"));
        if numbered {
            fields.insert("index", Value::Text(format!("20{name}")));
        }
        fields
    })
}

fn book(ids: std::ops::Range<u8>) -> impl Strategy<Value = BTreeMap<u8, Fields>> {
    prop::collection::btree_map(ids, entry(), 0..6)
}

fn policy() -> impl Strategy<Value = Policy> {
    prop::sample::select(vec![Policy::Merge, Policy::ServerWins, Policy::DeviceWins, Policy::Fresh])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the books and the policy: the plan's numbers are what happens, no destination stands
    /// more often than on the side that had it more often, and taking back restores both sides.
    #[test]
    fn a_join_does_what_was_planned_and_can_be_taken_back(
        own in book(0..8), group in book(4..12), policy in policy()
    ) {
        let named = |book: &BTreeMap<u8, Fields>| -> Vec<(ItemKey, Fields)> {
            book.iter().map(|(id, fields)| (key(PERSONAL, &id.to_string()), fields.clone())).collect()
        };
        let there: Vec<_> = named(&group).into_iter().map(|(key, fields)| (key, Some(fields))).collect();
        let mut device = Device::with(&named(&own)).joining(&there);
        let (before, group_before) = (device.own(), device.live());
        let planned = device.plan(&all(policy));
        let tally = tally(&planned);
        prop_assert_eq!(device.accept(&all(policy)), planned);
        device.sync();
        let after = device.live();
        let added = after.keys().filter(|key| !group_before.contains_key(key)).count() as u64;
        let changed = after.iter().filter(|(key, fields)| {
            group_before.get(*key).is_some_and(|before| before != *fields)
        }).count() as u64;
        prop_assert_eq!((added, changed), (tally.added, tally.changed));
        let ids_apart = own.keys().all(|id| !group.contains_key(id));
        let count = |fields: &[&Fields], address: &Value| {
            fields.iter().filter(|fields| fields.get("mail") == Some(address)).count()
        };
        for fields in after.values().filter(|_| ids_apart) {
            let Some(address) = fields.get("mail") else { continue };
            let sides = [own.values().collect::<Vec<_>>(), group.values().collect()];
            let most = sides.iter().map(|side| count(side, address)).max().unwrap_or_default();
            prop_assert!(count(&after.values().collect::<Vec<_>>(), address) <= most);
        }
        let taken_back = device.database.write(|write| undo(write, 10)).unwrap();
        prop_assert_eq!(taken_back, TakenBack { removed: added, restored: changed, standing: 0 });
        device.sync();
        device.database.write(|write| write.leave_as_before(0)).unwrap();
        prop_assert_eq!(device.own(), before);
        prop_assert_eq!(device.live(), group_before);
    }
}
