//! A cable that can be cut: a TCP relay between one client and the server.
//!
//! While cut it ends every connection through it and lets no new one pass; its address stays taken, so
//! that mending it needs no new configuration. Understands nothing of what passes.

use std::io;
use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// The running relay; dropping it cuts for good.
#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    whole: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Listens on a free port of this machine and passes on to `target`.
    ///
    /// # Errors
    /// No port can be had.
    pub(crate) async fn open(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (whole, seen) = watch::channel(true);
        let task = tokio::spawn(pass_on(listener, target, seen));
        Ok(Self { address, whole, task })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection and refuses new ones.
    pub(crate) fn cut(&self) {
        self.whole.send_replace(false);
    }

    /// Lets connections pass again.
    pub(crate) fn mend(&self) {
        self.whole.send_replace(true);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(listener: TcpListener, target: SocketAddr, mut whole: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A connection that ended before it was accepted concerns nobody.
                if let Ok((near, _peer)) = accepted && *whole.borrow() {
                    connections.spawn(join(near, target));
                }
            }
            changed = whole.changed() => {
                if changed.is_err() {
                    return;
                }
                if !*whole.borrow() {
                    connections.abort_all();
                }
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
}

/// Either side may end at any time; the other then sees the end, as over a real cable.
async fn join(mut near: TcpStream, target: SocketAddr) {
    if let Ok(mut far) = TcpStream::connect(target).await {
        let _bytes_or_reset = copy_bidirectional(&mut near, &mut far).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Sends one byte through and returns what comes back; nothing when the relay is cut.
    async fn echo(through: SocketAddr, server: &TcpListener) -> Option<u8> {
        let mut near = TcpStream::connect(through).await.unwrap();
        let served = async {
            let (mut far, _peer) = server.accept().await.unwrap();
            let byte = far.read_u8().await.unwrap();
            far.write_u8(byte + 1).await.unwrap();
        };
        let asked = async {
            near.write_u8(1).await.ok()?;
            near.read_u8().await.ok()
        };
        tokio::select! {
            biased;
            answer = asked => answer,
            () = async { served.await; std::future::pending().await } => None,
        }
    }

    #[tokio::test]
    async fn a_cut_relay_passes_nothing_until_it_is_mended() {
        let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let relay = Relay::open(server.local_addr().unwrap()).await.unwrap();
        assert_eq!(echo(relay.address(), &server).await, Some(2));
        relay.cut();
        assert_eq!(echo(relay.address(), &server).await, None);
        relay.mend();
        assert_eq!(echo(relay.address(), &server).await, Some(2));
    }

    #[tokio::test]
    async fn cutting_ends_connections_that_are_open() {
        let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let relay = Relay::open(server.local_addr().unwrap()).await.unwrap();
        let mut near = TcpStream::connect(relay.address()).await.unwrap();
        let (_far, _peer) = server.accept().await.unwrap();
        relay.cut();
        let ended = near.read(&mut [0; 1]).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
}
