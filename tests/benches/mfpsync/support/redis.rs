//! `redis-server` as the yardstick for handing out: publish and subscribe over plain TCP, nothing kept.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::etcd::free_address;
use super::process::Process;

const READY: Duration = Duration::from_secs(10);
const READY_POLL: Duration = Duration::from_millis(20);
const CHANNEL: &str = "changes";

/// A running server.
pub(crate) struct Redis {
    pub(crate) process: Process,
    address: SocketAddr,
}

impl Redis {
    /// Starts a server of its own that keeps nothing, and waits until it answers.
    ///
    /// # Errors
    /// `redis-server` is not installed or does not start.
    pub(crate) async fn start(home: &Path) -> Result<Self> {
        let home = home.join("redis");
        fs::create_dir_all(&home)?;
        let address = free_address()?;
        let log = fs::File::create(home.join("log"))?;
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--dir")
            .arg(&home)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let process = Process::start("redis-server", &mut command)?;
        let mut redis = Self { process, address };
        let deadline = Instant::now() + READY;
        while redis.connect().await.is_err() {
            redis.process.still_runs()?;
            ensure!(Instant::now() < deadline, "redis-server is not ready");
            tokio::time::sleep(READY_POLL).await;
        }
        Ok(redis)
    }

    /// # Errors
    /// The server is gone.
    pub(crate) async fn connect(&self) -> Result<Subscriber> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        Ok(Subscriber(BufReader::new(tcp)))
    }
}

/// One connection. **Source**: Redis serialization protocol, version 2.
#[derive(Debug)]
pub(crate) struct Subscriber(BufReader<TcpStream>);

impl Subscriber {
    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.0.read_line(&mut line).await? > 0, "redis-server went away");
        Ok(line.trim_end().to_owned())
    }

    async fn bulk(&mut self) -> Result<Vec<u8>> {
        let line = self.line().await?;
        let length: usize = line.strip_prefix('$').context("a bulk string")?.parse()?;
        let mut bytes = vec![0; length + 2];
        self.0.read_exact(&mut bytes).await?;
        bytes.truncate(length);
        Ok(bytes)
    }

    /// # Errors
    /// The server is gone.
    pub(crate) async fn subscribe(&mut self) -> Result<()> {
        self.0.get_mut().write_all(format!("SUBSCRIBE {CHANNEL}\r\n").as_bytes()).await?;
        ensure!(self.line().await? == "*3", "an answer to SUBSCRIBE");
        ensure!(self.bulk().await? == b"subscribe", "an answer to SUBSCRIBE");
        self.bulk().await?;
        self.line().await.map(drop)
    }

    /// The next message.
    ///
    /// # Errors
    /// The server is gone.
    pub(crate) async fn next(&mut self) -> Result<Vec<u8>> {
        ensure!(self.line().await? == "*3", "a message of three parts");
        ensure!(self.bulk().await? == b"message", "a message");
        self.bulk().await?;
        self.bulk().await
    }

    /// # Errors
    /// The server is gone.
    pub(crate) async fn publish(&mut self, message: &[u8]) -> Result<()> {
        let head =
            format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{CHANNEL}\r\n${}\r\n", CHANNEL.len(), message.len());
        self.0.get_mut().write_all(&[head.as_bytes(), message, b"\r\n"].concat()).await?;
        ensure!(self.line().await?.starts_with(':'), "an answer to PUBLISH");
        Ok(())
    }
}
