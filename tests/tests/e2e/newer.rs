//! A server that was updated first: its release speaks no version of the protocol that the client speaks.
//!
//! The server's place is taken by one with its keys and its address that answers as such a release would.

use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;

use anyhow::ensure;
use mfpsync_daemon::communication::CommunicationLog;
use mfpsync_daemon::identity::Identity;
use mfpsync_daemon::keystore::FileKeyStore;
use mfpsync_daemon::membership::Roster;
use mfpsync_daemon::net::acceptor::{self, House, Limits, Shares};
use mfpsync_daemon::net::serve::grpc_server;
use mfpsync_daemon::refusal;
use mfpsync_daemon::tls::ServerTls;
use mfpsync_daemon::vital::Vital;
use mfpsync_proto::sync::sync_server::{Sync, SyncServer};
use mfpsync_proto::sync::{
    ConfirmReply, FollowEvent, FollowRequest, HelloReply, HelloRequest, LeaveReply, LeaveRequest, PushReply,
    PushRequest, Reason, ReportReply, ReportRequest,
};
use mfpsync_storage::Inline;
use mfpsync_storage::master::Master;
use mfpsync_tests::item::{key, put, text};
use mfpsync_tests::{Fleet, PATIENCE, TestDevice, command_path, current, eventually};
use ring::rand::SystemRandom;
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Code, Request, Response, Status};

struct Newer;

#[tonic::async_trait]
impl Sync for Newer {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<FollowEvent, Status>> + Send>>;

    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let HelloRequest { protocol_min, protocol_max, .. } = request.into_inner();
        let text = format!("protocol versions {protocol_min} to {protocol_max} are not spoken here");
        Err(refusal::status(Code::FailedPrecondition, Reason::ProtocolVersion, text))
    }

    async fn follow(&self, _: Request<FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        Err(Status::unimplemented("follow"))
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

/// Takes the place of a stopped server until the token is cancelled and the tasks have ended.
async fn in_place_of(server: &TestDevice) -> (CancellationToken, TaskTracker) {
    let keys = FileKeyStore::open(server.data_dir().join("keys")).unwrap();
    let identity = Identity::load_or_create(&keys, &SystemRandom::new()).unwrap();
    let master = Inline::<Master>::open(&server.master_database(), false).unwrap();
    let members = master.read(|read| read.members()).unwrap();
    let roster = Arc::new(Roster::new());
    roster.update(members.into_iter().map(|signed| signed.record));
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let house = House {
        shares: Shares::new(&Limits::default()),
        pairing: Arc::new(|| false),
        communication: CommunicationLog::default(),
        stats: Arc::default(),
        cut: stop.clone(),
    };
    let listener = TcpListener::bind(server.address()).await.unwrap();
    let tls = ServerTls::new(&identity).unwrap();
    let vital = Vital::new(&tasks, &stop);
    let incoming = acceptor::start(listener, tls, roster, house, Limits::default(), &vital);
    let connections = ReceiverStream::new(incoming.sync).map(Ok::<_, Status>);
    let serving = grpc_server()
        .add_service(SyncServer::new(Newer))
        .serve_with_incoming_shutdown(connections, stop.clone().cancelled_owned());
    tasks.spawn(async move { serving.await.unwrap() });
    (stop, tasks)
}

#[tokio::test]
async fn a_client_that_meets_a_newer_server_says_so_works_on_and_recovers() {
    let mut fleet = Fleet::start(1).await.unwrap();
    fleet.clients[0].log.expect("F-PROTOCOL");
    fleet.server.stop().await.unwrap();
    let (stop, tasks) = in_place_of(&fleet.server).await;
    let client = &fleet.clients[0];
    let fault = eventually(PATIENCE, "the fault", async || client.fault("F-PROTOCOL").await).await.unwrap();
    assert!(fault.text.contains("update the older one"), "{}", fault.text);
    let mut status = Command::new(command_path().unwrap());
    let status = status.arg("--run").arg(client.run_dir()).arg("status").output().unwrap();
    assert_eq!(status.status.code(), Some(6), "it needs a person");
    let item = key("shared", "shortcut", "meanwhile");
    client.write(vec![put(item.clone(), vec![text("value", "kept")])]).await.unwrap();
    assert_eq!(client.client_status().await.unwrap().waiting, 1);

    // The release that was there before is put back.
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    fleet.server.start().await.unwrap();
    current(&fleet.clients[0]).await.unwrap();
    let contents = fleet.converged(&["shared"], PATIENCE).await.unwrap();
    assert_eq!(contents.text(&item, "value"), Some("kept"));
    eventually(PATIENCE, "the fault to end", async || {
        let faults = fleet.clients[0].status().await?.faults;
        ensure!(faults.is_empty(), "{faults:?}");
        Ok(())
    })
    .await
    .unwrap();
}
