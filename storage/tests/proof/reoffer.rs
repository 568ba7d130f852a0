//! What a device offers to a new reign, and that its readers see no difference.

use mfpsync_storage::local::{Heard, Offered, RetainedLimits};
use mfpsync_storage::model::{Action, Kind, OperationNumber, Revision, Sequence};

use crate::support::{
    Device, accepted, change, fields, key, patch, put, rejected, revision, superseded, tombstone,
};

fn offer(device: &mut Device, fork: u64, known: u64) -> Offered {
    let not_the_servers = |kind: &Kind| !kind.as_str().starts_with("group.");
    let fork: Revision = revision(fork);
    let heard = Heard { known: OperationNumber(known), confirmed: OperationNumber(0) };
    device.0.write(|write| write.offer_again(fork, heard, 9, not_the_servers)).unwrap()
}

/// The group's state up to 3, and one edit of another device and two of this one beyond.
fn behind_a_fork() -> Device {
    let mut device = Device::in_group();
    device.apply(&[change("a", 2, &[("x", "old")]), change("b", 3, &[("x", "old")])], 3);
    device.edit(vec![patch("a", &[("x", "ours")])]);
    device.edit(vec![put("no", &[("x", "refused")])]);
    device.edit(vec![put("new", &[("x", "ours")])]);
    device.settle(&[accepted(1, 4), rejected(2), accepted(3, 6)]);
    device.apply(&[change("a", 4, &[("x", "ours")]), change("b", 5, &[("x", "theirs")])], 5);
    device
}

#[test]
fn what_a_lost_reign_had_waits_again_under_its_numbers_and_readers_see_no_difference() {
    let mut device = behind_a_fork();
    device.edit(vec![patch("b", &[("y", "later")])]);
    let shown = |device: &Device| ["a", "b", "new"].map(|id| (device.sees(id, "x"), device.sees(id, "y")));
    let before = shown(&device);
    assert_eq!(offer(&mut device, 3, 0), Offered { own: 2, mirrored: 2 });
    assert_eq!(shown(&device), before);

    let waiting = device.outbox();
    let numbers: Vec<u64> = waiting.iter().map(|operation| operation.number.0).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6], "in order, without a gap");
    let yielding: Vec<bool> = waiting.iter().map(|operation| operation.yields).collect();
    assert_eq!(yielding, [false, false, false, false, true, true]);
    assert!(waiting[1].is_withdrawn(), "what was refused asks for nothing");
    assert_eq!(waiting[0].edits[0].action, Action::Patch { set: fields(&[("x", "ours")]), remove: vec![] });
    let mirrored = &waiting[5].edits[0];
    assert_eq!((&mirrored.key, mirrored.base.revision), (&key("b"), revision(3)));
    assert_eq!(mirrored.action, Action::Put(fields(&[("x", "theirs")])));
    assert_eq!(device.0.read(|read| read.retained_count()).unwrap(), 0);
    assert_eq!(device.low_water(), 0);

    // The new reign sends what it has, and then answers.
    device.0.write(|write| write.begin_reset()).unwrap();
    device.apply(&[change("a", 2, &[("x", "old")]), change("b", 3, &[("x", "old")])], 3);
    device.0.write(|write| write.finish_reset()).unwrap();
    assert_eq!(shown(&device), before, "also while the server does not have it yet");
    let accepted =
        [accepted(1, 4), rejected(2), accepted(3, 5), accepted(4, 6), accepted(5, 7), accepted(6, 8)];
    assert_eq!(device.settle(&accepted).set_aside, 0);
    let b = [("x", "theirs"), ("y", "later")];
    device.apply(
        &[change("a", 7, &[("x", "ours")]), change("new", 5, &[("x", "ours")]), change("b", 8, &b)],
        8,
    );
    assert_eq!(shown(&device), before);
    assert_eq!(device.waiting(), 0);
}

#[test]
fn what_the_new_reign_has_is_not_offered_again() {
    let mut device = behind_a_fork();
    assert_eq!(offer(&mut device, 6, 3), Offered::default());
    assert_eq!(device.waiting(), 0);
    assert_eq!(device.0.read(|read| read.retained_count()).unwrap(), 2);
}

#[test]
fn i_03_outcomes_that_what_is_offered_again_builds_on_stay_above_the_low_water_mark() {
    let mut device = Device::in_group();
    device.edit(vec![put("a", &[("x", "first")])]);
    device.edit(vec![patch("a", &[("x", "second")])]);
    device.settle(&[accepted(1, 1), accepted(2, 2)]);
    device.apply(&[change("a", 2, &[("x", "second")])], 2);
    assert_eq!(device.low_water(), 2);
    assert_eq!(offer(&mut device, 1, 1), Offered { own: 1, mirrored: 1 });
    assert_eq!(device.outbox()[0].edits[0].base.after, Some(OperationNumber(1)));
    assert_eq!(device.low_water(), 0);
}

#[test]
fn a_deletion_beyond_the_fork_is_offered_as_one() {
    let mut device = Device::in_group();
    device.apply(&[change("a", 2, &[("x", "old")])], 2);
    device.apply(&[tombstone("a", 3)], 3);
    assert_eq!(offer(&mut device, 2, 0), Offered { own: 0, mirrored: 1 });
    assert_eq!(device.outbox()[0].edits[0].action, Action::Delete);
    assert!(!device.exists("a"));
}

#[test]
fn what_was_kept_no_more_leaves_no_gap_and_shows_what_the_group_has() {
    let mut device = Device::in_group();
    device.apply(&[change("a", 1, &[("x", "old")])], 1);
    device.edit(vec![patch("a", &[("x", "ours")])]);
    let none = RetainedLimits { operations: 0, bytes: 0 };
    device.0.write(|write| write.settle(&[accepted(1, 2)], 0, none)).unwrap();
    assert_eq!(offer(&mut device, 1, 0), Offered::default());
    assert!(device.outbox()[0].is_withdrawn());
    assert_eq!(device.sees("a", "x").as_deref(), Some("old"));
    assert_eq!(device.0.read(|read| read.device()).unwrap().retained_dropped, 1);
}

#[test]
fn an_edit_of_what_the_new_reign_lacks_counts_as_one_of_what_it_has() {
    let mut device = Device::in_group();
    device.apply(&[change("a", 1, &[("x", "old")])], 1);
    device.apply(&[change("a", 3, &[("x", "elsewhere")])], 3);
    device.edit(vec![patch("a", &[("x", "here")])]);
    let base = |device: &mut Device| device.outbox()[0].edits[0].base.revision.sequence.0;
    assert_eq!(base(&mut device), 3);
    offer(&mut device, 2, 0);
    assert_eq!(base(&mut device), 2);
    assert_eq!(device.sees("a", "x").as_deref(), Some("here"));
}

#[test]
fn what_was_answered_before_the_reigns_parted_waits_no_more() {
    let mut device = Device::in_group();
    device.apply(&[change("a", 1, &[("x", "old")])], 1);
    device.edit(vec![patch("a", &[("x", "first")])]);
    device.settle(&[accepted(1, 2)]);
    // A reign that lacks it, which is left behind before it answers.
    assert_eq!(offer(&mut device, 1, 0).own, 1);
    device.edit(vec![patch("a", &[("x", "second")])]);
    let heard = Heard { known: OperationNumber(1), confirmed: OperationNumber(1) };
    device.0.write(|write| write.offer_again(revision(1), heard, 9, |_| true)).unwrap();
    let numbers: Vec<u64> = device.outbox().iter().map(|operation| operation.number.0).collect();
    assert_eq!((numbers, device.waiting()), (vec![2], 1));
    assert_eq!(device.sees("a", "x").as_deref(), Some("second"));
}

#[test]
fn an_edit_under_a_number_that_was_confirmed_before_the_disk_was_put_back_goes_on_waiting() {
    let mut device = Device::in_group();
    device.edit(vec![put("a", &[("x", "made again")])]);
    let heard = Heard { known: OperationNumber(1), confirmed: OperationNumber(1) };
    device.0.write(|write| write.offer_again(revision(1), heard, 9, |_| true)).unwrap();
    assert_eq!(device.waiting(), 1, "the server refuses it, and a person is asked");
    assert_eq!(device.sees("a", "x").as_deref(), Some("made again"));
}

#[test]
fn what_both_branches_decided_is_asked_again_until_the_answer_of_the_one_that_stays_is_known() {
    let mut device = behind_a_fork();
    let heard = Heard { known: OperationNumber(3), confirmed: OperationNumber(0) };
    let offered = device.0.write(|write| write.offer_again(revision(3), heard, 9, |_| true)).unwrap();
    assert_eq!(offered.own, 2);
    let waiting = device.outbox();
    let asked: Vec<(u64, bool)> =
        waiting.iter().map(|operation| (operation.number.0, operation.is_withdrawn())).collect();
    assert_eq!(asked[..3], [(1, false), (2, true), (3, false)], "without a gap");
    assert_eq!((waiting[0].was, device.low_water()), (Some(Sequence(4)), 0));
    // There the edit had lost against another device's.
    let settlement = device.settle(&[superseded(1, 5, 4), rejected(2), accepted(3, 6)]);
    assert_eq!(settlement.set_aside, 1);
}
