//! Which file is the copy, and where it stood when its log was folded last.

use std::path::{Path, PathBuf};

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::durable;
use crate::error::{Error, Result};
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

impl Place {
    /// None if there is no copy.
    pub(super) fn read(directory: &Path) -> Result<Option<Self>> {
        match std::fs::read(directory.join(FILE)) {
            Ok(bytes) => Ok(Some(Self::decode(&bytes)?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        let mut to = Encoder::record(MAGIC, VERSION);
        to.varint(self.generation).bytes(&self.position.encode());
        let hash = sha256(to.as_bytes());
        to.fixed(&hash);
        Ok(durable::replace(&directory.join(FILE), to.as_bytes())?)
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let (body, hash) = bytes.split_last_chunk::<32>().ok_or(DecodeError::Truncated)?;
        if sha256(body) != *hash {
            return Err(Error::Record(DecodeError::Invalid("standby.pos is damaged")));
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
    for path in [with_suffix(file, "-wal"), file.to_owned()] {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}
