//! Archives on an SMB share, through the helper program: one process for each connection.
//!
//! A call waits no longer than its deadline, and no longer than until the job is told to end; then the helper is
//! killed, whatever it does. The server notices when the connection closes.

use std::fs::{self, DirBuilder};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pipe::fcntl_setpipe_size;
use zeroize::Zeroize;

use super::cancel::timespec;
use super::{ArchiveStore, CHUNK, Cancel, Connection, Entry, Error, Kind, Name, Protection, Result};
use crate::smb::Target;
use crate::smb::protocol::{Answer, Request, receive, send};

/// How often the server's patience a call may take: the library tries and waits more than once.
const CALL: u32 = 4;

/// A folder of a share, reached by a helper program.
#[derive(Debug, Clone)]
pub struct SmbStore {
    helper: PathBuf,
    scratch: PathBuf,
    target: Target,
}

impl SmbStore {
    /// A share behind the program `helper`; `scratch` is a folder of this process alone, in which each helper
    /// gets one of its own while it runs.
    ///
    /// # Errors
    /// As [`Target::check`].
    pub fn new(helper: &Path, scratch: &Path, target: Target) -> Result<Self> {
        target.check()?;
        Ok(Self { helper: helper.to_owned(), scratch: scratch.to_owned(), target })
    }
}

impl ArchiveStore for SmbStore {
    fn connect(&self, cancel: &Cancel) -> Result<Box<dyn Connection>> {
        cancel.check("connect")?;
        let helper = Helper::start(&self.helper, &self.scratch, cancel.clone(), self.target.patience * CALL)?;
        let mut share = Share { helper, protection: Protection::Local };
        let begin = Request::Begin(Box::new(self.target.clone()));
        share.protection = share.ask("connect", &begin, |answer| match answer {
            Answer::Begun(protection) => Some(protection),
            _ => None,
        })?;
        Ok(Box::new(share))
    }
}

/// The helper process and its folder; both go when it is dropped.
struct Helper {
    child: Child,
    requests: ChildStdin,
    answers: ChildStdout,
    home: PathBuf,
    cancel: Cancel,
    patience: Duration,
}

impl Helper {
    fn start(program: &Path, scratch: &Path, cancel: Cancel, patience: Duration) -> Result<Self> {
        let failed = |error: &io::Error| {
            let full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
            let kind = if full { Kind::NoRoomHere } else { Kind::Helper };
            Error { number: error.raw_os_error(), ..Error::new("start helper", kind) }
        };
        let home =
            scratch.join(format!("smb-{}-{:016x}", std::process::id(), RandomState::new().hash_one(program)));
        DirBuilder::new().mode(0o700).create(&home).map_err(|error| failed(&error))?;
        let started = Command::new(program)
            .env_clear()
            .env("HOME", &home)
            .current_dir(&home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let parts = started.and_then(|mut child| match (child.stdin.take(), child.stdout.take()) {
            (Some(requests), Some(answers)) => Ok((child, requests, answers)),
            _ => Err(ErrorKind::BrokenPipe.into()),
        });
        let (child, requests, answers) = parts.map_err(|error| {
            // Empty, and of no use to anybody.
            let _removed = fs::remove_dir(&home);
            failed(&error)
        })?;
        let helper = Self { child, requests, answers, home, cancel, patience };
        prepare(&helper.requests).and_then(|()| prepare(&helper.answers)).map_err(|error| failed(&error))?;
        Ok(helper)
    }

    /// Sends a request and waits for its answer.
    fn exchange(&mut self, request: &Request<'_>) -> io::Result<Vec<u8>> {
        let mut body = request.encode();
        let end = Instant::now() + self.patience;
        let sent = send(&mut Watched { pipe: &self.requests, cancel: &self.cancel, end }, &body);
        if matches!(request, Request::Begin(_)) {
            body.zeroize();
        }
        sent?;
        receive(&mut Watched { pipe: &self.answers, cancel: &self.cancel, end })
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended by itself. A killed process does not keep anybody waiting.
        let _ended = (self.child.kill(), self.child.wait());
        // What is left there holds no secret.
        let _removed = fs::remove_dir_all(&self.home);
    }
}

/// A pipe that is waited for until a moment, or until the job is told to end.
struct Watched<'a, P> {
    pipe: &'a P,
    cancel: &'a Cancel,
    end: Instant,
}

impl<P: AsFd> Watched<'_, P> {
    fn wait(&self, event: PollFlags) -> io::Result<()> {
        let mut fds = [PollFd::new(self.pipe, event), PollFd::new(self.cancel, PollFlags::IN)];
        let left = self.end.saturating_duration_since(Instant::now());
        match poll(&mut fds, Some(&timespec(left))) {
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) if !fds[1].revents().is_empty() => Err(ErrorKind::ConnectionAborted.into()),
            Ok(0) => Err(ErrorKind::TimedOut.into()),
            Ok(_) => Ok(()),
        }
    }
}

impl<P: AsFd> Read for Watched<'_, P> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.wait(PollFlags::IN)?;
            match rustix::io::read(self.pipe, &mut *buffer) {
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                done => return Ok(done?),
            }
        }
    }
}

impl<P: AsFd> Write for Watched<'_, P> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.wait(PollFlags::OUT)?;
            match rustix::io::write(self.pipe, bytes) {
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                done => return Ok(done?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn prepare(pipe: impl AsFd) -> io::Result<()> {
    // A chunk goes in one piece then, and neither process wakes the other for parts of it. It works without.
    let _larger = fcntl_setpipe_size(&pipe, CHUNK);
    let flags = fcntl_getfl(&pipe)?;
    Ok(fcntl_setfl(&pipe, flags | OFlags::NONBLOCK)?)
}

struct Share {
    helper: Helper,
    protection: Protection,
}

impl Share {
    /// Asks, and takes the answer that belongs to it.
    fn ask<T>(
        &mut self,
        doing: &'static str,
        request: &Request<'_>,
        take: impl FnOnce(Answer<'_>) -> Option<T>,
    ) -> Result<T> {
        self.helper.cancel.check(doing)?;
        let body = self.helper.exchange(request).map_err(|error| {
            let kind = match error.kind() {
                ErrorKind::ConnectionAborted => Kind::Cancelled,
                ErrorKind::TimedOut => Kind::Timeout,
                ErrorKind::InvalidData => Kind::Helper,
                // The helper ended, by whatever: a new one may do better.
                _ => Kind::Lost,
            };
            Error::new(doing, kind)
        })?;
        match Answer::decode(&body) {
            Ok(Answer::Failed { kind, number }) => Err(Error { kind, doing, number }),
            Ok(answer) => take(answer).ok_or(Error::new(doing, Kind::Helper)),
            Err(_) => Err(Error::new(doing, Kind::Helper)),
        }
    }

    fn do_it(&mut self, doing: &'static str, request: &Request<'_>) -> Result<()> {
        self.ask(doing, request, |answer| matches!(answer, Answer::Done).then_some(()))
    }
}

impl Connection for Share {
    fn protection(&self) -> Protection {
        self.protection
    }

    fn room(&mut self) -> Result<u64> {
        self.ask("ask for room", &Request::Room, |answer| match answer {
            Answer::Room(bytes) => Some(bytes),
            _ => None,
        })
    }

    fn list(&mut self) -> Result<Vec<Entry>> {
        self.ask("list folder", &Request::List, |answer| match answer {
            Answer::Entries(entries) => Some(entries),
            _ => None,
        })
    }

    fn size(&mut self, name: &Name) -> Result<Option<u64>> {
        self.ask("look at file", &Request::Size(name.clone()), |answer| match answer {
            Answer::Size(size) => Some(size),
            _ => None,
        })
    }

    fn create(&mut self, name: &Name) -> Result<()> {
        self.do_it("create file", &Request::Create(name.clone()))
    }

    fn resume(&mut self, name: &Name, offset: u64) -> Result<()> {
        self.do_it("open file to write on", &Request::Resume(name.clone(), offset))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        bytes.chunks(CHUNK).try_for_each(|chunk| self.do_it("write file", &Request::Write(chunk)))
    }

    fn finish(&mut self) -> Result<()> {
        self.do_it("finish file", &Request::Finish)
    }

    fn open(&mut self, name: &Name) -> Result<()> {
        self.do_it("open file", &Request::Open(name.clone()))
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        self.ask("read file", &Request::Read, |answer| match answer {
            Answer::Bytes(bytes) => Some(bytes.to_vec()),
            _ => None,
        })
    }

    fn rename(&mut self, from: &Name, to: &Name) -> Result<()> {
        self.do_it("rename file", &Request::Rename(from.clone(), to.clone()))
    }

    fn remove(&mut self, name: &Name) -> Result<()> {
        self.do_it("remove file", &Request::Remove(name.clone()))
    }
}
