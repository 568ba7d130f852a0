//! Days, weeks and months of the UTC calendar. Pure; no leap seconds, no time zones.

/// Seconds of a day.
pub(crate) const DAY: u64 = 86_400;

/// Year, month and day of so many days after 1970-01-01.
///
/// **Source**: Gregorian calendar; 400 years are 146,097 days. Years are counted from March, so that the leap day
/// is the last of its year.
pub(crate) fn date(days: u64) -> (u64, u64, u64) {
    // Days since 0000-03-01.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// The number of the week, from Monday to Sunday, in which a second lies.
pub(crate) fn week(seconds: u64) -> u64 {
    // 1970-01-01 was a Thursday.
    (seconds / DAY + 3) / 7
}

/// The number of the month in which a second lies.
pub(crate) fn month(seconds: u64) -> u64 {
    let (year, month, _) = date(seconds / DAY);
    year * 12 + month
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_the_dates_of_the_calendar() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_787, (2026, 11, 30)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected);
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let lengths = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..150_000 {
            assert_eq!(date(days), (year, month, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = lengths[month as usize - 1] + u64::from(leap && month == 2);
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    #[test]
    fn a_week_ends_on_sunday() {
        // 2026-11-29 was a Sunday.
        let sunday = 20_786 * DAY;
        assert_eq!(week(sunday), week(sunday - 6 * DAY));
        assert_eq!(week(sunday + DAY), week(sunday) + 1);
    }
}
