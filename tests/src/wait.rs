//! Waiting for something to become true. Nothing else in the tests sleeps.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

/// Enough for anything a healthy device does, on a machine that does other things as well.
pub const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// Asks again and again until the answer is `Ok`, and returns it.
///
/// # Errors
/// The last error, with `what` was waited for, once `deadline` has passed.
///
/// # Cancel safety
/// As the closure.
pub async fn eventually<T>(
    deadline: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    let mut last = anyhow!("it was never asked to the end");
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        match tokio::time::timeout(left, ask()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => last = error,
            Err(_elapsed) => break,
        }
        tokio::time::sleep(POLL).await;
    }
    Err(last).with_context(|| format!("waited {deadline:?} for {what}"))
}
