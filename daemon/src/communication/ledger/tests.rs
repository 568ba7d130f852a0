use proptest::prelude::*;

use super::*;
use crate::communication::file::line;

const DAY: u64 = 24 * HOUR;

fn peer(number: u8) -> DeviceId {
    DeviceId([number; 16])
}

#[test]
fn a_server_that_is_away_for_a_week_is_one_entry_and_few_lines() {
    let mut ledger = Ledger::new(Bounds::default(), Vec::new());
    let mut lines = 0;
    for attempt in 0..7 * DAY / 30_000 {
        ledger.record(Event::new(Code::Unreachable).reason("timed-out"), attempt * 30_000);
        lines += ledger.due().len();
    }
    let page = ledger.page(&Filter::default(), None, 10);
    assert_eq!(page.entries.len(), 1);
    assert_eq!(page.entries[0].times, 7 * DAY / 30_000);
    assert_eq!((page.entries[0].first, page.entries[0].last), (0, 7 * DAY - 30_000));
    assert!(lines < 1_100, "{lines}");
}

#[test]
fn traffic_folds_by_the_hour_with_its_sums_and_by_device() {
    let mut ledger = Ledger::new(Bounds::default(), Vec::new());
    let pushed = |number| Event::new(Code::DevicePushed).peer(peer(number)).count("accepted", 3);
    for minute in 0..90 {
        ledger.record(pushed(1), minute * 60_000);
        ledger.record(pushed(2), minute * 60_000);
    }
    let filter = Filter { peers: vec![peer(1)], ..Filter::default() };
    let entries = ledger.page(&filter, None, 10).entries;
    let sums: Vec<_> = entries.iter().map(|entry| (entry.times, entry.counts["accepted"])).collect();
    assert_eq!(sums, [(30, 90), (60, 180)]);
}

#[test]
fn what_somebody_did_is_an_entry_each_time() {
    let mut ledger = Ledger::new(Bounds::default(), Vec::new());
    ledger.record(Event::new(Code::PairingOpened), 1);
    ledger.record(Event::new(Code::PairingOpened), 2);
    assert_eq!(ledger.count(), 2);
}

#[test]
fn another_reason_is_another_entry_and_a_pause_ends_a_state() {
    let mut ledger = Ledger::new(Bounds::default(), Vec::new());
    for (at, reason) in [(0, "silent"), (1, "timed-out"), (2, "silent"), (HOUR + 2, "silent")] {
        ledger.record(Event::new(Code::Unreachable).reason(reason), at);
    }
    assert_eq!(ledger.all().iter().map(|entry| entry.times).collect::<Vec<_>>(), [2, 1, 1]);
}

#[test]
fn pages_follow_one_another_without_gap_or_repetition() {
    let mut ledger = Ledger::new(Bounds::default(), Vec::new());
    for at in 0..25 {
        let code = if at % 2 == 0 { Code::PairingOpened } else { Code::MemberJoined };
        ledger.record(Event::new(code), at);
    }
    let filter = Filter { codes: vec![Code::PairingOpened], ..Filter::default() };
    let (mut numbers, mut before) = (Vec::new(), None);
    loop {
        let page = ledger.page(&filter, before, 5);
        numbers.extend(page.entries.iter().map(|entry| entry.number));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(numbers, (0..13).rev().map(|at| 2 * at + 1).collect::<Vec<u64>>());
}

#[test]
fn levels_and_times_filter() {
    let mut ledger = Ledger::new(Bounds::default(), Vec::new());
    ledger.record(Event::new(Code::Connected), 10);
    ledger.record(Event::new(Code::Lost), 20);
    ledger.record(Event::new(Code::Fault), 30);
    let codes = |filter: &Filter| -> Vec<Code> {
        ledger.page(filter, None, 9).entries.iter().map(|entry| entry.code).collect()
    };
    assert_eq!(
        codes(&Filter { level: Some(Level::Warning), ..Filter::default() }),
        [Code::Fault, Code::Lost]
    );
    assert_eq!(codes(&Filter { since: 20, until: Some(30), ..Filter::default() }), [Code::Lost]);
}

fn events() -> impl Strategy<Value = Vec<(usize, u8, String, u64)>> {
    let event = (0..Code::ALL.len(), 0_u8..4, "\\PC{0,40}", 0..HOUR);
    prop::collection::vec(event, 0..200)
}

proptest! {
    #[test]
    fn whatever_happens_the_log_keeps_within_its_bounds_and_loses_no_count(
        events in events(), entries in 1_usize..20, bytes in 300_u64..6_000,
    ) {
        let bounds = Bounds { entries, bytes };
        let mut ledger = Ledger::new(bounds, Vec::new());
        let mut all = Ledger::new(Bounds { entries: usize::MAX, bytes: u64::MAX }, Vec::new());
        let mut now = 0;
        let total = events.len() as u64;
        for (code, number, reason, pause) in events {
            now += pause;
            let event = Event::new(Code::ALL[code]).peer(peer(number)).reason(reason.clone()).count("n", 1);
            let recorded = ledger.record(event.clone(), now);
            all.record(event, now);
            prop_assert!(line(&recorded).len() as u64 <= recorded.weight());
            prop_assert!(ledger.count() <= entries);
            let weight: u64 = ledger.all().iter().map(Entry::weight).sum();
            prop_assert_eq!(weight, ledger.bytes);
            prop_assert!(weight <= bytes || ledger.count() == 1);
            prop_assert!(ledger.newest.len() <= ledger.count());
            prop_assert!(ledger.due.len() <= ledger.count());
        }
        prop_assert_eq!(all.all().iter().map(|entry| entry.times).sum::<u64>(), total);
        prop_assert_eq!(all.all().iter().map(|entry| entry.counts["n"]).sum::<u64>(), total);
    }
}
