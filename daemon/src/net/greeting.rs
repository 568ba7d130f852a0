//! How a server says no to a peer that finished the handshake but is not let in.
//!
//! A TLS 1.3 client believes to be connected before the server has seen its key, so a bare close
//! would look like a network fault. Instead the server answers in HTTP/2 that it allows no streams
//! and goes away, with a `Refusal` as debug data. The dialling side waits for the first frame
//! before it believes in the connection, and hands everything else on to gRPC untouched.
//!
//! **Source**: RFC 9113, sections 3.4, 4.1, 6.5 and 6.8.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use mfpsync_proto::sync::Refusal;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

const HEADER_BYTES: usize = 9;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const REFUSED_STREAM: u32 = 7;
/// Largest first frames accepted, in bytes; gRPC servers send well below 100.
const GREETING_BYTES: usize = 4096;
/// How long a refused peer may take to receive its refusal.
const FAREWELL: Duration = Duration::from_secs(1);

/// Sends a refusal and closes.
pub(super) async fn refuse(mut stream: impl AsyncRead + AsyncWrite + Unpin, refusal: &Refusal) {
    let say = async {
        stream.write_all(&frames(refusal)).await?;
        stream.shutdown().await?;
        // Closing with unread input would reset the connection and could destroy the frames.
        let mut rest = [0; 512];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    if let Ok(Err(error)) = tokio::time::timeout(FAREWELL, say).await {
        tracing::debug!(%error, "refused peer did not wait for its refusal");
    }
}

fn frames(refusal: &Refusal) -> Vec<u8> {
    let mut settings = MAX_CONCURRENT_STREAMS.to_be_bytes().to_vec();
    settings.extend(0u32.to_be_bytes());
    let mut goaway = 0u32.to_be_bytes().to_vec();
    goaway.extend(REFUSED_STREAM.to_be_bytes());
    goaway.extend(refusal.encode_to_vec());
    [frame(SETTINGS, &settings), frame(GOAWAY, &goaway)].concat()
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(payload);
    bytes
}

/// What the server's first frames say.
#[derive(Debug, PartialEq)]
pub(super) enum Greeting {
    /// Come in.
    Welcome,
    /// Stay out; why.
    Refused(Refusal),
    /// The connection ended before a whole frame; a peer that crashed or is no peer of ours.
    Ended,
    /// Not HTTP/2.
    Nonsense,
}

/// Reads the server's first frames and gives the stream back with them in front.
pub(super) async fn greeted<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<(Greeting, Replay<S>)> {
    let mut head = Vec::with_capacity(256);
    let greeting = loop {
        match parse(&head) {
            Some(greeting) => break greeting,
            None if stream.read_buf(&mut head).await? == 0 => break Greeting::Ended,
            None => {}
        }
    };
    Ok((greeting, Replay { head, at: 0, stream }))
}

/// `None` as long as more bytes are needed.
fn parse(head: &[u8]) -> Option<Greeting> {
    let (kind, settings, rest) = match split(head)? {
        Some(first) => first,
        None => return Some(Greeting::Nonsense),
    };
    if kind != SETTINGS || settings.len() % 6 != 0 {
        return Some(Greeting::Nonsense);
    }
    let no_streams = settings
        .chunks_exact(6)
        .any(|one| one[..2] == MAX_CONCURRENT_STREAMS.to_be_bytes() && one[2..] == [0; 4]);
    if !no_streams {
        return Some(Greeting::Welcome);
    }
    let refusal = match split(rest)? {
        Some((GOAWAY, goaway, _)) => goaway.get(8..).and_then(|data| Refusal::decode(data).ok()),
        _ => None,
    };
    Some(refusal.map_or(Greeting::Nonsense, Greeting::Refused))
}

/// The first frame's kind and payload and what follows; inside, `None` for one that is too long.
#[expect(clippy::type_complexity, reason = "read in one place")]
fn split(bytes: &[u8]) -> Option<Option<(u8, &[u8], &[u8])>> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
    if length > GREETING_BYTES {
        return Some(None);
    }
    let (payload, rest) = rest.split_at_checked(length)?;
    Some(Some((header[3], payload, rest)))
}

/// A stream whose first bytes were read already and are read again.
#[derive(Debug)]
pub(super) struct Replay<S> {
    head: Vec<u8>,
    at: usize,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Replay<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.at == this.head.len() {
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        let part = (this.head.len() - this.at).min(buffer.remaining());
        buffer.put_slice(&this.head[this.at..this.at + part]);
        this.at += part;
        if this.at == this.head.len() {
            (this.head, this.at) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replay<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use mfpsync_proto::sync::Reason;
    use proptest::prelude::*;

    use super::*;
    use crate::refusal::refusal;

    #[test]
    fn a_refusal_is_read_at_whatever_place_it_is_cut() {
        let sent = refusal(Reason::Released, "released");
        let bytes = frames(&sent);
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), None, "{cut}");
        }
        assert_eq!(parse(&bytes), Some(Greeting::Refused(sent)));
    }

    #[test]
    fn ordinary_settings_are_a_welcome() {
        assert_eq!(parse(&frame(SETTINGS, &[])), Some(Greeting::Welcome));
        assert_eq!(parse(&frame(SETTINGS, &[0, 3, 0, 0, 0, 100])), Some(Greeting::Welcome));
        assert_eq!(parse(&frame(SETTINGS, &[0, 3])), Some(Greeting::Nonsense));
        assert_eq!(parse(b"HTTP/1.1 400 Bad Request\r\n"), Some(Greeting::Nonsense));
    }

    #[tokio::test]
    async fn what_was_read_ahead_is_read_again() {
        let bytes = [frame(SETTINGS, &[0, 3, 0, 0, 0, 100]), b"more".to_vec()].concat();
        let (greeting, mut replay) = greeted(bytes.as_slice()).await.unwrap();
        assert_eq!(greeting, Greeting::Welcome);
        let mut again = Vec::new();
        replay.read_to_end(&mut again).await.unwrap();
        assert_eq!(again, bytes);
        assert_eq!(greeted(&bytes[..5]).await.unwrap().0, Greeting::Ended);
    }

    proptest! {
        #[test]
        fn arbitrary_frames_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            parse(&bytes);
        }
    }
}
