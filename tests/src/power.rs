//! Power that fails: the disk keeps what was synced, and forgets all else.
//!
//! A killed process leaves everything it wrote to the system. Here a library preloaded into the daemon
//! notes at each sync what the disk holds from then on, and a cut puts the disk back to that. A real disk
//! may keep more than it must; this one never does.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::device::TestDevice;
use crate::preload;

/// The power of one device.
#[derive(Debug)]
pub struct Power {
    kept: PathBuf,
    data: PathBuf,
}

impl Power {
    /// Plugs in a device that was never started.
    ///
    /// # Errors
    /// There is no C compiler.
    pub fn install(device: &mut TestDevice) -> Result<Self> {
        let power = Self { kept: device.home().join("power"), data: device.data_dir() };
        let preloaded = preload::library("power", device.home())?;
        fs::create_dir_all(&power.data)?;
        power.forget()?;
        let text = |path: &Path| path.display().to_string();
        device.setup.env = vec![
            preloaded,
            ("MFPSYNC_TEST_POWER_BELOW".to_owned(), text(&power.data)),
            ("MFPSYNC_TEST_POWER_KEEP".to_owned(), text(&power.kept)),
        ];
        Ok(power)
    }

    /// Has no sync of a file come to its end whose name ends so, or lets all of them again.
    ///
    /// # Errors
    /// The device's own directory fails.
    pub fn stall(&self, name: Option<&str>) -> Result<()> {
        let place = self.kept.join("stall");
        match name {
            Some(name) => fs::write(place, name),
            None => fs::remove_file(place),
        }
        .context("stall syncs")
    }

    /// Cuts the power of a running device. What its disk holds then is in its data directory.
    ///
    /// # Errors
    /// It did not run.
    pub fn cut(&self, device: &mut TestDevice) -> Result<()> {
        device.kill()?;
        let written = self.data.with_extension("written");
        fs::rename(&self.data, &written)?;
        self.restore(fs::metadata(&written)?.ino(), &self.data).context("what the disk holds")?;
        fs::remove_dir_all(&written)?;
        // The files are others now; all of them are on the disk.
        self.forget()?;
        self.note(&self.data)
    }

    fn forget(&self) -> Result<()> {
        if self.kept.exists() {
            fs::remove_dir_all(&self.kept)?;
        }
        fs::create_dir_all(self.kept.join("files"))?;
        Ok(fs::create_dir_all(self.kept.join("names"))?)
    }

    /// Makes the directory that had this inode anew at `to`.
    fn restore(&self, inode: u64, to: &Path) -> Result<()> {
        DirBuilder::new().mode(0o700).create(to)?;
        let names = fs::read_to_string(self.names(inode)).unwrap_or_default();
        for line in names.lines() {
            let mut words = line.splitn(3, ' ');
            let (Some(inode), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let (inode, path) = (inode.parse()?, to.join(name));
            if kind == "d" {
                self.restore(inode, &path)?;
            } else {
                let content = fs::read(self.file(inode)).unwrap_or_default();
                let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
                file.write_all(&content)?;
            }
        }
        Ok(())
    }

    /// Notes that all below a directory is on the disk.
    fn note(&self, directory: &Path) -> Result<()> {
        let mut names = File::create(self.names(fs::metadata(directory)?.ino()))?;
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let (inode, name) = (entry.metadata()?.ino(), entry.file_name());
            let is_directory = entry.file_type()?.is_dir();
            let kind = if is_directory { 'd' } else { 'f' };
            writeln!(names, "{inode} {kind} {}", name.display())?;
            if is_directory {
                self.note(&entry.path())?;
            } else {
                fs::copy(entry.path(), self.file(inode))?;
            }
        }
        Ok(())
    }

    fn names(&self, inode: u64) -> PathBuf {
        self.kept.join("names").join(inode.to_string())
    }

    fn file(&self, inode: u64) -> PathBuf {
        self.kept.join("files").join(inode.to_string())
    }
}
