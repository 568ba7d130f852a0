//! What the daemon costs while nothing happens: size on disk, time to start, memory, processor time.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use crate::Bench;
use crate::support::device::Device;
use crate::support::process::Process;
use crate::support::pusher::Enrolled;
use crate::support::report::{Aim, Report, Row};
use crate::support::stats::Spread;

/// Restarts of which the median counts.
const STARTS: usize = 7;
const FOLLOWING_DEVICES: usize = 250;
/// The product's limit.
pub(crate) const CONNECTIONS_PER_DEVICE: usize = 4;
/// Until what came before has settled, and threads that were needed for it have ended: theirs is
/// time that cannot be seen afterwards. The runtime keeps idle ones for 10 s.
const SETTLE: Duration = Duration::from_secs(12);

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
    idle(bench, report, &[("server", server.process()?, 48.0), ("client", client.process()?, 12.0)]).await?;
    let followers = follow(bench, &server).await?;
    let what = format!("server with {} followers", followers.len());
    idle(bench, report, &[(&what, server.process()?, 48.0)]).await
}

/// Memory and processor time of processes that have nothing to do; each with its aim in MiB.
async fn idle(bench: &Bench, report: &mut Report, processes: &[(&str, &Process, f64)]) -> Result<()> {
    tokio::time::sleep(SETTLE).await;
    let began = Instant::now();
    let before = processes.iter().map(|(_, process, _)| process.thread_times());
    let before = before.collect::<Result<Vec<_>>>()?;
    tokio::time::sleep(bench.size(Duration::from_secs(20), Duration::from_secs(2))).await;
    let elapsed = began.elapsed().as_secs_f64();
    for ((role, process, aim), before) in processes.iter().zip(before) {
        let memory = Row::new(format!("resident memory, {role}"), process.rss_mib()?, "MiB");
        let anonymous = format!("{:.1} without mapped files", process.anonymous_mib()?);
        report.add(memory.aim(Aim::AtMost(*aim)).note(anonymous))?;
        let used = process.thread_times()?.since(&before).as_secs_f64();
        let share = Row::new(format!("processor time, {role}"), used / elapsed * 100.0, "%");
        report.add(share.aim(Aim::AtMost(0.1)))?;
    }
    Ok(())
}

/// Devices that follow on as many connections as one device may have; they end when dropped.
async fn follow(bench: &Bench, server: &Device) -> Result<JoinSet<()>> {
    let keys = bench.home().join("followers");
    let mut followers = JoinSet::new();
    for number in 0..bench.size(FOLLOWING_DEVICES, 5) {
        let device = Enrolled::new(server, &keys, number).await?;
        for _ in 0..CONNECTIONS_PER_DEVICE {
            let mut pusher = device.connect(number).await?;
            let mut events = pusher.follow().await?;
            followers.spawn(async move {
                // The connection lives as long as its channel.
                let _pusher = pusher;
                while let Ok(Some(_)) = events.message().await {}
            });
        }
    }
    Ok(followers)
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
