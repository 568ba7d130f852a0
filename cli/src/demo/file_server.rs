//! The demo's file server: Samba's `smbd` with one share, in the demo's directory and on an address of this machine.

use std::fs::{self, File, Permissions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::process::Child;

use crate::exit::Failure;
use crate::sockets::within;

/// The share's name.
pub(crate) const SHARE: &str = "backup";
/// The account's password: a demo has no secrets.
pub(crate) const PASSWORD: &str = "demo-of-a-share";
const PORT: u16 = 4450;
const POLL: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(20);
/// Where the system keeps programs that are not on everybody's path.
const PROGRAMS: [&str; 3] = ["/usr/sbin", "/usr/bin", "/usr/local/sbin"];

/// A running file server.
#[derive(Debug)]
pub(crate) struct FileServer {
    pub(crate) address: SocketAddr,
    /// The account.
    pub(crate) user: String,
    pub(crate) config: PathBuf,
    pub(crate) child: Child,
}

impl FileServer {
    /// Starts it in a directory of its own and waits until it answers.
    ///
    /// # Errors
    /// Samba is not installed, or does not start.
    pub(crate) async fn start(directory: &Path) -> Result<Self, Failure> {
        let failed = |what: &str, error: io::Error| Failure::Failed(format!("{what}: {error}"));
        let (server, accounts) = (program("smbd")?, program("pdbedit")?);
        // An address of its own: two servers of one user would share the connections of one address.
        let luck = RandomState::new().hash_one(std::process::id()).to_be_bytes();
        let address = SocketAddr::from((Ipv4Addr::new(127, luck[0] | 1, luck[1], luck[2] | 1), PORT));
        let user = own_name()?;
        let config =
            lay_out(directory, address, &user).map_err(|error| failed("lay out the file server", error))?;
        set_password(&accounts, &config, &user)
            .map_err(|error| failed("make the file server's account", error))?;
        let log = File::create(directory.join("log"))
            .map_err(|error| failed("make the file server's log", error))?;
        let again = log.try_clone().map_err(|error| failed("make the file server's log", error))?;
        let child = tokio::process::Command::new(&server)
            .args(["--foreground", "--no-process-group", "--debug-stdout", "-s"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(again)
            // At its end it ends its whole group.
            .process_group(0)
            .spawn()
            .map_err(|source| Failure::File { action: "start", path: server, source })?;
        let mut running = Self { address, user, config, child };
        within(PATIENCE, "readiness of the file server", async {
            while TcpStream::connect_timeout(&address, POLL).is_err() {
                if let Ok(Some(status)) = running.child.try_wait() {
                    return Err(Failure::Failed(format!("the file server ended at once ({status})")));
                }
                tokio::time::sleep(POLL).await;
            }
            Ok(())
        })
        .await?;
        Ok(running)
    }
}

fn program(name: &str) -> Result<PathBuf, Failure> {
    let found = PROGRAMS.iter().map(|directory| Path::new(directory).join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        Failure::Usage(format!("{name} is not installed; the demo needs Samba (package samba)"))
    })
}

/// The name of the user this runs as, which is the account's as well.
fn own_name() -> Result<String, Failure> {
    let asked = Command::new("id").arg("-un").output();
    let asked = asked.map_err(|error| Failure::Failed(format!("ask who runs the demo: {error}")))?;
    Ok(String::from_utf8_lossy(&asked.stdout).trim().to_owned())
}

fn lay_out(directory: &Path, address: SocketAddr, user: &str) -> io::Result<PathBuf> {
    for folder in ["lock", "state", "cache", "private", "pid", "ncalrpc", SHARE] {
        fs::create_dir_all(directory.join(folder))?;
    }
    fs::set_permissions(directory.join("private"), Permissions::from_mode(0o700))?;
    let (home, host, port) = (directory.display(), address.ip(), address.port());
    let config = directory.join("smb.conf");
    fs::write(
        &config,
        format!(
            "[global]\nworkgroup = WORKGROUP\nnetbios name = DEMO\nserver role = standalone server\nsecurity = user\n\
             map to guest = never\nrestrict anonymous = 2\npassdb backend = tdbsam:{home}/private/passdb.tdb\n\
             interfaces = {host}/8\nbind interfaces only = yes\nsmb ports = {port}\ndisable netbios = yes\n\
             lock directory = {home}/lock\nstate directory = {home}/state\ncache directory = {home}/cache\n\
             private dir = {home}/private\npid directory = {home}/pid\nncalrpc dir = {home}/ncalrpc\n\
             binddns dir = {home}/state\nusershare path =\nlog file = {home}/smbd.log\nload printers = no\n\
             printing = bsd\nprintcap name = /dev/null\ndisable spoolss = yes\nserver min protocol = SMB3_00\n\
             server signing = mandatory\n[{SHARE}]\npath = {home}/{SHARE}\nread only = no\nvalid users = {user}\n"
        ),
    )?;
    Ok(config)
}

fn set_password(accounts: &Path, config: &Path, user: &str) -> io::Result<()> {
    let mut child = Command::new(accounts)
        .arg(format!("--configfile={}", config.display()))
        .args(["-a", "-t", "-u", user])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(format!("{PASSWORD}\n{PASSWORD}\n").as_bytes())?;
    }
    if child.wait()?.success() { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}
