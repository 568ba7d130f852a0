//! Durable single-operation pushes beside `etcd` puts and the bare call, in alternating rounds.

use std::time::Duration;

use anyhow::Result;

use crate::Bench;
use crate::support::echo::Echo;
use crate::support::etcd::Etcd;
use crate::support::load::{Window, closed_loop};
use crate::support::pusher::Enrolled;
use crate::support::report::{Aim, Report, Row};
use crate::support::stats::Spread;

const CONNECTIONS: [usize; 3] = [1, 10, 100];
/// Pause between windows: what one target leaves to the disk must not burden the next.
const SETTLE: Duration = Duration::from_millis(300);

/// One round: the three targets, one after the other.
struct Round {
    ours: Window,
    etcd: Window,
    echo: Window,
}

/// One figure of all targets, drawn from each round.
type Pick = fn(&Window) -> f64;

pub(crate) async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let server = bench.device("master").await?;
    server.serve().await?;
    let (etcd, echo) = (Etcd::start(bench.home()).await?, Echo::start(bench.home())?);
    let most = bench.size(CONNECTIONS.len(), 2);
    let keys = bench.home().join("pushers");
    let mut enrolled = Vec::new();
    for number in 0..CONNECTIONS.into_iter().take(most).max().unwrap_or(1) {
        enrolled.push(Enrolled::new(&server, &keys, number).await?);
    }
    for connections in CONNECTIONS.into_iter().take(most) {
        report.section(title(connections))?;
        let (mut ours, mut puts, mut echoes) = (Vec::new(), Vec::new(), Vec::new());
        for (number, enrolled) in enrolled.iter().take(connections).enumerate() {
            ours.push(enrolled.connect(number).await?);
            puts.push(etcd.connect(number).await?);
            echoes.push(echo.connect(number).await?);
        }
        let window = bench.size(Duration::from_secs(4), Duration::from_secs(1));
        let mut rounds = Vec::new();
        for _ in 0..bench.size(5, 2) {
            let seen;
            (ours, seen) = closed_loop(ours, window, server.process()?).await?;
            let of_ours = seen;
            tokio::time::sleep(SETTLE).await;
            let of_etcd;
            (puts, of_etcd) = closed_loop(puts, window, &etcd.process).await?;
            tokio::time::sleep(SETTLE).await;
            let of_echo;
            (echoes, of_echo) = closed_loop(echoes, window, &echo.process).await?;
            tokio::time::sleep(SETTLE).await;
            rounds.push(Round { ours: of_ours, etcd: of_etcd, echo: of_echo });
        }
        tell(report, &rounds, connections == 100)?;
    }
    report.section("Memory after the load")?;
    let targets = [("mfpsyncd", server.process()?), ("etcd", &etcd.process), ("echo", &echo.process)];
    for (name, process) in targets {
        report.add(Row::new(format!("resident memory, {name}"), process.rss_mib()?, "MiB"))?;
    }
    Ok(())
}

fn title(connections: usize) -> &'static str {
    match connections {
        1 => "Durable pushes, 1 connection",
        10 => "Durable pushes, 10 connections",
        _ => "Durable pushes, 100 connections",
    }
}

fn tell(report: &mut Report, rounds: &[Round], aimed: bool) -> Result<()> {
    let rate: Pick = |window| window.per_second;
    figures(report, rounds, "rate", "/s", rate)?;
    let ratio = |other: fn(&Round) -> &Window| {
        Spread::of(rounds.iter().map(|round| round.ours.per_second / other(round).per_second))
    };
    let to_etcd = Row::spread("rate, mfpsyncd to etcd", ratio(|round| &round.etcd), "x");
    let to_echo = Row::spread("rate, mfpsyncd to echo", ratio(|round| &round.echo), "x");
    report.add(if aimed { to_etcd.aim(Aim::AtLeast(4.0)) } else { to_etcd })?;
    report.add(if aimed { to_echo.aim(Aim::AtLeast(0.75)) } else { to_echo })?;
    figures(report, rounds, "p50", "ms", |window| window.latencies.quantile_ms(0.5))?;
    figures(report, rounds, "p99", "ms", |window| window.latencies.quantile_ms(0.99))?;
    figures(report, rounds, "server processor time per call", "us", |window| window.cpu_us)
}

fn figures(report: &mut Report, rounds: &[Round], what: &str, unit: &'static str, pick: Pick) -> Result<()> {
    let of = |target: fn(&Round) -> &Window| Spread::of(rounds.iter().map(|round| pick(target(round))));
    let targets = [
        ("mfpsyncd", of(|round| &round.ours)),
        ("etcd", of(|round| &round.etcd)),
        ("echo", of(|round| &round.echo)),
    ];
    for (name, spread) in targets {
        let noise = format!("noise {:.0} %", spread.noise() * 100.0);
        report.add(Row::spread(format!("{what}, {name}"), spread, unit).note(noise))?;
    }
    Ok(())
}
