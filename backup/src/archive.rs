//! Making an archive: the pages of one revision, compressed and sealed, into a file of this device. From
//! there it is proven and uploaded; see ADR 29.
//!
//! `age -d archive | zstd -d > master.db` opens it without this program.

mod digest;
mod lock;

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use mfpsync_storage::Store;
use mfpsync_storage::master::{Head, Master};
use mfpsync_storage::model::{Promotion, Signed};
use thiserror::Error;
use zstd::stream::write::Encoder;

pub(crate) use digest::Digested;
pub use lock::{Key, KeyError, Lock, PASSPHRASE_CHARS, new_identity};

use crate::manifest::File;

/// Of zstd's levels the one that a small processor and a database of short records have most of.
const LEVEL: i32 = 3;

/// Why no archive was made. What was written of it is of no use.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The master database, or the file system beside it.
    #[error(transparent)]
    Storage(#[from] mfpsync_storage::Error),
    /// The archive could not be written.
    #[error("write archive")]
    Write(#[source] io::Error),
    /// It cannot be sealed so.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
}

/// An archive that was made and not proven.
#[derive(Debug)]
pub struct Taken {
    /// Where the database stood.
    pub head: Head,
    /// The reigns up to there.
    pub lineage: Vec<Signed<Promotion>>,
    /// The database inside.
    pub database: File,
    /// The archive.
    pub archive: File,
    /// What opens it, for its proof. Of an archive for recipients it is good for this one alone.
    pub key: Key,
}

/// Archives the master as of now into a new file at `path`, which only its owner reads; synced at the end.
/// Blocks a thread; edits go on. `progress` is told how many bytes of how many are in, and says whether to go
/// on.
///
/// # Errors
/// [`mfpsync_storage::Error::Busy`] when the snapshot was lost, as when replication is begun meanwhile: to be
/// tried again. The file is gone then.
pub fn take(
    master: &Store<Master>,
    lock: &Lock,
    path: &Path,
    progress: impl FnMut(u64, u64) -> bool,
) -> Result<Taken, ArchiveError> {
    let taken = take_into(master, lock, path, progress);
    if taken.is_err() {
        // Nothing is lost if it stays: the next attempt replaces it.
        drop(std::fs::remove_file(path));
    }
    taken
}

fn take_into(
    master: &Store<Master>,
    lock: &Lock,
    path: &Path,
    progress: impl FnMut(u64, u64) -> bool,
) -> Result<Taken, ArchiveError> {
    let (snapshot, (head, lineage)) = master.snapshot(|read| Ok((read.founded_head()?, read.lineage()?)))?;
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let file = file.map_err(ArchiveError::Write)?;
    let bytes = snapshot.bytes();
    let (packed, file) = pack(bytes, snapshot, lock, file, progress)?;
    file.sync_all().map_err(ArchiveError::Write)?;
    let Packed { database, archive, key } = packed;
    Ok(Taken { head, lineage, database, archive, key })
}

/// What [`pack`] wrote.
#[derive(Debug)]
pub struct Packed {
    /// What went in.
    pub database: File,
    /// What came out.
    pub archive: File,
    /// What opens it.
    pub key: Key,
}

/// Compresses and seals `bytes` bytes, as they come in `portions`, and returns the writer.
///
/// # Errors
/// As the portions; the writer's; it was told to stop.
pub fn pack<W: Write>(
    bytes: u64,
    portions: impl Iterator<Item = mfpsync_storage::Result<Vec<u8>>>,
    lock: &Lock,
    to: W,
    mut progress: impl FnMut(u64, u64) -> bool,
) -> Result<(Packed, W), ArchiveError> {
    let (encryptor, key) = lock.encryptor()?;
    // An error of the header's writing does not say any more what the system said: it is written with what follows.
    let to = BufWriter::new(to);
    let sealed = encryptor.wrap_output(Digested::new(to)).map_err(ArchiveError::Write)?;
    let mut compressed = Encoder::new(sealed, LEVEL).map_err(ArchiveError::Write)?;
    compressed.set_pledged_src_size(Some(bytes)).map_err(ArchiveError::Write)?;
    compressed.include_checksum(true).map_err(ArchiveError::Write)?;
    let mut database = Digested::new(compressed);
    for portion in portions {
        database.write_all(&portion?).map_err(ArchiveError::Write)?;
        if !progress(database.passed(), bytes) {
            return Err(ArchiveError::Stopped);
        }
    }
    let (database, compressed) = database.finish();
    let finish = || compressed.finish()?.finish();
    let (archive, to) = finish().map_err(ArchiveError::Write)?.finish();
    let to = to.into_inner().map_err(|error| ArchiveError::Write(error.into_error()))?;
    Ok((Packed { database, archive, key }, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that has room for so many bytes.
    struct Disk(usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.0);
            self.0 -= count;
            if count > 0 { Ok(count) } else { Err(io::ErrorKind::StorageFull.into()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_said_to_be_full_wherever_it_is() {
        let (_, recipient) = new_identity();
        let lock = Lock::recipients([&*recipient]).expect("a recipient");
        let packed = |room| pack(9, std::iter::once(Ok(vec![7; 9])), &lock, Disk(room), |_, _| true);
        assert!(packed(usize::MAX).is_ok());
        for room in [0, 1, 50, 150] {
            match packed(room) {
                Err(ArchiveError::Write(error)) => {
                    assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{room}")
                }
                _ => panic!("{room}"),
            }
        }
    }
}
