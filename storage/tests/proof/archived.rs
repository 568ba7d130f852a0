//! A database that came from elsewhere: what is ours is read row by row into one of our own, everything else
//! is refused by name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use mfpsync_storage::Inline;
use mfpsync_storage::codec::DecodeError;
use mfpsync_storage::local::Local;
use mfpsync_storage::master::archived::{Archived, ArchivedError};
use mfpsync_storage::master::{Durability, Loss, Master, Progress, Replication, Switching};
use mfpsync_storage::model::{
    Choice, DeviceId, Held, Incarnation, Outcome, Place, RejectReason, Sequence, Tally, Target,
};
use rusqlite::Connection;

use crate::golden::every_value;
use crate::snapshot::{file, master};
use crate::support::{EPOCH, author, key, removal, write};

/// An archived database with rows in every table.
fn archived(directory: &Path) -> PathBuf {
    let store = master(&directory.join("master.db"), 60);
    store
        .write_and_wait(|to| {
            let mut all = write("every", &[]);
            all.fields = every_value();
            all.lost = every_value();
            to.accept(&author(61), &[all.clone(), removal("item-1")])?;
            to.accept(&author(62), &[all])?;
            let loss = Loss { key: key("every"), by: Sequence(2), fields: every_value() };
            to.keep_loss(&author(63), &loss)?;
            to.set_replication(Some(&Replication {
                device: DeviceId([2; 16]),
                durability: Durability::Async,
            }))?;
            to.begin_unprotected(Sequence(3), 4)?;
            (0..24).try_for_each(|_| to.pass_hour().map(drop))?;
            to.put_switching(Some(&Switching {
                kind: key("every").kind,
                to: Target::Shared(Choice::Of(DeviceId([2; 16]))),
                actor: "admin".to_owned(),
                began: Sequence(4),
                through: Place::of(&key("every")),
                sequence: Sequence(5),
                expected: 6,
                tally: Tally { items: 1, ..Tally::default() },
            }))?;
            let mut ledger = to.ledger(Incarnation(u64::MAX))?;
            let outcome = Outcome::Rejected { reason: RejectReason::OverLimit, edit: 0 };
            ledger.record([1; 32], &outcome);
            to.put_ledger(Incarnation(u64::MAX), DeviceId([2; 16]), &ledger)?;
            to.put_progress(&Progress {
                device: DeviceId([2; 16]),
                incarnation: Incarnation(u64::MAX),
                sequence: Sequence(9),
                settled: Sequence(8),
                quarantined: true,
            })
        })
        .unwrap();
    let path = directory.join("archived.db");
    let (snapshot, ()) = store.snapshot(|_| Ok(())).unwrap();
    file(snapshot, &path);
    // Only a reign that took over has these.
    let held = Held { highest: Sequence(9), runs: vec![(Sequence(8), Sequence(8))], ended: EPOCH };
    let connection = Connection::open(&path).unwrap();
    connection.execute("INSERT INTO succession VALUES (1, 5)", []).unwrap();
    connection.execute("INSERT INTO offered SELECT scope, kind, device, id, 7, 8 FROM items", []).unwrap();
    connection.execute("INSERT INTO reports VALUES (?, ?)", (DeviceId([2; 16]).0, held.encode())).unwrap();
    path
}

/// All rows of all tables, as SQLite prints them.
fn dump(path: &Path) -> String {
    let connection = Connection::open(path).unwrap();
    let mut names =
        connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1").unwrap();
    let names: Vec<String> = names.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let mut dump = String::new();
    for name in names {
        let mut statement = connection.prepare(&format!("SELECT * FROM {name} ORDER BY 1, 2")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().unwrap() {
            let values = (0..columns).map(|at| format!("{:?}", row.get_ref(at).unwrap()));
            dump += &format!("{name} {}\n", values.collect::<Vec<_>>().join(" "));
        }
    }
    dump
}

fn change(path: &Path, sql: &str) {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(sql).unwrap();
}

fn refused(path: &Path) -> ArchivedError {
    let fresh = path.with_extension("fresh");
    let taken = Archived::open(path, || false).and_then(|archived| {
        archived.check()?;
        archived.copy_to(&fresh)
    });
    assert!(!fresh.exists(), "nothing is there of what was refused");
    taken.unwrap_err()
}

#[test]
fn every_row_arrives_and_the_new_file_is_of_our_making() {
    let directory = tempfile::tempdir().unwrap();
    let path = archived(directory.path());
    let fresh = directory.path().join("fresh.db");
    let archive = Archived::open(&path, || false).unwrap();
    let contents = archive.copy_to(&fresh).unwrap();
    assert_eq!(contents, archive.contents().unwrap());
    let copied = dump(&fresh);
    assert_eq!(copied, dump(&path));
    let filled: BTreeSet<&str> = copied.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(filled.len(), 17, "an empty table proves nothing");
    // It serves like any other.
    let mut master = Inline::<Master>::open(&fresh, false).unwrap();
    let revision = master.write(|to| to.accept(&author(99), &[write("new", &[("x", "1")])])).unwrap();
    assert_eq!(revision.sequence, contents.head.sequence.next());
}

#[test]
fn what_is_no_master_of_ours_is_foreign() {
    let directory = tempfile::tempdir().unwrap();
    let local = directory.path().join("local.db");
    drop(Inline::<Local>::open(&local, true).unwrap());
    assert!(matches!(refused(&local), ArchivedError::Foreign));
    let other = directory.path().join("other.db");
    change(&other, "CREATE TABLE mine (a)");
    assert!(matches!(refused(&other), ArchivedError::Foreign));
    let text = directory.path().join("text");
    std::fs::write(&text, "no database at all, but a text of some length ".repeat(200)).unwrap();
    assert!(matches!(refused(&text), ArchivedError::Damaged(_)));
}

#[test]
fn a_newer_schema_is_named_before_its_tables_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = archived(directory.path());
    change(&path, "ALTER TABLE items ADD COLUMN weight; PRAGMA user_version = 2");
    assert!(matches!(refused(&path), ArchivedError::Newer { found: 2, known: 1 }));
}

#[test]
fn a_schema_that_somebody_changed_is_refused() {
    for sql in [
        "CREATE TRIGGER t AFTER INSERT ON items BEGIN DELETE FROM members; END",
        "CREATE VIEW v AS SELECT * FROM items",
        "CREATE TABLE more (a)",
        "CREATE INDEX i ON items (kind)",
        "CREATE INDEX i ON items (hex(fields))",
        "ALTER TABLE items ADD COLUMN g GENERATED ALWAYS AS (hex(fields)) VIRTUAL",
        "DROP TABLE members; CREATE VIEW members AS SELECT x'00' AS device, x'00' AS record",
        "PRAGMA writable_schema = on; UPDATE sqlite_schema SET sql = replace(sql, 'NOT NULL', '') WHERE name = 'items'",
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = archived(directory.path());
        change(&path, sql);
        assert!(matches!(refused(&path), ArchivedError::Schema(1)), "{sql}");
    }
}

#[test]
fn a_row_that_no_device_wrote_is_refused_with_its_table() {
    for (table, sql) in [
        ("items", "UPDATE items SET fields = x'ff'"),
        ("items", "UPDATE items SET kind = char(7) WHERE position = (SELECT max(position) FROM items)"),
        ("items", "UPDATE items SET position = position + (1 << 40)"),
        ("items", "UPDATE items SET field_sequences = x''"),
        ("items", "UPDATE items SET deleted = 7 WHERE position = (SELECT max(position) FROM items)"),
        ("changes", "UPDATE changes SET touched = x'05'"),
        ("changes", "UPDATE changes SET chain = x'00'"),
        ("changes", "UPDATE changes SET position = position + (1 << 40)"),
        ("superseded", "UPDATE superseded SET lost_fields = x'01'"),
        ("ledger", "UPDATE ledger SET entries = x'0101'"),
        ("lineage", "UPDATE lineage SET number = 9"),
        ("issuers", "UPDATE issuers SET record = x'00'"),
        ("members", "UPDATE members SET device = randomblob(16)"),
        ("replication", "UPDATE replication SET device = 'text'"),
        ("progress", "UPDATE progress SET sequence = -1"),
        ("marks", "UPDATE marks SET sequence = 1 << 40"),
        ("switching", "UPDATE switching SET target = 9"),
        ("unprotected", "UPDATE unprotected SET after_sequence = -1"),
        ("succession", "UPDATE succession SET known_sequence = 'many'"),
        ("offered", "UPDATE offered SET was = -1"),
        ("reports", "UPDATE reports SET held = x'00'"),
        ("head", "UPDATE head SET nonce = x'00'"),
        ("head", "UPDATE head SET group_name = printf('%.300c', 'x')"),
        ("head", "DELETE FROM head"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = archived(directory.path());
        change(&path, sql);
        let error = refused(&path);
        assert!(
            matches!(error, ArchivedError::Row { table: found, .. } if found == table),
            "{sql}: {error:?}"
        );
    }
}

#[test]
fn a_record_of_another_group_is_no_row_of_this_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = archived(directory.path());
    change(&path, "UPDATE head SET group_id = zeroblob(16)");
    let ArchivedError::Row { error: mfpsync_storage::Error::Record(error), .. } = refused(&path) else {
        panic!("another refusal")
    };
    assert_eq!(error, DecodeError::Invalid("record of another row or group"));
}

#[test]
fn a_flipped_page_is_found_or_was_of_no_consequence() {
    let directory = tempfile::tempdir().unwrap();
    let path = archived(directory.path());
    let (good, expected) = (std::fs::read(&path).unwrap(), dump(&path));
    let mut found = 0;
    for at in (0..good.len()).step_by(509) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        let damaged = directory.path().join("damaged.db");
        std::fs::write(&damaged, bytes).unwrap();
        let fresh = directory.path().join("fresh.db");
        let taken = Archived::open(&damaged, || false).and_then(|archived| {
            archived.check()?;
            archived.copy_to(&fresh)
        });
        match taken {
            Err(_) => found += 1,
            // Values that may be anything; their hash in the manifest tells those.
            Ok(_) => assert_eq!(dump(&fresh).lines().count(), expected.lines().count(), "byte {at}"),
        }
        drop(std::fs::remove_file(&fresh));
    }
    assert!(found > 0);
}

#[test]
fn reading_stops_when_it_is_told_to() {
    let directory = tempfile::tempdir().unwrap();
    let store = master(&directory.path().join("master.db"), 3_000);
    let path = directory.path().join("archived.db");
    let (snapshot, ()) = store.snapshot(|_| Ok(())).unwrap();
    file(snapshot, &path);
    let archived = Archived::open(&path, || true).unwrap();
    assert!(matches!(archived.check(), Err(ArchivedError::Stopped)));
    assert!(matches!(archived.copy_to(&directory.path().join("fresh.db")), Err(ArchivedError::Stopped)));
}
