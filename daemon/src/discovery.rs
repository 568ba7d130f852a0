//! Finding servers on the local network by DNS-SD: hints where to look, and nothing that is trusted.
//!
//! `announcement` and `candidates` decide and are pure; `network` is the only door to `mdns-sd`;
//! `announcer` speaks for a running server; `addresses` knows where this device is. Nothing runs
//! while nobody needs it: a server announces, and a device listens only for a bounded time when it is
//! asked to, by a person or by a client that has lost its server.

mod addresses;
mod announcement;
pub(crate) mod announcer;
mod candidates;
mod network;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mfpsync_storage::model::GroupId;
use thiserror::Error;
use tokio::time::Instant;

pub use addresses::own_addresses;
pub use announcement::Announcement;
pub use candidates::{Candidate, Candidates};

use self::network::Heard;

/// The longest a device listens at once.
pub const SCAN_MAX: Duration = Duration::from_secs(30);
/// Answers taken in one scan: more than the table has room for many times over, and an end to what a
/// flood makes the responder remember.
const ANSWERS: usize = 4_000;

/// Whether and where servers are announced and looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Off: nothing is announced, and nothing is looked for.
    pub enabled: bool,
    /// Network interfaces by name; empty means all but loopback.
    pub interfaces: Vec<String>,
}

/// Why nothing was found out.
#[derive(Debug, Error)]
pub enum DiscoveryError {
    /// The configuration says so.
    #[error("discovery is switched off in this device's configuration ([discovery] enabled)")]
    Off,
    /// The system gives no sockets for it.
    #[error("multicast DNS: {0}")]
    Network(#[from] mdns_sd::Error),
}

/// What this device knows of servers on its network.
#[derive(Debug)]
pub struct Discovery {
    settings: Settings,
    began: Instant,
    candidates: Mutex<Candidates>,
    /// One scan at a time.
    scanning: tokio::sync::Mutex<()>,
}

impl Discovery {
    /// Nothing heard yet. Whom to keep of a crowd is drawn from `seed`.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            began: Instant::now(),
            candidates: Mutex::new(Candidates::new(seed)),
            scanning: tokio::sync::Mutex::default(),
        }
    }

    /// Whether the configuration allows it.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.settings.enabled
    }

    /// Asks the network and listens for `time`, at most [`SCAN_MAX`].
    ///
    /// # Errors
    /// See [`DiscoveryError`].
    ///
    /// # Cancel safety
    /// What was heard until then stays known.
    pub async fn scan(&self, time: Duration) -> Result<(), DiscoveryError> {
        if !self.settings.enabled {
            return Err(DiscoveryError::Off);
        }
        let _alone = self.scanning.lock().await;
        let scan = network::Scan::start(&self.settings)?;
        let end = Instant::now() + time.min(SCAN_MAX);
        for _ in 0..ANSWERS {
            match tokio::time::timeout_at(end, scan.next()).await {
                Ok(Some(heard)) => self.take(heard),
                Ok(None) | Err(_) => break,
            }
        }
        Ok(())
    }

    fn take(&self, heard: Heard) {
        let now = self.began.elapsed();
        self.with(|candidates| match heard {
            Heard::Server { instance, announcement, addresses } => {
                candidates.hear(now, &instance, announcement, addresses);
            }
            Heard::Goodbye { instance } => candidates.forget(&instance),
        });
    }

    /// The servers heard of lately.
    #[must_use]
    pub fn candidates(&self) -> Vec<Candidate> {
        let now = self.began.elapsed();
        self.with(|candidates| candidates.list(now))
    }

    /// Where servers may be that claim to be of `group`.
    #[must_use]
    pub fn of_group(&self, group: GroupId) -> Vec<SocketAddr> {
        let now = self.began.elapsed();
        self.with(|candidates| candidates.of_group(now, group))
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut Candidates) -> T) -> T {
        // The table is consistent after every call, so a panic elsewhere does not spoil it.
        use_it(&mut self.candidates.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
