//! Many seeds of the simulated fleet: I-02 to I-07, I-09, I-11 and I-13 to I-17 hold in every one of them,
//! and mistakes made on purpose are noticed.
//!
//! `MFPSYNC_SEED=n` runs that seed alone, `MFPSYNC_TRACE=1` prints what happens in it,
//! `MFPSYNC_SEEDS=n` runs so many, from `MFPSYNC_FIRST_SEED=n` on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test")]

use std::env;
use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

mod museum;

use mfpsync_tests::sim::{Counters, Defect, Options, Run, run};

const SEEDS: u64 = 200;
const THREADS: usize = 2;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn options(seed: u64) -> Options {
    Options { seed, defect: None, server_images: number("MFPSYNC_SERVER_IMAGES") == Some(1), trace: false }
}

/// What all seeds together came to.
#[derive(Default)]
struct Campaign {
    counters: Counters,
    virtual_time: Duration,
    device_time: Duration,
    /// Longest time until all agreed, and the seed.
    slowest: (Duration, u64),
    violations: Vec<(u64, String)>,
}

impl Campaign {
    fn add(&mut self, seed: u64, run: Run) {
        self.counters.add(&run.counters);
        self.virtual_time += run.virtual_time;
        self.device_time += run.virtual_time * u32::try_from(run.devices).unwrap();
        self.slowest = self.slowest.max((run.converged_after, seed));
        self.violations.extend(run.violation.map(|violation| (seed, violation)));
    }
}

fn campaign(first: u64, seeds: u64) -> Campaign {
    let (next, all) = (AtomicU64::new(first), Mutex::new(Campaign::default()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    // A database that fails ends a run, and is told with its seed.
                    match catch_unwind(|| run(options(seed))) {
                        Ok(run) => all.lock().unwrap().add(seed, run),
                        Err(_) => all.lock().unwrap().violations.push((seed, "it panicked".to_owned())),
                    }
                }
            });
        }
    });
    all.into_inner().unwrap()
}

#[test]
fn i_02_to_i_07_i_09_i_11_and_i_13_to_i_17_hold_in_every_seed() {
    if let Some(seed) = number("MFPSYNC_SEED") {
        let run = run(Options { trace: number("MFPSYNC_TRACE") == Some(1), ..options(seed) });
        assert_eq!(run.violation, None, "seed {seed}");
        return;
    }
    let (began, seeds) = (Instant::now(), number("MFPSYNC_SEEDS").unwrap_or(SEEDS));
    let first = number("MFPSYNC_FIRST_SEED").unwrap_or(0);
    let mut campaign = campaign(first, seeds);
    let took = began.elapsed();
    println!(
        "{seeds} seeds, {:.1} device-hours, {:.0} virtual seconds a second, agreed after {:.0} s at the latest (seed {})",
        campaign.device_time.as_secs_f64() / 3600.0,
        campaign.virtual_time.as_secs_f64() / took.as_secs_f64(),
        campaign.slowest.0.as_secs_f64(),
        campaign.slowest.1,
    );
    for (name, count) in campaign.counters.iter() {
        println!("{count:>9}  {name}");
    }
    campaign.violations.sort();
    for (seed, violation) in &campaign.violations {
        println!("seed {seed}: {violation}");
        println!(
            "    replay: MFPSYNC_SEED={seed} MFPSYNC_TRACE=1 cargo test -p mfpsync-tests --test simulation"
        );
    }
    assert!(campaign.violations.is_empty(), "{} of {seeds} seeds failed", campaign.violations.len());
    let never = campaign.counters.never(seeds);
    assert!(never.is_empty(), "never met: {never:?}");
}

#[test]
fn the_same_seed_takes_the_same_way_twice() {
    for seed in [1, 17] {
        assert_eq!(run(options(seed)).trace_hash, run(options(seed)).trace_hash, "seed {seed}");
    }
    assert_ne!(run(options(1)).trace_hash, run(options(2)).trace_hash);
}

/// The first violation that a planted mistake leads to, from a seed on that is known to lead there soon.
fn noticed(defect: Defect, from: u64) -> String {
    let runs =
        (from..from + SEEDS).map(|seed| (seed, run(Options { defect: Some(defect), ..options(seed) })));
    let noticed = runs.into_iter().find_map(|(seed, run)| Some((seed, run.violation?)));
    let (seed, violation) = noticed.expect("nobody noticed");
    println!("{defect:?} is noticed by seed {seed}: {violation}");
    violation
}

/// Proves I-03.
#[test]
fn i_03_a_push_applied_twice_is_noticed() {
    let violation = noticed(Defect::AppliesTwice, 1);
    assert!(violation.starts_with("I-03") || violation.starts_with("I-05"), "{violation}");
}

/// Proves I-02.
#[test]
fn i_02_an_edit_that_never_reaches_the_server_is_noticed() {
    let violation = noticed(Defect::LosesAnEdit, 0);
    assert!(violation.starts_with("I-02") || violation.starts_with("I-06"), "{violation}");
}

/// Proves I-05.
#[test]
fn i_05_a_conflict_shown_as_a_success_is_noticed() {
    let violation = noticed(Defect::HidesAConflict, 0);
    assert!(violation.starts_with("I-02") || violation.starts_with("I-05"), "{violation}");
}

/// Proves I-06.
#[test]
fn i_06_a_change_left_out_is_noticed() {
    let violation = noticed(Defect::SkipsAChange, 0);
    // The change that was left out may have been a deletion.
    assert!(violation.starts_with("I-06") || violation.starts_with("I-07"), "{violation}");
}

/// Proves I-07.
#[test]
fn i_07_a_deletion_forgotten_too_early_is_noticed() {
    let violation = noticed(Defect::ForgetsTooEarly, 22);
    assert!(violation.starts_with("I-07"), "{violation}");
}

/// Proves I-07.
#[test]
fn i_07_absence_taken_for_deletion_is_noticed() {
    let violation = noticed(Defect::TakesAbsenceForDeletion, 0);
    assert!(violation.starts_with("I-06") || violation.starts_with("I-07"), "{violation}");
}

/// Proves I-17.
#[test]
fn i_17_changes_that_nobody_offers_to_a_new_reign_are_noticed() {
    let violation = noticed(Defect::OffersNothing, 6);
    assert!(violation.starts_with("I-02") || violation.starts_with("I-06"), "{violation}");
}

/// Proves I-16.
#[test]
fn i_16_an_answer_before_the_replica_has_a_change_is_noticed() {
    let violation = noticed(Defect::AnswersBeforeTheReplica, 35);
    assert!(violation.starts_with("I-16") || violation.starts_with("I-17"), "{violation}");
}

/// Proves I-16.
#[test]
fn i_16_a_safe_revision_that_nobody_holds_is_noticed() {
    let violation = noticed(Defect::CallsEverythingSafe, 0);
    assert!(violation.starts_with("I-16"), "{violation}");
}

/// Proves I-14.
#[test]
fn i_14_a_server_that_passes_over_its_successor_is_noticed() {
    let violation = noticed(Defect::IgnoresSuccessors, 70);
    assert!(violation.starts_with("I-14"), "{violation}");
}
