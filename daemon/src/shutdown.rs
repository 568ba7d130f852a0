//! Signals as a stream, and the deadlines of a stop.
//!
//! What is stopped in which order is decided in `app`.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A part that was told to stop has this long to finish its current commit, batch or chunk.
pub const DRAIN: Duration = Duration::from_secs(5);
/// After this long the process ends with whatever still runs; the unit's `TimeoutStopSec` is twice
/// as long.
pub const ABORT: Duration = Duration::from_secs(10);

/// What the system asks of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Stop (SIGTERM, SIGINT).
    Stop,
    /// Read the configuration again (SIGHUP).
    Reload,
}

/// The signals the process answers to.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes the signals over from the system's defaults; needs a running runtime.
    ///
    /// # Errors
    /// The system refused to register a handler.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next request.
    ///
    /// # Cancel safety
    /// No signal is lost when this is dropped.
    pub async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.terminate.recv() => Request::Stop,
            _ = self.interrupt.recv() => Request::Stop,
            _ = self.hangup.recv() => Request::Reload,
        }
    }
}

/// Signals reach every test of the process, so those that send some take turns.
#[cfg(test)]
pub(crate) static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn a_hangup_asks_for_a_reload_and_a_terminate_for_a_stop() {
        let _turn = ONE_AT_A_TIME.lock().await;
        let mut signals = Signals::install().unwrap();
        kill_process(getpid(), Signal::HUP).unwrap();
        assert_eq!(signals.next().await, Request::Reload);
        kill_process(getpid(), Signal::TERM).unwrap();
        assert_eq!(signals.next().await, Request::Stop);
    }
}
