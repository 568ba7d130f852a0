//! The helper programs, and the folders that jobs work in.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use mfpsync_backup::layout::ArchiveId;
use mfpsync_backup::restore::Helper;
use mfpsync_backup::smb::{Library, Target};
use mfpsync_backup::store::smb::SmbStore;

use super::job::JobError;
use crate::device::Device;

const RESTORE: &str = "mfpsync-restore";

/// What jobs work with.
#[derive(Debug, Clone)]
pub struct Tools {
    helpers: PathBuf,
    smb: Library,
    spool: PathBuf,
    scratch: PathBuf,
    data: PathBuf,
}

impl Tools {
    /// Those of a device. Makes the folders that are missing. Blocks.
    ///
    /// # Errors
    /// The file system's.
    pub fn of(device: &Device) -> Result<Self, JobError> {
        let data = device.config.data_dir.clone();
        let settings = device.settings.now();
        let tools = Self {
            helpers: settings.backup.helpers.clone(),
            smb: settings.backup.smb,
            spool: data.join("spool"),
            scratch: data.join("scratch"),
            data,
        };
        for directory in [&tools.spool, &tools.scratch] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
            made.map_err(JobError::io("make a folder to work in"))?;
        }
        Ok(tools)
    }

    /// A share behind the helper.
    ///
    /// # Errors
    /// What cannot be used of the target.
    pub fn store(&self, target: Target) -> Result<SmbStore, JobError> {
        Ok(SmbStore::new(&self.helpers.join(self.smb.program()), &self.scratch, target)?)
    }

    /// The program that opens archives.
    pub(super) fn restore(&self) -> Helper {
        Helper::new(self.helpers.join(RESTORE))
    }

    /// Where an archive is opened for a look.
    pub(super) fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Where a database is made that is to be the master: on the same file system.
    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    /// The file of an archive that is to be sent.
    pub(super) fn spooled(&self, id: ArchiveId) -> PathBuf {
        self.spool.join(id.data().as_str())
    }

    /// Removes what helpers of a former life of the process have left: databases in clear.
    pub(super) fn clear(&self) -> std::io::Result<()> {
        for left in [&self.scratch, &self.data.join("restore-scratch")] {
            match std::fs::remove_dir_all(left) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes what is spooled, but for the archive on its way.
    pub(super) fn tidy(&self, keep: Option<ArchiveId>) -> std::io::Result<()> {
        let keep = keep.map(|id| self.spooled(id));
        for entry in std::fs::read_dir(&self.spool)? {
            let path = entry?.path();
            if Some(&path) != keep.as_ref() {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}
