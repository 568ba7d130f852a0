//! What a pull and a login cost as the database grows, and how fast a follow stream is beside a bare
//! copy over the same TLS.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mfpsync_proto::local::LoginRequest;
use mfpsync_proto::sync::Cursor;
use mfpsync_proto::sync::follow_event::Event;

use crate::Bench;
use crate::join::filled;
use crate::support::copy::Copy;
use crate::support::pusher::{Enrolled, Pusher};
use crate::support::report::{Aim, Report, Row};
use crate::support::stats::{Samples, Spread};
use crate::support::workload::{ITEMS_PER_USER, person};

/// Items that make a master database of about 1 MB, 100 MB and 1 GB.
const SIZES: [(&str, usize); 3] = [("1 MB", 2_000), ("100 MB", 210_000), ("1 GB", 2_150_000)];
const CALLS: usize = 200;
/// Items a stream carries that is measured beside a copy.
const STREAM_ITEMS: usize = 155_000;
const MIB: f64 = 1024.0 * 1024.0;

pub(crate) async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    stream(bench, report).await?;
    report.section("Pull and login as the database grows")?;
    let (mut pulls, mut logins) = (Vec::new(), Vec::new());
    for (size, items) in SIZES.into_iter().take(bench.size(SIZES.len(), 1)) {
        let (pull, login) = at_size(bench, report, size, items).await?;
        pulls.push(pull);
        logins.push(login);
    }
    let growth =
        |costs: &[f64]| costs.last().zip(costs.first()).map_or(f64::NAN, |(last, first)| last / first);
    report.add(Row::new("pull, largest to smallest", growth(&pulls), "x").aim(Aim::AtMost(1.5)))?;
    report.add(Row::new("login, largest to smallest", growth(&logins), "x").aim(Aim::AtMost(1.5)))
}

/// The medians of a pull and a login, in milliseconds.
async fn at_size(bench: &Bench, report: &mut Report, size: &str, items: usize) -> Result<(f64, f64)> {
    let (mut server, _) = filled(bench, &format!("size-{items}"), items).await?;
    // The recovery kit's 64 MiB are not what is measured here.
    server.restart().await?;
    let bytes = Row::new(format!("{size}: master database"), server.database_mib("master.db")?, "MiB");
    report.add(bytes.note(format!("{items} items")))?;
    let mut client = bench.device(&format!("size-{items}-client")).await?;
    client.join(&server).await?;
    client.caught_up(&server).await?;

    let keys = bench.home().join(format!("size-{items}-puller"));
    let mut puller = Enrolled::new(&server, &keys, 0).await?.connect(0).await?;
    let (cursor, _) = everything(&mut puller).await?;
    let (calls, cpu) = (bench.size(CALLS, 20), server.process()?.cpu()?);
    let mut pulls = Vec::new();
    for _ in 0..calls {
        let began = Instant::now();
        pull(&mut puller, &cursor).await?;
        pulls.push(began.elapsed());
    }
    let cpu = server.process()?.cpu()?.saturating_sub(cpu);
    let pull = cost(report, &format!("{size}: pull from a recent cursor"), pulls)?;
    let each = cpu.as_secs_f64() * 1e6 / calls as f64;
    report.add(Row::new(format!("{size}: server processor time of a pull"), each, "us"))?;

    let mut local = client.local().await?;
    let users = (items / ITEMS_PER_USER).max(1);
    let mut logins = Vec::new();
    for call in 0..calls {
        // Spread over all users; a step that has no factor in common with their number.
        let user = person(call * 7919 % users);
        let began = Instant::now();
        let reply = local.login(LoginRequest { user, wait_millis: Some(0) }).await?.into_inner();
        logins.push(began.elapsed());
        ensure!(reply.items.len() == ITEMS_PER_USER, "{} items of a person", reply.items.len());
    }
    let login = cost(report, &format!("{size}: login, {ITEMS_PER_USER} items of a person"), logins)?;
    client.stop()?;
    server.stop()?;
    Ok((pull, login))
}

fn cost(report: &mut Report, what: &str, taken: Vec<Duration>) -> Result<f64> {
    let samples = Samples::new(taken);
    let median = samples.quantile_ms(0.5);
    report.add(Row::new(format!("{what}, p50"), median, "ms"))?;
    report.add(Row::new(format!("{what}, p99"), samples.quantile_ms(0.99), "ms"))?;
    Ok(median)
}

/// Follows from a cursor until it is told that it has everything.
async fn pull(puller: &mut Pusher, cursor: &Cursor) -> Result<()> {
    let mut events = puller.follow_from(Some(cursor.clone())).await?;
    while let Some(event) = events.message().await? {
        match event.event {
            Some(Event::CaughtUp(_)) => return Ok(()),
            Some(Event::Reset(_)) => break,
            _ => {}
        }
    }
    anyhow::bail!("the server does not know its own cursor")
}

/// Follows from nothing until everything is here: the cursor then, and the bytes of the changes.
async fn everything(puller: &mut Pusher) -> Result<(Cursor, usize)> {
    let mut events = puller.follow_from(None).await?;
    let mut bytes = 0;
    while let Some(event) = events.message().await? {
        match event.event {
            Some(Event::Batch(batch)) => bytes += batch.changes.len(),
            Some(Event::CaughtUp(caught_up)) => {
                return Ok((caught_up.cursor.context("a cursor")?, bytes));
            }
            _ => {}
        }
    }
    anyhow::bail!("the follow stream ended")
}

async fn stream(bench: &Bench, report: &mut Report) -> Result<()> {
    report.section("A follow stream from nothing, beside a copy over TLS")?;
    let (mut server, _) = filled(bench, "stream", bench.size(STREAM_ITEMS, 3_000)).await?;
    server.restart().await?;
    let keys = bench.home().join("stream-puller");
    let mut puller = Enrolled::new(&server, &keys, 0).await?.connect(0).await?;
    let mut copy = Copy::start(bench.home()).await?;
    let (_, total) = everything(&mut puller).await?;
    let (mut rates, mut copies, mut ratios, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.size(7, 2) {
        let before = server.process()?.cpu()?;
        let began = Instant::now();
        let (_, bytes) = everything(&mut puller).await?;
        let rate = bytes as f64 / MIB / began.elapsed().as_secs_f64();
        cpu.push(
            (server.process()?.cpu()?.saturating_sub(before)).as_secs_f64() * 1e3 / (bytes as f64 / MIB),
        );
        let bare = total as f64 / MIB / copy.take(total).await?.as_secs_f64();
        rates.push(rate);
        copies.push(bare);
        ratios.push(rate / bare);
    }
    report.add(Row::spread("follow stream", Spread::of(rates), "MiB/s"))?;
    report.add(Row::spread("copy over TLS", Spread::of(copies), "MiB/s"))?;
    let ratio = Row::spread("follow stream to copy", Spread::of(ratios), "x");
    report.add(ratio.aim(Aim::AtLeast(0.4)))?;
    report.add(Row::spread("server processor time", Spread::of(cpu), "ms/MiB"))?;
    server.stop()
}
