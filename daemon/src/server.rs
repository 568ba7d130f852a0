//! The server part: the master database, the sync port, and pairing, from start to stop.
//!
//! Started and stopped by the supervisor through [`crate::parts`]; the panel reads it through
//! [`crate::device::Device::server`].

pub mod follow;
pub mod gate;
pub mod hub;
mod replica_service;
pub mod replicating;
pub mod serving;
mod sync_service;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mfpsync_proto::enroll::enroll_server::EnrollServer;
use mfpsync_proto::limit;
use mfpsync_proto::replica::replica_server::ReplicaServer;
use mfpsync_proto::sync::sync_server::SyncServer;
use mfpsync_storage::Store;
use mfpsync_storage::master::Master;
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tower::util::MapResponseLayer;

use self::hub::Hub;
use self::replica_service::ReplicaService;
use self::replicating::Replicating;
use self::serving::{Made, Serving};
use self::sync_service::SyncService;
use crate::authority::{IssuingKey, TrustAnchor};
use crate::backup;
use crate::db::{Db, READ_DEADLINE};
use crate::device::Device;
use crate::discovery::announcer::Announcer;
use crate::enroll::{Admission, Admitted, EnrollService, PairingDesk};
use crate::fault::{Fault, FaultCode};
use crate::net::acceptor::{self, House, Incoming, Limits, Shares};
use crate::net::frames::unwrapped;
use crate::net::serve::grpc_server;
use crate::pairing::Newcomer;
use crate::records::{prune, switching};
use crate::reign::{others, takeover};
use crate::storage_fault::start_fault;
use crate::tls::ServerTls;
use crate::vital::Vital;

/// How long calls under way may take when the server stops.
const DRAIN: Duration = Duration::from_secs(5);

/// A running server.
pub struct ServerPart {
    /// What its connections share.
    pub serving: Arc<Serving>,
    /// Where pairing is opened.
    pub desk: Arc<PairingDesk>,
    /// Where it listens.
    pub listening: Vec<SocketAddr>,
    /// The tasks it cannot do without.
    pub vital: Vital,
}

impl std::fmt::Debug for ServerPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerPart").field("listening", &self.listening).finish_non_exhaustive()
    }
}

impl ServerPart {
    /// Opens the master database, then the port.
    ///
    /// # Errors
    /// A fault for a person: no or a damaged database, no issuing key, no free port.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    pub async fn start(device: &Arc<Device>) -> Result<Self, Fault> {
        let begins = takeover::finish(device).await?;
        let opening = device.master_at_rest.turn().await.run(open_master).await;
        let (master, hub) = opening
            .unwrap_or_else(|_| Err(Fault::with_detail(FaultCode::Part, "open the master database")))?;
        let head = hub.head().borrow().clone();
        let known = others::Known::of(&master).await.map_err(|error| start_fault(&error))?;
        // What this device knew besides is not what its group decided.
        device.roster.clear();
        device.roster.update(known.members.iter().map(|signed| signed.record.clone()));
        device.saw_epoch(head.group, head.epoch).await?;
        // Who reigns since a moment ago need not wait to hear that somebody else does: it asks at once, and
        // meanwhile serves. A machine that is lost would cost it all its patience.
        let rivals = if begins { Vec::new() } else { others::ask(device, &known).await? };
        device.saw_reign(device.identity.device());
        device.reign.begin();
        device.signpost.take_down().await;
        let listeners = listen(&device.config.listen).await?;
        let listening = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let issuing = IssuingKey::load(&*device.keys, device.identity.device())
            .map_err(|error| Fault::with_detail(FaultCode::Keys, error))?
            .ok_or_else(|| {
                Fault::with_detail(FaultCode::Keys, "the issuing key of this server is missing")
            })?;
        let (faults, communication) = (device.faults.clone(), device.communication.clone());
        let (random, stats) = (device.random.clone(), device.stats.clone());
        let replicating = Replicating::new(master.clone(), hub.clone(), faults, communication, random, stats);
        // Before anything is written or shown.
        let replica = master.read(READ_DEADLINE, |read| read.replication()).await;
        replicating.set(replica.map_err(|error| start_fault(&error))?, false);
        let made = Made {
            master,
            hub,
            replicating,
            beat_every: device.config.heartbeat,
            roster: device.roster.clone(),
            faults: device.faults.clone(),
            issuing,
            settings: device.settings.clone(),
            communication: device.communication.clone(),
            stats: device.stats.clone(),
            reign: device.reign.clone(),
        };
        let serving = Serving::new(made).await.map_err(|error| start_fault(&error))?;
        let part = Self {
            vital: Vital::new(&serving.tasks, &serving.stop),
            serving: Arc::new(serving),
            desk: Arc::new(
                PairingDesk::new(&device.identity, device.random.clone()).telling(&device.communication),
            ),
            listening,
        };
        // Whatever ends this early ends what was begun.
        let unfinished = part.serving.stop.clone().drop_guard();
        let serving = &part.serving;
        serving
            .advertise(device.endpoints(&part.listening))
            .await
            .map_err(|status| Fault::with_detail(FaultCode::DiskIo, status.message()))?;
        rivals.iter().for_each(|rival| serving.contest(rival));
        part.serve(device, listeners)?;
        // Before anything is forgotten that an archive would bring back.
        backup::hold_safe(device, serving).await;
        let (replicating, settings) = (serving.replicating.clone(), device.settings.clone());
        let forget = prune::run(serving.master.clone(), replicating, settings, serving.stop.clone());
        part.vital.spawn("forgetting", forget);
        part.vital.spawn("switching", switching::run(device.clone(), part.serving.clone()));
        part.vital.spawn("others", others::keep_asking(device.clone(), part.serving.clone(), begins));
        let (hub, stop, every) = (serving.hub.clone(), serving.stop.clone(), device.config.heartbeat);
        part.vital.spawn("heartbeat", async move {
            // None when told to stop, which is all it may end by.
            let _ended = stop.run_until_cancelled(hub.keep_beating(every)).await;
        });
        let (replicating, stop) = (serving.replicating.clone(), serving.stop.clone());
        part.vital.spawn("replication", async move {
            let both = async { tokio::join!(replicating.clone().watch_over(), replicating.prove_daily()) };
            let _ended = stop.run_until_cancelled(both).await;
        });
        let announcer = Announcer {
            device: device.clone(),
            serving: part.serving.clone(),
            desk: part.desk.clone(),
            listening: part.listening.clone(),
        };
        part.vital.spawn("announcer", announcer.run());
        unfinished.disarm();
        Ok(part)
    }

    fn serve(&self, device: &Device, listeners: Vec<TcpListener>) -> Result<(), Fault> {
        let tls =
            ServerTls::new(&device.identity).map_err(|error| Fault::with_detail(FaultCode::Keys, error))?;
        let mut settings = device.settings.watch();
        let connections = settings.borrow_and_update().limits.connections as usize;
        let limits = Limits { connections, ..Limits::default() };
        let shares = Shares::new(&limits);
        let (stop, of) = (self.serving.stop.clone(), shares.clone());
        self.vital.spawn("connection-limit", async move {
            let follow = async {
                while settings.changed().await.is_ok() {
                    of.bear(settings.borrow_and_update().limits.connections as usize);
                }
            };
            // None when told to stop; the settings outlive the server.
            let _ended = stop.run_until_cancelled(follow).await;
        });
        for listener in listeners {
            let desk = self.desk.clone();
            let incoming = acceptor::start(
                listener,
                tls.clone(),
                device.roster.clone(),
                House {
                    pairing: Arc::new(move || desk.accepts_connections()),
                    communication: device.communication.clone(),
                    stats: device.stats.clone(),
                    cut: self.serving.cut.clone(),
                    shares: shares.clone(),
                },
                limits,
                &self.vital,
            );
            self.serve_connections(incoming);
        }
        Ok(())
    }

    fn serve_connections(&self, incoming: Incoming) {
        let Incoming { sync, enroll, refused } = incoming;
        self.serving.count_refused(refused);
        let sync_service = SyncServer::new(SyncService(self.serving.clone()))
            .max_decoding_message_size(limit::MESSAGE_BYTES);
        let stop = self.serving.stop.clone();
        let framed = MapResponseLayer::new(unwrapped);
        let replica_service = ReplicaServer::new(ReplicaService(self.serving.clone()))
            .max_decoding_message_size(limit::MESSAGE_BYTES)
            .max_encoding_message_size(limit::MESSAGE_BYTES);
        let serve_sync = grpc_server()
            .layer(framed)
            .add_service(sync_service)
            .add_service(replica_service)
            .serve_with_incoming_shutdown(
                ReceiverStream::new(sync).map(Ok::<_, Status>),
                stop.cancelled_owned(),
            );
        let desk = self.desk.clone();
        let enroll_service = EnrollServer::new(EnrollService::new(desk, Enrolment(self.serving.clone())))
            .max_decoding_message_size(64 << 10);
        let serve_enroll = grpc_server().add_service(enroll_service).serve_with_incoming_shutdown(
            ReceiverStream::new(enroll).map(Ok::<_, Status>),
            self.serving.stop.clone().cancelled_owned(),
        );
        self.vital.spawn("sync-service", async move {
            if let Err(error) = serve_sync.await {
                tracing::warn!(%error, "serve devices");
            }
        });
        self.vital.spawn("pairing-service", async move {
            if let Err(error) = serve_enroll.await {
                tracing::warn!(%error, "serve pairing");
            }
        });
    }

    /// Ends streams, lets calls under way finish, and closes the database.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the rest to the end of the process; nothing acknowledged is lost.
    pub async fn stop(&self) {
        self.desk.close();
        self.serving.stop.cancel();
        self.serving.tasks.close();
        if tokio::time::timeout(DRAIN, self.serving.tasks.wait()).await.is_err() {
            tracing::warn!("connections were cut: they did not end in time");
        }
        self.serving.cut.cancel();
        if let Err(error) = self.serving.master.close().await {
            tracing::error!(%error, "close master database");
        }
    }
}

fn open_master(path: &Path) -> Result<(Db<Master>, Arc<Hub>), Fault> {
    let shared: Arc<OnceLock<Arc<Hub>>> = Arc::default();
    let publishing = shared.clone();
    let store = Store::<Master>::open(
        path,
        false,
        Box::new(move |read| {
            if let Some(hub) = publishing.get() {
                hub.publish(read);
            }
        }),
    )
    .map_err(|error| start_fault(&error))?;
    let head = store
        .read_and_wait(READ_DEADLINE, |read| read.founded_head())
        .map_err(|error| start_fault(&error))?;
    let hub = shared.get_or_init(|| Arc::new(Hub::new(head))).clone();
    Ok((Db::new(store), hub))
}

async fn listen(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, Fault> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| Fault::with_detail(FaultCode::Listen, format_args!("{address}: {error}")))?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Makes proven newcomers members of the server's group.
struct Enrolment(Arc<Serving>);

#[tonic::async_trait]
impl Admission for Enrolment {
    async fn admit(&self, newcomer: Newcomer) -> Result<Admitted, Status> {
        self.0.enrol(newcomer.device, newcomer.public_key, newcomer.name).await?;
        let head = self.0.head();
        let (issuers, members, lineage) = self
            .0
            .master
            .read(READ_DEADLINE, |read| Ok((read.issuers()?, read.members()?, read.lineage()?)))
            .await
            .map_err(|error| self.0.storage_failed(&error))?;
        Ok(Admitted {
            anchor: TrustAnchor { group: head.group, root: head.root_key },
            group_name: head.group_name,
            issuers,
            members,
            lineage,
        })
    }
}
