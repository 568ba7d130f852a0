//! Noticing a peer that went away without a word: left to the kernel, which wakes nobody for it.
//!
//! Pings of HTTP/2 would have each of a thousand silent connections wake the process, encrypt and
//! write every few seconds. What they show beyond this, a machine that still answers for a process
//! that hangs, followers see by missing heartbeats.

use std::io;
use std::time::Duration;

use rustix::net::sockopt::{
    set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl, set_tcp_nodelay,
    set_tcp_user_timeout,
};
use tokio::net::TcpStream;

/// Silence before the kernel asks the peer's kernel, and between further questions.
const IDLE: Duration = Duration::from_secs(20);
const INTERVAL: Duration = Duration::from_secs(5);
/// Unanswered questions that end the connection.
const QUESTIONS: u32 = 3;
/// How long sent bytes may stay unconfirmed. A sum of the above, so that a connection that is written
/// to ends as soon as one that is not.
const UNCONFIRMED: Duration = Duration::from_secs(35);

/// Sets up a fresh connection between devices: small messages go at once, and a dead peer is noticed.
///
/// # Errors
/// The connection broke already.
pub(super) fn prepare(tcp: &TcpStream) -> io::Result<()> {
    set_tcp_nodelay(tcp, true)?;
    set_socket_keepalive(tcp, true)?;
    set_tcp_keepidle(tcp, IDLE)?;
    set_tcp_keepintvl(tcp, INTERVAL)?;
    set_tcp_keepcnt(tcp, QUESTIONS)?;
    set_tcp_user_timeout(tcp, UNCONFIRMED.as_millis() as u32)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::net::sockopt::{socket_keepalive, tcp_keepidle, tcp_user_timeout};

    use super::*;

    #[tokio::test]
    async fn a_connection_ends_as_soon_idle_as_busy() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        prepare(&tcp).unwrap();
        assert!(socket_keepalive(&tcp).unwrap() && tcp.nodelay().unwrap());
        assert_eq!(tcp_keepidle(&tcp).unwrap(), IDLE);
        assert_eq!(u128::from(tcp_user_timeout(&tcp).unwrap()), (IDLE + INTERVAL * QUESTIONS).as_millis());
    }
}
