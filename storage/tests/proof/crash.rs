//! Power cuts as far as a process can play them: the writer is killed at any moment, and what it
//! had acknowledged is there when the file is opened again.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use mfpsync_storage::Inline;
use mfpsync_storage::local::Local;

use crate::faults::open;
use crate::support::{context, key, put};

const ROUNDS: usize = 20;

#[test]
#[ignore = "the child of the test below; writes until it is killed"]
fn writes_until_it_is_killed() {
    let path = std::env::var_os("MFPSYNC_DATABASE").expect("started by its parent");
    let store = open(Path::new(&path));
    let first: usize = std::env::var("MFPSYNC_FIRST").expect("started by its parent").parse().unwrap();
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let store = store.clone();
            std::thread::spawn(move || {
                for n in (first + worker..).step_by(4) {
                    let write = move |write: &mfpsync_storage::local::LocalWrite<'_>| {
                        write.edit(vec![put(&n.to_string(), &[("x", &"y".repeat(n % 3_000))])], &context())
                    };
                    store.write_and_wait(write).unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "acknowledged {n}").unwrap();
                    out.flush().unwrap();
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
}

/// Proves I-01 and I-02.
#[test]
fn every_acknowledged_row_survives_a_kill_at_any_moment() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("local.db");
    let mut acknowledged: Vec<usize> = Vec::new();
    for round in 0..ROUNDS {
        let first = round * 1_000_000;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::writes_until_it_is_killed", "--ignored", "--nocapture"])
            .env("MFPSYNC_DATABASE", &path)
            .env("MFPSYNC_FIRST", first.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // A different number of acknowledgements each round: another moment of the commit each time.
        let enough = 1 + (round * 37) % 150;
        let told = |line: String| line.strip_prefix("acknowledged ").map(|n| n.parse::<usize>().unwrap());
        acknowledged.extend(lines.by_ref().filter_map(told).take(enough));
        child.kill().unwrap();
        acknowledged.extend(lines.filter_map(told));
        child.wait().unwrap();
        check(&path, &acknowledged);
    }
    assert!(acknowledged.len() >= ROUNDS);
}

fn check(path: &Path, acknowledged: &[usize]) {
    let database = Inline::<Local>::open(path, false).unwrap();
    for n in acknowledged {
        let item = database.read(|read| read.item(&key(&n.to_string()))).unwrap();
        assert!(item.is_some(), "row {n} was acknowledged and is gone");
    }
    drop(database);
    let connection = rusqlite::Connection::open(path).unwrap();
    let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    let orphans: i64 =
        connection.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0)).unwrap();
    assert_eq!(orphans, 0);
}
