//! Litestream as a yardstick of replication: it follows a database that `sqlite3` writes, into a directory
//! on the same disk.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::paced::lags;
use super::process::Process;
use super::sqlite::{self, Log, Place, Sqlite};
use super::stats::Samples;

const READY: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(1);

/// A database, who writes it, and Litestream.
pub(crate) struct Litestream {
    program: PathBuf,
    home: PathBuf,
    /// None between a kill and the next start.
    running: Option<(Process, Sqlite)>,
    written: u64,
}

/// Files of the replica up to one; they are numbered and come in order.
#[derive(Debug)]
struct Arrived {
    directory: PathBuf,
    next: u64,
    place: Option<Place>,
}

impl Litestream {
    /// Makes a database of so many rows that is not followed yet. `interval`: how often it looks at the
    /// log and sends, if not as it does by itself.
    ///
    /// # Errors
    /// `sqlite3` is missing, or refuses.
    pub(crate) fn new(program: &Path, home: &Path, rows: usize, interval: Option<&str>) -> Result<Self> {
        fs::create_dir_all(home)?;
        let database = home.join("source.db");
        let mut writer = Sqlite::open(&database)?;
        writer.run(&format!("PRAGMA journal_mode = WAL; {} {}", sqlite::TABLE, sqlite::INDEX))?;
        writer.run(&format!("{} PRAGMA wal_checkpoint(TRUNCATE);", sqlite::filling(rows)))?;
        drop(writer);
        let (monitor, sync) = interval.map_or_else(Default::default, |interval| {
            (format!("    monitor-interval: {interval}\n"), format!("      sync-interval: {interval}\n"))
        });
        let config = format!(
            "dbs:\n  - path: {}\n{monitor}    replica:\n      type: file\n      path: {}\n{sync}",
            database.display(),
            home.join("replica").display(),
        );
        fs::write(home.join("litestream.yml"), config)?;
        Ok(Self { program: program.to_owned(), home: home.to_owned(), running: None, written: 0 })
    }

    /// Starts Litestream and the writer.
    ///
    /// # Errors
    /// One does not start.
    pub(crate) fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.home.join("log"))?;
        let mut command = Command::new(&self.program);
        command.arg("replicate").arg("-config").arg(self.home.join("litestream.yml"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = Process::start("litestream", &mut command)?;
        let mut writer = Sqlite::open(&self.home.join("source.db"))?;
        writer.run(".timeout 10000\nPRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
        self.running = Some((process, writer));
        Ok(())
    }

    /// Ends both at once.
    pub(crate) fn kill(&mut self) {
        self.running = None;
    }

    /// # Errors
    /// It does not run.
    pub(crate) fn process(&self) -> Result<&Process> {
        Ok(&self.running.as_ref().context("litestream is stopped")?.0)
    }

    /// # Errors
    /// There is no database.
    pub(crate) fn database_bytes(&self) -> Result<u64> {
        Ok(fs::metadata(self.home.join("source.db"))?.len())
    }

    fn files(&self) -> PathBuf {
        self.home.join("replica/ltx/0")
    }

    /// Bytes of all files that came so far, and how many.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn shipped(&self) -> Result<u64> {
        if !self.files().exists() {
            return Ok(0);
        }
        let mut bytes = 0;
        for file in fs::read_dir(self.files())? {
            bytes += file?.metadata()?.len();
        }
        Ok(bytes)
    }

    fn arrived(&self) -> Result<Arrived> {
        let mut last = 0;
        for file in fs::read_dir(self.files())? {
            let name = file?.file_name().to_string_lossy().into_owned();
            let number = name.get(17..33).and_then(|number| u64::from_str_radix(number, 16).ok());
            last = last.max(number.unwrap_or(0));
        }
        Ok(Arrived { directory: self.files(), next: last + 1, place: None })
    }

    /// Waits until the replica has its first file, which is the whole database.
    ///
    /// # Errors
    /// It does not come.
    pub(crate) fn first_copy(&mut self) -> Result<()> {
        let first = self.files().join(format!("{:016x}-{:016x}.ltx", 1, 1));
        let deadline = Instant::now() + READY;
        while !first.exists() {
            ensure!(Instant::now() < deadline, "litestream made no first copy");
            if let Some((process, _)) = &mut self.running {
                process.still_runs()?;
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Writes for a while; the lags, from the commit's return to the renamed file that holds it.
    ///
    /// # Errors
    /// A write failed or did not arrive.
    pub(crate) fn load(&mut self, per_second: Option<u32>, window: Duration) -> Result<Samples> {
        let mut arrived = self.arrived()?;
        let (_, writer) = self.running.as_mut().context("litestream is stopped")?;
        let mut log: Option<Log> = None;
        let written = &mut self.written;
        let database = self.home.join("source.db");
        let write = || {
            *written += 1;
            writer.run(&sqlite::edit(*written))?;
            match &mut log {
                Some(log) => log.last_commit(),
                None => log.insert(Log::open(&database)?).last_commit(),
            }
        };
        lags(per_second, window, write, |place| arrived.holds(*place))
    }
}

impl Arrived {
    fn holds(&mut self, place: Place) -> Result<bool> {
        loop {
            if self.place.is_some_and(|here| here.covers(place)) {
                return Ok(true);
            }
            let file = self.directory.join(format!("{0:016x}-{0:016x}.ltx", self.next));
            let Ok(file) = File::open(file) else { return Ok(false) };
            self.place = Some(header(&file)?);
            self.next += 1;
        }
    }
}

/// Up to where in the log a file reaches. **Source**: the header of an LTX file, version 3.
fn header(file: &File) -> Result<Place> {
    let mut header = [0; 72];
    file.read_exact_at(&mut header, 0).context("header of an LTX file")?;
    ensure!(header.starts_with(b"LTX1"), "not an LTX file");
    let offset = u64::from_be_bytes(header[48..56].try_into()?);
    let size = u64::from_be_bytes(header[56..64].try_into()?);
    Ok(Place { salt: u32::from_be_bytes(header[64..68].try_into()?), end: offset + size })
}
