//! Local sockets: bound with the right mode from the first moment, and a check of who connects.
//!
//! Never takes a socket away from a process that answers on it, and never removes a file that is
//! not a socket.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Gid, chown};
use rustix::process::geteuid;
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tonic::service::Interceptor;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};

use crate::config::Local;

/// A socket whose owner takes longer than this to accept is in use all the same.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// Who may connect, decided from the credentials the kernel reports for the peer. Supplementary
/// groups are not among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerPolicy {
    uids: Vec<u32>,
    gid: Option<u32>,
}

impl PeerPolicy {
    /// Whether a process of this user and primary group may connect.
    #[must_use]
    pub fn allowed(&self, uid: u32, gid: u32) -> bool {
        self.uids.contains(&uid) || self.gid == Some(gid)
    }

    /// Whether the peer of this stream may use it; a peer without credentials may not.
    #[must_use]
    pub fn admits(&self, stream: &UnixStream) -> bool {
        stream.peer_cred().is_ok_and(|peer| self.allowed(peer.uid(), peer.gid()))
    }
}

impl Interceptor for PeerPolicy {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let peer = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
        match peer {
            Some(peer) if self.allowed(peer.uid(), peer.gid()) => Ok(request),
            Some(_) | None => Err(Status::permission_denied("this process may not use this socket")),
        }
    }
}

/// How local sockets are protected: file modes as far as they go, then the peer's credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Mode of the directory that holds the sockets.
    pub directory_mode: u32,
    /// Mode of each socket.
    pub socket_mode: u32,
    /// Group of both.
    pub gid: Option<u32>,
    /// Who may connect.
    pub policy: PeerPolicy,
}

impl Access {
    /// What the configuration asks for. Root and the daemon's own user may always connect.
    #[must_use]
    pub fn of(local: &Local) -> Self {
        let own = geteuid().as_raw();
        let mut uids = vec![own, 0];
        uids.extend(&local.allow_uids);
        let has_strangers = uids.iter().any(|uid| *uid != own && *uid != 0);
        // File modes cannot name a list of users, so with one the peer check alone decides.
        let (directory_mode, socket_mode) = match (has_strangers, local.gid) {
            (true, _) => (0o755, 0o666),
            (false, Some(_)) => (0o750, 0o660),
            (false, None) => (0o700, 0o600),
        };
        Self { directory_mode, socket_mode, gid: local.gid, policy: PeerPolicy { uids, gid: local.gid } }
    }
}

/// Why a socket cannot be bound.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Another process answers there.
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    /// The path holds something else.
    #[error("{0} is not a socket and was left as it is")]
    NotASocket(PathBuf),
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
}

/// The file of a bound socket; removed when dropped, unless another one has taken its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|file| identity(&file) == self.identity);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "socket file stays behind");
        }
    }
}

/// Binds a socket; a file left behind by a dead process is replaced.
///
/// # Errors
/// In use, not a socket, or the system refused.
///
/// # Cancel safety
/// Nothing is left behind.
pub async fn bind(path: &Path, access: &Access) -> Result<(UnixListener, SocketFile), SocketError> {
    expect_free(path).await?;
    // Under another name until mode and owner are right, so that nobody connects too early.
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(SocketError::Io { action: "remove", path: temporary, source: error });
        }
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&temporary).map_err(io_error("bind", &temporary))?;
    std::fs::set_permissions(&temporary, PermissionsExt::from_mode(access.socket_mode))
        .map_err(io_error("set mode of", &temporary))?;
    if let Some(gid) = access.gid {
        chown(&temporary, None, Some(Gid::from_raw(gid)))
            .map_err(|error| io_error("set group of", &temporary)(error.into()))?;
    }
    let file = std::fs::symlink_metadata(&temporary).map_err(io_error("look at", &temporary))?;
    std::fs::rename(&temporary, path).map_err(io_error("rename to", path))?;
    Ok((listener, SocketFile { path: path.to_owned(), identity: identity(&file) }))
}

async fn expect_free(path: &Path) -> Result<(), SocketError> {
    let file = match std::fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("look at", path)(error)),
    };
    if !file.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    match timeout(PROBE_LIMIT, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(_) | Err(_) => Err(SocketError::InUse(path.to_owned())),
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SocketError {
    let path = path.to_owned();
    move |source| SocketError::Io { action, path, source }
}

fn identity(file: &std::fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Access {
        Access::of(&Local::default())
    }

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[tokio::test]
    async fn a_socket_has_its_mode_and_goes_with_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("local.sock");
        let (listener, file) = bind(&path, &own()).await.unwrap();
        assert_eq!(mode(&path), 0o600);
        let client = UnixStream::connect(&path).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        assert!(own().policy.admits(&server));
        drop((client, file));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("local.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (listener, file) = bind(&path, &own()).await.unwrap();
        assert!(matches!(bind(&path, &own()).await, Err(SocketError::InUse(_))));
        drop((listener, file));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_not_a_socket_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("local.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path, &own()).await, Err(SocketError::NotASocket(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_successor_at_the_same_path_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("local.sock");
        let (listener, file) = bind(&path, &own()).await.unwrap();
        drop(listener);
        let (_listener, _successor) = bind(&path, &own()).await.unwrap();
        drop(file);
        assert!(path.exists());
    }

    #[test]
    fn modes_follow_from_who_is_let_in() {
        let access = |gid, allow_uids: &[u32]| {
            let access = Access::of(&Local { gid, allow_uids: allow_uids.to_vec() });
            (access.directory_mode, access.socket_mode)
        };
        assert_eq!(access(None, &[]), (0o700, 0o600));
        assert_eq!(access(None, &[0]), (0o700, 0o600));
        assert_eq!(access(Some(7), &[]), (0o750, 0o660));
        assert_eq!(access(Some(7), &[4_000_000]), (0o755, 0o666));
    }

    #[test]
    fn peers_are_let_in_by_user_or_by_primary_group() {
        let policy = Access::of(&Local { gid: Some(70), allow_uids: vec![900] }).policy;
        assert!(policy.allowed(0, 0));
        assert!(policy.allowed(geteuid().as_raw(), 12));
        assert!(policy.allowed(900, 900));
        assert!(policy.allowed(901, 70));
        assert!(!policy.allowed(901, 71));
    }

    #[test]
    fn a_request_without_credentials_is_refused() {
        let refused = own().policy.call(Request::new(())).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    }
}
