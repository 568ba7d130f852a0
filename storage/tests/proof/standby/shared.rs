//! A copy that is read while it changes, and other programs that come near it.

use std::process::{Command, Output};

use super::*;
use crate::locks::locks;
use crate::support::skip;

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

fn stock(directory: &Path, sql: &str) -> Option<Output> {
    match Command::new("sqlite3").arg(database(directory)).arg(sql).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            skip("there is no sqlite3");
            None
        }
        output => Some(output.unwrap()),
    }
}
