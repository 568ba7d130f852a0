//! What the process gives up before it begins: memory dumps, standard streams, and life without its daemon.

use std::fs::{File, OpenOptions};
use std::io;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getpid, kill_process, set_dumpable_behavior, setrlimit,
};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stdin, stdout};

use crate::smb::protocol::receive;

/// Address space: far more than the library and a chunk need, and an end to what a hostile server can fill.
const MEMORY: u64 = 1 << 30;
/// One request is worked on while the next is read.
const AHEAD: usize = 1;

/// Both directions to the daemon.
pub(super) struct Pipes {
    pub(super) requests: Requests,
    pub(super) answers: File,
}

/// Requests as they come.
pub(super) struct Requests(Receiver<Vec<u8>>);

impl Requests {
    /// The next request.
    pub(super) fn next(&mut self) -> io::Result<Vec<u8>> {
        self.0.recv().map_err(|_| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Gives up what is not needed, and has the requests read.
///
/// The library writes to standard output on its own: the pipes are moved away from it.
pub(super) fn begin() -> io::Result<Pipes> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    limit(Resource::Core, 0)?;
    limit(Resource::As, MEMORY)?;
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let requests = File::from(fcntl_dupfd_cloexec(stdin(), 3)?);
    let answers = File::from(fcntl_dupfd_cloexec(stdout(), 3)?);
    let nothing = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    dup2_stderr(&nothing)?;
    Ok(Pipes { requests: read(requests)?, answers })
}

/// Reads requests on a thread of its own, so that the daemon's end is noticed also while the library waits for
/// a server. The process ends then at once, without the library's leave.
fn read(mut from: File) -> io::Result<Requests> {
    let (hand_over, requests) = sync_channel(AHEAD);
    let read = move || {
        while let Ok(body) = receive(&mut from) {
            if hand_over.send(body).is_err() {
                return;
            }
        }
        // Cannot fail for the own process.
        let _ended = kill_process(getpid(), Signal::KILL);
    };
    thread::Builder::new().name("requests".to_owned()).spawn(read)?;
    Ok(Requests(requests))
}

fn limit(resource: Resource, most: u64) -> io::Result<()> {
    Ok(setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?)
}
