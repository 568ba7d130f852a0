//! Every parser against damaged samples: seeded, bounded, in every run of the tests.
//!
//! `MFPSYNC_FUZZ_SEED` repeats a run, `MFPSYNC_FUZZ_ROUNDS` makes it longer. To search where the code branches instead,
//! see `tests/fuzz`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper of a test fails it where it stands")]

use std::panic::catch_unwind;

use mfpsync_tests::fuzz::{Random, TARGETS, Target, mutate};

/// About a second of a debug build for the slowest of them.
const ROUNDS: u64 = 500;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn search(target: &Target) {
    let seed = number("MFPSYNC_FUZZ_SEED")
        .unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64);
    let mut random = Random(seed);
    let corpus = target.corpus();
    let (mut taken, mut refused) = (0, 0);
    for round in 0..number("MFPSYNC_FUZZ_ROUNDS").unwrap_or(ROUNDS) {
        let mut bytes = corpus[round as usize % corpus.len()].clone();
        // The corpus itself first.
        if round >= corpus.len() as u64 {
            (0..random.below(4)).for_each(|_| mutate(&mut bytes, &mut random));
        }
        match catch_unwind(|| (target.run)(&bytes)) {
            Ok(true) => taken += 1,
            Ok(false) => refused += 1,
            Err(_already_printed) => panic!(
                "{} failed in round {round}; repeat with MFPSYNC_FUZZ_SEED={seed}:\n{}",
                target.name,
                bytes.escape_ascii()
            ),
        }
    }
    assert!(taken > 0 && refused > 0, "{}: {taken} taken, {refused} refused: of no use", target.name);
}

macro_rules! targets {
    ($($name:ident)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                search(&Target::named(stringify!($name)).unwrap());
            }
        )*
    };
}

targets! { csv abk ldif vcard record message control config debug kit smb name helper manifest archived }

#[test]
fn every_target_is_run() {
    assert_eq!(TARGETS.map(|target| target.name), NAMES);
}
