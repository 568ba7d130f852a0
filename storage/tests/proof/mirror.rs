//! The mirror beneath waiting edits, settling, and starting over.

use mfpsync_storage::local::ItemState;
use mfpsync_storage::model::{OperationNumber, Sequence};

use crate::support::{
    Device, accepted, change, delete, key, patch, put, rejected, revision, superseded, tombstone,
};

#[test]
fn a_change_from_the_server_shows_and_its_repetition_is_harmless() {
    let mut device = Device::in_group();
    let batch = [change("a", 1, &[("x", "1")]), change("b", 2, &[("x", "2")]), tombstone("c", 3)];
    assert_eq!(device.apply(&batch, 3), [key("a"), key("b")]);
    assert!(device.apply(&batch, 3).is_empty());
    assert_eq!(device.cursor(), Some(3));
    assert_eq!(device.state("a"), Some(ItemState::Synced));
    assert_eq!(device.apply(&[tombstone("a", 4)], 4), [key("a")]);
    assert!(!device.exists("a"));
    let mirrored = device.0.read(|read| read.mirror_sequence(&key("a"))).unwrap();
    assert_eq!(mirrored, Some(Sequence(4)), "mirrors keep tombstones");
}

#[test]
fn a_change_beneath_a_waiting_edit_keeps_the_edit_on_top() {
    let mut device = Device::in_group();
    device.apply(&[change("a", 1, &[("x", "old"), ("y", "old")])], 1);
    device.edit(vec![patch("a", &[("x", "mine")])]);
    assert_eq!(device.apply(&[change("a", 2, &[("x", "theirs"), ("y", "theirs")])], 2), [key("a")]);
    assert_eq!(device.sees("a", "x").as_deref(), Some("mine"));
    assert_eq!(device.sees("a", "y").as_deref(), Some("theirs"));
    assert!(device.apply(&[change("a", 3, &[("x", "other"), ("y", "theirs")])], 3).is_empty());
}

#[test]
fn a_deletion_beneath_a_waiting_edit_leaves_what_the_edit_says() {
    let mut device = Device::in_group();
    device.apply(&[change("a", 1, &[("x", "old"), ("y", "old")])], 1);
    device.edit(vec![patch("a", &[("x", "mine")])]);
    device.apply(&[tombstone("a", 2)], 2);
    assert_eq!(device.sees("a", "x").as_deref(), Some("mine"));
    device.settle(&[rejected(1)]);
    assert!(!device.exists("a"));
}

#[test]
fn an_answer_before_the_follow_event_does_not_flicker() {
    let mut device = Device::in_group();
    device.apply(&[change("a", 1, &[("x", "old")])], 1);
    device.edit(vec![patch("a", &[("x", "new")])]);
    assert!(device.settle(&[accepted(1, 5)]).changed.is_empty());
    assert_eq!(device.sees("a", "x").as_deref(), Some("new"));
    assert_eq!(device.state("a"), Some(ItemState::Pending));
    // Another device's earlier change arrives in between.
    device.apply(&[change("a", 3, &[("x", "older")])], 3);
    assert_eq!(device.sees("a", "x").as_deref(), Some("new"));
    assert!(device.apply(&[change("a", 5, &[("x", "new")])], 5).is_empty());
    assert_eq!(device.sees("a", "x").as_deref(), Some("new"));
    assert_eq!(device.state("a"), Some(ItemState::Synced));
}

#[test]
fn an_answer_after_the_follow_event_does_not_flicker() {
    let mut device = Device::in_group();
    device.apply(&[change("a", 1, &[("x", "old")])], 1);
    device.edit(vec![patch("a", &[("x", "new")])]);
    assert!(device.apply(&[change("a", 5, &[("x", "new")])], 5).is_empty());
    assert_eq!(device.state("a"), Some(ItemState::Pending));
    assert!(device.settle(&[accepted(1, 5)]).changed.is_empty());
    assert_eq!(device.sees("a", "x").as_deref(), Some("new"));
    assert_eq!(device.state("a"), Some(ItemState::Synced));
}

#[test]
fn a_second_edit_does_not_hide_the_first_while_that_travels_back() {
    let mut device = Device::in_group();
    device.apply(&[change("a", 1, &[("x", "old"), ("y", "old")])], 1);
    device.edit(vec![patch("a", &[("x", "new")])]);
    device.settle(&[accepted(1, 5)]);
    device.edit(vec![patch("a", &[("y", "new")])]);
    device.apply(&[change("a", 3, &[("x", "older"), ("y", "old")])], 3);
    assert_eq!(device.sees("a", "x").as_deref(), Some("new"));
    assert_eq!(device.sees("a", "y").as_deref(), Some("new"));
    device.apply(&[change("a", 5, &[("x", "new"), ("y", "old")])], 5);
    assert_eq!(device.sees("a", "x").as_deref(), Some("new"));
    assert_eq!(device.sees("a", "y").as_deref(), Some("new"));
    device.settle(&[accepted(2, 6)]);
    device.apply(&[change("a", 6, &[("x", "new"), ("y", "new")])], 6);
    assert_eq!(device.state("a"), Some(ItemState::Synced));
}

#[test]
fn an_edit_on_an_accepted_one_that_travels_back_names_it() {
    let mut device = Device::in_group();
    device.apply(&[change("a", 1, &[("x", "old")])], 1);
    device.edit(vec![patch("a", &[("x", "new")])]);
    device.settle(&[accepted(1, 5)]);
    device.edit(vec![patch("a", &[("x", "newer")])]);
    assert_eq!(device.outbox()[0].edits[0].base.after, Some(OperationNumber(1)));
}

#[test]
fn an_edit_that_lost_gives_way_once_the_cursor_has_passed_it() {
    let mut device = Device::in_group();
    device.apply(&[change("a", 1, &[("x", "old")])], 1);
    device.edit(vec![patch("a", &[("x", "mine")])]);
    assert_eq!(device.settle(&[superseded(1, 4, 3)]).set_aside, 1);
    assert_eq!(device.sees("a", "x").as_deref(), Some("mine"));
    // The item itself comes with sequence 3; nothing of it ever comes at 4.
    device.apply(&[change("a", 3, &[("x", "theirs")])], 3);
    assert_eq!(device.apply(&[change("b", 4, &[("x", "1")])], 4), [key("b"), key("a")]);
    assert_eq!(device.sees("a", "x").as_deref(), Some("theirs"));
    assert_eq!(device.state("a"), Some(ItemState::Synced));
}

#[test]
fn a_rejected_edit_ends_and_the_one_behind_it_stays() {
    let mut device = Device::in_group();
    device.apply(&[change("a", 1, &[("x", "old"), ("y", "old")])], 1);
    device.edit(vec![patch("a", &[("x", "bad")])]);
    device.edit(vec![patch("a", &[("y", "good")])]);
    let settlement = device.settle(&[rejected(1)]);
    assert_eq!((settlement.changed, settlement.set_aside), (vec![key("a")], 1));
    assert_eq!(device.sees("a", "x").as_deref(), Some("old"));
    assert_eq!(device.sees("a", "y").as_deref(), Some("good"));
    let (aside, rejections) =
        device.0.read(|read| Ok((read.set_aside(10)?, read.rejected_count()?))).unwrap();
    assert_eq!((aside.len(), rejections), (1, 1));
    assert_eq!((aside[0].operation.number, aside[0].noticed_at), (OperationNumber(1), 3_000));
}

#[test]
fn a_rejected_creation_leaves_nothing() {
    let mut device = Device::in_group();
    device.edit(vec![put("a", &[("x", "1")])]);
    assert_eq!(device.settle(&[rejected(1)]).changed, [key("a")]);
    assert!(!device.exists("a"));
    assert_eq!(device.0.read(|read| read.mirror_sequence(&key("a"))).unwrap(), None);
}

#[test]
fn a_reset_drops_what_does_not_come_again_and_keeps_what_waits() {
    let mut device = Device::in_group();
    let all = [("gone", 1), ("stays", 2), ("edited", 3), ("removed", 4)];
    for (id, sequence) in all {
        device.apply(&[change(id, sequence, &[("x", "old")])], sequence);
    }
    device.edit(vec![patch("edited", &[("x", "mine")])]);
    device.edit(vec![delete("removed")]);
    device.0.write(|write| write.begin_reset()).unwrap();
    assert_eq!(device.cursor(), None);
    assert!(device.exists("gone"), "the mirror stays readable");
    device.apply(&[change("stays", 2, &[("x", "old")])], 2);
    // A restart in between: the reset is still under way.
    assert!(device.0.read(|read| read.device()).unwrap().resetting);
    device.apply(&[change("new", 9, &[("x", "1")])], 9);
    assert_eq!(device.0.write(|write| write.finish_reset()).unwrap(), [key("gone")]);
    assert!(device.0.write(|write| write.finish_reset()).unwrap().is_empty());
    assert!(!device.exists("gone") && device.exists("stays") && device.exists("new"));
    assert_eq!(device.sees("edited", "x").as_deref(), Some("mine"));
    assert_eq!(device.state("edited"), Some(ItemState::Pending));
    assert!(!device.exists("removed"));
    device.settle(&[accepted(1, 10), accepted(2, 10)]);
    device.apply(&[change("edited", 10, &[("x", "mine")])], 10);
    assert_eq!(device.state("edited"), Some(ItemState::Synced));
}

#[test]
fn a_reset_begun_anew_demands_everything_again() {
    let mut device = Device::in_group();
    device.apply(&[change("a", 1, &[("x", "1")]), change("b", 2, &[("x", "1")])], 2);
    device.0.write(|write| write.begin_reset()).unwrap();
    device.apply(&[change("a", 1, &[("x", "1")])], 1);
    device.0.write(|write| write.begin_reset()).unwrap();
    device.apply(&[change("b", 2, &[("x", "1")])], 2);
    assert_eq!(device.0.write(|write| write.finish_reset()).unwrap(), [key("a")]);
}

#[test]
fn an_answer_during_a_reset_keeps_the_edit_until_the_new_cursor_passes() {
    let mut device = Device::in_group();
    device.apply(&[change("a", 1, &[("x", "old")])], 8);
    device.edit(vec![patch("a", &[("x", "new")])]);
    device.0.write(|write| write.begin_reset()).unwrap();
    device.settle(&[accepted(1, 9)]);
    device.apply(&[change("b", 4, &[("x", "1")])], 4);
    assert_eq!(device.sees("a", "x").as_deref(), Some("new"));
    device.apply(&[change("a", 9, &[("x", "new")])], 9);
    assert_eq!(device.state("a"), Some(ItemState::Synced));
}

#[test]
fn an_edit_during_a_reset_stands_on_nothing_that_has_not_come_again() {
    let mut device = Device::in_group();
    device.apply(&[change("a", 2, &[("x", "old")]), change("b", 9, &[("x", "of an ended reign")])], 9);
    device.0.write(|write| write.begin_reset()).unwrap();
    device.apply(&[change("a", 2, &[("x", "old")])], 4);
    device.edit(vec![patch("a", &[("x", "new")])]);
    device.edit(vec![patch("b", &[("x", "new")])]);
    let bases: Vec<(u64, u64)> = device
        .outbox()
        .iter()
        .map(|operation| operation.edits[0].base.revision)
        .map(|base| (base.epoch, base.sequence.0))
        .collect();
    assert_eq!(bases[0], (revision(2).epoch, 2));
    assert_eq!(bases[1].0, 0, "of no reign");
}
