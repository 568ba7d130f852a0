//! A real SMB server for a test: Samba's `smbd` on a loopback address, with shares of several tempers.
//!
//! Each server has an address of its own instead of a port of its own: two of one user on one port would share
//! its connections without a word. Its folder has a short name, because `smbd` makes sockets there and does not
//! listen, without a word, when their names get too long.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mfpsync_backup::smb::{Dialect, Encryption, Secret, Target};
use mfpsync_backup::store::Name;
use mfpsync_backup::store::smb::SmbStore;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::steps::Steps;
use crate::{PATIENCE, preload, smb_helper_path};

/// The password of the server's only user.
pub const SHARE_PASSWORD: &str = "canary-of-the-share";

const PORT: u16 = 1445;
const POLL: Duration = Duration::from_millis(10);

/// How a server is to be.
#[derive(Debug, Clone)]
pub struct ShareServer {
    global: Vec<String>,
    stepwise: bool,
    keeps_bytes: Option<u64>,
}

impl Default for ShareServer {
    /// SMB 3, signed, no guests.
    fn default() -> Self {
        let global = ["map to guest = never", "restrict anonymous = 2", "server min protocol = SMB3_00"];
        let mut server =
            Self { global: global.map(str::to_owned).into(), stepwise: false, keeps_bytes: None };
        server.global.push("server signing = mandatory".to_owned());
        server
    }
}

impl ShareServer {
    /// With another setting of `[global]`; a later one counts.
    #[must_use]
    pub fn with(mut self, setting: &str) -> Self {
        self.global.push(setting.to_owned());
        self
    }

    /// With [`TestShare::steps`].
    #[must_use]
    pub fn stepwise(mut self) -> Self {
        self.stepwise = true;
        self
    }

    /// Keeps no more than so many bytes of a file, takes all the same, and says so when the file is closed.
    #[must_use]
    pub fn keeping(mut self, bytes: u64) -> Self {
        self.keeps_bytes = Some(bytes);
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// Samba is missing, or does not listen.
    pub fn start(self) -> Result<TestShare> {
        TestShare::start(&self)
    }
}

/// A running server. Its shares are `backup`; `open`, for anybody who gets in; `ro`, read-only; `noperm`, in which
/// a user without rights acts; `full`, for a small disk; and `denied`, for nobody.
#[derive(Debug)]
pub struct TestShare {
    home: TempDir,
    host: Ipv4Addr,
    user: String,
    server: Option<Child>,
    steps: Option<Steps>,
    env: Vec<(String, String)>,
    /// An abstract socket name that only one test can hold.
    _reservation: UnixListener,
}

impl TestShare {
    fn start(server: &ShareServer) -> Result<Self> {
        let home =
            tempfile::Builder::new().prefix("mfps").tempdir_in("/tmp").context("make the server's folder")?;
        let (host, reservation) = reserve()?;
        let user = String::from_utf8(run(Command::new("id").arg("-un"))?.stdout)?.trim().to_owned();
        let (steps, env) = (None, Vec::new());
        let mut share = Self { home, host, user, server: None, steps, env, _reservation: reservation };
        share.lay_out(&server.global)?;
        let (home, below) = (share.home.path(), share.home.path().join("share"));
        if server.stepwise {
            let (steps, env) = Steps::of_server(home, &below)?;
            (share.steps, share.env) = (Some(steps), env);
        } else if let Some(bytes) = server.keeps_bytes {
            share.env = vec![
                preload::library("late", home)?,
                ("MFPSYNC_TEST_LATE_BELOW".to_owned(), below.display().to_string()),
                ("MFPSYNC_TEST_LATE_BYTES".to_owned(), bytes.to_string()),
            ];
        }
        share.listen()?;
        Ok(share)
    }

    fn lay_out(&self, global: &[String]) -> Result<()> {
        let home = self.home.path();
        // Others act in there as well.
        fs::set_permissions(home, fs::Permissions::from_mode(0o755))?;
        for folder in ["lock", "state", "cache", "private", "pid", "ncalrpc", "log", "helpers"] {
            fs::create_dir(home.join(folder))?;
        }
        fs::set_permissions(home.join("private"), fs::Permissions::from_mode(0o700))?;
        for share in ["backup", "ro", "noperm", "denied", "full"] {
            fs::create_dir_all(self.folder(share))?;
        }
        fs::write(home.join("smb.conf"), self.configuration(global))?;
        self.set_password(SHARE_PASSWORD)
    }

    fn configuration(&self, global: &[String]) -> String {
        let (home, user) = (self.home.path().display(), &self.user);
        let other = if rustix::process::geteuid().is_root() { "force user = nobody\n" } else { "" };
        let global = global.join("\n");
        format!(
            "[global]\n\
             workgroup = WORKGROUP\nnetbios name = TESTSRV\nserver role = standalone server\nsecurity = user\n\
             passdb backend = tdbsam:{home}/private/passdb.tdb\n\
             interfaces = {host}/8\nbind interfaces only = yes\nsmb ports = {PORT}\ndisable netbios = yes\n\
             lock directory = {home}/lock\nstate directory = {home}/state\ncache directory = {home}/cache\n\
             private dir = {home}/private\npid directory = {home}/pid\nncalrpc dir = {home}/ncalrpc\n\
             binddns dir = {home}/state\nusershare path =\n\
             log file = {home}/log/smbd.log\nlog level = 1 auth_audit:3\nmax log size = 0\n\
             load printers = no\nprinting = bsd\nprintcap name = /dev/null\ndisable spoolss = yes\n\
             {global}\n\
             [backup]\npath = {home}/share/backup\nread only = no\nvalid users = {user}\n\
             [open]\npath = {home}/share/backup\nread only = no\nguest ok = yes\n\
             [ro]\npath = {home}/share/ro\nread only = yes\nvalid users = {user}\n\
             [noperm]\npath = {home}/share/noperm\nread only = no\nvalid users = {user}\n{other}\
             [full]\npath = {home}/share/full\nread only = no\nvalid users = {user}\n\
             [denied]\npath = {home}/share/denied\nread only = no\nvalid users = daemon\n",
            host = self.host,
        )
    }

    /// Gives the server's user another password.
    ///
    /// # Errors
    /// Samba does not take it.
    pub fn set_password(&self, password: &str) -> Result<()> {
        let mut command = self.tool("pdbedit");
        command.args(["--create", "--password-from-stdin", "--user", &self.user]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut input = child.stdin.take().context("no input")?;
        write!(input, "{password}\n{password}\n")?;
        drop(input);
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "pdbedit: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }

    /// Disables the server's user.
    ///
    /// # Errors
    /// Samba does not.
    pub fn disable_user(&self) -> Result<()> {
        run(self.tool("pdbedit").args(["--modify", "--user", &self.user, "--account-control", "[D]"]))
            .map(drop)
    }

    /// Starts the server again, after [`TestShare::stop`].
    ///
    /// # Errors
    /// It does not listen.
    pub fn listen(&mut self) -> Result<()> {
        let log = fs::File::create(self.home.path().join("log/stdout"))?;
        let mut command = self.tool("smbd");
        command.args(["--foreground", "--no-process-group", "--debug-stdout"]);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        // At its end it signals its whole process group.
        command.process_group(0).stdin(Stdio::null()).stderr(log.try_clone()?).stdout(log);
        let server = self.server.insert(command.spawn().context("start smbd")?);
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect((self.host, PORT)).is_err() {
            if let Some(status) = server.try_wait()? {
                bail!("smbd ended with {status}");
            }
            ensure!(Instant::now() < end, "smbd does not listen");
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Ends the server with all its sessions.
    ///
    /// # Errors
    /// It cannot be signalled.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        let sessions = self.sessions().unwrap_or_default();
        kill_process(Pid::from_child(&server), Signal::TERM)?;
        server.wait()?;
        // Those that were stopped by a signal do not hear their parent.
        sessions.iter().for_each(|session| session.signal(Signal::KILL));
        Ok(())
    }

    /// The steps that it makes in the folders behind its shares.
    ///
    /// # Errors
    /// It is not [`ShareServer::stepwise`].
    pub fn steps(&self) -> Result<&Steps> {
        self.steps.as_ref().context("steps are not counted")
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (self.host, PORT).into()
    }

    /// The name of its only user.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The folder behind a share.
    #[must_use]
    pub fn folder(&self, share: &str) -> PathBuf {
        self.home.path().join("share").join(share)
    }

    /// Where to put archives: the folder `group` of a share.
    ///
    /// # Errors
    /// A name is wrong.
    pub fn target(&self, share: &str) -> Result<Target> {
        Ok(Target {
            host: self.host.to_string(),
            port: PORT,
            this_machine: true,
            share: share.to_owned(),
            folder: String::new(),
            own_folder: Name::parse("group")?,
            domain: String::new(),
            user: self.user.clone(),
            password: Secret::new(SHARE_PASSWORD.to_owned()),
            minimum: Dialect::Smb300,
            encryption: Encryption::Preferred,
            patience: Duration::from_secs(5),
        })
    }

    /// A store of that target, its helpers' folders in the server's.
    ///
    /// # Errors
    /// The helper was not built, or the target is refused.
    pub fn store(&self, target: Target) -> Result<SmbStore> {
        Ok(SmbStore::new(&smb_helper_path()?, &self.scratch(), target)?)
    }

    /// The sessions there are now.
    ///
    /// # Errors
    /// The server does not say.
    pub fn sessions(&self) -> Result<Vec<Session>> {
        let output =
            run(Command::new("smbstatus").arg("-s").arg(self.configuration_path()).args(["-p", "-j"]))?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).context("read smbstatus")?;
        let sessions = status["sessions"].as_object().context("no sessions")?;
        sessions.values().map(Session::read).collect()
    }

    /// How often files of this name are open.
    ///
    /// # Errors
    /// The server does not say.
    pub fn opens(&self, name: &str) -> Result<usize> {
        let output =
            run(Command::new("smbstatus").arg("-s").arg(self.configuration_path()).args(["-L", "-j"]))?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).context("read smbstatus")?;
        let open = status["open_files"].as_object().context("no files")?;
        let is = |file: &&serde_json::Value| {
            file["filename"].as_str().is_some_and(|path| path.rsplit('/').next() == Some(name))
        };
        Ok(open
            .values()
            .filter(is)
            .filter_map(|file| file["opens"].as_object())
            .map(|opens| opens.len())
            .sum())
    }

    /// The helpers that run now. Needs root, since they let nobody else look at them.
    ///
    /// # Errors
    /// The system does not say.
    pub fn helpers(&self) -> Result<Vec<Pid>> {
        let mut found = Vec::new();
        for process in fs::read_dir("/proc")? {
            let process = process?;
            let works_here =
                || Some(fs::read_link(process.path().join("cwd")).ok()?.starts_with(self.scratch()));
            if let Some(pid) = process.file_name().to_str().and_then(|name| Pid::from_raw(name.parse().ok()?))
                && works_here() == Some(true)
                && fs::read_to_string(process.path().join("comm"))
                    .is_ok_and(|name| name.starts_with("mfpsync-smb"))
            {
                found.push(pid);
            }
        }
        Ok(found)
    }

    /// The folder in which helpers have theirs.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.home.path().join("helpers")
    }

    /// How often anybody tried to log in.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn log_ins(&self) -> Result<usize> {
        let log = fs::read_to_string(self.home.path().join("log/stdout"))?;
        Ok(log.matches("Auth: [SMB2").count())
    }

    /// All that the server and its tools wrote down.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.home.path().join("log/stdout"))?)
    }

    fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg(format!("--configfile={}", self.configuration_path().display()));
        command
    }

    fn configuration_path(&self) -> PathBuf {
        self.home.path().join("smb.conf")
    }
}

impl Drop for TestShare {
    fn drop(&mut self) {
        // A test that fails says so by itself.
        let _stopped = self.stop();
    }
}

/// A session, and the process of the server that serves it.
#[derive(Debug, Clone)]
pub struct Session {
    /// The process.
    pub pid: Pid,
    /// The dialect, as `SMB3_11`.
    pub dialect: String,
    /// The cipher, or `-`.
    pub cipher: String,
    /// The way of signing, or `-`.
    pub signing: String,
}

impl Session {
    fn read(value: &serde_json::Value) -> Result<Self> {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
        let pid = text(&value["server_id"]["pid"]).parse().context("no process")?;
        Ok(Self {
            pid: Pid::from_raw(pid).context("no process")?,
            dialect: text(&value["session_dialect"]),
            cipher: text(&value["encryption"]["cipher"]),
            signing: text(&value["signing"]["cipher"]),
        })
    }

    /// Signals the process; it may have ended.
    pub fn signal(&self, signal: Signal) {
        let _ended = kill_process(self.pid, signal);
    }
}

/// An address that no other test takes, in this process or in another.
fn reserve() -> Result<(Ipv4Addr, UnixListener)> {
    (0..100_u8)
        .find_map(|turn| {
            let luck = RandomState::new().hash_one(turn).to_le_bytes();
            let host = Ipv4Addr::new(127, 1 + luck[0] % 250, luck[1], 1 + luck[2] % 250);
            let name = UnixAddr::from_abstract_name(format!("mfpsync-test-share-{host}")).ok()?;
            let reservation = UnixListener::bind_addr(&name).ok()?;
            TcpStream::connect((host, PORT)).is_err().then_some((host, reservation))
        })
        .context("no free address found")
}

fn run(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(output)
}
