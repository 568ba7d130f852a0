//! An accepted connection as gRPC sees it: who is at the other end, and an end to it as soon as
//! the peer is released.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use mfpsync_storage::model::{DeviceId, PublicKey};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use crate::tls::ServerStream;

/// What is known of the peer of a connection; handlers find it in a request's extensions as
/// `Arc<PeerInfo>`.
#[derive(Debug)]
pub struct PeerInfo {
    /// Which device; none while it is only pairing.
    pub device: Option<DeviceId>,
    /// The key it has proven to hold.
    pub public_key: PublicKey,
    /// From where.
    pub address: SocketAddr,
    /// Keying material of this very connection; equal at both its ends and nowhere else.
    pub exporter: [u8; 32],
    /// Cancelled when the connection is to end.
    pub token: CancellationToken,
}

/// The places a connection takes up, given back with it.
pub(super) type Held = Box<dyn Send + Sync>;

/// An accepted connection, for `serve_with_incoming`.
pub struct PeerStream {
    stream: ServerStream,
    info: Arc<PeerInfo>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _held: Held,
    _gone: DropGuard,
}

impl PeerStream {
    /// Ends by the peer's own token, or with all others by `cut`.
    pub(super) fn new(stream: ServerStream, info: PeerInfo, held: Held, cut: CancellationToken) -> Self {
        let (ended, gone) = (Box::pin(info.token.clone().cancelled_owned()), info.token.clone().drop_guard());
        let cut = Box::pin(cut.cancelled_owned());
        Self { stream, info: Arc::new(info), ended, cut, _held: held, _gone: gone }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn info(&self) -> &Arc<PeerInfo> {
        &self.info
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match (self.ended.as_mut().poll(cx), self.cut.as_mut().poll(cx)) {
            (Poll::Pending, Poll::Pending) => Ok(()),
            (Poll::Ready(()), _) | (_, Poll::Ready(())) => {
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, "peer is cut off"))
            }
        }
    }
}

impl Connected for PeerStream {
    type ConnectInfo = Arc<PeerInfo>;

    fn connect_info(&self) -> Arc<PeerInfo> {
        self.info.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_ended(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_ended(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_ended(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A stuck peer must not keep a cut connection alive by not reading the farewell.
        self.poll_ended(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_ended(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
