//! Streams of messages that were encoded before: what a thousand followers get alike is encoded once,
//! and each stream sends the same bytes.
//!
//! `tonic` encodes every message of every stream into a buffer the stream keeps. Here a handler
//! answers with [`streaming`], an empty stream that carries the frames to send; the layer
//! [`unwrapped`] puts them in place of the body. Nothing else of gRPC is done here.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::Frame;
use mfpsync_proto::limit;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::Empty;
use tonic::codegen::http;
use tonic::{Response, Status};

/// What stands before a message: a flag for compression, never set here, and the length. **Source**:
/// "gRPC over HTTP2", Length-Prefixed-Message.
const PREFIX_BYTES: usize = 5;

/// Encodes a message as it stands in a stream.
///
/// # Errors
/// It is larger than a follower takes.
pub fn frame(message: &impl Message) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    let fits = u32::try_from(length).ok().filter(|_| length <= limit::FOLLOW_MESSAGE_BYTES);
    let prefix = fits.ok_or_else(|| Status::resource_exhausted("a message is too large to be sent"))?;
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(prefix);
    message.encode_raw(&mut bytes);
    Ok(bytes.freeze())
}

/// What makes the frames of one stream; it runs while the stream is sent, and gives its status at the
/// end.
pub type Source = Pin<Box<dyn Future<Output = Status> + Send>>;

/// The body of a stream. It drives its source itself, so that a stream needs no task of its own.
struct Frames {
    source: Source,
    queue: mpsc::Receiver<Bytes>,
    ended: bool,
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(Some(frame)) = self.queue.poll_recv(cx) {
            return Poll::Ready(Some(Ok(Frame::data(frame))));
        }
        let done = self.source.as_mut().poll(cx);
        // Also what a source left behind that has ended.
        if let Poll::Ready(Some(frame)) = self.queue.poll_recv(cx) {
            if let Poll::Ready(status) = done {
                self.source = Box::pin(std::future::ready(status));
            }
            return Poll::Ready(Some(Ok(Frame::data(frame))));
        }
        let status = ready!(done);
        self.ended = true;
        let mut trailers = http::HeaderMap::new();
        status.add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

/// Travels in a response's extensions, which want to be cloned, though nobody does.
#[derive(Clone)]
struct Carried(Arc<Mutex<Option<Frames>>>);

/// A response of the frames that `source` puts into the other end of `queue`.
#[must_use]
pub fn streaming<T>(source: Source, queue: mpsc::Receiver<Bytes>) -> Response<Empty<Result<T, Status>>> {
    let frames = Frames { source, queue, ended: false };
    let mut response = Response::new(tokio_stream::empty());
    response.extensions_mut().insert(Carried(Arc::new(Mutex::new(Some(frames)))));
    response
}

/// Gives a response the frames it carries for its body.
#[must_use]
pub fn unwrapped(mut response: http::Response<tonic::body::Body>) -> http::Response<tonic::body::Body> {
    let carried = response.extensions_mut().remove::<Carried>();
    let frames = carried.and_then(|Carried(frames)| {
        let mut frames = frames.lock().unwrap_or_else(PoisonError::into_inner);
        frames.take()
    });
    match frames {
        Some(frames) => response.map(|_| tonic::body::Body::new(frames)),
        None => response,
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body;
    use mfpsync_proto::sync::{Batch, FollowEvent, Heartbeat, follow_event::Event};
    use tonic::Code;

    use super::*;

    fn event(event: Event) -> FollowEvent {
        FollowEvent { event: Some(event) }
    }

    async fn next(frames: &mut Frames) -> Option<Frame<Bytes>> {
        std::future::poll_fn(|cx| Pin::new(&mut *frames).poll_frame(cx)).await.map(Result::unwrap)
    }

    #[tokio::test]
    async fn a_stream_sends_what_its_source_made_and_then_its_status() {
        let (to, queue) = mpsc::channel(2);
        let heartbeat = event(Event::Heartbeat(Heartbeat { head_sequence: 7, safe_sequence: None }));
        let made = frame(&heartbeat).unwrap();
        let (first, second) = (made.clone(), made.clone());
        let source = Box::pin(async move {
            for frame in [first, second.clone(), second] {
                tokio::task::yield_now().await;
                to.send(frame).await.unwrap();
            }
            Status::unavailable("stopping")
        });
        let mut frames = Frames { source, queue, ended: false };
        for _ in 0..3 {
            let data = next(&mut frames).await.unwrap().into_data().unwrap();
            assert_eq!(data.as_ptr(), made.as_ptr(), "the same bytes for everybody");
            assert_eq!(data[..5], [0, 0, 0, 0, data.len() as u8 - 5]);
            assert_eq!(FollowEvent::decode(&data[5..]).unwrap(), heartbeat);
        }
        let trailers = next(&mut frames).await.unwrap().into_trailers().unwrap();
        assert_eq!(Status::from_header_map(&trailers).unwrap().code(), Code::Unavailable);
        assert!(next(&mut frames).await.is_none());
    }

    #[test]
    fn a_message_beyond_the_limit_is_not_sent() {
        let changes = vec![0; limit::FOLLOW_MESSAGE_BYTES].into();
        let batch = event(Event::Batch(Batch { changes, ..Batch::default() }));
        assert_eq!(frame(&batch).unwrap_err().code(), Code::ResourceExhausted);
    }
}
