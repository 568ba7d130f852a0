//! The configuration in force, and reading the file again: what can hold at once does, the rest is
//! named and holds after a restart. A file with a mistake changes nothing.
//!
//! [`KEYS`] is the one list of which is which. Whoever can follow a change asks [`Settings::now`] each
//! time or [`Settings::watch`]es.

use std::sync::Arc;

use tokio::sync::watch;

use crate::config::{Config, ConfigError};
use crate::telemetry::LogLevel;

/// When a changed key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// As soon as the file was read again.
    AtOnce,
    /// When the daemon is started again.
    AfterRestart,
}

macro_rules! keys {
    ($($key:literal = $($field:ident).+, $holds:ident;)*) => {
        /// Every key of the file, and when a change of it holds.
        pub const KEYS: &[(&str, Holds)] = &[$(($key, Holds::$holds),)*];

        /// `now` with what may hold at once of `read`, and what differs.
        fn take(now: &Config, read: &Config) -> (Config, Reloaded) {
            let (mut next, mut changed) = (now.clone(), Reloaded::default());
            $(if now.$($field).+ != read.$($field).+ {
                match Holds::$holds {
                    Holds::AtOnce => {
                        next.$($field).+.clone_from(&read.$($field).+);
                        changed.applied.push($key);
                    }
                    Holds::AfterRestart => changed.after_restart.push($key),
                }
            })*
            (next, changed)
        }
    };
}

keys! {
    "data_dir" = data_dir, AfterRestart;
    "run_dir" = run_dir, AfterRestart;
    // It stands in the rows others have signed and in what newcomers were shown.
    "name" = name, AfterRestart;
    "listen" = listen, AfterRestart;
    "advertise" = advertise, AtOnce;
    "dial_only" = dial_only, AtOnce;
    // Owner and mode of the sockets are set when they are bound.
    "local.group" = local.gid, AfterRestart;
    "local.allow_uids" = local.allow_uids, AfterRestart;
    "log.level" = log_level, AtOnce;
    "limits.connections" = limits.connections, AtOnce;
    "limits.outbox_operations" = limits.outbox_operations, AtOnce;
    "limits.outbox_bytes" = limits.outbox_bytes, AtOnce;
    "limits.retained_operations" = limits.retained_operations, AtOnce;
    "limits.retained_bytes" = limits.retained_bytes, AtOnce;
    // A connection keeps the rhythm both sides began it with.
    "sync.heartbeat_seconds" = heartbeat, AfterRestart;
    "sync.reconnect_max_seconds" = reconnect_max, AtOnce;
    "history.days" = history_days, AtOnce;
    "communication_log.entries" = communication.entries, AtOnce;
    "communication_log.bytes" = communication.bytes, AtOnce;
    "metrics.listen" = metrics_listen, AtOnce;
    // An announcement and a scan keep the interfaces they began on.
    "discovery.enabled" = discovery.enabled, AfterRestart;
    "discovery.interfaces" = discovery.interfaces, AfterRestart;
    "backup.helpers" = backup.helpers, AtOnce;
    "backup.smb" = backup.smb, AtOnce;
    "backup.hosts" = backup.hosts, AtOnce;
    "backup.this_machine" = backup.this_machine, AtOnce;
}

/// What reading the file again came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Keys that changed and hold now.
    pub applied: Vec<&'static str>,
    /// Keys that changed and hold after a restart.
    pub after_restart: Vec<&'static str>,
}

/// The configuration in force; cheap to clone.
#[derive(Debug, Clone)]
pub struct Settings {
    in_force: watch::Sender<Arc<Config>>,
    log: LogLevel,
}

impl Settings {
    /// What the daemon was started with.
    #[must_use]
    pub fn new(config: Arc<Config>, log: LogLevel) -> Self {
        Self { in_force: watch::Sender::new(config), log }
    }

    /// What is in force.
    #[must_use]
    pub fn now(&self) -> Arc<Config> {
        self.in_force.borrow().clone()
    }

    /// What is in force, and when that changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Config>> {
        self.in_force.subscribe()
    }

    /// Reads the file again and takes over what can hold at once. Logs what came of it. Blocks.
    ///
    /// # Errors
    /// Every mistake in the file; nothing changed.
    pub fn reload(&self) -> Result<Reloaded, ConfigError> {
        let read = Config::load(&self.now().source).inspect_err(|error| {
            tracing::error!(%error, "configuration stays as it was");
        })?;
        let mut reloaded = Reloaded::default();
        self.in_force.send_if_modified(|now| {
            let (next, changed) = take(now, &read);
            reloaded = changed;
            let differs = !reloaded.applied.is_empty();
            if differs {
                *now = Arc::new(next);
            }
            differs
        });
        // Also when the file says what it said: a level set for a while ends.
        self.log.configure(read.log_level);
        tracing::info!(applied = ?reloaded.applied, level = read.log_level.name(), "configuration read again");
        if !reloaded.after_restart.is_empty() {
            tracing::warn!(keys = ?reloaded.after_restart, "these settings changed and hold after a restart");
        }
        Ok(reloaded)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::telemetry::Level;

    const SAMPLE: &str = include_str!("../../deploy/config/sample.toml");

    /// Keys of the sample with their section, whether they are commented out or not.
    fn sample_keys() -> BTreeSet<String> {
        let (mut section, mut keys) = (String::new(), BTreeSet::new());
        let is_key = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        for line in SAMPLE.lines() {
            let setting = line.strip_prefix('#').unwrap_or(line);
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = format!("{name}.");
            } else if let Some((key, _)) = setting.split_once(" = ").filter(|(key, _)| is_key(key)) {
                keys.insert(format!("{section}{key}"));
            }
        }
        keys
    }

    #[test]
    fn every_key_of_the_sample_is_declared_and_the_other_way_round() {
        let declared: BTreeSet<String> = KEYS.iter().map(|(key, _)| (*key).to_owned()).collect();
        assert_eq!(sample_keys(), declared);
        assert_eq!(declared.len(), KEYS.len());
    }

    #[test]
    fn the_documentation_says_which_key_holds_when() {
        let operations = include_str!("../../docs/operations.md");
        for (key, holds) in KEYS {
            let when = match holds {
                Holds::AtOnce => "at once",
                Holds::AfterRestart => "after a restart",
            };
            let row = operations.lines().find(|line| line.starts_with(&format!("| `{key}` | ")));
            assert!(row.is_some_and(|row| row.contains(&format!("| {when} |"))), "{key} {when}");
        }
    }

    #[test]
    fn each_key_moves_alone_and_only_those_that_may() {
        let parse = |text: &str| Config::parse(Path::new("/c.toml"), text).unwrap();
        let base = "data_dir = \"/a\"\nname = \"a\"\n";
        for (key, text) in [
            ("run_dir", "run_dir = \"/r\""),
            ("listen", "listen = [\"127.0.0.1:1\"]"),
            ("advertise", "advertise = [\"a:1\"]"),
            ("dial_only", "dial_only = [\"a:1\"]"),
            ("local.group", "[local]\ngroup = 7"),
            ("local.allow_uids", "[local]\nallow_uids = [7]"),
            ("log.level", "[log]\nlevel = \"trace\""),
            ("limits.connections", "[limits]\nconnections = 7"),
            ("limits.outbox_operations", "[limits]\noutbox_operations = 7"),
            ("limits.outbox_bytes", "[limits]\noutbox_bytes = 700000"),
            ("limits.retained_operations", "[limits]\nretained_operations = 7"),
            ("limits.retained_bytes", "[limits]\nretained_bytes = 700000"),
            ("sync.heartbeat_seconds", "[sync]\nheartbeat_seconds = 7"),
            ("sync.reconnect_max_seconds", "[sync]\nreconnect_max_seconds = 7"),
            ("history.days", "[history]\ndays = 7"),
            ("communication_log.entries", "[communication_log]\nentries = 700"),
            ("communication_log.bytes", "[communication_log]\nbytes = 700000"),
            ("metrics.listen", "[metrics]\nlisten = \"127.0.0.1:7\""),
            ("discovery.enabled", "[discovery]\nenabled = false"),
            ("discovery.interfaces", "[discovery]\ninterfaces = [\"eth7\"]"),
            ("backup.helpers", "[backup]\nhelpers = \"/h\""),
            ("backup.smb", "[backup]\nsmb = \"native\""),
            ("backup.hosts", "[backup]\nhosts = [\"nas\"]"),
            ("backup.this_machine", "[backup]\nthis_machine = true"),
        ] {
            let (now, read) = (parse(base), parse(&format!("{base}{text}")));
            let (next, changed) = take(&now, &read);
            let (_, holds) = KEYS.iter().find(|(name, _)| *name == key).unwrap();
            match holds {
                Holds::AtOnce => {
                    assert_eq!((&next, changed.applied.as_slice()), (&read, &[key][..]));
                    assert!(changed.after_restart.is_empty());
                }
                Holds::AfterRestart => {
                    assert_eq!((&next, changed.after_restart.as_slice()), (&now, &[key][..]));
                    assert!(changed.applied.is_empty());
                }
            }
        }
    }

    #[test]
    fn a_file_with_a_mistake_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.toml");
        std::fs::write(&path, "data_dir = \"/a\"\n").unwrap();
        let log = LogLevel::new(Level::Info, |_| {});
        let settings = Settings::new(Arc::new(Config::load(&path).unwrap()), log.clone());
        let before = settings.now();
        std::fs::write(&path, "data_dir = \"/a\"\n[log]\nlevel = \"trace\"\n[history]\ndays = -1\n").unwrap();
        let refused = settings.reload().unwrap_err().to_string();
        assert!(refused.contains("history.days"), "{refused}");
        assert_eq!((settings.now(), log.current()), (before, Level::Info));
        std::fs::write(&path, "data_dir = \"/b\"\n[log]\nlevel = \"trace\"\n").unwrap();
        let reloaded = settings.reload().unwrap();
        assert_eq!((reloaded.applied, reloaded.after_restart), (vec!["log.level"], vec!["data_dir"]));
        assert_eq!((settings.now().data_dir.as_path(), log.current()), (Path::new("/a"), Level::Trace));
    }
}
