//! From a commit to everybody who follows, beside `redis` publish/subscribe and `etcd` watches.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mfpsync_proto::sync::follow_event::Event;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::Bench;
use crate::footprint::CONNECTIONS_PER_DEVICE;
use crate::support::etcd::{Etcd, Putter};
use crate::support::load::Call;
use crate::support::process::Process;
use crate::support::pusher::{Enrolled, Pusher};
use crate::support::redis::{Redis, Subscriber};
use crate::support::report::{Aim, Report, Row};
use crate::support::stats::Samples;
use crate::support::workload::Author;

/// Followers, and writes each of them sees.
const SIZES: [(usize, usize); 3] = [(10, 300), (100, 200), (1_000, 60)];
/// Writes before those that count.
const WARM_UP: usize = 5;
/// Between two writes, so that each finds a quiet machine.
const PAUSE: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(60);

/// Arrivals at followers; each says once that it is ready, then names the moment of each message.
type Arrivals = mpsc::Receiver<Instant>;

/// One target with its followers.
struct Target<W> {
    writer: W,
    followers: usize,
    arrivals: Arrivals,
    tasks: JoinSet<Result<()>>,
    /// Processor time of the server.
    used: Duration,
    /// From the write to a follower.
    whole: Vec<Duration>,
    /// From the commit to a follower: from the writer's answer or the first arrival, whichever is earlier.
    behind: Vec<Duration>,
}

/// Who writes.
trait Write {
    /// Writes once, and waits for the answer.
    async fn write(&mut self) -> Result<()>;
}

impl Write for Pusher {
    async fn write(&mut self) -> Result<()> {
        self.call().await
    }
}

impl Write for Putter {
    async fn write(&mut self) -> Result<()> {
        self.call().await
    }
}

/// Publishes the records that the others store.
struct Publisher {
    connection: Subscriber,
    author: Author,
}

impl Write for Publisher {
    async fn write(&mut self) -> Result<()> {
        let (_, record) = self.author.next()?;
        self.connection.publish(&record).await
    }
}

impl<W: Write> Target<W> {
    fn new(writer: W) -> (Self, mpsc::Sender<Instant>) {
        let (arrived, arrivals) = mpsc::channel(4096);
        let tasks = JoinSet::new();
        let (used, whole, behind) = (Duration::ZERO, Vec::new(), Vec::new());
        (Self { writer, followers: 0, arrivals, tasks, used, whole, behind }, arrived)
    }

    fn follow(&mut self, follower: impl Future<Output = Result<()>> + Send + 'static) {
        self.followers += 1;
        self.tasks.spawn(follower);
    }

    async fn arrivals(&mut self) -> Result<Vec<Instant>> {
        let mut all = Vec::with_capacity(self.followers);
        while all.len() < self.followers {
            tokio::select! {
                arrival = self.arrivals.recv() => all.push(arrival.context("followers")?),
                Some(ended) = self.tasks.join_next() => bail!("a follower ended: {:?}", ended?),
                () = tokio::time::sleep(PATIENCE) => bail!("{} of {} followers", all.len(), self.followers),
            }
        }
        Ok(all)
    }

    async fn round(&mut self, server: &Process, counts: bool) -> Result<()> {
        let before = server.thread_times()?;
        let began = Instant::now();
        timeout(PATIENCE, self.writer.write()).await.context("a write hangs")??;
        let answered = Instant::now();
        let arrivals = self.arrivals().await?;
        let commit = arrivals.iter().copied().min().map_or(answered, |first| first.min(answered));
        if counts {
            self.used += server.thread_times()?.since(&before);
            self.whole.extend(arrivals.iter().map(|at| *at - began));
            self.behind.extend(arrivals.iter().map(|at| *at - commit));
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    fn tell(self, report: &mut Report, name: &str) -> Result<f64> {
        let (whole, behind) = (Samples::new(self.whole), Samples::new(self.behind));
        report.add(Row::new(format!("write to follower, {name}, p50"), whole.quantile_ms(0.5), "ms"))?;
        report.add(Row::new(format!("write to follower, {name}, p99"), whole.quantile_ms(0.99), "ms"))?;
        let each = self.used.as_secs_f64() * 1e6 / whole.len().max(1) as f64;
        report.add(Row::new(format!("server processor time for a follower, {name}"), each, "us"))?;
        let median = behind.quantile_ms(0.5);
        report.add(Row::new(format!("commit to follower, {name}, p50"), median, "ms"))?;
        let last = behind.quantile_ms(0.99);
        report.add(Row::new(format!("commit to follower, {name}, p99"), last, "ms"))?;
        Ok(median)
    }
}

pub(crate) async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let server = bench.device("announcer").await?;
    server.serve().await?;
    let (etcd, redis) = (Etcd::start(bench.home()).await?, Redis::start(bench.home()).await?);
    let keys = bench.home().join("audience");
    let author = Enrolled::new(&server, &keys, 0).await?;
    let mut audience: Vec<Enrolled> = Vec::new();
    for (followers, writes) in SIZES.into_iter().take(bench.size(SIZES.len(), 1)) {
        report.section(title(followers))?;
        while audience.len() * CONNECTIONS_PER_DEVICE < followers {
            audience.push(Enrolled::new(&server, &keys, audience.len() + 1).await?);
        }
        let (mut ours, arrived) = Target::new(author.connect(0).await?);
        let (mut etcds, arrived_by_etcd) = Target::new(etcd.connect(0).await?);
        let publisher = Publisher { connection: redis.connect().await?, author: Author::new(0) };
        let (mut redises, arrived_by_redis) = Target::new(publisher);
        for number in 0..followers {
            let device = audience.get(number / CONNECTIONS_PER_DEVICE).context("a device")?;
            ours.follow(follow(device.connect(number).await?, arrived.clone()));
            etcds.follow(watch(etcd.connect(number).await?, arrived_by_etcd.clone()));
            redises.follow(subscribe(redis.connect().await?, arrived_by_redis.clone()));
        }
        let ready = (ours.arrivals().await?, etcds.arrivals().await?, redises.arrivals().await?);
        drop(ready);
        for round in 0..WARM_UP + bench.size(writes, 20) {
            ours.round(server.process()?, round >= WARM_UP).await?;
            etcds.round(&etcd.process, round >= WARM_UP).await?;
            redises.round(&redis.process, round >= WARM_UP).await?;
        }
        let own = ours.tell(report, "mfpsyncd")?;
        let (to_etcd, to_redis) =
            (own / etcds.tell(report, "etcd")?, own / redises.tell(report, "redis without TLS")?);
        report.add(Row::new("commit to follower p50, mfpsyncd to etcd", to_etcd, "x"))?;
        let to_redis = Row::new("commit to follower p50, mfpsyncd to redis", to_redis, "x");
        report.add(if followers >= 100 { to_redis.aim(Aim::AtMost(0.7)) } else { to_redis })?;
    }
    Ok(())
}

fn title(followers: usize) -> &'static str {
    match followers {
        10 => "Handing out a change, 10 followers",
        100 => "Handing out a change, 100 followers",
        _ => "Handing out a change, 1,000 followers",
    }
}

async fn follow(mut pusher: Pusher, arrived: mpsc::Sender<Instant>) -> Result<()> {
    let mut events = pusher.follow().await?;
    let mut live = false;
    while let Some(event) = events.message().await? {
        match event.event {
            Some(Event::CaughtUp(_)) => {
                live = true;
                arrived.send(Instant::now()).await?;
            }
            Some(Event::Batch(_)) if live => arrived.send(Instant::now()).await?,
            _ => {}
        }
    }
    bail!("the follow stream ended")
}

async fn watch(mut watcher: Putter, arrived: mpsc::Sender<Instant>) -> Result<()> {
    let mut events = watcher.watch().await?;
    while let Some(reply) = events.message().await? {
        if reply.created || !reply.events.is_empty() {
            arrived.send(Instant::now()).await?;
        }
    }
    bail!("the watch ended")
}

async fn subscribe(mut subscriber: Subscriber, arrived: mpsc::Sender<Instant>) -> Result<()> {
    subscriber.subscribe().await?;
    arrived.send(Instant::now()).await?;
    loop {
        subscriber.next().await?;
        arrived.send(Instant::now()).await?;
    }
}
