//! Where private keys rest: a narrow door that firmware can fill with a TPM or secure element, and
//! the plain files used where there is none.
//!
//! What the bytes mean is known to [`crate::identity`] and [`crate::authority`] alone.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::fs::OFlags;
use thiserror::Error;
use zeroize::Zeroizing;

/// Largest key file read, in bytes; everything kept here is far below.
const FILE_BYTES: u64 = 64 << 10;

/// Why a key cannot be read or kept.
#[derive(Debug, Error)]
pub enum KeyStoreError {
    /// The file system refused.
    #[error("key store entry {name}: {source}")]
    Io {
        /// The entry, or the directory.
        name: String,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// Others than the daemon's user own the entry or may read it.
    #[error("key store entry {name} is open to others (owner {owner}, mode {mode:03o})")]
    Exposed {
        /// The entry, or the directory.
        name: String,
        /// Its owner's user id.
        owner: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a name of lower-case letters, digits and hyphens.
    #[error("not a key store name")]
    Name,
    /// Larger than any key.
    #[error("key store entry {0} is larger than a key can be")]
    TooLarge(String),
}

/// Keeps small secrets by name, across restarts and power cuts.
///
/// Calls may block for a moment; they happen at start and when the group's make-up changes.
pub trait KeyStore: Send + Sync {
    /// The bytes kept under `name`, if any.
    ///
    /// # Errors
    /// The store is unreadable, or the entry was open to others.
    fn load(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KeyStoreError>;

    /// Keeps `bytes` under `name` in place of what was there; durable when this returns.
    ///
    /// # Errors
    /// The store is not writable; then the former bytes are still there.
    fn store(&self, name: &str, bytes: &[u8]) -> Result<(), KeyStoreError>;

    /// Forgets `name`; nothing there is fine.
    ///
    /// # Errors
    /// The store is not writable.
    fn erase(&self, name: &str) -> Result<(), KeyStoreError>;
}

/// A directory of mode 0700 with one file of mode 0600 for each name.
#[derive(Debug)]
pub struct FileKeyStore {
    directory: PathBuf,
}

impl FileKeyStore {
    /// Opens the directory, making it if it is missing.
    ///
    /// # Errors
    /// It cannot be made, or others than the daemon's user may enter it.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, KeyStoreError> {
        let directory = directory.into();
        let name = directory.display().to_string();
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed(&name))?;
        let metadata = fs::metadata(&directory).map_err(failed(&name))?;
        refuse_exposed(&name, &metadata)?;
        Ok(Self { directory })
    }

    fn path(&self, name: &str) -> Result<PathBuf, KeyStoreError> {
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            return Err(KeyStoreError::Name);
        }
        Ok(self.directory.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }
}

impl KeyStore for FileKeyStore {
    fn load(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KeyStoreError> {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(self.path(name)?);
        let file = match opened {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed(name))?,
        };
        let metadata = file.metadata().map_err(failed(name))?;
        refuse_exposed(name, &metadata)?;
        if metadata.len() > FILE_BYTES {
            return Err(KeyStoreError::TooLarge(name.to_owned()));
        }
        // Reserved once, so that no copy is left behind in memory by growing.
        let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES as usize));
        file.take(FILE_BYTES).read_to_end(&mut bytes).map_err(failed(name))?;
        Ok(Some(bytes))
    }

    fn store(&self, name: &str, bytes: &[u8]) -> Result<(), KeyStoreError> {
        let path = self.path(name)?;
        // The dot keeps it out of the names that can be asked for.
        let temporary = self.directory.join(format!(".{name}.new"));
        write_private(&temporary, bytes)
            .and_then(|()| fs::rename(&temporary, &path))
            .and_then(|()| self.sync_directory())
            .map_err(failed(name))
    }

    fn erase(&self, name: &str) -> Result<(), KeyStoreError> {
        match fs::remove_file(self.path(name)?) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| self.sync_directory()).map_err(failed(name)),
        }
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)?;
    // A leftover of an interrupted write keeps its old mode when it is opened again.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn refuse_exposed(name: &str, metadata: &fs::Metadata) -> Result<(), KeyStoreError> {
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o777);
    if owner != rustix::process::geteuid().as_raw() || mode & 0o077 != 0 {
        return Err(KeyStoreError::Exposed { name: name.to_owned(), owner, mode });
    }
    Ok(())
}

fn failed(name: &str) -> impl Fn(io::Error) -> KeyStoreError + use<'_> {
    move |source| KeyStoreError::Io { name: name.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, FileKeyStore) {
        let directory = tempfile::tempdir().unwrap();
        let store = FileKeyStore::open(directory.path().join("keys")).unwrap();
        (directory, store)
    }

    #[test]
    fn what_is_stored_is_loaded_and_what_is_erased_is_gone() {
        let (_directory, store) = store();
        assert!(store.load("a-key").unwrap().is_none());
        store.store("a-key", b"one").unwrap();
        store.store("a-key", b"two").unwrap();
        assert_eq!(store.load("a-key").unwrap().unwrap().as_slice(), b"two");
        store.erase("a-key").unwrap();
        store.erase("a-key").unwrap();
        assert!(store.load("a-key").unwrap().is_none());
    }

    #[test]
    fn files_and_directory_are_private() {
        let (_directory, store) = store();
        store.store("k", b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&store.directory), 0o700);
        assert_eq!(mode(&store.directory.join("k")), 0o600);
        assert_eq!(fs::read_dir(&store.directory).unwrap().count(), 1);
    }

    #[test]
    fn an_entry_or_directory_open_to_others_is_refused() {
        let (_directory, store) = store();
        store.store("k", b"x").unwrap();
        fs::set_permissions(store.directory.join("k"), Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(store.load("k"), Err(KeyStoreError::Exposed { mode: 0o640, .. })));
        fs::set_permissions(&store.directory, Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(FileKeyStore::open(&store.directory), Err(KeyStoreError::Exposed { .. })));
    }

    #[test]
    fn a_link_is_not_followed() {
        let (directory, store) = store();
        fs::write(directory.path().join("elsewhere"), b"x").unwrap();
        std::os::unix::fs::symlink(directory.path().join("elsewhere"), store.directory.join("k")).unwrap();
        assert!(matches!(store.load("k"), Err(KeyStoreError::Io { .. })));
    }

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        let (_directory, store) = store();
        for name in ["", "../x", "a/b", ".k.new", "A", "a.b"] {
            assert!(matches!(store.load(name), Err(KeyStoreError::Name)), "{name}");
        }
    }
}
