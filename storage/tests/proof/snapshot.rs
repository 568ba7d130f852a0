//! A snapshot is the database as of one commit, whatever is committed, folded or begun while it is read.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mfpsync_storage::master::archived::{Archived, Contents};
use mfpsync_storage::master::{Master, MasterRead};
use mfpsync_storage::model::{ContentHash, Sequence, Value};
use mfpsync_storage::{Error, Snapshot, Store};
use proptest::prelude::*;

use crate::support::{author, founding, removal, write};

/// A founded master with some thousand pages in it.
pub(crate) fn master(path: &Path, items: u64) -> Store<Master> {
    let store = Store::<Master>::open(path, true, Box::new(|_| {})).unwrap();
    store.write_and_wait(|write| write.found(&founding())).unwrap();
    for from in (0..items).step_by(50) {
        store
            .write_and_wait(move |to| {
                (from..(from + 50).min(items)).try_for_each(|number| {
                    let mut item = write(&format!("item-{number}"), &[]);
                    item.fields.insert("bulk", Value::Bytes(vec![number as u8; 700]));
                    to.accept(&author(number + 1), &[item]).map(drop)
                })
            })
            .unwrap();
    }
    store
}

fn edit(store: &Store<Master>, number: u64, items: u64) {
    store
        .write_and_wait(move |to| {
            let id = format!("item-{}", number * 7919 % items);
            let item = if number.is_multiple_of(5) { removal(&id) } else { write(&id, &[("edit", "later")]) };
            to.accept(&author(10_000 + number), &[item]).map(drop)
        })
        .unwrap();
}

fn stand(read: &MasterRead<'_>) -> mfpsync_storage::Result<(Sequence, ContentHash)> {
    let content = read.content_hashes()?.into_values().fold(ContentHash::EMPTY, ContentHash::and);
    Ok((read.founded_head()?.sequence, content))
}

/// The snapshot as a file, and what that holds when SQLite has found nothing wrong with it.
pub(crate) fn file(snapshot: Snapshot<Master>, path: &Path) -> Contents {
    let bytes: Vec<u8> = snapshot.map(Result::unwrap).collect::<Vec<_>>().concat();
    std::fs::write(path, bytes).unwrap();
    let archived = Archived::open(path, || false).unwrap();
    archived.check().unwrap();
    archived.contents().unwrap()
}

#[test]
fn i_20_a_snapshot_is_one_revision_while_edits_and_folds_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = master(&directory.path().join("master.db"), 4_000);
    let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writing = {
        let (store, stop, made) = (store.clone(), stop.clone(), made.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                edit(&store, made.fetch_add(1, Ordering::Relaxed), 4_000);
            }
        })
    };
    let (mut snapshot, expected) = store.snapshot(stand).unwrap();
    let bytes = snapshot.bytes();
    let mut read = Vec::new();
    for portion in &mut snapshot {
        read.extend(portion.unwrap());
        // A page near the end has changed before its turn, some of them after a fold.
        let wait = made.load(Ordering::Relaxed) + 20;
        while made.load(Ordering::Relaxed) < wait {
            std::thread::yield_now();
        }
    }
    drop(snapshot);
    stop.store(true, Ordering::Relaxed);
    writing.join().unwrap();
    assert_eq!(read.len() as u64, bytes);
    assert!(store.figures().checkpoints()[0].1 > 0, "the log was folded meanwhile");
    assert!(store.bytes().1 <= 16 << 20, "the log stayed bounded");

    let path = directory.path().join("archived.db");
    std::fs::write(&path, read).unwrap();
    let archived = Archived::open(&path, || false).unwrap();
    archived.check().unwrap();
    let contents = archived.contents().unwrap();
    assert_eq!((contents.head.sequence, contents.content), expected);
    assert!(store.read_and_wait(mfpsync_storage::SHORT_READ, stand).unwrap().0 > expected.0);
}

/// Whether this process has a file open, below a directory, that has no name any more.
fn puts_aside(directory: &Path) -> bool {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .any(|file| file.starts_with(directory) && file.to_string_lossy().ends_with("-aside (deleted)"))
}

#[test]
fn there_is_one_snapshot_at_a_time_and_it_ends_with_its_reader() {
    let directory = tempfile::tempdir().unwrap();
    let store = master(&directory.path().join("master.db"), 400);
    let (snapshot, ()) = store.snapshot(|_| Ok(())).unwrap();
    assert!(matches!(store.snapshot(|_| Ok(())), Err(Error::Busy)));
    assert!(puts_aside(directory.path()));
    drop(snapshot);
    // Seen behind a commit, so at the latest when the next one is answered.
    (1..3).for_each(|number| edit(&store, number, 400));
    assert!(!puts_aside(directory.path()), "nothing is put aside for nobody");
    let (snapshot, expected) = store.snapshot(stand).unwrap();
    let contents = file(snapshot, &directory.path().join("archived.db"));
    assert_eq!((contents.head.sequence, contents.content), expected);
    store.close().unwrap();
    assert!(matches!(store.snapshot(|_| Ok(())), Err(Error::Closed)));
}

#[test]
fn a_snapshot_that_was_lost_says_so_and_the_next_one_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let store = master(&directory.path().join("master.db"), 400);
    let (mut snapshot, ()) = store.snapshot(|_| Ok(())).unwrap();
    snapshot.next().unwrap().unwrap();
    // Replication begins or ends.
    store.set_tap(None);
    assert!(matches!(snapshot.next(), Some(Err(Error::Busy))));
    assert!(snapshot.next().is_none());
    let (snapshot, expected) = store.snapshot(stand).unwrap();
    let contents = file(snapshot, &directory.path().join("archived.db"));
    assert_eq!((contents.head.sequence, contents.content), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_run_of_edits_between_portions_leaves_a_snapshot_as_it_was(
        edits in prop::collection::vec((0u8..4, 0u64..300), 1..60),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let store = master(&directory.path().join("master.db"), 300);
        let (mut snapshot, expected) = store.snapshot(stand).unwrap();
        let mut read = Vec::new();
        for (what, number) in edits {
            match what {
                0 => read.extend(snapshot.next().into_iter().flat_map(Result::unwrap)),
                1 => store.truncate_log(),
                _ => edit(&store, number, 300),
            }
        }
        read.extend(snapshot.flat_map(Result::unwrap));
        let path = directory.path().join("archived.db");
        std::fs::write(&path, read).unwrap();
        let archived = Archived::open(&path, || false).unwrap();
        archived.check().unwrap();
        let contents = archived.contents().unwrap();
        prop_assert_eq!((contents.head.sequence, contents.content), expected);
    }
}
