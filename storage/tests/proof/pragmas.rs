//! How SQLite is set on the connections a store really uses. What most of these settings guard shows
//! only in a power cut or under an attack, so they are asserted themselves.

use mfpsync_storage::{Inline, SHORT_READ, Store};
use rusqlite::Connection;

use crate::support::Bare;

/// The same on every connection.
const ALL: [(&str, i64); 6] = [
    ("secure_delete", 1),
    ("foreign_keys", 1),
    ("trusted_schema", 0),
    ("mmap_size", 0),
    // In memory.
    ("temp_store", 2),
    ("cache_size", -2000),
];
/// I-01: an answered write is on stable storage. **Source**: SQLite's pragma reference; 2 is FULL.
const WRITER: [(&str, i64); 4] =
    [("synchronous", 2), ("wal_autocheckpoint", 0), ("journal_size_limit", 16 << 20), ("query_only", 0)];
const READER: [(&str, i64); 1] = [("query_only", 1)];

fn assert_set(connection: &Connection, who: &str, own: &[(&str, i64)]) {
    for (name, expected) in ALL.iter().chain(own) {
        let found: i64 = connection.pragma_query_value(None, name, |row| row.get(0)).unwrap();
        assert_eq!(found, *expected, "{name} of {who}");
    }
    let journal: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(journal, "wal", "journal_mode of {who}");
}

/// Proves I-01.
#[test]
fn the_writer_and_both_readers_are_set_as_durability_and_secrecy_demand() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::<Bare>::open(&directory.path().join("bare.db"), true, Box::new(|_| ())).unwrap();
    store
        .write_and_wait(|connection| {
            assert_set(connection, "the writer", &WRITER);
            Ok(connection.execute("INSERT INTO kept VALUES (1, NULL)", [])?)
        })
        .unwrap();
    for deadline in [SHORT_READ, SHORT_READ * 5] {
        store
            .read_and_wait(deadline, |connection| {
                assert_set(connection, "a reader", &READER);
                assert!(
                    connection.execute("INSERT INTO kept VALUES (2, NULL)", []).is_err(),
                    "a reader wrote"
                );
                Ok(())
            })
            .unwrap();
    }
    store.close().unwrap();
}

/// Proves I-01.
#[test]
fn a_database_used_on_ones_own_thread_is_set_like_a_writer() {
    let directory = tempfile::tempdir().unwrap();
    let database = Inline::<Bare>::open(&directory.path().join("bare.db"), true).unwrap();
    database
        .read(|connection| {
            assert_set(connection, "a database of one thread", &WRITER);
            Ok(())
        })
        .unwrap();
}
