//! The demo's daemons: their directories, configurations, processes and end.
//!
//! Ends only processes it started itself, by the handle or id it got when starting them. When the fleet
//! is dropped without having been let go, its processes are killed.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use mfpsync_proto::backup::Share;
use mfpsync_proto::panel::StatusRequest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::file_server::{FileServer, SHARE};
use crate::exit::Failure;
use crate::sockets::{Sockets, within};

/// The device that becomes the server.
pub(crate) const COPIER: usize = 0;
/// A client on the same network.
pub(crate) const PRINTER: usize = 1;
/// A client; in the story of the cut behind the relay.
pub(crate) const SCANNER: usize = 2;
/// A further client.
pub(crate) const FAX: usize = 3;
/// A machine that comes later.
pub(crate) const NEWCOMER: usize = 4;
const NAMES: [&str; 5] = ["copier-1", "printer-2", "scanner-3", "fax-4", "copier-5"];

/// Where the process ids stand, for `--stop`.
pub(crate) const RECORD: &str = "fleet.json";
/// Where ports are looked for.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const POLL: Duration = Duration::from_millis(20);
const STOP_PATIENCE: Duration = Duration::from_secs(15);
const LOG_TAIL_LINES: usize = 5;

/// One device: a directory and, once started, a process.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) sockets: Sockets,
    dir: PathBuf,
    child: Option<Child>,
}

impl Device {
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    fn config_path(&self) -> PathBuf {
        self.dir.join("mfpsyncd.toml")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn config(&self, dial_only: Option<SocketAddr>, helpers: &Path) -> String {
        let mut text = format!(
            "data_dir = {}\nrun_dir = {}\nname = {}\nlisten = [\"{}\"]\n",
            toml_text(&self.dir.display().to_string()),
            toml_text(&self.run_dir().display().to_string()),
            toml_text(self.name),
            self.address
        );
        if let Some(address) = dial_only {
            text.push_str(&format!("dial_only = [\"{address}\"]\n"));
        }
        // A demo is nobody's business on the network.
        text.push_str("[discovery]\nenabled = false\n");
        let helpers = toml_text(&helpers.display().to_string());
        text.push_str(&format!("[backup]\nhelpers = {helpers}\nthis_machine = true\n"));
        text
    }
}

/// The devices and the directory they live in; a story starts those it needs.
#[derive(Debug)]
pub(crate) struct Fleet {
    daemon: PathBuf,
    home: TempDir,
    devices: Vec<Device>,
    file_server: Option<FileServer>,
    kept: bool,
}

impl Fleet {
    /// Makes directories and finds free ports; starts nothing yet.
    ///
    /// # Errors
    /// No directory or no port can be had.
    pub(crate) fn new(daemon: PathBuf, patience: Duration) -> Result<Self, Failure> {
        let home = tempfile::Builder::new()
            .prefix("mfpsync-demo-")
            .tempdir()
            .map_err(|error| Failure::Failed(format!("make a directory for the demo: {error}")))?;
        let ports = free_addresses(NAMES.len())
            .map_err(|error| Failure::Failed(format!("find free ports: {error}")))?;
        let device = |(name, address): (&'static str, SocketAddr)| {
            let dir = home.path().join(name);
            Device { name, address, sockets: Sockets::new(dir.join("run"), patience), dir, child: None }
        };
        let devices = NAMES.into_iter().zip(ports).map(device).collect();
        Ok(Self { daemon, home, devices, file_server: None, kept: false })
    }

    pub(crate) fn directory(&self) -> &Path {
        self.home.path()
    }

    /// How many devices there are, started or not.
    pub(crate) fn size(&self) -> usize {
        self.devices.len()
    }

    /// One of the devices.
    ///
    /// # Errors
    /// There is no such device.
    pub(crate) fn device(&self, at: usize) -> Result<&Device, Failure> {
        self.devices.get(at).ok_or_else(|| Failure::Failed(format!("no device {at} in the demo")))
    }

    fn device_mut(&mut self, at: usize) -> Result<&mut Device, Failure> {
        self.devices.get_mut(at).ok_or_else(|| Failure::Failed(format!("no device {at} in the demo")))
    }

    /// Starts one daemon and waits until it answers; returns its process id.
    ///
    /// # Errors
    /// It cannot be started, ends at once, or does not answer in time; its last words are in the message.
    pub(crate) async fn start(&mut self, at: usize, dial_only: Option<SocketAddr>) -> Result<u32, Failure> {
        let daemon = self.daemon.clone();
        let device = self.device_mut(at)?;
        let child = spawn(&daemon, device, dial_only).map_err(|source| Failure::File {
            action: "start",
            path: daemon.clone(),
            source,
        })?;
        let id = child.id().unwrap_or_default();
        device.child = Some(child);
        self.record()?;
        ready(self.device_mut(at)?).await?;
        Ok(id)
    }

    /// Starts the file server; its share, with the account that may use it.
    ///
    /// # Errors
    /// Samba is not installed, or does not start.
    pub(crate) async fn start_file_server(&mut self) -> Result<Share, Failure> {
        let server = FileServer::start(&self.home.path().join("samba")).await?;
        let share = Share {
            host: server.address.ip().to_string(),
            port: server.address.port().into(),
            share: SHARE.to_owned(),
            user: server.user.clone(),
            ..Share::default()
        };
        self.file_server = Some(server);
        self.record()?;
        Ok(share)
    }

    /// A device's disk is lost with all that is on it; it does not run.
    ///
    /// # Errors
    /// The files cannot be removed.
    pub(crate) fn lose_disk(&self, at: usize) -> Result<(), Failure> {
        let path = self.device(at)?.dir.clone();
        fs::remove_dir_all(&path).map_err(|source| Failure::File { action: "remove", path, source })
    }

    /// A device gets the address of another one, which gets its.
    ///
    /// # Errors
    /// There is no such device.
    pub(crate) fn take_address(&mut self, at: usize, of: usize) -> Result<(), Failure> {
        let (own, other) = (self.device(at)?.address, self.device(of)?.address);
        self.device_mut(at)?.address = other;
        self.device_mut(of)?.address = own;
        Ok(())
    }

    /// Asks one daemon to end and waits for it.
    ///
    /// # Errors
    /// It did not end in time and was killed.
    ///
    /// # Cancel safety
    /// A process that was not waited for stays in the fleet, which ends it when dropped.
    pub(crate) async fn stop(&mut self, at: usize) -> Result<Option<ExitStatus>, Failure> {
        let device = self.device_mut(at)?;
        let name = device.name;
        let Some(child) = device.child.as_mut() else { return Ok(None) };
        terminate(child);
        let Ok(ended) = tokio::time::timeout(STOP_PATIENCE, child.wait()).await else {
            child.kill().await.map_err(|error| Failure::Failed(format!("kill {name}: {error}")))?;
            device.child = None;
            return Err(Failure::TimedOut { what: format!("the end of {name}"), waited: STOP_PATIENCE });
        };
        device.child = None;
        ended.map(Some).map_err(|error| Failure::Failed(format!("wait for {name}: {error}")))
    }

    /// Ends one daemon as a power cut does, and waits until it is gone.
    ///
    /// # Errors
    /// It does not run.
    ///
    /// # Cancel safety
    /// As `stop`.
    pub(crate) async fn kill(&mut self, at: usize) -> Result<(), Failure> {
        let device = self.device_mut(at)?;
        let name = device.name;
        let child = device.child.as_mut().ok_or_else(|| Failure::Failed(format!("{name} does not run")))?;
        child.kill().await.map_err(|error| Failure::Failed(format!("kill {name}: {error}")))?;
        device.child = None;
        Ok(())
    }

    /// One daemon stands still where it is; its connections stay.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn freeze(&self, at: usize) -> Result<(), Failure> {
        self.signal(at, Signal::STOP)
    }

    /// A frozen daemon goes on.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn thaw(&self, at: usize) -> Result<(), Failure> {
        self.signal(at, Signal::CONT)
    }

    fn signal(&self, at: usize, signal: Signal) -> Result<(), Failure> {
        let device = self.device(at)?;
        let failure = |why: &str| Failure::Failed(format!("signal {}: {why}", device.name));
        let pid = device.child.as_ref().and_then(pid_of).ok_or_else(|| failure("it does not run"))?;
        kill_process(pid, signal).map_err(|error| failure(&error.to_string()))
    }

    /// Leaves processes and files to the operator.
    pub(crate) fn let_go(mut self) {
        self.kept = true;
        self.home.disable_cleanup(true);
    }

    /// Ends what runs after a failure, which is the one to report; whoever does not end is killed.
    pub(crate) async fn stop_all(&mut self) {
        for at in 0..self.size() {
            let _status = self.stop(at).await;
        }
        self.stop_file_server().await;
    }

    /// Ends the file server, if there is one.
    pub(crate) async fn stop_file_server(&mut self) {
        if let Some(mut server) = self.file_server.take() {
            terminate(&server.child);
            let ended = tokio::time::timeout(STOP_PATIENCE, server.child.wait()).await;
            if ended.is_err() {
                let _already_ended = server.child.start_kill();
            }
        }
    }

    /// Keeps the files of stopped daemons, whose directory it returns.
    pub(crate) fn keep_files(mut self) -> PathBuf {
        self.home.disable_cleanup(true);
        self.home.path().to_owned()
    }

    /// Writes down which processes belong to this demo.
    fn record(&self) -> Result<(), Failure> {
        let path = self.home.path().join(RECORD);
        let processes: Vec<_> = self
            .devices
            .iter()
            .filter_map(|device| Some((device, device.child.as_ref()?.id()?)))
            .map(|(device, pid)| json!({ "name": device.name, "pid": pid, "config": device.config_path() }))
            .chain(self.file_server.iter().filter_map(|server| {
                Some(json!({ "name": "samba", "pid": server.child.id()?, "config": server.config }))
            }))
            .collect();
        fs::write(&path, json!({ "processes": processes }).to_string()).map_err(|source| Failure::File {
            action: "write",
            path,
            source,
        })
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let server = self.file_server.iter_mut().map(|server| &mut server.child);
        for child in self.devices.iter_mut().filter_map(|device| device.child.as_mut()).chain(server) {
            // One that has ended by itself cannot be killed, and need not be.
            let _already_ended = child.start_kill();
        }
    }
}

fn spawn(daemon: &Path, device: &Device, dial_only: Option<SocketAddr>) -> io::Result<Child> {
    fs::create_dir_all(device.run_dir())?;
    let helpers = daemon.parent().unwrap_or(Path::new("/"));
    fs::write(device.config_path(), device.config(dial_only, helpers))?;
    let log = File::options().create(true).append(true).open(device.log_path())?;
    Command::new(daemon)
        .arg("--config")
        .arg(device.config_path())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C at the terminal is the demo's to handle: it stops its daemons in order.
        .process_group(0)
        .spawn()
}

async fn ready(device: &mut Device) -> Result<(), Failure> {
    let sockets = device.sockets.clone();
    let log = device.log_path();
    let name = device.name;
    let what = format!("readiness of {name}");
    within(sockets.timeout, &what, async {
        loop {
            if let Some(Ok(Some(status))) = device.child.as_mut().map(Child::try_wait) {
                let words = last_words(&log);
                return Err(Failure::Failed(format!("{name} ended at once ({status})\n{words}")));
            }
            if let Ok(mut panel) = sockets.panel().await
                && panel.status(StatusRequest {}).await.is_ok()
            {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    })
    .await
}

/// The end of a log; an unreadable one has nothing to tell.
fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().map(crate::output::printable).collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

fn terminate(child: &Child) {
    if let Some(pid) = pid_of(child) {
        let _already_ended = kill_process(pid, Signal::TERM);
        // One that is frozen hears of it only when it goes on.
        let _already_ended = kill_process(pid, Signal::CONT);
    }
}

/// A child that was not waited for keeps its id, so this names it or nobody.
fn pid_of(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()?).ok()?)
}

/// All held at once, so that they differ; none of those that the system gives to outgoing connections, which
/// might take one before the daemon does.
fn free_addresses(number: usize) -> io::Result<Vec<SocketAddr>> {
    let begin = RandomState::new().hash_one(std::process::id()) % u64::from(PORTS.end - PORTS.start);
    let begin = PORTS.start + u16::try_from(begin).unwrap_or_default();
    let ports = (begin..PORTS.end).chain(PORTS.start..begin);
    let free = ports.filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    free.take(number).collect::<Vec<_>>().iter().map(TcpListener::local_addr).collect()
}

fn toml_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The daemon to start: as named, else beside this command, else on the PATH.
///
/// # Errors
/// `Failure::Usage` when there is none.
pub(crate) fn daemon(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let beside = || std::env::current_exe().ok().map(|own| own.with_file_name("mfpsyncd"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|directory| directory.join("mfpsyncd"));
    match named {
        Some(named) if named.is_file() => std::path::absolute(&named).map_err(|source| Failure::File {
            action: "find",
            path: named,
            source,
        }),
        Some(named) => Err(Failure::Usage(format!("{} is no file", named.display()))),
        None => beside().into_iter().chain(on_path).find(|path| path.is_file()).ok_or_else(|| {
            Failure::Usage(
                "mfpsyncd is neither beside this command nor on the PATH; name it with --daemon".to_owned(),
            )
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_behind_the_relay_dials_nothing_else() {
        let fleet = Fleet::new("/bin/false".into(), Duration::from_secs(1)).unwrap();
        let scanner = fleet.device(SCANNER).unwrap();
        let helpers = Path::new("/usr/libexec/mfpsync");
        let config = scanner.config(Some("127.0.0.1:9".parse().unwrap()), helpers);
        assert!(config.contains("name = \"scanner-3\"\n"), "{config}");
        assert!(config.contains("dial_only = [\"127.0.0.1:9\"]\n"), "{config}");
        assert!(!scanner.config(None, helpers).contains("dial_only"));
    }

    #[tokio::test]
    async fn a_daemon_that_ends_at_once_is_reported() {
        let mut fleet = Fleet::new("/bin/false".into(), Duration::from_secs(30)).unwrap();
        let failure = fleet.start(COPIER, None).await.unwrap_err();
        assert!(failure.to_string().contains("copier-1 ended at once"), "{failure}");
    }

    #[test]
    fn paths_with_quotes_stay_one_text() {
        assert_eq!(toml_text(r#"/tmp/a"b\c"#), r#""/tmp/a\"b\\c""#);
    }
}
