//! Closed-loop load: each caller has one connection and one call in flight. The same for every
//! target, so that the targets differ in what answers and in nothing else.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::process::Process;
use super::stats::Samples;

/// Before the window, so that connections, caches and the scheduler have settled.
const WARM_UP: Duration = Duration::from_millis(500);
/// A call that takes longer than this ends the run.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection that can be asked again and again.
pub(crate) trait Call: Send + 'static {
    /// One call and its answer, checked.
    fn call(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// What was seen during the window.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) latencies: Samples,
    pub(crate) per_second: f64,
    /// Processor time of the server process for each call, in microseconds.
    pub(crate) cpu_us: f64,
}

/// Lets all callers call for `window`, and gives them back.
///
/// # Errors
/// A call failed or hung, or the server is gone.
pub(crate) async fn closed_loop<C: Call>(
    callers: Vec<C>,
    window: Duration,
    server: &Process,
) -> Result<(Vec<C>, Window)> {
    let start = Instant::now() + WARM_UP;
    let end = start + window;
    let mut tasks = JoinSet::new();
    for caller in callers {
        tasks.spawn(repeat(caller, start, end));
    }
    sleep_until(start).await;
    let cpu_before = server.cpu()?;
    sleep_until(end).await;
    let cpu = server.cpu()?.saturating_sub(cpu_before);
    let (mut callers, mut latencies) = (Vec::new(), Vec::new());
    while let Some(done) = timeout(PATIENCE, tasks.join_next()).await.context("a call hangs")? {
        let (caller, seen) = done??;
        callers.push(caller);
        latencies.extend(seen);
    }
    let calls = latencies.len().max(1) as f64;
    let window = Window {
        per_second: calls / window.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / calls,
        latencies: Samples::new(latencies),
    };
    Ok((callers, window))
}

async fn repeat<C: Call>(mut caller: C, start: Instant, end: Instant) -> Result<(C, Vec<Duration>)> {
    let mut seen = Vec::new();
    let mut before = Instant::now();
    while before < end {
        caller.call().await?;
        let after = Instant::now();
        if before >= start && after <= end {
            seen.push(after - before);
        }
        before = after;
    }
    Ok((caller, seen))
}
