//! The configuration: TOML in, a validated [`Config`] out. The only door to `toml`.
//!
//! Every mistake is reported at once, each with file, line, full key path, what is wrong and an
//! example. Nothing is read here but the file, the host's name and, for a group given by name,
//! `/etc/group`.

mod section;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use mfpsync_backup::smb::Library;
use thiserror::Error;
use toml::de::DeTable;

use self::section::{Lines, Section};
use crate::communication::Bounds;
use crate::discovery;
use crate::telemetry::Level;

/// Configurations are short; a longer file is another file.
const MAX_BYTES: u64 = 256 << 10;
/// The port that devices of a group reach each other at.
pub const DEFAULT_PORT: u16 = 7450;
/// Where the package puts the helper programs.
const HELPERS: &str = "/usr/libexec/mfpsync";
/// Addresses in any one list.
const MAX_ADDRESSES: usize = 32;
/// Addresses in a membership row.
const MAX_ENDPOINTS: usize = 16;
/// Network interfaces in one list.
const MAX_INTERFACES: usize = 32;
const NAME_CHARS: usize = 64;
/// The undo window, and the longest one.
const HISTORY_DAYS: u64 = 30;
const HISTORY_DAYS_MAX: u64 = 3_650;

/// What the daemon was told, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file it came from, read again on a reload.
    pub source: PathBuf,
    /// Databases, keys and control file; absolute.
    pub data_dir: PathBuf,
    /// Sockets; absolute.
    pub run_dir: PathBuf,
    /// The device's name as people see it.
    pub name: String,
    /// Where other devices are listened for.
    pub listen: Vec<SocketAddr>,
    /// Where other devices are told to reach this one; empty means derived from `listen`.
    pub advertise: Vec<HostPort>,
    /// The only addresses to dial, whatever was learned; empty means what was learned.
    pub dial_only: Vec<HostPort>,
    /// Who may use the local sockets.
    pub local: Local,
    /// How much is logged.
    pub log_level: Level,
    /// Limits, lowered or as they are.
    pub limits: Limits,
    /// Pause between signs of life on a connection.
    pub heartbeat: Duration,
    /// Longest pause between two attempts to reach the server.
    pub reconnect_max: Duration,
    /// Days for which a server keeps replaced and losing values; 0 keeps none.
    pub history_days: u64,
    /// How much of the communication log is kept.
    pub communication: Bounds,
    /// Where metrics are served; none is nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// How servers are found on the local network.
    pub discovery: discovery::Settings,
    /// What an operator may set for backups.
    pub backup: Backup,
}

/// Where backups may go, and by what they get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// The folder of the helper programs.
    pub helpers: PathBuf,
    /// What speaks SMB.
    pub smb: Library,
    /// The only file servers there may be; empty allows every one.
    pub hosts: Vec<String>,
    /// Whether the file server may be this machine, which is for trying things out.
    pub this_machine: bool,
}

/// Who may use the local sockets, besides root and the daemon's own user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Local {
    /// Processes whose primary group this is.
    pub gid: Option<u32>,
    /// Processes of these users.
    pub allow_uids: Vec<u32>,
}

/// Limits that a device may lower. **Source**: `docs/protocol.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of other devices.
    pub connections: u64,
    /// Operations that wait for the server.
    pub outbox_operations: u64,
    /// Their bytes.
    pub outbox_bytes: u64,
    /// Accepted operations kept until they are safe.
    pub retained_operations: u64,
    /// Their bytes.
    pub retained_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1_100,
            outbox_operations: 50_000,
            outbox_bytes: 64 << 20,
            retained_operations: 10_000,
            retained_bytes: 16 << 20,
        }
    }
}

/// A host, by name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A host name, or an address without brackets.
    pub host: String,
    /// The port, never 0.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not host:port");
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<Ipv6Addr>().map_err(|_| bad())?.to_string(),
            None => host.to_owned(),
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let is_address = host.parse::<Ipv6Addr>().is_ok() && text.starts_with('[');
        if (host.chars().all(is_name) && !host.is_empty() && host.len() <= 253) || is_address {
            Ok(Self { host, port })
        } else {
            Err(bad())
        }
    }
}

/// One mistake in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line in the file, from 1.
    pub line: usize,
    /// The full path of the key, for example `limits.connections`; empty for broken TOML.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// A line that would be right; empty if the mistake says it all.
    pub example: String,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read configuration {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file says something that cannot be.
    #[error("{}", render(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Every mistake, in the order of the file.
        problems: Vec<Problem>,
    },
}

fn render(path: &Path, problems: &[Problem]) -> String {
    let line = |problem: &Problem| {
        let mut text = format!("{}:{}: ", path.display(), problem.line);
        if !problem.key.is_empty() {
            text += &format!("{}: ", problem.key);
        }
        text += &problem.what;
        if !problem.example.is_empty() {
            text += &format!("; for example: {}", problem.example);
        }
        text
    };
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Unreadable, or every mistake in it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// Checks the text of a file.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let lines = Lines::new(text);
        let invalid = |problems| ConfigError::Invalid { path: path.to_owned(), problems };
        let document = DeTable::parse(text).map_err(|error| {
            let line = error.span().map_or(1, |span| lines.at(span.start));
            let what = error.message().replace('\n', ", ");
            invalid(vec![Problem { line, key: String::new(), what, example: String::new() }])
        })?;
        let mut root = Section::root(document.get_ref(), &lines);
        let config = read_root(&mut root, path);
        let mut problems = root.finish();
        problems.sort_by_key(|problem| problem.line);
        config.filter(|_| problems.is_empty()).ok_or_else(|| invalid(problems))
    }

    /// What other devices are told, given the addresses that are really listened on and those of the
    /// interfaces: for "all", the host's name and then each address.
    #[must_use]
    pub fn advertised(&self, bound: &[SocketAddr], own: &[IpAddr]) -> Vec<HostPort> {
        if !self.advertise.is_empty() {
            return self.advertise.clone();
        }
        let mut derived = Vec::new();
        for address in bound {
            let ip = address.ip();
            let hosts = if ip.is_unspecified() {
                let reached = own.iter().filter(|own| ip.is_ipv6() || own.is_ipv4());
                std::iter::once(host_name()).chain(reached.map(ToString::to_string)).collect()
            } else {
                vec![ip.to_string()]
            };
            for host in hosts {
                let target = HostPort { host, port: address.port() };
                if !derived.contains(&target) && derived.len() < MAX_ENDPOINTS {
                    derived.push(target);
                }
            }
        }
        derived
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(std::io::Error::from(std::io::ErrorKind::FileTooLarge));
    }
    Ok(text)
}

fn read_root(root: &mut Section<'_>, source: &Path) -> Option<Config> {
    let data_dir = root.required("data_dir", r#"data_dir = "/var/lib/mfpsync""#, section::absolute_path);
    let run_dir = root
        .optional("run_dir", r#"run_dir = "/run/mfpsync""#, section::absolute_path)
        .unwrap_or_else(|| PathBuf::from("/run/mfpsync"));
    let name = root.optional("name", r#"name = "Copier, 2nd floor""#, device_name).unwrap_or_else(host_name);
    let listen = root
        .optional("listen", r#"listen = ["[::]:7450"]"#, |value| {
            section::texts(value, MAX_ADDRESSES, |text| {
                text.parse().map_err(|_| format!("`{text}` is not an address with a port"))
            })
        })
        .unwrap_or_else(|| vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, DEFAULT_PORT))]);
    let host_ports = |value: &_| section::texts(value, MAX_ADDRESSES, HostPort::from_str);
    let advertise = root
        .optional("advertise", r#"advertise = ["copier-2.example.com:7450"]"#, host_ports)
        .unwrap_or_default();
    let dial_only = root
        .optional("dial_only", r#"dial_only = ["server.example.com:7450"]"#, host_ports)
        .unwrap_or_default();
    let local = root.section("local", read_local);
    let log_level = root.section("log", read_log);
    let limits = root.section("limits", read_limits);
    let (heartbeat, reconnect_max) = root.section("sync", read_sync);
    let history_days = root.section("history", read_history);
    let communication = root.section("communication_log", read_communication_log);
    let metrics_listen = root.section("metrics", read_metrics);
    let discovery = root.section("discovery", read_discovery);
    let backup = root.section("backup", read_backup);
    Some(Config {
        source: source.to_owned(),
        data_dir: data_dir?,
        run_dir,
        name,
        listen,
        advertise,
        dial_only,
        local,
        log_level,
        limits,
        heartbeat,
        reconnect_max,
        history_days,
        communication,
        metrics_listen,
        discovery,
        backup,
    })
}

fn read_local(local: &mut Section<'_>) -> Local {
    Local {
        gid: local.optional("group", r#"group = "mfpsync""#, section::group),
        allow_uids: local.optional("allow_uids", "allow_uids = [990]", section::ids).unwrap_or_default(),
    }
}

fn read_log(log: &mut Section<'_>) -> Level {
    log.optional("level", r#"level = "info""#, |value| {
        let text = section::text(value)?;
        Level::from_name(text).ok_or_else(|| none_of(text, Level::NAMES))
    })
    .unwrap_or(Level::Info)
}

fn read_limits(limits: &mut Section<'_>) -> Limits {
    let Limits { connections, outbox_operations, outbox_bytes, retained_operations, retained_bytes } =
        Limits::default();
    /// One item with its envelope still has to fit.
    const SMALLEST_BYTES: u64 = 128 << 10;
    let mut lower = |key, smallest, highest: u64| {
        limits
            .optional(key, &format!("{key} = {}", highest / 2), |value| {
                section::integer(value, smallest, highest)
            })
            .unwrap_or(highest)
    };
    Limits {
        connections: lower("connections", 1, connections),
        outbox_operations: lower("outbox_operations", 1, outbox_operations),
        outbox_bytes: lower("outbox_bytes", SMALLEST_BYTES, outbox_bytes),
        retained_operations: lower("retained_operations", 1, retained_operations),
        retained_bytes: lower("retained_bytes", SMALLEST_BYTES, retained_bytes),
    }
}

fn read_sync(sync: &mut Section<'_>) -> (Duration, Duration) {
    let mut seconds = |key, default: u64, highest| {
        let value = sync
            .optional(key, &format!("{key} = {default}"), |value| section::integer(value, 1, highest))
            .unwrap_or(default);
        Duration::from_secs(value)
    };
    (seconds("heartbeat_seconds", 15, 300), seconds("reconnect_max_seconds", 4, 3_600))
}

fn read_history(history: &mut Section<'_>) -> u64 {
    history
        .optional("days", "days = 30", |value| section::integer(value, 0, HISTORY_DAYS_MAX))
        .unwrap_or(HISTORY_DAYS)
}

fn read_communication_log(log: &mut Section<'_>) -> Bounds {
    let Bounds { entries, bytes } = Bounds::default();
    let within = |smallest, highest| move |value: &_| section::integer(value, smallest, highest);
    Bounds {
        entries: log
            .optional("entries", "entries = 5000", within(100, 50_000))
            .map_or(entries, |entries| entries as usize),
        bytes: log.optional("bytes", "bytes = 1048576", within(64 << 10, 16 << 20)).unwrap_or(bytes),
    }
}

fn read_metrics(metrics: &mut Section<'_>) -> Option<SocketAddr> {
    metrics.optional("listen", r#"listen = "127.0.0.1:9745""#, |value| {
        let text = section::text(value)?;
        text.parse().map_err(|_| format!("`{text}` is not an address with a port"))
    })
}

fn read_discovery(discovery: &mut Section<'_>) -> discovery::Settings {
    let interface = |text: &str| match text {
        "" => Err("an interface has a name".to_owned()),
        name => Ok(name.to_owned()),
    };
    discovery::Settings {
        enabled: discovery.optional("enabled", "enabled = true", section::boolean).unwrap_or(true),
        interfaces: discovery
            .optional("interfaces", r#"interfaces = ["eth0"]"#, |value| {
                section::texts(value, MAX_INTERFACES, interface)
            })
            .unwrap_or_default(),
    }
}

fn read_backup(backup: &mut Section<'_>) -> Backup {
    let host = |text: &str| match text {
        "" => Err("a host has a name or an address".to_owned()),
        host => Ok(host.to_owned()),
    };
    Backup {
        helpers: backup
            .optional("helpers", r#"helpers = "/usr/libexec/mfpsync""#, section::absolute_path)
            .unwrap_or_else(|| PathBuf::from(HELPERS)),
        smb: backup.optional("smb", r#"smb = "libsmbclient""#, library).unwrap_or_default(),
        hosts: backup
            .optional("hosts", r#"hosts = ["nas.example.com"]"#, |value| {
                section::texts(value, MAX_ADDRESSES, host)
            })
            .unwrap_or_default(),
        this_machine: backup
            .optional("this_machine", "this_machine = false", section::boolean)
            .unwrap_or(false),
    }
}

fn library(value: &toml::de::DeValue<'_>) -> Result<Library, String> {
    let text = section::text(value)?;
    let named = Library::NAMES.into_iter().find(|(name, _)| *name == text);
    named.map(|(_, library)| library).ok_or_else(|| none_of(text, Library::NAMES.map(|(name, _)| name)))
}

/// What is said of a word that is none of those there are.
fn none_of<const N: usize>(text: &str, names: [&str; N]) -> String {
    format!("`{text}` is none of {}", names.map(|name| format!("`{name}`")).join(", "))
}

fn device_name(value: &toml::de::DeValue<'_>) -> Result<String, String> {
    let text = section::text(value)?;
    let length = text.chars().count();
    if text.trim().is_empty() || length > NAME_CHARS || text.contains(char::is_control) {
        return Err(format!("a name has 1 to {NAME_CHARS} characters and no control characters"));
    }
    Ok(text.to_owned())
}

fn host_name() -> String {
    let system = rustix::system::uname();
    let name: String = system.nodename().to_string_lossy().chars().filter(|c| !c.is_control()).collect();
    if name.is_empty() { "mfp".to_owned() } else { name.chars().take(NAME_CHARS).collect() }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
