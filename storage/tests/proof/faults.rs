//! The writer and readers under load and on devices that fail: full, slow readers, many threads.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use mfpsync_storage::local::{EditContext, Local, LocalEdit, LocalWrite};
use mfpsync_storage::model::{Action, DeviceId, Fields, Incarnation, ItemKey, Value};
use mfpsync_storage::{Class, Error, Inline, Result, Store};

use crate::support::{context, skip};

const LONG: Duration = Duration::from_secs(30);

pub(crate) fn open(path: &Path) -> Store<Local> {
    let store = Store::open(path, true, Box::new(|_| ())).unwrap();
    store
        .write_and_wait(|write: &LocalWrite<'_>| write.initialise(Incarnation(1), DeviceId([1; 16])))
        .unwrap();
    store
}

/// In everybody's scope: there is no bound on what it holds.
fn common(id: &str) -> ItemKey {
    ItemKey::parse("shared", "ui.language", "", id).unwrap()
}

fn store(write: &LocalWrite<'_>, id: &str, bytes: usize) -> Result<()> {
    let fields: Fields = [("x", Value::Bytes(vec![7; bytes]))].into_iter().collect();
    let edit = LocalEdit { key: common(id), action: Action::Put(fields) };
    write.edit(vec![edit], &EditContext { actor: String::new(), ..context() }).map(drop)
}

fn holds(store: &Store<Local>, id: &str) -> bool {
    let key = common(id);
    store.read_and_wait(LONG, move |read| read.item(&key)).unwrap().is_some()
}

#[test]
fn every_writer_is_answered_and_a_failing_one_harms_no_neighbour() {
    let directory = tempfile::tempdir().unwrap();
    let published = Arc::new(AtomicU64::new(0));
    let count = published.clone();
    let seen: mfpsync_storage::Published<Local> = Box::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let store = Store::<Local>::open(&directory.path().join("local.db"), true, seen).unwrap();
    store.write_and_wait(|write| write.initialise(Incarnation(1), DeviceId([1; 16]))).unwrap();
    let (threads, rounds) = (16, 20);
    let start = Arc::new(Barrier::new(threads));
    let workers: Vec<_> = (0..threads)
        .map(|thread| {
            let (store, start) = (store.clone(), start.clone());
            std::thread::spawn(move || {
                start.wait();
                for round in 0..rounds {
                    let (id, fails) = (format!("{thread}-{round}"), (thread + round) % 3 == 0);
                    let result = store.write_and_wait(move |write| {
                        self::store(write, &id, 10)?;
                        if fails { Err(Error::ItemTooLarge) } else { Ok(()) }
                    });
                    assert_eq!(matches!(result, Err(Error::ItemTooLarge)), fails, "{result:?}");
                    assert_eq!(result.is_ok(), !fails);
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    for thread in 0..threads {
        for round in 0..rounds {
            assert_eq!(holds(&store, &format!("{thread}-{round}")), (thread + round) % 3 != 0);
        }
    }
    let commits = published.load(Ordering::Relaxed);
    assert!(commits >= 1 && commits <= 1 + (threads * rounds) as u64);
}

#[test]
fn a_group_shares_one_commit() {
    let directory = tempfile::tempdir().unwrap();
    let published = Arc::new(AtomicU64::new(0));
    let count = published.clone();
    let seen: mfpsync_storage::Published<Local> = Box::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let store = Store::<Local>::open(&directory.path().join("local.db"), true, seen).unwrap();
    store.write_and_wait(|write| write.initialise(Incarnation(1), DeviceId([1; 16]))).unwrap();
    // The writer is held inside one request while a hundred queue up behind it.
    let (gate, held) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (inside, entered) = (gate.clone(), held.clone());
    let (tell, told) = std::sync::mpsc::channel();
    let answer = tell.clone();
    store.write(
        mfpsync_storage::Priority::Sync,
        move |_| {
            entered.wait();
            inside.wait();
            Ok(())
        },
        move |result| answer.send(result).unwrap(),
    );
    held.wait();
    for n in 0..100 {
        let answer = tell.clone();
        let write = move |write: &LocalWrite<'_>| self::store(write, &n.to_string(), 1);
        store.write(mfpsync_storage::Priority::Panel, write, move |result| answer.send(result).unwrap());
    }
    gate.wait();
    (0..101).for_each(|_| told.recv().unwrap().unwrap());
    assert_eq!(published.load(Ordering::Relaxed), 3, "first, held, and all the others");
}

#[test]
fn a_closed_store_answers_so_and_its_log_is_folded_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("local.db");
    let store = open(&path);
    (0..50).for_each(|n| store.write_and_wait(move |write| self::store(write, &n.to_string(), 100)).unwrap());
    assert!(store.bytes().1 > 0);
    store.close().unwrap();
    assert!(matches!(store.write_and_wait(|_| Ok(())), Err(Error::Closed)));
    assert!(matches!(store.read_and_wait(LONG, |_| Ok(())), Err(Error::Closed)));
    assert_eq!(store.bytes().1, 0);
    store.close().unwrap();
    let reopened = Inline::<Local>::open(&path, false).unwrap();
    assert!(reopened.read(|read| read.item(&common("49"))).unwrap().is_some());
}

#[test]
fn a_scan_is_given_up_when_nobody_waits_for_it_or_the_store_closes() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("local.db"));
    store
        .write_and_wait(|write| (0..2_000).try_for_each(|n| self::store(write, &n.to_string(), 500)))
        .unwrap();
    for closes in [false, true] {
        let (stop, told) = (Arc::new(AtomicU64::new(0)), Arc::new(Barrier::new(2)));
        let (stopped, begun) = (stop.clone(), told.clone());
        let (tell, ended) = std::sync::mpsc::channel();
        let scan = move |read: &mfpsync_storage::local::LocalRead<'_>| {
            begun.wait();
            let end = std::time::Instant::now() + LONG;
            while std::time::Instant::now() < end {
                read.visible_hashes()?;
            }
            Ok(())
        };
        let nobody_waits = move || stopped.load(Ordering::Relaxed) == 1;
        store.read_unless(nobody_waits, LONG * 2, scan, move |result| tell.send(result).unwrap());
        told.wait();
        if closes {
            store.close().unwrap();
        } else {
            stop.store(1, Ordering::Relaxed);
        }
        assert!(ended.recv().unwrap().is_err(), "it went on to its end");
    }
}

#[test]
fn a_read_past_its_deadline_is_interrupted_and_the_reader_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("local.db"));
    store
        .write_and_wait(|write| (0..2_000).try_for_each(|n| self::store(write, &n.to_string(), 500)))
        .unwrap();
    for _ in 0..4 {
        let read = store.read_and_wait(Duration::from_millis(20), |read| -> Result<()> {
            loop {
                read.visible_hashes()?;
            }
        });
        assert!(matches!(read, Err(Error::Deadline)), "{read:?}");
        let late = store.read_and_wait(Duration::ZERO, |_| Ok(()));
        assert!(matches!(late, Err(Error::Deadline)));
        assert!(holds(&store, "1999"));
    }
}

#[test]
fn the_log_stays_bounded_beside_slow_readers() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("local.db"));
    store
        .write_and_wait(|write| (0..500).try_for_each(|n| self::store(write, &n.to_string(), 2_000)))
        .unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (store, stop) = (store.clone(), stop.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // Holds one state as long as it may.
                    let read = store.read_and_wait(Duration::from_millis(300), |read| -> Result<()> {
                        loop {
                            read.visible_hashes()?;
                        }
                    });
                    assert!(matches!(read, Err(Error::Deadline)), "{read:?}");
                }
            })
        })
        .collect();
    let mut longest = 0;
    for round in 0..40 {
        // About 1 MiB a commit.
        store
            .write_and_wait(move |write| {
                (0..100)
                    .try_for_each(|n| self::store(write, &(n + round % 5 * 100).to_string(), 6_000 + round))
            })
            .unwrap();
        longest = longest.max(store.bytes().1);
    }
    stop.store(true, Ordering::Relaxed);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    assert!(longest > 4 << 20, "the load was real: {longest}");
    assert!(longest <= 16 << 20, "{longest} bytes of log");
}

/// Runs the ignored test `name` of this binary in a mount namespace of its own, where `setup` may
/// mount what it likes. Needs root.
pub(crate) fn in_namespace(name: &str, setup: &str) {
    if !rustix::process::geteuid().is_root() {
        return skip("mounting needs root");
    }
    let directory = tempfile::tempdir().unwrap();
    let script = format!("{setup} && exec \"$1\" --exact {name} --ignored --nocapture");
    let output = std::process::Command::new("unshare")
        .args(["-m", "sh", "-c", &script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .env("MFPSYNC_MOUNT", directory.path())
        .output();
    match output {
        Err(error) => skip(&format!("unshare: {error}")),
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("unshare failed") => {
            skip("no mount namespaces here");
        }
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && text.contains("1 passed"), "{text}");
        }
    }
}

pub(crate) fn mounted() -> std::path::PathBuf {
    std::env::var_os("MFPSYNC_MOUNT").expect("runs in a mount namespace").into()
}

#[test]
fn a_full_device_is_reported_and_writing_resumes_by_itself() {
    in_namespace("faults::on_a_full_device", "mount -t tmpfs -o size=6m tmpfs \"$MFPSYNC_MOUNT\"");
}

#[test]
#[ignore = "runs in a mount namespace, started by the test of the full device"]
fn on_a_full_device() {
    let path = mounted();
    let store = open(&path.join("local.db"));
    let ballast = path.join("ballast");
    std::fs::write(&ballast, vec![0; 4 << 20]).unwrap();
    let mut kept = 0;
    let error = loop {
        let id = kept.to_string();
        match store.write_and_wait(move |write| self::store(write, &id, 60_000)) {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 100, "the device never got full");
    };
    assert!(matches!(error, Error::Full), "{error:?}");
    assert_eq!(error.class(), Class::Fault);
    // A small write still fits beside a large one that does not, though they share a group.
    let (tell, told) = std::sync::mpsc::channel();
    for (id, bytes) in [("large", 64_000), ("small", 1), ("larger", 65_000)] {
        let tell = tell.clone();
        let write = move |write: &LocalWrite<'_>| self::store(write, id, bytes);
        store.write(mfpsync_storage::Priority::Sync, write, move |result| tell.send((id, result)).unwrap());
    }
    for _ in 0..3 {
        let (id, result) = told.recv().unwrap();
        assert!(id == "small" || matches!(result, Err(Error::Full)), "{id}: {result:?}");
        assert_eq!(holds(&store, id), result.is_ok());
    }
    assert!((0..kept).all(|n| holds(&store, &n.to_string())), "what was acknowledged stays");
    std::fs::remove_file(&ballast).unwrap();
    store.write_and_wait(|write| self::store(write, "after", 60_000)).unwrap();
    store.close().unwrap();
    let reopened = Inline::<Local>::open(&path.join("local.db"), false).unwrap();
    assert!(reopened.read(|read| read.item(&common("after"))).unwrap().is_some());
}

#[test]
fn a_read_only_device_is_reported() {
    in_namespace("faults::on_a_read_only_device", "mount -t tmpfs -o size=6m tmpfs \"$MFPSYNC_MOUNT\"");
}

#[test]
#[ignore = "runs in a mount namespace, started by the test of the read-only device"]
fn on_a_read_only_device() {
    let path = mounted().join("local.db");
    let mut database = Inline::<Local>::open(&path, true).unwrap();
    database.write(|write| write.initialise(Incarnation(1), DeviceId([1; 16]))).unwrap();
    database.write(|write| store(write, "a", 1)).unwrap();
    drop(database);
    let mount = |options: &str| {
        let status = std::process::Command::new("mount").args(["-o", options]).arg(mounted()).status();
        assert!(status.unwrap().success(), "mount -o {options}");
    };
    let before = std::fs::read(&path).unwrap();
    mount("remount,ro");
    let refused = Store::<Local>::open(&path, true, Box::new(|_| ()));
    assert!(matches!(refused, Err(Error::ReadOnly)), "{refused:?}");
    mount("remount,rw");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert!(holds(&open(&path), "a"));
}
