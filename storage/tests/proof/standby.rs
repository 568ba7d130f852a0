//! A replica's copy against an ordinary SQLite database: the same bytes after every transaction, and one
//! whole position after every cut.

use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mfpsync_storage::model::{Chain, Sequence};
use mfpsync_storage::physical::{
    LogId, PAGE_BYTES, Page, PageDigest, PageHash, PageNumber, Position, Standby,
};
use mfpsync_storage::{Error, Result};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::faults::{in_namespace, mounted};
use crate::frozen::{frozen, hex};
use crate::golden::position;
use crate::locks::locks;
use crate::support::{EPOCH, GROUP, skip};

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

fn stock(directory: &Path, sql: &str) -> Option<Output> {
    match Command::new("sqlite3").arg(database(directory)).arg(sql).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            skip("there is no sqlite3");
            None
        }
        output => Some(output.unwrap()),
    }
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
fn a_log_cut_at_any_byte_of_the_last_transaction_leads_to_the_one_before() {
    let directory = tempfile::tempdir().unwrap();
    let (last, [_, before, after]) = with_log(directory.path());
    assert_at(&mut Standby::open(directory.path()).unwrap(), &after);
    for length in last.rev() {
        open_file(&log(directory.path())).set_len(length).unwrap();
        let mut copy = Standby::open(directory.path()).unwrap();
        assert_eq!(copy.position(), Some(before.position), "cut at {length}");
        if length.is_multiple_of(512) {
            assert_at(&mut copy, &before);
        }
    }
}

#[test]
fn what_is_torn_is_written_over_and_the_copy_goes_on() {
    for torn in [1, 40, 4_150, 8_000] {
        let directory = tempfile::tempdir().unwrap();
        let (last, [_, before, after]) = with_log(directory.path());
        open_file(&log(directory.path())).set_len(last.end - torn).unwrap();
        let mut copy = Standby::open(directory.path()).unwrap();
        assert_at(&mut copy, &before);
        feed(&mut copy, &after).unwrap();
        drop(copy);
        let mut copy = Standby::open(directory.path()).unwrap();
        assert_at(&mut copy, &after);
        copy.close().unwrap();
        assert_eq!(std::fs::read(database(directory.path())).unwrap(), after.pages.as_flattened());
    }
}

#[test]
fn a_byte_changed_anywhere_in_the_last_transaction_voids_it() {
    let directory = tempfile::tempdir().unwrap();
    let (last, [_, before, after]) = with_log(directory.path());
    let file = open_file(&log(directory.path()));
    for at in last {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1 << (at % 8)], at).unwrap();
        let copy = Standby::open(directory.path()).unwrap();
        assert_eq!(copy.position(), Some(before.position), "changed at {at}");
        file.write_all_at(&byte, at).unwrap();
    }
    assert_at(&mut Standby::open(directory.path()).unwrap(), &after);
}

#[test]
fn a_log_whose_header_is_damaged_is_as_none() {
    let directory = tempfile::tempdir().unwrap();
    let (_, [first, ..]) = with_log(directory.path());
    let file = open_file(&log(directory.path()));
    // Bytes 12 to 15 count the log's restarts, for SQLite alone; the checksum has them.
    for at in 0..32 {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
        assert_at(&mut Standby::open(directory.path()).unwrap(), &first);
        file.write_all_at(&byte, at).unwrap();
    }
}

#[test]
fn a_fold_cut_anywhere_ends_at_the_same_position() {
    let directory = tempfile::tempdir().unwrap();
    let (_, [_, _, after]) = with_log(directory.path());
    let place = directory.path().join("standby.pos");
    let read = |path: &Path| std::fs::read(path).unwrap();
    let files = || (read(&database(directory.path())), read(&log(directory.path())), read(&place));
    let (database_before, log_before, place_before) = files();
    Standby::open(directory.path()).unwrap().close().unwrap();
    let (database_after, log_after, place_after) = files();
    assert!(log_after.is_empty() && place_after != place_before);
    // Half of the pages folded, and one of them torn.
    let mut half = database_before.clone();
    half[..PAGE_BYTES + 700].copy_from_slice(&database_after[..PAGE_BYTES + 700]);
    for (step, (database_bytes, log_bytes, place_bytes)) in [
        (&database_before, &log_before, &place_before),
        (&database_before, &log_before, &place_after),
        (&half, &log_before, &place_after),
        (&database_after, &log_before, &place_after),
        (&database_after, &log_after, &place_after),
    ]
    .into_iter()
    .enumerate()
    {
        let cut = tempfile::tempdir().unwrap();
        std::fs::write(database(cut.path()), database_bytes).unwrap();
        std::fs::write(log(cut.path()), log_bytes).unwrap();
        std::fs::write(cut.path().join("standby.pos"), place_bytes).unwrap();
        std::fs::write(cut.path().join("standby.pos.tmp"), &place_bytes[..place_bytes.len() / 2]).unwrap();
        println!("step {step}");
        let mut copy = Standby::open(cut.path()).unwrap();
        assert_at(&mut copy, &after);
        copy.close().unwrap();
        assert_at(&mut Standby::open(cut.path()).unwrap(), &after);
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
fn a_proof_sees_the_moment_it_began_at() {
    let directory = tempfile::tempdir().unwrap();
    let (_, [_, _, after]) = with_log(directory.path());
    let mut copy = Standby::open(directory.path()).unwrap();
    let prover = copy.prover(|| false).unwrap();
    let mut later = Source::new();
    later.after("INSERT INTO t (x) VALUES (randomblob(9000))");
    // More than would be folded otherwise.
    let later = later.after("INSERT INTO t (x) VALUES (randomblob(5000000))");
    feed(&mut copy, &later).unwrap();
    assert_at(&mut copy, &later);
    assert_eq!(prover.digest().unwrap(), after.position.digest);
    assert_eq!(prover.check().unwrap(), Vec::<String>::new());
    assert!(std::fs::metadata(log(directory.path())).unwrap().len() > 0);
    drop(prover);
    assert_eq!(copy.prover(|| false).unwrap().digest().unwrap(), later.position.digest);
    copy.close().unwrap();
    assert_eq!(std::fs::read(database(directory.path())).unwrap(), later.pages.as_flattened());
}

#[test]
fn a_full_device_leaves_the_copy_as_it_was_and_it_goes_on_when_there_is_room() {
    in_namespace("standby::on_a_full_device", "mount -t tmpfs -o size=6m tmpfs \"$MFPSYNC_MOUNT\"");
}

#[test]
#[ignore = "runs in a mount namespace, started by the test of the full device"]
fn on_a_full_device() {
    let directory = mounted();
    let (_, [_, _, after]) = with_log(&directory);
    let large = Source::new().after("INSERT INTO t (x) VALUES (randomblob(2000000))");
    let mut copy = Standby::open(&directory).unwrap();
    let ballast = directory.join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[7; 512]).is_ok() {}
    for _ in 0..2 {
        let fed = feed(&mut copy, &large);
        assert!(matches!(fed, Err(Error::Full)), "{fed:?}");
        assert_at(&mut copy, &after);
        drop(copy);
        copy = Standby::open(&directory).unwrap();
        // Where the copy stands is noted before anything is folded.
        let folded = copy.rest();
        assert!(matches!(folded, Err(Error::Full)), "{folded:?}");
        assert_at(&mut copy, &after);
    }
    drop(file);
    std::fs::remove_file(ballast).unwrap();
    feed(&mut copy, &large).unwrap();
    assert_at(&mut copy, &large);
    copy.close().unwrap();
    assert_eq!(std::fs::read(database(&directory)).unwrap(), large.pages.as_flattened());
}

/// SQLite folds up to there, and what the copy lacks then is not what its position says.
#[test]
fn a_bit_that_flips_in_the_log_of_an_open_copy_is_found() {
    for folded in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let (last, [_, _, after]) = with_log(directory.path());
        let mut copy = Standby::open(directory.path()).unwrap();
        let file = open_file(&log(directory.path()));
        let (at, mut byte) = (last.start + 2_000, [0]);
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 4], at).unwrap();
        if folded {
            copy.rest().unwrap();
        }
        assert_ne!(copy.prover(|| false).unwrap().digest().unwrap(), after.position.digest);
        assert!(!copy.verify(&|| false).unwrap());
        assert_eq!(copy.position(), None);
        feed(&mut copy, &after).unwrap();
        assert_at(&mut copy, &after);
    }
}

#[test]
fn a_proof_is_given_up_when_nobody_asks_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let mut source = Source::new();
    let moment = source.after("INSERT INTO t (x) VALUES (randomblob(5000000))");
    let mut copy = Standby::open(directory.path()).unwrap();
    feed(&mut copy, &moment).unwrap();
    assert!(matches!(copy.prover(|| true).unwrap().digest(), Err(Error::Deadline)));
    assert_eq!(copy.prover(|| false).unwrap().digest().unwrap(), moment.position.digest);
}

#[test]
fn a_proof_that_outlives_its_copy_does_not_give_up_the_lock_of_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let (_, [_, _, after]) = with_log(directory.path());
    let mut copy = Standby::open(directory.path()).unwrap();
    let locked = locks(&database(directory.path()));
    assert!(!locked.is_empty());
    let prover = copy.prover(|| false).unwrap();
    drop(copy);
    let mut copy = Standby::open(directory.path()).unwrap();
    // It still reads what is in the log.
    copy.rest().unwrap();
    assert_eq!(prover.digest().unwrap(), after.position.digest);
    drop(prover);
    assert_eq!(locks(&database(directory.path())), locked);
    copy.rest().unwrap();
    assert_eq!(locks(&database(directory.path())), locked);
    assert_at(&mut copy, &after);
}

#[test]
fn a_damaged_position_file_costs_a_comparison_and_no_copy() {
    type Harm = fn(&mut Vec<u8>);
    let harms: [Harm; 4] = [
        |bytes| bytes.clear(),
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes[9] ^= 1,
        |bytes| bytes.fill(0),
    ];
    for (harm, closed) in harms.into_iter().flat_map(|harm| [(harm, false), (harm, true)]) {
        let directory = tempfile::tempdir().unwrap();
        let (_, [_, _, after]) = with_log(directory.path());
        if closed {
            Standby::open(directory.path()).unwrap().close().unwrap();
        }
        let place = directory.path().join("standby.pos");
        let mut bytes = std::fs::read(&place).unwrap();
        harm(&mut bytes);
        std::fs::write(&place, bytes).unwrap();
        let mut copy = Standby::open(directory.path()).unwrap();
        // Its log says where it stands; without, nothing does in a database like this one.
        assert_eq!(copy.position(), (!closed).then_some(after.position));
        assert_eq!(copy.pages(), after.position.pages, "there is nothing to compare");
        feed(&mut copy, &after).unwrap();
        assert_at(&mut copy, &after);
        drop(copy);
        let mut copy = Standby::open(directory.path()).unwrap();
        assert_at(&mut copy, &after);
        copy.close().unwrap();
        assert_eq!(std::fs::read(database(directory.path())).unwrap(), after.pages.as_flattened());
    }
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

#[test]
fn other_programs_are_kept_out_while_the_copy_is_open() {
    let directory = tempfile::tempdir().unwrap();
    let (_, [first, before, after]) = with_log(directory.path());
    let mut copy = Standby::open(directory.path()).unwrap();
    let out = |when: &str| {
        for sql in ["SELECT count(*) FROM t", "INSERT INTO t (x) VALUES (9)", "PRAGMA wal_checkpoint"] {
            let Some(output) = stock(directory.path(), sql) else { return };
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains("database is locked"), "{when}: {sql}: {said}");
        }
    };
    out("opened");
    let prover = copy.prover(|| false).unwrap();
    out("while it is proven");
    drop(prover);
    out("proven");
    feed(&mut copy, &Moment { position: Position { transaction: 9, ..first.position }, ..first }).unwrap();
    out("after a transaction");
    feed(&mut copy, &before).unwrap();
    feed(&mut copy, &after).unwrap();
    copy.close().unwrap();
}

#[test]
fn what_another_program_did_to_a_closed_copy_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let (_, [_, _, after]) = with_log(directory.path());
    // The last to close, it folds the log and removes it.
    let Some(output) = stock(directory.path(), "INSERT INTO t (x) VALUES ('c')") else { return };
    assert!(output.status.success() && !log(directory.path()).exists());
    let mut copy = Standby::open(directory.path()).unwrap();
    assert!(!copy.verify(&|| false).unwrap());
    assert_eq!(copy.position(), None);
    feed(&mut copy, &after).unwrap();
    assert_at(&mut copy, &after);
}

#[test]
fn a_log_removed_or_cut_while_the_copy_is_open_is_noticed() {
    let cut = |log: &Path| open_file(log).set_len(40).unwrap();
    let replaced = |log: &Path| {
        std::fs::rename(log, log.with_extension("gone")).unwrap();
        std::fs::write(log, b"").unwrap();
    };
    let harms: [&dyn Fn(&Path); 3] = [&|log| std::fs::remove_file(log).unwrap(), &cut, &replaced];
    for harm in harms {
        let directory = tempfile::tempdir().unwrap();
        let (_, [_, before, _]) = with_log(directory.path());
        let mut copy = Standby::open(directory.path()).unwrap();
        harm(&log(directory.path()));
        assert!(matches!(copy.begin(false), Err(Error::Tampered)));
        drop(copy);
        let mut copy = Standby::open(directory.path()).unwrap();
        feed(&mut copy, &before).unwrap();
        assert_at(&mut copy, &before);
    }
}
