//! An administrator who has nothing but the public tools opens an archive.

use std::path::Path;
use std::process::{Command, Stdio};

use mfpsync_backup::archive::{self, Key, Lock};
use mfpsync_backup::restore::Sought;

use crate::support::{PASSPHRASE, has, helper, identity_text, lock, master, output};

/// I-20: what they find is the revision that was archived.
#[test]
fn i_20_age_zstd_and_sqlite3_open_an_archive_without_us() {
    if ![has("age"), has("zstd"), has("sqlite3")].iter().all(|has| *has) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let store = master(&at("master.db"), 2_500);
    let taken = archive::take(&store, &lock(), &at("archive.age"), |_, _| true).unwrap();
    std::fs::write(at("identity"), identity_text()).unwrap();

    let mut age = Command::new("age")
        .args(["-d", "-i"])
        .args([at("identity"), at("archive.age")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let plain = std::fs::File::create(at("x.db")).unwrap();
    let zstd =
        Command::new("zstd").arg("-d").stdin(age.stdout.take().unwrap()).stdout(plain).status().unwrap();
    assert!(zstd.success() && age.wait().unwrap().success());

    let sqlite3 = |sql: &str| output(Command::new("sqlite3").arg(at("x.db")).arg(sql));
    assert_eq!(sqlite3("PRAGMA integrity_check"), "ok\n");
    assert_eq!(sqlite3("SELECT count(*) FROM items"), "2500\n");
    assert_eq!(sqlite3("SELECT sequence FROM head"), format!("{}\n", taken.head.sequence));
    assert_eq!(std::fs::metadata(at("x.db")).unwrap().len(), taken.database.bytes);
    assert!(!at("x.db-wal").exists(), "it stands alone");
}

#[test]
fn a_passphrase_seals_as_the_age_tool_expects_it() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let store = master(&at("master.db"), 100);
    let lock = Lock::passphrase(PASSPHRASE).unwrap();
    let taken = archive::take(&store, &lock, &at("archive.age"), |_, _| true).unwrap();
    let bytes = std::fs::read(at("archive.age")).unwrap();
    let prove = |key: &Key| {
        helper()
            .prove(bytes.as_slice(), &Sought::from(&taken), key, directory.path(), &|| false)
            .map(|held| held.at)
    };
    assert_eq!(prove(&Key::passphrase(PASSPHRASE).unwrap()).unwrap(), taken.head.cursor());
    let wrong = prove(&Key::passphrase("correct horse batterz").unwrap());
    assert!(matches!(wrong, Err(mfpsync_backup::restore::RestoreError::WrongKey)));
    if [has("age"), has("script")].iter().all(|has| *has) {
        // It asks a terminal for the passphrase.
        let decrypted = typed(&at("archive.age"), &at("x.zst"));
        assert!(decrypted, "age does not open it");
        assert_eq!(&std::fs::read(at("x.zst")).unwrap()[..4], b"\x28\xb5\x2f\xfd", "a zstd frame");
    }
}

fn typed(archive: &Path, to: &Path) -> bool {
    let command = format!("age -d -o {} {}", to.display(), archive.display());
    let mut script = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let typed = format!("{PASSPHRASE}\n");
    std::io::Write::write_all(&mut script.stdin.take().unwrap(), typed.as_bytes()).unwrap();
    script.wait().unwrap().success()
}

#[test]
fn an_archive_that_is_stopped_or_cannot_be_written_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let store = master(&at("master.db"), 100);
    let stopped = archive::take(&store, &lock(), &at("archive.age"), |_, _| false);
    assert!(matches!(stopped, Err(archive::ArchiveError::Stopped)));
    assert!(!at("archive.age").exists());
    let nowhere = archive::take(&store, &lock(), &at("none/archive.age"), |_, _| true);
    assert!(matches!(nowhere, Err(archive::ArchiveError::Write(_))));
    // The next one is not in the way of either.
    archive::take(&store, &lock(), &at("archive.age"), |_, _| true).unwrap();
}
