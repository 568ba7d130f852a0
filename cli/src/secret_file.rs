//! A file for something that is shown once: a recovery kit, a key of archives. Reserved before the thing exists, readable
//! by its owner alone, never overwritten; until it is safe there, every step may fail harmlessly.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::exit::Failure;

/// An empty file of mode 0600 that waits for a secret; removed again unless filled.
#[derive(Debug)]
pub(crate) struct SecretFile {
    file: File,
    path: PathBuf,
    filled: bool,
}

impl SecretFile {
    /// Creates the file.
    ///
    /// # Errors
    /// `Failure::File` when it exists already or cannot be created.
    pub(crate) fn reserve(path: &Path) -> Result<Self, Failure> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| Failure::File { action: "create", path: path.to_owned(), source })?;
        Ok(Self { file, path: path.to_owned(), filled: false })
    }

    /// Writes the secret and makes file and directory entry durable.
    ///
    /// # Errors
    /// `Failure::File`; the file is gone again.
    pub(crate) fn fill(mut self, secret: &str) -> Result<(), Failure> {
        let failure = |source| Failure::File { action: "write", path: self.path.clone(), source };
        self.file.write_all(secret.as_bytes()).and_then(|()| self.file.sync_all()).map_err(failure)?;
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

impl Drop for SecretFile {
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
    fn a_secret_is_readable_by_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kit.age");
        SecretFile::reserve(&path).unwrap().fill("armored").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "armored");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kit.age");
        fs::write(&path, "an older kit").unwrap();
        assert!(SecretFile::reserve(&path).unwrap_err().to_string().contains("kit.age"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "an older kit");
    }

    #[test]
    fn a_reservation_that_was_not_needed_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kit.age");
        drop(SecretFile::reserve(&path).unwrap());
        assert!(!path.exists());
    }
}
