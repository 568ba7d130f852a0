//! Which file is the copy, and where it stood when its log was folded last.

use std::path::{Path, PathBuf};

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::durable;
use crate::error::Result;
use crate::model::sha256;
use crate::open::with_suffix;
use crate::physical::position::Position;

const FILE: &str = "standby.pos";
const MAGIC: [u8; 4] = *b"MFPS";
const VERSION: u8 = 1;

/// What `standby.pos` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Counts the files; the one with this number is the copy.
    pub(super) generation: u64,
    /// Where the file stands without its log.
    pub(super) position: Position,
}

/// What there is of `standby.pos`.
#[derive(Debug)]
pub(super) enum Found {
    /// There is no copy.
    None,
    Place(Place),
    /// It is torn or rotten.
    Damaged,
}

impl Place {
    pub(super) fn read(directory: &Path) -> Result<Found> {
        match std::fs::read(directory.join(FILE)) {
            Ok(bytes) => match Self::decode(&bytes) {
                Ok(place) => Ok(Found::Place(place)),
                Err(error @ DecodeError::Newer { .. }) => Err(error.into()),
                Err(_) => Ok(Found::Damaged),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Found::None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        Ok(durable::replace(&directory.join(FILE), &self.encode())?)
    }

    /// There is no copy any more.
    pub(super) fn forget(directory: &Path) -> Result<()> {
        std::fs::remove_file(directory.join(FILE))?;
        Ok(durable::sync_directory_of(&directory.join(FILE))?)
    }

    fn encode(&self) -> Vec<u8> {
        let mut to = Encoder::record(MAGIC, VERSION);
        to.varint(self.generation).bytes(&self.position.encode());
        let hash = sha256(to.as_bytes());
        to.fixed(&hash);
        to.finish()
    }

    fn decode(bytes: &[u8]) -> std::result::Result<Self, DecodeError> {
        let (body, hash) = bytes.split_last_chunk::<32>().ok_or(DecodeError::Truncated)?;
        if sha256(body) != *hash {
            return Err(DecodeError::Invalid("standby.pos is damaged"));
        }
        let mut from = Decoder::record(body, MAGIC, VERSION, "standby.pos")?;
        let place = Self { generation: from.varint()?, position: Position::decode(from.bytes()?)? };
        from.finish()?;
        Ok(place)
    }
}

/// The file of a generation.
pub(super) fn file(directory: &Path, generation: u64) -> PathBuf {
    directory.join(format!("standby-{generation}.db"))
}

/// The generation of a file.
pub(super) fn generation(file: &Path) -> Option<u64> {
    file.file_stem()?.to_str()?.strip_prefix("standby-")?.parse().ok()
}

/// Removes a copy that another one replaced, and its log.
pub(super) fn remove(file: &Path) -> Result<()> {
    remove_log(file)?;
    gone(file)
}

/// Removes a copy's log.
pub(super) fn remove_log(file: &Path) -> Result<()> {
    gone(&with_suffix(file, "-wal"))
}

fn gone(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}
