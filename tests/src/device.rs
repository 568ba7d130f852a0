//! One device: a directory, a configuration, and a daemon that can be started, stopped and killed.
//!
//! Ends only the process it started, and ends it when dropped. A test that passed otherwise fails
//! if the daemon's log holds an unexpected warning or error.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use mfpsync_proto::local::local_client::LocalClient;
use mfpsync_proto::local::{
    Edit, Freshness, GetRequest, ItemKey, ListRequest, LoginRequest, WatchEvent, WatchRequest, WriteReply,
    WriteRequest,
};
use mfpsync_proto::panel::panel_client::PanelClient;
use mfpsync_proto::panel::{
    ClientStatus, Fault, SetAsideEdit, SetAsideRequest, StatusReply, StatusRequest, UnlockDebugRequest,
};
use mfpsync_proto::records::records_client::RecordsClient;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::binary::daemon_path;
use crate::contents::{Contents, fields};
use crate::debug::{Hashes, ask};
use crate::log::Log;
use crate::port::Port;
use crate::wait::{PATIENCE, eventually};
use crate::{LocalClient as Local, PanelClient as Panel};

/// Well above the daemon's own deadline for a stop.
const STOP_PATIENCE: Duration = Duration::from_secs(15);
/// No call to a local socket takes longer on a device that works.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
const TAIL_LINES: usize = 40;

/// What a test may choose about a device; the rest has values that make tests quick.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Addresses to announce; none announces what it listens on.
    pub advertise: Vec<SocketAddr>,
    /// The only addresses to dial; none dials what it learns.
    pub dial_only: Vec<SocketAddr>,
    /// Lines for the top of the configuration.
    pub top: String,
    /// Seconds between signs of life, if not one.
    pub heartbeat: Option<u32>,
    /// The network namespace it runs in; none runs beside the test.
    pub namespace: Option<String>,
    /// Where it listens, if not at its own loopback address.
    pub listen: Vec<SocketAddr>,
    /// Whether it announces itself and looks around.
    pub discovery: bool,
    /// The log's level, if not debug.
    pub log_level: Option<String>,
    /// Tables for the end of the configuration.
    pub tables: String,
    /// Environment of the process.
    pub env: Vec<(String, String)>,
    /// The data directory, if not within the device's own.
    pub data_dir: Option<PathBuf>,
}

/// One device.
#[derive(Debug)]
pub struct TestDevice {
    /// Its name.
    pub name: String,
    /// What may be chosen; takes effect at the next start.
    pub setup: Setup,
    /// What its daemon says.
    pub log: Log,
    home: TempDir,
    port: Port,
    child: Option<Child>,
}

impl TestDevice {
    /// A device with empty storage, not started.
    ///
    /// # Errors
    /// No directory or port can be had.
    pub fn new(name: &str) -> Result<Self> {
        let home = tempfile::Builder::new().prefix(&format!("mfpsync-{name}-")).tempdir()?;
        let log = Log::new(home.path().join("log"));
        let port = Port::reserve()?;
        Ok(Self { name: name.to_owned(), setup: Setup::default(), log, home, port, child: None })
    }

    /// A device with empty storage, running.
    ///
    /// # Errors
    /// As [`TestDevice::new`] and [`TestDevice::start`].
    pub async fn started(name: &str) -> Result<Self> {
        let mut device = Self::new(name)?;
        device.start().await?;
        Ok(device)
    }

    /// Where it listens for other devices.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Listens at another address of this machine from the next start on; the one before.
    pub fn listen_at(&mut self, port: Port) -> Port {
        std::mem::replace(&mut self.port, port)
    }

    /// The directory everything of the device is in.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Where its keys and databases are.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.setup.data_dir.clone().unwrap_or_else(|| self.home.path().join("data"))
    }

    /// The database of its own data.
    #[must_use]
    pub fn own_database(&self) -> PathBuf {
        self.data_dir().join("local.db")
    }

    /// The group's master database, at a server.
    #[must_use]
    pub fn master_database(&self) -> PathBuf {
        self.data_dir().join("master.db")
    }

    /// Where its sockets are.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.home.path().join("run")
    }

    /// Its configuration file.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.home.path().join("mfpsyncd.toml")
    }

    fn config(&self) -> String {
        let optional = |name: &str, addresses: &[SocketAddr]| match addresses {
            [] => String::new(),
            some => format!("{name} = {:?}\n", texts(some)),
        };
        format!(
            "data_dir = {:?}\nrun_dir = {:?}\nname = {:?}\nlisten = {:?}\n{}{}{}\n\
             [sync]\nheartbeat_seconds = {}\nreconnect_max_seconds = 1\n\n[log]\nlevel = {:?}\n\n[discovery]\nenabled = {}\n\n{}",
            self.data_dir(),
            self.run_dir(),
            self.name,
            if self.setup.listen.is_empty() { texts(&[self.address()]) } else { texts(&self.setup.listen) },
            optional("advertise", &self.setup.advertise),
            optional("dial_only", &self.setup.dial_only),
            self.setup.top,
            self.setup.heartbeat.unwrap_or(1),
            self.setup.log_level.as_deref().unwrap_or("debug"),
            self.setup.discovery,
            self.setup.tables,
        )
    }

    /// Starts the daemon without waiting for it.
    ///
    /// # Errors
    /// It runs already, was not built, or its files cannot be written.
    pub fn spawn(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        fs::create_dir_all(self.data_dir())?;
        fs::create_dir_all(self.run_dir())?;
        fs::write(self.config_path(), self.config())?;
        self.child = Some(self.command(&self.config_path())?.spawn().context("start mfpsyncd")?);
        Ok(())
    }

    /// The daemon with another configuration file, its output going to this device's log.
    ///
    /// # Errors
    /// It was not built, or there is no log.
    pub fn command(&self, config: &Path) -> Result<Command> {
        let log = File::options().create(true).append(true).open(self.log.path())?;
        let mut command = match &self.setup.namespace {
            // Becomes the daemon, so that the process is the same.
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(daemon_path()?);
                command
            }
            None => Command::new(daemon_path()?),
        };
        command.arg("--config").arg(config).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.env_remove("JOURNAL_STREAM").env_remove("NOTIFY_SOCKET");
        command.envs(self.setup.env.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    /// Starts the daemon and waits until the panel answers.
    ///
    /// # Errors
    /// As [`TestDevice::spawn`]; it ended at once, or does not answer in time.
    pub async fn start(&mut self) -> Result<()> {
        self.spawn()?;
        self.ready().await
    }

    async fn ready(&mut self) -> Result<()> {
        let end = tokio::time::Instant::now() + PATIENCE;
        let what = format!("{} to answer", self.name);
        while tokio::time::Instant::now() < end {
            if let Some(status) = self.exited()? {
                bail!("{} ended at once ({status}):\n{}", self.name, self.log.tail(TAIL_LINES));
            }
            let left = Duration::from_millis(200);
            if eventually(left, &what, async || self.status().await).await.is_ok() {
                return Ok(());
            }
        }
        bail!("{what}: waited {PATIENCE:?}:\n{}", self.log.tail(TAIL_LINES))
    }

    /// How the process ended, if it has.
    ///
    /// # Errors
    /// The system's.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = self.child.as_mut() else { bail!("{} was not started", self.name) };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Waits for the process to end by itself.
    ///
    /// # Errors
    /// It does not.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        let ended = async || self.exited()?.ok_or_else(|| anyhow!("it still runs"));
        eventually(STOP_PATIENCE, &what, ended).await
    }

    /// The power fails: the process is gone in the middle of whatever it did.
    ///
    /// # Errors
    /// It did not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.name))?;
        child.kill()?;
        let status = child.wait()?;
        ensure!(status.signal() == Some(9), "{} had ended before: {status}", self.name);
        Ok(())
    }

    /// The daemon stands still: it neither answers nor hears, and knows nothing of it afterwards.
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// The daemon goes on.
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().with_context(|| format!("{} does not run", self.name))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Asks the daemon to end and waits until it has.
    ///
    /// # Errors
    /// It does not, or with another code than 0.
    pub async fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.ended().await?;
        ensure!(status.success(), "{} ended with {status}:\n{}", self.name, self.log.tail(TAIL_LINES));
        Ok(())
    }

    /// Stops the daemon and starts it again.
    ///
    /// # Errors
    /// As both.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.start().await
    }

    fn channel(&self, socket: &str) -> Result<Channel> {
        let uri = format!("unix://{}", self.run_dir().join(socket).display());
        Ok(Endpoint::from_shared(uri)?.timeout(CALL_TIMEOUT).connect_lazy())
    }

    /// The local API.
    ///
    /// # Errors
    /// Only for an impossible path.
    pub fn local(&self) -> Result<Local> {
        Ok(LocalClient::new(self.channel("local.sock")?))
    }

    /// The panel API.
    ///
    /// # Errors
    /// Only for an impossible path.
    pub fn panel(&self) -> Result<Panel> {
        Ok(PanelClient::new(self.channel("panel.sock")?))
    }

    /// The records API.
    ///
    /// # Errors
    /// Only for an impossible path.
    pub fn records(&self) -> Result<RecordsClient<Channel>> {
        Ok(RecordsClient::new(self.channel("panel.sock")?))
    }

    /// What the panel shows.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub async fn status(&self) -> Result<StatusReply> {
        Ok(self.panel()?.status(StatusRequest {}).await?.into_inner())
    }

    /// The client part of the status.
    ///
    /// # Errors
    /// The daemon does not answer, or the device is no client.
    pub async fn client_status(&self) -> Result<ClientStatus> {
        self.status().await?.client.with_context(|| format!("{} is no client", self.name))
    }

    /// The fault with this code.
    ///
    /// # Errors
    /// It does not stand.
    pub async fn fault(&self, code: &str) -> Result<Fault> {
        let faults = self.status().await?.faults;
        let found = faults.iter().find(|fault| fault.code == code).cloned();
        found.with_context(|| format!("no {code} among {faults:?}"))
    }

    /// Writes edits that belong together, as Alice, and returns the whole answer.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn answer_to_write(&self, edits: Vec<Edit>) -> Result<WriteReply, Status> {
        let mut local = self.local().map_err(|error| Status::internal(error.to_string()))?;
        let request = WriteRequest { edits, actor: "alice".to_owned() };
        Ok(local.write(request).await?.into_inner())
    }

    /// Writes edits that belong together; `Some` is the operation's number.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn try_write(&self, edits: Vec<Edit>) -> Result<Option<u64>, Status> {
        Ok(self.answer_to_write(edits).await?.operation)
    }

    /// As [`TestDevice::try_write`], for a write that must succeed.
    ///
    /// # Errors
    /// The daemon refused.
    pub async fn write(&self, edits: Vec<Edit>) -> Result<Option<u64>> {
        self.try_write(edits).await.with_context(|| format!("write at {}", self.name))
    }

    /// One item's fields; none when it does not exist.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn get(
        &self,
        key: &ItemKey,
    ) -> Result<Option<std::collections::BTreeMap<String, mfpsync_proto::local::value::Value>>> {
        match self.local()?.get(GetRequest { key: Some(key.clone()) }).await {
            Ok(reply) => Ok(reply.into_inner().item.map(|item| fields(item.fields))),
            Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
            Err(status) => Err(status).with_context(|| format!("read at {}", self.name)),
        }
    }

    /// Everything readers see in some scopes.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn contents(&self, scopes: &[&str]) -> Result<Contents> {
        let mut contents = Contents::default();
        for scope in scopes {
            let request = ListRequest { scope: (*scope).to_owned(), kind: String::new() };
            let mut answers = self.local()?.list(request).await?.into_inner();
            while let Some(answer) = answers.message().await? {
                answer.items.into_iter().for_each(|item| contents.add(item));
            }
        }
        Ok(contents)
    }

    /// A person logs in.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn login(&self, user: &str, wait_millis: Option<u32>) -> Result<(Contents, Freshness)> {
        let request = LoginRequest { user: user.to_owned(), wait_millis };
        let reply = self.local()?.login(request).await?.into_inner();
        let mut contents = Contents::default();
        reply.items.into_iter().for_each(|item| contents.add(item));
        Ok((contents, reply.freshness.unwrap_or_default()))
    }

    /// Begins to watch; the first event says that watching has begun.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn watch(&self, scopes: &[&str], kinds: &[&str]) -> Result<Streaming<WatchEvent>> {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let request = WatchRequest { scopes: owned(scopes), kinds: owned(kinds) };
        // Without the deadline of calls that end.
        let uri = format!("unix://{}", self.run_dir().join("local.sock").display());
        let mut local = LocalClient::new(Endpoint::from_shared(uri)?.connect_lazy());
        Ok(local.watch(request).await?.into_inner())
    }

    /// Operations set aside for a person.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn set_aside(&self) -> Result<Vec<SetAsideEdit>> {
        Ok(self.panel()?.set_aside(SetAsideRequest {}).await?.into_inner().edits)
    }

    /// Sends one command to the debug socket, which is opened for it.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn debug(&self, command: &str) -> Result<Vec<Value>> {
        let reply = self.panel()?.unlock_debug(UnlockDebugRequest { minutes: 10 }).await?.into_inner();
        tokio::time::timeout(CALL_TIMEOUT, ask(Path::new(&reply.path), command))
            .await
            .with_context(|| format!("no answer to {command:?}"))?
    }

    /// Content hashes.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn hashes(&self) -> Result<Hashes> {
        Hashes::from_answer(&self.debug("hashes").await?)
    }
}

fn texts(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(SocketAddr::to_string).collect()
}

impl Drop for TestDevice {
    #[expect(clippy::panic, clippy::print_stderr, reason = "this is how a test fails and says why")]
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _already_ended = (child.kill(), child.wait());
        }
        if std::thread::panicking() {
            eprintln!("--- log of {}:\n{}", self.name, self.log.tail(TAIL_LINES));
            return;
        }
        let surprises = self.log.surprises();
        if !surprises.is_empty() {
            panic!("unexpected lines in the log of {}:\n{}", self.name, surprises.join("\n"));
        }
    }
}
