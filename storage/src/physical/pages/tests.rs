//! A copy made of nothing but what [`Pages`] tells is the database, whatever happens to it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::Connection;
use rusqlite::hooks::Wal;

use super::*;

/// A database, and a copy made of what is heard of it.
struct Watched {
    _directory: tempfile::TempDir,
    path: PathBuf,
    connection: Connection,
    frames: Arc<AtomicU32>,
    pages: Pages,
    copy: BTreeMap<PageNumber, Page>,
}

fn connect(path: &Path) -> (Connection, Arc<AtomicU32>) {
    let mut connection = Connection::open(path).unwrap();
    let frames = Arc::new(AtomicU32::new(0));
    connection.pragma_update(None, "journal_mode", "wal").unwrap();
    connection.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    connection.pragma_update(None, "cache_size", 20).unwrap();
    let seen = frames.clone();
    let hook = move |_: &mut Wal, length: std::ffi::c_int| {
        seen.store(u32::try_from(length).unwrap(), Ordering::Relaxed);
        Ok(())
    };
    connection.wal_hook(Some(hook)).unwrap();
    (connection, frames)
}

impl Watched {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("source.db");
        let (connection, frames) = connect(&path);
        connection.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)").unwrap();
        let mut copy = BTreeMap::new();
        let mut pages = Pages::open(&path, LogId([1; 16]), None, &mut |_| {}).unwrap();
        while !pages.hash_on(1).unwrap() {}
        for page in PageNumber::all(pages.count()) {
            copy.insert(page, pages.page(page).unwrap());
        }
        Self { _directory: directory, path, connection, frames, pages, copy }
    }

    fn run(&mut self, sql: &str) {
        self.connection.execute_batch(sql).unwrap();
        self.follow();
    }

    fn follow(&mut self) {
        let copy = &mut self.copy;
        self.pages
            .follow(self.frames.load(Ordering::Relaxed), &mut |changed| {
                assert_eq!(changed.old, copy.get(&changed.page), "{:?}", changed.page);
                copy.insert(changed.page, *changed.new);
            })
            .unwrap();
        let count = self.pages.count();
        self.copy.retain(|page, _| page.0 <= count);
        assert_eq!(self.copy.len(), PageNumber::all(count).count());
        assert_eq!(self.pages.digest(), Some(digest(&self.copy)));
    }

    fn fold(&mut self, mode: &str) -> bool {
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        let busy: bool = self.connection.query_row(&sql, [], |row| row.get(0)).unwrap();
        if !busy && mode == "TRUNCATE" {
            self.frames.store(0, Ordering::Relaxed);
        }
        !busy
    }

    fn anchor(&self) -> Anchor {
        self.pages.anchor(b"kept".to_vec()).unwrap()
    }

    /// What another process would find after this one was killed.
    fn after_crash(&self, anchor: &Anchor) -> (Pages, Vec<PageNumber>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("source.db");
        std::fs::copy(&self.path, &path).unwrap();
        std::fs::copy(with_suffix(&self.path, "-wal"), with_suffix(&path, "-wal")).unwrap();
        let mut heard = Vec::new();
        let pages = Pages::open(&path, LogId([2; 16]), Some(anchor), &mut |changed| heard.push(changed.page))
            .unwrap();
        (pages, heard)
    }
}

fn digest(copy: &BTreeMap<PageNumber, Page>) -> PageDigest {
    let mut digest = PageDigest::EMPTY;
    copy.iter().for_each(|(page, content)| digest.toggle(PageHash::of(*page, content)));
    digest
}

fn fill(from: u32, count: u32, text: &str) -> String {
    let rows: Vec<String> =
        (from..from + count).map(|id| format!("({id}, '{}')", text.repeat(1 + id as usize % 90))).collect();
    format!("INSERT OR REPLACE INTO t VALUES {}", rows.join(","))
}

#[test]
fn a_copy_follows_through_growth_deletion_vacuum_and_schema_changes() {
    let mut watched = Watched::new();
    for round in 0..6 {
        watched.run(&fill(round * 100, 150, "growing "));
        watched.run("UPDATE t SET text = text || 'x' WHERE id % 17 = 0");
        watched.run("CREATE INDEX IF NOT EXISTS i ON t (text); ALTER TABLE t ADD COLUMN c");
        watched.run("ALTER TABLE t DROP COLUMN c");
        watched.run("BEGIN; DELETE FROM t; INSERT INTO t VALUES (1, 'gone'); ROLLBACK");
        watched.run(
            "BEGIN; SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; INSERT INTO t (text) VALUES ('a'); COMMIT",
        );
        watched.run("DELETE FROM t WHERE id > 100");
        watched.fold(["PASSIVE", "RESTART", "TRUNCATE"][round as usize % 3]);
        watched.run("VACUUM");
        watched.run("UPDATE t SET text = 'short'");
    }
    assert!(watched.fold("TRUNCATE"));
    let file = std::fs::read(&watched.path).unwrap();
    let copy: Vec<u8> = watched.copy.values().flatten().copied().collect();
    assert!(file == copy, "the copy is not the file");
}

#[test]
fn a_reader_that_holds_the_log_hides_nothing() {
    let mut watched = Watched::new();
    watched.run(&fill(0, 200, "before "));
    for mode in ["PASSIVE", "RESTART", "TRUNCATE"] {
        let reader = Connection::open(&watched.path).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
        watched.run(&fill(100, 300, "meanwhile "));
        watched.fold(mode);
        watched.run("UPDATE t SET text = text || 'y' WHERE id % 7 = 0");
        reader.execute_batch("COMMIT").unwrap();
        assert!(watched.fold(mode));
        // The new log is shorter than what was read of the old one, then longer.
        watched.run("UPDATE t SET text = 'z' WHERE id = 3");
        watched.run(&fill(0, 900, "longer "));
    }
}

#[test]
fn an_anchor_leads_to_the_same_place_after_a_crash() {
    let mut watched = Watched::new();
    watched.run(&fill(0, 300, "first "));
    let mut anchor = watched.anchor();
    for round in 0..9 {
        watched.run(&fill(round * 40, 200, "more "));
        watched.run("DELETE FROM t WHERE id % 3 = 1");
        let (pages, heard) = watched.after_crash(&anchor);
        assert_eq!((pages.log(), pages.transaction()), (LogId([1; 16]), watched.pages.transaction()));
        assert_eq!(pages.digest(), watched.pages.digest());
        assert_eq!(pages.count(), watched.pages.count());
        let index = watched.pages.log.index.keys();
        assert!(index.into_iter().all(|page| heard.contains(page)), "a changed page was not told");
        anchor = watched.anchor();
        assert_eq!(Anchor::decode(&anchor.encode()).unwrap(), anchor);
        watched.fold(["PASSIVE", "RESTART", "TRUNCATE"][round as usize % 3]);
        if round % 2 == 0 {
            // Killed right after the fold.
            let (pages, _) = watched.after_crash(&anchor);
            let known = pages.log() == anchor.log;
            // An empty log proves nothing: somebody else may have emptied it.
            assert_eq!(known, round % 3 != 2, "round {round}");
            if known {
                assert_eq!((pages.transaction(), pages.digest()), (anchor.transaction, Some(anchor.digest)));
            }
        }
    }
}

#[test]
fn a_new_run_begins_where_the_anchor_leads_nowhere() {
    let mut watched = Watched::new();
    watched.run(&fill(0, 300, "first "));
    let stale = watched.anchor();
    for _ in 0..2 {
        watched.run("UPDATE t SET text = text || 'v'");
        assert!(watched.fold("RESTART"));
    }
    watched.run("UPDATE t SET text = text || 'v'");
    let (mut pages, _) = watched.after_crash(&stale);
    assert_eq!(pages.log(), LogId([2; 16]));
    assert_eq!(pages.digest(), None);
    while !pages.hash_on(7).unwrap() {}
    assert_eq!(pages.digest(), watched.pages.digest());
}

#[test]
fn pages_join_the_digest_while_the_database_changes() {
    let mut watched = Watched::new();
    watched.run(&fill(0, 600, "first "));
    let mut pages = Pages::open(&watched.path, LogId([3; 16]), None, &mut |_| {}).unwrap();
    let mut step = 0;
    while !pages.hash_on(3).unwrap() {
        step += 1;
        watched.run(&format!("UPDATE t SET text = text || 'w' WHERE id % 50 = {}", step % 50));
        if step % 10 == 0 {
            watched.run(&format!("DELETE FROM t WHERE id % 9 = {}; VACUUM", step % 9));
        }
        pages.follow(watched.frames.load(Ordering::Relaxed), &mut |_| {}).unwrap();
    }
    assert_eq!(pages.digest(), watched.pages.digest());
}

#[test]
fn a_closed_database_is_known_again_unless_it_was_touched() {
    let mut watched = Watched::new();
    watched.run(&fill(0, 300, "first "));
    assert!(watched.fold("TRUNCATE"));
    let closed = watched.pages.closing_anchor(Vec::new()).unwrap().unwrap();
    let (path, digest) = (watched.path.clone(), watched.pages.digest());
    let Watched { connection, _directory, .. } = watched;
    connection.close().unwrap();
    let (connection, _) = connect(&path);
    connection.execute_batch("UPDATE t SET text = 'x' WHERE id = 1").unwrap();
    let pages = Pages::open(&path, LogId([2; 16]), Some(&closed), &mut |_| {}).unwrap();
    assert_eq!((pages.log(), pages.transaction()), (LogId([1; 16]), closed.transaction + 1));
    assert_ne!(pages.digest(), digest);
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    connection.execute_batch("UPDATE t SET text = 'y' WHERE id = 1").unwrap();
    let pages = Pages::open(&path, LogId([2; 16]), Some(&closed), &mut |_| {}).unwrap();
    assert_eq!(pages.log(), LogId([2; 16]));
}
