//! `make bench`: measures the daemon against its aims, `etcd` and a bare echo in one run, prints a
//! table and writes `bench/latest.json` in the build directory. Asserts nothing: see
//! `docs/benchmarks.md` for how to read the figures.
//!
//! The measurements: `footprint` (size, start, memory, idle processor time), `latency` (edit to
//! event, reads), `pushes` (throughput beside the yardsticks), `fan_out` (a change to many followers),
//! `join` (a large group), `sizes` (cost as the database grows, and of a stream), `replication` (beside
//! Litestream and sqld), `archives` (on a file server, beside sqlite3 and smbclient).

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tempfile::TempDir;

use support::device::Device;
use support::echo;
use support::report::{Report, say};

mod archives;
mod fan_out;
mod footprint;
mod join;
mod latency;
mod pushes;
mod replication;
mod sizes;
mod support;

const SECTIONS: [&str; 8] =
    ["footprint", "latency", "pushes", "fan_out", "join", "sizes", "replication", "archives"];
/// Open files a process of a run may have.
const FILES: u64 = 8192;

/// What a run is made with.
pub(crate) struct Bench {
    daemon: PathBuf,
    command: PathBuf,
    /// Where `make bench` puts programs that Debian does not have.
    peers: PathBuf,
    home: TempDir,
    quick: bool,
}

impl Bench {
    /// The full size, or the one that only shows that everything works.
    pub(crate) fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// A program that `make bench` installed.
    ///
    /// # Errors
    /// It is not there.
    pub(crate) fn peer(&self, name: &str) -> Result<PathBuf> {
        let path = self.peers.join(name);
        ensure!(
            path.is_file(),
            "no {name} at {}: run `scripts/need-peers {}`",
            path.display(),
            self.peers.display()
        );
        Ok(path)
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// # Errors
    /// The daemon does not start.
    pub(crate) async fn device(&self, name: &str) -> Result<Device> {
        Device::start(&self.daemon, self.home(), name).await
    }
}

#[derive(Default)]
struct Arguments {
    quick: bool,
    sections: Vec<String>,
    echo: Option<PathBuf>,
}

fn arguments() -> Result<Arguments> {
    let mut found = Arguments::default();
    let mut given = env::args().skip(1);
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--quick" => found.quick = true,
            echo::ARGUMENT => {
                found.echo = Some(given.next().context("a directory for the echo server")?.into())
            }
            // Passed by `cargo bench`.
            "--bench" => {}
            name if SECTIONS.contains(&name) => found.sections.push(argument),
            _ => bail!("usage: [--quick] [{}] ...", SECTIONS.join("|")),
        }
    }
    Ok(found)
}

fn main() -> Result<()> {
    let arguments = arguments()?;
    let runtime = tokio::runtime::Runtime::new()?;
    if let Some(directory) = &arguments.echo {
        return runtime.block_on(echo::serve(directory));
    }
    runtime.block_on(async {
        tokio::select! {
            done = measure(&arguments) => done,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                bail!("interrupted")
            }
        }
    })
}

async fn measure(arguments: &Arguments) -> Result<()> {
    raise_file_limit()?;
    let release = release_directory()?;
    let daemon = env::var_os("MFPSYNCD").map_or_else(|| release.join("mfpsyncd"), PathBuf::from);
    ensure!(daemon.is_file(), "no daemon at {}: run `make bench`, or set MFPSYNCD", daemon.display());
    let results = release.with_file_name("bench");
    fs::create_dir_all(&results)?;
    let home = tempfile::Builder::new().prefix("run-").tempdir_in(&results)?;
    let command = daemon.with_file_name("mfpsync");
    let peers = release.with_file_name("peers");
    let bench = Bench { daemon, command, peers, home, quick: arguments.quick };
    let wanted =
        |section: &str| arguments.sections.is_empty() || arguments.sections.iter().any(|one| one == section);
    let mut report = Report::default();
    let machine = machine(&bench)?;
    say(format_args!("{machine}"))?;
    if wanted("footprint") {
        footprint::measure(&bench, &mut report).await?;
    }
    if wanted("latency") {
        latency::measure(&bench, &mut report).await?;
    }
    if wanted("pushes") {
        pushes::measure(&bench, &mut report).await?;
    }
    if wanted("fan_out") {
        fan_out::measure(&bench, &mut report).await?;
    }
    if wanted("join") {
        join::measure(&bench, &mut report).await?;
    }
    if wanted("sizes") {
        sizes::measure(&bench, &mut report).await?;
    }
    if wanted("replication") {
        replication::measure(&bench, &mut report).await?;
    }
    if wanted("archives") {
        archives::measure(&bench, &mut report).await?;
    }
    let path = results.join("latest.json");
    report.write(&path, machine)?;
    say(format_args!("\nwritten to {}", path.display()))
}

/// Where `cargo` put this program's profile: two levels above it.
fn release_directory() -> Result<PathBuf> {
    let own = env::current_exe()?;
    let directory = own.parent().and_then(Path::parent).context("the build directory")?;
    Ok(directory.to_owned())
}

/// A thousand connections need more files than a shell usually allows; the daemons inherit it.
fn raise_file_limit() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(FILES, |maximum| maximum.min(FILES));
    if limit.current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit })?;
    }
    Ok(())
}

fn machine(bench: &Bench) -> Result<Value> {
    let system = rustix::system::uname();
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("");
    Ok(json!({
        "processors": std::thread::available_parallelism()?.get(),
        "model": model.trim_start_matches(['\t', ' ', ':']),
        "architecture": env::consts::ARCH,
        "kernel": system.release().to_string_lossy(),
        "unix_seconds": SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        "version": env!("CARGO_PKG_VERSION"),
        "quick": bench.quick,
    }))
}
