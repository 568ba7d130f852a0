//! Descriptors of database files: one for each file in this process.
//!
//! Closing any descriptor of a file gives up all locks that this process has on it (POSIX), those of
//! SQLite's connections among them. Another program's SQLite would then take itself for the last user of
//! the database and remove the log that ours goes on writing. So nobody opens such a file a second time,
//! and whoever has it holds on to it for as long as anybody's lock counts.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

static HELD: Mutex<Vec<Weak<File>>> = Mutex::new(Vec::new());

/// The file at `path`, for reading and writing: the descriptor that is there, or a new one.
///
/// # Errors
/// The file system's.
pub(crate) fn open(path: &Path) -> io::Result<Arc<File>> {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    held.retain(|file| file.strong_count() > 0);
    let named = std::fs::metadata(path)?;
    for file in held.iter().filter_map(Weak::upgrade) {
        let open = file.metadata()?;
        if (open.dev(), open.ino()) == (named.dev(), named.ino()) {
            return Ok(file);
        }
    }
    let file = Arc::new(OpenOptions::new().read(true).write(true).open(path)?);
    held.push(Arc::downgrade(&file));
    Ok(file)
}
