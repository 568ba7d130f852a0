//! The same of Litestream and of `sqld`, on rows of a shape like our items.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Comeback, FirstCopy, LOADS, Load, Outcome, UNDER_LOAD, window};
use crate::Bench;
use crate::support::litestream::Litestream;
use crate::support::process::Process;
use crate::support::quantiles::Quantiles;
use crate::support::sqld::Sqld;
use crate::support::stats::Samples;
use crate::support::wire::{Connections, passed};

/// Rows that make a database as large as ours of 100 MB, which keeps a history.
const ROWS: usize = 510_000;
/// After the first copy, so that the load does not meet what follows on it.
const SETTLE: Duration = Duration::from_secs(2);
/// Writes before the source is killed: a second of them.
const AMID: (Option<u32>, Duration) = (Some(200), Duration::from_secs(1));
/// One write.
const ONE: (Option<u32>, Duration) = (None, Duration::ZERO);

pub(crate) fn litestream(
    bench: &Bench,
    program: &Path,
    name: &'static str,
    interval: Option<&str>,
) -> Result<Outcome> {
    let home = bench.home().join(name.replace(' ', "-"));
    let mut small = Litestream::new(program, &home.join("small"), UNDER_LOAD, interval)?;
    small.start()?;
    small.first_copy()?;
    sleep(SETTLE);
    let mut loads = Vec::new();
    for (_, rate) in LOADS {
        let (bytes, cpu) = (small.shipped()?, small.process()?.thread_times()?);
        let lags = small.load(rate, window(bench, rate))?;
        let used = small.process()?.thread_times()?.since(&cpu);
        let bytes = (small.shipped()? - bytes) as f64 / lags.len() as f64;
        let source = (each_ms(used, &lags), small.process()?.rss_mib()?);
        loads.push(load(&lags, window(bench, rate), bytes, source, None));
    }
    drop(small);

    let mut large = Litestream::new(program, &home.join("large"), bench.size(ROWS, UNDER_LOAD), interval)?;
    let began = Instant::now();
    large.start()?;
    large.first_copy()?;
    let seconds = began.elapsed().as_secs_f64();
    let (bytes, database) = (large.shipped()? as f64, large.database_bytes()? as f64);
    let source_idle = idle_share(bench, large.process()?)?;
    let copy = FirstCopy { seconds, bytes, database, source_idle, replica_idle: None };

    large.load(AMID.0, AMID.1)?;
    let before = large.shipped()?;
    large.kill();
    large.start()?;
    let up = Instant::now();
    large.load(ONE.0, ONE.1)?;
    let millis = up.elapsed().as_secs_f64() * 1e3;
    let comeback = Comeback { bytes: (large.shipped()? - before) as f64, millis };
    Ok(Outcome { name, loads, copy, comeback })
}

pub(crate) fn sqld(bench: &Bench, program: &Path) -> Result<Outcome> {
    let home = bench.home().join("sqld");
    let mut small = Sqld::start(program, &home.join("small"), UNDER_LOAD)?;
    small.start_replica()?;
    sleep(SETTLE);
    let mut loads = Vec::new();
    for (_, rate) in LOADS {
        let before = small.connections()?;
        let cpu = (small.primary()?.thread_times()?, small.replica()?.thread_times()?);
        let lags = small.load(rate, window(bench, rate))?;
        let source = small.primary()?.thread_times()?.since(&cpu.0);
        let replica = small.replica()?.thread_times()?.since(&cpu.1);
        let bytes = passed(&small.connections()?, &before) as f64 / lags.len() as f64;
        let source = (each_ms(source, &lags), small.primary()?.rss_mib()?);
        let replica = (each_ms(replica, &lags), small.replica()?.rss_mib()?);
        loads.push(load(&lags, window(bench, rate), bytes, source, Some(replica)));
    }
    drop(small);

    let mut large = Sqld::start(program, &home.join("large"), bench.size(ROWS, UNDER_LOAD))?;
    let began = Instant::now();
    large.start_replica()?;
    large.load(ONE.0, ONE.1)?;
    let seconds = began.elapsed().as_secs_f64();
    let bytes = passed(&large.connections()?, &Connections::new()) as f64;
    let database = large.database_bytes()? as f64;
    let (source_idle, replica_idle) =
        (idle_share(bench, large.primary()?)?, Some(idle_share(bench, large.replica()?)?));
    let copy = FirstCopy { seconds, bytes, database, source_idle, replica_idle };

    large.load(AMID.0, AMID.1)?;
    let before = large.connections()?;
    large.kill_primary();
    large.start_primary()?;
    let up = Instant::now();
    large.load(ONE.0, ONE.1)?;
    let millis = up.elapsed().as_secs_f64() * 1e3;
    let comeback = Comeback { bytes: passed(&large.connections()?, &before) as f64, millis };
    Ok(Outcome { name: "sqld", loads, copy, comeback })
}

fn load(
    lags: &Samples,
    window: Duration,
    bytes: f64,
    source: (f64, f64),
    replica: Option<(f64, f64)>,
) -> Load {
    let per_second = lags.len() as f64 / window.as_secs_f64();
    Load { lag: Quantiles::of(lags), per_second, bytes, messages: None, source, replica }
}

fn each_ms(used: Duration, lags: &Samples) -> f64 {
    used.as_secs_f64() * 1e3 / lags.len() as f64
}

/// Percent of a processor that it uses for a while.
fn idle_share(bench: &Bench, process: &Process) -> Result<f64> {
    sleep(Duration::from_secs(1));
    let (before, began) = (process.thread_times()?, Instant::now());
    sleep(bench.size(Duration::from_secs(20), Duration::from_secs(2)));
    let used = process.thread_times()?.since(&before);
    Ok(used.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0)
}
