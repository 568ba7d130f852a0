//! A disk that becomes read-only under a running daemon, as after an error, and writable again.
//!
//! No real file system does this on demand: while files are open for writing the kernel refuses to
//! remount, and after an error it does not go back. The system calls are answered as one would.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::device::TestDevice;
use crate::preload;

/// The switch of one device's disk.
#[derive(Debug)]
pub struct ReadOnlySwitch {
    path: PathBuf,
}

impl ReadOnlySwitch {
    /// Gives a device that does not run yet a disk with a switch, writable.
    ///
    /// # Errors
    /// There is no C compiler.
    pub fn install(device: &mut TestDevice) -> Result<Self> {
        let path = device.home().join("read-only");
        let preloaded = preload::library("read_only", device.home())?;
        let text = |path: &Path| path.display().to_string();
        device.setup.env = vec![
            preloaded,
            ("MFPSYNC_TEST_READ_ONLY_BELOW".to_owned(), text(&device.data_dir())),
            ("MFPSYNC_TEST_READ_ONLY_WHEN".to_owned(), text(&path)),
        ];
        Ok(Self { path })
    }

    /// Makes the disk read-only, or writable.
    ///
    /// # Errors
    /// The device's own directory fails.
    pub fn set(&self, read_only: bool) -> Result<()> {
        if read_only { fs::write(&self.path, "") } else { fs::remove_file(&self.path) }
            .context("turn the switch")
    }
}
