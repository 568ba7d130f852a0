//! The master: order, history, ledger, and that a mirror fed by its changes holds the same.

use mfpsync_storage::Inline;
use mfpsync_storage::master::{Extent, ItemWrite, Ledger, Loss, Mark, Master};
use mfpsync_storage::model::{
    Chain, DeviceId, EditOutcome, Incarnation, Operation, OperationNumber, Outcome, Sequence,
};
use proptest::prelude::*;

use crate::support::{Device, Server, author, cursor, fields, founding, key, removal, revision, write};

#[test]
fn one_operation_gives_one_sequence_to_all_its_writes() {
    let mut server = Server::founded();
    assert_eq!(server.accept(1, &[write("a", &[("x", "1")]), write("b", &[("x", "1")])]), 1);
    assert_eq!(server.accept(2, &[write("c", &[("x", "1")])]), 2);
    assert_eq!(server.accept(3, &[]), 2, "nothing written, nothing counted");
    let sequences: Vec<u64> = server.changes(0, 1 << 20).0.iter().map(|change| change.sequence.0).collect();
    assert_eq!(sequences, [1, 1, 2]);
    assert_eq!(server.0.read(|read| read.item_count()).unwrap(), 3);
}

/// I-16: with another replica, that has nothing yet either, it begins where it began before.
#[test]
fn i_16_what_is_unprotected_again_from_the_same_change_on_is_on_record() {
    let mut server = Server::founded();
    let ranges = |server: &Server| {
        let ranges = server.0.read(|read| read.unprotected()).unwrap();
        ranges.iter().map(|range| (range.after.0, range.through.map(|through| through.0))).collect::<Vec<_>>()
    };
    let begin =
        |server: &mut Server| server.0.write(|write| write.begin_unprotected(Sequence(3), 9)).unwrap();
    begin(&mut server);
    server.0.write(|write| write.end_unprotected(Sequence(5))).unwrap();
    assert_eq!(ranges(&server), [(3, Some(5))]);
    begin(&mut server);
    assert_eq!(ranges(&server), [(3, None)]);
}

#[test]
fn a_group_is_founded_once_and_an_empty_file_has_no_head() {
    let mut database = Inline::<Master>::in_memory().unwrap();
    assert_eq!(database.read(|read| read.head()).unwrap(), None);
    assert!(database.write(|write| write.accept(&author(1), &[removal("a")])).is_err());
    database.write(|write| write.found(&founding())).unwrap();
    assert!(database.write(|write| write.found(&founding())).is_err());
    let head = database.read(|read| read.founded_head()).unwrap();
    assert_eq!((head.sequence, head.chain), (Sequence::ZERO, Chain::START));
    let (lineage, issuers, members) =
        database.read(|read| Ok((read.lineage()?, read.issuers()?, read.members()?))).unwrap();
    let founding = founding();
    assert_eq!(
        (lineage, issuers, members),
        (vec![founding.promotion], vec![founding.issuer], vec![founding.member])
    );
}

#[test]
fn a_batch_never_splits_an_operation_and_small_limits_reach_the_end() {
    let mut server = Server::founded();
    server.accept(1, &[write("a", &[("x", "1")]), write("b", &[("x", "1")]), write("c", &[("x", "1")])]);
    server.accept(2, &[write("d", &[("x", "1")])]);
    server.accept(3, &[write("e", &[("x", "1")]), write("f", &[("x", "1")])]);
    // Sequence 2 leaves no row: its item changed again.
    server.accept(4, &[write("d", &[("x", "2")])]);
    for limit in [0, 1, 5, 6, 40, 80, 200] {
        let (mut after, mut seen) = (0, Vec::new());
        loop {
            let (changes, through, complete) = server.changes(after, limit);
            assert!(complete || through > after, "limit {limit} makes progress");
            assert!(changes.iter().all(|change| change.sequence.0 > after && change.sequence.0 <= through));
            seen.extend(changes.iter().map(|change| (change.sequence.0, change.key.id.clone())));
            after = through;
            if complete {
                break;
            }
            let next = server.changes(after, limit).0;
            assert!(next.iter().all(|change| change.sequence.0 > through), "split at {through}");
        }
        let ids: String = seen.iter().map(|(_, id)| id.as_str()).collect();
        assert_eq!((after, ids.as_str()), (4, "abcefd"), "limit {limit}");
    }
}

#[test]
fn a_head_whose_items_all_moved_on_is_still_reached() {
    let mut server = Server::founded();
    server.accept(1, &[write("a", &[("x", "1")])]);
    assert_eq!(server.changes(1, 1 << 20).1, 1);
    let (changes, through, complete) = server.changes(7, 1 << 20);
    assert_eq!((changes.len(), through, complete), (0, 7, true), "never behind what the reader has");
}

#[test]
fn any_sequence_a_peer_may_name_is_answered() {
    let mut server = Server::founded();
    server.accept(1, &[write("a", &[("x", "1")])]);
    for sequence in [1 << 51, 1 << 52, (1 << 52) + 1, u64::MAX] {
        assert_eq!(server.0.read(|read| read.chain_at(Sequence(sequence))).unwrap(), None);
        assert_eq!(server.0.read(|read| read.author_of(Sequence(sequence))).unwrap(), None);
        assert!(server.changes(sequence, 10).0.is_empty());
    }
}

#[test]
fn the_chain_and_author_of_every_sequence_are_known() {
    let mut server = Server::founded();
    let mut chains = vec![Chain::START];
    for number in 1..=3 {
        server.accept(number, &[write("a", &[("x", &number.to_string())]), write("b", &[("y", "1")])]);
        chains.push(server.0.read(|read| read.founded_head()).unwrap().chain);
    }
    for (sequence, chain) in (0..).zip(&chains) {
        assert_eq!(server.0.read(|read| read.chain_at(Sequence(sequence))).unwrap(), Some(*chain));
    }
    assert_eq!(chains.iter().collect::<std::collections::HashSet<_>>().len(), 4);
    assert_eq!(server.0.read(|read| read.chain_at(Sequence(4))).unwrap(), None);
    assert_eq!(server.0.read(|read| read.author_of(Sequence(2))).unwrap(), Some(Incarnation(12)));
    assert_eq!(server.0.read(|read| read.author_of(Sequence(4))).unwrap(), None);
}

#[test]
fn the_chain_depends_on_content_and_order() {
    let chain = |ids: [&str; 2], value: &str| {
        let mut server = Server::founded();
        for id in ids {
            server.accept(1, &[write(id, &[("x", value)])]);
        }
        server.0.read(|read| read.founded_head()).unwrap().chain
    };
    assert_eq!(chain(["a", "b"], "1"), chain(["a", "b"], "1"));
    assert_ne!(chain(["a", "b"], "1"), chain(["b", "a"], "1"));
    assert_ne!(chain(["a", "b"], "1"), chain(["a", "b"], "2"));
}

#[test]
fn an_items_history_tells_what_stood_before() {
    let mut server = Server::founded();
    server.accept(1, &[write("other", &[("x", "1")]), write("a", &[("x", "1")])]);
    let lost = ItemWrite { lost: fields(&[("x", "lost")]), ..write("a", &[("x", "2")]) };
    server.accept(2, &[lost]);
    server.accept(3, &[removal("a")]);
    server.accept(4, &[write("a", &[("x", "4")])]);
    let history = server.0.read(|read| read.history(&key("a"), 10)).unwrap();
    let told: Vec<_> = history
        .iter()
        .map(|entry| (entry.revision, entry.operation.0, entry.before.fields().cloned()))
        .collect();
    assert_eq!(
        told,
        [
            (revision(4), 4, None),
            (revision(3), 3, Some(fields(&[("x", "2")]))),
            (revision(2), 2, Some(fields(&[("x", "1")]))),
            (revision(1), 1, None),
        ]
    );
    assert_eq!(history[2].lost, Some(fields(&[("x", "lost")])));
    assert_eq!((history[0].actor.as_str(), history[0].accepted_at), ("sato", 2_004));
    assert_eq!(server.0.read(|read| read.history(&key("a"), 2)).unwrap().len(), 2);
    assert!(server.0.read(|read| read.history(&key("nobody"), 2)).unwrap().is_empty());
}

#[test]
fn pruned_history_forgets_values_and_keeps_the_order() {
    let mut server = Server::founded();
    for number in 1..=3 {
        server.accept(number, &[write("a", &[("x", &number.to_string())])]);
    }
    let loss = Loss { key: key("a"), by: Sequence(3), fields: fields(&[("x", "lost")]) };
    server.0.write(|write| write.keep_loss(&author(1), &loss)).unwrap();
    let superseded = server.0.read(|read| read.superseded_operations(Incarnation(12))).unwrap();
    assert_eq!(superseded, [OperationNumber(1)]);
    let (mut forgotten, mut after) = (0, Some(-1));
    while let Some(from) = after {
        let through = Extent { sequence: Sequence(2), superseded: 1 };
        let pruned = server.0.write(|write| write.prune_history(through, from, 1)).unwrap();
        (forgotten, after) = (forgotten + pruned.rows, pruned.next);
    }
    assert_eq!(forgotten, 2, "one change and the lost edit");
    let history = server.0.read(|read| read.history(&key("a"), 9)).unwrap();
    assert_eq!(history.iter().filter(|entry| entry.before.fields().is_some()).count(), 1);
    assert_eq!(history.len(), 3);
    assert!(server.0.read(|read| read.superseded_operations(Incarnation(12))).unwrap().is_empty());
    assert!(server.0.read(|read| read.chain_at(Sequence(1))).unwrap().is_some());
}

#[test]
fn a_day_of_running_ends_with_a_mark_of_how_far_the_history_reached() {
    let mut server = Server::founded();
    let day_passes = |server: &mut Server| {
        let ended: Vec<_> = (0..24).map(|_| server.0.write(|write| write.pass_hour()).unwrap()).collect();
        assert_eq!(ended, [[false; 23].as_slice(), &[true]].concat());
    };
    let loss = Loss { key: key("a"), by: Sequence(1), fields: fields(&[("x", "lost")]) };
    server.accept(1, &[write("a", &[("x", "1")])]);
    server.0.write(|write| write.keep_loss(&author(1), &loss)).unwrap();
    day_passes(&mut server);
    // Nothing is accepted, but another edit is lost: it belongs to the second day.
    server.0.write(|write| write.keep_loss(&author(2), &loss)).unwrap();
    day_passes(&mut server);
    let mark =
        |day, sequence, superseded| Mark { day, extent: Extent { sequence: Sequence(sequence), superseded } };
    assert_eq!(server.0.read(|read| read.marks()).unwrap(), [mark(1, 1, 1), mark(2, 1, 2)]);

    let forget = |server: &mut Server, through| {
        server.0.write(|write| write.prune_history(through, -1, 100)).unwrap();
        server.0.read(|read| read.superseded_operations(Incarnation(12))).unwrap()
    };
    assert_eq!(forget(&mut server, mark(1, 1, 1).extent), [OperationNumber(2)]);
    assert!(forget(&mut server, mark(2, 1, 2).extent).is_empty());
    // What is lost after everything was forgotten is not taken for something older.
    server.0.write(|write| write.keep_loss(&author(3), &loss)).unwrap();
    assert_eq!(forget(&mut server, mark(2, 1, 2).extent), [OperationNumber(3)]);
    server.0.write(|write| write.drop_marks_before(2)).unwrap();
    assert_eq!(server.0.read(|read| read.marks()).unwrap(), [mark(2, 1, 2)]);
    assert_eq!(server.0.read(|read| read.days_run()).unwrap(), 2);
}

#[test]
fn the_ledger_answers_a_repetition_and_a_confirmation_keeps_the_mark() {
    let mut server = Server::founded();
    let (incarnation, number) = (Incarnation(12), OperationNumber);
    let outcome =
        |sequence| Outcome::Accepted { revision: revision(sequence), edits: vec![EditOutcome::Applied] };
    let change = |server: &mut Server, change: &dyn Fn(&mut Ledger)| {
        let changed = server.0.write(|write| {
            let mut ledger = write.ledger(incarnation)?;
            change(&mut ledger);
            write.put_ledger(incarnation, DeviceId([1; 16]), &ledger)
        });
        changed.unwrap();
        server.0.read(|read| read.ledger(incarnation)).unwrap()
    };
    for at in 1..=5 {
        change(&mut server, &|ledger| ledger.record(Operation::digest(&[at as u8]), &outcome(at)));
    }
    let ledger = server.0.read(|read| read.ledger(incarnation)).unwrap();
    assert_eq!(ledger.digest(number(3)), Some(&Operation::digest(&[3])));
    assert_eq!(ledger.outcome(number(3)).unwrap(), Some(outcome(3)));
    assert!(ledger.digest(number(6)).is_none() && ledger.digest(number(0)).is_none());

    let ledger = change(&mut server, &|ledger| ledger.confirm(number(4)));
    assert!(ledger.digest(number(3)).is_none() && ledger.digest(number(4)).is_some());
    let ledger = change(&mut server, &|ledger| ledger.confirm(number(9)));
    assert_eq!((ledger.confirmed(), ledger.last()), (number(5), number(5)), "a mark ends at the last");
    assert_eq!(ledger.outcome(number(5)).unwrap(), Some(outcome(5)));
    let ledger = change(&mut server, &|ledger| ledger.confirm(number(2)));
    assert_eq!(ledger.confirmed(), number(5), "a mark never falls");
    let ledger = change(&mut server, &|ledger| ledger.record(Operation::digest(&[6]), &outcome(6)));
    assert_eq!(ledger.outcome(number(6)).unwrap(), Some(outcome(6)));
    let other = server.0.read(|read| read.ledger(Incarnation(13))).unwrap();
    assert_eq!((other.last(), other.confirmed()), (number(0), number(0)));
    let device_of = |of| server.0.read(|read| read.device_of(of)).unwrap();
    assert_eq!(device_of(incarnation), Some(DeviceId([1; 16])));
    assert_eq!(device_of(Incarnation(13)), None);
}

#[test]
fn a_ledger_that_is_confirmed_late_is_found_whole_and_then_forgotten() {
    let mut server = Server::founded();
    let incarnation = Incarnation(12);
    let digest = |number: u64| Operation::digest(&number.to_be_bytes());
    let outcome =
        |sequence| Outcome::Accepted { revision: revision(sequence), edits: vec![EditOutcome::Applied] };
    // In runs of every length, so that blocks end anywhere.
    let mut next = 1;
    for run in [1, 62, 2, 200, 64, 7] {
        let push = server.0.write(|write| {
            let mut ledger = write.ledger(incarnation)?;
            (next..next + run).for_each(|number| ledger.record(digest(number), &outcome(number)));
            write.put_ledger(incarnation, DeviceId([1; 16]), &ledger)
        });
        push.unwrap();
        next += run;
    }
    let look = |server: &Server, number| {
        let read = server.0.read(|read| {
            let latest = read.ledger(incarnation)?;
            let earlier = read.ledger_of(incarnation, &latest, OperationNumber(number))?;
            let place = earlier.unwrap_or(latest);
            Ok((place.digest(OperationNumber(number)).copied(), place.outcome(OperationNumber(number))?))
        });
        read.unwrap()
    };
    for number in 1..next {
        assert_eq!(look(&server, number), (Some(digest(number)), Some(outcome(number))), "{number}");
    }
    for mark in [100, next - 1] {
        let confirm = server.0.write(|write| {
            let mut ledger = write.ledger(incarnation)?;
            ledger.confirm(OperationNumber(mark));
            assert_eq!((ledger.last().0, ledger.confirmed().0), (next - 1, mark));
            write.put_ledger(incarnation, DeviceId([1; 16]), &ledger)
        });
        confirm.unwrap();
        assert_eq!(look(&server, mark).0, Some(digest(mark)));
    }
    assert!((1..next - 1).all(|number| look(&server, number).0.is_none()));
}

#[test]
fn usage_counts_live_items_of_one_scope() {
    let mut server = Server::founded();
    server.accept(1, &[write("a", &[("x", "1")]), write("b", &[("x", "1")])]);
    server.accept(2, &[removal("b")]);
    let usage = server.0.read(|read| read.scope_usage(&key("a").scope, "")).unwrap();
    assert_eq!(usage, (1, fields(&[("x", "1")]).encode().len() as u64));
}

#[derive(Debug, Clone)]
enum Step {
    Accept(Vec<(u8, Option<u8>)>),
    Follow(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let item = (0..12u8, proptest::option::weighted(0.75, any::<u8>()));
    let writes = proptest::collection::btree_map(0..12u8, item.prop_map(|(_, value)| value), 1..5)
        .prop_map(|writes| Step::Accept(writes.into_iter().collect()));
    proptest::collection::vec(prop_oneof![3 => writes, 1 => (0..300usize).prop_map(Step::Follow)], 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_mirror_fed_by_changes_has_the_masters_content_hashes(steps in steps()) {
        let mut server = Server::founded();
        let mut device = Device::in_group();
        let follow = |device: &mut Device, server: &Server, limit: usize| {
            let (changes, through, complete) = server.changes(device.cursor().unwrap_or(0), limit);
            device.apply(&changes, through);
            complete
        };
        for (number, step) in (1..).zip(&steps) {
            match step {
                Step::Accept(writes) => {
                    let writes: Vec<ItemWrite> = writes
                        .iter()
                        .map(|(id, value)| match value {
                            Some(value) => write(&id.to_string(), &[("x", &value.to_string())]),
                            None => removal(&id.to_string()),
                        })
                        .collect();
                    server.accept(number, &writes);
                }
                Step::Follow(limit) => drop(follow(&mut device, &server, *limit)),
            }
        }
        while !follow(&mut device, &server, 100) {}
        let master = server.0.read(|read| read.content_hashes()).unwrap();
        let live: u64 = master.values().map(|content| content.items).sum();
        prop_assert_eq!(server.0.read(|read| read.item_count()).unwrap(), live);
        prop_assert_eq!(device.0.read(|read| read.mirror_hashes()).unwrap(), master.clone());
        prop_assert_eq!(device.0.read(|read| read.visible_hashes()).unwrap(), master);
        let head = server.0.read(|read| read.founded_head()).unwrap();
        prop_assert_eq!(device.cursor(), Some(cursor(head.sequence.0).sequence.0));
    }
}
