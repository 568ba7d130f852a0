//! When an archive is due. Pure: the clock and what happened are arguments.
//!
//! A slot that was missed is made up for at once, and once only. The wall clock says when, because people mean it;
//! it decides nothing else.

/// When archives are made by themselves, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Schedule {
    /// Hours from one to the next; 0 makes none.
    pub every_hours: u32,
    /// Minute of the day from which they are counted.
    pub at_minute: u32,
}

/// What is known of earlier archives, Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Past {
    /// When the last good one was begun.
    pub good_at: Option<u64>,
    /// When the last attempt failed, and how many have in a row.
    pub failed: Option<(u64, u32)>,
    /// A person must change something before the next one.
    pub stuck: bool,
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// Longest schedule: a week.
const MOST_HOURS: u32 = 7 * 24;
/// From one drill to the next.
const DRILLS: u64 = 7 * DAY;
/// Waits after the first failures in a row, and after all further ones.
const WAITS: [u64; 4] = [MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR];

impl Schedule {
    /// Whether archives are made by themselves at all.
    #[must_use]
    pub fn is_on(self) -> bool {
        self.every_hours > 0
    }

    /// # Errors
    /// What cannot be.
    pub fn check(self) -> Result<(), &'static str> {
        if self.every_hours > MOST_HOURS {
            return Err("from one archive to the next there are 1 to 168 hours");
        }
        if u64::from(self.at_minute) >= DAY / MINUTE {
            Err("a day has the minutes 0 to 1,439")
        } else {
            Ok(())
        }
    }

    /// When the next one is to be begun, Unix seconds; not after `now` if it is due. None when none is made.
    #[must_use]
    pub fn next(self, past: Past, now: u64) -> Option<u64> {
        if !self.is_on() || past.stuck {
            return None;
        }
        let every = u64::from(self.every_hours) * HOUR;
        let offset = u64::from(self.at_minute) * MINUTE % every;
        // A clock that was ahead when it was made says nothing.
        let good_at = past.good_at.filter(|good_at| *good_at <= now);
        // Without any it is due.
        let slot = good_at.map_or(now, |at| at.saturating_sub(offset) / every * every + offset + every);
        Some(past.after_failure(slot, now))
    }

    /// Whether an archive is to be read back, given when one was last, or else when the oldest that is kept was made.
    /// Only where archives are made by themselves.
    #[must_use]
    pub fn drill_is_due(self, last: Option<u64>, now: u64) -> bool {
        // A clock that was ahead then says nothing.
        self.is_on() && last.is_some_and(|last| last > now || last + DRILLS <= now)
    }
}

impl Past {
    /// When something that is due is to be begun: no sooner than a while after a failure.
    #[must_use]
    pub fn after_failure(self, due: u64, now: u64) -> u64 {
        let Some((failed_at, times)) = self.failed.filter(|(failed_at, _)| *failed_at <= now) else {
            return due;
        };
        let wait = WAITS[(times.max(1) as usize - 1).min(WAITS.len() - 1)];
        due.max(failed_at + wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-30, 00:00.
    const MIDNIGHT: u64 = 20_787 * DAY;
    const DAILY: Schedule = Schedule { every_hours: 24, at_minute: 150 };

    fn good(good_at: u64) -> Past {
        Past { good_at: Some(good_at), ..Past::default() }
    }

    #[test]
    fn archives_are_due_at_their_time_and_once() {
        let half_past_two = MIDNIGHT + 150 * MINUTE;
        assert_eq!(DAILY.next(good(half_past_two), MIDNIGHT + 5 * HOUR), Some(half_past_two + DAY));
        assert_eq!(DAILY.next(good(half_past_two + 20), half_past_two + 30), Some(half_past_two + DAY));
        // By hand before its time: that slot's is made all the same.
        assert_eq!(DAILY.next(good(half_past_two - 20), half_past_two), Some(half_past_two));
        let hours = Schedule { every_hours: 6, at_minute: 30 };
        assert_eq!(
            hours.next(good(MIDNIGHT + 31 * MINUTE), MIDNIGHT + HOUR),
            Some(MIDNIGHT + 6 * HOUR + 30 * MINUTE)
        );
    }

    #[test]
    fn missed_ones_are_made_up_for_by_one() {
        let next = DAILY.next(good(MIDNIGHT - 10 * DAY), MIDNIGHT).unwrap();
        assert!(next <= MIDNIGHT);
        assert_eq!(DAILY.next(good(MIDNIGHT), MIDNIGHT + 1), Some(MIDNIGHT + 150 * MINUTE));
    }

    #[test]
    fn the_first_is_due_at_once_and_none_without_a_schedule() {
        assert_eq!(DAILY.next(Past::default(), MIDNIGHT), Some(MIDNIGHT));
        assert_eq!(Schedule::default().next(Past::default(), MIDNIGHT), None);
    }

    #[test]
    fn a_failure_is_tried_again_more_and_more_patiently() {
        let waits: Vec<u64> = [1, 2, 3, 4, 100]
            .map(|times| {
                let past = Past { failed: Some((MIDNIGHT, times)), ..good(MIDNIGHT - 2 * DAY) };
                DAILY.next(past, MIDNIGHT + 1).unwrap() - MIDNIGHT
            })
            .into();
        assert_eq!(waits, [MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, HOUR]);
    }

    #[test]
    fn what_a_person_must_change_is_not_tried_again() {
        let stuck = Past { stuck: true, ..good(MIDNIGHT - 9 * DAY) };
        assert_eq!(DAILY.next(stuck, MIDNIGHT), None);
    }

    #[test]
    fn an_archive_is_read_back_once_a_week() {
        assert!(!DAILY.drill_is_due(None, MIDNIGHT), "there is none");
        assert!(!DAILY.drill_is_due(Some(MIDNIGHT - 6 * DAY), MIDNIGHT));
        assert!(DAILY.drill_is_due(Some(MIDNIGHT - 7 * DAY), MIDNIGHT));
        assert!(DAILY.drill_is_due(Some(MIDNIGHT + DAY), MIDNIGHT));
        assert!(!Schedule::default().drill_is_due(Some(MIDNIGHT - 30 * DAY), MIDNIGHT));
    }

    #[test]
    fn a_clock_that_was_ahead_keeps_no_archive_from_being_made() {
        let year = MIDNIGHT + 365 * DAY;
        let ahead = Past { failed: Some((year, 9)), ..good(year) };
        assert_eq!(DAILY.next(ahead, MIDNIGHT), Some(MIDNIGHT));
    }
}
