//! The sync port: accepts connections, has each prove its key, asks the roster, and hands what is
//! let in to gRPC as two streams, one for sync and one for pairing.
//!
//! Every handshake runs in its own task under a deadline and within counted places, so that no
//! slow or hostile peer delays another. What is asked of an open connection is the services' care.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mfpsync_proto::sync::Reason;
use mfpsync_storage::model::{Capabilities, DeviceId};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::greeting::refuse;
use super::keep_alive::prepare;
use super::limits::{Place, Places, origin};
use super::stream::{PeerInfo, PeerStream};
use crate::communication::{Code, CommunicationLog, Event};
use crate::membership::{Refusal, Roster};
use crate::refusal::refusal;
use crate::telemetry::Stats;
use crate::tls::{Handshake, Purpose, ServerStream, ServerTls};
use crate::vital::Vital;

/// Accepted connections waiting for gRPC to take them up; it does so at once, so a few suffice.
/// When it is full, the handshake's deadline runs on and then ends the newcomer.
const WAITING: usize = 16;
/// First pause after a failed `accept`, as when file descriptors ran out; doubles up to a second.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
const ACCEPT_PAUSE_MOST: Duration = Duration::from_secs(1);

/// How much the ports bear.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Handshakes at once.
    pub handshakes: usize,
    /// Connections of one address that are not (yet) those of a known device.
    pub unauthenticated_per_address: usize,
    /// From the accepted connection to its hand-over.
    pub handshake_time: Duration,
    /// Open connections of known devices in all.
    pub connections: usize,
    /// Open connections of one device.
    pub connections_per_device: usize,
    /// Open connections for pairing.
    pub pairings: usize,
    /// How long a connection for pairing lives.
    pub pairing_time: Duration,
}

impl Default for Limits {
    /// The product's limits. **Source**: `docs/protocol.md`.
    fn default() -> Self {
        Self {
            handshakes: 64,
            unauthenticated_per_address: 16,
            handshake_time: Duration::from_secs(5),
            connections: 1_100,
            connections_per_device: 4,
            pairings: 16,
            pairing_time: Duration::from_secs(60),
        }
    }
}

/// The counted places of all ports of a server.
#[derive(Debug, Clone)]
pub struct Shares {
    addresses: Arc<Places<std::net::IpAddr>>,
    devices: Arc<Places<DeviceId>>,
    connections: Arc<Places<()>>,
    pairings: Arc<Semaphore>,
}

impl Shares {
    /// All places are free.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            addresses: Places::new(limits.unauthenticated_per_address),
            devices: Places::new(limits.connections_per_device),
            connections: Places::new(limits.connections),
            pairings: Arc::new(Semaphore::new(limits.pairings)),
        }
    }

    /// Bears so many connections of known devices in all from now on; those that are open stay.
    pub fn bear(&self, connections: usize) {
        self.connections.limit_to(connections);
    }
}

/// How often connections were refused since start, by reason.
#[derive(Debug, Default)]
pub struct Refused {
    /// Handshakes that failed: other TLS versions, other keys, other protocols, garbage.
    pub handshake: AtomicU64,
    /// Handshakes that took too long.
    pub timeout: AtomicU64,
    /// Keys no device of the group has.
    pub unknown: AtomicU64,
    /// Devices that were released.
    pub released: AtomicU64,
    /// One address with too many connections.
    pub address_limit: AtomicU64,
    /// One device with too many connections.
    pub device_limit: AtomicU64,
    /// Too many connections in all.
    pub connection_limit: AtomicU64,
    /// `accept` itself failed.
    pub accept: AtomicU64,
}

impl Refused {
    /// The counters with their names, for telemetry.
    #[must_use]
    pub fn snapshot(&self) -> [(&'static str, u64); 8] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("handshake", read(&self.handshake)),
            ("timeout", read(&self.timeout)),
            ("unknown", read(&self.unknown)),
            ("released", read(&self.released)),
            ("address_limit", read(&self.address_limit)),
            ("device_limit", read(&self.device_limit)),
            ("connection_limit", read(&self.connection_limit)),
            ("accept", read(&self.accept)),
        ]
    }
}

/// Whether pairing is open right now; asked at every new connection.
pub type PairingOpen = Arc<dyn Fn() -> bool + Send + Sync>;

/// What the port asks and tells the rest of the server.
pub struct House {
    /// Whether pairing is open.
    pub pairing: PairingOpen,
    /// Told who was refused.
    pub communication: CommunicationLog,
    /// Counts who was let in.
    pub stats: Arc<Stats>,
    /// Cancelled when no connection may last any longer.
    pub cut: CancellationToken,
    /// Places that all ports have in common.
    pub shares: Shares,
}

/// What the acceptor yields; both streams end when it is stopped.
pub struct Incoming {
    /// Connections of devices the roster knows.
    pub sync: mpsc::Receiver<PeerStream>,
    /// Connections for pairing.
    pub enroll: mpsc::Receiver<PeerStream>,
    /// Who was refused, and why.
    pub refused: Arc<Refused>,
}

/// Starts accepting on `listener`; all its tasks are those of the part that `vital` keeps.
pub fn start(
    listener: TcpListener,
    tls: ServerTls,
    roster: Arc<Roster>,
    house: House,
    limits: Limits,
    vital: &Vital,
) -> Incoming {
    let (sync, sync_out) = mpsc::channel(WAITING);
    let (enroll, enroll_out) = mpsc::channel(WAITING);
    let refused = Arc::new(Refused::default());
    let door = Arc::new(Door {
        tls,
        roster,
        house,
        limits,
        refused: refused.clone(),
        sync,
        enroll,
        tasks: vital.tasks().clone(),
        stop: vital.stop().clone(),
    });
    vital.spawn("acceptor", accept_all(listener, door));
    Incoming { sync: sync_out, enroll: enroll_out, refused }
}

struct Door {
    tls: ServerTls,
    roster: Arc<Roster>,
    house: House,
    limits: Limits,
    refused: Arc<Refused>,
    sync: mpsc::Sender<PeerStream>,
    enroll: mpsc::Sender<PeerStream>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

async fn accept_all(listener: TcpListener, door: Arc<Door>) {
    let handshakes = Arc::new(Semaphore::new(door.limits.handshakes));
    let mut pause = ACCEPT_PAUSE;
    loop {
        let next = door.stop.run_until_cancelled(async {
            let permit = handshakes.clone().acquire_owned().await.map_err(io::Error::other)?;
            listener.accept().await.map(|accepted| (permit, accepted))
        });
        match next.await {
            None => return,
            Some(Ok((permit, (tcp, address)))) => {
                pause = ACCEPT_PAUSE;
                take(&door, permit, tcp, address);
            }
            Some(Err(error)) => {
                count(&door.refused.accept);
                tracing::warn!(%error, "accepting connections pauses");
                if door.stop.run_until_cancelled(sleep(pause)).await.is_none() {
                    return;
                }
                pause = (pause * 2).min(ACCEPT_PAUSE_MOST);
            }
        }
    }
}

fn take(door: &Arc<Door>, permit: OwnedSemaphorePermit, tcp: TcpStream, address: SocketAddr) {
    let Some(place) = door.house.shares.addresses.take(origin(address.ip())) else {
        count(&door.refused.address_limit);
        door.tell("address-limit", None, address);
        return;
    };
    let door = door.clone();
    door.tasks.clone().spawn(async move {
        let whole = timeout(door.limits.handshake_time, door.welcome(tcp, address, place));
        if let Some(Err(_)) = door.stop.run_until_cancelled(whole).await {
            count(&door.refused.timeout);
            door.tell("timeout", None, address);
        }
        drop(permit);
    });
}

impl Door {
    fn tell(&self, reason: &str, peer: Option<DeviceId>, address: SocketAddr) {
        let event = Event::new(Code::DeviceRefused).reason(reason).address(address.ip());
        self.house.communication.record(match peer {
            Some(peer) => event.peer(peer),
            None => event,
        });
    }

    async fn welcome(&self, tcp: TcpStream, address: SocketAddr, place: Place<std::net::IpAddr>) {
        let shaken = match prepare(&tcp) {
            Ok(()) => self.tls.accept(tcp, (self.house.pairing)()).await,
            Err(error) => Err(error),
        };
        match shaken {
            Ok((stream, handshake)) => match handshake.purpose {
                Purpose::Sync => self.welcome_device(stream, handshake, address, place).await,
                Purpose::Enroll => self.welcome_newcomer(stream, handshake, address, place).await,
            },
            Err(error) => {
                count(&self.refused.handshake);
                self.tell("handshake", None, address);
                tracing::debug!(%address, %error, "handshake came to nothing");
            }
        }
    }

    async fn welcome_device(
        &self,
        stream: ServerStream,
        handshake: Handshake,
        address: SocketAddr,
        place: Place<std::net::IpAddr>,
    ) {
        let (member, token) = match self.roster.admit(handshake.peer, Capabilities(0)) {
            Ok(admitted) => admitted,
            Err(why) => {
                count(match why {
                    Refusal::Released => &self.refused.released,
                    Refusal::Unknown | Refusal::Capability => &self.refused.unknown,
                });
                let reason = match why {
                    Refusal::Released => "released",
                    Refusal::Unknown | Refusal::Capability => "unknown",
                };
                self.tell(reason, self.roster.device_of(handshake.peer), address);
                return refuse(stream, &refusal(why.reason(), why.to_string())).await;
            }
        };
        let Some(slot) = self.house.shares.devices.take(member.device) else {
            count(&self.refused.device_limit);
            self.tell("device-limit", Some(member.device), address);
            let text = "too many connections of this device";
            return refuse(stream, &refusal(Reason::OverLimit, text)).await;
        };
        let Some(counted) = self.house.shares.connections.take(()) else {
            count(&self.refused.connection_limit);
            self.tell("connection-limit", Some(member.device), address);
            return refuse(stream, &refusal(Reason::Busy, "too many connections")).await;
        };
        drop(place);
        self.house.stats.connections_accepted.increment();
        let info = PeerInfo {
            device: Some(member.device),
            public_key: handshake.peer,
            address,
            exporter: handshake.exporter,
            // Of its own: the roster's token outlives this connection.
            token: token.child_token(),
        };
        hand_over(
            &self.sync,
            PeerStream::new(stream, info, Box::new((slot, counted)), self.house.cut.clone()),
        )
        .await;
    }

    async fn welcome_newcomer(
        &self,
        stream: ServerStream,
        handshake: Handshake,
        address: SocketAddr,
        place: Place<std::net::IpAddr>,
    ) {
        let Ok(permit) = self.house.shares.pairings.clone().try_acquire_owned() else {
            count(&self.refused.connection_limit);
            self.tell("connection-limit", None, address);
            return refuse(stream, &refusal(Reason::Busy, "too many devices are pairing")).await;
        };
        let token = CancellationToken::new();
        let info = PeerInfo {
            device: None,
            public_key: handshake.peer,
            address,
            exporter: handshake.exporter,
            token: token.clone(),
        };
        let (life, stop) = (self.limits.pairing_time, self.stop.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = sleep(life) => token.cancel(),
                () = stop.cancelled() => token.cancel(),
                () = token.cancelled() => {}
            }
        });
        hand_over(
            &self.enroll,
            PeerStream::new(stream, info, Box::new((place, permit)), self.house.cut.clone()),
        )
        .await;
    }
}

async fn hand_over(to: &mpsc::Sender<PeerStream>, stream: PeerStream) {
    // No receiver: this device does not serve that purpose, or is stopping. Either way it ends.
    if to.send(stream).await.is_err() {
        tracing::debug!("nobody takes up connections any more");
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
