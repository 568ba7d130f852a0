//! Many seeds of the simulated fleet: I-02 to I-07 and I-09 hold in every one of them, and mistakes
//! made on purpose are noticed.
//!
//! `MFPSYNC_SEED=n` runs that seed alone, `MFPSYNC_TRACE=1` prints what happens in it,
//! `MFPSYNC_SEEDS=n` runs so many.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test")]

use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mfpsync_tests::sim::{Counters, Defect, Options, Run, run};

const SEEDS: u64 = 200;
const THREADS: usize = 2;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn options(seed: u64) -> Options {
    Options { seed, defect: None, trace: false }
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

fn campaign(seeds: u64) -> Campaign {
    let (next, all) = (AtomicU64::new(0), Mutex::new(Campaign::default()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let run = run(options(seed));
                    all.lock().unwrap().add(seed, run);
                }
            });
        }
    });
    all.into_inner().unwrap()
}

#[test]
fn i_02_to_i_07_and_i_09_hold_in_every_seed() {
    if let Some(seed) = number("MFPSYNC_SEED") {
        let run = run(Options { trace: number("MFPSYNC_TRACE") == Some(1), ..options(seed) });
        assert_eq!(run.violation, None, "seed {seed}");
        return;
    }
    let (began, seeds) = (Instant::now(), number("MFPSYNC_SEEDS").unwrap_or(SEEDS));
    let mut campaign = campaign(seeds);
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
    let never: Vec<&str> =
        campaign.counters.iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect();
    assert!(never.is_empty(), "never met: {never:?}");
}

#[test]
fn the_same_seed_takes_the_same_way_twice() {
    for seed in [1, 17] {
        assert_eq!(run(options(seed)).trace_hash, run(options(seed)).trace_hash, "seed {seed}");
    }
    assert_ne!(run(options(1)).trace_hash, run(options(2)).trace_hash);
}

/// The first violation that a planted mistake leads to.
fn noticed(defect: Defect) -> String {
    let runs = (0..60).map(|seed| run(Options { defect: Some(defect), ..options(seed) }));
    runs.into_iter().find_map(|run| run.violation).expect("nobody noticed")
}

/// Proves I-03.
#[test]
fn i_03_a_push_applied_twice_is_noticed() {
    let violation = noticed(Defect::AppliesTwice);
    assert!(violation.starts_with("I-03") || violation.starts_with("I-05"), "{violation}");
}

/// Proves I-02.
#[test]
fn i_02_an_edit_that_never_reaches_the_server_is_noticed() {
    let violation = noticed(Defect::LosesAnEdit);
    assert!(violation.starts_with("I-02") || violation.starts_with("I-06"), "{violation}");
}

/// Proves I-05.
#[test]
fn i_05_a_conflict_shown_as_a_success_is_noticed() {
    let violation = noticed(Defect::HidesAConflict);
    assert!(violation.starts_with("I-02") || violation.starts_with("I-05"), "{violation}");
}

/// Proves I-06.
#[test]
fn i_06_a_change_left_out_is_noticed() {
    let violation = noticed(Defect::SkipsAChange);
    // The change that was left out may have been a deletion.
    assert!(violation.starts_with("I-06") || violation.starts_with("I-07"), "{violation}");
}

/// Proves I-07.
#[test]
fn i_07_a_deletion_forgotten_too_early_is_noticed() {
    let violation = noticed(Defect::ForgetsTooEarly);
    assert!(violation.starts_with("I-07"), "{violation}");
}

/// Proves I-07.
#[test]
fn i_07_absence_taken_for_deletion_is_noticed() {
    let violation = noticed(Defect::TakesAbsenceForDeletion);
    assert!(violation.starts_with("I-06") || violation.starts_with("I-07"), "{violation}");
}
