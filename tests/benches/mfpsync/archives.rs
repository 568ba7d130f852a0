//! An archive on a real file server while edits go on: how long, what the edits notice, how much memory; a drill and a
//! restore; beside `sqlite3 .backup` and `smbclient put` of the same database under the same edits.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mfpsync_proto::backup::{
    BeginRequest, DrillRequest, Encryption, Job, Key, NewKeyRequest, RestoreRequest, SetRequest, Share,
    WatchRequest,
};
use mfpsync_tests::{SHARE_PASSWORD, ShareServer, TestShare};
use tokio::process::Command;
use tokio::sync::watch;

use crate::Bench;
use crate::join::filled;
use crate::support::device::Device;
use crate::support::load::Call;
use crate::support::pusher::{Enrolled, Pusher};
use crate::support::report::{Report, Row};
use crate::support::stats::Samples;

/// Items that make a master database of about 100 MB and 1 GB.
const SIZES: [(&str, usize); 2] = [("100 MB", 210_000), ("1 GB", 2_150_000)];
/// Edits a second, one at a time.
const PACE: Duration = Duration::from_millis(5);
/// How long edits are looked at when nothing else goes on.
const ALONE: Duration = Duration::from_secs(5);
/// A copy that is begun anew with every edit may never end.
const PEER_PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    report.section("Archives, 200 edits a second meanwhile")?;
    let sizes = if bench.quick { vec![("small", 2_000)] } else { SIZES.to_vec() };
    for (size, items) in sizes {
        of_size(bench, report, size, items).await?;
    }
    Ok(())
}

async fn of_size(bench: &Bench, report: &mut Report, size: &str, items: usize) -> Result<()> {
    let share = ShareServer::default().start()?;
    let (mut server, _) = filled(bench, &format!("archive-{items}"), items).await?;
    // Founding a group seals the recovery kit, which takes 64 MiB for a moment.
    server.restart().await?;
    let database = server.database_mib("master.db")?;
    report.add(Row::new(format!("{size}: master database"), database, "MiB"))?;
    let identity = set(&server, &share).await?;
    let pusher = Enrolled::new(&server, &bench.home().join(format!("archive-{items}-editor")), 0).await?;
    let mut pusher = pusher.connect(0).await?;

    let alone = bench.size(ALONE, Duration::from_secs(1));
    let (_, seen) = beside(&mut pusher, tokio::time::sleep(alone)).await?;
    edits(report, size, "alone", &seen)?;
    let memory = server.process()?.rss_mib()?;

    let (made, seen) = beside(&mut pusher, backup(&server)).await?;
    let (job, took, helpers) = made?;
    let ours = took.as_secs_f64();
    published(report, &format!("{size}: archive, taken to published"), &job, ours)?;
    edits(report, size, "during an archive", &seen)?;
    let peak = Row::new(format!("{size}: daemon's memory, peak"), server.process()?.peak_rss_mib()?, "MiB");
    report.add(peak.note(format!("{memory:.1} before")))?;
    report.add(Row::new(format!("{size}: helpers' memory, peak of one"), helpers, "MiB"))?;

    let copy = bench.home().join("copied.db");
    let (copied, seen) = beside(&mut pusher, peer(&server, &share, &copy)).await?;
    edits(report, size, "during sqlite3 .backup and smbclient put", &seen)?;
    match copied? {
        Some(theirs) => compared(report, size, "under edits", ours, theirs)?,
        None => {
            let row = Row::new(
                format!("{size}: sqlite3 .backup, smbclient put, under edits"),
                PEER_PATIENCE.as_secs_f64(),
                "s",
            );
            report.add(row.note("given up: every edit begins it anew"))?;
        }
    }
    let (_, took, _) = backup(&server).await?;
    report.add(Row::new(format!("{size}: archive, nobody edits"), took.as_secs_f64(), "s"))?;
    let theirs = peer(&server, &share, &copy).await?.context("sqlite3 or smbclient did not end")?;
    compared(report, size, "nobody edits", took.as_secs_f64(), theirs)?;

    server.speak_smb_by("native").await?;
    let (job, took, helpers) = backup(&server).await?;
    let what = format!("{size}: archive by the native library, nobody edits");
    published(report, &what, &job, took.as_secs_f64())?;
    let what = format!("{size}: helpers' memory with the native library, peak of one");
    report.add(Row::new(what, helpers, "MiB"))?;

    let drill = timed(&server, async |backup| {
        let key = Some(Key { identity: identity.clone(), ..Key::default() });
        Ok(backup.drill(DrillRequest { archive_id: String::new(), key }).await?.into_inner())
    });
    report.add(Row::new(format!("{size}: drill with the key"), drill.await?.as_secs_f64(), "s"))?;
    let restore = timed(&server, async |backup| {
        let key = Some(Key { identity: identity.clone(), ..Key::default() });
        let request = RestoreRequest { key, accept_loss_of: u64::MAX, ..RestoreRequest::default() };
        Ok(backup.restore(request).await?.into_inner())
    });
    report.add(Row::new(
        format!("{size}: restore, fetched to serving"),
        restore.await?.as_secs_f64(),
        "s",
    ))?;
    server.stop()
}

const MIB: f64 = 1024.0 * 1024.0;

/// Sets the share and a key; what opens archives.
async fn set(server: &Device, share: &TestShare) -> Result<String> {
    let mut backup = server.backup().await?;
    let key = backup.new_key(NewKeyRequest {}).await?.into_inner();
    let place = Share {
        host: share.address().ip().to_string(),
        port: share.address().port().into(),
        share: "backup".to_owned(),
        user: share.user().to_owned(),
        encryption: Encryption::Preferred.into(),
        ..Share::default()
    };
    let request = SetRequest {
        share: Some(place),
        password: SHARE_PASSWORD.to_owned(),
        recipients: vec![key.recipient],
        ..SetRequest::default()
    };
    backup.set(request).await?;
    Ok(key.identity)
}

/// Edits at the pace while something goes on; how long each took.
async fn beside<T>(pusher: &mut Pusher, work: impl Future<Output = T>) -> Result<(T, Samples)> {
    let mut latencies = Vec::new();
    let mut due = tokio::time::interval(PACE);
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Ok((done, Samples::new(latencies))),
            _ = due.tick() => {}
        }
        // To its end: an operation that was sent has its number.
        let began = Instant::now();
        pusher.call().await?;
        latencies.push(began.elapsed());
    }
}

fn published(report: &mut Report, what: &str, job: &Job, took: f64) -> Result<()> {
    let bytes = job.archive.as_ref().context("an archive")?.bytes;
    let note = format!("{:.1} MiB, {}", bytes as f64 / MIB, job.protection);
    report.add(Row::new(what, took, "s").note(note))
}

/// An archive beside the peer, both in seconds.
fn compared(report: &mut Report, size: &str, when: &str, ours: f64, theirs: Duration) -> Result<()> {
    let theirs = theirs.as_secs_f64();
    report.add(Row::new(format!("{size}: sqlite3 .backup, smbclient put, {when}"), theirs, "s"))?;
    let ratio = Row::new(format!("{size}: archive beside that, {when}"), ours / theirs, "x");
    report.add(ratio.note("theirs is neither compressed nor sealed, read back or opened"))
}

fn edits(report: &mut Report, size: &str, when: &str, seen: &Samples) -> Result<()> {
    let what = format!("{size}: an edit {when}");
    report.add(Row::new(format!("{what}, p50"), seen.quantile_ms(0.5), "ms"))?;
    let row = Row::new(format!("{what}, p99"), seen.quantile_ms(0.99), "ms");
    report.add(row.note(format!("{} edits, slowest {:.0} ms", seen.len(), seen.quantile_ms(1.0))))
}

/// Makes an archive; the highest memory of a helper meanwhile, in MiB.
async fn backup(server: &Device) -> Result<(Job, Duration, f64)> {
    let (stop, mut stopped) = watch::channel(());
    let data = server.data();
    let watching = tokio::task::spawn_blocking(move || {
        let mut peak: f64 = 0.0;
        while !stopped.has_changed().unwrap_or(true) {
            peak = peak.max(helpers_peak(&data));
            std::thread::sleep(Duration::from_millis(20));
        }
        stopped.mark_unchanged();
        peak
    });
    let began = Instant::now();
    let mut backup = server.backup().await?;
    let begun = backup.begin(BeginRequest::default()).await?.into_inner();
    let job = ended(server, begun).await?;
    let took = began.elapsed();
    drop(stop);
    Ok((job, took, watching.await?))
}

/// The highest memory any helper of a device has had, in MiB; those that let nobody look count for nothing.
fn helpers_peak(data: &Path) -> f64 {
    let Ok(processes) = std::fs::read_dir("/proc") else { return 0.0 };
    let helpers = processes.flatten().map(|process| process.path()).filter(|process| {
        std::fs::read_link(process.join("cwd")).is_ok_and(|place| place.starts_with(data))
            || std::fs::read_to_string(process.join("comm"))
                .is_ok_and(|name| name.trim() == "mfpsync-restore")
    });
    let peak = |process: std::path::PathBuf| {
        let status = std::fs::read_to_string(process.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok()
    };
    helpers.filter_map(peak).fold(0.0, f64::max) / 1024.0
}

async fn ended(server: &Device, begun: Job) -> Result<Job> {
    let mut jobs = server.backup().await?.watch(WatchRequest {}).await?.into_inner();
    while let Some(job) = jobs.message().await? {
        if job.number == begun.number && job.ended {
            ensure!(job.failure.is_empty(), "{}", job.failure);
            return Ok(job);
        }
    }
    anyhow::bail!("the job is not heard of any more")
}

async fn timed(
    server: &Device,
    begin: impl AsyncFnOnce(&mut crate::support::device::Backup) -> Result<Job>,
) -> Result<Duration> {
    let began = Instant::now();
    let begun = begin(&mut server.backup().await?).await?;
    ended(server, begun).await?;
    Ok(began.elapsed())
}

/// What an administrator has without us; none if it did not end in time.
async fn peer(server: &Device, share: &TestShare, copy: &Path) -> Result<Option<Duration>> {
    let began = Instant::now();
    let mut copying = Command::new("sqlite3");
    copying.arg(server.data().join("master.db")).arg(format!(".backup {}", copy.display()));
    let mut sending = Command::new("smbclient");
    sending
        .arg(format!("//{}/backup", share.address().ip()))
        .args(["-p", &share.address().port().to_string()])
        .args(["-U", &format!("{}%{SHARE_PASSWORD}", share.user())])
        .args(["-c", &format!("put {} copied.db", copy.display())]);
    for mut command in [copying, sending] {
        let running = command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).status();
        let Ok(status) = tokio::time::timeout(PEER_PATIENCE, running).await else { return Ok(None) };
        ensure!(status?.success(), "{command:?} failed");
    }
    Ok(Some(began.elapsed()))
}
