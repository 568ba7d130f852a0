//! The communication log: what happened between this device and others, for operators.
//!
//! [`ledger`] folds and bounds, [`mod@file`] keeps it over restarts, [`code`] lists what can be said.
//! Recording costs a short lock and no I/O: a task writes in groups, so the last second may be lost
//! with the process, and the last half minute with the power. Nothing here names a person.

pub mod code;
pub mod file;
pub mod ledger;
pub mod tally;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

pub use self::code::{Code, Level};
pub use self::file::LogFile;
pub use self::ledger::{Bounds, Entry, Event, Filter, Page};
pub use self::tally::Tally;

use self::ledger::Ledger;
use crate::clock::unix_millis;

/// Entries wait so long to be written together.
const LINGER: Duration = Duration::from_secs(1);
/// Entries a slow follower may be behind; then it misses some, which the list still has.
const FOLLOW: usize = 256;

/// The log; cheap to clone.
#[derive(Debug, Clone)]
pub struct CommunicationLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ledger: Mutex<Ledger>,
    due: Notify,
    recorded: broadcast::Sender<Entry>,
}

impl CommunicationLog {
    /// A log that holds `entries`, oldest first.
    #[must_use]
    pub fn new(bounds: Bounds, entries: Vec<Entry>) -> Self {
        let ledger = Mutex::new(Ledger::new(bounds, entries));
        let shared = Shared { ledger, due: Notify::new(), recorded: broadcast::Sender::new(FOLLOW) };
        Self { shared: Arc::new(shared) }
    }

    /// The log kept in `directory`, and its file. One that cannot be read is begun anew: the log must
    /// not keep a device from working.
    #[must_use]
    pub fn open(directory: &Path, bounds: Bounds) -> (Self, LogFile) {
        let (file, entries) = LogFile::open(directory).unwrap_or_else(|error| {
            tracing::warn!(%error, "read the communication log");
            (LogFile::at(directory), Vec::new())
        });
        (Self::new(bounds, entries), file)
    }

    /// Notes that something happened.
    pub fn record(&self, event: Event) {
        let entry = self.ledger().record(event, unix_millis());
        // Nobody may be following.
        drop(self.shared.recorded.send(entry));
        self.shared.due.notify_one();
    }

    /// What passes the filter, newest first.
    #[must_use]
    pub fn page(&self, filter: &Filter, before: Option<u64>, limit: usize) -> Page {
        self.ledger().page(filter, before, limit)
    }

    /// Entries as they are recorded or folded into.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Entry> {
        self.shared.recorded.subscribe()
    }

    /// How many entries there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.ledger().count()
    }

    /// Takes other bounds; what is too much goes at once, oldest first.
    pub fn bound(&self, bounds: Bounds) {
        self.ledger().bound(bounds);
        self.shared.due.notify_one();
    }

    /// Writes what is recorded, in groups, until `stop`; then the rest.
    ///
    /// # Cancel safety
    /// What was not written yet is lost with the process.
    pub async fn keep(self, mut file: LogFile, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.shared.due.notified() => {}
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(LINGER) => {}
            }
            file = match self.write(file, Ledger::due).await {
                Some(file) => file,
                None => return,
            };
        }
        drop(self.write(file, Ledger::rest).await);
    }

    /// None when the thread that wrote did not come back: the process ends.
    async fn write(&self, mut file: LogFile, what: fn(&mut Ledger) -> Vec<Entry>) -> Option<LogFile> {
        let log = self.clone();
        let written = tokio::task::spawn_blocking(move || {
            let (entries, limit) = {
                let mut ledger = log.ledger();
                (what(&mut ledger), ledger.bounds().bytes)
            };
            let appended = file.append(&entries).inspect_err(|_| log.ledger().not_written(&entries));
            // Lines that others replaced, and entries that went: at most as much again as is allowed.
            let kept = appended.and_then(|()| {
                if file.bytes() <= limit.saturating_mul(2) {
                    return Ok(());
                }
                let all = log.ledger().all();
                file.replace(&all)
            });
            if let Err(error) = kept {
                tracing::warn!(%error, "write the communication log");
            }
            file
        });
        written.await.inspect_err(|error| tracing::warn!(%error, "write the communication log")).ok()
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for CommunicationLog {
    fn default() -> Self {
        Self::new(Bounds::default(), Vec::new())
    }
}
