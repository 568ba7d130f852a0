//! What follows a database's commits stays true whoever else uses the database: another program's
//! transactions and folds are noticed, and no lock is ever given up. Cases 4 to 6 of a replica's life.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use mfpsync_storage::Store;
use mfpsync_storage::physical::{Changed, LogId, Page, PageDigest, PageHash, PageNumber, Pages};
use mfpsync_storage::tap::{Tap, Verdict};
use rusqlite::Connection;

use crate::locks::locks;
use crate::support::Bare;

/// A disk that others use as well.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was heard: the runs of transactions, the latest last, and a copy made of it.
#[derive(Debug, Default)]
struct Heard {
    runs: Vec<LogId>,
    copy: BTreeMap<PageNumber, Page>,
}

struct Follower(Arc<Mutex<Heard>>);

impl Tap<Bare> for Follower {
    fn name(&mut self) -> LogId {
        static NAMES: AtomicU8 = AtomicU8::new(1);
        LogId([NAMES.fetch_add(1, Ordering::Relaxed); 16])
    }

    fn begin(&mut self, pages: &mut Pages, kept: Option<&[u8]>, _: &&Connection) {
        while !pages.hash_on(1_000).unwrap() {}
        let mut heard = self.0.lock().unwrap();
        heard.runs.push(pages.log());
        if kept.is_none() {
            heard.copy =
                PageNumber::all(pages.count()).map(|page| (page, pages.page(page).unwrap())).collect();
        }
    }

    fn changed(&mut self, changed: Changed<'_>) {
        self.0.lock().unwrap().copy.insert(changed.page, *changed.new);
    }

    fn committed(&mut self, pages: &mut Pages, _: &&Connection) {
        let count = pages.count();
        self.0.lock().unwrap().copy.retain(|page, _| page.0 <= count);
    }

    fn verdict(&self) -> Verdict {
        Verdict::ALL
    }

    fn keep(&self) -> Vec<u8> {
        b"kept".to_vec()
    }
}

fn open(path: &Path, create: bool) -> (Store<Bare>, Arc<Mutex<Heard>>) {
    let store = Store::open(path, create, Box::new(|_| {})).unwrap();
    let heard = follow(&store);
    (store, heard)
}

fn follow(store: &Store<Bare>) -> Arc<Mutex<Heard>> {
    let heard = Arc::<Mutex<Heard>>::default();
    store.set_tap(Some(Box::new(Follower(heard.clone()))));
    heard
}

fn write(store: &Store<Bare>, number: i64) {
    store
        .write_and_wait(move |connection| {
            let text = "x".repeat(3_000);
            Ok(connection.execute("INSERT OR REPLACE INTO kept VALUES (?1, ?2)", (number, text)).map(drop)?)
        })
        .unwrap();
}

/// The copy is what a reader of the file finds, and its digest that of the pages.
fn is_copied(store: &Store<Bare>, heard: &Arc<Mutex<Heard>>) {
    let (tell, told) = mpsc::channel();
    let copied = heard.clone();
    store.with_pages(move |pages| {
        let (pages, _) = pages.unwrap();
        let copy = &copied.lock().unwrap().copy;
        let mut digest = PageDigest::EMPTY;
        copy.iter().for_each(|(page, content)| digest.toggle(PageHash::of(*page, content)));
        let differing: Vec<u32> = PageNumber::all(pages.count())
            .filter(|page| copy.get(page) != Some(&pages.page(*page).unwrap()))
            .map(|page| page.0)
            .collect();
        tell.send((differing, Some(digest) == pages.digest())).unwrap();
    });
    assert_eq!(
        told.recv().unwrap(),
        (Vec::new(), true),
        "pages that differ, and whether the digest is right"
    );
}

/// The copy is the file, when all of that is folded.
fn is_the_file(store: &Store<Bare>, heard: &Arc<Mutex<Heard>>, path: &Path) {
    store.close().unwrap();
    let copy: Vec<u8> = heard.lock().unwrap().copy.values().flatten().copied().collect();
    assert!(std::fs::read(path).unwrap() == copy, "the copy is not the file");
}

fn runs(heard: &Arc<Mutex<Heard>>) -> usize {
    heard.lock().unwrap().runs.len()
}

fn stranger(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn what_another_program_writes_or_folds_meanwhile_begins_a_new_run() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bare.db");
    let (store, heard) = open(&path, true);
    write(&store, 1);
    assert_eq!(runs(&heard), 1);
    for (turn, sql) in [
        "INSERT INTO kept VALUES (100, 'a')",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "INSERT INTO kept VALUES (101, 'a'); PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA wal_checkpoint(RESTART); INSERT INTO kept VALUES (102, 'a'); PRAGMA wal_checkpoint(RESTART);
         INSERT INTO kept VALUES (103, 'a')",
        "DELETE FROM kept; VACUUM",
    ]
    .into_iter()
    .enumerate()
    {
        stranger(&path, sql);
        write(&store, turn as i64);
        assert_eq!(runs(&heard), turn + 2, "{sql}");
        is_copied(&store, &heard);
        // And nothing more: the run goes on.
        write(&store, 50);
        store.truncate_log();
        write(&store, 51);
        assert_eq!(runs(&heard), turn + 2, "after {sql}");
    }
    is_the_file(&store, &heard, &path);
}

#[test]
fn a_commit_that_nobody_reported_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bare.db");
    let (store, heard) = open(&path, true);
    write(&store, 1);
    // This takes the place of the hook that says how long the log is.
    let set = |connection: &&Connection| Ok(connection.pragma_update(None, "wal_autocheckpoint", 1_000)?);
    store.write_and_wait(set).unwrap();
    for number in 2..5 {
        write(&store, number);
        is_copied(&store, &heard);
    }
    is_the_file(&store, &heard, &path);
}

/// Who is killed in the middle of a commit leaves frames in the log that are whole and belong to no transaction.
#[test]
fn what_a_killed_process_had_not_committed_is_no_commit_that_nobody_reported() {
    let directory = tempfile::tempdir().unwrap();
    let (path, left) = (directory.path().join("bare.db"), directory.path().join("left.db"));
    drop(open(&path, true));
    let killed = Connection::open(&path).unwrap();
    let sql = "INSERT INTO kept VALUES (1, 'a'); PRAGMA cache_size = 1; BEGIN;
               WITH RECURSIVE number(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM number WHERE n < 50)
               INSERT INTO kept SELECT n, hex(zeroblob(1500)) FROM number";
    killed.execute_batch(sql).unwrap();
    for suffix in ["", "-wal"] {
        let of = |path: &Path| format!("{}{suffix}", path.display());
        std::fs::copy(of(&path), of(&left)).unwrap();
    }
    let frames = std::fs::metadata(format!("{}-wal", left.display())).unwrap().len() / 4_096;
    assert!(frames > 20, "{frames} frames");
    let (store, heard) = open(&left, false);
    store.write_and_wait(|_| Ok(())).unwrap();
    write(&store, 2);
    is_copied(&store, &heard);
    assert_eq!(runs(&heard), 1);
    is_the_file(&store, &heard, &left);
}

#[test]
fn what_another_program_did_around_the_end_begins_a_new_run() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bare.db");
    let (store, heard) = open(&path, true);
    write(&store, 1);
    let first = heard.lock().unwrap().runs[0];
    store.close().unwrap();
    let (store, heard) = open(&path, false);
    is_copied_again(&store, &heard);
    assert_eq!(heard.lock().unwrap().runs, [first], "a clean end is no reason to compare");
    // Before the end, and not noticed by a commit.
    stranger(&path, "INSERT INTO kept VALUES (100, 'a')");
    store.close().unwrap();
    let (store, heard) = open(&path, false);
    is_copied(&store, &heard);
    assert_ne!(heard.lock().unwrap().runs, [first]);
    let second = heard.lock().unwrap().runs[0];
    // After the end.
    store.close().unwrap();
    stranger(&path, "INSERT INTO kept VALUES (101, 'a')");
    let (store, heard) = open(&path, false);
    is_copied(&store, &heard);
    assert_ne!(heard.lock().unwrap().runs, [second]);
    is_the_file(&store, &heard, &path);
}

/// The run went on, so nothing was copied: only the digest tells.
fn is_copied_again(store: &Store<Bare>, heard: &Arc<Mutex<Heard>>) {
    let (tell, told) = mpsc::channel();
    store.with_pages(move |pages| {
        let (pages, _) = pages.unwrap();
        let mut digest = PageDigest::EMPTY;
        for page in PageNumber::all(pages.count()) {
            digest.toggle(PageHash::of(page, &pages.page(page).unwrap()));
        }
        tell.send(Some(digest) == pages.digest()).unwrap();
    });
    assert!(told.recv().unwrap(), "the digest is not that of the pages");
    assert_eq!(heard.lock().unwrap().copy.len(), 0);
}

#[test]
fn following_a_database_and_ending_that_gives_up_none_of_its_locks() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bare.db");
    let store = Store::<Bare>::open(&path, true, Box::new(|_| {})).unwrap();
    let index = directory.path().join("bare.db-shm");
    let all = || (locks(&path), locks(&index));
    // The writer answers before it folds the log, and locks more while it does; what is given up stays given up.
    let holds = |before: &(Vec<String>, Vec<String>), when: &str| {
        let end = Instant::now() + PATIENCE;
        while all() != *before {
            assert!(Instant::now() < end, "{when}: {:?} instead of {before:?}", all());
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    write(&store, 1);
    let before = all();
    assert!(!before.0.is_empty(), "the database is not locked at all");
    let heard = follow(&store);
    write(&store, 2);
    is_copied(&store, &heard);
    holds(&before, "followed");
    // Read anew from the start.
    stranger(&path, "INSERT INTO kept VALUES (100, 'a')");
    write(&store, 3);
    is_copied(&store, &heard);
    holds(&before, "read anew");
    assert_eq!(runs(&heard), 2, "read anew");
    store.truncate_log();
    write(&store, 4);
    holds(&before, "folded");
    store.set_tap(None);
    write(&store, 5);
    holds(&before, "followed no more");
    let heard = follow(&store);
    write(&store, 6);
    is_copied(&store, &heard);
    holds(&before, "followed again");
    is_the_file(&store, &heard, &path);
}

#[test]
fn a_snapshot_beside_a_replica_disturbs_neither() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bare.db");
    let (store, heard) = open(&path, true);
    (0..400).for_each(|number| write(&store, number));
    let (snapshot, ()) = store.snapshot(|_| Ok(())).unwrap();
    let mut bytes = Vec::new();
    for (turn, portion) in snapshot.enumerate() {
        bytes.extend(portion.unwrap());
        (0..40).for_each(|number| write(&store, 10 * number + turn as i64));
        write(&store, 1_000 + turn as i64);
    }
    let other = directory.path().join("snapshot.db");
    std::fs::write(&other, bytes).unwrap();
    let connection = Connection::open(&other).unwrap();
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!((count("SELECT count(*) FROM kept"), count("SELECT max(number) FROM kept")), (400, 399));
    assert_eq!(runs(&heard), 1, "the run of transactions goes on");
    is_copied(&store, &heard);
    is_the_file(&store, &heard, &path);
}
