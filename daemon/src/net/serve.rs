//! The gRPC server over accepted connections: what HTTP/2 may cost before a service is asked.

use tonic::transport::Server;

/// Streams of one connection: a follow, pushes, and room for a replica's.
const STREAMS: u32 = 16;
/// Flow-control windows, in bytes; together they bound what one connection makes a server hold.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 2 << 20;
const HEADER_LIST_BYTES: u32 = 8 << 10;
/// Streams a peer may reset before they were accepted. **Source**: CVE-2023-44487.
const PENDING_RESETS: usize = 16;

/// A server to add services to and to run with
/// [`PeerStream`](super::stream::PeerStream)s; message sizes are limited at each service.
#[must_use]
pub fn grpc_server() -> Server {
    Server::builder()
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(HEADER_LIST_BYTES)
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS))
}
