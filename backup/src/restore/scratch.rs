//! Where an archive is opened: a directory of its own, which nobody else reads and nothing is left in.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::error::RestoreError;

/// Its name: what an attempt that was killed left under it is removed by the next one.
const NAME: &str = "restore-scratch";

/// The directory; removed with all that is in it when this is dropped.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(below: &Path) -> Result<Self, RestoreError> {
        let scratch = Self(below.join(NAME));
        scratch.remove().map_err(RestoreError::Scratch)?;
        DirBuilder::new().mode(0o700).create(&scratch.0).map_err(RestoreError::Scratch)?;
        Ok(scratch)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The database of our own making.
    pub(super) fn fresh(&self) -> PathBuf {
        fresh(&self.0)
    }

    fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next attempt tries again, and says what is wrong.
        drop(self.remove());
    }
}

/// The archived database in a scratch directory.
pub(super) fn archived(directory: &Path) -> PathBuf {
    directory.join("archived.db")
}

/// The database made from it.
pub(super) fn fresh(directory: &Path) -> PathBuf {
    directory.join("master.db")
}
