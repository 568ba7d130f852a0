//! A device whose wall clock is wrong: a library preloaded into the daemon shifts it.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::preload;

/// Seconds that take the clock of today back to the first day of 1970.
#[must_use]
pub fn back_to_1970() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    3_600 - i64::try_from(now).unwrap_or_default()
}

/// Seconds of so many years.
#[must_use]
pub fn years(number: i64) -> i64 {
    number * 31_557_600
}

/// Builds the library in `directory` and returns the environment that shifts a daemon's clock.
///
/// # Errors
/// There is no C compiler.
pub fn shifted_by(seconds: i64, directory: &Path) -> Result<Vec<(String, String)>> {
    let preloaded = preload::library("clock", directory)?;
    Ok(vec![preloaded, ("MFPSYNC_TEST_CLOCK_SHIFT".to_owned(), seconds.to_string())])
}
