//! The log: plain lines on standard error for people and journald, with a level that can be changed
//! while running; and the counters the debug socket shows.
//!
//! Only our own crates follow the level; the libraries below stay at warnings, because their details
//! may hold what must not be logged.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::tasks::Tasks;

/// Prefix of our crates' targets.
const OUR_TARGETS: &str = "mfpsync";

/// How much of our own is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// What needs a person.
    Error,
    /// And what was unexpected but went on.
    Warn,
    /// And changes of state.
    Info,
    /// And decisions.
    Debug,
    /// And everything.
    Trace,
}

impl Level {
    /// The levels' names, from the quietest.
    pub const NAMES: [&'static str; 5] = ["error", "warn", "info", "debug", "trace"];

    /// Parses a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace]
            .into_iter()
            .find(|level| level.name() == name)
    }

    /// The level's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    fn targets(self) -> Targets {
        let ours = match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        };
        Targets::new().with_default(LevelFilter::WARN.min(ours)).with_target(OUR_TARGETS, ours)
    }
}

/// The log cannot be set up.
#[derive(Debug, Error)]
#[error("log already set up: {0}")]
pub struct TelemetryError(#[from] tracing_subscriber::util::TryInitError);

/// Sends the log of this process to standard error.
///
/// # Errors
/// Another subscriber is in place.
pub fn init(level: Level) -> Result<LogLevel, TelemetryError> {
    let (filter, handle) = reload::Layer::<Targets, Registry>::new(level.targets());
    // journald sets this, stamps lines itself and reads a priority from their beginning.
    let journald = std::env::var_os("JOURNAL_STREAM").is_some();
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).event_format(Lines { journald });
    tracing_subscriber::registry().with(filter).with(lines).try_init()?;
    Ok(LogLevel::new(level, move |level| {
        if let Err(error) = handle.reload(level.targets()) {
            tracing::error!(%error, "log level stays as it was");
        }
    }))
}

/// The log's level, changeable while running; cheap to clone.
#[derive(Clone)]
pub struct LogLevel {
    state: Arc<Mutex<LevelState>>,
    apply: Arc<dyn Fn(Level) + Send + Sync>,
}

#[derive(Debug)]
struct LevelState {
    configured: Level,
    current: Level,
    /// Counts changes, so that a revert that is overtaken does nothing.
    change: u64,
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLevel").field("state", &self.state).finish_non_exhaustive()
    }
}

impl LogLevel {
    /// A level whose changes go to `apply`.
    pub fn new(configured: Level, apply: impl Fn(Level) + Send + Sync + 'static) -> Self {
        let state = LevelState { configured, current: configured, change: 0 };
        Self { state: Arc::new(Mutex::new(state)), apply: Arc::new(apply) }
    }

    /// The level in force.
    #[must_use]
    pub fn current(&self) -> Level {
        self.change(|state| state.current)
    }

    /// Sets the level of the configuration, and ends a temporary one.
    pub fn configure(&self, level: Level) {
        self.change(|state| {
            (state.configured, state.current) = (level, level);
            state.change += 1;
        });
        (self.apply)(level);
    }

    /// Sets another level that goes back to the configured one after `duration` or when `stop` is
    /// cancelled, whichever comes first.
    pub fn set_for(&self, level: Level, duration: Duration, stop: CancellationToken, tasks: &Tasks) {
        let mine = self.change(|state| {
            state.current = level;
            state.change += 1;
            state.change
        });
        (self.apply)(level);
        let this = self.clone();
        tasks.spawn("log-level", async move {
            tokio::select! {
                () = tokio::time::sleep(duration) => {}
                () = stop.cancelled() => {}
            }
            this.revert(mine);
        });
    }

    fn revert(&self, change: u64) {
        let back = self.change(|state| {
            (state.change == change).then(|| {
                state.current = state.configured;
                state.configured
            })
        });
        if let Some(level) = back {
            (self.apply)(level);
            tracing::info!(level = level.name(), "log level is back");
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut LevelState) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One event is one line; control characters in it are replaced, so that nothing can forge a line.
struct Lines {
    journald: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = *event.metadata().level();
        if self.journald {
            write!(writer, "<{}>", priority(level))?;
        } else {
            SystemTime.format_time(&mut writer)?;
            write!(writer, " {level:>5} ")?;
        }
        let mut line = String::new();
        write!(line, "{}: ", event.metadata().target())?;
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            write!(line, "{}", span.name())?;
            let extensions = span.extensions();
            match extensions.get::<tracing_subscriber::fmt::FormattedFields<N>>() {
                Some(fields) if !fields.is_empty() => write!(line, "{{{fields}}}: ")?,
                Some(_) | None => line.push_str(": "),
            }
        }
        context.format_fields(Writer::new(&mut line), event)?;
        writeln!(writer, "{}", line.replace(char::is_control, " "))
    }
}

/// **Source**: the priorities of `sd-daemon(3)`.
fn priority(level: tracing::Level) -> u8 {
    match level {
        tracing::Level::ERROR => 3,
        tracing::Level::WARN => 4,
        tracing::Level::INFO => 6,
        _ => 7,
    }
}

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters since the start of the process.
        #[derive(Debug, Default)]
        pub struct Stats { $($(#[$doc])* pub $name: Counter,)* }

        impl Stats {
            /// Every counter with its name.
            #[must_use]
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)*]
            }
        }
    };
}

stats! {
    /// Roles asked for that were written and adopted.
    role_switches,
    /// Parts that ended by themselves.
    part_exits,
    /// Parts that did not start.
    part_start_failures,
    /// Starts tried again after a fault.
    part_retries,
    /// Connections of devices let in, at the server.
    connections_accepted,
    /// Follow streams begun, at the server.
    follows_begun,
    /// Pushes answered, at the server.
    pushes_answered,
    /// Operations accepted whole, at the server.
    operations_accepted,
    /// Operations of which an edit lost, at the server.
    operations_superseded,
    /// Operations rejected, at the server.
    operations_rejected,
    /// Connections with the server that came to stand, at a client.
    connections_made,
    /// Attempts at one that came to nothing, at a client.
    connections_failed,
    /// Own operations accepted whole, at a client.
    own_operations_accepted,
    /// Own operations of which an edit lost, at a client.
    own_operations_superseded,
    /// Own operations rejected, at a client.
    own_operations_rejected,
    /// Batches applied, at a client.
    batches_applied,
    /// Changes in them.
    changes_applied,
    /// Parts of transactions sent to the replica, at the server.
    replica_parts_sent,
    /// Bytes of all messages to it, before TLS.
    replica_bytes_sent,
    /// Parts taken, at the replica.
    copy_parts_taken,
    /// Bytes of all messages from the server, before TLS.
    copy_bytes_taken,
    /// Transactions committed to the copy.
    copy_transactions,
    /// Metrics handed out.
    scrapes,
    /// Debug sessions opened.
    debug_sessions,
    /// Debug commands answered.
    debug_commands,
    /// Peers at a local socket turned away.
    local_peers_refused,
}

/// A count that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts `many`.
    pub fn add(&self, many: u64) {
        self.0.fetch_add(many, Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn recording() -> (LogLevel, Arc<Mutex<Vec<Level>>>) {
        let applied = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&applied);
        (LogLevel::new(Level::Info, move |level| seen.lock().unwrap().push(level)), applied)
    }

    #[tokio::test(start_paused = true)]
    async fn a_temporary_level_goes_back_by_itself() {
        let (level, applied) = recording();
        let tasks = Tasks::default();
        level.set_for(Level::Debug, Duration::from_secs(60), CancellationToken::new(), &tasks);
        level.set_for(Level::Trace, Duration::from_secs(120), CancellationToken::new(), &tasks);
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!(level.current(), Level::Trace);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(level.current(), Level::Info);
        assert_eq!(*applied.lock().unwrap(), [Level::Debug, Level::Trace, Level::Info]);
        assert_eq!(tasks.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_temporary_level_ends_with_its_token_and_with_a_new_configuration() {
        let (level, _) = recording();
        let tasks = Tasks::default();
        level.set_for(Level::Debug, Duration::from_secs(60), tasks.token().clone(), &tasks);
        assert!(tasks.stop(Duration::from_secs(1)).await.is_empty());
        assert_eq!(level.current(), Level::Info);
        level.configure(Level::Warn);
        assert_eq!(level.current(), Level::Warn);
    }

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: Level, journald: bool, log: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .event_format(Lines { journald });
        let subscriber = tracing_subscriber::registry().with(level.targets()).with(lines);
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn an_event_is_one_line_with_its_priority_whatever_it_holds() {
        let line = logged(Level::Info, true, || {
            let _span = tracing::info_span!("role", role = "server").entered();
            tracing::warn!(peer = "a\nb", "two\nlines");
        });
        assert_eq!(
            line,
            "<4>mfpsync_daemon::telemetry::tests: role{role=\"server\"}: two lines peer=\"a\\nb\"\n"
        );
    }

    #[test]
    fn the_libraries_below_stay_at_warnings() {
        let line = logged(Level::Trace, true, || {
            tracing::debug!(target: "h2::frame", "hidden");
            tracing::warn!(target: "h2::frame", "shown");
            tracing::trace!("ours");
        });
        assert_eq!(line, "<4>h2::frame: shown\n<7>mfpsync_daemon::telemetry::tests: ours\n");
    }

    #[test]
    fn counters_are_shown_by_name() {
        let stats = Stats::default();
        stats.role_switches.increment();
        assert!(stats.snapshot().contains(&("role_switches", 1)));
    }

    #[test]
    fn every_level_has_its_name() {
        for name in Level::NAMES {
            assert_eq!(Level::from_name(name).map(Level::name), Some(name));
        }
        assert_eq!(Level::from_name("loud"), None);
    }
}
