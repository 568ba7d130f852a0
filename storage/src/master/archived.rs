//! A master database that came from elsewhere: an archive of ours, as it claims. It is looked at, and its
//! rows are read through the typed decoders into a database of our own making; its file never becomes ours.
//!
//! Belongs into a process of its own, with limits: whoever wrote the file wrote what SQLite parses. That is
//! `mfpsync-restore`; see ADR 29.

mod rows;

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;
use thiserror::Error;

use super::{Head, Master};
use crate::codec::DecodeError;
use crate::error::Error;
use crate::model::{ContentHash, Kind};
use crate::open;
use crate::physical::PAGE_BYTES;
use crate::schema::MASTER;
use crate::store::Database;

/// The newest schema that is read.
pub const SCHEMA: u32 = MASTER.migrations.len() as u32;

/// Virtual-machine steps between two looks whether to stop.
const STEPS: i32 = 10_000;

/// Why an archived database is not taken. Nothing of it was kept.
#[derive(Debug, Error)]
pub enum ArchivedError {
    /// Not a database of a group.
    #[error("not a master database of mfpsync")]
    Foreign,
    /// A newer version of this product made it.
    #[error("database has schema {found}, newer than {known} of this version")]
    Newer {
        /// Its schema version.
        found: u32,
        /// The newest this build knows.
        known: u32,
    },
    /// Its tables are not those of its version: somebody added or changed something.
    #[error("tables are not those of schema {0}")]
    Schema(u32),
    /// SQLite finds it damaged.
    #[error("damaged: {0}")]
    Damaged(String),
    /// A row that no device of ours wrote.
    #[error("damaged row in {table}")]
    Row {
        /// Of which table.
        table: &'static str,
        /// What is wrong with it.
        #[source]
        error: Error,
    },
    /// The database of our own making does not hold what it was made from.
    #[error("rows that were read are not those that were written")]
    Differs,
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
    /// This device's own storage.
    #[error(transparent)]
    Storage(#[from] Error),
}

impl From<rusqlite::Error> for ArchivedError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Storage(error.into())
    }
}

impl From<std::io::Error> for ArchivedError {
    fn from(error: std::io::Error) -> Self {
        Self::Storage(error.into())
    }
}

/// What a master database holds, in numbers and by hash: equal contents, equal values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Where it stands.
    pub head: Head,
    /// All living items.
    pub content: ContentHash,
    /// Living items of each kind.
    pub kinds: BTreeMap<Kind, u64>,
    /// Deletions that are remembered.
    pub tombstones: u64,
    /// Accepted changes in the history.
    pub changes: u64,
    /// Devices, released ones included.
    pub members: u64,
}

/// An archived database, open for reading.
pub struct Archived {
    connection: Connection,
}

impl std::fmt::Debug for Archived {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archived").finish_non_exhaustive()
    }
}

impl Archived {
    /// Opens the file at `path`, of which nothing runs and to which nothing is written, and refuses what is
    /// not a master database with exactly the tables of its version. Reading ends early when `stop` says so.
    ///
    /// # Errors
    /// Foreign, newer, of other tables, damaged.
    pub fn open(path: &Path, stop: impl Fn() -> bool + Send + 'static) -> Result<Self, ArchivedError> {
        let mut connection = open::foreign(path).map_err(unreadable)?;
        connection.progress_handler(STEPS, Some(stop)).map_err(|error| unreadable(error.into()))?;
        let archived = Self { connection };
        archived.check_identity()?;
        Ok(archived)
    }

    fn check_identity(&self) -> Result<(), ArchivedError> {
        let pragma = |name| {
            self.connection
                .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
                .map_err(|error| unreadable(error.into()))
        };
        if pragma("application_id")? != i64::from(MASTER.application_id)
            || pragma("page_size")? != PAGE_BYTES as i64
        {
            return Err(ArchivedError::Foreign);
        }
        let found = u32::try_from(pragma("user_version")?).map_err(|_| ArchivedError::Foreign)?;
        if found > SCHEMA {
            return Err(ArchivedError::Newer { found, known: SCHEMA });
        }
        let expected = open::in_memory(MASTER).map_err(ArchivedError::Storage)?;
        let same = tables(&self.connection).map_err(unreadable)?
            == tables(&expected).map_err(ArchivedError::Storage)?;
        if same { Ok(()) } else { Err(ArchivedError::Schema(found)) }
    }

    /// Has SQLite look at every page, row and index.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), ArchivedError> {
        let found = self.connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0));
        match found {
            Ok(found) if found == "ok" => Ok(()),
            Ok(found) => Err(ArchivedError::Damaged(found)),
            Err(error) => Err(unreadable(error.into())),
        }
    }

    /// What it holds.
    ///
    /// # Errors
    /// A damaged row, or a file that cannot be read.
    pub fn contents(&self) -> Result<Contents, ArchivedError> {
        contents(&self.connection).map_err(|error| row("items", error))
    }

    /// Reads all rows into a new database at `path`: whole at its end, or not there at all. Returns what it
    /// holds, which is what this one does.
    ///
    /// # Errors
    /// A damaged row; no room; the device's own storage.
    pub fn copy_to(&self, path: &Path) -> Result<Contents, ArchivedError> {
        let head = Master::read(&self.connection).founded_head().map_err(|error| row("head", error))?;
        let expected = self.contents()?;
        open::make_filled(path, MASTER, |fresh| {
            rows::copy(&self.connection, fresh, &head)?;
            let held = contents(fresh).map_err(ArchivedError::Storage)?;
            if held == expected { Ok(held) } else { Err(ArchivedError::Differs) }
        })
    }
}

fn contents(connection: &Connection) -> Result<Contents, Error> {
    const ITEMS: &str = "SELECT scope, kind, device, id, deleted, fields FROM items";
    let head = Master::read(connection).founded_head()?;
    let mut found = Contents {
        head,
        content: ContentHash::EMPTY,
        kinds: BTreeMap::new(),
        tombstones: 0,
        changes: count(connection, "changes")?,
        members: count(connection, "members")?,
    };
    let mut statement = connection.prepare(ITEMS)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if row.get(4)? {
            found.tombstones += 1;
            continue;
        }
        let text = |column| -> Result<&str, Error> { Ok(row.get_ref(column)?.as_str()?) };
        let kind = Kind::parse(text(1)?).map_err(|_| DecodeError::Invalid("item key"))?;
        let fields = row.get_ref(5)?.as_blob()?;
        found.content.add([text(0)?, kind.as_str(), text(2)?, text(3)?], fields);
        *found.kinds.entry(kind).or_default() += 1;
    }
    Ok(found)
}

fn count(connection: &Connection, table: &str) -> Result<u64, Error> {
    let sql = format!("SELECT count(*) FROM {table}");
    Ok(connection.query_row(&sql, [], |row| row.get::<_, i64>(0))? as u64)
}

/// All that a schema declares, in one order.
fn tables(connection: &Connection) -> Result<Vec<[Option<String>; 4]>, Error> {
    let sql = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// What a failure to read the archived file says about it.
fn unreadable(error: Error) -> ArchivedError {
    match error {
        Error::Corrupt(error) | Error::Statement(error) => ArchivedError::Damaged(error.to_string()),
        Error::Deadline => ArchivedError::Stopped,
        other => ArchivedError::Storage(other),
    }
}

fn row(table: &'static str, error: Error) -> ArchivedError {
    match error {
        Error::Deadline => ArchivedError::Stopped,
        error => ArchivedError::Row { table, error },
    }
}
