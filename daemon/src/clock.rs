//! The wall clock: for people to read, never to decide.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 by this device's clock; zero when the clock stands before that.
#[must_use]
pub fn unix_millis() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
