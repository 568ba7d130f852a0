//! A replica's copy against an ordinary SQLite database: the same bytes after every transaction, and one
//! whole position after every cut.

mod shared;
mod torn;

use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mfpsync_storage::model::{Chain, Sequence};
use mfpsync_storage::physical::{
    LogId, PAGE_BYTES, Page, PageDigest, PageHash, PageNumber, Position, Standby,
};
use mfpsync_storage::{Error, Result};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::frozen::{frozen, hex};
use crate::golden::position;
use crate::support::{EPOCH, GROUP};

/// A database, and what its file is after each of its transactions.
struct Source {
    connection: Connection,
    path: PathBuf,
    transaction: u64,
    _directory: TempDir,
}

/// A database at one moment.
#[derive(Clone)]
struct Moment {
    pages: Vec<Page>,
    position: Position,
}

impl Source {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("source.db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("PRAGMA page_size = 4096; PRAGMA journal_mode = wal").unwrap();
        connection.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, x)").unwrap();
        Self { connection, path, transaction: 0, _directory: directory }
    }

    fn after(&mut self, sql: &str) -> Moment {
        self.connection.execute_batch(sql).unwrap();
        self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        self.transaction += 1;
        let pages = std::fs::read(&self.path).unwrap().as_chunks::<PAGE_BYTES>().0.to_vec();
        let mut digest = PageDigest::EMPTY;
        numbered(&pages).for_each(|(number, page)| digest.toggle(PageHash::of(number, page)));
        let position = Position {
            group: GROUP,
            log: LogId([1; 16]),
            transaction: self.transaction,
            pages: pages.len() as u32,
            digest,
            epoch: EPOCH,
            sequence: Sequence(self.transaction),
            chain: Chain([self.transaction as u8; 32]),
        };
        Moment { pages, position }
    }
}

fn numbered(pages: &[Page]) -> impl Iterator<Item = (PageNumber, &Page)> {
    (1..).map(PageNumber).zip(pages)
}

/// Has the copy follow to a moment, by the pages that differ.
fn feed(copy: &mut Standby, moment: &Moment) -> Result<()> {
    copy.begin(false)?;
    stage(copy, moment)?;
    copy.commit(&moment.position)
}

fn stage(copy: &mut Standby, moment: &Moment) -> Result<()> {
    for (number, page) in numbered(&moment.pages) {
        if number.0 > copy.pages() || copy.page(number)? != *page {
            copy.stage(number, page)?;
        }
    }
    Ok(())
}

fn assert_at(copy: &mut Standby, moment: &Moment) {
    assert_eq!(copy.position(), Some(moment.position));
    assert!(copy.verify(&|| false).unwrap(), "its pages are not its position's");
    numbered(&moment.pages).for_each(|(number, page)| assert_eq!(copy.page(number).unwrap(), *page));
}

/// A copy with one transaction in its file and two in its log: which part of the log the last one is, and
/// the database after each of the three.
fn with_log(directory: &Path) -> (Range<u64>, [Moment; 3]) {
    let mut source = Source::new();
    let moments = [
        source.after("INSERT INTO t (x) VALUES (randomblob(9000))"),
        source.after("INSERT INTO t (x) VALUES ('a')"),
        source.after("INSERT INTO t (x) VALUES ('b')"),
    ];
    let mut copy = Standby::open(directory).unwrap();
    let ends = moments.each_ref().map(|moment| {
        feed(&mut copy, moment).unwrap();
        std::fs::metadata(log(directory)).unwrap().len()
    });
    // Not closed: that would fold the log.
    (ends[1]..ends[2], moments)
}

fn database(directory: &Path) -> PathBuf {
    directory.join("standby-1.db")
}

fn log(directory: &Path) -> PathBuf {
    directory.join("standby-1.db-wal")
}

fn open_file(path: &Path) -> std::fs::File {
    std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
}

#[test]
fn the_copy_is_the_sources_bytes_through_growth_shrinking_and_new_tables() {
    let directory = tempfile::tempdir().unwrap();
    let mut source = Source::new();
    let mut copy = Standby::open(directory.path()).unwrap();
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)
        INSERT INTO t (x) SELECT randomblob(4000) FROM n";
    for sql in [
        "INSERT INTO t (x) VALUES (1)",
        "CREATE TABLE u (y); CREATE INDEX v ON t (x)",
        many,
        "UPDATE t SET x = 2 WHERE id % 3 = 0",
        "DELETE FROM t WHERE id > 20; VACUUM",
        "DROP INDEX v; ALTER TABLE u ADD COLUMN z",
        "INSERT INTO u (y) VALUES (randomblob(50000))",
        "DELETE FROM u",
    ] {
        let moment = source.after(sql);
        feed(&mut copy, &moment).unwrap();
        assert_at(&mut copy, &moment);
        // Read anew from the disk, and folded every other time.
        if source.transaction.is_multiple_of(2) {
            copy.close().unwrap();
            assert_eq!(std::fs::read(database(directory.path())).unwrap(), moment.pages.as_flattened());
        } else {
            drop(copy);
        }
        copy = Standby::open(directory.path()).unwrap();
        assert_at(&mut copy, &moment);
    }
}

#[test]
fn a_first_copy_that_was_interrupted_goes_on_with_what_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let moment = Source::new().after("INSERT INTO t (x) VALUES (randomblob(90000))");
    let mut copy = Standby::open(directory.path()).unwrap();
    assert_eq!((copy.position(), copy.pages()), (None, 0));
    copy.begin(false).unwrap();
    for (number, page) in numbered(&moment.pages[..10]) {
        copy.stage(number, page).unwrap();
    }
    drop(copy);
    let mut copy = Standby::open(directory.path()).unwrap();
    assert_eq!((copy.position(), copy.pages()), (None, 10));
    copy.begin(false).unwrap();
    assert!(matches!(copy.commit(&moment.position), Err(Error::Diverged)));
    assert_eq!(copy.position(), None);
    copy.begin(false).unwrap();
    for (number, page) in numbered(&moment.pages).skip(10) {
        copy.stage(number, page).unwrap();
    }
    copy.commit(&moment.position).unwrap();
    assert_at(&mut copy, &moment);
    drop(copy);
    assert_at(&mut Standby::open(directory.path()).unwrap(), &moment);
}

#[test]
fn a_transaction_that_leads_elsewhere_is_void() {
    let directory = tempfile::tempdir().unwrap();
    let mut source = Source::new();
    let first = source.after("INSERT INTO t (x) VALUES (1)");
    // More than is kept in memory.
    let second = source.after("INSERT INTO t (x) VALUES (randomblob(2000000))");
    let mut copy = Standby::open(directory.path()).unwrap();
    feed(&mut copy, &first).unwrap();
    let mut wrong = second.clone();
    wrong.pages[300][17] ^= 1;
    assert!(matches!(feed(&mut copy, &wrong), Err(Error::Diverged)));
    assert_at(&mut copy, &first);
    let short = Position { pages: second.position.pages - 1, ..second.position };
    assert!(matches!(feed(&mut copy, &Moment { position: short, ..second.clone() }), Err(Error::Diverged)));
    drop(copy);
    let mut copy = Standby::open(directory.path()).unwrap();
    assert_at(&mut copy, &first);
    // Given up half way, and begun again.
    copy.begin(false).unwrap();
    copy.stage(PageNumber(1), &[7; PAGE_BYTES]).unwrap();
    feed(&mut copy, &second).unwrap();
    assert_at(&mut copy, &second);
}

#[test]
fn a_damaged_copy_stays_until_another_one_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let (_, [_, before, after]) = with_log(directory.path());
    // A page that is not in the log.
    let damaged = PageNumber(after.position.pages);
    open_file(&database(directory.path())).write_all_at(b"damage", damaged.offset() + 100).unwrap();
    let mut copy = Standby::open(directory.path()).unwrap();
    assert!(!copy.verify(&|| false).unwrap());
    assert_eq!((copy.position(), copy.pages()), (None, after.position.pages));
    copy.begin(true).unwrap();
    copy.stage(PageNumber(1), &before.pages[0]).unwrap();
    drop(copy);
    let mut copy = Standby::open(directory.path()).unwrap();
    assert_eq!(copy.page(PageNumber(1)).unwrap(), after.pages[0], "the other one does not count yet");
    copy.begin(true).unwrap();
    for (number, page) in numbered(&before.pages) {
        copy.stage(number, page).unwrap();
    }
    let old = [database(directory.path()), log(directory.path())];
    let kept = old.each_ref().map(|file| std::fs::read(file).unwrap());
    copy.commit(&before.position).unwrap();
    assert_at(&mut copy, &before);
    assert!(old.iter().all(|file| !file.exists()));
    drop(copy);
    // Power was cut before they were removed.
    old.iter().zip(kept).for_each(|(file, bytes)| std::fs::write(file, bytes).unwrap());
    let mut copy = Standby::open(directory.path()).unwrap();
    assert_at(&mut copy, &before);
    assert!(old.iter().all(|file| !file.exists()), "a copy that counts no more takes up room");
    feed(&mut copy, &after).unwrap();
    assert_at(&mut copy, &after);
}

#[test]
fn a_damaged_copy_is_not_folded_and_is_mended_by_what_comes() {
    let directory = tempfile::tempdir().unwrap();
    let (_, [_, _, after]) = with_log(directory.path());
    // SQLite can read nothing of a database whose schema is damaged.
    let schema = after.pages[0].array_windows().position(|text| text == b"CREATE").unwrap();
    open_file(&database(directory.path())).write_all_at(b"DAMAGE", schema as u64).unwrap();
    let mut copy = Standby::open(directory.path()).unwrap();
    assert!(!copy.verify(&|| false).unwrap());
    copy.rest().unwrap();
    copy.close().unwrap();
    let mut copy = Standby::open(directory.path()).unwrap();
    assert!(!copy.verify(&|| false).unwrap(), "closing it made nothing good");
    feed(&mut copy, &after).unwrap();
    assert_at(&mut copy, &after);
    copy.close().unwrap();
    assert_at(&mut Standby::open(directory.path()).unwrap(), &after);
}

#[test]
fn the_position_file_and_the_position_in_the_log_are_frozen() {
    let directory = tempfile::tempdir().unwrap();
    let page = [7; PAGE_BYTES];
    let mut digest = PageDigest::EMPTY;
    digest.toggle(PageHash::of(PageNumber(1), &page));
    let at = Position { pages: 1, digest, ..position() };
    let mut copy = Standby::open(directory.path()).unwrap();
    copy.begin(false).unwrap();
    copy.stage(PageNumber(1), &page).unwrap();
    copy.commit(&at).unwrap();
    frozen("standby-pos-v1.hex", &hex(&std::fs::read(directory.path().join("standby.pos")).unwrap()));
    let next = Position { transaction: 301, ..at };
    copy.begin(false).unwrap();
    copy.commit(&next).unwrap();
    frozen("standby-log-v1.hex", &hex(&std::fs::read(log(directory.path())).unwrap()));
    drop(copy);
    assert_eq!(Standby::open(directory.path()).unwrap().position(), Some(next));
}
