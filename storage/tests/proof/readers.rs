//! Who waits for whom among the readers of one database.

use std::sync::mpsc::channel;
use std::time::Duration;

use mfpsync_storage::{Error, SHORT_READ};

use crate::faults::open;

/// Only so that a test that fails ends.
const PATIENCE: Duration = Duration::from_secs(20);

/// Proves I-30: more scans are asked for than there are connections, none of them comes to an end, and
/// what somebody waits for is read nevertheless.
#[test]
fn a_short_read_is_answered_while_scans_hold_what_they_may() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("local.db"));
    let (begin, begun) = channel();
    let (done, ended) = channel();
    let mut holds = Vec::new();
    for _ in 0..3 {
        let (release, held) = channel::<()>();
        holds.push(release);
        let (begin, done) = (begin.clone(), done.clone());
        store.read(
            PATIENCE * 4,
            move |_| {
                begin.send(()).unwrap();
                held.recv_timeout(PATIENCE).map_err(|_| Error::Deadline)
            },
            move |result| done.send(result).unwrap(),
        );
    }
    begun.recv().unwrap();
    store.read_and_wait(SHORT_READ, |read| read.device()).unwrap();
    assert!(ended.try_recv().is_err(), "a scan ended, so nothing was proven");

    holds.iter().for_each(|hold| hold.send(()).unwrap());
    (0..3).for_each(|_| ended.recv().unwrap().unwrap());
}
