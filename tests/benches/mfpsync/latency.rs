//! How long people wait: an edit's way to the next device, and reads at a device.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mfpsync_proto::local::local_client::LocalClient;
use mfpsync_proto::local::watch_event::Event;
use mfpsync_proto::local::{
    Edit, Field, GetRequest, Item, ItemKey, Put, Value, WatchEvent, WatchRequest, WriteRequest, edit, value,
};
use tokio::time::timeout;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::Bench;
use crate::support::device::Device;
use crate::support::load::{Call, closed_loop};
use crate::support::pusher::{Enrolled, Pusher};
use crate::support::report::{Aim, Report, Row};
use crate::support::stats::Samples;

/// Items edited in turn.
const ITEMS: usize = 100;
/// Pause between an event and the next edit: nobody types faster, and nothing piles up.
const PACE: Duration = Duration::from_millis(3);
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections that push while the busy device is read.
const PUSHERS: usize = 4;

pub(crate) async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    report.section("Edit at one device to event at another, through the server")?;
    let server = bench.device("office-server").await?;
    server.serve().await?;
    let (first, second) = (bench.device("office-first").await?, bench.device("office-second").await?);
    for client in [&first, &second] {
        client.join(&server).await?;
        client.caught_up(&server).await?;
    }
    let (writes, events) = edits(bench, &first, &second).await?;
    let what = format!("client to client, {} samples", events.len());
    report.add(Row::new(format!("{what}, p50"), events.quantile_ms(0.5), "ms").aim(Aim::AtMost(10.0)))?;
    report.add(Row::new(format!("{what}, p99"), events.quantile_ms(0.99), "ms").aim(Aim::AtMost(50.0)))?;
    report.add(Row::new("of it the local write, p50", writes.quantile_ms(0.5), "ms"))?;
    report.add(Row::new("of it the local write, p99", writes.quantile_ms(0.99), "ms"))?;
    first.caught_up(&server).await?;

    report.section("Get at a device")?;
    let idle = reads(&mut second.local().await?, bench.size(5_000, 200), None).await?;
    gets(report, "idle device", &idle, 1.0)?;
    let keys = bench.home().join("office-pushers");
    let mut pushers = Vec::new();
    for number in 0..PUSHERS {
        pushers.push(Enrolled::new(&server, &keys, number).await?.connect(number).await?);
    }
    let (busy, taken) = busy(bench, &server, &second, pushers).await?;
    gets(report, &format!("device taking {taken:.0} changes/s"), &busy, 50.0)
}

fn gets(report: &mut Report, what: &str, samples: &Samples, aim_p99: f64) -> Result<()> {
    report.add(Row::new(format!("{what}, p50"), samples.quantile_ms(0.5), "ms"))?;
    let row = Row::new(format!("{what}, p99"), samples.quantile_ms(0.99), "ms");
    report.add(row.aim(Aim::AtMost(aim_p99)).note(format!("{} samples", samples.len())))
}

/// Writes at one device, one edit at a time, and waits for each at the other.
async fn edits(bench: &Bench, from: &Device, to: &Device) -> Result<(Samples, Samples)> {
    let (samples, warm_up) = (bench.size(2_000, 100), 50);
    let mut events = to.local().await?.watch(WatchRequest::default()).await?.into_inner();
    let mut local = from.local().await?;
    let (mut writes, mut arrivals) = (Vec::new(), Vec::new());
    for round in 0..samples + warm_up {
        let began = Instant::now();
        local.write(edit(round)).await?;
        let written = began.elapsed();
        timeout(PATIENCE, arrival(&mut events, round)).await.context("an edit did not arrive")??;
        if round >= warm_up {
            writes.push(written);
            arrivals.push(began.elapsed());
        }
        tokio::time::sleep(PACE).await;
    }
    Ok((Samples::new(writes), Samples::new(arrivals)))
}

fn key(number: usize) -> ItemKey {
    ItemKey {
        scope: "user/visitor".to_owned(),
        kind: "address.personal".to_owned(),
        id: (number % ITEMS).to_string(),
        ..ItemKey::default()
    }
}

fn edit(round: usize) -> WriteRequest {
    let field =
        |name: &str, value| Field { name: name.to_owned(), value: Some(Value { value: Some(value) }) };
    let fields = vec![
        field("class", value::Value::Text("email".to_owned())),
        field("mail", value::Value::Text("person@example.com".to_owned())),
        field("round", value::Value::Integer(round as i64)),
    ];
    let put = edit::Edit::Put(Put { key: Some(key(round)), fields });
    WriteRequest { edits: vec![Edit { edit: Some(put) }], actor: "bench".to_owned() }
}

async fn arrival(events: &mut Streaming<WatchEvent>, round: usize) -> Result<()> {
    loop {
        let event = events.message().await?.context("the watch ended")?.event;
        if let Some(Event::Changed(item)) = event
            && is_of(&item, round)
        {
            return Ok(());
        }
    }
}

fn is_of(item: &Item, round: usize) -> bool {
    let wanted = Some(Value { value: Some(value::Value::Integer(round as i64)) });
    item.fields.iter().any(|field| field.name == "round" && field.value == wanted)
}

/// Reads one item after the other: so many, or until told to stop.
async fn reads(local: &mut LocalClient<Channel>, count: usize, stop: Option<&AtomicBool>) -> Result<Samples> {
    let mut taken = Vec::new();
    while taken.len() < count && !stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
        let key = Some(key(taken.len()));
        let began = Instant::now();
        local.get(GetRequest { key }).await?;
        taken.push(began.elapsed());
        if stop.is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(Samples::new(taken))
}

/// Reads at `device` while others push to its server as fast as they can.
async fn busy(
    bench: &Bench,
    server: &Device,
    device: &Device,
    pushers: Vec<Pusher>,
) -> Result<(Samples, f64)> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut local = device.local().await?;
    let reading = {
        let stop = stop.clone();
        tokio::spawn(async move { reads(&mut local, usize::MAX, Some(&stop)).await })
    };
    let window = bench.size(Duration::from_secs(5), Duration::from_secs(1));
    let pushed = push(server, pushers, window).await;
    stop.store(true, Ordering::Relaxed);
    Ok((reading.await??, pushed?))
}

async fn push<C: Call>(server: &Device, callers: Vec<C>, window: Duration) -> Result<f64> {
    let (_, seen) = closed_loop(callers, window, server.process()?).await?;
    Ok(seen.per_second)
}
