//! A device that could serve and does not keeps its port open and says who does.
//!
//! Devices that were switched off while the group moved know the addresses of servers that serve no more. They
//! get the claim of the one that does, with its address, instead of silence. Nothing else is answered there.

use std::sync::Arc;
use std::time::Duration;

use mfpsync_proto::sync::sync_server::{Sync, SyncServer};
use mfpsync_proto::sync::{self as wire, Reason};
use mfpsync_replication::message::Claim;
use mfpsync_replication::wire::claim_to_wire;
use mfpsync_storage::model::Capabilities;
use tokio::sync::Mutex;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Code, Request, Response, Status};

use crate::db::READ_DEADLINE;
use crate::device::Device;
use crate::net::acceptor::{self, House, Limits, Shares};
use crate::net::serve::grpc_server;
use crate::refusal;
use crate::role::{Part, SupervisorHandle};
use crate::tls::ServerTls;
use crate::vital::Vital;

/// How long calls under way may take when the port is given up.
const DRAIN: Duration = Duration::from_secs(1);
/// When to try again to open the port.
const AGAIN: Duration = Duration::from_secs(5);

/// The open port, if there is one. The server part takes it down before it opens its own.
#[derive(Debug, Default)]
pub struct Signpost(Mutex<Option<Vital>>);

impl Signpost {
    /// Gives the port up.
    ///
    /// # Cancel safety
    /// The port is given up a little later.
    pub async fn take_down(&self) {
        let Some(standing) = self.0.lock().await.take() else { return };
        standing.stop().cancel();
        standing.tasks().close();
        if tokio::time::timeout(DRAIN, standing.tasks().wait()).await.is_err() {
            tracing::debug!("calls at the signpost did not end in time");
        }
    }
}

/// Has the signpost stand whenever this device may serve and is not to.
///
/// # Cancel safety
/// Safe.
pub async fn keep(device: Arc<Device>, supervisor: SupervisorHandle, stop: CancellationToken) {
    let (mut rows, mut states) = (device.roster.watch(), supervisor.watch());
    while !stop.is_cancelled() {
        rows.mark_unchanged();
        states.mark_unchanged();
        let standing = stand_or_fall(&device, &supervisor).await;
        let changed = async {
            let again = async {
                match standing {
                    Ok(None) => std::future::pending().await,
                    Ok(Some(standing)) => {
                        if standing.lost().await.is_none() {
                            // Taken down.
                            std::future::pending::<()>().await;
                        }
                        device.signpost.take_down().await;
                    }
                    Err(Unopened) => tokio::time::sleep(AGAIN).await,
                }
            };
            tokio::select! {
                changed = rows.changed() => changed.is_ok(),
                changed = states.changed() => changed.is_ok(),
                () = again => true,
            }
        };
        if stop.run_until_cancelled(changed).await == Some(false) {
            break;
        }
    }
    device.signpost.take_down().await;
}

/// The port cannot be opened now.
struct Unopened;

/// The tasks of the signpost that stands then.
async fn stand_or_fall(
    device: &Arc<Device>,
    supervisor: &SupervisorHandle,
) -> Result<Option<Vital>, Unopened> {
    let own = device.roster.member(device.identity.device());
    let may_serve = own.is_some_and(|row| !row.released && row.capabilities.contains(Capabilities::SERVE));
    let mut standing = device.signpost.0.lock().await;
    // Looked at with the lock held: a server that starts later waits for it, and takes this down.
    let state = supervisor.watch().borrow().clone();
    let serves = state.wanted().parts().contains(Part::Server) || state.running().contains(Part::Server);
    if serves || !may_serve {
        drop(standing);
        device.signpost.take_down().await;
        return Ok(None);
    }
    if let Some(standing) = &*standing {
        return Ok(Some(standing.clone()));
    }
    let vital = Vital::new(&TaskTracker::new(), &CancellationToken::new());
    let opened = open(device, &vital).await;
    if let Err(error) = opened {
        tracing::debug!(%error, "open the port to say who serves");
        vital.stop().cancel();
        return Err(Unopened);
    }
    *standing = Some(vital.clone());
    Ok(Some(vital))
}

async fn open(device: &Arc<Device>, vital: &Vital) -> std::io::Result<()> {
    let limits = Limits::default();
    let shares = Shares::new(&limits);
    let tls = ServerTls::new(&device.identity).map_err(std::io::Error::other)?;
    for address in &device.config.listen {
        let listener = tokio::net::TcpListener::bind(address).await?;
        let incoming = acceptor::start(
            listener,
            tls.clone(),
            device.roster.clone(),
            House {
                pairing: Arc::new(|| false),
                communication: device.communication.clone(),
                stats: device.stats.clone(),
                cut: vital.stop().clone(),
                shares: shares.clone(),
            },
            limits,
            vital,
        );
        let service = SyncServer::new(Directions(device.clone()));
        let stop = vital.stop().clone();
        let serve = grpc_server().add_service(service).serve_with_incoming_shutdown(
            ReceiverStream::new(incoming.sync).map(Ok::<_, Status>),
            stop.cancelled_owned(),
        );
        vital.spawn("directions", async move {
            if let Err(error) = serve.await {
                tracing::warn!(%error, "say who serves");
            }
        });
    }
    Ok(())
}

/// Answers every call with who serves.
struct Directions(Arc<Device>);

impl Directions {
    async fn elsewhere(&self) -> Status {
        let read = |read: &mfpsync_storage::local::LocalRead<'_>| {
            Ok((read.lineage()?, read.issuers()?, read.members()?))
        };
        let (lineage, issuers, members) = match self.0.own.db().read(READ_DEADLINE, read).await {
            Ok(known) => known,
            Err(error) => return crate::storage_fault::refusal(&error),
        };
        let claim = lineage.last().map(|last| Claim::of(last.clone(), &issuers, &members));
        let claim = claim.filter(|claim| claim.promotion.record.device != self.0.identity.device());
        let Some(claim) = claim else { return refusal::stopping() };
        let text = "another device is the group's server";
        let refusal = wire::Refusal {
            claim: Some(claim_to_wire(&claim)),
            ..refusal::refusal(Reason::Superseded, text)
        };
        refusal::from_refusal(Code::FailedPrecondition, &refusal)
    }
}

#[tonic::async_trait]
impl Sync for Directions {
    async fn hello(&self, _: Request<wire::HelloRequest>) -> Result<Response<wire::HelloReply>, Status> {
        Err(self.elsewhere().await)
    }

    type FollowStream = tokio_stream::Empty<Result<wire::FollowEvent, Status>>;

    async fn follow(&self, _: Request<wire::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        Err(self.elsewhere().await)
    }

    async fn push(&self, _: Request<wire::PushRequest>) -> Result<Response<wire::PushReply>, Status> {
        Err(self.elsewhere().await)
    }

    async fn confirm(&self, _: Request<wire::FollowRequest>) -> Result<Response<wire::ConfirmReply>, Status> {
        Err(self.elsewhere().await)
    }

    async fn report(&self, _: Request<wire::ReportRequest>) -> Result<Response<wire::ReportReply>, Status> {
        Err(self.elsewhere().await)
    }

    async fn leave(&self, _: Request<wire::LeaveRequest>) -> Result<Response<wire::LeaveReply>, Status> {
        Err(self.elsewhere().await)
    }
}
