//! The server's side of pairing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mfpsync_proto::enroll::enroll_server::Enroll;
use mfpsync_proto::enroll::{ConfirmReply, ConfirmRequest, StartReply, StartRequest};
use mfpsync_proto::sync::Reason;
use mfpsync_proto::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};
use mfpsync_storage::model::{DeviceId, IssuingCertificate, Member, Promotion, PublicKey, Signed, limit};
use ring::rand::SecureRandom;
use tonic::metadata::MetadataValue;
use tonic::{Code as GrpcCode, Request, Response, Status};

use super::TRIES_LEFT;
use crate::authority::TrustAnchor;
use crate::communication::{Code as EventCode, CommunicationLog, Event};
use crate::identity::Identity;
use crate::net::stream::PeerInfo;
use crate::pairing::{Code, CodeError, Hello, Newcomer, PairingError, PairingWindow, SessionId, State};
use crate::refusal::status;

/// What a newcomer is given once it is admitted.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// The group and its root key.
    pub anchor: TrustAnchor,
    /// The group's name.
    pub group_name: String,
    /// All issuing certificates.
    pub issuers: Vec<Signed<IssuingCertificate>>,
    /// All membership rows, the newcomer's and the server's among them.
    pub members: Vec<Signed<Member>>,
    /// All promotion records, oldest first.
    pub lineage: Vec<Signed<Promotion>>,
}

/// Makes a proven newcomer a member of the group.
#[tonic::async_trait]
pub trait Admission: Send + Sync + 'static {
    /// Signs and stores the newcomer's row, durably, before it returns. The newcomer has proven its
    /// key and the code; whether its id is free, and whether the group has room, is decided here.
    ///
    /// # Errors
    /// A refusal made with [`crate::refusal::status`]; the code is used up nevertheless.
    async fn admit(&self, newcomer: Newcomer) -> Result<Admitted, Status>;
}

/// Tells the time.
pub(crate) type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// The place where an operator opens pairing and newcomers are served; shared by the panel, the
/// acceptor and the service.
pub struct PairingDesk {
    window: Mutex<PairingWindow>,
    device: DeviceId,
    public_key: PublicKey,
    random: Arc<dyn SecureRandom + Send + Sync>,
    communication: CommunicationLog,
    clock: Clock,
}

impl PairingDesk {
    /// A desk of this device, closed.
    #[must_use]
    pub fn new(identity: &Identity, random: Arc<dyn SecureRandom + Send + Sync>) -> Self {
        Self {
            window: Mutex::new(PairingWindow::new()),
            device: identity.device(),
            public_key: identity.public_key(),
            random,
            communication: CommunicationLog::default(),
            clock: Arc::new(Instant::now),
        }
    }

    /// The same, whose doings are in the communication log.
    #[must_use]
    pub fn telling(self, communication: &CommunicationLog) -> Self {
        Self { communication: communication.clone(), ..self }
    }

    /// Opens pairing with a fresh code, which voids a former one.
    ///
    /// # Errors
    /// [`CodeError::Random`].
    pub fn open(&self) -> Result<Code, CodeError> {
        let code = Code::generate(&*self.random)?;
        self.window().open(code.clone(), self.now());
        self.communication.record(Event::new(EventCode::PairingOpened));
        Ok(code)
    }

    /// The same, by another clock.
    #[cfg(test)]
    pub(crate) fn by(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Closes pairing.
    pub fn close(&self) {
        self.window().close();
    }

    /// What to show the operator.
    #[must_use]
    pub fn state(&self) -> State {
        self.window().state(self.now())
    }

    /// For the acceptor: whether pairing connections exist at all right now.
    #[must_use]
    pub fn accepts_connections(&self) -> bool {
        self.window().accepts_connections(self.now())
    }

    fn refused(&self, error: PairingError, peer: &PeerInfo) -> Status {
        let event = Event::new(EventCode::PairingRefused).reason(error.word()).address(peer.address.ip());
        self.communication.record(event);
        refused(error, peer)
    }

    fn session_id(&self) -> Result<SessionId, Status> {
        let mut id = SessionId::default();
        self.random.fill(&mut id).map_err(|_| Status::internal("no random numbers"))?;
        Ok(id)
    }

    fn now(&self) -> Instant {
        (self.clock)()
    }

    fn window(&self) -> MutexGuard<'_, PairingWindow> {
        // Steps of the window leave it whole; at worst a try was spent.
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The gRPC service on pairing connections.
pub struct EnrollService<A> {
    desk: Arc<PairingDesk>,
    admission: A,
}

impl<A: Admission> EnrollService<A> {
    /// Serves newcomers at `desk` and makes them members through `admission`.
    pub fn new(desk: Arc<PairingDesk>, admission: A) -> Self {
        Self { desk, admission }
    }
}

#[tonic::async_trait]
impl<A: Admission> Enroll for EnrollService<A> {
    async fn start(&self, request: Request<StartRequest>) -> Result<Response<StartReply>, Status> {
        let peer = peer(&request)?;
        let request = request.into_inner();
        let newcomer = newcomer(&request, &peer)?;
        let hello = Hello {
            spake: &request.spake,
            newcomer,
            server: self.desk.device,
            server_key: self.desk.public_key,
            exporter: peer.exporter,
        };
        let session = self.desk.session_id()?;
        let started = self.desk.window().start(hello, session, self.desk.now());
        let answer = started.map_err(|error| self.desk.refused(error, &peer))?;
        Ok(Response::new(StartReply {
            session: answer.session.to_vec().into(),
            spake: answer.spake.into(),
            public_key: self.desk.public_key.0.to_vec().into(),
            device_id: self.desk.device.0.to_vec().into(),
        }))
    }

    async fn confirm(&self, request: Request<ConfirmRequest>) -> Result<Response<ConfirmReply>, Status> {
        let peer = peer(&request)?;
        let ConfirmRequest { session, proof } = request.into_inner();
        let confirmed = self.desk.window().confirm(&session, &proof, &peer.exporter, self.desk.now());
        let (newcomer, proof) = confirmed.map_err(|error| self.desk.refused(error, &peer))?;
        tracing::info!(peer = %newcomer.device, address = %peer.address, "device has proven the pairing code");
        let admitted = self.admission.admit(newcomer).await?;
        Ok(Response::new(reply(&proof, &admitted)))
    }
}

fn reply(proof: &[u8], admitted: &Admitted) -> ConfirmReply {
    ConfirmReply {
        proof: proof.to_vec().into(),
        group_id: admitted.anchor.group.0.to_vec().into(),
        group_name: admitted.group_name.clone(),
        root_key: admitted.anchor.root.0.to_vec().into(),
        issuers: admitted.issuers.iter().map(|signed| signed.encode().into()).collect(),
        members: admitted.members.iter().map(|signed| signed.encode().into()).collect(),
        lineage: admitted.lineage.iter().map(|signed| signed.encode().into()).collect(),
    }
}

fn peer<T>(request: &Request<T>) -> Result<Arc<PeerInfo>, Status> {
    let peer = request.extensions().get::<Arc<PeerInfo>>();
    peer.cloned().ok_or_else(|| Status::internal("connection without a peer"))
}

fn newcomer(request: &StartRequest, peer: &PeerInfo) -> Result<Newcomer, Status> {
    let malformed = |text: &str| status(GrpcCode::InvalidArgument, Reason::Malformed, text);
    if !(PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION).contains(&request.protocol) {
        let text = format!("protocol version {} is not spoken here", request.protocol);
        return Err(status(GrpcCode::FailedPrecondition, Reason::ProtocolVersion, text));
    }
    let key = PublicKey::from_slice(&request.public_key);
    // Nobody enrols a key that it does not hold.
    let public_key = key
        .filter(|key| *key == peer.public_key)
        .ok_or_else(|| malformed("not the key of this connection"))?;
    let device = DeviceId::from_slice(&request.device_id).ok_or_else(|| malformed("device id"))?;
    let name = request.device_name.clone();
    if name.is_empty() || name.len() > limit::NAME_BYTES || name.chars().any(char::is_control) {
        return Err(malformed("device name"));
    }
    Ok(Newcomer { device, public_key, name })
}

fn refused(error: PairingError, peer: &PeerInfo) -> Status {
    tracing::warn!(address = %peer.address, %error, "pairing refused");
    let (code, reason) = match error {
        PairingError::Closed => (GrpcCode::FailedPrecondition, Reason::PairingClosed),
        PairingError::Expired => (GrpcCode::DeadlineExceeded, Reason::PairingClosed),
        PairingError::TooManyTries => (GrpcCode::ResourceExhausted, Reason::PairingTries),
        PairingError::WrongCode { .. } => (GrpcCode::Unauthenticated, Reason::PairingCode),
        PairingError::UnknownSession => (GrpcCode::NotFound, Reason::Malformed),
        PairingError::Malformed(_) => (GrpcCode::InvalidArgument, Reason::Malformed),
        PairingError::Busy => (GrpcCode::Unavailable, Reason::Busy),
    };
    let mut status = status(code, reason, error.to_string());
    if let PairingError::WrongCode { tries_left } = error {
        status.metadata_mut().insert(TRIES_LEFT, MetadataValue::from(u32::from(tries_left)));
    }
    status
}
