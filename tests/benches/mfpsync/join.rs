//! A large group: how long a newcomer takes to have everything, what that costs, and how a server
//! with much data starts.

use std::time::Instant;

use anyhow::Result;

use crate::Bench;
use crate::footprint::starts;
use crate::support::device::Device;
use crate::support::pusher::Enrolled;
use crate::support::report::{Aim, Report, Row};

/// Ten machines, a thousand users.
const ITEMS: usize = 155_000;
const ITEMS_AT_START: usize = 100_000;

pub(crate) async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    report.section("Start with 100,000 items")?;
    let items = bench.size(ITEMS_AT_START, 2_000);
    let (mut server, _) = filled(bench, "start", items).await?;
    starts(bench, report, &mut server, "server").await?;
    let mut client = bench.device("start-client").await?;
    client.join(&server).await?;
    client.caught_up(&server).await?;
    starts(bench, report, &mut client, "client").await?;
    client.stop()?;
    server.stop()?;

    report.section("Join of a group with 155,000 items")?;
    let items = bench.size(ITEMS, 3_000);
    let (mut server, filling) = filled(bench, "large", items).await?;
    report.add(Row::new("filling it, 100 items an operation", filling, "s"))?;
    // Founding a group seals the recovery kit, which takes 64 MiB for a moment.
    server.restart().await?;
    let newcomer = bench.device("newcomer").await?;
    let empty = newcomer.process()?.rss_mib()?;
    let cpu_before = server.process()?.cpu()?;
    let began = Instant::now();
    newcomer.join(&server).await?;
    newcomer.caught_up(&server).await?;
    let took = began.elapsed().as_secs_f64();
    report.add(Row::new("join to caught up", took, "s").aim(Aim::AtMost(5.0)))?;
    report.add(Row::new("items per second", items as f64 / took, "/s"))?;
    let process = newcomer.process()?;
    let peak = Row::new("newcomer's memory, peak", process.peak_rss_mib()?, "MiB");
    report.add(peak.note(format!("{empty:.1} before")))?;
    report.add(Row::new("newcomer's processor time", process.cpu()?.as_secs_f64(), "s"))?;
    let cpu = server.process()?.cpu()?.saturating_sub(cpu_before);
    report.add(Row::new("server's processor time", cpu.as_secs_f64(), "s"))?;
    report.add(Row::new("server's memory, peak", server.process()?.peak_rss_mib()?, "MiB"))
}

/// A server with so many items, pushed by one enrolled device, and the seconds that took.
pub(crate) async fn filled(bench: &Bench, name: &str, items: usize) -> Result<(Device, f64)> {
    let server = bench.device(name).await?;
    server.serve().await?;
    let enrolled = Enrolled::new(&server, &bench.home().join(format!("{name}-filler")), 0).await?;
    let began = Instant::now();
    enrolled.connect(0).await?.fill(items).await?;
    Ok((server, began.elapsed().as_secs_f64()))
}
