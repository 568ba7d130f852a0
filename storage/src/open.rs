//! Opening database files: pragmas with their reasons, identity and schema checks, setting a
//! damaged file aside. The only place where connections are made.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

use crate::durable;
use crate::error::{Error, Result};

/// What a database file is: its mark and its schema.
#[derive(Debug, Clone, Copy)]
pub struct FileKind {
    /// SQLite's `application_id`: the file's magic.
    pub application_id: i32,
    /// Numbered, forward-only steps; the file's version is how many of them it has seen.
    pub migrations: &'static [&'static str],
}

const WRITABLE: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);
/// How long a connection waits for another one of this process.
const BUSY_TIMEOUT: Duration = Duration::from_millis(250);
/// Page cache of one connection, in KiB: small devices; more gained 10 % at eight times the memory.
const CACHE_KIB: i64 = 2000;
/// That of one that is filled: rows come in one order and go into indexes in others.
const FILLING_KIB: i64 = 64_000;
/// A database's files: its log, the log's index, where it stood, itself.
const SUFFIXES: [&str; 4] = ["-wal", "-shm", "-anchor", ""];
/// Length to which the log's file is cut when the log starts over.
const LOG_BYTES: i64 = 16 << 20;
/// Longest value or row of a database that anybody may have made: 64 outcomes of a ledger, each of the
/// largest operation, are below it.
const FOREIGN_VALUE_BYTES: i32 = 128 << 20;
/// Longest statement there: our longest table is below 1 KiB.
const FOREIGN_SQL_BYTES: i32 = 16 << 10;
/// SQLite before this loses committed pages when a checkpoint meets a log restart.
const OLDEST_SQLITE: i32 = 3_053_002;

/// Opens the one writable connection, making the file when `create` is set and bringing an older schema
/// up to date.
///
/// # Errors
/// A missing, foreign, damaged or newer file; a device that is full, read-only or failing.
pub(crate) fn writable(path: &Path, kind: FileKind, create: bool) -> Result<Connection> {
    assert!(rusqlite::version_number() >= OLDEST_SQLITE, "bundled SQLite is older than 3.53.2");
    match (path.exists(), create) {
        (true, _) => {}
        (false, true) => make(path, kind)?,
        (false, false) => return Err(Error::Missing(path.to_owned())),
    }
    let mut connection = Connection::open_with_flags(path, WRITABLE)?;
    if connection.is_readonly("main")? {
        // SQLite opens a file it may not write for reading, without a word.
        return Err(Error::ReadOnly);
    }
    prepare(&connection)?;
    check_identity(&connection, path, kind)?;
    // A write-ahead log lets readers go on while a commit is written.
    connection.pragma_update(None, "journal_mode", "wal")?;
    // I-01: an acknowledged change survives a power cut; grouping commits makes this as fast as NORMAL.
    connection.pragma_update(None, "synchronous", "full")?;
    // `checkpoint.rs` decides when the log is folded back.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // A single large transaction may outgrow the log's bound; its file shrinks at the next restart.
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    migrate(&mut connection, kind)?;
    Ok(connection)
}

/// Makes an empty database beside its place and moves it there: a name that is there stands for a whole
/// database, whenever the power fails.
fn make(path: &Path, kind: FileKind) -> Result<()> {
    make_filled(path, kind, |_| Ok(()))
}

/// As [`make`], with what `fill` writes, in one transaction.
///
/// # Errors
/// As `fill`; those of making it.
pub(crate) fn make_filled<T, E: From<Error> + From<rusqlite::Error> + From<std::io::Error>>(
    path: &Path,
    kind: FileKind,
    fill: impl FnOnce(&Connection) -> std::result::Result<T, E>,
) -> std::result::Result<T, E> {
    let draft = with_suffix(path, ".new");
    for suffix in ["-journal", ""] {
        // What an earlier attempt left behind.
        match std::fs::remove_file(with_suffix(&draft, suffix)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
    }
    let mut connection = Connection::open_with_flags(&draft, WRITABLE | OpenFlags::SQLITE_OPEN_CREATE)?;
    // Of use to nobody before it is whole: no journal, and one sync at its end.
    connection.pragma_update(None, "cache_size", -FILLING_KIB)?;
    connection.pragma_update(None, "journal_mode", "off")?;
    connection.pragma_update(None, "synchronous", "off")?;
    migrate(&mut connection, kind)?;
    let transaction = connection.transaction()?;
    let filled = fill(&transaction)?;
    transaction.commit()?;
    connection.close().map_err(|(_connection, error)| error)?;
    File::open(&draft)?.sync_all()?;
    durable::rename(&draft, path)?;
    Ok(filled)
}

/// Opens a database that anybody may have made, for reading: nothing in it is run, nothing beside it is
/// read, and what is malformed is not worked around.
///
/// # Errors
/// As [`writable`].
pub(crate) fn foreign(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    // Immutable: neither a journal nor a log of its name is looked for.
    let connection = Connection::open_with_flags(format!("file:{}?immutable=1", in_uri(path)), flags)?;
    for (setting, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
    ] {
        connection.set_db_config(setting, on)?;
    }
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, FOREIGN_VALUE_BYTES)?;
    connection.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, FOREIGN_SQL_BYTES)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// A path as part of a URI.
fn in_uri(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let escaped = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => char::from(*byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    path.as_os_str().as_bytes().iter().map(escaped).collect()
}

/// A database in memory, for simulations.
///
/// # Errors
/// Only those of the schema itself.
pub(crate) fn in_memory(kind: FileKind) -> Result<Connection> {
    let mut connection = Connection::open_in_memory()?;
    prepare(&connection)?;
    migrate(&mut connection, kind)?;
    Ok(connection)
}

/// Opens a connection that cannot write.
///
/// # Errors
/// As [`writable`].
pub(crate) fn read_only(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    prepare(&connection)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Opens a replica's copy for reading, as its log says now; nothing is folded, and nothing left beside it.
///
/// # Errors
/// As [`writable`].
pub(crate) fn copy(path: &Path) -> Result<Connection> {
    // SQLite locks a file only if it may write it.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    prepare(&connection)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Alone with the file, SQLite keeps the log's index in memory, and reads the log once.
    connection.pragma_update(None, "locking_mode", "exclusive")?;
    connection.pragma_update(None, "query_only", true)?;
    connection.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")?;
    Ok(connection)
}

/// Folds the log of a replica's copy into it and empties it.
///
/// # Errors
/// As [`writable`].
pub(crate) fn fold_copy(path: &Path) -> Result<()> {
    let connection = copy(path)?;
    connection.execute_batch("COMMIT; PRAGMA query_only = off; PRAGMA synchronous = full")?;
    let busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy { Err(Error::Busy) } else { Ok(()) }
}

/// Renames a damaged database and its log, so that a person can look at them, and returns the new
/// name. Nothing is deleted or replaced. The log goes first: left behind, it would be taken for the
/// log of the next database of this name.
///
/// # Errors
/// The file system's.
pub fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    move_aside(path, "damaged")
}

/// As [`set_aside`], for a database that is intact and not used any more.
///
/// # Errors
/// The file system's.
pub fn retire(path: &Path) -> std::io::Result<PathBuf> {
    move_aside(path, "retired")
}

/// Removes a database that nobody uses, its log first: what is cut off leaves no database without it.
///
/// # Errors
/// The file system's.
pub fn discard(path: &Path) -> std::io::Result<()> {
    SUFFIXES.iter().try_for_each(|suffix| match std::fs::remove_file(with_suffix(path, suffix)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
}

/// Whether a database is there, or a part of one.
#[must_use]
pub fn remains(path: &Path) -> bool {
    SUFFIXES.iter().any(|suffix| with_suffix(path, suffix).exists())
}

/// Moves a closed database to its place, as a whole and at once.
///
/// # Errors
/// The place is taken, or the database is not closed; the file system's.
pub fn place(database: &Path, path: &Path) -> Result<()> {
    if remains(path) || with_suffix(database, "-wal").exists() {
        return Err(std::io::Error::from(ErrorKind::AlreadyExists).into());
    }
    Ok(durable::rename(database, path)?)
}

fn move_aside(path: &Path, why: &str) -> std::io::Result<PathBuf> {
    let free = (1..)
        .map(|n| with_suffix(path, &format!(".{why}-{n}")))
        .find(|candidate| SUFFIXES.iter().all(|suffix| !with_suffix(candidate, suffix).exists()))
        .unwrap_or_else(|| with_suffix(path, &format!(".{why}")));
    for suffix in SUFFIXES {
        let from = with_suffix(path, suffix);
        if from.exists() {
            durable::rename(&from, &with_suffix(&free, suffix))?;
        }
    }
    Ok(free)
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn prepare(connection: &Connection) -> Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    // Temporary tables and sorters hold personal data: never in files.
    connection.pragma_update(None, "temp_store", "memory")?;
    // What was deleted is overwritten, not only unlinked; also in pages that become free, which "fast"
    // leaves as they are.
    connection.pragma_update(None, "secure_delete", true)?;
    // A schema that was tampered with cannot call functions.
    connection.pragma_update(None, "trusted_schema", false)?;
    // Plans do not depend on the values bound, so no statement is parsed anew when they change: at
    // every push, as it were.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // An outbox row never names an item that is gone.
    connection.pragma_update(None, "foreign_keys", true)?;
    // A memory map would turn a failing flash cell into SIGBUS.
    connection.pragma_update(None, "mmap_size", 0)?;
    Ok(())
}

/// Refuses what is not ours, or is newer, before a byte of it changes. An empty file is not ours: a
/// database that lost its content must not pass for a new one.
fn check_identity(connection: &Connection, path: &Path, kind: FileKind) -> Result<()> {
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if id != kind.application_id {
        return Err(Error::Foreign(path.to_owned()));
    }
    schema_version(connection, kind).map(drop)
}

fn schema_version(connection: &Connection, kind: FileKind) -> Result<u32> {
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = kind.migrations.len() as u32;
    if found > known { Err(Error::Newer { found, known }) } else { Ok(found) }
}

fn migrate(connection: &mut Connection, kind: FileKind) -> Result<()> {
    let found = schema_version(connection, kind)?;
    for (number, step) in (1..).zip(kind.migrations).skip(found as usize) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "application_id", kind.application_id)?;
        transaction.pragma_update(None, "user_version", number)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reader_has_left_keeps_no_database_from_its_place_once_it_is_retired() {
        let home = tempfile::tempdir().expect("a directory");
        let (restored, master) = (home.path().join("restored.db"), home.path().join("master.db"));
        std::fs::write(&restored, "database").expect("write");
        std::fs::write(with_suffix(&master, "-shm"), "index").expect("write");
        assert!(remains(&master) && !master.exists());
        assert!(place(&restored, &master).is_err());
        retire(&master).expect("retire");
        place(&restored, &master).expect("place");
        assert!(master.exists() && !remains(&restored));
    }
}
