//! Running the helper: it is fed the archive, and its one answer is taken. Whatever ends this ends it too.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::error::RestoreError;
use super::protocol::{decode_answer, read_frame};
use crate::manifest::Inventory;

/// Bytes that are handed on at once.
const CHUNK: usize = 64 << 10;
/// Between two looks whether to stop, while it works.
const LOOK: Duration = Duration::from_millis(200);

/// A helper at work; killed when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Has the helper do what the request asks with the archive.
pub(super) fn run(
    program: &Path,
    request: &[u8],
    archive: impl Read,
    stop: &dyn Fn() -> bool,
) -> Result<Inventory, RestoreError> {
    let child = Command::new(program)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(RestoreError::Helper)?;
    let mut running = Running(child);
    let absent = || RestoreError::Helper(ErrorKind::BrokenPipe.into());
    let input = running.0.stdin.take().ok_or_else(absent)?;
    let answer = listen(running.0.stdout.take().ok_or_else(absent)?)?;
    feed(input, request, archive, stop)?;
    loop {
        match answer.recv_timeout(LOOK) {
            Ok(Ok(record)) => return decode_answer(&record),
            Err(RecvTimeoutError::Timeout) if !stop() => {}
            Err(RecvTimeoutError::Timeout) => return Err(RestoreError::Stopped),
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => {
                let status = running.0.wait().map_err(RestoreError::Helper)?;
                return Err(RestoreError::Died(status.signal()));
            }
        }
    }
}

/// Takes the answer on a thread of its own, which ends with the helper.
fn listen(mut output: ChildStdout) -> Result<Receiver<io::Result<Vec<u8>>>, RestoreError> {
    let (tell, told) = mpsc::sync_channel(1);
    let thread = thread::Builder::new().name("restore-answer".into());
    // Nobody hears it any more when it was stopped.
    let spawned = thread.spawn(move || drop(tell.send(read_frame(&mut output))));
    spawned.map_err(RestoreError::Helper)?;
    Ok(told)
}

/// Hands on request and archive. A helper that takes no more has its answer ready, or is dead.
fn feed(
    mut input: ChildStdin,
    request: &[u8],
    mut archive: impl Read,
    stop: &dyn Fn() -> bool,
) -> Result<(), RestoreError> {
    let mut chunk = vec![0; CHUNK];
    let mut written = input.write_all(request);
    loop {
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(RestoreError::Helper)?,
        }
        if stop() {
            return Err(RestoreError::Stopped);
        }
        written = match archive.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(read) => input.write_all(&chunk[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => return Err(RestoreError::Source(error)),
        };
    }
}
