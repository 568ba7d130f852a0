//! A small disk of its own, to be filled to the last byte and emptied again. Needs root.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

const BALLAST: &str = "ballast";

/// A mounted file system in memory; unmounted when dropped.
#[derive(Debug)]
pub struct Volume {
    path: PathBuf,
}

/// Whether this process may mount file systems.
#[must_use]
pub fn may_mount() -> bool {
    rustix::process::geteuid().is_root()
}

impl Volume {
    /// Mounts an empty file system of so many MiB at `path`, which is created.
    ///
    /// # Errors
    /// The system does not allow it.
    pub fn mount(path: &Path, mebibytes: u32) -> Result<Self> {
        fs::create_dir_all(path).context("make a mount point")?;
        let size = format!("size={mebibytes}m,mode=0700");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "mfpsync-test"]).arg(path))?;
        Ok(Self { path: path.to_owned() })
    }

    /// Writes until nothing more fits.
    ///
    /// # Errors
    /// Something else than a full disk happened.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::options().create(true).append(true).open(self.path.join(BALLAST))?;
        for block in [64 << 10, 512] {
            let zeros = vec![0; block];
            loop {
                match file.write_all(&zeros) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => bail!(error),
                }
            }
        }
        Ok(())
    }

    /// As [`Volume::fill`], but for so many bytes.
    ///
    /// # Errors
    /// As [`Volume::fill`].
    pub fn fill_but(&self, bytes: u64) -> Result<()> {
        self.fill()?;
        let ballast = File::options().write(true).open(self.path.join(BALLAST))?;
        let rest = ballast.metadata()?.len().checked_sub(bytes).context("the disk is too small for that")?;
        Ok(ballast.set_len(rest)?)
    }

    /// Makes room again.
    ///
    /// # Errors
    /// The ballast cannot be removed.
    pub fn empty(&self) -> Result<()> {
        fs::remove_file(self.path.join(BALLAST)).context("remove the ballast")
    }

    /// Makes the file system read-only or writable; nobody may have a file open for writing.
    ///
    /// # Errors
    /// Somebody has.
    pub fn set_read_only(&self, read_only: bool) -> Result<()> {
        let option = if read_only { "remount,ro" } else { "remount,rw" };
        run(Command::new("mount").args(["-o", option]).arg(&self.path))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open there keeps it until the end.
        let _gone_with_the_machine = run(Command::new("umount").arg("--lazy").arg(&self.path));
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
