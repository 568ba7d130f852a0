//! Replacing a file so that a power cut leaves either the old content or the new.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::open::with_suffix;

/// Replaces a file's content: written beside it, synced, renamed over it, and the rename synced.
///
/// # Errors
/// The file system's; the file is then as it was.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = with_suffix(path, ".tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    rename(&beside, path)
}

/// Moves a file whose content is on stable storage to another name.
///
/// # Errors
/// The file system's.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    sync_directory_of(to)
}

/// Has the names in a file's directory on stable storage.
///
/// # Errors
/// The file system's.
pub(crate) fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}
