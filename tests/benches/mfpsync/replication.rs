//! What a replica costs and how closely it follows, beside Litestream and `sqld` in the same run.
//!
//! One system after the other, each with a source and a replica on this machine and this disk: nothing of
//! one burdens the next.

mod ours;
mod peers;

use std::time::Duration;

use anyhow::Result;

use crate::Bench;
use crate::support::quantiles::Quantiles;
use crate::support::report::{Aim, Report, Row};

/// Loads by their name, with the writes a second of one writer; none is as fast as it goes.
const LOADS: [(&str, Option<u32>); 3] = [("20/s", Some(20)), ("200/s", Some(200)), ("full rate", None)];
/// Items in a database under load: a hundred people's.
const UNDER_LOAD: usize = 100_000;
/// Items that make a database of about 100 MB, and of 1 GB.
const HUNDRED_MB: usize = 210_000;
const GIGABYTE: usize = 2_150_000;
const MIB: f64 = 1024.0 * 1024.0;

/// What a load showed.
struct Load {
    lag: Quantiles,
    per_second: f64,
    /// On the wire for a transaction, and of them, where that is known, messages to the replica.
    bytes: f64,
    messages: Option<f64>,
    /// Processor time for a transaction, in milliseconds, and resident memory in MiB.
    source: (f64, f64),
    replica: Option<(f64, f64)>,
}

/// How a first copy went, and what both sides do after it.
struct FirstCopy {
    seconds: f64,
    bytes: f64,
    database: f64,
    /// Shares of a processor while nothing is written, in percent.
    source_idle: f64,
    replica_idle: Option<f64>,
}

/// What came back after the source was killed and one more write was made.
struct Comeback {
    bytes: f64,
    millis: f64,
}

/// All of one system.
struct Outcome {
    name: &'static str,
    loads: Vec<Load>,
    copy: FirstCopy,
    comeback: Comeback,
}

pub(crate) async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    // What is missing shows before anything is measured.
    let (litestream, sqld) = (bench.peer("litestream")?, bench.peer("sqld")?);
    report.section("Replication: ours")?;
    let ours = ours::measure(bench, report).await?;
    tell(report, &ours)?;
    report.section("Replication: Litestream with intervals of 10 ms")?;
    let eager = peers::litestream(bench, &litestream, "Litestream at 10 ms", Some("10ms"))?;
    tell(report, &eager)?;
    report.section("Replication: Litestream as it is by itself")?;
    let idle = peers::litestream(bench, &litestream, "Litestream", None)?;
    tell(report, &idle)?;
    report.section("Replication: sqld")?;
    let sqld = peers::sqld(bench, &sqld)?;
    tell(report, &sqld)?;
    report.section("Replication: ours to the others")?;
    compare(report, &ours, &[&eager, &idle, &sqld])
}

/// How long a load is written.
fn window(bench: &Bench, rate: Option<u32>) -> Duration {
    match rate {
        Some(20) => bench.size(Duration::from_secs(10), Duration::from_secs(2)),
        _ => bench.size(Duration::from_secs(6), Duration::from_secs(1)),
    }
}

fn tell(report: &mut Report, outcome: &Outcome) -> Result<()> {
    let Outcome { name, loads, copy, comeback } = outcome;
    let ours = *name == ours::NAME;
    let aimed = |row: Row, aim: f64| if ours { row.aim(Aim::AtMost(aim)) } else { row };
    for ((load, _), seen) in LOADS.iter().zip(loads) {
        let lag = seen.lag;
        for (quantile, value) in [("p50", lag.p50), ("p95", lag.p95), ("p99", lag.p99), ("max", lag.max)] {
            report.add(Row::new(format!("{load}: lag {quantile}"), value, "ms"))?;
        }
        report.add(Row::new(format!("{load}: transactions"), seen.per_second, "/s"))?;
        let bytes = Row::new(format!("{load}: shipped for a transaction"), seen.bytes, "B");
        report.add(aimed(bytes, 250.0))?;
        if let Some(messages) = seen.messages {
            report.add(Row::new(format!("{load}: of it messages to the replica"), messages, "B"))?;
        }
        let sides = [("source", Some(seen.source)), ("replica", seen.replica)];
        for (side, (cpu, memory)) in sides.into_iter().filter_map(|(side, seen)| Some((side, seen?))) {
            report.add(Row::new(format!("{load}: {side}, processor time for one"), cpu, "ms"))?;
            report.add(Row::new(format!("{load}: {side}, resident memory"), memory, "MiB"))?;
        }
    }
    let database = format!("{:.1} MiB", copy.database / MIB);
    report.add(aimed(Row::new("first copy", copy.seconds, "s"), 0.8).note(database))?;
    let share = Row::new("first copy, bytes of the database's", copy.bytes / copy.database * 100.0, "%");
    report.add(aimed(share, 35.0))?;
    let idle = Row::new("idle after it: source, processor time", copy.source_idle, "%");
    report.add(aimed(idle, 0.1))?;
    if let Some(idle) = copy.replica_idle {
        report.add(aimed(Row::new("idle after it: replica, processor time", idle, "%"), 0.1))?;
    }
    let again = Row::new("source killed: bytes until all is there again", comeback.bytes / 1024.0, "KiB");
    report.add(aimed(again, 64.0))?;
    report.add(aimed(Row::new("source killed: until then, once it is up", comeback.millis, "ms"), 200.0))
}

fn compare(report: &mut Report, ours: &Outcome, others: &[&Outcome]) -> Result<()> {
    for other in others {
        let name = other.name;
        for (at, (load, rate)) in LOADS.iter().enumerate() {
            let (Some(own), Some(theirs)) = (ours.loads.get(at), other.loads.get(at)) else { continue };
            let median = Row::new(format!("{load}: lag p50 to {name}"), own.lag.p50 / theirs.lag.p50, "x");
            let is_aimed = *rate == Some(200) && name.ends_with("10 ms");
            report.add(if is_aimed { median.aim(Aim::AtMost(0.1)) } else { median })?;
            let last = Row::new(format!("{load}: lag p99 to {name}"), own.lag.p99 / theirs.lag.p99, "x");
            let is_aimed = rate.is_none() && !name.ends_with("10 ms");
            report.add(if is_aimed { last.aim(Aim::AtMost(0.04)) } else { last })?;
            report.add(Row::new(format!("{load}: bytes to {name}"), own.bytes / theirs.bytes, "x"))?;
        }
        let copy = ours.copy.seconds / other.copy.seconds;
        report.add(Row::new(format!("first copy, time to {name}"), copy, "x"))?;
    }
    Ok(())
}
