//! A device whose wall clock is wrong: a small library preloaded into the daemon shifts it.
//!
//! Needs the C compiler that the build needs anyway, and a daemon that is linked dynamically.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/clock.c");

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
    let library = directory.join("clock.so");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let output = Command::new(&compiler)
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(SOURCE)
        .arg("-ldl")
        .output()
        .with_context(|| format!("run {compiler}"))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(vec![
        ("LD_PRELOAD".to_owned(), library.display().to_string()),
        ("MFPSYNC_TEST_CLOCK_SHIFT".to_owned(), seconds.to_string()),
    ])
}
