//! Files that are not what they should be are refused untouched, or set aside whole.

use std::path::{Path, PathBuf};

use mfpsync_storage::local::{Local, Membership};
use mfpsync_storage::master::Master;
use mfpsync_storage::model::{DeviceId, GroupId, Incarnation, PublicKey};
use mfpsync_storage::{Error, Inline, Store, set_aside};

use crate::support::{context, key, put};

fn local(path: &Path) {
    let mut database = Inline::<Local>::open(path, true).unwrap();
    database.write(|write| write.initialise(Incarnation(1), DeviceId([1; 16]))).unwrap();
    database.write(|write| write.edit(vec![put("a", &[("x", "1")])], &context())).unwrap();
}

/// Opening fails as told, in each way of opening, and leaves every byte as it was.
fn refused(path: &Path, create: &[bool], expected: impl Fn(&Error) -> bool) {
    let before = std::fs::read(path).ok();
    for create in create {
        let error = Store::<Local>::open(path, *create, Box::new(|_| ())).unwrap_err();
        assert!(expected(&error), "{error:?}");
        let error = Inline::<Local>::open(path, *create).unwrap_err();
        assert!(expected(&error), "{error:?}");
        assert_eq!(std::fs::read(path).ok(), before, "not a byte changed");
    }
}

#[test]
fn a_missing_file_is_not_created_unless_asked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("local.db");
    refused(&path, &[false], |error| matches!(error, Error::Missing(_)));
    assert!(!path.exists());
}

#[test]
fn an_empty_file_does_not_pass_for_a_database() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("local.db");
    std::fs::write(&path, b"").unwrap();
    refused(&path, &[false, true], |error| matches!(error, Error::Foreign(_)));
}

#[test]
fn a_database_whose_making_was_cut_short_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("local.db");
    for left_behind in ["local.db.new", "local.db.new-journal"] {
        std::fs::write(directory.path().join(left_behind), b"half a database").unwrap();
    }
    local(&path);
    let mut names: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.retain(|name| !["local.db-wal", "local.db-shm"].iter().any(|log| name == log));
    assert_eq!(names, ["local.db"]);
}

#[test]
fn a_column_of_another_type_is_damage_and_not_an_absent_value() {
    let damages = [
        ("device", "cursor", "'text'"),
        ("device", "last_operation", "'text'"),
        ("membership", "root_key", "7"),
    ];
    for (table, column, value) in damages {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("local.db");
        local(&path);
        let membership =
            Membership { group: GroupId([1; 16]), group_name: "g".to_owned(), root_key: PublicKey([2; 32]) };
        let mut database = Inline::<Local>::open(&path, false).unwrap();
        database.write(|write| write.join(&membership, Incarnation(2), None)).unwrap();
        drop(database);
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.pragma_update(None, "ignore_check_constraints", true).unwrap();
        connection.execute(&format!("UPDATE {table} SET {column} = {value}"), []).unwrap();
        drop(connection);
        let database = Inline::<Local>::open(&path, false).unwrap();
        let read = database.read(|read| Ok((read.device()?, read.membership()?)));
        let refused = read.expect_err(column);
        assert!(matches!(refused, Error::Record(_) | Error::Corrupt(_)), "{column}: {refused:?}");
    }
}

#[test]
fn the_other_kind_of_database_is_foreign() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.db");
    drop(Inline::<Master>::open(&path, true).unwrap());
    refused(&path, &[false, true], |error| matches!(error, Error::Foreign(_)));
}

#[test]
fn somebody_elses_database_is_foreign() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other.db");
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE cookies (name TEXT)").unwrap();
    drop(other);
    refused(&path, &[false, true], |error| matches!(error, Error::Foreign(_)));
}

#[test]
fn garbage_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("garbage.db");
    std::fs::write(&path, b"not a database at all, but long enough to have a header ".repeat(100)).unwrap();
    refused(&path, &[false, true], |error| matches!(error, Error::Corrupt(_)));
}

#[test]
fn a_newer_schema_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("newer.db");
    local(&path);
    let newer = rusqlite::Connection::open(&path).unwrap();
    // Whatever a later version decides about its log is none of our business either.
    newer.execute_batch("PRAGMA journal_mode = DELETE; PRAGMA user_version = 99").unwrap();
    drop(newer);
    refused(&path, &[false, true], |error| matches!(error, Error::Newer { found: 99, known: 1 }));
}

#[test]
fn setting_aside_keeps_every_file_and_replaces_none() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("local.db");
    let beside = |path: &Path, suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
    let write = |round: &str| {
        for suffix in ["", "-wal", "-shm"] {
            std::fs::write(beside(&path, suffix), format!("{round}{suffix}")).unwrap();
        }
    };
    let mut aside = Vec::new();
    for round in ["first", "second"] {
        write(round);
        aside.push((round, set_aside(&path).unwrap()));
        assert!(!path.exists() && !beside(&path, "-wal").exists());
    }
    // A cut in the middle left only a log behind; its name is taken too.
    std::fs::write(beside(&path, ".damaged-3-wal"), "half").unwrap();
    write("third");
    aside.push(("third", set_aside(&path).unwrap()));
    for (round, name) in aside {
        for suffix in ["", "-wal", "-shm"] {
            assert_eq!(std::fs::read_to_string(beside(&name, suffix)).unwrap(), format!("{round}{suffix}"));
        }
    }
    assert_eq!(std::fs::read_to_string(beside(&path, ".damaged-3-wal")).unwrap(), "half");
}

#[test]
fn a_new_database_begins_after_a_damaged_one_was_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("local.db");
    local(&path);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..100].fill(0xaa);
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(Inline::<Local>::open(&path, true), Err(Error::Corrupt(_))));
    let kept = set_aside(&path).unwrap();
    assert_eq!(std::fs::read(kept).unwrap(), bytes);
    let database = Inline::<Local>::open(&path, true).unwrap();
    assert!(database.read(|read| read.item(&key("a"))).unwrap().is_none());
}

#[test]
fn references_are_enforced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("local.db");
    local(&path);
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "foreign_keys", true).unwrap();
    connection.execute("INSERT INTO outbox_items (item, operation) VALUES (1, 1)", []).unwrap();
    assert!(connection.execute("DELETE FROM items WHERE number = 1", []).is_err());
    assert!(connection.execute("INSERT INTO outbox_items (item, operation) VALUES (99, 1)", []).is_err());
}
