//! Retained edits, their bounds, and the low-water mark.

use mfpsync_storage::local::RetainedLimits;
use mfpsync_storage::model::Sequence;

use crate::support::{Device, accepted, change, patch, put, rejected};

#[test]
fn the_outbox_is_read_in_order_and_in_bounds() {
    let mut device = Device::in_group();
    for number in 1..=4 {
        device.edit(vec![put("a", &[("x", &number.to_string())])]);
    }
    let read = |operations, bytes| {
        let taken = device.0.read(|read| read.outbox(operations, bytes)).unwrap();
        taken.iter().map(|(number, _)| number.0).collect::<Vec<_>>()
    };
    assert_eq!(read(2, usize::MAX), [1, 2]);
    assert_eq!(read(9, 0), [1], "at least one, however large");
    assert_eq!(read(9, 1 << 20), [1, 2, 3, 4]);
}

#[test]
fn accepted_edits_are_retained_until_they_are_safe() {
    let mut device = Device::in_group();
    for id in ["a", "b", "c"] {
        device.edit(vec![put(id, &[("x", "1")])]);
    }
    device.settle(&[accepted(1, 5), rejected(2), accepted(3, 6)]);
    assert_eq!(device.0.read(|read| read.retained_count()).unwrap(), 2);
    assert_eq!(device.0.write(|write| write.release_retained(Sequence(4))).unwrap(), 0);
    assert_eq!(device.0.write(|write| write.release_retained(Sequence(5))).unwrap(), 1);
    assert_eq!(device.0.read(|read| read.retained_count()).unwrap(), 1);
}

#[test]
fn beyond_the_bound_the_oldest_retained_edit_is_dropped_and_counted() {
    let mut device = Device::in_group();
    for id in ["a", "b", "c", "d"] {
        device.edit(vec![put(id, &[("x", "1")])]);
    }
    let size = device.outbox()[0].encode().len() as u64;
    let settle = |device: &mut Device, outcomes: &[_], operations, bytes| {
        let limits = RetainedLimits { operations, bytes };
        device.0.write(|write| write.settle(outcomes, 1, limits)).unwrap();
        let dropped = device.0.read(|read| read.device()).unwrap().retained_dropped;
        (device.0.read(|read| read.retained_count()).unwrap(), dropped)
    };
    assert_eq!(settle(&mut device, &[accepted(1, 1), accepted(2, 2), accepted(3, 3)], 2, 1 << 20), (2, 1));
    assert_eq!(settle(&mut device, &[accepted(4, 4)], 10, 2 * size), (2, 2));
    assert_eq!(
        device.0.write(|write| write.release_retained(Sequence(2))).unwrap(),
        0,
        "1 and 2 were oldest"
    );
    assert_eq!(device.0.write(|write| write.release_retained(Sequence(4))).unwrap(), 2);
}

#[test]
fn an_answer_that_comes_twice_counts_once() {
    let mut device = Device::in_group();
    device.edit(vec![put("a", &[("x", "1")])]);
    device.settle(&[accepted(1, 5)]);
    let again = device.settle(&[accepted(1, 5)]);
    assert_eq!((again.changed.len(), again.set_aside), (0, 0));
    assert_eq!(device.waiting(), 0);
    assert_eq!(device.0.read(|read| read.retained_count()).unwrap(), 1);
}

#[test]
fn the_low_water_mark_rises_to_the_last_operation_when_all_came_back() {
    let mut device = Device::in_group();
    device.edit(vec![put("a", &[("x", "1")])]);
    device.edit(vec![put("b", &[("x", "1")])]);
    device.settle(&[accepted(1, 1), accepted(2, 2)]);
    device.apply(&[change("a", 1, &[("x", "1")]), change("b", 2, &[("x", "1")])], 2);
    assert_eq!(device.low_water(), 2);
}

#[test]
fn the_low_water_mark_never_passes_what_a_waiting_operation_builds_on() {
    let mut device = Device::in_group();
    device.apply(&[change("a", 1, &[("x", "0")])], 1);
    device.edit(vec![patch("a", &[("x", "1")])]);
    device.edit(vec![put("b", &[("x", "1")])]);
    device.edit(vec![put("c", &[("x", "1")])]);
    device.edit(vec![patch("a", &[("x", "2")])]);
    // The fourth builds on the first; the third, which builds on nothing, is the oldest that waits.
    device.settle(&[accepted(1, 2), accepted(2, 3)]);
    device.apply(&[change("a", 2, &[("x", "1")]), change("b", 3, &[("x", "1")])], 3);
    assert_eq!(device.low_water(), 0);
    device.settle(&[accepted(3, 4)]);
    assert_eq!(device.low_water(), 0);
    device.settle(&[accepted(4, 5)]);
    device.apply(&[change("c", 4, &[("x", "1")]), change("a", 5, &[("x", "2")])], 5);
    assert_eq!(device.low_water(), 4);
}

#[test]
fn the_low_water_mark_waits_for_accepted_edits_that_travel_back() {
    let mut device = Device::in_group();
    device.edit(vec![put("a", &[("x", "1")])]);
    device.edit(vec![put("b", &[("x", "1")])]);
    device.settle(&[accepted(1, 1), accepted(2, 2)]);
    // An edit of `a` made now would build on the first operation.
    assert_eq!(device.low_water(), 0);
    device.edit(vec![patch("a", &[("x", "2")])]);
    device.apply(&[change("a", 1, &[("x", "1")]), change("b", 2, &[("x", "1")])], 2);
    assert_eq!(device.low_water(), 0);
    device.settle(&[accepted(3, 3)]);
    device.apply(&[change("a", 3, &[("x", "2")])], 3);
    assert_eq!(device.low_water(), 3);
}
