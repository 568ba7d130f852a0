//! Announcements from anybody, and the table of what was heard.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use mfpsync_storage::model::GroupId;
use proptest::prelude::*;

use super::announcement::Announcement;
use super::candidates::{ADDRESSES, Candidates, FORGET, OF_SOURCE, SERVERS};

const GROUP: GroupId = GroupId([7; 16]);
const START: Duration = Duration::ZERO;

fn announcement(name: &str) -> Announcement {
    Announcement::new(name, "Head office", GROUP, [1; 8])
}

fn reread(announcement: &Announcement, replaced: &[(&str, &str)]) -> Option<Announcement> {
    let txt = announcement.to_txt();
    Announcement::from_txt(|key| {
        let new = replaced.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_bytes());
        new.or_else(|| txt.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_bytes()))
    })
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn what_is_announced_is_read_back() {
    let said = Announcement { pairing_open: true, ..announcement("コピー機 2階") };
    assert_eq!(reread(&said, &[]), Some(said));
}

#[test]
fn members_recognise_their_group_and_a_tag_says_nothing_else() {
    let said = announcement("copier");
    assert!(said.is_of(GROUP) && !said.is_of(GroupId([8; 16])));
    let restarted = Announcement::new("copier", "Head office", GROUP, [2; 8]);
    assert!(restarted.is_of(GROUP));
    assert_ne!(restarted.tag, said.tag);
    let all: String = said.to_txt().into_iter().map(|(_, value)| value).collect();
    assert!(!all.contains(&GROUP.to_string()), "{all}");
}

#[test]
fn strange_records_are_dropped_and_strange_names_are_made_harmless() {
    let said = announcement("copier");
    for (key, value) in [("v", "2"), ("name", ""), ("name", "\u{1b}\u{200b}"), ("nonce", "12"), ("tag", "zz")]
    {
        assert_eq!(reread(&said, &[(key, value)]), None, "{key} {value:?}");
    }
    for (value, name) in [("a\u{1b}[2J\nb", "a[2Jb"), ("x\u{202e}y", "xy"), ("cop\u{200b}ier", "copier")] {
        assert_eq!(reread(&said, &[("name", value)]).unwrap().name, name);
    }
    let long = reread(&said, &[("name", &"長".repeat(400))]).unwrap().name;
    assert_eq!(long.chars().count(), 64);
    let longest = announcement(&"\u{1f5a8}".repeat(64));
    assert!(longest.to_txt().iter().all(|(key, value)| key.len() + 1 + value.len() <= 255));
}

#[test]
fn addresses_that_everybody_can_use_come_first_and_useless_ones_not_at_all() {
    let mut table = Candidates::new(1);
    let said = ["[fe80::1]:5", "[2001:db8::1]:5", "0.0.0.0:5", "224.0.0.1:5", "192.0.2.1:0", "192.0.2.1:5"];
    table.hear(START, "one", announcement("copier"), said.map(at).to_vec());
    let there = ["192.0.2.1:5", "[2001:db8::1]:5", "[fe80::1]:5"];
    assert_eq!(table.list(START)[0].addresses, there.map(at));
    table.hear(START, "two", announcement("nowhere"), vec![at("[::]:5")]);
    assert_eq!(table.list(START).len(), 1);
}

#[test]
fn every_server_of_the_group_has_its_turn_before_a_second_address_of_any() {
    let mut table = Candidates::new(1);
    table.hear(START, "a", announcement("a"), vec![at("192.0.2.1:5"), at("192.0.2.3:5")]);
    table.hear(START, "b", announcement("b"), vec![at("192.0.2.9:5"), at("192.0.2.2:5")]);
    let other = Announcement::new("c", "Branch", GroupId([8; 16]), [1; 8]);
    table.hear(START, "c", other, vec![at("192.0.2.7:5")]);
    let mut firsts = BTreeSet::new();
    for _ in 0..64 {
        let places = table.of_group(START, GROUP);
        let sorted = |places: &[SocketAddr]| places.iter().copied().collect::<BTreeSet<_>>();
        assert_eq!(sorted(&places[..2]), sorted(&["192.0.2.1:5", "192.0.2.2:5"].map(at)));
        assert_eq!(sorted(&places[2..]), sorted(&["192.0.2.3:5", "192.0.2.9:5"].map(at)));
        firsts.insert(places[0]);
    }
    assert_eq!(firsts.len(), 2, "no name is always first");
}

#[test]
fn what_was_not_heard_again_or_said_goodbye_is_forgotten() {
    let mut table = Candidates::new(1);
    for name in ["old", "new", "gone"] {
        table.hear(START, name, announcement(name), vec![at("192.0.2.1:5")]);
    }
    table.forget("gone");
    table.hear(FORGET / 2, "new", announcement("new"), vec![at("192.0.2.1:5")]);
    let names: Vec<_> = table.list(FORGET).into_iter().map(|one| one.announcement.name).collect();
    assert_eq!(names, ["new"]);
}

proptest! {
    #[test]
    fn no_flood_grows_the_table_and_none_from_one_address_displaces_others(
        seed: u64,
        said in prop::collection::vec((0_u32..500, 1_u16..9, 0_u8..40), 0..400),
    ) {
        let mut table = Candidates::new(seed);
        table.hear(START, "first", announcement("first"), vec![at("192.0.2.1:5")]);
        for (number, port, addresses) in &said {
            let places = (0..*addresses).map(|last| SocketAddr::from(([10, 0, 0, last], *port)));
            table.hear(START, &number.to_string(), announcement(&format!("n{number}")), places.collect());
        }
        table.hear(START, "last", announcement("last"), vec![at("192.0.2.2:5")]);
        let all = table.list(START);
        prop_assert!(all.len() <= OF_SOURCE + 2);
        prop_assert!(all.iter().all(|one| !one.addresses.is_empty() && one.addresses.len() <= ADDRESSES));
        for name in ["first", "last"] {
            prop_assert!(all.iter().any(|one| one.announcement.name == name), "{}", name);
        }
    }
}

/// Who comes from everywhere can make a server rare, but not hide it, wherever in the crowd it is heard.
#[test]
fn a_flood_from_many_addresses_leaves_everybody_a_chance() {
    const CROWD: u16 = 320;
    for place in [0, CROWD / 2, CROWD] {
        let mut found = 0;
        for seed in 0..100 {
            let mut table = Candidates::new(seed);
            for number in 0..=CROWD {
                if number == place {
                    table.hear(START, "ours", announcement("ours"), vec![at("192.0.2.1:5")]);
                } else {
                    let [high, low] = number.to_be_bytes();
                    let from = SocketAddr::from(([10, 0, high, low], 5));
                    table.hear(START, &number.to_string(), announcement("other"), vec![from]);
                }
            }
            let all = table.list(START);
            assert_eq!(all.len(), SERVERS);
            found += u32::from(all.iter().any(|one| one.announcement.name == "ours"));
        }
        // A fifth of 100; the seeds are always the same.
        assert!((8..40).contains(&found), "heard as number {place}: kept {found} times");
    }
}
