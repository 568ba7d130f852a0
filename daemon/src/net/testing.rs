//! A group in miniature for tests: real keys, real TLS on loopback, real gRPC.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mfpsync_proto::enroll::enroll_server::EnrollServer;
use mfpsync_proto::sync::sync_server::{Sync, SyncServer};
use mfpsync_proto::sync::{
    ConfirmReply, FollowEvent, FollowRequest, HelloReply, HelloRequest, LeaveReply, LeaveRequest, PushReply,
    PushRequest, ReportReply, ReportRequest,
};
use mfpsync_storage::model::{
    Capabilities, DeviceId, Epoch, IssuingCertificate, Member, Promotion, PromotionReason, Signed,
};
use ring::rand::SystemRandom;
use tokio::net::{TcpListener, TcpSocket};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Pending, pending};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use super::acceptor::{self, Limits, Refused, Shares};
use super::serve::grpc_server;
use super::stream::PeerInfo;
use crate::authority::{IssuingKey, Root, TrustAnchor};
use crate::communication::CommunicationLog;
use crate::enroll::{Admission, Admitted, EnrollService, PairingDesk};
use crate::identity::Identity;
use crate::keystore::FileKeyStore;
use crate::membership::Roster;
use crate::pairing::Newcomer;
use crate::tls::ServerTls;
use crate::vital::Vital;

/// Ends a test that would otherwise hang; nothing is measured with it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn identity() -> Identity {
    let directory = tempfile::tempdir().unwrap();
    let store = FileKeyStore::open(directory.path().join("keys")).unwrap();
    Identity::load_or_create(&store, &SystemRandom::new()).unwrap()
}

/// The keys and rows of a group with one server.
#[derive(Clone)]
pub(crate) struct Group {
    pub(crate) anchor: TrustAnchor,
    issuing: Arc<IssuingKey>,
    issuers: Vec<Signed<IssuingCertificate>>,
    founded: Signed<Promotion>,
}

impl Group {
    fn found(server: &Identity) -> Self {
        let random = SystemRandom::new();
        let directory = tempfile::tempdir().unwrap();
        let store = FileKeyStore::open(directory.path().join("keys")).unwrap();
        let root = Root::generate(&random).unwrap();
        let issuing = IssuingKey::load_or_create(&store, server.device(), &random).unwrap();
        let founded = issuing.sign_promotion(Promotion {
            group: root.anchor().group,
            epoch: Epoch { number: 1, nonce: [1; 16] },
            parent: None,
            ends: Vec::new(),
            device: server.device(),
            operator: "operator".to_owned(),
            reason: PromotionReason::Founded,
            made_at: 0,
        });
        let issuers = vec![root.certify(issuing.device(), issuing.public_key())];
        Self { anchor: root.anchor(), issuing: Arc::new(issuing), issuers, founded }
    }

    pub(crate) fn row(
        &self,
        newcomer: &Newcomer,
        capabilities: Capabilities,
        version: u64,
    ) -> Signed<Member> {
        self.issuing.sign_member(Member {
            group: self.anchor.group,
            device: newcomer.device,
            public_key: newcomer.public_key,
            name: newcomer.name.clone(),
            capabilities,
            released: false,
            version,
            endpoints: Vec::new(),
            issuer: DeviceId([0; 16]),
        })
    }
}

/// An address where nobody listens, as long as the socket is held.
pub(crate) fn nobody() -> (String, TcpSocket) {
    let held = TcpSocket::new_v4().unwrap();
    held.bind(([127, 0, 0, 1], 0).into()).unwrap();
    (held.local_addr().unwrap().to_string(), held)
}

pub(crate) fn described(identity: &Identity, name: &str) -> Newcomer {
    Newcomer { device: identity.device(), public_key: identity.public_key(), name: name.to_owned() }
}

/// How the test's server answers a newcomer; `Honest` unless a test wants it otherwise.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Conduct {
    Honest,
    /// Hands out rows that another group's key signed.
    ForgedRows,
    /// Leaves out the newcomer's own row.
    NoRow,
}

struct Registry {
    group: Group,
    server: Newcomer,
    roster: Arc<Roster>,
    conduct: Conduct,
}

#[tonic::async_trait]
impl Admission for Registry {
    async fn admit(&self, newcomer: Newcomer) -> Result<Admitted, Status> {
        let row = self.group.row(&newcomer, Capabilities::CLIENT, 1);
        self.roster.update([row.record.clone()]);
        let server = self.group.row(&self.server, Capabilities::SERVE, 1);
        let members = match self.conduct {
            Conduct::Honest => vec![server, row],
            Conduct::NoRow => vec![server],
            Conduct::ForgedRows => {
                let other = Group::found(&identity());
                vec![server, Signed { signature: other.founded.signature, ..row }]
            }
        };
        Ok(Admitted {
            anchor: self.group.anchor,
            group_name: "Head office".to_owned(),
            issuers: self.group.issuers.clone(),
            members,
            lineage: vec![self.group.founded.clone()],
        })
    }
}

/// Answers a hello with the device it sees, and never ends a follow.
struct Echo;

#[tonic::async_trait]
impl Sync for Echo {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let peer = request.extensions().get::<Arc<PeerInfo>>().cloned();
        assert!(peer.is_some_and(|peer| peer.device.is_some()));
        Ok(Response::new(HelloReply::default()))
    }

    type FollowStream = Pending<Result<FollowEvent, Status>>;

    async fn follow(&self, _: Request<FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        Ok(Response::new(pending()))
    }

    async fn push(&self, _: Request<PushRequest>) -> Result<Response<PushReply>, Status> {
        Err(Status::unimplemented("push"))
    }

    async fn confirm(&self, _: Request<FollowRequest>) -> Result<Response<ConfirmReply>, Status> {
        Err(Status::unimplemented("confirm"))
    }

    async fn report(&self, _: Request<ReportRequest>) -> Result<Response<ReportReply>, Status> {
        Err(Status::unimplemented("report"))
    }

    async fn leave(&self, _: Request<LeaveRequest>) -> Result<Response<LeaveReply>, Status> {
        Err(Status::unimplemented("leave"))
    }
}

/// A serving device; stops when it is dropped.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) identity: Identity,
    pub(crate) group: Group,
    pub(crate) roster: Arc<Roster>,
    pub(crate) desk: Arc<PairingDesk>,
    pub(crate) refused: Arc<Refused>,
    /// How far its pairing desk's clock is ahead.
    pub(crate) ahead: Arc<Mutex<Duration>>,
    _stop: DropGuard,
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::start_with(Limits::default(), Conduct::Honest).await
    }

    pub(crate) async fn start_with(limits: Limits, conduct: Conduct) -> Self {
        Self::start_sharing(limits, Shares::new(&limits), conduct).await
    }

    /// One more port that has its places in common with others.
    pub(crate) async fn start_sharing(limits: Limits, shares: Shares, conduct: Conduct) -> Self {
        let identity = identity();
        let group = Group::found(&identity);
        let roster = Arc::new(Roster::new());
        let ahead: Arc<Mutex<Duration>> = Arc::default();
        let clock = ahead.clone();
        let desk = PairingDesk::new(&identity, Arc::new(SystemRandom::new()))
            .by(Arc::new(move || Instant::now() + *clock.lock().unwrap()));
        let desk = Arc::new(desk);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let gate = desk.clone();
        let incoming = acceptor::start(
            listener,
            ServerTls::new(&identity).unwrap(),
            roster.clone(),
            acceptor::House {
                pairing: Arc::new(move || gate.accepts_connections()),
                communication: CommunicationLog::default(),
                stats: Arc::default(),
                cut: CancellationToken::new(),
                shares,
            },
            limits,
            &Vital::new(&tasks, &stop),
        );
        let registry = Registry {
            group: group.clone(),
            server: described(&identity, "server"),
            roster: roster.clone(),
            conduct,
        };
        let sync = ReceiverStream::new(incoming.sync);
        tasks.spawn(
            grpc_server()
                .add_service(SyncServer::new(Echo))
                .serve_with_incoming(tokio_stream::StreamExt::map(sync, Ok::<_, std::io::Error>)),
        );
        let enroll = ReceiverStream::new(incoming.enroll);
        tasks.spawn(
            grpc_server()
                .add_service(EnrollServer::new(EnrollService::new(desk.clone(), registry)))
                .serve_with_incoming(tokio_stream::StreamExt::map(enroll, Ok::<_, std::io::Error>)),
        );
        let _stop = stop.drop_guard();
        Self { address, identity, group, roster, desk, refused: incoming.refused, ahead, _stop }
    }

    pub(crate) fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// Makes a device a member without pairing.
    pub(crate) fn enrol(&self, identity: &Identity) -> Member {
        let row = self.group.row(&described(identity, "client"), Capabilities::CLIENT, 1).record;
        self.roster.update([row.clone()]);
        row
    }
}
