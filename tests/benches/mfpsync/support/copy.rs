//! Bytes over the product's own TLS and nothing else: what the machine allows a stream.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use mfpsync_daemon::tls::{ClientStream, ClientTls, ServerTls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::echo::identity;

/// One write of the sender, as large as a batch of a follow stream.
const CHUNK: usize = 256 << 10;

/// Both ends of one connection, in this process.
pub(crate) struct Copy {
    stream: ClientStream,
    sender: JoinHandle<Result<()>>,
}

impl Copy {
    /// Connects.
    ///
    /// # Errors
    /// No identity or no port can be had.
    pub(crate) async fn start(home: &Path) -> Result<Self> {
        let server = identity(&home.join("copy/server"))?;
        let client = identity(&home.join("copy/client"))?;
        let tls = ServerTls::new(&server)?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let sender = tokio::spawn(async move { send(&listener, &tls).await });
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let (stream, _) = ClientTls::sync(&client, server.public_key())?.connect(tcp).await?;
        Ok(Self { stream, sender })
    }

    /// How long so many bytes take.
    ///
    /// # Errors
    /// The connection broke.
    pub(crate) async fn take(&mut self, bytes: usize) -> Result<Duration> {
        let began = Instant::now();
        self.stream.write_u64(bytes as u64).await?;
        self.stream.flush().await?;
        let (mut left, mut buffer) = (bytes, vec![0; CHUNK]);
        while left > 0 {
            let wanted = left.min(CHUNK);
            left -= self.stream.read(&mut buffer[..wanted]).await?.max(1);
        }
        Ok(began.elapsed())
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.sender.abort();
    }
}

async fn send(listener: &TcpListener, tls: &ServerTls) -> Result<()> {
    let (tcp, _) = listener.accept().await?;
    tcp.set_nodelay(true)?;
    let (mut stream, _) = tls.accept(tcp, false).await?;
    let chunk = vec![7; CHUNK];
    loop {
        let mut left = usize::try_from(stream.read_u64().await?)?;
        while left > 0 {
            let part = left.min(CHUNK);
            stream.write_all(&chunk[..part]).await?;
            left -= part;
        }
        stream.flush().await?;
    }
}
