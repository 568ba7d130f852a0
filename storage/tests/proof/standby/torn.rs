//! Files that were cut short, changed, or found no room: one whole position, the last one or the one before.

use std::io::Write;

use super::*;
use crate::faults::{in_namespace, mounted};

#[test]
fn a_log_cut_at_any_byte_of_the_last_transaction_leads_to_the_one_before() {
    let directory = tempfile::tempdir().unwrap();
    let (last, [_, before, after]) = with_log(directory.path());
    assert_at(&mut Standby::open(directory.path()).unwrap(), &after);
    for length in last.rev() {
        open_file(&log(directory.path())).set_len(length).unwrap();
        let mut copy = Standby::open(directory.path()).unwrap();
        assert_eq!(copy.position(), Some(before.position), "cut at {length}");
        if length.is_multiple_of(512) {
            assert_at(&mut copy, &before);
        }
    }
}

#[test]
fn what_is_torn_is_written_over_and_the_copy_goes_on() {
    for torn in [1, 40, 4_150, 8_000] {
        let directory = tempfile::tempdir().unwrap();
        let (last, [_, before, after]) = with_log(directory.path());
        open_file(&log(directory.path())).set_len(last.end - torn).unwrap();
        let mut copy = Standby::open(directory.path()).unwrap();
        assert_at(&mut copy, &before);
        feed(&mut copy, &after).unwrap();
        drop(copy);
        let mut copy = Standby::open(directory.path()).unwrap();
        assert_at(&mut copy, &after);
        copy.close().unwrap();
        assert_eq!(std::fs::read(database(directory.path())).unwrap(), after.pages.as_flattened());
    }
}

#[test]
fn a_byte_changed_anywhere_in_the_last_transaction_voids_it() {
    let directory = tempfile::tempdir().unwrap();
    let (last, [_, before, after]) = with_log(directory.path());
    let file = open_file(&log(directory.path()));
    for at in last {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1 << (at % 8)], at).unwrap();
        let copy = Standby::open(directory.path()).unwrap();
        assert_eq!(copy.position(), Some(before.position), "changed at {at}");
        file.write_all_at(&byte, at).unwrap();
    }
    assert_at(&mut Standby::open(directory.path()).unwrap(), &after);
}

#[test]
fn a_log_whose_header_is_damaged_is_as_none() {
    let directory = tempfile::tempdir().unwrap();
    let (_, [first, ..]) = with_log(directory.path());
    let file = open_file(&log(directory.path()));
    // Bytes 12 to 15 count the log's restarts, for SQLite alone; the checksum has them.
    for at in 0..32 {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
        assert_at(&mut Standby::open(directory.path()).unwrap(), &first);
        file.write_all_at(&byte, at).unwrap();
    }
}

#[test]
fn a_fold_cut_anywhere_ends_at_the_same_position() {
    let directory = tempfile::tempdir().unwrap();
    let (_, [_, _, after]) = with_log(directory.path());
    let place = directory.path().join("standby.pos");
    let read = |path: &Path| std::fs::read(path).unwrap();
    let files = || (read(&database(directory.path())), read(&log(directory.path())), read(&place));
    let (database_before, log_before, place_before) = files();
    Standby::open(directory.path()).unwrap().close().unwrap();
    let (database_after, log_after, place_after) = files();
    assert!(log_after.is_empty() && place_after != place_before);
    // Half of the pages folded, and one of them torn.
    let mut half = database_before.clone();
    half[..PAGE_BYTES + 700].copy_from_slice(&database_after[..PAGE_BYTES + 700]);
    for (step, (database_bytes, log_bytes, place_bytes)) in [
        (&database_before, &log_before, &place_before),
        (&database_before, &log_before, &place_after),
        (&half, &log_before, &place_after),
        (&database_after, &log_before, &place_after),
        (&database_after, &log_after, &place_after),
    ]
    .into_iter()
    .enumerate()
    {
        let cut = tempfile::tempdir().unwrap();
        std::fs::write(database(cut.path()), database_bytes).unwrap();
        std::fs::write(log(cut.path()), log_bytes).unwrap();
        std::fs::write(cut.path().join("standby.pos"), place_bytes).unwrap();
        std::fs::write(cut.path().join("standby.pos.tmp"), &place_bytes[..place_bytes.len() / 2]).unwrap();
        println!("step {step}");
        let mut copy = Standby::open(cut.path()).unwrap();
        assert_at(&mut copy, &after);
        copy.close().unwrap();
        assert_at(&mut Standby::open(cut.path()).unwrap(), &after);
    }
}

#[test]
fn a_full_device_leaves_the_copy_as_it_was_and_it_goes_on_when_there_is_room() {
    in_namespace("standby::torn::on_a_full_device", "mount -t tmpfs -o size=6m tmpfs \"$MFPSYNC_MOUNT\"");
}

#[test]
#[ignore = "runs in a mount namespace, started by the test of the full device"]
fn on_a_full_device() {
    let directory = mounted();
    let (_, [_, _, after]) = with_log(&directory);
    let large = Source::new().after("INSERT INTO t (x) VALUES (randomblob(2000000))");
    let mut copy = Standby::open(&directory).unwrap();
    let ballast = directory.join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[7; 512]).is_ok() {}
    for _ in 0..2 {
        let fed = feed(&mut copy, &large);
        assert!(matches!(fed, Err(Error::Full)), "{fed:?}");
        assert_at(&mut copy, &after);
        drop(copy);
        copy = Standby::open(&directory).unwrap();
        // Where the copy stands is noted before anything is folded.
        let folded = copy.rest();
        assert!(matches!(folded, Err(Error::Full)), "{folded:?}");
        assert_at(&mut copy, &after);
    }
    drop(file);
    std::fs::remove_file(ballast).unwrap();
    feed(&mut copy, &large).unwrap();
    assert_at(&mut copy, &large);
    copy.close().unwrap();
    assert_eq!(std::fs::read(database(&directory)).unwrap(), large.pages.as_flattened());
}

/// SQLite folds up to there, and what the copy lacks then is not what its position says.
#[test]
fn a_bit_that_flips_in_the_log_of_an_open_copy_is_found() {
    for folded in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let (last, [_, _, after]) = with_log(directory.path());
        let mut copy = Standby::open(directory.path()).unwrap();
        let file = open_file(&log(directory.path()));
        let (at, mut byte) = (last.start + 2_000, [0]);
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 4], at).unwrap();
        if folded {
            copy.rest().unwrap();
        }
        assert_ne!(copy.prover(|| false).unwrap().digest().unwrap(), after.position.digest);
        assert!(!copy.verify(&|| false).unwrap());
        assert_eq!(copy.position(), None);
        feed(&mut copy, &after).unwrap();
        assert_at(&mut copy, &after);
    }
}

#[test]
fn a_damaged_position_file_costs_a_comparison_and_no_copy() {
    type Harm = fn(&mut Vec<u8>);
    let harms: [Harm; 4] = [
        |bytes| bytes.clear(),
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes[9] ^= 1,
        |bytes| bytes.fill(0),
    ];
    for (harm, closed) in harms.into_iter().flat_map(|harm| [(harm, false), (harm, true)]) {
        let directory = tempfile::tempdir().unwrap();
        let (_, [_, _, after]) = with_log(directory.path());
        if closed {
            Standby::open(directory.path()).unwrap().close().unwrap();
        }
        let place = directory.path().join("standby.pos");
        let mut bytes = std::fs::read(&place).unwrap();
        harm(&mut bytes);
        std::fs::write(&place, bytes).unwrap();
        let mut copy = Standby::open(directory.path()).unwrap();
        // Its log says where it stands; without, nothing does in a database like this one.
        assert_eq!(copy.position(), (!closed).then_some(after.position));
        assert_eq!(copy.pages(), after.position.pages, "there is nothing to compare");
        feed(&mut copy, &after).unwrap();
        assert_at(&mut copy, &after);
        drop(copy);
        let mut copy = Standby::open(directory.path()).unwrap();
        assert_at(&mut copy, &after);
        copy.close().unwrap();
        assert_eq!(std::fs::read(database(directory.path())).unwrap(), after.pages.as_flattened());
    }
}
