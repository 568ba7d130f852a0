//! How an archive becomes one that exists: sent under a name that counts for nothing, read back over another
//! connection and proven, renamed; then the same for its manifest. Whoever lists the folder sees either no
//! manifest, and then no archive, or a whole and proven one.
//!
//! Blocking; runs on a job's own thread. What to do next is decided in `steps`, and done in `placing`; what an
//! archive is, and when it proves, is the matter of whoever implements [`Archive`].

mod placing;
mod steps;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use crate::layout::ArchiveId;
use crate::store::{ArchiveStore, Cancel, Error, Kind, Protection, Result};
use placing::{Placed, Placing};
use steps::Steps;

/// Bytes that are read once, or again after a connection broke.
pub trait Source {
    /// How many there are, if that is known before all were read.
    fn size(&self) -> Option<u64>;

    /// Whether they are the same whenever they are asked for. Otherwise what broke off begins anew, and only the
    /// last reading counts.
    fn repeats(&self) -> bool;

    /// Reads them from `offset` on; from 0 only, unless they repeat.
    ///
    /// # Errors
    /// Of whatever holds them.
    fn open(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>>;
}

/// Bytes that are of use only if they come back as they should.
pub trait Proven: Source {
    /// Looks at what was read back, as at an archive to be restored. Need not read to its end: that the bytes are
    /// those that were sent is found out elsewhere.
    ///
    /// # Errors
    /// It could not be restored.
    fn prove(&mut self, read_back: &mut dyn Read) -> io::Result<()>;
}

/// An archive that is to be uploaded.
pub trait Archive: Proven {
    /// The manifest of an archive of that size and hash.
    ///
    /// # Errors
    /// It cannot be made.
    fn manifest(&mut self, whole: &Whole) -> io::Result<Vec<u8>>;
}

/// A file of this machine that nobody changes.
#[derive(Debug, Clone)]
pub struct Spooled {
    path: PathBuf,
    size: u64,
}

impl Spooled {
    /// The file at `path`, which is whole.
    ///
    /// # Errors
    /// The file system's.
    pub fn new(path: PathBuf) -> io::Result<Self> {
        let size = std::fs::metadata(&path)?.len();
        Ok(Self { path, size })
    }
}

impl Source for Spooled {
    fn size(&self) -> Option<u64> {
        Some(self.size)
    }

    fn repeats(&self) -> bool {
        true
    }

    fn open(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(offset))?;
        // What grows or shrinks is not what was measured: the one is cut here, the other seen when it is proven.
        Ok(Box::new(file.take(self.size.saturating_sub(offset))))
    }
}

/// Size and hash of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// Its bytes.
    pub size: u64,
    /// Their SHA-256.
    pub sha256: [u8; 32],
}

/// How often and how patiently something is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Failures in a row, without anything gained in between.
    pub failures: u32,
    /// The first wait is below this, each later one below twice the limit before.
    pub first: Duration,
    /// And below this.
    pub longest: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { failures: 8, first: Duration::from_secs(1), longest: Duration::from_secs(60) }
    }
}

/// How far an upload is; kept over a restart, [`Upload::resume`] goes on from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// Which of the archive's parts is being written.
    pub turn: u32,
    /// Bytes of it that the server has taken.
    pub taken: u64,
}

/// What is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A connection was made, so well protected.
    Connected(Protection),
    /// The archive is being sent.
    Sending(Mark),
    /// So much of the archive was read back.
    Proving(u64),
    /// It is proven, and gets its name and its manifest.
    Publishing,
    /// Something failed, for the so-manieth time in a row, and is tried again.
    Retrying(Kind, u32),
}

/// One archive on its way to a store.
pub struct Upload<'a> {
    /// Where to.
    pub store: &'a dyn ArchiveStore,
    /// By what the job is told to end.
    pub cancel: &'a Cancel,
    /// Its id, used for no other one.
    pub id: ArchiveId,
    /// What is tried again, and how often.
    pub patience: Patience,
    /// Where a mark of the same archive was left, if it may have been begun before: the first mark of all if none was.
    /// What has its place since then stays there.
    pub resume: Option<Mark>,
    /// Is told what is going on.
    pub observe: &'a mut dyn FnMut(Progress),
}

impl Upload<'_> {
    /// Uploads, proves and publishes. The archive exists when this returns well.
    ///
    /// # Errors
    /// As the store; [`Kind::Source`] when the archive cannot be read or does not prove, [`Kind::Altered`] when
    /// what came back is not what was sent. The archive does not exist then; unless it failed after
    /// [`Progress::Publishing`], when the next survey tells.
    pub fn run(mut self, archive: &mut dyn Archive) -> Result<Whole> {
        let most = self.patience.failures;
        let steps = match self.resume {
            Some(Mark { turn, taken }) if archive.repeats() => Steps::resumed(most, turn, taken),
            // What is left of the turn before is the sweep's.
            Some(Mark { turn, .. }) => Steps::new(most, turn + 1),
            None => Steps::new(most, 0),
        };
        let steps = if archive.repeats() { steps } else { steps.unrepeatable() };
        let place = self.id.data();
        let Placed { whole, turn, connection } = Placing::new(&mut self, place, None).run(steps, archive)?;
        (self.observe)(Progress::Publishing);
        let manifest = archive.manifest(&whole).map_err(|_| Error::new("describe archive", Kind::Source))?;
        let begun = if self.resume.is_some() { Steps::sought } else { Steps::new };
        let (place, steps) = (self.id.manifest(), begun(most, turn + 1).connected());
        Placing::new(&mut self, place, Some(connection)).run(steps, &mut Manifest(manifest))?;
        Ok(whole)
    }
}

/// A manifest: what was sent is what was read back, and there is nothing more to prove.
struct Manifest(Vec<u8>);

impl Source for Manifest {
    fn size(&self) -> Option<u64> {
        Some(self.0.len() as u64)
    }

    fn repeats(&self) -> bool {
        true
    }

    fn open(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(Box::new(self.0.get(offset..).ok_or(io::ErrorKind::UnexpectedEof)?))
    }
}

impl Proven for Manifest {
    fn prove(&mut self, _read_back: &mut dyn Read) -> io::Result<()> {
        Ok(())
    }
}
