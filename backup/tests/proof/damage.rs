//! Whatever is wrong with an archive is named, and nothing is left of it.

use std::io::{self, Read};

use mfpsync_backup::archive::{Key, pack};
use mfpsync_backup::manifest::{File, Manifest};
use mfpsync_backup::restore::{RestoreError, Sought};
use mfpsync_storage::model::Sequence;
use proptest::prelude::*;
use rusqlite::Connection;

use crate::support::{Archive, helper, identity, lock};

#[test]
fn an_archive_comes_back_whole() {
    let archive = Archive::small();
    let restored = archive.restore(&archive.bytes, &identity()).unwrap();
    assert_eq!(restored.held(), &archive.manifest.held);
    let head = restored.read(|read| read.founded_head()).unwrap();
    assert_eq!((head.cursor(), head.sequence), (archive.manifest.held.at, Sequence(300)));
    drop(restored);
    assert_eq!(std::fs::read_dir(archive.directory.path()).unwrap().count(), 1);
}

#[test]
fn a_cut_archive_is_truncated_and_a_longer_one_tampered_with() {
    let archive = Archive::small();
    let length = archive.bytes.len();
    for end in [0, 1, 20, 200, length / 2, length - 17, length - 1] {
        let error = archive.refused(&archive.bytes[..end]);
        assert!(matches!(error, RestoreError::Truncated), "cut at {end}: {error:?}");
    }
    let longer = [archive.bytes.as_slice(), b"x"].concat();
    assert!(matches!(archive.refused(&longer), RestoreError::Tampered));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1))]
    #[test]
    fn i_20_a_flipped_bit_anywhere_is_tampering(from in 0usize..97) {
        let archive = Archive::small();
        // Each region of some hundred bytes, from a beginning that differs.
        for at in (from..archive.bytes.len()).step_by(997) {
            let mut bytes = archive.bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            let error = archive.refused(&bytes);
            prop_assert!(matches!(error, RestoreError::Tampered), "byte {}: {:?}", at, error);
        }
    }
}

#[test]
fn another_key_is_wrong_only_if_the_archive_is_right() {
    let archive = Archive::small();
    let other = Key::passphrase("another passphrase").unwrap();
    let error = archive.restore(&archive.bytes, &other).map(drop).unwrap_err();
    assert!(matches!(error, RestoreError::WrongKey));
    let mut bytes = archive.bytes.clone();
    bytes[100] ^= 1;
    let error = archive.restore(&bytes, &other).map(drop).unwrap_err();
    assert!(matches!(error, RestoreError::Tampered));
}

/// An archive of any bytes as a database, and a manifest that names it rightly.
fn packed(like: &Archive, database: &[u8]) -> Archive {
    let portions = database.chunks(4096).map(|portion| Ok(portion.to_vec()));
    let (packed, bytes) = pack(database.len() as u64, portions, &lock(), Vec::new(), |_, _| true).unwrap();
    let manifest = Manifest { database: packed.database, archive: packed.archive, ..like.manifest.clone() };
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("archive.age"), &bytes).unwrap();
    Archive { directory, bytes, manifest }
}

/// The database inside an archive, changed by somebody who could sign.
fn changed(archive: &Archive, sql: &str) -> Archive {
    let restored = archive.restore(&archive.bytes, &identity()).unwrap();
    let path = archive.directory.path().join("restore-scratch/archived.db");
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    let database = std::fs::read(&path).unwrap();
    drop(restored);
    packed(archive, &database)
}

#[test]
fn what_is_inside_is_named_when_it_is_not_a_master_of_ours() {
    let archive = Archive::small();
    let refused = |sql: &str| {
        let changed = changed(&archive, sql);
        changed.refused(&changed.bytes)
    };
    assert!(matches!(refused("PRAGMA application_id = 1"), RestoreError::Foreign));
    let newer = refused("PRAGMA user_version = 2");
    assert!(matches!(newer, RestoreError::NewerSchema { found: 2, known: 1 }));
    let trigger = "CREATE TRIGGER t AFTER INSERT ON items BEGIN DELETE FROM members; END";
    assert!(matches!(refused(trigger), RestoreError::AlteredSchema));
    let row = refused("UPDATE changes SET touched = x'05'");
    assert!(matches!(row, RestoreError::Row(table) if table == "changes"));
    // Well-formed, and not what the manifest says.
    let other = refused("DELETE FROM items WHERE position = (SELECT max(position) FROM items)");
    assert!(matches!(other, RestoreError::Differs));
    let other = refused("UPDATE head SET sequence = sequence + 1");
    assert!(matches!(other, RestoreError::Differs));
}

#[test]
fn each_damaged_page_is_refused_or_holds_what_it_held() {
    let archive = Archive::small();
    let whole = changed(&archive, "SELECT 1");
    let restored = whole.restore(&whole.bytes, &identity()).unwrap();
    let path = whole.directory.path().join("restore-scratch/archived.db");
    let database = std::fs::read(path).unwrap();
    drop(restored);
    let mut refused = 0;
    for page in 0..database.len() / 4096 {
        let mut damaged = database.clone();
        damaged[page * 4096 + 5] ^= 0x55;
        damaged[page * 4096 + 4000] ^= 0x55;
        let damaged = packed(&archive, &damaged);
        match damaged.restore(&damaged.bytes, &identity()) {
            // In a place that no row uses.
            Ok(restored) => assert_eq!(restored.held(), &archive.manifest.held),
            Err(
                RestoreError::Damaged(_)
                | RestoreError::Row(_)
                | RestoreError::Differs
                | RestoreError::Foreign
                | RestoreError::AlteredSchema,
            ) => refused += 1,
            Err(other) => panic!("page {page}: {other:?}"),
        }
    }
    assert!(refused * 10 > database.len() / 4096 * 9, "most pages hold something");
}

#[test]
fn a_bomb_is_stopped_at_the_size_it_was_said_to_have() {
    let archive = Archive::small();
    let mut bomb = packed(&archive, &vec![0; 64 << 20]);
    assert!(bomb.bytes.len() < 64 << 10);
    bomb.manifest.database.bytes = 1 << 20;
    assert!(matches!(bomb.refused(&bomb.bytes), RestoreError::TooLarge));
}

#[test]
fn bytes_that_are_no_archive_are_called_so() {
    let archive = Archive::small();
    let text = b"a text, and no archive at all".repeat(40);
    let sha256 = {
        use sha2::Digest as _;
        sha2::Sha256::digest(&text).into()
    };
    let manifest =
        Manifest { archive: File { bytes: text.len() as u64, sha256 }, ..archive.manifest.clone() };
    let archive = Archive { manifest, ..archive };
    assert!(matches!(archive.refused(&text), RestoreError::NotAnArchive));
}

/// A connection that breaks.
struct Breaking<'a>(&'a [u8]);

impl Read for Breaking<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.0.read(into)? {
            0 => Err(io::ErrorKind::ConnectionReset.into()),
            read => Ok(read),
        }
    }
}

#[test]
fn a_source_that_breaks_and_a_person_who_stops_are_told_apart() {
    let archive = Archive::small();
    let sought = Sought::from(&archive.manifest);
    let below = archive.directory.path();
    let broken = helper().restore(Breaking(&archive.bytes[..5_000]), &sought, &identity(), below, &|| false);
    assert!(matches!(broken, Err(RestoreError::Source(_))));
    let stopped = helper().restore(archive.bytes.as_slice(), &sought, &identity(), below, &|| true);
    assert!(matches!(stopped, Err(RestoreError::Stopped)));
    assert_eq!(std::fs::read_dir(below).unwrap().count(), 1);
}
