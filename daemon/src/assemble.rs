//! Opens what lives as long as the daemon: keys, the device's own database, and the local sockets.
//!
//! Called once by [`crate::app`]; what runs on top of it is started and stopped by the supervisor.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use mfpsync_proto::backup::backup_server::BackupServer;
use mfpsync_proto::limit;
use mfpsync_proto::local::local_server::LocalServer;
use mfpsync_proto::monitor::monitor_server::MonitorServer;
use mfpsync_proto::panel::panel_server::PanelServer;
use mfpsync_proto::records::records_server::RecordsServer;
use mfpsync_storage::Store;
use mfpsync_storage::local::Local;
use mfpsync_storage::model::DeviceId;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::net::UnixListener;
use tokio::sync::{Notify, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::app::App;
use crate::backup::{self, Archiving};
use crate::client::LinkReport;
use crate::db::Db;
use crate::debug_socket::{DebugSocket, SOCKET_NAME};
use crate::device::Device;
use crate::discovery::Discovery;
use crate::fault::{Fault, FaultCode};
use crate::group::MASTER_FILE;
use crate::identity::Identity;
use crate::inspect::Inspector;
use crate::keystore::{FileKeyStore, KeyStore};
use crate::local::LocalService;
use crate::master_at_rest::MasterAtRest;
use crate::membership::Roster;
use crate::monitor::{MonitorService, listener, watch_faults, watch_roles};
use crate::own_data::{OwnData, draw_incarnation};
use crate::panel::{BackupService, PanelService, Session, carry_joins_on};
use crate::records::RecordsService;
use crate::reign::signpost::Signpost;
use crate::reign::{self, Reign};
use crate::replica::{self, CopyReport};
use crate::role::SupervisorHandle;
use crate::storage_fault::start_fault;
use crate::systemd;
use crate::unix_socket::{self, PeerPolicy, SocketFile};

/// The own database's file within the data directory.
pub const LOCAL_FILE: &str = "local.db";
const KEYS_DIRECTORY: &str = "keys";
const LOCAL_SOCKET: &str = "local.sock";
const PANEL_SOCKET: &str = "panel.sock";
/// Calls and streams at once on one local connection.
const LOCAL_STREAMS: u32 = 64;

/// Opens keys and the own database.
///
/// # Errors
/// The fault that keeps the daemon from coming up; nothing was changed.
pub fn device(app: &App) -> Result<Arc<Device>, Fault> {
    let config = (*app.config).clone();
    let master_at_rest = MasterAtRest::new(config.data_dir.join(MASTER_FILE));
    let random: Arc<dyn SecureRandom + Send + Sync> = Arc::new(SystemRandom::new());
    let keys = FileKeyStore::open(config.data_dir.join(KEYS_DIRECTORY))
        .map_err(|error| Fault::with_detail(FaultCode::Keys, error))?;
    let identity = Identity::load_or_create(&keys, &*random)
        .map_err(|error| Fault::with_detail(FaultCode::Keys, error))?;
    let keys: Arc<dyn KeyStore> = Arc::new(keys);
    let own = own_data(app, identity.device(), &*random)?;
    let archiving = Archiving::open(&config.data_dir, keys.clone(), &app.faults)?;
    let mut seed = [0; 8];
    // Without it only the fairness among flooding strangers is lost.
    let _fair = random.fill(&mut seed);
    let discovery = Discovery::new(config.discovery.clone(), u64::from_le_bytes(seed));
    Ok(Arc::new(Device {
        config,
        settings: app.settings.clone(),
        communication: app.communication.clone(),
        stats: app.stats.clone(),
        identity: Arc::new(identity),
        keys,
        random,
        own: Arc::new(own),
        roster: Arc::new(Roster::new()),
        faults: app.faults.clone(),
        control: app.control.clone(),
        reigning: ArcSwapOption::empty(),
        reign: Arc::new(Reign::new(app.control.clone(), app.faults.clone(), app.communication.clone())),
        server: ArcSwapOption::empty(),
        link: watch::Sender::new(LinkReport::default()),
        copy: watch::Sender::new(CopyReport::default()),
        invited: Notify::new(),
        serves: Notify::new(),
        signpost: Signpost::default(),
        master_at_rest,
        archiving,
        discovery,
    }))
}

fn own_data(app: &App, device: DeviceId, random: &dyn SecureRandom) -> Result<OwnData, Fault> {
    let config = &app.config;
    let store = Store::<Local>::open(&config.data_dir.join(LOCAL_FILE), true, Box::new(|_| {}))
        .map_err(|error| start_fault(&error))?;
    let incarnation = draw_incarnation(random)
        .ok_or_else(|| Fault::with_detail(FaultCode::Keys, "the system gives no random numbers"))?;
    let phase = store
        .write_and_wait(move |write| {
            write.initialise(incarnation, device)?;
            write.phase()
        })
        .map_err(|error| start_fault(&error))?;
    Ok(OwnData::new(device, Db::new(store), phase, app.settings.clone(), app.faults.clone()))
}

/// Binds the local API, the panel and the debug socket's lock, and serves them until `stop`.
///
/// # Errors
/// A socket that cannot be bound.
///
/// # Cancel safety
/// What was bound is given up.
pub async fn sockets(app: &App, device: &Arc<Device>, supervisor: &SupervisorHandle) -> Result<(), Fault> {
    let stop = app.tasks.token().clone();
    let streams = TaskTracker::new();
    let inspector = Inspector::new(device.clone(), supervisor.clone(), app.stats.clone());
    let debug = DebugSocket {
        path: app.config.run_dir.join(SOCKET_NAME),
        access: app.access.clone(),
        inspect: Arc::new(inspector),
        log: app.log.clone(),
        stats: app.stats.clone(),
    };
    let debug = debug.spawn(&app.tasks);
    let session = Session::new(device.clone(), supervisor.clone(), debug, streams.clone(), stop.clone());
    let local = LocalServer::new(LocalService::new(device.own.clone(), streams, stop))
        .max_decoding_message_size(limit::LOCAL_MESSAGE_BYTES)
        .max_encoding_message_size(limit::LOCAL_MESSAGE_BYTES);
    let session = Arc::new(session);
    app.tasks.spawn("joining", carry_joins_on(session.clone()));
    let panel = PanelServer::new(PanelService(session.clone()));
    let records = RecordsServer::new(RecordsService(session.clone()));
    app.tasks.spawn("metrics", listener::run(session.clone()));
    let archives = BackupServer::new(BackupService(session.clone()));
    let monitor = MonitorServer::new(MonitorService(session));
    serve(app, LOCAL_SOCKET, Routes::new(local)).await?;
    let routes = Routes::new(panel).add_service(records).add_service(monitor).add_service(archives);
    serve(app, PANEL_SOCKET, routes).await
}

/// Has the device become the replica, or stop being it, as its row says.
pub fn follow_capabilities(app: &App, device: &Arc<Device>, supervisor: &SupervisorHandle) {
    app.tasks.spawn(
        "capabilities",
        replica::follow_capabilities(device.clone(), supervisor.clone(), app.tasks.token().clone()),
    );
}

/// Has this device say who serves, where it could serve itself.
pub fn show_the_way(app: &App, device: &Arc<Device>, supervisor: &SupervisorHandle) {
    let stop = app.tasks.token().clone();
    app.tasks.spawn("signpost", reign::signpost::keep(device.clone(), supervisor.clone(), stop));
}

/// Has this device tell others who reigns.
pub fn tell_who_reigns(app: &App, device: &Arc<Device>) {
    let stop = app.tasks.token().clone();
    app.tasks.spawn("telling", reign::others::keep_telling(device.clone(), stop));
}

/// Has this device take over when the server's operator hands over.
pub fn obey_invitations(app: &App, device: &Arc<Device>, supervisor: &SupervisorHandle) {
    let stop = app.tasks.token().clone();
    let obey = reign::promotion::obey_invitations(device.clone(), supervisor.clone(), stop);
    app.tasks.spawn("invitations", obey);
}

/// Has archives made, and done with what is asked for.
pub fn archive(app: &App, device: &Arc<Device>, supervisor: &SupervisorHandle) {
    let stop = app.tasks.token().clone();
    app.tasks.spawn("archives", backup::run(device.clone(), supervisor.clone(), stop));
}

/// Has the role follow the end of this device's reign.
pub fn obey_successors(app: &App, device: &Arc<Device>, supervisor: &SupervisorHandle) {
    let stop = app.tasks.token().clone();
    app.tasks.spawn("successors", reign::obey(device.clone(), supervisor.clone(), stop));
}

/// Has the communication log hear of roles and faults.
pub fn note(app: &App, supervisor: &SupervisorHandle) {
    let (log, stop) = (app.communication.clone(), app.tasks.token().clone());
    app.tasks.spawn("note-faults", watch_faults(app.faults.clone(), log.clone(), stop.clone()));
    app.tasks.spawn("note-roles", watch_roles(supervisor.clone(), log, stop));
}

/// Feeds the watchdog while the supervisor and the own database's writer both answer.
pub fn watch_over(app: &App, device: &Arc<Device>, supervisor: &SupervisorHandle) {
    let (device, supervisor, stop) = (device.clone(), supervisor.clone(), app.tasks.token().clone());
    app.tasks.spawn("watchdog", async move {
        let health = || {
            let (device, supervisor) = (device.clone(), supervisor.clone());
            async move { supervisor.is_alive().await && device.own.is_alive().await }
        };
        systemd::watchdog(health, stop).await;
    });
}

async fn serve(app: &App, name: &'static str, routes: Routes) -> Result<(), Fault> {
    let path = app.config.run_dir.join(name);
    let (listener, file) = unix_socket::bind(&path, &app.access)
        .await
        .map_err(|error| Fault::with_detail(FaultCode::Listen, error))?;
    let (policy, stop) = (app.access.policy.clone(), app.tasks.token().clone());
    app.tasks.spawn(name, serve_socket(listener, file, policy, routes, stop));
    Ok(())
}

/// Serves one socket; connections of other users are dropped before a byte of theirs is read.
async fn serve_socket(
    listener: UnixListener,
    _file: SocketFile,
    policy: PeerPolicy,
    routes: Routes,
    stop: CancellationToken,
) {
    let allowed = UnixListenerStream::new(listener).filter(move |stream| match stream {
        Ok(stream) => policy.admits(stream),
        Err(_) => true,
    });
    let served = Server::builder()
        .max_concurrent_streams(LOCAL_STREAMS)
        .add_routes(routes)
        .serve_with_incoming_shutdown(allowed, stop.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "serve local socket");
    }
}
