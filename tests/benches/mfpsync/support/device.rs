//! One device: a daemon process with its directories, and the calls every measurement needs.
//!
//! Not the tests' device: this one runs with the settings of a product as it is installed, on the
//! disk of the build directory, and is asked finely enough to time a start of a few milliseconds.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use mfpsync_proto::backup::backup_client::BackupClient;
use mfpsync_proto::limit;
use mfpsync_proto::local::local_client::LocalClient;
use mfpsync_proto::monitor::monitor_client::MonitorClient;
use mfpsync_proto::monitor::{MetricsRequest, ReloadRequest};
use mfpsync_proto::panel::client_status::Link;
use mfpsync_proto::panel::panel_client::PanelClient;
use mfpsync_proto::panel::{
    FoundGroupRequest, JoinRequest, OpenPairingRequest, PrepareGroupRequest, Role, RolePhase,
    StartServerRequest, StatusReply, StatusRequest,
};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use super::metrics::Metrics;
use super::process::Process;

/// Enough for a newcomer to a gigabyte of data.
const READY: Duration = Duration::from_secs(120);
/// Fine enough for a start of a few milliseconds.
const READY_POLL: Duration = Duration::from_micros(250);
const STATE_POLL: Duration = Duration::from_millis(5);

/// Calls about archives.
pub(crate) type Backup = BackupClient<Channel>;

/// One device, running unless stopped.
pub(crate) struct Device {
    name: String,
    home: PathBuf,
    /// Socket paths are limited to 107 bytes, and a build directory may lie deep.
    run: TempDir,
    daemon: PathBuf,
    address: SocketAddr,
    process: Option<Process>,
}

impl Device {
    /// Makes the directories and the configuration under `home`, and starts the daemon.
    ///
    /// # Errors
    /// It does not start or does not answer.
    pub(crate) async fn start(daemon: &Path, home: &Path, name: &str) -> Result<Self> {
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let home = home.join(name);
        fs::create_dir_all(home.join("data"))?;
        let run = tempfile::Builder::new().prefix("mfpsync-bench-").tempdir()?;
        let device =
            Self { name: name.to_owned(), home, run, daemon: daemon.to_owned(), address, process: None };
        let config = format!(
            "data_dir = \"{}\"\nrun_dir = \"{}\"\nname = \"{name}\"\nlisten = [\"{address}\"]\n[discovery]\nenabled = false\n\
             [backup]\nhelpers = \"{}\"\nthis_machine = true\n",
            device.home.join("data").display(),
            device.run.path().display(),
            daemon.parent().unwrap_or(Path::new("/")).display(),
        );
        fs::write(device.config(), config)?;
        let mut device = device;
        device.spawn().await?;
        Ok(device)
    }

    fn config(&self) -> PathBuf {
        self.home.join("mfpsyncd.toml")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// # Errors
    /// The device is stopped.
    pub(crate) fn process(&self) -> Result<&Process> {
        self.process.as_ref().with_context(|| format!("{} is stopped", self.name))
    }

    /// Size of a database file and its log.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn database_mib(&self, file: &str) -> Result<f64> {
        let path = self.data().join(file);
        let log = fs::metadata(path.with_extension("db-wal")).map_or(0, |log| log.len());
        let bytes = fs::metadata(&path).with_context(|| path.display().to_string())?.len() + log;
        Ok(bytes as f64 / f64::from(1 << 20))
    }

    async fn spawn(&mut self) -> Result<Duration> {
        let log = File::options().create(true).append(true).open(self.home.join("log"))?;
        let mut command = Command::new(&self.daemon);
        command.arg("--config").arg(self.config());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let began = Instant::now();
        let mut process = Process::start(&self.name, &mut command)?;
        loop {
            if let Ok(mut panel) = self.panel().await
                && panel.status(StatusRequest {}).await.is_ok()
            {
                let took = began.elapsed();
                self.process = Some(process);
                return Ok(took);
            }
            if let Err(ended) = process.still_runs() {
                bail!("{ended}\n{}", self.last_words());
            }
            if began.elapsed() > READY {
                bail!("{} is not ready: {}", self.name, self.last_words());
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.home.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Ends the daemon in order.
    ///
    /// # Errors
    /// It did not end in time, and was killed.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), Process::stop)
    }

    /// Stops and starts the daemon; from the start of the process to the first answered status, and
    /// to the phase in which its role runs.
    ///
    /// # Errors
    /// It does not come back.
    pub(crate) async fn restart(&mut self) -> Result<(Duration, Duration)> {
        self.stop()?;
        self.start_again().await
    }

    /// Ends the daemon as a power cut does.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Starts a daemon that was ended; times as [`Device::restart`].
    ///
    /// # Errors
    /// It does not come back.
    pub(crate) async fn start_again(&mut self) -> Result<(Duration, Duration)> {
        let began = Instant::now();
        let answered = self.spawn().await?;
        self.wait("a running role", |status| status.phase() == RolePhase::Running).await?;
        Ok((answered, began.elapsed()))
    }

    /// # Errors
    /// Nobody listens there.
    pub(crate) async fn panel(&self) -> Result<PanelClient<Channel>> {
        Ok(PanelClient::new(self.channel("panel.sock").await?))
    }

    /// Has shares reached by another library from now on.
    ///
    /// # Errors
    /// The device does not answer, or does not take it.
    pub(crate) async fn speak_smb_by(&self, library: &str) -> Result<()> {
        // The configuration ends with the table that this belongs to.
        let text = fs::read_to_string(self.config())?;
        fs::write(self.config(), format!("{text}smb = \"{library}\"\n"))?;
        let mut monitor = MonitorClient::new(self.channel("panel.sock").await?);
        let reloaded = monitor.reload(ReloadRequest {}).await?.into_inner();
        ensure!(reloaded.applied == ["backup.smb"], "{reloaded:?}");
        Ok(())
    }

    /// What it counts.
    ///
    /// # Errors
    /// The device does not answer.
    pub(crate) async fn metrics(&self) -> Result<Metrics> {
        let mut monitor = MonitorClient::new(self.channel("panel.sock").await?);
        Metrics::parse(&monitor.metrics(MetricsRequest {}).await?.into_inner().text)
    }

    /// Its archives.
    ///
    /// # Errors
    /// Nobody listens there.
    pub(crate) async fn backup(&self) -> Result<Backup> {
        Ok(BackupClient::new(self.channel("panel.sock").await?))
    }

    /// Where its files are.
    pub(crate) fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// # Errors
    /// Nobody listens there.
    pub(crate) async fn local(&self) -> Result<LocalClient<Channel>> {
        let client = LocalClient::new(self.channel("local.sock").await?);
        Ok(client.max_decoding_message_size(limit::MESSAGE_BYTES))
    }

    async fn channel(&self, socket: &str) -> Result<Channel> {
        let uri = format!("unix://{}", self.run.path().join(socket).display());
        Ok(Endpoint::from_shared(uri)?.connect().await?)
    }

    /// # Errors
    /// The device does not answer.
    pub(crate) async fn status(&self) -> Result<StatusReply> {
        Ok(self.panel().await?.status(StatusRequest {}).await?.into_inner())
    }

    /// Waits until the status is as wanted.
    ///
    /// # Errors
    /// It never is, or the device reports a fault meanwhile.
    pub(crate) async fn wait(
        &self,
        what: &str,
        wanted: impl Fn(&StatusReply) -> bool,
    ) -> Result<StatusReply> {
        let mut panel = self.panel().await?;
        let deadline = Instant::now() + READY;
        loop {
            let status = panel.status(StatusRequest {}).await?.into_inner();
            if wanted(&status) {
                return Ok(status);
            }
            if Instant::now() > deadline || status.phase() == RolePhase::Faulted {
                return Err(anyhow!("{}: no {what}: {status:?}\n{}", self.name, self.last_words()));
            }
            tokio::time::sleep(STATE_POLL).await;
        }
    }

    /// Founds a group and serves it.
    ///
    /// # Errors
    /// The daemon refuses.
    pub(crate) async fn serve(&self) -> Result<()> {
        let mut panel = self.panel().await?;
        let request = PrepareGroupRequest {
            group_name: "bench".to_owned(),
            kit_passphrase: "a passphrase for a bench".to_owned(),
        };
        let group_id = panel.prepare_group(request).await?.into_inner().group_id;
        panel.found_group(FoundGroupRequest { group_id }).await?;
        panel.start_server(StartServerRequest { with_client: false }).await?;
        let serves = |status: &StatusReply| {
            status.running() == Role::Server
                && status.phase() == RolePhase::Running
                && status.server.is_some()
        };
        self.wait("running server", serves).await?;
        Ok(())
    }

    /// Pairs with the server and becomes its client; returns when it is accepted, not when it has
    /// everything.
    ///
    /// # Errors
    /// Pairing failed.
    pub(crate) async fn join(&self, server: &Self) -> Result<()> {
        let code = server.panel().await?.open_pairing(OpenPairingRequest {}).await?.into_inner().code;
        let request = JoinRequest { address: server.address.to_string(), code, ..JoinRequest::default() };
        self.panel().await?.join(request).await?;
        Ok(())
    }

    /// Waits until this client has everything the server has now.
    ///
    /// # Errors
    /// It does not get there.
    pub(crate) async fn caught_up(&self, server: &Self) -> Result<()> {
        let head =
            server.status().await?.server.and_then(|server| server.head).context("the server's head")?;
        let current = |status: &StatusReply| {
            status.client.as_ref().is_some_and(|client| {
                let position = client.position.map_or(0, |position| position.sequence);
                client.link() == Link::Current && position >= head.sequence
            })
        };
        self.wait("current client", current).await?;
        Ok(())
    }
}
