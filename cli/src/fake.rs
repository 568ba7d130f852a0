//! A daemon of the tests' own: both sockets, items in memory, answers as each test sets them.
//!
//! It stores puts and patches as `local.proto` says and nothing more; what the real daemon decides is
//! tested with the real daemon.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use mfpsync_proto::local::edit::Edit as EditKind;
use mfpsync_proto::local::local_server::{Local, LocalServer};
use mfpsync_proto::local::watch_event::Event;
use mfpsync_proto::local::{
    AcknowledgeNoticesReply, AcknowledgeNoticesRequest, Field, GetReply, GetRequest, Item, ItemKey,
    ListReply, ListRequest, LoginReply, LoginRequest, LogoutReply, LogoutRequest, Started, WatchEvent,
    WatchRequest, WriteReply, WriteRequest,
};
use mfpsync_proto::panel::panel_server::{Panel, PanelServer};
use mfpsync_proto::panel::{
    AcceptJoinReply, AcceptJoinRequest, CancelJoinRequest, ClosePairingReply, ClosePairingRequest,
    DevicesReply, DevicesRequest, DiscoverReply, DiscoverRequest, FoundGroupReply, FoundGroupRequest,
    JoinPlanReply, JoinPlanRequest, JoinReply, JoinRequest, LeaveReply, LeaveRequest, LockDebugReply,
    LockDebugRequest, LookForServersReply, LookForServersRequest, OpenPairingReply, OpenPairingRequest,
    PrepareGroupReply, PrepareGroupRequest, PromoteReply, PromoteRequest, ProveReplicaReply,
    ProveReplicaRequest, RefoundRequest, ReleaseDeviceReply, ReleaseDeviceRequest, ReleaseReplicaReply,
    ReleaseReplicaRequest, ReplicationReply, ReplicationRequest, RetireServerReply, RetireServerRequest,
    Role, RoleReply, SetAsideReply, SetAsideRequest, SetReplicationReply, SetReplicationRequest,
    StartClientRequest, StartServerRequest, StatusReply, StatusRequest, StayReply, StayRequest,
    StopReplicationReply, StopReplicationRequest, StopServerRequest, SucceedReply, SucceedRequest,
    TransferReply, TransferRequest, UndoJoinReply, UndoJoinRequest, UnlockDebugReply, UnlockDebugRequest,
};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

mod tests;

type Key = (String, String, String);
type Reply<T> = Result<Response<T>, Status>;
type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the daemon holds and how it shall behave.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) items: BTreeMap<Key, Item>,
    /// Sizes of the writes that were accepted.
    pub(crate) writes: Vec<usize>,
    /// Writes to accept before one is refused.
    pub(crate) writes_left: Option<usize>,
    /// What a watcher of the status sees, in order; the stream stays open behind the last.
    pub(crate) statuses: Vec<StatusReply>,
    pub(crate) prepared: Vec<PrepareGroupRequest>,
    pub(crate) founded: Vec<String>,
    pub(crate) refuses_to_found: bool,
    pub(crate) joined: Vec<JoinRequest>,
}

/// A running fake; both sockets live in its directory until it is dropped.
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    run: TempDir,
    _servers: JoinSet<()>,
}

impl Fake {
    pub(crate) fn start() -> Self {
        let run = tempfile::tempdir().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let mut servers = JoinSet::new();
        let incoming =
            |name: &str| UnixListenerStream::new(UnixListener::bind(run.path().join(name)).unwrap());
        let (panel, local) = (incoming("panel.sock"), incoming("local.sock"));
        let (for_panel, for_local) = (Service(Arc::clone(&state)), Service(Arc::clone(&state)));
        servers.spawn(async move {
            Server::builder()
                .add_service(PanelServer::new(for_panel))
                .serve_with_incoming(panel)
                .await
                .unwrap();
        });
        servers.spawn(async move {
            Server::builder()
                .add_service(LocalServer::new(for_local))
                .serve_with_incoming(local)
                .await
                .unwrap();
        });
        Self { state, run, _servers: servers }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.run.path().join(name)
    }
}

#[derive(Clone)]
struct Service(Arc<Mutex<State>>);

impl Service {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

fn name(key: &ItemKey) -> Key {
    (key.scope.clone(), key.kind.clone(), key.id.clone())
}

fn apply(items: &mut BTreeMap<Key, Item>, edit: EditKind) {
    match edit {
        EditKind::Put(put) => {
            let key = put.key.unwrap();
            items.insert(name(&key), Item { key: Some(key), fields: put.fields, ..Item::default() });
        }
        EditKind::Patch(patch) => {
            let key = patch.key.unwrap();
            let item = items.entry(name(&key)).or_insert_with(|| Item { key: Some(key), ..Item::default() });
            let replaced = |field: &Field| {
                patch.remove.contains(&field.name) || patch.set.iter().any(|set| set.name == field.name)
            };
            item.fields.retain(|field| !replaced(field));
            item.fields.extend(patch.set.iter().cloned());
        }
        EditKind::Delete(delete) => {
            items.remove(&name(&delete.key.unwrap()));
        }
    }
}

fn unused<T>() -> Reply<T> {
    Err(Status::unimplemented("no test uses this"))
}

#[tonic::async_trait]
impl Local for Service {
    type ListStream = Events<ListReply>;
    type WatchStream = Events<WatchEvent>;

    async fn login(&self, _request: Request<LoginRequest>) -> Reply<LoginReply> {
        unused()
    }

    async fn acknowledge_notices(
        &self,
        _request: Request<AcknowledgeNoticesRequest>,
    ) -> Reply<AcknowledgeNoticesReply> {
        unused()
    }

    async fn logout(&self, _request: Request<LogoutRequest>) -> Reply<LogoutReply> {
        unused()
    }

    async fn get(&self, request: Request<GetRequest>) -> Reply<GetReply> {
        let key = request.into_inner().key.unwrap();
        let item = self.state().items.get(&name(&key)).cloned();
        let item = item.ok_or_else(|| Status::not_found("no such item"))?;
        Ok(Response::new(GetReply { item: Some(item), freshness: None }))
    }

    async fn list(&self, request: Request<ListRequest>) -> Reply<Self::ListStream> {
        let wanted = request.into_inner();
        let state = self.state();
        let found = state.items.iter().filter(|((scope, kind, _id), _item)| {
            *scope == wanted.scope && (wanted.kind.is_empty() || *kind == wanted.kind)
        });
        let found: Vec<Item> = found.map(|(_key, item)| item.clone()).collect();
        let batches: Vec<_> = found.chunks(7).map(|items| Ok(ListReply { items: items.to_vec() })).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(batches))))
    }

    async fn write(&self, request: Request<WriteRequest>) -> Reply<WriteReply> {
        let edits = request.into_inner().edits;
        let mut state = self.state();
        if let Some(left) = &mut state.writes_left {
            *left = left.checked_sub(1).ok_or_else(|| Status::resource_exhausted("the outbox is full"))?;
        }
        state.writes.push(edits.len());
        for edit in edits {
            apply(&mut state.items, edit.edit.unwrap());
        }
        Ok(Response::new(WriteReply { operation: Some(state.writes.len() as u64), ..WriteReply::default() }))
    }

    async fn watch(&self, _request: Request<WatchRequest>) -> Reply<Self::WatchStream> {
        let changed = self.state().items.values().cloned().map(Event::Changed).collect::<Vec<_>>();
        let events = std::iter::once(Event::Started(Started {})).chain(changed);
        let events: Vec<_> = events.map(|event| Ok(WatchEvent { event: Some(event) })).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(events).chain(tokio_stream::pending()))))
    }
}

#[tonic::async_trait]
impl Panel for Service {
    type WatchStatusStream = Events<StatusReply>;

    async fn status(&self, _request: Request<StatusRequest>) -> Reply<StatusReply> {
        self.state()
            .statuses
            .last()
            .cloned()
            .map(Response::new)
            .ok_or_else(|| Status::internal("no status set"))
    }

    async fn watch_status(&self, _request: Request<StatusRequest>) -> Reply<Self::WatchStatusStream> {
        let statuses: Vec<_> = self.state().statuses.iter().cloned().map(Ok).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(statuses).chain(tokio_stream::pending()))))
    }

    async fn prepare_group(&self, request: Request<PrepareGroupRequest>) -> Reply<PrepareGroupReply> {
        let mut state = self.state();
        state.prepared.push(request.into_inner());
        if !state.founded.is_empty() {
            return Ok(Response::new(PrepareGroupReply::default()));
        }
        let (group_id, recovery_kit) = ("a1".to_owned(), "armored kit\n".to_owned());
        Ok(Response::new(PrepareGroupReply { group_id, recovery_kit }))
    }

    async fn found_group(&self, request: Request<FoundGroupRequest>) -> Reply<FoundGroupReply> {
        let mut state = self.state();
        if state.refuses_to_found {
            return Err(Status::resource_exhausted("the storage is full"));
        }
        state.founded.push(request.into_inner().group_id);
        Ok(Response::new(FoundGroupReply {}))
    }

    async fn start_server(&self, _request: Request<StartServerRequest>) -> Reply<RoleReply> {
        match self.state().founded.is_empty() {
            true => Err(Status::failed_precondition("this device holds no group")),
            false => Ok(Response::new(RoleReply { wanted: Role::Server.into() })),
        }
    }

    async fn join(&self, request: Request<JoinRequest>) -> Reply<JoinReply> {
        self.state().joined.push(request.into_inner());
        Ok(Response::new(JoinReply::default()))
    }

    async fn join_plan(&self, _request: Request<JoinPlanRequest>) -> Reply<JoinPlanReply> {
        unused()
    }

    async fn accept_join(&self, _request: Request<AcceptJoinRequest>) -> Reply<AcceptJoinReply> {
        unused()
    }

    async fn cancel_join(&self, _request: Request<CancelJoinRequest>) -> Reply<LeaveReply> {
        unused()
    }

    async fn undo_join(&self, _request: Request<UndoJoinRequest>) -> Reply<UndoJoinReply> {
        unused()
    }

    async fn set_replication(&self, _request: Request<SetReplicationRequest>) -> Reply<SetReplicationReply> {
        unused()
    }

    async fn stop_replication(
        &self,
        _request: Request<StopReplicationRequest>,
    ) -> Reply<StopReplicationReply> {
        unused()
    }

    async fn replication(&self, _request: Request<ReplicationRequest>) -> Reply<ReplicationReply> {
        unused()
    }

    async fn prove_replica(&self, _request: Request<ProveReplicaRequest>) -> Reply<ProveReplicaReply> {
        unused()
    }

    async fn promote(&self, _request: Request<PromoteRequest>) -> Reply<PromoteReply> {
        unused()
    }

    async fn transfer(&self, _request: Request<TransferRequest>) -> Reply<TransferReply> {
        unused()
    }

    async fn succeed(&self, _request: Request<SucceedRequest>) -> Reply<SucceedReply> {
        unused()
    }

    async fn refound(&self, _request: Request<RefoundRequest>) -> Reply<RoleReply> {
        unused()
    }

    async fn look_for_servers(&self, _request: Request<LookForServersRequest>) -> Reply<LookForServersReply> {
        unused()
    }

    async fn release_replica(&self, _request: Request<ReleaseReplicaRequest>) -> Reply<ReleaseReplicaReply> {
        unused()
    }

    async fn stay(&self, _request: Request<StayRequest>) -> Reply<StayReply> {
        unused()
    }

    async fn retire_server(&self, _request: Request<RetireServerRequest>) -> Reply<RetireServerReply> {
        unused()
    }

    async fn discover(&self, _request: Request<DiscoverRequest>) -> Reply<DiscoverReply> {
        unused()
    }

    async fn stop_server(&self, _request: Request<StopServerRequest>) -> Reply<RoleReply> {
        Err(Status::failed_precondition("this device does not serve"))
    }

    async fn start_client(&self, _request: Request<StartClientRequest>) -> Reply<RoleReply> {
        unused()
    }

    async fn leave(&self, _request: Request<LeaveRequest>) -> Reply<LeaveReply> {
        unused()
    }

    async fn open_pairing(&self, _request: Request<OpenPairingRequest>) -> Reply<OpenPairingReply> {
        unused()
    }

    async fn close_pairing(&self, _request: Request<ClosePairingRequest>) -> Reply<ClosePairingReply> {
        unused()
    }

    async fn devices(&self, _request: Request<DevicesRequest>) -> Reply<DevicesReply> {
        unused()
    }

    async fn release_device(&self, _request: Request<ReleaseDeviceRequest>) -> Reply<ReleaseDeviceReply> {
        unused()
    }

    async fn set_aside(&self, _request: Request<SetAsideRequest>) -> Reply<SetAsideReply> {
        unused()
    }

    async fn unlock_debug(&self, _request: Request<UnlockDebugRequest>) -> Reply<UnlockDebugReply> {
        unused()
    }

    async fn lock_debug(&self, _request: Request<LockDebugRequest>) -> Reply<LockDebugReply> {
        unused()
    }
}
