//! The wall clock: for people to read, never to decide. And the hours that the daemon runs, which do
//! where something is kept for a time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// Milliseconds since 1970 by this device's clock; zero when the clock stands before that.
#[must_use]
pub fn unix_millis() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Ticks after every hour of running, the first in an hour. A tick that comes late delays the next: no
/// hour counts twice.
pub(crate) fn running_hours() -> Interval {
    let mut hours = interval_at(Instant::now() + HOUR, HOUR);
    hours.set_missed_tick_behavior(MissedTickBehavior::Delay);
    hours
}
