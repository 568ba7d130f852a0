//! How far back old values are kept: in days that the server has run. Pure.
//!
//! A clock may be wrong by decades and must not wipe what people would take back. Days are counted
//! while the server runs, and a mark tells where the history ended at the end of each.

use mfpsync_storage::Result;
use mfpsync_storage::master::{Extent, Mark, MasterRead};

/// Decides what may be forgotten: all that had been accepted at the mark returned. It is the newest one
/// that lies `days` behind `today`; none while there is no such mark. A window of no days ends now.
#[must_use]
pub fn forgettable(marks: &[Mark], today: u64, days: u64, now: Extent) -> Option<Mark> {
    if days == 0 {
        return Some(Mark { day: today, extent: now });
    }
    let last = today.checked_sub(days)?;
    marks.iter().copied().filter(|mark| mark.day <= last).max_by_key(|mark| mark.day)
}

/// What may be forgotten as the master database tells.
///
/// # Errors
/// The database's.
pub fn forgettable_of(read: &MasterRead<'_>, days: u64) -> Result<Option<Mark>> {
    Ok(forgettable(&read.marks()?, read.days_run()?, days, read.extent()?))
}

#[cfg(test)]
mod tests {
    use mfpsync_storage::model::Sequence;

    use super::*;

    fn mark(day: u64) -> Mark {
        Mark { day, extent: extent(10 * day) }
    }

    fn extent(at: u64) -> Extent {
        Extent { sequence: Sequence(at), superseded: at as i64 }
    }

    #[test]
    fn what_was_accepted_at_the_mark_so_many_days_back_is_forgotten() {
        // Marks, today, days of the window, and up to which mark's day things are forgotten.
        let table: &[(&[u64], u64, u64, Option<u64>)] = &[
            (&[], 0, 30, None),
            (&[1, 2, 3], 3, 30, None),
            (&[1, 2, 3], 3, 3, None),
            (&[1, 2, 3], 3, 2, Some(1)),
            (&[1, 2, 3], 3, 1, Some(2)),
            (&[1, 2, 3], 4, 1, Some(3)),
            // The window was widened: the days before its first mark are gone already.
            (&[93, 94, 95], 95, 30, None),
            (&[93, 94, 95], 123, 30, Some(93)),
            // A mark is missing: an older one bounds less.
            (&[1, 2, 5], 6, 2, Some(2)),
            (&[1, 2, 3], 3, u64::MAX, None),
        ];
        for (marks, today, days, expected) in table {
            let marks: Vec<_> = marks.iter().map(|day| mark(*day)).collect();
            let found = forgettable(&marks, *today, *days, extent(999));
            assert_eq!(found, expected.map(mark), "{marks:?}, day {today}, {days} days kept");
        }
    }

    #[test]
    fn no_days_forget_at_once() {
        let now = Some(Mark { day: 3, extent: extent(999) });
        assert_eq!(forgettable(&[mark(1), mark(2)], 3, 0, extent(999)), now);
        assert_eq!(forgettable(&[], 3, 0, extent(999)), now);
    }
}
