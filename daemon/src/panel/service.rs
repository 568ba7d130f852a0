//! The gRPC handlers of the panel API, thin over the device and the supervisor.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mfpsync_proto::panel as wire;
use mfpsync_proto::panel::panel_server::Panel;
use mfpsync_storage::local::SetAside;
use mfpsync_storage::model::{Action, DeviceId, EditOutcome, Outcome};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use super::status::{revision, role};
use super::{discover, founding, join, joining, refounding, reign, replication, status};
use crate::communication::{Code as EventCode, Event};
use crate::db::READ_DEADLINE;
use crate::debug_socket::{DebugLock, SOCKET_NAME};
use crate::device::Device;
use crate::pairing::State as Pairing;
use crate::refusal;
use crate::role::{Role, SupervisorHandle};
use crate::server::ServerPart;
use crate::storage_fault;

/// A changed status is sent at most this often.
const STATUS_PAUSE: Duration = Duration::from_millis(500);
/// Without a change the status is looked at anew this often: counts and ages move by themselves.
const STATUS_REFRESH: Duration = Duration::from_secs(1);
const SET_ASIDE: u32 = 500;

/// What the panel works with.
pub struct Session {
    /// The device.
    pub device: Arc<Device>,
    /// Changes roles.
    pub supervisor: SupervisorHandle,
    /// The debug socket's lock.
    pub debug: DebugLock,
    /// When the daemon started.
    pub started: Instant,
    pub(super) prepared: founding::Prepared,
    /// Streams run here.
    pub tasks: TaskTracker,
    /// Ends streams.
    pub stop: CancellationToken,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// What a panel of this device works with from now on.
    #[must_use]
    pub fn new(
        device: Arc<Device>,
        supervisor: SupervisorHandle,
        debug: DebugLock,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self { device, supervisor, debug, started: Instant::now(), prepared: Arc::default(), tasks, stop }
    }

    /// The role that was decided on last.
    pub(super) fn wanted(&self) -> Role {
        self.supervisor.watch().borrow().wanted()
    }

    /// The running server.
    pub(super) fn server(&self) -> Result<Arc<ServerPart>, Status> {
        self.device.server.load_full().ok_or_else(|| {
            Status::failed_precondition("this device is not a running server; do this at the group's server")
        })
    }

    /// Decides on a role; answered when the decision is durable.
    pub(super) async fn switch(&self, to: Role) -> Result<wire::RoleReply, Status> {
        let state = self
            .supervisor
            .switch(to)
            .await
            .map_err(|error| Status::failed_precondition(error.to_string()))?;
        Ok(wire::RoleReply { wanted: role(state.wanted()).into() })
    }
}

/// Serves `mfpsync.panel.v1.Panel`.
#[derive(Debug, Clone)]
pub struct PanelService(pub Arc<Session>);

#[tonic::async_trait]
impl Panel for PanelService {
    async fn status(&self, _: Request<wire::StatusRequest>) -> Result<Response<wire::StatusReply>, Status> {
        Ok(Response::new(status::status(&self.0).await))
    }

    type WatchStatusStream = Pin<Box<dyn Stream<Item = Result<wire::StatusReply, Status>> + Send>>;

    async fn watch_status(
        &self,
        _: Request<wire::StatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let (to, replies) = mpsc::channel(1);
        let session = self.0.clone();
        self.0.tasks.spawn(async move {
            let stop = session.stop.clone();
            tokio::select! {
                () = watch_status(&session, &to) => {}
                // The caller may be gone already.
                () = stop.cancelled() => drop(to.try_send(Err(refusal::stopping()))),
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(replies))))
    }

    async fn prepare_group(
        &self,
        request: Request<wire::PrepareGroupRequest>,
    ) -> Result<Response<wire::PrepareGroupReply>, Status> {
        founding::prepare(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn found_group(
        &self,
        request: Request<wire::FoundGroupRequest>,
    ) -> Result<Response<wire::FoundGroupReply>, Status> {
        founding::found(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn start_server(
        &self,
        request: Request<wire::StartServerRequest>,
    ) -> Result<Response<wire::RoleReply>, Status> {
        join::start_server(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn stop_server(
        &self,
        _: Request<wire::StopServerRequest>,
    ) -> Result<Response<wire::RoleReply>, Status> {
        let next = match self.0.wanted() {
            Role::Server => Role::Idle,
            Role::ServerClient => Role::Client,
            Role::Idle | Role::Client | Role::Replica | Role::ReplicaClient => {
                return Err(Status::failed_precondition("this device is not a server"));
            }
        };
        self.0.switch(next).await.map(Response::new)
    }

    async fn join(&self, request: Request<wire::JoinRequest>) -> Result<Response<wire::JoinReply>, Status> {
        join::join(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn join_plan(
        &self,
        request: Request<wire::JoinPlanRequest>,
    ) -> Result<Response<wire::JoinPlanReply>, Status> {
        joining::plan(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn accept_join(
        &self,
        request: Request<wire::AcceptJoinRequest>,
    ) -> Result<Response<wire::AcceptJoinReply>, Status> {
        joining::accept(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn cancel_join(
        &self,
        _: Request<wire::CancelJoinRequest>,
    ) -> Result<Response<wire::LeaveReply>, Status> {
        joining::cancel(&self.0).await.map(Response::new)
    }

    async fn undo_join(
        &self,
        request: Request<wire::UndoJoinRequest>,
    ) -> Result<Response<wire::UndoJoinReply>, Status> {
        joining::undo(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn discover(
        &self,
        request: Request<wire::DiscoverRequest>,
    ) -> Result<Response<wire::DiscoverReply>, Status> {
        discover::discover(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn start_client(
        &self,
        _: Request<wire::StartClientRequest>,
    ) -> Result<Response<wire::RoleReply>, Status> {
        join::start_client(&self.0).await.map(Response::new)
    }

    async fn leave(
        &self,
        request: Request<wire::LeaveRequest>,
    ) -> Result<Response<wire::LeaveReply>, Status> {
        join::leave(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn open_pairing(
        &self,
        _: Request<wire::OpenPairingRequest>,
    ) -> Result<Response<wire::OpenPairingReply>, Status> {
        let server = self.0.server()?;
        let code = server.desk.open().map_err(|error| Status::internal(error.to_string()))?;
        let Pairing::Open { remaining, tries_left } = server.desk.state() else {
            return Err(Status::internal("pairing did not open"));
        };
        Ok(Response::new(wire::OpenPairingReply {
            code: code.reveal().to_string(),
            seconds: u32::try_from(remaining.as_secs_f32().round() as u64).unwrap_or(u32::MAX),
            tries: tries_left.into(),
            addresses: self.0.device.endpoints(&server.listening),
        }))
    }

    async fn close_pairing(
        &self,
        _: Request<wire::ClosePairingRequest>,
    ) -> Result<Response<wire::ClosePairingReply>, Status> {
        self.0.server()?.desk.close();
        self.0.device.communication.record(Event::new(EventCode::PairingClosed));
        Ok(Response::new(wire::ClosePairingReply {}))
    }

    async fn devices(
        &self,
        _: Request<wire::DevicesRequest>,
    ) -> Result<Response<wire::DevicesReply>, Status> {
        Ok(Response::new(wire::DevicesReply { devices: devices(&self.0.device) }))
    }

    async fn release_device(
        &self,
        request: Request<wire::ReleaseDeviceRequest>,
    ) -> Result<Response<wire::ReleaseDeviceReply>, Status> {
        let server = self.0.server()?;
        let id = DeviceId::from_hex(&request.into_inner().device_id)
            .ok_or_else(|| Status::invalid_argument("a device's id is 32 hex digits; see the device list"))?;
        if id == self.0.device.identity.device() {
            return Err(Status::failed_precondition(
                "a server cannot release itself; stop the server instead",
            ));
        }
        let member = self.0.device.roster.member(id);
        let member = member.ok_or_else(|| Status::not_found("no device of the group has this id"))?;
        server.serving.release(id).await?;
        self.0.device.communication.record(Event::new(EventCode::MemberReleased).peer(id));
        Ok(Response::new(wire::ReleaseDeviceReply { device_name: member.name.clone() }))
    }

    async fn set_replication(
        &self,
        request: Request<wire::SetReplicationRequest>,
    ) -> Result<Response<wire::SetReplicationReply>, Status> {
        replication::set(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn stop_replication(
        &self,
        _: Request<wire::StopReplicationRequest>,
    ) -> Result<Response<wire::StopReplicationReply>, Status> {
        replication::stop(&self.0).await.map(Response::new)
    }

    async fn replication(
        &self,
        _: Request<wire::ReplicationRequest>,
    ) -> Result<Response<wire::ReplicationReply>, Status> {
        replication::replication(&self.0).await.map(Response::new)
    }

    async fn prove_replica(
        &self,
        _: Request<wire::ProveReplicaRequest>,
    ) -> Result<Response<wire::ProveReplicaReply>, Status> {
        replication::prove(&self.0).await.map(Response::new)
    }

    async fn promote(
        &self,
        request: Request<wire::PromoteRequest>,
    ) -> Result<Response<wire::PromoteReply>, Status> {
        reign::promote(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn transfer(
        &self,
        _: Request<wire::TransferRequest>,
    ) -> Result<Response<wire::TransferReply>, Status> {
        reign::transfer(&self.0).await.map(Response::new)
    }

    async fn succeed(
        &self,
        request: Request<wire::SucceedRequest>,
    ) -> Result<Response<wire::SucceedReply>, Status> {
        reign::succeed(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn refound(
        &self,
        request: Request<wire::RefoundRequest>,
    ) -> Result<Response<wire::RoleReply>, Status> {
        refounding::refound(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn look_for_servers(
        &self,
        _: Request<wire::LookForServersRequest>,
    ) -> Result<Response<wire::LookForServersReply>, Status> {
        refounding::look(&self.0).await.map(Response::new)
    }

    async fn release_replica(
        &self,
        request: Request<wire::ReleaseReplicaRequest>,
    ) -> Result<Response<wire::ReleaseReplicaReply>, Status> {
        reign::release(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn stay(&self, _: Request<wire::StayRequest>) -> Result<Response<wire::StayReply>, Status> {
        reign::stay(&self.0).await.map(Response::new)
    }

    async fn retire_server(
        &self,
        _: Request<wire::RetireServerRequest>,
    ) -> Result<Response<wire::RetireServerReply>, Status> {
        reign::retire(&self.0).await.map(Response::new)
    }

    async fn set_aside(
        &self,
        _: Request<wire::SetAsideRequest>,
    ) -> Result<Response<wire::SetAsideReply>, Status> {
        let read = self.0.device.own.db().read(READ_DEADLINE, |read| read.set_aside(SET_ASIDE)).await;
        let edits =
            read.map_err(|error| storage_fault::refusal(&error))?.into_iter().flat_map(set_aside).collect();
        Ok(Response::new(wire::SetAsideReply { edits }))
    }

    async fn unlock_debug(
        &self,
        request: Request<wire::UnlockDebugRequest>,
    ) -> Result<Response<wire::UnlockDebugReply>, Status> {
        let minutes = request.into_inner().minutes;
        let unlocked = self.0.debug.unlock(minutes).await;
        unlocked.map_err(|error| Status::failed_precondition(error.to_string()))?;
        let path = self.0.device.config.run_dir.join(SOCKET_NAME).display().to_string();
        Ok(Response::new(wire::UnlockDebugReply { path, minutes }))
    }

    async fn lock_debug(
        &self,
        _: Request<wire::LockDebugRequest>,
    ) -> Result<Response<wire::LockDebugReply>, Status> {
        let locked = self.0.debug.lock().await;
        locked.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(wire::LockDebugReply {}))
    }
}

async fn watch_status(session: &Session, to: &mpsc::Sender<Result<wire::StatusReply, Status>>) {
    let mut sent: Option<wire::StatusReply> = None;
    let mut roles = session.supervisor.watch();
    let mut links = session.device.link.subscribe();
    let mut faults = session.device.faults.watch();
    loop {
        let mut now = status::status(session).await;
        let shown = now.clone();
        // Time alone is no change.
        now.uptime_seconds = 0;
        if sent.as_ref() != Some(&now) {
            if to.send(Ok(shown)).await.is_err() {
                return;
            }
            sent = Some(now);
            tokio::time::sleep(STATUS_PAUSE).await;
        }
        tokio::select! {
            // Any of them ending means that the daemon stops; the stream's owner sees to that.
            _ = roles.changed() => {}
            _ = links.changed() => {}
            _ = faults.changed() => {}
            () = tokio::time::sleep(STATUS_REFRESH) => {}
            () = to.closed() => return,
        }
    }
}

fn devices(device: &Device) -> Vec<wire::Device> {
    let server = device.server.load_full();
    let shown = |member: &mfpsync_storage::model::Member| {
        let seen = server.as_ref().and_then(|server| server.serving.connected.seen(member.device));
        let epoch = server.as_ref().map_or(0, |server| server.serving.head().epoch.number);
        wire::Device {
            id: member.device.to_string(),
            name: member.name.clone(),
            capabilities: member.capabilities.names().map(str::to_owned).collect(),
            released: member.released,
            connected: seen.is_some_and(|seen| seen.connected),
            endpoints: member.endpoints.clone(),
            position: seen.map(|seen| wire::Revision { epoch, sequence: seen.position.0 }),
            last_heard_millis: seen.map(|seen| u64::try_from(seen.heard.as_millis()).unwrap_or(u64::MAX)),
            this_device: member.device == device.identity.device(),
        }
    };
    device.roster.members().iter().map(|member| shown(member)).collect()
}

/// One line for each edit of an operation that was rejected, or that lost.
fn set_aside(entry: SetAside) -> Vec<wire::SetAsideEdit> {
    let described = |place: usize, outcome: &str, reason: &str, fields: Vec<String>, by| {
        entry.operation.edits.get(place).map(|edit| wire::SetAsideEdit {
            operation: entry.operation.number.0,
            outcome: outcome.to_owned(),
            reason: reason.to_owned(),
            scope: edit.key.scope.as_str().to_owned(),
            kind: edit.key.kind.as_str().to_owned(),
            item_id: edit.key.id.clone(),
            fields,
            by,
            at_unix_millis: entry.noticed_at,
        })
    };
    match &entry.outcome {
        Outcome::Rejected { reason, edit } => {
            let fields = entry.operation.edits.get(*edit).map(|edit| named(&edit.action)).unwrap_or_default();
            described(*edit, "rejected", &reason.to_string(), fields, None).into_iter().collect()
        }
        Outcome::Accepted { edits, .. } => edits
            .iter()
            .enumerate()
            .filter_map(|(place, outcome)| match outcome {
                EditOutcome::Superseded { by, fields } => described(
                    place,
                    "superseded",
                    "changed elsewhere first",
                    fields.clone(),
                    Some(revision(*by)),
                ),
                EditOutcome::Applied | EditOutcome::Merged { .. } | EditOutcome::Unchanged => None,
            })
            .collect(),
    }
}

fn named(action: &Action) -> Vec<String> {
    match action {
        Action::Put(fields) => fields.names().map(str::to_owned).collect(),
        Action::Patch { set, remove } => {
            set.names().map(str::to_owned).chain(remove.iter().cloned()).collect()
        }
        Action::Delete => Vec::new(),
    }
}
