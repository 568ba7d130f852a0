//! What the helper programs have in common, whatever speaks SMB in them: one server, one account, one job;
//! requests on standard input, answers on standard output.
//!
//! The daemon starts a helper for a job and ends it with SIGKILL, also in the middle of a call; it ends itself
//! when the daemon is gone. The password comes with the first request, never by arguments or environment.
//! `confine` is what the process gives up before it begins, [`Gate`] stands between the library and the server,
//! a [`Backend`] does what is asked. Never names a library: those are the programs' own.

mod confine;
mod failure;
mod gate;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

pub use failure::Failure;
pub use gate::Gate;
use zeroize::Zeroizing;

use super::Target;
use super::protocol::{Answer, Request, send};
use crate::store::{Entry, Kind, Name};
use confine::Pipes;

/// Shorthand of this module.
pub type Result<T> = std::result::Result<T, Failure>;

/// The folder on the share, through a library, with one file open at the most. Each method is the request of its
/// name, and does what [`Connection`](crate::store::Connection) says of it.
pub trait Backend {
    /// Bytes that are free.
    ///
    /// # Errors
    /// As the server.
    fn room(&mut self) -> Result<u64>;

    /// The files.
    ///
    /// # Errors
    /// As the server; [`Kind::TooMany`].
    fn list(&mut self) -> Result<Vec<Entry>>;

    /// The size of a file.
    ///
    /// # Errors
    /// As the server; [`Kind::WrongType`] for a folder.
    fn size(&mut self, name: &Name) -> Result<Option<u64>>;

    /// Makes a file and opens it for writing.
    ///
    /// # Errors
    /// [`Kind::Exists`]; as the server.
    fn create(&mut self, name: &Name) -> Result<()>;

    /// Opens a file that exists for writing from `offset` on.
    ///
    /// # Errors
    /// As the server.
    fn resume(&mut self, name: &Name, offset: u64) -> Result<()>;

    /// Appends to the file that is open for writing.
    ///
    /// # Errors
    /// As the server.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// Closes the file that is open for writing.
    ///
    /// # Errors
    /// As the server.
    fn finish(&mut self) -> Result<()>;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// As the server; [`Kind::WrongType`] for a folder.
    fn open(&mut self, name: &Name) -> Result<()>;

    /// Reads on.
    ///
    /// # Errors
    /// As the server.
    fn read(&mut self) -> Result<&[u8]>;

    /// Gives a file a name that is free.
    ///
    /// # Errors
    /// [`Kind::Exists`]; as the server.
    fn rename(&mut self, from: &Name, to: &Name) -> Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the server.
    fn remove(&mut self, name: &Name) -> Result<()>;
}

/// What a program says of itself.
#[derive(Debug)]
pub struct About {
    /// Printed for `--help`.
    pub help: &'static str,
    /// Printed for `--version`.
    pub version: &'static str,
}

/// The program: answers its options, or serves.
///
/// `connect` logs in by way of the gate, enters the folder, and makes the group's own one if it is missing.
pub fn run<B: Backend>(about: &About, connect: impl FnOnce(&Target, &Gate) -> Result<B>) -> ExitCode {
    let mut arguments = env::args().skip(1);
    let text = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => return ended(serve(connect)),
        (Some("--version"), None) => about.version,
        (Some("--help"), None) => about.help,
        _ => return ExitCode::from(2),
    };
    ended(io::stdout().write_all(text.as_bytes()))
}

fn ended(result: io::Result<()>) -> ExitCode {
    // Nobody reads what this process would say: whoever started it sees that it ended.
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Answers requests until there are none, or until one fails in such a way that the connection is of no more use.
fn serve<B: Backend>(connect: impl FnOnce(&Target, &Gate) -> Result<B>) -> io::Result<()> {
    let Pipes { mut requests, mut answers } = confine::begin()?;
    // It holds the password.
    let first = Zeroizing::new(requests.next()?);
    let Ok(Request::Begin(target)) = Request::decode(&first) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    drop(first);
    let (mut backend, gate) = match begin(&target, connect) {
        Ok((backend, gate, begun)) => {
            send(&mut answers, &begun.encode())?;
            (backend, gate)
        }
        Err(failure) => return send(&mut answers, &failure.answer().encode()),
    };
    drop(target);
    loop {
        let body = requests.next()?;
        let request = Request::decode(&body).map_err(|_| io::ErrorKind::InvalidData)?;
        match answer(&mut backend, request).map_err(|failure| explained(failure, &gate)) {
            Ok(answer) => send(&mut answers, &answer.encode())?,
            Err(failure) => {
                send(&mut answers, &failure.answer().encode())?;
                if failure.ends() {
                    return Ok(());
                }
            }
        }
    }
}

fn begin<B>(
    target: &Target,
    connect: impl FnOnce(&Target, &Gate) -> Result<B>,
) -> Result<(B, Gate, Answer<'static>)> {
    target.check().map_err(|error| error.kind)?;
    let gate = Gate::open(target)?;
    let backend = connect(target, &gate).map_err(|failure| explained(failure, &gate))?;
    // Without an agreement on a dialect nothing could have been asked for.
    let protection = gate.protection().ok_or(Kind::Other)?;
    Ok((backend, gate, Answer::Begun(protection)))
}

/// The gate knows better than a library why a connection ended.
fn explained(failure: Failure, gate: &Gate) -> Failure {
    gate.refusal().map_or(failure, Failure::from)
}

fn answer<'a>(backend: &'a mut impl Backend, request: Request<'_>) -> Result<Answer<'a>> {
    match request {
        Request::Begin(_) => Err(Kind::Helper.into()),
        Request::Room => backend.room().map(Answer::Room),
        Request::List => backend.list().map(Answer::Entries),
        Request::Size(name) => backend.size(&name).map(Answer::Size),
        Request::Create(name) => backend.create(&name).map(|()| Answer::Done),
        Request::Resume(name, offset) => backend.resume(&name, offset).map(|()| Answer::Done),
        Request::Write(bytes) => backend.write(bytes).map(|()| Answer::Done),
        Request::Finish => backend.finish().map(|()| Answer::Done),
        Request::Open(name) => backend.open(&name).map(|()| Answer::Done),
        Request::Read => backend.read().map(Answer::Bytes),
        Request::Rename(from, to) => backend.rename(&from, &to).map(|()| Answer::Done),
        Request::Remove(name) => backend.remove(&name).map(|()| Answer::Done),
    }
}
