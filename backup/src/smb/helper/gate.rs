//! The gate between the library and the server: the library dials a port of this process, and each message is
//! looked at before it is passed on, in both directions. See [`crate::smb::wire`] for why.
//!
//! The server's name is looked up once: a name that points elsewhere later leads nowhere. A refusal holds for
//! the life of the process, so that one wrong password is one attempt to log in.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::Failure;
use crate::smb::Target;
use crate::smb::wire::{HEAD, Watch};
use crate::store::{Kind, Protection};

const BUFFER: usize = 256 << 10;

/// The gate, open as long as the process lives.
#[derive(Debug)]
pub struct Gate {
    port: u16,
    seen: Arc<Mutex<Seen>>,
}

/// What was seen so far.
#[derive(Debug)]
struct Seen {
    /// Of the newest connection.
    watch: Arc<Mutex<Watch>>,
    refusal: Option<Kind>,
}

impl Gate {
    /// Dials the server, and opens.
    pub(super) fn open(target: &Target) -> Result<Self, Failure> {
        let (server, first) = dial(target)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let (minimum, encryption, patience) = (target.minimum, target.encryption, target.patience);
        let watch = move || Arc::new(Mutex::new(Watch::new(minimum, encryption)));
        let seen = Arc::new(Mutex::new(Seen { watch: watch(), refusal: None }));
        let gate = Self { port, seen: Arc::clone(&seen) };
        let mut first = Some(first);
        let accept = move || {
            while let Ok((library, _from_here)) = listener.accept() {
                if lock(&seen).refusal.is_some() {
                    continue;
                }
                let dialled = first.take().map_or_else(|| TcpStream::connect_timeout(&server, patience), Ok);
                let Ok(server) = dialled else { continue };
                let watch = watch();
                lock(&seen).watch = Arc::clone(&watch);
                // Without threads or descriptors the library finds its connection closed.
                let _joined = join(library, server, &watch, &seen);
            }
        };
        thread::Builder::new().name("gate".to_owned()).spawn(accept)?;
        Ok(gate)
    }

    /// The port of 127.0.0.1 that stands for the server.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Why the gate was shut, if it was.
    pub(super) fn refusal(&self) -> Option<Kind> {
        lock(&self.seen).refusal
    }

    /// How well the newest connection is protected.
    pub(super) fn protection(&self) -> Option<Protection> {
        let watch = Arc::clone(&lock(&self.seen).watch);
        let watch = lock(&watch);
        let dialect = watch.dialect()?;
        Some(if watch.encrypted() { Protection::Encrypted(dialect) } else { Protection::Signed(dialect) })
    }
}

/// The first of the name's addresses that answers, of those that may be dialled.
fn dial(target: &Target) -> Result<(SocketAddr, TcpStream), Failure> {
    let addresses = (target.host.as_str(), target.port).to_socket_addrs().map_err(|_| Kind::Unreachable)?;
    let mut why = Kind::InvalidName;
    for address in addresses.filter(|address| target.allows(address.ip())) {
        match TcpStream::connect_timeout(&address, target.patience) {
            Ok(stream) => return Ok((address, stream)),
            Err(_) => why = Kind::Unreachable,
        }
    }
    Err(why.into())
}

type Look = fn(&mut Watch, &[u8]) -> Result<(), Kind>;

/// Passes on in both directions, until either ends.
fn join(
    library: TcpStream,
    server: TcpStream,
    watch: &Arc<Mutex<Watch>>,
    seen: &Arc<Mutex<Seen>>,
) -> io::Result<()> {
    library.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (library_too, server_too) = (library.try_clone()?, server.try_clone()?);
    let pass = |from: TcpStream, to: TcpStream, look: Look| {
        let (watch, seen) = (Arc::clone(watch), Arc::clone(seen));
        let work = move || {
            if let Err(Stop::Refused(kind)) = pass_on(&from, &to, &watch, look) {
                lock(&seen).refusal.get_or_insert(kind);
            }
            // Either may be closed already.
            let _closed = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        };
        thread::Builder::new().name("pass".to_owned()).spawn(work).map(drop)
    };
    pass(library, server, Watch::to_server)?;
    pass(server_too, library_too, Watch::to_client)
}

enum Stop {
    Ended,
    Refused(Kind),
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Ended
    }
}

/// **Source**: \[MS-SMB2\] 2.1: each message follows a zero byte and its length in three bytes.
fn pass_on(mut from: &TcpStream, mut to: &TcpStream, watch: &Mutex<Watch>, look: Look) -> Result<(), Stop> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let mut start = [0; 4];
        from.read_exact(&mut start)?;
        let [0, high, middle, low] = start else { return Err(Stop::Refused(Kind::Unreachable)) };
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        let head = length.min(HEAD);
        let (front, _) = buffer.split_at_mut(4 + head);
        front[..4].copy_from_slice(&start);
        from.read_exact(&mut front[4..])?;
        look(&mut lock(watch), &front[4..]).map_err(Stop::Refused)?;
        to.write_all(front)?;
        let mut left = length - head;
        while left > 0 {
            let part = buffer.len().min(left);
            match from.read(&mut buffer[..part])? {
                0 => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
                count => {
                    to.write_all(&buffer[..count])?;
                    left -= count;
                }
            }
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
