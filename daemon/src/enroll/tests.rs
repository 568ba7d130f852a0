use std::sync::Arc;
use std::time::Instant;

use mfpsync_proto::PROTOCOL_VERSION;
use mfpsync_proto::enroll::enroll_client::EnrollClient;
use mfpsync_proto::enroll::enroll_server::{Enroll, EnrollServer};
use mfpsync_proto::enroll::{ConfirmReply, ConfirmRequest, StartReply, StartRequest};
use mfpsync_proto::sync::Reason;
use mfpsync_storage::model::Capabilities;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::*;
use crate::authority::VerifyError;
use crate::communication::CommunicationLog;
use crate::identity::Identity;
use crate::membership::Roster;
use crate::net::acceptor::{self, Limits, Shares};
use crate::net::dial::dial_enroll;
use crate::net::serve::grpc_server;
use crate::net::testing::{Conduct, PATIENCE, TestServer, described, identity, nobody};
use crate::pairing::{Code, Hello, LIFETIME, PairingWindow, State};
use crate::refusal::reason_of;
use crate::tls::{ClientTls, ServerTls};
use crate::vital::Vital;

async fn try_join(server: &TestServer, code: &Code, device: &Identity) -> Result<Joined, JoinError> {
    join(&server.endpoint(), code, device, "lobby", PATIENCE).await
}

/// A code other than the given one.
fn another(code: &Code) -> Code {
    let typed = code.reveal();
    let last = if typed.ends_with('0') { '1' } else { '0' };
    Code::parse(&format!("{}{last}", &typed[..typed.len() - 1])).unwrap()
}

#[tokio::test]
async fn a_newcomer_with_the_code_becomes_a_member_and_verifies_everything() {
    let (server, device) = (TestServer::start().await, identity());
    let code = server.desk.open().unwrap();
    let joined = try_join(&server, &code, &device).await.unwrap();
    assert_eq!(joined.anchor, server.group.anchor);
    assert_eq!((joined.group_name.as_str(), joined.server), ("Head office", server.identity.device()));
    assert_eq!((joined.issuers.len(), joined.members.len(), joined.lineage.len()), (1, 2, 1));
    let member = server.roster.authorise(device.public_key(), Capabilities::CLIENT).unwrap();
    assert_eq!((member.device, member.name.as_str()), (device.device(), "lobby"));
    assert_eq!(server.desk.state(), State::Closed);
}

#[tokio::test]
async fn a_used_code_is_refused() {
    let server = TestServer::start().await;
    let code = server.desk.open().unwrap();
    try_join(&server, &code, &identity()).await.unwrap();
    assert!(matches!(try_join(&server, &code, &identity()).await, Err(JoinError::Closed)));
}

#[tokio::test]
async fn wrong_codes_count_down_and_the_sixth_try_is_refused() {
    let (server, device) = (TestServer::start().await, identity());
    let code = server.desk.open().unwrap();
    for left in (0..5).rev() {
        let refused = try_join(&server, &another(&code), &device).await;
        assert!(
            matches!(refused, Err(JoinError::WrongCode { tries_left: Some(told) }) if told == left),
            "{refused:?}"
        );
    }
    assert!(matches!(try_join(&server, &code, &device).await, Err(JoinError::TooManyTries)));
    assert!(server.roster.members().is_empty());
}

#[tokio::test]
async fn an_expired_code_is_refused_as_too_late() {
    let server = TestServer::start().await;
    let code = server.desk.open().unwrap();
    *server.ahead.lock().unwrap() = LIFETIME;
    assert!(matches!(try_join(&server, &code, &identity()).await, Err(JoinError::TooLate)));
}

#[tokio::test]
async fn an_unreachable_server_is_said_to_be_so() {
    let (address, _held) = nobody();
    let code = Code::parse("12345678").unwrap();
    let refused = join(&address, &code, &identity(), "lobby", PATIENCE).await;
    assert!(matches!(refused, Err(JoinError::Unreachable(_))));
}

#[tokio::test]
async fn rows_that_do_not_verify_are_not_adopted() {
    let server = TestServer::start_with(Limits::default(), Conduct::ForgedRows).await;
    let code = server.desk.open().unwrap();
    let refused = try_join(&server, &code, &identity()).await;
    assert!(matches!(refused, Err(JoinError::Membership(VerifyError::BadSignature))), "{refused:?}");

    let server = TestServer::start_with(Limits::default(), Conduct::NoRow).await;
    let code = server.desk.open().unwrap();
    assert!(matches!(try_join(&server, &code, &identity()).await, Err(JoinError::Malformed(_))));
}

async fn raw_client(server: &TestServer, device: &Identity) -> EnrollClient<Channel> {
    let tls = ClientTls::enroll(device).unwrap();
    EnrollClient::new(dial_enroll(&server.endpoint(), &tls, PATIENCE).await.unwrap().channel)
}

fn start_request(device: &Identity) -> StartRequest {
    StartRequest {
        spake: vec![0; 33].into(),
        public_key: device.public_key().0.to_vec().into(),
        device_id: device.device().0.to_vec().into(),
        device_name: "lobby".to_owned(),
        protocol: PROTOCOL_VERSION,
    }
}

#[tokio::test]
async fn malformed_requests_are_refused_and_those_without_a_claim_cost_no_try() {
    let (server, device) = (TestServer::start().await, identity());
    server.desk.open().unwrap();
    let mut client = raw_client(&server, &device).await;
    let good = start_request(&device);
    let cases = [
        (StartRequest { public_key: vec![7; 32].into(), ..good.clone() }, Reason::Malformed),
        (StartRequest { public_key: Vec::new().into(), ..good.clone() }, Reason::Malformed),
        (StartRequest { device_id: vec![7; 15].into(), ..good.clone() }, Reason::Malformed),
        (StartRequest { device_name: "a\nb".to_owned(), ..good.clone() }, Reason::Malformed),
        (StartRequest { device_name: "a".repeat(256), ..good.clone() }, Reason::Malformed),
        (StartRequest { protocol: 99, ..good.clone() }, Reason::ProtocolVersion),
    ];
    for (request, reason) in cases {
        let refused = client.start(request).await.unwrap_err();
        assert_eq!(reason_of(&refused).map(|refusal| refusal.reason()), Some(reason));
    }
    assert!(matches!(server.desk.state(), State::Open { tries_left: 5, .. }));
    assert!(client.start(good).await.is_err());
    assert!(matches!(server.desk.state(), State::Open { tries_left: 4, .. }));
    let nonsense = ConfirmRequest { session: vec![1; 99].into(), proof: vec![1; 3].into() };
    assert!(client.confirm(nonsense).await.is_err());
}

/// Serves pairing connections with the given service.
async fn serve(own: &Identity, service: impl Enroll) -> (String, DropGuard) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let incoming = acceptor::start(
        listener,
        ServerTls::new(own).unwrap(),
        Arc::new(Roster::new()),
        acceptor::House {
            pairing: Arc::new(|| true),
            communication: CommunicationLog::default(),
            stats: Arc::default(),
            cut: CancellationToken::new(),
            shares: Shares::new(&Limits::default()),
        },
        Limits::default(),
        &Vital::new(&tasks, &stop),
    );
    let connections = ReceiverStream::new(incoming.enroll);
    tasks.spawn(
        grpc_server()
            .add_service(EnrollServer::new(service))
            .serve_with_incoming(tokio_stream::StreamExt::map(connections, Ok::<_, std::io::Error>)),
    );
    (address, stop.drop_guard())
}

/// Stands between joiner and server with a TLS connection to each, and passes every message on,
/// with the keys in them as they would have to be for each side to go along.
struct Relay {
    own: Arc<Identity>,
    towards_server: Mutex<EnrollClient<Channel>>,
}

#[tonic::async_trait]
impl Enroll for Relay {
    async fn start(&self, request: Request<StartRequest>) -> Result<Response<StartReply>, Status> {
        let key = self.own.public_key().0.to_vec();
        let request = StartRequest { public_key: key.clone().into(), ..request.into_inner() };
        let reply = self.towards_server.lock().await.start(request).await?.into_inner();
        Ok(Response::new(StartReply { public_key: key.into(), ..reply }))
    }

    async fn confirm(&self, request: Request<ConfirmRequest>) -> Result<Response<ConfirmReply>, Status> {
        self.towards_server.lock().await.confirm(request.into_inner()).await
    }
}

#[tokio::test]
async fn a_relay_in_the_middle_gains_nothing_on_either_side() {
    let (server, device, own) = (TestServer::start().await, identity(), identity());
    let code = server.desk.open().unwrap();
    let towards_server = Mutex::new(raw_client(&server, &own).await);
    let own = Arc::new(own);
    let (address, _stop) = serve(&own.clone(), Relay { own, towards_server }).await;

    let refused = join(&address, &code, &device, "lobby", PATIENCE).await;
    assert!(matches!(refused, Err(JoinError::WrongCode { tries_left: Some(4) })), "{refused:?}");
    assert!(server.roster.members().is_empty());
    assert!(matches!(server.desk.state(), State::Open { tries_left: 4, .. }));
}

/// Claims to have accepted the joiner's proof, without knowing the code.
struct Impostor(Arc<Identity>);

#[tonic::async_trait]
impl Enroll for Impostor {
    async fn start(&self, request: Request<StartRequest>) -> Result<Response<StartReply>, Status> {
        let request = request.into_inner();
        let mut window = PairingWindow::new();
        window.open(Code::parse("00000000").unwrap(), Instant::now());
        let hello = Hello {
            spake: &request.spake,
            newcomer: described(&self.0, "anything"),
            server: self.0.device(),
            server_key: self.0.public_key(),
            exporter: [0; 32],
        };
        let answer = window.start(hello, [0; 16], Instant::now()).unwrap();
        Ok(Response::new(StartReply {
            session: answer.session.to_vec().into(),
            spake: answer.spake.into(),
            public_key: self.0.public_key().0.to_vec().into(),
            device_id: self.0.device().0.to_vec().into(),
        }))
    }

    async fn confirm(&self, request: Request<ConfirmRequest>) -> Result<Response<ConfirmReply>, Status> {
        // Nothing better at hand than the joiner's own proof.
        let proof = request.into_inner().proof;
        Ok(Response::new(ConfirmReply { proof, ..ConfirmReply::default() }))
    }
}

#[tokio::test]
async fn a_server_that_does_not_prove_the_code_is_not_believed() {
    let own = Arc::new(identity());
    let (address, _stop) = serve(&own.clone(), Impostor(own)).await;
    let code = Code::parse("12345678").unwrap();
    let refused = join(&address, &code, &identity(), "lobby", PATIENCE).await;
    assert!(matches!(refused, Err(JoinError::Impostor)), "{refused:?}");
}
