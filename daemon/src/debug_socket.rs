//! The debug socket for service engineers: JSON lines on a Unix socket that exists only while an
//! administrator has unlocked it.
//!
//! One request is one line of text, `command arguments`; the answer is one JSON object per line, the
//! last with `"end":true`; an answer with `"error"` is the last too. The commands are a closed list
//! that reads and changes nothing but the log level. What they tell comes from [`Inspect`],
//! implemented where the parts are assembled.

mod command;
mod session;

pub use command::Command;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::session::Session;
use crate::tasks::Tasks;
use crate::telemetry::{LogLevel, Stats};
use crate::unix_socket::{self, Access, SocketError, SocketFile};

/// The socket's name in the run directory.
pub const SOCKET_NAME: &str = "debug.sock";
/// The longest time one unlock lasts, in minutes.
pub const MAX_MINUTES: u32 = 240;
/// Sessions at a time; a fifth is told so and closed.
const MAX_SESSIONS: usize = 4;
/// Buttons that open and close the socket; a fifth waits.
const ORDERS: usize = 4;
/// Binding is a matter of milliseconds, a second if the old socket has to be probed.
const ORDER_LIMIT: Duration = Duration::from_secs(5);
/// Sessions end at their next await; they hold nothing that is worth waiting for.
const SESSION_DRAIN: Duration = Duration::from_secs(1);
/// Pause after an accept that did not work, so that a lack of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The objects of an answer, or why there is none.
pub type Answer = Result<Vec<Value>, Unanswered>;

/// Why a question has no answer; free of personal data and secrets.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Unanswered(pub String);

/// What can be asked. Answers are bounded, free of personal data and secrets, and come within
/// seconds also while everything else is stuck.
#[tonic::async_trait]
pub trait Inspect: Send + Sync + 'static {
    /// Role, group, epoch, connection: what this device is doing.
    async fn state(&self) -> Answer;
    /// Where every copy and cursor stands.
    async fn positions(&self) -> Answer;
    /// Who reigned, who claims to, and what a change of reign has left here.
    async fn reigns(&self) -> Answer;
    /// Counters since the start.
    async fn stats(&self) -> Answer;
    /// The faults that stand.
    async fn faults(&self) -> Answer;
    /// Content hashes of the mirror, of what readers see, and of the master.
    async fn hashes(&self) -> Answer;
    /// What is known about one item, named as an engineer types it.
    async fn explain(&self, item: &str) -> Answer;
}

/// Why the socket does not open.
#[derive(Debug, Error)]
pub enum DebugError {
    /// Too short or too long.
    #[error("{0} minutes are not within 1 and {MAX_MINUTES}")]
    Minutes(u32),
    /// The socket could not be bound.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The daemon is stopping or does not answer.
    #[error("mfpsyncd is stopping")]
    Stopped,
}

/// What the debug socket works with.
pub struct DebugSocket {
    /// Where the socket appears.
    pub path: PathBuf,
    /// Who may connect.
    pub access: Access,
    /// Who answers.
    pub inspect: Arc<dyn Inspect>,
    /// The level that `log-filter` changes.
    pub log: LogLevel,
    /// What is counted.
    pub stats: Arc<Stats>,
}

/// Opens and closes the debug socket; cheap to clone.
#[derive(Debug, Clone)]
pub struct DebugLock {
    orders: mpsc::Sender<Order>,
    until: watch::Receiver<Option<Instant>>,
}

#[derive(Debug)]
enum Order {
    Unlock { minutes: u32, reply: oneshot::Sender<Result<(), DebugError>> },
    Lock { reply: oneshot::Sender<()> },
}

impl DebugLock {
    /// Makes the socket exist for so many minutes from now, also if it exists already.
    ///
    /// # Errors
    /// [`DebugError`]; a socket that exists already then stays as it was.
    ///
    /// # Cancel safety
    /// The socket may be opened all the same.
    pub async fn unlock(&self, minutes: u32) -> Result<(), DebugError> {
        if !(1..=MAX_MINUTES).contains(&minutes) {
            return Err(DebugError::Minutes(minutes));
        }
        let (reply, answer) = oneshot::channel();
        self.order(Order::Unlock { minutes, reply }, answer).await?
    }

    /// Removes the socket and ends its sessions; returns when both are done.
    ///
    /// # Errors
    /// [`DebugError::Stopped`]; then it is gone as well or going.
    ///
    /// # Cancel safety
    /// The socket is closed all the same.
    pub async fn lock(&self) -> Result<(), DebugError> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Lock { reply }, answer).await
    }

    /// Minutes until the socket closes by itself, begun ones counted; none while it is closed.
    #[must_use]
    pub fn minutes_left(&self) -> Option<u32> {
        let left = (*self.until.borrow())?.saturating_duration_since(Instant::now());
        u32::try_from(left.as_secs().div_ceil(60)).ok()
    }

    async fn order<T>(&self, order: Order, answer: oneshot::Receiver<T>) -> Result<T, DebugError> {
        let ordered = async {
            self.orders.send(order).await.map_err(|_| DebugError::Stopped)?;
            answer.await.map_err(|_| DebugError::Stopped)
        };
        timeout(ORDER_LIMIT, ordered).await.unwrap_or(Err(DebugError::Stopped))
    }
}

/// The socket while it exists.
struct Open {
    // Dropped in this order: no file without a listener behind it.
    _file: SocketFile,
    listener: UnixListener,
    until: Instant,
    sessions: Tasks,
    levels: Tasks,
}

impl DebugSocket {
    /// Starts the task that owns the socket, locked.
    #[must_use]
    pub fn spawn(self, tasks: &Tasks) -> DebugLock {
        let (to_orders, orders) = mpsc::channel(ORDERS);
        let until = watch::Sender::new(None);
        let lock = DebugLock { orders: to_orders, until: until.subscribe() };
        tasks.spawn("debug-socket", self.run(orders, until, tasks.clone()));
        lock
    }

    async fn run(
        self,
        mut orders: mpsc::Receiver<Order>,
        until: watch::Sender<Option<Instant>>,
        tasks: Tasks,
    ) {
        let mut open: Option<Open> = None;
        loop {
            tokio::select! {
                () = tasks.token().cancelled() => break,
                Some(order) = orders.recv() => match order {
                    Order::Unlock { minutes, reply } => {
                        let result = self.unlock(&mut open, minutes, &tasks).await;
                        until.send_replace(open.as_ref().map(|open| open.until));
                        // Whoever asked has gone; the socket closes by itself.
                        let _ = reply.send(result);
                    }
                    Order::Lock { reply } => {
                        close(open.take(), &until).await;
                        let _ = reply.send(());
                    }
                },
                stream = accept(open.as_ref()) => {
                    if let Some(open) = &open {
                        self.admit(stream, open);
                    }
                }
                () = expiry(open.as_ref()) => close(open.take(), &until).await,
            }
        }
        close(open.take(), &until).await;
    }

    async fn unlock(&self, open: &mut Option<Open>, minutes: u32, tasks: &Tasks) -> Result<(), DebugError> {
        let until = Instant::now() + Duration::from_secs(u64::from(minutes) * 60);
        tracing::info!(minutes, "debug socket unlocked");
        if let Some(open) = open {
            open.until = until;
            return Ok(());
        }
        let (listener, file) = unix_socket::bind(&self.path, &self.access).await?;
        let under = |parent: &Tasks| Tasks::under(parent.token());
        *open = Some(Open { _file: file, listener, until, sessions: under(tasks), levels: under(tasks) });
        Ok(())
    }

    fn admit(&self, stream: UnixStream, open: &Open) {
        if !self.access.policy.admits(&stream) {
            tracing::warn!("debug session refused, peer not allowed");
            self.stats.local_peers_refused.increment();
            return;
        }
        if open.sessions.count() >= MAX_SESSIONS {
            // Fits the buffer of a fresh socket, or is lost to a peer that never read anyway.
            let _ = stream.try_write(session::error_line("four sessions are open").as_bytes());
            return;
        }
        self.stats.debug_sessions.increment();
        let session = Session {
            inspect: Arc::clone(&self.inspect),
            log: self.log.clone(),
            stats: Arc::clone(&self.stats),
            levels: open.levels.clone(),
            stop: open.sessions.token().clone(),
        };
        open.sessions.spawn("debug-session", session.run(stream));
    }
}

async fn close(open: Option<Open>, until: &watch::Sender<Option<Instant>>) {
    let Some(Open { _file, listener, sessions, levels, .. }) = open else { return };
    drop((_file, listener));
    sessions.stop(SESSION_DRAIN).await;
    levels.stop(SESSION_DRAIN).await;
    until.send_replace(None);
    tracing::info!("debug socket locked");
}

/// # Cancel safety
/// No connection is lost.
async fn accept(open: Option<&Open>) -> UnixStream {
    let Some(open) = open else { return std::future::pending().await };
    loop {
        match open.listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "debug session not accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn expiry(open: Option<&Open>) {
    match open {
        Some(open) => sleep_until(open.until).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "debug_socket/tests.rs"]
mod tests;
