//! `sqld` (libSQL's server) as a yardstick of replication: a primary and a replica on loopback, without TLS.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::etcd::free_address;
use super::paced::lags;
use super::process::Process;
use super::sqlite::{self, Sqlite};
use super::stats::Samples;
use super::wire::{Connections, connections};

const READY: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(1);
/// How long a reader of the replica's file is kept when it does not show what is waited for.
const REOPEN: Duration = Duration::from_secs(1);
/// Where the database lies below the directory of a node.
const DATABASE: &str = "dbs/default/data";

/// A primary, and its replica once that was started.
pub(crate) struct Sqld {
    program: PathBuf,
    home: PathBuf,
    addresses: Addresses,
    /// None between a kill and the next start.
    primary: Option<Process>,
    replica: Option<Process>,
    written: u64,
}

struct Addresses {
    primary: SocketAddr,
    feed: SocketAddr,
    replica: SocketAddr,
}

impl Sqld {
    /// Starts a primary with so many rows.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn start(program: &Path, home: &Path, rows: usize) -> Result<Self> {
        let addresses =
            Addresses { primary: free_address()?, feed: free_address()?, replica: free_address()? };
        let (program, home) = (program.to_owned(), home.to_owned());
        let mut sqld = Self { program, home, addresses, primary: None, replica: None, written: 0 };
        sqld.start_primary()?;
        let mut primary = Connection::open(sqld.addresses.primary)?;
        primary.run(&[sqlite::TABLE, sqlite::INDEX, &sqlite::filling(rows)])?;
        Ok(sqld)
    }

    /// Starts the primary and waits until it answers.
    ///
    /// # Errors
    /// It does not.
    pub(crate) fn start_primary(&mut self) -> Result<()> {
        let feed = self.addresses.feed.to_string();
        let arguments = ["--grpc-listen-addr", feed.as_str()];
        self.primary = Some(self.node("primary", self.addresses.primary, &arguments)?);
        Ok(())
    }

    /// Starts the replica and waits until it answers; it has no data then.
    ///
    /// # Errors
    /// It does not.
    pub(crate) fn start_replica(&mut self) -> Result<()> {
        let feed = format!("http://{}", self.addresses.feed);
        let arguments = ["--primary-grpc-url", feed.as_str()];
        self.replica = Some(self.node("replica", self.addresses.replica, &arguments)?);
        Ok(())
    }

    fn node(&self, name: &str, address: SocketAddr, arguments: &[&str]) -> Result<Process> {
        let home = self.home.join(name);
        fs::create_dir_all(&home)?;
        let log = File::options().create(true).append(true).open(home.join("log"))?;
        let mut command = Command::new(&self.program);
        command.args(["--no-welcome", "--http-listen-addr", &address.to_string()]);
        command.arg("--db-path").arg(home.join("data")).args(arguments).current_dir(&home);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut process = Process::start("sqld", &mut command)?;
        let deadline = Instant::now() + READY;
        // The first question makes a replica ask for the data.
        while Connection::open(address).and_then(|mut node| node.run(&["SELECT 1"])).is_err() {
            process.still_runs()?;
            ensure!(Instant::now() < deadline, "sqld is not ready");
            std::thread::sleep(LOOK);
        }
        Ok(process)
    }

    /// Kills the primary.
    pub(crate) fn kill_primary(&mut self) {
        self.primary = None;
    }

    /// # Errors
    /// It does not run.
    pub(crate) fn primary(&self) -> Result<&Process> {
        self.primary.as_ref().context("the primary is stopped")
    }

    /// # Errors
    /// It does not run.
    pub(crate) fn replica(&self) -> Result<&Process> {
        self.replica.as_ref().context("the replica is stopped")
    }

    /// # Errors
    /// There is no database.
    pub(crate) fn database_bytes(&self) -> Result<u64> {
        let file = self.home.join("primary/data").join(DATABASE);
        let log = fs::metadata(file.with_file_name("data-wal")).map_or(0, |log| log.len());
        Ok(fs::metadata(&file)?.len().max(log))
    }

    /// Connections of the replica to its primary.
    ///
    /// # Errors
    /// `ss` is missing.
    pub(crate) fn connections(&self) -> Result<Connections> {
        connections(self.replica()?.id(), self.addresses.feed.port())
    }

    /// Writes for a while; the lags, from the answer to a write until a reader of the replica's file sees
    /// it.
    ///
    /// # Errors
    /// A write failed or did not arrive.
    pub(crate) fn load(&mut self, per_second: Option<u32>, window: Duration) -> Result<Samples> {
        let mut primary = Connection::open(self.addresses.primary)?;
        let mut shown = Shown::new(self.home.join("replica/data").join(DATABASE));
        let written = &mut self.written;
        let write = || {
            *written += 1;
            primary.run(&[&sqlite::edit(*written)])?;
            Ok(*written)
        };
        lags(per_second, window, write, move |number| shown.is(*number))
    }
}

/// What a reader of the replica's file sees.
struct Shown {
    file: PathBuf,
    reader: Option<Sqlite>,
    opened: Instant,
    version: u64,
}

impl Shown {
    fn new(file: PathBuf) -> Self {
        Self { file, reader: None, opened: Instant::now(), version: 0 }
    }

    fn is(&mut self, number: u64) -> Result<bool> {
        if self.version >= number {
            return Ok(true);
        }
        // A replica that begins anew replaces the file.
        if self.opened.elapsed() > REOPEN {
            self.reader = None;
        }
        if self.reader.is_none() {
            // Opened before it is there it would be made here, and not by the replica.
            if !fs::metadata(&self.file).is_ok_and(|file| file.len() > 0) {
                return Ok(false);
            }
            (self.reader, self.opened) = (Some(Sqlite::reader(&self.file)?), Instant::now());
        }
        // Fails while the table is not there yet.
        match self.reader.as_mut().map(|reader| reader.run(&sqlite::version(number))) {
            Some(Ok(found)) => self.version = found.trim().parse().unwrap_or(self.version),
            Some(Err(_)) | None => self.reader = None,
        }
        Ok(self.version >= number)
    }
}

/// One connection to a node's HTTP port. **Source**: RFC 9112; sqld's first HTTP interface, JSON.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READY))?;
        Ok(Self(BufReader::new(stream)))
    }

    fn run(&mut self, statements: &[&str]) -> Result<()> {
        let body = json!({ "statements": statements }).to_string();
        let head = format!(
            "POST / HTTP/1.1\r\nHost: sqld\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len(),
        );
        self.0.get_mut().write_all(format!("{head}{body}").as_bytes())?;
        let (mut line, mut length, mut status) = (String::new(), None, String::new());
        while line != "\r\n" {
            line.clear();
            ensure!(self.0.read_line(&mut line)? > 0, "sqld went away");
            if status.is_empty() {
                status = line.trim_end().to_owned();
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = Some(value.trim().parse::<usize>()?);
            }
        }
        let mut body = vec![0; length.context("length of sqld's answer")?];
        self.0.read_exact(&mut body)?;
        let results: Value = serde_json::from_slice(&body).with_context(|| status.clone())?;
        let failed = |result: &Value| result.get("error").is_some();
        if !status.contains(" 200 ") || results.as_array().is_none_or(|results| results.iter().any(failed)) {
            bail!("sqld refused: {status} {results}");
        }
        Ok(())
    }
}
