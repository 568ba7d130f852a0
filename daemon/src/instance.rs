//! One daemon per data directory: the lock, the directories, and what the process denies itself.
//!
//! Called once by `app` before anything else touches the disk.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::fs::{FlockOperation, Gid, OFlags, chown, flock};
use rustix::process::{DumpableBehavior, Resource, Rlimit, geteuid, set_dumpable_behavior, setrlimit, umask};
use thiserror::Error;

use crate::fault::{Fault, FaultCode};
use crate::unix_socket::Access;

/// The lock file's name in the data directory.
pub const LOCK_NAME: &str = "lock";
const DATA_MODE: u32 = 0o700;
/// A process id and a newline.
const MAX_PID_BYTES: u64 = 16;

/// Why this process may not run on this data directory.
#[derive(Debug, Error)]
pub enum InstanceError {
    /// Another daemon holds the lock.
    #[error("data directory {path} is used by process {pid}")]
    AlreadyRunning {
        /// The data directory.
        path: PathBuf,
        /// The other process, or "?" if it has not said yet.
        pid: String,
    },
    /// The directory belongs to somebody else.
    #[error("{path} belongs to user {owner}, not to user {own} who runs this")]
    ForeignOwner {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Us.
        own: u32,
    },
    /// The system refused.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The process could not be hardened.
    #[error("{action}: {source}")]
    Harden {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl InstanceError {
    /// The fault this is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        let code = match self {
            Self::AlreadyRunning { .. } => FaultCode::AlreadyRunning,
            Self::ForeignOwner { .. } => FaultCode::ReadOnly,
            Self::Harden { .. } => FaultCode::DiskIo,
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull => FaultCode::DiskFull,
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => FaultCode::ReadOnly,
                _ => FaultCode::DiskIo,
            },
        };
        Fault::with_detail(code, self)
    }
}

/// Holds the data directory for this process; released when dropped or when the process ends.
#[derive(Debug)]
pub struct InstanceLock {
    _file: File,
}

impl InstanceLock {
    /// Takes the lock and writes this process's id into it.
    ///
    /// # Errors
    /// Held by another process, or the system refused.
    pub fn acquire(data_dir: &Path) -> Result<Self, InstanceError> {
        let path = data_dir.join(LOCK_NAME);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(io_error("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                let read = (&file).take(MAX_PID_BYTES).read_to_string(&mut pid);
                let pid = match read.map(|_| pid.trim().to_owned()) {
                    Ok(pid) if !pid.is_empty() => pid,
                    Ok(_) | Err(_) => "?".to_owned(),
                };
                return Err(InstanceError::AlreadyRunning { path: data_dir.to_owned(), pid });
            }
            Err(error) => return Err(io_error("lock", &path)(error.into())),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(io_error("write", &path))?;
        Ok(Self { _file: file })
    }
}

/// Creates the two directories, or brings those that exist to the right mode and group.
///
/// # Errors
/// Somebody else's directory, or the system refused.
pub fn prepare_directories(data_dir: &Path, run_dir: &Path, access: &Access) -> Result<(), InstanceError> {
    prepare(data_dir, DATA_MODE, None)?;
    prepare(run_dir, access.directory_mode, access.gid)
}

fn prepare(path: &Path, mode: u32, gid: Option<u32>) -> Result<(), InstanceError> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(io_error("create", path))?;
    let directory = std::fs::metadata(path).map_err(io_error("look at", path))?;
    let own = geteuid().as_raw();
    if directory.uid() != own {
        return Err(InstanceError::ForeignOwner { path: path.to_owned(), owner: directory.uid(), own });
    }
    if let Some(gid) = gid
        && directory.gid() != gid
    {
        chown(path, None, Some(Gid::from_raw(gid)))
            .map_err(|error| io_error("set group of", path)(error.into()))?;
    }
    if directory.mode() & 0o7777 != mode {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
            .map_err(io_error("set mode of", path))?;
    }
    Ok(())
}

/// Keeps the memory of this process, which holds keys, out of core files and away from other
/// processes of the same user.
///
/// # Errors
/// The system refused.
pub fn harden() -> Result<(), InstanceError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| InstanceError::Harden { action: "forbid tracing", source: error.into() })?;
    // Databases and their logs are made by SQLite, which leaves the mode to the mask.
    umask(Mode::from_raw_mode(0o077));
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(|error| InstanceError::Harden { action: "forbid core files", source: error.into() })
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstanceError {
    let path = path.to_owned();
    move |source| InstanceError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use rustix::process::{dumpable_behavior, getrlimit};

    use super::*;
    use crate::config::Local;
    use crate::fault::Exit;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_second_daemon_on_the_same_data_is_told_who_holds_it() {
        let directory = tempfile::tempdir().unwrap();
        let first = InstanceLock::acquire(directory.path()).unwrap();
        let fault = InstanceLock::acquire(directory.path()).unwrap_err().fault();
        assert_eq!(fault.code, FaultCode::AlreadyRunning);
        assert_eq!(fault.code.exit(), Exit::AlreadyRunning);
        let pid = format!("process {}", std::process::id());
        assert!(fault.text.contains(&pid), "{fault}");
        drop(first);
        InstanceLock::acquire(directory.path()).unwrap();
    }

    #[test]
    fn directories_are_created_and_tightened() {
        let directory = tempfile::tempdir().unwrap();
        let (data, run) = (directory.path().join("a/data"), directory.path().join("run"));
        std::fs::create_dir(&run).unwrap();
        std::fs::set_permissions(&run, PermissionsExt::from_mode(0o777)).unwrap();
        let access = Access::of(&Local::default());
        for _ in 0..2 {
            prepare_directories(&data, &run, &access).unwrap();
            assert_eq!((mode(&data), mode(&run)), (0o700, 0o700));
        }
        let own_gid = rustix::process::getegid().as_raw();
        let access = Access::of(&Local { gid: Some(own_gid), allow_uids: Vec::new() });
        prepare_directories(&data, &run, &access).unwrap();
        assert_eq!((mode(&data), mode(&run)), (0o700, 0o750));
    }

    #[test]
    fn a_path_that_is_no_directory_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let access = Access::of(&Local::default());
        let error = prepare_directories(file.path(), file.path(), &access).unwrap_err();
        assert!(error.to_string().starts_with("create "), "{error}");
    }

    #[test]
    fn a_hardened_process_leaves_no_core() {
        harden().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
    }
}
