//! The file of the recovery kit: reserved before the group exists, never overwritten, and read again when a
//! device is to be certified.
//!
//! The kit is shown once in a group's life, and the group is founded when it is safe: until then every step
//! may fail harmlessly. Called by `role`, `replication set`, `transfer`, `recover` and the demo.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::exit::Failure;
use crate::secret::{self, Secret};

/// More than any kit; a larger file is the wrong file.
const MAX_KIT_BYTES: u64 = 64 << 10;

/// A recovery kit and what it was wrapped with.
#[derive(Debug)]
pub(crate) struct Kit {
    pub(crate) text: Secret,
    pub(crate) passphrase: Secret,
}

impl Kit {
    /// Reads a kit that is there; its passphrase is the file's first line, or asked for.
    ///
    /// # Errors
    /// `Failure::File`, or nobody can be asked.
    pub(crate) async fn open(path: &Path, passphrase_file: Option<&Path>) -> Result<Self, Failure> {
        Ok(Self { text: read(path)?, passphrase: secret::passphrase_of_kit(passphrase_file).await? })
    }
}

fn read(path: &Path) -> Result<Secret, Failure> {
    let failure = |source| Failure::File { action: "read the recovery kit", path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path).map_err(failure)?.take(MAX_KIT_BYTES).read_to_string(&mut text).map_err(failure)?;
    Ok(Secret::new(text))
}

/// An empty file of mode 0600 that waits for the kit; removed again unless filled.
#[derive(Debug)]
pub(crate) struct KitFile {
    file: File,
    path: PathBuf,
    filled: bool,
}

impl KitFile {
    /// Creates the file.
    ///
    /// # Errors
    /// `Failure::File` when it exists already or cannot be created.
    pub(crate) fn reserve(path: &Path) -> Result<Self, Failure> {
        let file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|source| {
                Failure::File { action: "create the recovery kit", path: path.to_owned(), source }
            })?;
        Ok(Self { file, path: path.to_owned(), filled: false })
    }

    /// Writes the kit and makes file and directory entry durable.
    ///
    /// # Errors
    /// `Failure::File`; the file is gone again.
    pub(crate) fn fill(mut self, kit: &str) -> Result<(), Failure> {
        let failure =
            |source| Failure::File { action: "write the recovery kit", path: self.path.clone(), source };
        self.file.write_all(kit.as_bytes()).and_then(|()| self.file.sync_all()).map_err(failure)?;
        let directory = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            Some(_) | None => Path::new("."),
        };
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(|source| Failure::File {
            action: "make durable the directory of",
            path: self.path.clone(),
            source,
        })?;
        self.filled = true;
        Ok(())
    }
}

impl Drop for KitFile {
    fn drop(&mut self) {
        if !self.filled {
            // An empty file left behind is refused by the next attempt with its name: seen, not lost.
            let _left_behind = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_kit_is_readable_by_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kit.age");
        KitFile::reserve(&path).unwrap().fill("armored").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "armored");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kit.age");
        fs::write(&path, "an older kit").unwrap();
        assert!(KitFile::reserve(&path).unwrap_err().to_string().contains("kit.age"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "an older kit");
    }

    #[test]
    fn a_reservation_that_was_not_needed_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kit.age");
        drop(KitFile::reserve(&path).unwrap());
        assert!(!path.exists());
    }
}
