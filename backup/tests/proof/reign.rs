//! A restored database serves only when a reign has begun over it, with all that happened since.

use std::collections::BTreeMap;
use std::path::Path;

use mfpsync_storage::master::{Master, Reapplied, Reign, Since};
use mfpsync_storage::model::{
    DeviceId, Epoch, ErasedMark, Promotion, PromotionReason, Scope, Sequence, erasure_key,
};
use mfpsync_storage::{Inline, SHORT_READ, Store};

use crate::support::{
    Archive, GROUP, SERVER, author, identity, issuer, issuing, item, master, member, public, root, signed,
};

/// The reign after the archive's, or one that begins elsewhere.
fn reign(archive: &Archive, number: u64, sequence: Sequence) -> Reign {
    let at = archive.manifest.held.at;
    let parent = mfpsync_storage::model::Parent {
        epoch: at.epoch,
        sequence,
        chain: at.chain,
        transaction: 0,
        page_digest: [0; 16],
    };
    let promotion = Promotion {
        group: GROUP,
        epoch: Epoch { number, nonce: [3; 16] },
        parent: Some(parent),
        ends: Vec::new(),
        device: SERVER,
        operator: "tanaka".to_owned(),
        reason: PromotionReason::Restored,
        made_at: 9_000,
    };
    let body = promotion.body();
    Reign {
        promotion: signed(&issuing(), promotion, body),
        issuer: issuer(),
        member: member(SERVER, 2, false),
        known: sequence,
    }
}

fn begin(database: &Path, reign: &Reign, since: &Since) -> mfpsync_storage::Result<Reapplied> {
    let mut master = Inline::<Master>::open(database, false)?;
    let reapplied = master.write(|write| write.begin_restored_reign(reign, since, 10_000))?;
    master.close()?;
    Ok(reapplied)
}

/// The master that lives on: two devices and a user more than when it was archived, one released, one erased.
fn archived() -> (tempfile::TempDir, Store<Master>, Archive) {
    let directory = tempfile::tempdir().unwrap();
    let store = master(&directory.path().join("master.db"), 300);
    store.write_and_wait(|to| to.put_member(&member(DeviceId([2; 16]), 1, false))).unwrap();
    let archive = Archive::of(&store);
    (directory, store, archive)
}

/// I-18, I-19.
#[test]
fn i_18_i_19_a_restored_master_begins_anew_and_nothing_that_was_undone_returns() {
    let (directory, store, archive) = archived();
    let erased = Scope::user("u1").unwrap();
    store
        .write_and_wait(|to| {
            to.put_member(&member(DeviceId([2; 16]), 2, true))?;
            to.accept(&author(999), &[item("user/u2", "later", "later@example.com")]).map(drop)
        })
        .unwrap();
    let mark = ErasedMark { readmitted: false, at: 1, generation: 1 };
    let heard = BTreeMap::from([(erasure_key(GROUP, &erased).unwrap().id, mark)]);
    let since = store.read_and_wait(SHORT_READ, Since::of).unwrap();
    let since = since.and(Since { erasures: heard, ..Since::default() });

    let manifest = &archive.manifest;
    manifest.check_group(GROUP, &public(&root())).unwrap();
    let at = manifest.held.at.sequence;
    let restored = archive.restore(&archive.bytes, &identity()).unwrap();
    let place = directory.path().join("restored.db");
    restored.stage(&place).unwrap();
    let reapplied = begin(&place, &reign(&archive, 2, at), &since).unwrap();
    assert_eq!((reapplied.releases, reapplied.erasures, reapplied.items), (1, 1, 100));

    let mut served = Inline::<Master>::open(&place, false).unwrap();
    let revision = served.write(|to| to.accept(&author(1), &[item("user/u2", "new", "x")])).unwrap();
    assert_eq!(revision.epoch, 2);
    assert!(revision.sequence > at);
    served
        .read(|read| {
            assert!(!read.has_items(&erased)?);
            assert!(read.erasure(GROUP, &erased)?.is_some_and(|erasure| !erasure.mark.readmitted));
            let rows = read.members()?;
            assert!(rows.iter().any(|row| row.record.device == DeviceId([2; 16]) && row.record.released));
            let numbers: Vec<u64> = read.lineage()?.iter().map(|record| record.record.epoch.number).collect();
            assert_eq!(numbers, [1, 2]);
            Ok(())
        })
        .unwrap();
    let bytes = std::fs::read(&place).unwrap();
    assert!(!bytes.windows(15).any(|window| window == b"101@example.com"), "an erased user's value is there");
    assert!(bytes.windows(15).any(|window| window == b"201@example.com"), "another user's value is not");
    assert_eq!(std::fs::read_dir(archive.directory.path()).unwrap().count(), 1);
}

/// I-18: before the rename nothing is there, after it everything.
#[test]
fn i_18_a_restore_that_ends_early_leaves_everything_as_it_was() {
    let (directory, store, archive) = archived();
    let path = directory.path().join("master.db");
    let at = archive.manifest.held.at.sequence;
    // A reign that begins elsewhere.
    let staged = directory.path().join("staged.db");
    archive.restore(&archive.bytes, &identity()).unwrap().stage(&staged).unwrap();
    assert!(begin(&staged, &reign(&archive, 2, Sequence(1)), &Since::default()).is_err());
    // A place that is taken.
    assert!(archive.restore(&archive.bytes, &identity()).unwrap().stage(&path).is_err());
    // A decision that is never made.
    drop(archive.restore(&archive.bytes, &identity()).unwrap());
    // A process that was killed in the midst of it, and the next attempt.
    let left = archive.directory.path().join("restore-scratch");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("master.db.new"), b"half").unwrap();
    drop(archive.restore(&archive.bytes, &identity()).unwrap());
    assert!(!left.exists());

    let head = store.read_and_wait(SHORT_READ, |read| read.founded_head()).unwrap();
    assert_eq!((head.epoch.number, head.sequence), (1, at));
}

#[test]
fn the_same_archive_restored_twice_makes_two_reigns_that_are_told_apart() {
    let archive = Archive::small();
    let at = archive.manifest.held.at.sequence;
    let one = reign(&archive, 2, at);
    let mut other = one.clone();
    other.promotion.record.epoch.nonce = [4; 16];
    let epochs = [one, other].map(|reign| {
        let restored = archive.restore(&archive.bytes, &identity()).unwrap();
        let place = archive.directory.path().join("place.db");
        restored.stage(&place).unwrap();
        begin(&place, &reign, &Since::default()).unwrap();
        let epoch =
            Inline::<Master>::open(&place, false).unwrap().read(|read| read.founded_head()).unwrap().epoch;
        std::fs::remove_file(&place).unwrap();
        epoch
    });
    assert_ne!(epochs[0], epochs[1]);
    assert_eq!(epochs[0].number, epochs[1].number);
}
