//! A cable that can be cut, mended and made slow: a TCP relay in front of a server.
//!
//! Its address stays the same throughout. Understands nothing of what passes.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

#[derive(Debug, Clone, Copy)]
struct State {
    target: SocketAddr,
    whole: bool,
    delay: Duration,
}

/// A running relay; dropping it cuts for good.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    state: watch::Sender<State>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Listens on a free port and passes on to `target`.
    ///
    /// # Errors
    /// No port can be had.
    pub async fn open(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("open a relay")?;
        let address = listener.local_addr().context("open a relay")?;
        let (state, seen) = watch::channel(State { target, whole: true, delay: Duration::ZERO });
        let task = tokio::spawn(pass_on(listener, seen));
        Ok(Self { address, state, task })
    }

    /// Where to dial instead of the target.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection and lets no new one through.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.whole = false);
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.state.send_modify(|state| state.whole = true);
    }

    /// Holds everything back for this long, in each direction; for connections made from now on.
    pub fn delay(&self, delay: Duration) {
        self.state.send_modify(|state| state.delay = delay);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(listener: TcpListener, mut seen: watch::Receiver<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let state = *seen.borrow();
                if let Ok((near, _peer)) = accepted && state.whole {
                    connections.spawn(join(near, state));
                }
            }
            changed = seen.changed() => {
                if changed.is_err() {
                    return;
                }
                if !seen.borrow_and_update().whole {
                    connections.abort_all();
                }
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
}

/// Either side may end at any time; the other then sees the end, as over a real cable.
async fn join(near: TcpStream, state: State) {
    let Ok(far) = TcpStream::connect(state.target).await else { return };
    let _no_matter = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::select! {
        () = copy(near_in, far_out, state.delay) => {}
        () = copy(far_in, near_out, state.delay) => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
