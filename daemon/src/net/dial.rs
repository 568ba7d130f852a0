//! Dialling another device: one attempt, one connection, and an error that says what a caller can
//! do about it.
//!
//! The channel does not reconnect by itself: when its connection ends, every call on it fails as
//! unavailable, and the caller dials anew under its own back-off.

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mfpsync_proto::sync::{Reason, Refusal};
use mfpsync_storage::model::PublicKey;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint, Uri};

use super::greeting::{Greeting, Replay, greeted};
use super::keep_alive::prepare;
use crate::tls::{ClientStream, ClientTls, Handshake, HandshakeError};

/// Flow-control windows, in bytes: a stream holds one full batch, a connection a few streams.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const HEADER_LIST_BYTES: u32 = 8 << 10;

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum DialError {
    /// Nothing answers there, or the network broke: try again later.
    #[error("unreachable: {0}")]
    Unreachable(#[source] io::Error),
    /// The device with this key knows us and says no; the reason tells whether trying again makes sense.
    #[error("refused: {}", .0.text)]
    Refused(Box<Refusal>, PublicKey),
    /// Another device answers at this address.
    #[error("a different device answers there")]
    WrongKey,
    /// The device answers but does not offer this; for pairing: it is not open.
    #[error("not offered there")]
    NotOffered,
    /// What answers speaks no TLS 1.3 or HTTP/2 as it should.
    #[error("not a device of this product: {0}")]
    Tls(#[source] io::Error),
    /// The deadline passed.
    #[error("no answer in time")]
    Timeout,
}

impl DialError {
    /// The server's reason, if it was the server that refused.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused(refusal, _) => Some(refusal.reason()),
            _ => None,
        }
    }
}

impl From<HandshakeError> for DialError {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::WrongKey => Self::WrongKey,
            HandshakeError::NotOffered => Self::NotOffered,
            HandshakeError::Broken(error) => Self::Unreachable(error),
            HandshakeError::Tls(error) => Self::Tls(error),
        }
    }
}

/// A connection for pairing, with what binds the pairing to it.
#[derive(Debug)]
pub struct EnrollLink {
    /// For the `Enroll` client.
    pub channel: Channel,
    /// The key the server has proven to hold.
    pub server: PublicKey,
    /// Keying material of this very connection.
    pub exporter: [u8; 32],
}

/// Connects to the device at `endpoint` (`host:port`) within `deadline`.
///
/// # Errors
/// [`DialError`]; one attempt is made at each address of the host.
///
/// # Cancel safety
/// Dropping the future drops the connection.
pub async fn dial(endpoint: &str, tls: &ClientTls, deadline: Duration) -> Result<Channel, DialError> {
    dial_any(endpoint, tls, deadline).await.map(|(channel, _)| channel)
}

/// As [`dial`], with the key that the device has proven to hold.
///
/// # Errors
/// [`DialError`].
///
/// # Cancel safety
/// Dropping the future drops the connection.
pub async fn dial_any(
    endpoint: &str,
    tls: &ClientTls,
    deadline: Duration,
) -> Result<(Channel, PublicKey), DialError> {
    let whole = async {
        let (stream, handshake) = connect(endpoint, tls).await?;
        Ok((channel(stream).await?, handshake.peer))
    };
    timeout(deadline, whole).await.map_err(|_| DialError::Timeout)?
}

/// As [`dial`], for pairing: with the server's key and the connection's keying material.
///
/// # Errors
/// [`DialError`].
///
/// # Cancel safety
/// Dropping the future drops the connection.
pub async fn dial_enroll(
    endpoint: &str,
    tls: &ClientTls,
    deadline: Duration,
) -> Result<EnrollLink, DialError> {
    let whole = async {
        let (stream, handshake) = connect(endpoint, tls).await?;
        let channel = channel(stream).await?;
        Ok(EnrollLink { channel, server: handshake.peer, exporter: handshake.exporter })
    };
    timeout(deadline, whole).await.map_err(|_| DialError::Timeout)?
}

async fn connect(endpoint: &str, tls: &ClientTls) -> Result<(Replay<ClientStream>, Handshake), DialError> {
    let tcp = TcpStream::connect(endpoint).await.map_err(DialError::Unreachable)?;
    prepare(&tcp).map_err(DialError::Unreachable)?;
    let (stream, handshake) = tls.connect(tcp).await?;
    // An alert after our side of the handshake arrives here as well.
    let (greeting, stream) = greeted(stream).await.map_err(HandshakeError::from)?;
    match greeting {
        Greeting::Welcome => Ok((stream, handshake)),
        Greeting::Refused(refusal) => Err(DialError::Refused(Box::new(refusal), handshake.peer)),
        Greeting::Ended => Err(DialError::Unreachable(io::ErrorKind::UnexpectedEof.into())),
        Greeting::Nonsense => Err(DialError::Tls(io::ErrorKind::InvalidData.into())),
    }
}

async fn channel(stream: Replay<ClientStream>) -> Result<Channel, DialError> {
    let once = Mutex::new(Some(stream));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = once.lock().ok().and_then(|mut stream| stream.take());
        let taken = stream.map(TokioIo::new).ok_or(io::Error::from(io::ErrorKind::NotConnected));
        std::future::ready(taken)
    });
    // `http` on purpose: the connection handed over is already inside TLS.
    Endpoint::from_static("http://peer")
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(HEADER_LIST_BYTES)
        .connect_with_connector(connector)
        .await
        .map_err(|error| DialError::Unreachable(io::Error::other(error)))
}
