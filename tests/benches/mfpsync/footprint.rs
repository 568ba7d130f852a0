//! What the daemon costs while nothing happens: size on disk, time to start, memory, processor time.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::Bench;
use crate::support::device::Device;
use crate::support::process::Process;
use crate::support::report::{Aim, Report, Row};
use crate::support::stats::Spread;

/// Restarts of which the median counts.
const STARTS: usize = 7;
/// After joining, until what that stirred up has settled.
const SETTLE: Duration = Duration::from_secs(2);

pub(crate) async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    report.section("Size and start")?;
    let size = mib(&bench.daemon)?;
    report.add(Row::new("mfpsyncd, stripped", size, "MiB").aim(Aim::AtMost(8.0)))?;
    if bench.command.is_file() {
        report.add(Row::new("mfpsync, stripped", mib(&bench.command)?, "MiB"))?;
    }
    let mut fresh = bench.device("fresh").await?;
    starts(bench, report, &mut fresh, "without a group").await?;
    fresh.stop()?;

    report.section("Idle")?;
    let (server, client) = (bench.device("server").await?, bench.device("client").await?);
    server.serve().await?;
    client.join(&server).await?;
    client.caught_up(&server).await?;
    tokio::time::sleep(SETTLE).await;
    let (server, client) = (server.process()?, client.process()?);
    let window = bench.size(Duration::from_secs(20), Duration::from_secs(2));
    let began = Instant::now();
    let before = (server.cpu_of_threads()?, client.cpu_of_threads()?);
    tokio::time::sleep(window).await;
    let elapsed = began.elapsed();
    memory(report, "server", server, 48.0)?;
    memory(report, "client", client, 12.0)?;
    processor(report, "server", server.cpu_of_threads()?.saturating_sub(before.0), elapsed)?;
    processor(report, "client", client.cpu_of_threads()?.saturating_sub(before.1), elapsed)
}

/// Restarts the device a few times; the first start of a fresh database is none of them.
///
/// # Errors
/// It does not come back.
pub(crate) async fn starts(
    bench: &Bench,
    report: &mut Report,
    device: &mut Device,
    what: &str,
) -> Result<()> {
    let (mut answered, mut running) = (Vec::new(), Vec::new());
    for _ in 0..bench.size(STARTS, 3) {
        let (answer, run) = device.restart().await?;
        answered.push(answer.as_secs_f64() * 1e3);
        running.push(run.as_secs_f64() * 1e3);
    }
    let row = Row::spread(format!("start to first answer, {what}"), Spread::of(answered), "ms");
    report.add(row.aim(Aim::AtMost(30.0)))?;
    report.add(Row::spread(format!("start to role running, {what}"), Spread::of(running), "ms"))
}

fn mib(path: &Path) -> Result<f64> {
    let bytes = fs::metadata(path).with_context(|| path.display().to_string())?.len();
    Ok(bytes as f64 / f64::from(1 << 20))
}

fn memory(report: &mut Report, role: &str, process: &Process, aim: f64) -> Result<()> {
    report.add(Row::new(format!("resident memory, {role}"), process.rss_mib()?, "MiB").aim(Aim::AtMost(aim)))
}

fn processor(report: &mut Report, role: &str, used: Duration, elapsed: Duration) -> Result<()> {
    let share = used.as_secs_f64() / elapsed.as_secs_f64() * 100.0;
    report.add(Row::new(format!("processor time, {role}"), share, "%").aim(Aim::AtMost(0.1)))
}
