//! Figures of an archive of a large database while edits go on: `MFPSYNC_CAMPAIGN=1`, in a release build to
//! mean something.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mfpsync_backup::archive::{self, Taken};
use mfpsync_backup::restore::Sought;
use mfpsync_storage::Store;
use mfpsync_storage::master::Master;

use crate::support::{author, helper, item, lock, manifest, master};

/// Items that make about 100 MB, with their history.
const ITEMS: u64 = 370_000;
const EDITS_A_SECOND: u32 = 200;

/// Edits at a steady rate; the slowest of them in microseconds, and how long the log became.
struct Load {
    stop: Arc<AtomicBool>,
    slowest: Arc<AtomicU64>,
    log: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<u64>,
}

impl Load {
    fn on(store: &Store<Master>) -> Self {
        let (stop, slowest, log) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (until, micros, bytes, store) = (stop.clone(), slowest.clone(), log.clone(), store.clone());
        let thread = std::thread::spawn(move || {
            let mut made = 0;
            let began = Instant::now();
            while !until.load(Ordering::Relaxed) {
                let number = made * 7_919 % ITEMS;
                let edit = item(
                    &format!("user/u{}", number / 100),
                    &format!("entry-{number}"),
                    "edited@example.com",
                );
                let sent = Instant::now();
                store
                    .write_and_wait(move |to| to.accept(&author(made), std::slice::from_ref(&edit)).map(drop))
                    .unwrap();
                micros.fetch_max(sent.elapsed().as_micros() as u64, Ordering::Relaxed);
                bytes.fetch_max(store.bytes().1, Ordering::Relaxed);
                made += 1;
                std::thread::sleep(
                    (began + Duration::from_secs(made) / EDITS_A_SECOND)
                        .saturating_duration_since(Instant::now()),
                );
            }
            made
        });
        Self { stop, slowest, log, thread }
    }

    fn end(self) -> (u64, u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let made = self.thread.join().unwrap();
        (made, self.slowest.load(Ordering::Relaxed), self.log.load(Ordering::Relaxed))
    }
}

/// Most memory of this process so far, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// Takes an archive while edits go on, waiting a little behind each portion, and prints what that cost.
fn take(how: &str, store: &Store<Master>, path: &Path, wait: Duration) -> Taken {
    let (load, before, began) = (Load::on(store), peak(), Instant::now());
    let unhurried = |_, _| {
        std::thread::sleep(wait);
        true
    };
    let taken = archive::take(store, &lock(), path, unhurried).unwrap();
    let took = began.elapsed();
    let (made, slowest, log) = load.end();
    let (database, archive) = (taken.database.bytes >> 20, taken.archive.bytes >> 20);
    println!(
        "{how}: {database} MiB to {archive} MiB in {took:?}; memory {before} MiB before, {} MiB most",
        peak()
    );
    println!("    edits meanwhile {made}, slowest {slowest} us, log {} KiB", log >> 10);
    assert!(log <= 16 << 20, "the log stays under its bound");
    taken
}

#[test]
fn an_archive_of_a_large_master_while_edits_go_on() {
    if std::env::var_os("MFPSYNC_CAMPAIGN").is_none() {
        println!("skipped: a campaign alone");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let store = master(&at("master.db"), ITEMS);

    let load = Load::on(&store);
    std::thread::sleep(Duration::from_secs(3));
    let (made, slowest, log) = load.end();
    println!("edits alone: {made}, slowest {slowest} us, log {} KiB", log >> 10);

    take("archive", &store, &at("archive.age"), Duration::ZERO);
    // As on a device that packs 5 MiB a second.
    let taken = take("slowly", &store, &at("archive.age"), Duration::from_millis(50));

    let began = Instant::now();
    let file = || std::fs::File::open(at("archive.age")).unwrap();
    let held =
        helper().prove(file(), &Sought::from(&taken), &taken.key, directory.path(), &|| false).unwrap();
    println!("proof: {:?}", began.elapsed());
    let began = Instant::now();
    let manifest = manifest(&taken, held);
    let restored =
        helper().restore(file(), &Sought::from(&manifest), &taken.key, directory.path(), &|| false).unwrap();
    println!("restore: {:?}", began.elapsed());
    assert_eq!(restored.held(), &manifest.held);
}
