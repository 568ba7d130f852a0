//! Which archives may go. Pure: what there is is an argument, and removing is [`crate::prune`]'s.
//!
//! Only archives that a manifest of ours describes are counted and only they go. Their time decides which of
//! them stand for a day, a week, a month; the newest is the one of the highest revision as well as the one of
//! the latest time, because clocks err: both stay.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::calendar::{DAY, month, week};
use crate::layout::ArchiveId;

/// What is kept. Zero of a kind keeps none for that reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Never fewer than this stay, whatever their age; one at least.
    pub minimum: usize,
    /// The newest.
    pub newest: usize,
    /// The newest of each of the latest days that have one.
    pub days: usize,
    /// The newest of each of the latest weeks that have one.
    pub weeks: usize,
    /// The newest of each of the latest months that have one.
    pub months: usize,
    /// More than this part of all, in percent, never goes at once.
    pub most_percent: u8,
}

/// An archive that is good: complete, described, and proven when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Good {
    /// Its id.
    pub id: ArchiveId,
    /// When it was made, in Unix milliseconds, by its manifest: several may be of one second.
    pub made_at: u64,
    /// What it holds: number of the epoch, and sequence.
    pub revision: (u64, u64),
}

/// Why nothing may go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The folder lacks what this device knows to have put there: the listing cannot be trusted.
    #[error("{missing} archives that were made here are not in the folder")]
    Short {
        /// How many are missing.
        missing: usize,
    },
    /// More would go at once than the setting allows.
    #[error("{going} of {all} archives would go at once")]
    TooMany {
        /// How many would go.
        going: usize,
        /// Of how many.
        all: usize,
    },
}

/// Which of the archives in the folder may go, oldest first. `known` are those that this device made, proved and
/// did not remove.
///
/// # Errors
/// Why none may.
pub fn expired(keep: &Keep, found: &[Good], known: &BTreeSet<ArchiveId>) -> Result<Vec<ArchiveId>, Refusal> {
    let ids: BTreeSet<ArchiveId> = found.iter().map(|good| good.id).collect();
    let missing = known.difference(&ids).count();
    if missing > 0 {
        return Err(Refusal::Short { missing });
    }
    let kept = kept(keep, found);
    let mut going: Vec<&Good> = found.iter().filter(|good| !kept.contains(&good.id)).collect();
    if going.len() * 100 > found.len() * usize::from(keep.most_percent) {
        return Err(Refusal::TooMany { going: going.len(), all: found.len() });
    }
    going.sort_by_key(|good| (good.made_at, good.id));
    Ok(going.into_iter().map(|good| good.id).collect())
}

fn kept(keep: &Keep, found: &[Good]) -> BTreeSet<ArchiveId> {
    let mut by_time: Vec<&Good> = found.iter().collect();
    by_time.sort_by_key(|good| std::cmp::Reverse((good.made_at, good.revision, good.id)));
    let farthest = found.iter().max_by_key(|good| (good.revision, good.made_at, good.id));
    let newest = by_time.iter().copied().take(keep.newest.max(keep.minimum).max(1));
    newest
        .chain(farthest)
        .chain(firsts(&by_time, keep.days, |seconds| seconds / DAY))
        .chain(firsts(&by_time, keep.weeks, week))
        .chain(firsts(&by_time, keep.months, month))
        .map(|good| good.id)
        .collect()
}

/// The first of each span, of the first so many spans.
fn firsts<'a>(by_time: &[&'a Good], spans: usize, span: fn(u64) -> u64) -> impl Iterator<Item = &'a Good> {
    let mut last = None;
    let mut starts = Vec::new();
    for &good in by_time {
        let here = Some(span(good.made_at / 1_000));
        if here != last {
            starts.push(good);
        }
        last = here;
    }
    starts.into_iter().take(spans)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOTHING: Keep = Keep { minimum: 0, newest: 0, days: 0, weeks: 0, months: 0, most_percent: 100 };
    /// Monday, 2026-11-30, noon.
    const NOW: u64 = 20_787 * DAY + DAY / 2;

    fn good(hours_ago: u64) -> Good {
        let made_at = NOW - hours_ago * 3_600;
        Good { id: ArchiveId::new(made_at, hours_ago), made_at: made_at * 1_000, revision: (1, made_at) }
    }

    /// The hours that stay of an archive every six hours for 100 days.
    fn staying(keep: &Keep) -> Vec<u64> {
        let found: Vec<Good> = (0..400).map(|turn| good(turn * 6)).collect();
        let going = expired(keep, &found, &BTreeSet::new()).expect("allowed");
        let stays = |hours: &u64| !going.contains(&good(*hours).id);
        (0..400).map(|turn| turn * 6).filter(stays).collect()
    }

    #[test]
    fn of_one_second_the_one_made_last_stays() {
        let of = |millis, luck| Good {
            id: ArchiveId::new(NOW, luck),
            made_at: NOW * 1_000 + millis,
            revision: (1, 1),
        };
        let found = [of(100, 3), of(300, 1), of(200, 2)];
        let going = expired(&Keep { newest: 1, ..NOTHING }, &found, &BTreeSet::new()).expect("allowed");
        // Of the same revision the latest counts.
        assert_eq!(going, [found[0].id, found[2].id]);
    }

    #[test]
    fn the_newest_of_each_span_stay() {
        assert_eq!(staying(&Keep { newest: 3, ..NOTHING }), [0, 6, 12]);
        // Made at noon, at 6 and at midnight today; the newest of yesterday is that of 18 o'clock.
        assert_eq!(staying(&Keep { days: 3, ..NOTHING }), [0, 18, 42]);
        // Weeks begin on Monday: today is a week of its own.
        assert_eq!(staying(&Keep { weeks: 3, ..NOTHING }), [0, 18, 18 + 168]);
        // The newest of October is of the 31st, 18 o'clock, 29 days and 18 hours ago.
        assert_eq!(staying(&Keep { months: 2, ..NOTHING }), [0, 29 * 24 + 18]);
        let all = Keep { newest: 2, days: 2, weeks: 2, months: 2, ..NOTHING };
        assert_eq!(staying(&all), [0, 6, 18, 29 * 24 + 18]);
    }

    #[test]
    fn the_newest_stays_by_revision_and_by_time() {
        let mut wrong_clock = good(0);
        wrong_clock.revision = (1, 1);
        let farthest = Good { revision: (2, 0), ..good(1_000) };
        let found = [good(500), wrong_clock, farthest, good(700)];
        let going = expired(&NOTHING, &found, &BTreeSet::new()).expect("allowed");
        assert_eq!(going, [good(700).id, good(500).id]);
    }

    #[test]
    fn nothing_goes_when_the_folder_lacks_what_was_put_there() {
        let found = [good(0), good(6), good(12)];
        let known = BTreeSet::from([good(6).id, good(18).id]);
        assert_eq!(expired(&NOTHING, &found, &known), Err(Refusal::Short { missing: 1 }));
        assert_eq!(expired(&NOTHING, &[], &known), Err(Refusal::Short { missing: 2 }));
    }

    #[test]
    fn nothing_goes_when_too_many_would() {
        let found = [good(0), good(6), good(12), good(18)];
        let half = Keep { most_percent: 50, ..NOTHING };
        assert_eq!(expired(&half, &found, &BTreeSet::new()), Err(Refusal::TooMany { going: 3, all: 4 }));
        let two = Keep { newest: 2, ..half };
        assert_eq!(expired(&two, &found, &BTreeSet::new()), Ok(vec![good(18).id, good(12).id]));
    }

    proptest! {
        #[test]
        fn neither_the_minimum_nor_the_newest_ever_goes(
            found in prop::collection::btree_map(0..5_000_u64, (0..3_u64, 0..99_u64), 0..60),
            (minimum, newest, days, weeks, months) in (0..9_usize, 0..9_usize, 0..9_usize, 0..9_usize, 0..9_usize),
        ) {
            let keep = Keep { minimum, newest, days, weeks, months, most_percent: 100 };
            let found: Vec<Good> =
                found.into_iter().map(|(hours, revision)| Good { revision, ..good(hours) }).collect();
            let going = expired(&keep, &found, &BTreeSet::new()).expect("allowed");
            prop_assert!(found.len() - going.len() >= minimum.max(1).min(found.len()));
            if let Some(latest) = found.iter().max_by_key(|good| good.made_at) {
                prop_assert!(!going.contains(&latest.id));
            }
            if let Some(highest) = found.iter().map(|good| good.revision).max() {
                prop_assert!(found.iter().any(|good| good.revision == highest && !going.contains(&good.id)));
            }
            // Again, with what stayed: nothing more goes.
            let stayed: Vec<Good> = found.into_iter().filter(|good| !going.contains(&good.id)).collect();
            prop_assert_eq!(expired(&keep, &stayed, &BTreeSet::new()), Ok(vec![]));
        }
    }
}
