//! Our server and its replica: two daemons, and pushes over the network as any device makes them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context, Result, ensure};
use mfpsync_proto::panel::{
    Durability, ReplicationReply, ReplicationRequest, Role, SetReplicationRequest, StatusReply,
    StopReplicationRequest,
};

use super::{Comeback, FirstCopy, GIGABYTE, HUNDRED_MB, LOADS, Load, MIB, Outcome, UNDER_LOAD, window};
use crate::Bench;
use crate::join::filled;
use crate::support::device::Device;
use crate::support::load::{Call, closed_loop};
use crate::support::metrics::Metrics;
use crate::support::process::{Process, ThreadTimes};
use crate::support::pusher::{Enrolled, Pusher};
use crate::support::report::{Aim, Report, Row};
use crate::support::stats::Spread;
use crate::support::wire::{Connections, connections, passed};

pub(crate) const NAME: &str = "mfpsyncd";
const LAG: &str = "mfpsync_replica_lag_seconds";
const SENT: &str = "mfpsync_replica_sent_bytes_total";
const ACCEPTED: &str = "mfpsync_server_operations_total{outcome=\"accepted\"}";
/// Connections of the load at full rate.
const CONNECTIONS: usize = 32;
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(1);
/// Transactions that a copy that was put back lacks.
const DIVERGED: usize = 100;

/// A server and a client of it that becomes the replica.
struct Pair {
    server: Device,
    replica: Device,
    keys: PathBuf,
    enrolled: Vec<Enrolled>,
}

/// What is subtracted from what is seen later.
struct Before {
    metrics: Metrics,
    server: ThreadTimes,
    replica: ThreadTimes,
    connections: Connections,
}

/// What was used between two moments.
struct Used {
    metrics: Metrics,
    transactions: f64,
    server_ms: f64,
    replica_ms: f64,
}

pub(crate) async fn measure(bench: &Bench, report: &mut Report) -> Result<Outcome> {
    let mut pair = Pair::start(bench, "replicated", bench.size(UNDER_LOAD, 20_000)).await?;
    let loads = loads(bench, report, &mut pair).await?;
    pair.stop()?;

    let mut pair = Pair::start(bench, "copied", bench.size(HUNDRED_MB, 20_000)).await?;
    let copy = first_copy(bench, &pair).await?;
    let comeback = comeback(&mut pair).await?;
    pair.stop()?;

    let mut pair = Pair::start(bench, "diverged", bench.size(GIGABYTE, 20_000)).await?;
    diverged(bench, report, &mut pair).await?;
    pair.stop()?;
    Ok(Outcome { name: NAME, loads, copy, comeback })
}

impl Pair {
    async fn start(bench: &Bench, name: &str, items: usize) -> Result<Self> {
        let (mut server, _) = filled(bench, name, items).await?;
        // The recovery kit's 64 MiB are not what is measured here.
        server.restart().await?;
        let replica = bench.device(&format!("{name}-replica")).await?;
        replica.join(&server).await?;
        replica.caught_up(&server).await?;
        let keys = bench.home().join(format!("{name}-keys"));
        Ok(Self { server, replica, keys, enrolled: Vec::new() })
    }

    fn stop(&mut self) -> Result<()> {
        self.replica.stop()?;
        self.server.stop()
    }

    async fn pushers(&mut self, count: usize) -> Result<Vec<Pusher>> {
        while self.enrolled.len() < count {
            self.enrolled.push(Enrolled::new(&self.server, &self.keys, self.enrolled.len()).await?);
        }
        let mut pushers = Vec::new();
        for (number, enrolled) in self.enrolled.iter().take(count).enumerate() {
            pushers.push(enrolled.connect(number).await?.patching());
        }
        Ok(pushers)
    }

    /// Makes the other device the replica, and waits until it has everything; how long that took.
    async fn set(&self) -> Result<Duration> {
        let device_id = self.replica.status().await?.device_id;
        let request = SetReplicationRequest {
            device_id,
            durability: Durability::Async.into(),
            ..SetReplicationRequest::default()
        };
        let began = Instant::now();
        self.server.panel().await?.set_replication(request).await?;
        self.has_everything().await?;
        Ok(began.elapsed())
    }

    async fn unset(&self) -> Result<()> {
        self.server.panel().await?.stop_replication(StopReplicationRequest {}).await?;
        let is_client = |status: &StatusReply| status.running() == Role::Client;
        self.replica.wait("client again", is_client).await?;
        Ok(())
    }

    async fn has_everything(&self) -> Result<()> {
        let mut panel = self.server.panel().await?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = panel.replication(ReplicationRequest {}).await?.into_inner();
            if has_everything(&reply) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the replica does not catch up: {reply:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    fn connections(&self) -> Result<Connections> {
        connections(self.replica.process()?.id(), self.server.address().port())
    }

    async fn before(&self) -> Result<Before> {
        Ok(Before {
            metrics: self.server.metrics().await?,
            server: self.server.process()?.thread_times()?,
            replica: self.replica.process()?.thread_times()?,
            connections: self.connections()?,
        })
    }

    async fn used(&self, before: &Before) -> Result<Used> {
        let (server, replica) =
            (self.server.process()?.thread_times()?, self.replica.process()?.thread_times()?);
        let metrics = self.server.metrics().await?.since(&before.metrics);
        let transactions = metrics.value(ACCEPTED)?;
        let each = |used: Duration| used.as_secs_f64() * 1e3 / transactions;
        let server_ms = each(server.since(&before.server));
        Ok(Used { metrics, transactions, server_ms, replica_ms: each(replica.since(&before.replica)) })
    }
}

fn has_everything(reply: &ReplicationReply) -> bool {
    reply.replica.as_ref().is_some_and(|replica| {
        replica.connected && replica.live && replica.behind == Some(0) && replica.behind_millis.is_none()
    })
}

/// Each load without and with a replica: what differs is what replication costs. At full rate in turns.
async fn loads(bench: &Bench, report: &mut Report, pair: &mut Pair) -> Result<Vec<Load>> {
    let mut pushers = pair.pushers(CONNECTIONS).await?;
    for pusher in &mut pushers {
        // So that each of its items is there.
        for _ in 0..100 {
            pusher.call().await?;
        }
    }
    let mut found = Vec::new();
    for (name, rate) in LOADS {
        let rounds = if rate.is_some() { 1 } else { bench.size(5, 2) };
        let (mut alone, mut together, mut costs) = (Vec::new(), Vec::new(), Vec::new());
        let mut in_turns = Vec::new();
        for _ in 0..rounds {
            let before = pair.before().await?;
            let rate_alone;
            (pushers, rate_alone) = pushed(pushers, rate, window(bench, rate), pair).await?;
            let used_alone = pair.used(&before).await?;
            let client = pair.connections()?;
            pair.set().await?;
            let seen;
            (pushers, seen) = followed(pushers, rate, bench, pair, &client).await?;
            costs.push(seen.source.0 - used_alone.server_ms);
            alone.push(rate_alone);
            together.push(seen.per_second / rate_alone * 100.0);
            in_turns.push(seen);
            pair.unset().await?;
        }
        let cost = Row::spread(format!("{name}: server, for replication alone"), Spread::of(costs), "ms");
        report.add(cost.aim(Aim::AtMost(0.1)))?;
        if rate.is_none() {
            report.add(Row::spread("full rate without a replica", Spread::of(alone), "/s"))?;
            let share = Row::spread("full rate with a replica, of that", Spread::of(together), "%");
            report.add(share.aim(Aim::AtLeast(97.0)))?;
        }
        // The round in the middle.
        in_turns.sort_by(|one: &Load, two| one.lag.p99.total_cmp(&two.lag.p99));
        found.push(in_turns.swap_remove(rounds / 2));
    }
    Ok(found)
}

/// A load while the replica follows. `client`: the connections it had before it was the replica.
async fn followed(
    pushers: Vec<Pusher>,
    rate: Option<u32>,
    bench: &Bench,
    pair: &Pair,
    client: &Connections,
) -> Result<(Vec<Pusher>, Load)> {
    let before = pair.before().await?;
    let (pushers, per_second) = pushed(pushers, rate, window(bench, rate), pair).await?;
    pair.has_everything().await?;
    let used = pair.used(&before).await?;
    let mut ship = pair.connections()?;
    ship.retain(|port, _| !client.contains_key(port));
    let load = Load {
        lag: used.metrics.quantiles_ms(LAG)?,
        per_second,
        bytes: passed(&ship, &before.connections) as f64 / used.transactions,
        messages: Some(used.metrics.value(SENT)? / used.transactions),
        source: (used.server_ms, pair.server.process()?.rss_mib()?),
        replica: Some((used.replica_ms, pair.replica.process()?.rss_mib()?)),
    };
    Ok((pushers, load))
}

/// Pushes for a while: one connection at a pace, or all of them as fast as they go.
async fn pushed(
    mut pushers: Vec<Pusher>,
    rate: Option<u32>,
    window: Duration,
    pair: &Pair,
) -> Result<(Vec<Pusher>, f64)> {
    let Some(rate) = rate else {
        let (pushers, seen) = closed_loop(pushers, window, pair.server.process()?).await?;
        return Ok((pushers, seen.per_second));
    };
    let pusher = pushers.first_mut().context("a pusher")?;
    let mut due = tokio::time::interval(Duration::from_secs(1) / rate);
    let (began, mut pushes) = (Instant::now(), 0);
    while began.elapsed() < window {
        due.tick().await;
        pusher.call().await?;
        pushes += 1;
    }
    Ok((pushers, f64::from(pushes) / window.as_secs_f64()))
}

async fn first_copy(bench: &Bench, pair: &Pair) -> Result<FirstCopy> {
    let before = pair.server.metrics().await?;
    let took = pair.set().await?;
    let bytes = pair.server.metrics().await?.since(&before).value(SENT)?;
    let database = pair.server.database_mib("master.db")? * MIB;
    let wait = bench.size(Duration::from_secs(20), Duration::from_secs(2));
    let idle = [pair.server.process()?, pair.replica.process()?];
    let [source_idle, replica_idle] = idle_shares(idle, wait).await?;
    let (seconds, replica_idle) = (took.as_secs_f64(), Some(replica_idle));
    Ok(FirstCopy { seconds, bytes, database, source_idle, replica_idle })
}

/// Percent of a processor that each uses for a while.
async fn idle_shares(processes: [&Process; 2], wait: Duration) -> Result<[f64; 2]> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = [processes[0].thread_times()?, processes[1].thread_times()?];
    let began = Instant::now();
    tokio::time::sleep(wait).await;
    let after = [processes[0].thread_times()?, processes[1].thread_times()?];
    let elapsed = began.elapsed().as_secs_f64();
    Ok([0, 1].map(|at| after[at].since(&before[at]).as_secs_f64() / elapsed * 100.0))
}

/// Kills the server amid edits, starts it, and makes one more.
async fn comeback(pair: &mut Pair) -> Result<Comeback> {
    let mut pusher = pair.pushers(1).await?.pop().context("a pusher")?;
    for _ in 0..200 {
        pusher.call().await?;
    }
    let before = pair.connections()?;
    pair.server.kill();
    pair.server.start_again().await?;
    let up = Instant::now();
    let mut pusher = pair.pushers(1).await?.pop().context("a pusher")?;
    pusher.call().await?;
    pair.has_everything().await?;
    let millis = up.elapsed().as_secs_f64() * 1e3;
    Ok(Comeback { bytes: passed(&pair.connections()?, &before) as f64, millis })
}

/// Puts an older copy back, so that it lacks transactions in a way that nobody knows.
async fn diverged(bench: &Bench, report: &mut Report, pair: &mut Pair) -> Result<()> {
    pair.set().await?;
    let copy = pair.replica.data().join("standby");
    let older = bench.home().join("older");
    pair.replica.stop()?;
    duplicate(&copy, &older)?;
    pair.replica.start_again().await?;
    let mut pusher = pair.pushers(1).await?.pop().context("a pusher")?;
    for _ in 0..DIVERGED {
        pusher.call().await?;
    }
    pair.has_everything().await?;
    pair.replica.stop()?;
    fs::remove_dir_all(&copy)?;
    fs::rename(&older, &copy)?;
    let before = pair.server.metrics().await?;
    let began = Instant::now();
    pair.replica.start_again().await?;
    // The copy that was put back is read first; then it is compared.
    pair.has_everything().await?;
    let took = began.elapsed();
    let sent = pair.server.metrics().await?.since(&before).value(SENT)?;
    let both = passed(&pair.connections()?, &Connections::new()) as f64;
    let size = format!("{:.0} MiB", pair.server.database_mib("master.db")?);
    let row = Row::new("100 diverged transactions: bytes sent", sent / MIB, "MiB");
    report.add(row.aim(Aim::AtMost(0.5)).note(size))?;
    report.add(Row::new("the same, both ways with TLS", both / MIB, "MiB"))?;
    report.add(Row::new("the same, from the replica's start", took.as_secs_f64(), "s"))
}

fn duplicate(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}
