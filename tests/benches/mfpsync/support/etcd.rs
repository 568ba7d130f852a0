//! `etcd` as the yardstick: one node on the same disk, mutual TLS, its default durability, asked
//! over gRPC with the few messages a put needs.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use data_encoding::BASE64;
use hyper_util::rt::TokioIo;
use mfpsync_storage::model::{Revision, Sequence};
use prost::bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_stream::StreamExt;
use tonic::Streaming;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic_prost::ProstCodec;

use super::load::Call;
use super::process::Process;
use super::workload::Author;

const READY: Duration = Duration::from_secs(30);
const READY_POLL: Duration = Duration::from_millis(50);
/// Far above what a run writes, in bytes; the default of 2 GiB would do as well.
const QUOTA_BYTES: u64 = 8 << 30;
const PUT: &str = "/etcdserverpb.KV/Put";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// **Source**: etcd 3.4, `rpc.proto`; fields left out are at their defaults.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "1")]
    cluster_id: u64,
    #[prost(uint64, tag = "2")]
    member_id: u64,
    #[prost(int64, tag = "3")]
    revision: i64,
    #[prost(uint64, tag = "4")]
    raft_term: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    create: Option<WatchCreateRequest>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WatchCreateRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    range_end: Bytes,
}

/// What a watch says.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WatchResponse {
    #[prost(bool, tag = "3")]
    pub(crate) created: bool,
    /// As they come, not read any further.
    #[prost(bytes = "bytes", repeated, tag = "11")]
    pub(crate) events: Vec<Bytes>,
}

/// A running node.
pub(crate) struct Etcd {
    pub(crate) process: Process,
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

impl Etcd {
    /// Makes certificates, starts a node with an empty database and waits until it takes a put.
    ///
    /// # Errors
    /// `etcd` is not installed or does not start.
    pub(crate) async fn start(home: &Path) -> Result<Self> {
        let home = home.join("etcd");
        fs::create_dir_all(&home)?;
        let tls = Arc::new(certificates(&home)?);
        let (client, peer) = (free_address()?, free_address()?);
        let log = fs::File::create(home.join("log"))?;
        let mut command = Command::new("etcd");
        command
            .arg("--data-dir")
            .arg(home.join("data"))
            .args(["--listen-client-urls", &format!("https://{client}")])
            .args(["--advertise-client-urls", &format!("https://{client}")])
            .args(["--listen-peer-urls", &format!("http://{peer}")])
            .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
            .args(["--initial-cluster", &format!("default=http://{peer}")])
            .arg("--cert-file")
            .arg(home.join("server.pem"))
            .arg("--key-file")
            .arg(home.join("server.key"))
            .arg("--client-cert-auth")
            .arg("--trusted-ca-file")
            .arg(home.join("ca.pem"))
            .args(["--quota-backend-bytes", &QUOTA_BYTES.to_string()])
            .args(["--logger", "zap", "--log-level", "error"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let process = Process::start("etcd", &mut command)?;
        let mut etcd = Self { process, address: client, tls };
        etcd.ready().await?;
        Ok(etcd)
    }

    async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY;
        loop {
            self.process.still_runs()?;
            let refused = match self.connect(0).await {
                Ok(mut putter) => match putter.call().await {
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if Instant::now() > deadline {
                bail!("etcd is not ready: {refused:#}");
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }

    /// # Errors
    /// The node is gone.
    pub(crate) async fn connect(&self, number: usize) -> Result<Putter> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::from(self.address.ip());
        let stream = TlsConnector::from(self.tls.clone()).connect(name, tcp).await?;
        let once = Mutex::new(Some(TokioIo::new(stream)));
        let connector = tower::service_fn(move |_: Uri| {
            let stream = once.lock().ok().and_then(|mut stream| stream.take());
            std::future::ready(stream.ok_or(io::Error::from(io::ErrorKind::NotConnected)))
        });
        // `http` on purpose: the connection handed over is already inside TLS.
        let channel = Endpoint::from_static("http://etcd").connect_with_connector(connector).await?;
        Ok(Putter { client: Grpc::new(channel), author: Author::new(number) })
    }
}

/// One connection that puts one value after the other.
#[derive(Debug)]
pub(crate) struct Putter {
    client: Grpc<Channel>,
    author: Author,
}

impl Putter {
    /// Watches all keys.
    ///
    /// # Errors
    /// The node is gone.
    pub(crate) async fn watch(&mut self) -> Result<Streaming<WatchResponse>> {
        // From the first possible key on; an end of one zero byte means all that follow.
        let (key, range_end) = (Bytes::from_static(&[0]), Bytes::from_static(&[0]));
        let request = WatchRequest { create: Some(WatchCreateRequest { key, range_end }) };
        self.client.ready().await?;
        let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
        // A watch lasts as long as its requests do not end.
        let requests = tokio_stream::once(request).chain(tokio_stream::pending());
        let path = PathAndQuery::from_static(WATCH);
        Ok(self.client.streaming(tonic::Request::new(requests), path, codec).await?.into_inner())
    }
}

impl Call for Putter {
    async fn call(&mut self) -> Result<()> {
        let (_, record) = self.author.next()?;
        let request = PutRequest { key: self.author.key().into(), value: record.into() };
        self.client.ready().await?;
        let codec = ProstCodec::<PutRequest, PutResponse>::default();
        let path = PathAndQuery::from_static(PUT);
        let reply = self.client.unary(tonic::Request::new(request), path, codec).await?.into_inner();
        let revision = reply.header.context("header of a put")?.revision;
        ensure!(revision > 0, "a put without a revision");
        self.author.accepted(Revision { epoch: 1, sequence: Sequence(revision.unsigned_abs()) });
        Ok(())
    }
}

/// An authority, the node's certificate and the load generator's; the first two as files.
fn certificates(home: &Path) -> Result<ClientConfig> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let issue = |usage: &[ExtendedKeyUsagePurpose]| -> Result<(rcgen::Certificate, KeyPair)> {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()])?;
        params.extended_key_usages = usage.to_vec();
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &authority)?, key))
    };
    // The node dials itself for its JSON gateway, with its server certificate.
    let (server, server_key) =
        issue(&[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth])?;
    let (client, client_key) = issue(&[ExtendedKeyUsagePurpose::ClientAuth])?;
    fs::write(home.join("ca.pem"), pem("CERTIFICATE", authority.as_ref().der()))?;
    fs::write(home.join("server.pem"), pem("CERTIFICATE", server.der()))?;
    fs::write(home.join("server.key"), pem("PRIVATE KEY", server_key.serialized_der()))?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.as_ref().der().to_vec()))?;
    let key = PrivateKeyDer::try_from(client_key.serialize_der()).map_err(|text| anyhow::anyhow!(text))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![client.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// **Source**: RFC 7468, section 2; readers accept lines of any length.
fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64.encode(der))
}

pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}
