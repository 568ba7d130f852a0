//! The same call without a database: the sync service's messages over the product's own TLS, each
//! push answered from memory with an answer of the usual size. Runs as a process of its own, which
//! is this very program started again.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::{io, path};

use anyhow::{Context, Result};
use mfpsync_daemon::identity::Identity;
use mfpsync_daemon::keystore::FileKeyStore;
use mfpsync_daemon::tls::{ServerStream, ServerTls};
use mfpsync_proto::sync::sync_server::{Sync, SyncServer};
use mfpsync_proto::sync::{
    ConfirmReply, FollowEvent, FollowRequest, HelloReply, HelloRequest, LeaveReply, LeaveRequest, Outcome,
    PushReply, PushRequest, ReportReply, ReportRequest,
};
use mfpsync_storage::model::{self, EditOutcome, Operation, PublicKey, Revision, Sequence};
use ring::rand::SystemRandom;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};

use super::process::Process;
use super::pusher::Pusher;
use super::report::say;

/// The argument that makes this program the echo server.
pub(crate) const ARGUMENT: &str = "--echo-server";
/// Accepted connections waiting to be served.
const ACCEPTED: usize = 16;

/// A key kept in `directory`.
///
/// # Errors
/// It cannot be stored there.
pub(crate) fn identity(directory: &Path) -> Result<Identity> {
    Ok(Identity::load_or_create(&FileKeyStore::open(directory)?, &SystemRandom::new())?)
}

/// The running echo server, as the load generator sees it.
pub(crate) struct Echo {
    pub(crate) process: Process,
    address: String,
    key: PublicKey,
    client: Identity,
}

impl Echo {
    /// # Errors
    /// The process does not start or does not say where it listens.
    pub(crate) fn start(home: &Path) -> Result<Self> {
        let directory = path::absolute(home)?.join("echo");
        let server = directory.join("server");
        let key = identity(&server)?.public_key();
        let client = identity(&directory.join("client"))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ARGUMENT).arg(&server).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process::start("echo server", &mut command)?;
        let out = process.child().stdout.take().context("the echo server's output")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        Ok(Self { process, address: line.trim().to_owned(), key, client })
    }

    /// # Errors
    /// The echo server is gone.
    pub(crate) async fn connect(&self, number: usize) -> Result<Pusher> {
        Pusher::unenrolled(&self.client, self.key, &self.address, number).await
    }
}

/// Serves until the process is killed.
///
/// # Errors
/// No identity or no port can be had.
pub(crate) async fn serve(directory: &Path) -> Result<()> {
    // A parent that was killed cannot kill us.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let tls = ServerTls::new(&identity(directory)?)?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    say(format_args!("{}", listener.local_addr()?))?;
    let (accepted, incoming) = mpsc::channel(ACCEPTED);
    tokio::spawn(accept(listener, tls, accepted));
    Server::builder()
        .add_service(SyncServer::new(EchoService::default()))
        .serve_with_incoming(ReceiverStream::new(incoming))
        .await?;
    Ok(())
}

async fn accept(listener: TcpListener, tls: ServerTls, accepted: mpsc::Sender<io::Result<EchoStream>>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (tls, accepted) = (tls.clone(), accepted.clone());
        tokio::spawn(async move {
            let stream = handshake(&tls, tcp).await;
            // An error means that the server has ended.
            drop(accepted.send(stream).await);
        });
    }
}

async fn handshake(tls: &ServerTls, tcp: TcpStream) -> io::Result<EchoStream> {
    tcp.set_nodelay(true)?;
    Ok(EchoStream(tls.accept(tcp, false).await?.0))
}

/// What gRPC wants to know of a connection is nothing here.
struct EchoStream(ServerStream);

impl Connected for EchoStream {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for EchoStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for EchoStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

#[derive(Debug, Default)]
struct EchoService {
    sequence: AtomicU64,
}

impl EchoService {
    fn answer(&self, record: &[u8]) -> Result<Outcome, Status> {
        let number =
            Operation::peek_number(record).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let sequence = Sequence(self.sequence.fetch_add(1, Ordering::Relaxed) + 1);
        let revision = Revision { epoch: 1, sequence };
        let outcome = model::Outcome::Accepted { revision, edits: vec![EditOutcome::Applied] };
        Ok(Outcome { operation: number.0, record: outcome.encode().into() })
    }
}

fn only_pushes<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("only pushes are answered"))
}

#[tonic::async_trait]
impl Sync for EchoService {
    type FollowStream = ReceiverStream<Result<FollowEvent, Status>>;

    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushReply>, Status> {
        let operations = request.into_inner().operations;
        let outcomes = operations.iter().map(|record| self.answer(record)).collect::<Result<_, _>>()?;
        let head_sequence = self.sequence.load(Ordering::Relaxed);
        Ok(Response::new(PushReply { outcomes, head_sequence, safe_sequence: None }))
    }

    async fn hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        only_pushes()
    }

    async fn follow(&self, _: Request<FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        only_pushes()
    }

    async fn confirm(&self, _: Request<FollowRequest>) -> Result<Response<ConfirmReply>, Status> {
        only_pushes()
    }

    async fn report(&self, _: Request<ReportRequest>) -> Result<Response<ReportReply>, Status> {
        only_pushes()
    }

    async fn leave(&self, _: Request<LeaveRequest>) -> Result<Response<LeaveReply>, Status> {
        only_pushes()
    }
}
