//! How long tests that draw their luck go on, and from which seed.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// `short`, or `long` in a campaign (`make campaign`, or `MFPSYNC_CAMPAIGN=1`).
#[must_use]
pub fn rounds(short: u32, long: u32) -> u32 {
    let campaign = std::env::var_os("MFPSYNC_CAMPAIGN").is_some_and(|set| set == "1");
    if campaign { long } else { short }
}

/// The seed that `MFPSYNC_SEED` names, or any; print it, and it can be replayed.
#[must_use]
pub fn seed() -> u64 {
    let named = std::env::var("MFPSYNC_SEED").ok().and_then(|text| text.parse().ok());
    named.unwrap_or_else(|| RandomState::new().hash_one(std::process::id()))
}
