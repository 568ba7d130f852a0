//! Getting one file to its place: does what [`super::steps`] says, and hashes on the way in both directions.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::steps::{Act, Event, Steps};
use super::{Mark, Patience, Progress, Proven, Source, Upload, Whole};
use crate::store::{CHUNK, Class, Connection, Error, Kind, Name, Result};

/// Room that must be left on the share beside a file, and beside that one part in so many of its size.
const RESERVE: u64 = 1 << 20;
const RESERVED_PART: u64 = 20;

/// A file at its place.
pub(super) struct Placed {
    pub(super) whole: Whole,
    /// The turn it took.
    pub(super) turn: u32,
    /// The connection that did it.
    pub(super) connection: Box<dyn Connection>,
}

/// One file on its way, and the connection it is on.
pub(super) struct Placing<'p, 'u> {
    upload: &'p mut Upload<'u>,
    place: Name,
    connection: Option<Box<dyn Connection>>,
    /// Of all that the server has taken.
    hash: Sha256,
    hashed: u64,
    turn: u32,
    failed: Option<Error>,
}

impl<'p, 'u> Placing<'p, 'u> {
    pub(super) fn new(
        upload: &'p mut Upload<'u>,
        place: Name,
        connection: Option<Box<dyn Connection>>,
    ) -> Self {
        let (hash, hashed) = (Sha256::new(), 0);
        Self { upload, place, connection, hash, hashed, turn: 0, failed: None }
    }

    /// Does all steps.
    pub(super) fn run(mut self, mut steps: Steps, content: &mut dyn Proven) -> Result<Placed> {
        loop {
            self.turn = steps.turn();
            let event = match steps.act() {
                Act::End(Ok(())) => return self.placed(),
                Act::End(Err(kind)) => return Err(self.error(kind)),
                Act::Connect { failures } => self.connect(failures),
                Act::Find => self.find(content),
                Act::Create => self.create(content),
                Act::Look => self.size_of_part().map(Event::Looked),
                Act::Resume(from) => self.resume(from, content),
                Act::Send(from) => Ok(self.send(from, content)),
                Act::ReadBack => self.read_back(&self.part(), content).map(|equal| Event::ReadBack { equal }),
                Act::Rename => self.rename(),
                Act::Compare => self.compare(),
                Act::Discard => self.discard(),
            };
            steps.on(event.unwrap_or_else(|error| {
                let kind = error.kind;
                self.failed = Some(error);
                Event::Failed(kind)
            }));
        }
    }

    fn placed(mut self) -> Result<Placed> {
        let connection = self.connection.take().ok_or(Error::new("use connection", Kind::Lost))?;
        Ok(Placed { whole: self.whole(), turn: self.turn, connection })
    }

    /// What is said of a failure: the error that led to it, if it was one.
    fn error(&mut self, kind: Kind) -> Error {
        self.failed.take().filter(|error| error.kind == kind).unwrap_or(Error::new("place archive", kind))
    }

    fn part(&self) -> Name {
        self.upload.id.part(self.turn)
    }

    fn whole(&self) -> Whole {
        Whole { size: self.hashed, sha256: self.hash.clone().finalize().into() }
    }

    fn connection(&mut self) -> Result<&mut (dyn Connection + 'static)> {
        self.connection.as_deref_mut().ok_or(Error::new("use connection", Kind::Lost))
    }

    fn connect(&mut self, failures: u32) -> Result<Event> {
        // The one before ends first: servers count them.
        self.connection = None;
        if let (Some(error), 1..) = (&self.failed, failures) {
            (self.upload.observe)(Progress::Retrying(error.kind, failures));
            self.upload.cancel.sleep(pause(&self.upload.patience, failures))?;
        }
        let connection = self.upload.store.connect(self.upload.cancel)?;
        (self.upload.observe)(Progress::Connected(connection.protection()));
        self.connection = Some(connection);
        Ok(Event::Connected)
    }

    /// What has its place was read back and compared before it got it, and is so once more: by its name alone
    /// nobody knows who put it there.
    fn find(&mut self, content: &mut dyn Proven) -> Result<Event> {
        let place = self.place.clone();
        if self.connection()?.size(&place)?.is_none() {
            return Ok(Event::Found { equal: None });
        }
        self.hash_again(u64::MAX, content)?;
        self.read_back(&place, content).map(|equal| Event::Found { equal: Some(equal) })
    }

    /// Reads what was sent in an earlier life once more, for its hash: so many bytes, or all.
    fn hash_again(&mut self, most: u64, content: &mut dyn Proven) -> Result<()> {
        (self.hash, self.hashed) = (Sha256::new(), 0);
        let mut reader = content.open(0).map_err(|_| unreadable())?.take(most);
        let mut buffer = vec![0; CHUNK];
        loop {
            self.upload.cancel.check("read archive")?;
            let count = fill(&mut reader, &mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            self.hash.update(&buffer[..count]);
            self.hashed += count as u64;
        }
    }

    fn create(&mut self, content: &dyn Source) -> Result<Event> {
        if let Some(size) = content.size() {
            self.expect_room(size)?;
        }
        let part = self.part();
        self.connection()?.create(&part)?;
        (self.hash, self.hashed) = (Sha256::new(), 0);
        Ok(Event::Created)
    }

    /// Sends nothing when there is no room for all of it. That is advice: a server that does not say, or says
    /// something else later, is heard when it refuses.
    fn expect_room(&mut self, size: u64) -> Result<()> {
        let needed = size.saturating_add(size / RESERVED_PART).saturating_add(RESERVE);
        match self.connection()?.room() {
            Ok(room) if room < needed => Err(Error::new("look for room", Kind::Full)),
            Err(error) if error.kind.class() != Class::Fault => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn size_of_part(&mut self) -> Result<Option<u64>> {
        let part = self.part();
        self.connection()?.size(&part)
    }

    fn resume(&mut self, from: u64, content: &mut dyn Proven) -> Result<Event> {
        if self.hashed != from {
            self.hash_again(from, content)?;
            if self.hashed != from {
                return Err(unreadable());
            }
        }
        let part = self.part();
        self.connection()?.resume(&part, from)?;
        Ok(Event::Resumed)
    }

    fn send(&mut self, from: u64, content: &mut dyn Proven) -> Event {
        match self.send_all(from, content) {
            Ok(()) => Event::Sent { size: self.hashed },
            Err(error) => {
                let kind = error.kind;
                self.failed = Some(error);
                Event::Interrupted { taken: self.hashed, kind }
            }
        }
    }

    fn send_all(&mut self, from: u64, content: &mut dyn Proven) -> Result<()> {
        let mut reader = content.open(from).map_err(|_| unreadable())?;
        let mut buffer = vec![0; CHUNK];
        loop {
            self.upload.cancel.check("send archive")?;
            let count = fill(&mut reader, &mut buffer)?;
            if count == 0 {
                return self.connection()?.finish();
            }
            self.connection()?.write(&buffer[..count])?;
            self.hash.update(&buffer[..count]);
            self.hashed += count as u64;
            (self.upload.observe)(Progress::Sending(Mark { turn: self.turn, taken: self.hashed }));
        }
    }

    /// Reads a file to its end, proven on the way. Whether it is what was sent.
    fn read_back(&mut self, name: &Name, content: &mut dyn Proven) -> Result<bool> {
        let sent = self.whole();
        self.connection()?.open(name)?;
        let observe = &mut *self.upload.observe;
        let Some(connection) = self.connection.as_deref_mut() else { return Ok(false) };
        let (hash, chunk) = (Sha256::new(), io::Cursor::default());
        let mut reader =
            ReadBack { connection, observe, most: sent.size, chunk, hash, size: 0, failed: None };
        let proof = content.prove(&mut reader);
        let rest = io::copy(&mut reader, &mut io::sink());
        if let Some(error) = reader.failed {
            return Err(error);
        }
        let back = Whole { size: reader.size, sha256: reader.hash.finalize().into() };
        if back != sent || rest.is_err() {
            return Ok(false);
        }
        // As it was sent, and yet nothing to restore from.
        proof.map(|()| true).map_err(|_| Error::new("prove archive", Kind::Source))
    }

    fn rename(&mut self) -> Result<Event> {
        let (part, place) = (self.part(), self.place.clone());
        self.connection()?.rename(&part, &place)?;
        Ok(Event::Renamed)
    }

    fn compare(&mut self) -> Result<Event> {
        let (part, place) = (self.size_of_part()?, self.place.clone());
        let place = self.connection()?.size(&place)?;
        Ok(Event::Compared { part, place })
    }

    /// Whatever comes of it, what led here is what is reported.
    fn discard(&mut self) -> Result<Event> {
        let part = self.part();
        let _removed_or_swept_later = self.connection()?.remove(&part);
        Ok(Event::Discarded)
    }
}

fn unreadable() -> Error {
    Error::new("read archive", Kind::Source)
}

/// Reads until the buffer is full or nothing more comes: a chunk is as large as it may be.
fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(unreadable()),
        }
    }
    Ok(filled)
}

/// A drawn part of a limit that doubles, so that devices that were sent away do not return together.
fn pause(patience: &Patience, failures: u32) -> Duration {
    let limit = patience
        .first
        .saturating_mul(1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX))
        .min(patience.longest);
    let luck = RandomState::new().hash_one(failures) as u32;
    limit.mul_f64(f64::from(luck) / f64::from(u32::MAX))
}

/// The open file as it comes back.
struct ReadBack<'a> {
    connection: &'a mut dyn Connection,
    observe: &'a mut dyn FnMut(Progress),
    /// Bytes that were sent; a server that has more is not read without end.
    most: u64,
    chunk: io::Cursor<Vec<u8>>,
    hash: Sha256,
    size: u64,
    /// Of the store, which a proof cannot tell from a fault of the archive.
    failed: Option<Error>,
}

impl Read for ReadBack<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.chunk.position() == self.chunk.get_ref().len() as u64 && self.size <= self.most {
            if self.failed.is_some() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let chunk = self.connection.read().map_err(|error| {
                self.failed = Some(error);
                io::Error::from(io::ErrorKind::BrokenPipe)
            })?;
            self.hash.update(&chunk);
            self.size += chunk.len() as u64;
            self.chunk = io::Cursor::new(chunk);
            (self.observe)(Progress::Proving(self.size));
        }
        self.chunk.read(buffer)
    }
}
