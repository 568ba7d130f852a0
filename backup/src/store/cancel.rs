//! Telling a job to end, from any thread, also while it waits for a server.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::{Error, Kind, Result};

/// A switch that stays on once it was thrown; clones are the same switch.
#[derive(Debug, Clone)]
pub struct Cancel {
    thrown: Arc<OwnedFd>,
}

impl Cancel {
    /// A switch that is off.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn new() -> Result<Self> {
        let thrown = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| Error::local("prepare for being told to end", &error.into()))?;
        Ok(Self { thrown: Arc::new(thrown) })
    }

    /// Tells the job to end.
    pub fn cancel(&self) {
        // Refused only when the counter is full, that is, long since thrown.
        let _thrown = rustix::io::write(&*self.thrown, &1_u64.to_ne_bytes());
    }

    /// Whether the job was told to end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.sleep(Duration::ZERO).is_err()
    }

    /// Goes on unless the job was told to end.
    ///
    /// # Errors
    /// [`Kind::Cancelled`].
    pub fn check(&self, doing: &'static str) -> Result<()> {
        if self.is_cancelled() { Err(Error::new(doing, Kind::Cancelled)) } else { Ok(()) }
    }

    /// Waits so long, or until the job is told to end.
    ///
    /// # Errors
    /// [`Kind::Cancelled`].
    pub fn sleep(&self, time: Duration) -> Result<()> {
        let mut fds = [PollFd::new(&*self.thrown, PollFlags::IN)];
        match poll(&mut fds, Some(&timespec(time))) {
            Ok(0) | Err(_) => Ok(()),
            Ok(_) => Err(Error::new("wait", Kind::Cancelled)),
        }
    }
}

impl AsFd for Cancel {
    /// Becomes readable when the switch is thrown.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.thrown.as_fd()
    }
}

pub(super) fn timespec(time: Duration) -> Timespec {
    // Longer than any deadline here can be; the system takes no more seconds than this anyway.
    Timespec::try_from(time).unwrap_or(Timespec { tv_sec: i64::from(i32::MAX), tv_nsec: 0 })
}
