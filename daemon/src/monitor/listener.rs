//! Metrics over HTTP, where the configuration says so: `GET /metrics` and nothing else.
//!
//! No authentication and no encryption, hence off by default and meant for loopback. Connections are
//! few and short, so that no caller holds anything up.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::metrics;
use crate::panel::Session;

/// Connections at once; a further one waits in the system's queue.
const CONNECTIONS: usize = 8;
/// From the accepted connection to the last byte of the answer.
const TIME: Duration = Duration::from_secs(10);
/// Request line and headers.
const HEAD_BYTES: usize = 16 << 10;
/// Between attempts to listen.
const PAUSE: Duration = Duration::from_secs(10);
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Serves where the configuration in force says, until the daemon stops.
///
/// # Cancel safety
/// Dropping the future closes the port.
pub async fn run(session: Arc<Session>) {
    let (mut settings, stop) = (session.device.settings.watch(), session.stop.clone());
    let mut at = settings.borrow_and_update().metrics_listen;
    loop {
        let changed = async {
            // The sender lives as long as the device.
            while settings.changed().await.is_ok() {
                let now = settings.borrow_and_update().metrics_listen;
                if now != at {
                    return now;
                }
            }
            std::future::pending().await
        };
        at = tokio::select! {
            () = stop.cancelled() => return,
            now = changed => now,
            () = serve(&session, at) => return,
        };
    }
}

/// Never ends.
async fn serve(session: &Arc<Session>, at: Option<SocketAddr>) {
    let Some(address) = at else { return std::future::pending().await };
    let listener = bind(address).await;
    tracing::info!(%address, "metrics are served");
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (session, stop) = (session.clone(), session.stop.clone());
                session.tasks.clone().spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        // A caller that is too slow loses the connection.
                        _ = timeout(TIME, answer(stream, session)) => {}
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting callers for metrics pauses");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn bind(address: SocketAddr) -> TcpListener {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) if !told => {
                tracing::warn!(%address, %error, "metrics cannot be served; it is tried again");
                told = true;
            }
            Err(_) => {}
        }
        sleep(PAUSE).await;
    }
}

async fn answer(stream: TcpStream, session: Arc<Session>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let session = session.clone();
        async move { Ok::<_, Infallible>(respond(&request, &session).await) }
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a caller for metrics went away");
    }
}

async fn respond(request: &Request<Incoming>, session: &Session) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "only /metrics is here\n");
    }
    if request.method() != Method::GET {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is allowed\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    let mut response = Response::new(Full::from(metrics(session).await));
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}
