//! Debian's `sqlite3` as a writer and reader of the peers' databases, and where a database's log ends.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::process::Process;

/// Rows that the load changes in turn, as many as an author has items.
const TURN: u64 = 100;
/// The table that stands for the items: a key, and about 150 bytes of fields.
pub(crate) const TABLE: &str = "CREATE TABLE items (item TEXT PRIMARY KEY, version INTEGER NOT NULL, \
    name TEXT, reading TEXT, mail TEXT, company TEXT, note TEXT) WITHOUT ROWID;";

/// What a follower finds changes by.
pub(crate) const INDEX: &str = "CREATE INDEX items_by_version ON items (version);";

/// Fills the table with so many rows.
pub(crate) fn filling(rows: usize) -> String {
    format!(
        "INSERT INTO items WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {rows} - 1) \
         SELECT printf('user/person-%04d/address.personal/%06d', i / 1000, i), 0, printf('Person %06d', i), \
         printf('person %06d', i), printf('person.%06d@example.com', i), 'Example Trading', 'version 0' FROM n;"
    )
}

/// Changes one field of one row, the `number`th time; one commit.
pub(crate) fn edit(number: u64) -> String {
    format!("UPDATE items SET version = {number}, note = 'version {number}' WHERE item = {};", key(number))
}

/// The version of the row that [`edit`] changed.
pub(crate) fn version(number: u64) -> String {
    format!("SELECT version FROM items WHERE item = {};", key(number))
}

/// Of an entry of one of a hundred people: edits fall on pages all over the table.
fn key(number: u64) -> String {
    let person = number % TURN;
    format!("'user/person-{person:04}/address.personal/{:06}'", person * 1_000)
}

/// A running `sqlite3`.
#[derive(Debug)]
pub(crate) struct Sqlite {
    _process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Sqlite {
    /// # Errors
    /// `sqlite3` is not installed.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut command = Command::new("sqlite3");
        command.args(["-batch", "-bail"]).arg(path);
        Self::start(command)
    }

    /// One that only reads: of a file that somebody else writes it folds back no log when it ends. Says
    /// nothing of a failure.
    ///
    /// # Errors
    /// `sqlite3` is not installed.
    pub(crate) fn reader(path: &Path) -> Result<Self> {
        let mut command = Command::new("sqlite3");
        command.args(["-batch", "-bail", "-readonly"]).arg(path).stderr(Stdio::null());
        Self::start(command)
    }

    fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start("sqlite3", &mut command)?;
        let input = process.child().stdin.take().context("input of sqlite3")?;
        let output = process.child().stdout.take().context("output of sqlite3")?;
        Ok(Self { _process: process, input, output: BufReader::new(output) })
    }

    /// Runs statements and waits until they are done; what they print.
    ///
    /// # Errors
    /// One failed; `sqlite3` has said why.
    pub(crate) fn run(&mut self, statements: &str) -> Result<String> {
        self.input.write_all(format!("{statements}\nSELECT 'done';\n").as_bytes())?;
        let mut said = String::new();
        loop {
            let before = said.len();
            ensure!(self.output.read_line(&mut said)? > 0, "sqlite3 ended at: {statements}");
            if said.get(before..) == Some("done\n") {
                said.truncate(before);
                return Ok(said);
            }
        }
    }
}

/// Where in a write-ahead log a commit ends. **Source**: SQLite's file format, section 4.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The first salt; rises by one each time the log begins anew.
    pub(crate) salt: u32,
    pub(crate) end: u64,
}

impl Place {
    /// Whether what is up to here holds `other`.
    pub(crate) fn covers(self, other: Self) -> bool {
        match self.salt.wrapping_sub(other.salt) {
            0 => self.end >= other.end,
            later => later < u32::MAX / 2,
        }
    }
}

/// Follows a log to its last commit.
#[derive(Debug)]
pub(crate) struct Log {
    file: File,
    at: Place,
}

impl Log {
    const HEADER: u64 = 32;
    const FRAME: u64 = 24 + 4096;

    /// # Errors
    /// There is no log.
    pub(crate) fn open(database: &Path) -> Result<Self> {
        let file = File::open(database.with_extension("db-wal")).context("the peer's write-ahead log")?;
        Ok(Self { file, at: Place { salt: 0, end: Self::HEADER } })
    }

    /// Where the last commit ends.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(crate) fn last_commit(&mut self) -> Result<Place> {
        let mut header = [0; Self::HEADER as usize];
        self.file.read_exact_at(&mut header, 0)?;
        let salts = &header[16..24];
        let salt = u32::from_be_bytes(header[16..20].try_into()?);
        if salt != self.at.salt {
            self.at = Place { salt, end: Self::HEADER };
        }
        let (mut frame, mut at) = ([0; 24], self.at.end);
        while self.file.read_exact_at(&mut frame, at).is_ok() && frame[8..16] == *salts {
            at += Self::FRAME;
            if frame[4..8] != [0; 4] {
                self.at.end = at;
            }
        }
        Ok(self.at)
    }
}
