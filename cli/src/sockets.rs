//! Connections to the daemon's Unix sockets, and how long an answer may take.
//!
//! Knows the three socket names and nothing of what is said over them. Every command reaches the
//! daemon through here.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mfpsync_proto::backup::backup_client::BackupClient;
use mfpsync_proto::local::local_client::LocalClient;
use mfpsync_proto::monitor::monitor_client::MonitorClient;
use mfpsync_proto::panel::panel_client::PanelClient;
use mfpsync_proto::records::records_client::RecordsClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Response, Status};
use tower::service_fn;

use crate::exit::Failure;

const START_HINT: &str = "start it with `systemctl start mfpsyncd`, or name its socket directory with --run";
const RIGHTS_HINT: &str = "this user may not open the socket: use an administrator's account";
const DEBUG_HINT: &str = "the debug socket exists only while unlocked: `mfpsync debug unlock`";

/// The socket directory of one daemon.
#[derive(Debug, Clone)]
pub(crate) struct Sockets {
    run: PathBuf,
    /// How long one answer, or one wait, may take.
    pub(crate) timeout: Duration,
}

impl Sockets {
    pub(crate) fn new(run: impl Into<PathBuf>, timeout: Duration) -> Self {
        Self { run: run.into(), timeout }
    }

    /// Opens the operator's socket.
    ///
    /// # Errors
    /// `Failure::Unreachable` when nobody listens there.
    pub(crate) async fn panel(&self) -> Result<PanelClient<Channel>, Failure> {
        Ok(PanelClient::new(channel(&self.run.join("panel.sock")).await?))
    }

    /// Opens the operator's socket for history, undo, users and edits set aside.
    ///
    /// # Errors
    /// `Failure::Unreachable` when nobody listens there.
    pub(crate) async fn records(&self) -> Result<RecordsClient<Channel>, Failure> {
        Ok(RecordsClient::new(channel(&self.run.join("panel.sock")).await?))
    }

    /// Opens the operator's socket for the communication log, metrics and reload.
    ///
    /// # Errors
    /// `Failure::Unreachable` when nobody listens there.
    pub(crate) async fn monitor(&self) -> Result<MonitorClient<Channel>, Failure> {
        Ok(MonitorClient::new(channel(&self.run.join("panel.sock")).await?))
    }

    /// Opens the operator's socket for archives.
    ///
    /// # Errors
    /// `Failure::Unreachable` when nobody listens there.
    pub(crate) async fn backup(&self) -> Result<BackupClient<Channel>, Failure> {
        Ok(BackupClient::new(channel(&self.run.join("panel.sock")).await?))
    }

    /// Opens the firmware's socket.
    ///
    /// # Errors
    /// `Failure::Unreachable` when nobody listens there.
    pub(crate) async fn local(&self) -> Result<LocalClient<Channel>, Failure> {
        Ok(LocalClient::new(channel(&self.run.join("local.sock")).await?))
    }

    /// Opens the service engineer's socket.
    ///
    /// # Errors
    /// `Failure::Unreachable` while it is locked.
    pub(crate) async fn debug(&self) -> Result<UnixStream, Failure> {
        open(&self.run.join("debug.sock"), DEBUG_HINT).await
    }

    /// Waits for one answer, at most the timeout the operator allowed.
    ///
    /// # Errors
    /// The daemon's refusal, or `Failure::TimedOut`.
    pub(crate) async fn call<T>(
        &self,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        within(self.timeout, "the daemon's answer", async { Ok(answer.await?.into_inner()) }).await
    }

    /// The same for calls whose answer must not be missed because the device is slow.
    ///
    /// # Errors
    /// As `call`.
    pub(crate) async fn call_patiently<T>(
        &self,
        at_least: Duration,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        let patient = Self { run: self.run.clone(), timeout: self.timeout.max(at_least) };
        patient.call(answer).await
    }
}

/// Runs `work` for at most `limit`; `what` names it when it did not end.
///
/// # Errors
/// `Failure::TimedOut`, or what the work ended with.
pub(crate) async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_elapsed) => Err(Failure::TimedOut { what: what.to_owned(), waited: limit }),
    }
}

/// One connection, never re-opened: a daemon that restarts in the middle of a command is reported.
async fn channel(socket: &Path) -> Result<Channel, Failure> {
    let stream = Mutex::new(Some(open(socket, START_HINT).await?));
    let connector = service_fn(move |_uri: Uri| {
        let stream = stream.lock().ok().and_then(|mut slot| slot.take());
        async move { stream.map(TokioIo::new).ok_or(io::Error::from(io::ErrorKind::NotConnected)) }
    });
    // The name is never resolved; HTTP/2 wants an authority.
    Endpoint::from_static("http://mfpsyncd")
        .connect_with_connector(connector)
        .await
        .map_err(|_closed| Failure::ConnectionLost)
}

async fn open(socket: &Path, absent: &'static str) -> Result<UnixStream, Failure> {
    UnixStream::connect(socket).await.map_err(|source| {
        let hint = if source.kind() == io::ErrorKind::PermissionDenied { RIGHTS_HINT } else { absent };
        Failure::Unreachable { socket: socket.to_owned(), source, hint }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[tokio::test]
    async fn an_absent_daemon_is_named_by_its_socket() {
        let run = tempfile::tempdir().unwrap();
        let sockets = Sockets::new(run.path(), Duration::from_secs(1));
        let failure = sockets.panel().await.unwrap_err();
        assert_eq!(failure.exit(), Exit::Unreachable);
        let text = failure.to_string();
        assert!(text.contains("panel.sock") && text.contains("systemctl start"), "{text}");
    }

    #[tokio::test]
    async fn a_locked_debug_socket_says_how_to_unlock_it() {
        let run = tempfile::tempdir().unwrap();
        let failure = Sockets::new(run.path(), Duration::from_secs(1)).debug().await.unwrap_err();
        assert!(failure.to_string().contains("debug unlock"));
    }

    #[tokio::test]
    async fn a_daemon_that_dies_while_it_is_asked_is_not_waited_for() {
        let run = tempfile::tempdir().unwrap();
        let listener = tokio::net::UnixListener::bind(run.path().join("panel.sock")).unwrap();
        let sockets = Sockets::new(run.path(), Duration::from_secs(30));
        let died = async { drop(listener.accept().await.unwrap()) };
        let asked = async {
            let mut panel = sockets.panel().await?;
            sockets.call(panel.status(mfpsync_proto::panel::StatusRequest {})).await
        };
        let ((), answer) = tokio::join!(died, asked);
        assert_eq!(answer.unwrap_err().exit(), Exit::Unreachable);
    }
}
