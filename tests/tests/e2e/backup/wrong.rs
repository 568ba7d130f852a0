//! Shares and archives that are not as they should be.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use mfpsync_proto::panel::Role;
use mfpsync_tests::{Mishap, Relay, Way, rounds, running, skip};
use serde_json::Value as Json;

use super::{Office, count, device, idle, listed, ok, refused, sound, written};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_share_is_said_and_archives_stay() {
    let (mut office, id) = Office::with_archive(0, 0..3).await;
    office.fleet.server.log.expect("the group's data is not being backed up");
    let server = &office.fleet.server;
    // A folder that cannot be written, a share that is not there.
    for (share, says) in [("ro", "does not allow it"), ("nowhere", "no such share")] {
        ok(server, &["set", "--share", share]);
        ok(server, &["set", "--password-file", &office.password()]);
        let refusal = refused(server, &["now"]);
        assert!(refusal.contains(says), "{share}: {refusal}");
    }
    office.set(server);
    let status = ok(server, &["status"]);
    assert_eq!((&status["has_password"], &status["newest"]["id"]), (&true.into(), &id.as_str().into()));
    assert!(status["failure"]["text"].as_str().unwrap().contains("no such share"), "{status}");
    // One that is altered where it lies.
    change(&office.folder("backup").await.join(format!("{id}.archive")), |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    for command in
        [&["drill"][..], &["drill", "--key", &office.key()], &["restore", "--key", &office.key(), "--yes"]]
    {
        let refusal = refused(server, command);
        assert!(refusal.contains("tampered"), "{command:?}: {refusal}");
    }
    assert!(ok(server, &["status"])["drill"]["wrong"].as_str().unwrap().contains("tampered"));
    // The next one is good, and says so.
    let made = ok(server, &["now"]);
    let status = ok(server, &["status"]);
    assert_eq!((&status["newest"]["id"], &status["failure"]), (&made["archive"]["id"], &Json::Null));
    // Nobody answers.
    office.share.stop().unwrap();
    let refusal = refused(&office.fleet.server, &["list"]);
    assert!(refusal.contains("nobody answers"), "{refusal}");
    office.fleet.server.log.expect("came to nothing");
}

/// Whom the share `noperm` takes everybody for.
const NOBODY: u32 = 65_534;

/// An archive of the server, and its files on the share.
async fn another(office: &Office, item: u32) -> (String, PathBuf, PathBuf) {
    let server = &office.fleet.server;
    written(server, item).await;
    let id = ok(server, &["now"])["archive"]["id"].as_str().unwrap().to_owned();
    let folder = office.folder("backup").await;
    let [archive, manifest] = ["archive", "manifest"].map(|ending| folder.join(format!("{id}.{ending}")));
    (id, archive, manifest)
}

fn change(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(file).unwrap();
    change(&mut bytes);
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_restored_only_if_all_of_it_is_what_it_should_be_and_nothing_is_removed_meanwhile() {
    let (mut office, good) = Office::with_archive(0, 0..3).await;
    office.fleet.server.log.expect("came to nothing");
    office.fleet.server.log.expect("old archives were not removed");
    office.fleet.server.log.expect("the group's data is not being backed up");
    let server = &office.fleet.server;
    ok(server, &["set", "--keep-newest", "9"]);
    let (broken, _, of_broken) = another(&office, 10).await;
    let (newer, _, of_newer) = another(&office, 11).await;
    let (lost, _, of_lost) = another(&office, 12).await;
    let (without, no_archive, _) = another(&office, 13).await;
    let (cut, of_cut, _) = another(&office, 14).await;
    change(&of_broken, |bytes| *bytes.last_mut().unwrap() ^= 1);
    // The version is the byte behind the four of the magic.
    change(&of_newer, |bytes| bytes[4] += 1);
    std::fs::remove_file(of_lost).unwrap();
    std::fs::remove_file(no_archive).unwrap();
    change(&of_cut, |bytes| bytes.truncate(bytes.len() - 1));

    let seen = ok(server, &["list"]);
    let archives: Vec<_> =
        seen["archives"].as_array().unwrap().iter().map(|it| (&it["id"], &it["complete"])).collect();
    let complete = [(&cut, false), (&without, false), (&good, true)]
        .map(|(id, complete)| (Json::from(id.as_str()), Json::from(complete)));
    assert_eq!(archives, complete.each_ref().map(|(id, complete)| (id, complete)), "{seen}");
    let unusable = seen["unusable"].as_array().unwrap();
    for (id, why) in [(&newer, "newer than"), (&broken, "tampered with")] {
        let why_not = |it: &&Json| it["id"] == **id && it["why"].as_str().unwrap().contains(why);
        assert!(unusable.iter().any(|it| why_not(&it)), "{id}, {why}: {seen}");
    }
    assert_eq!(unusable.len(), 2, "{seen}");

    let key = office.key();
    let before = server.status().await.unwrap().group.unwrap();
    for (id, says) in [
        (&broken, "tampered with"),
        (&newer, "newer than"),
        (&lost, "there is no archive"),
        (&without, "truncated"),
        (&cut, "truncated"),
    ] {
        for command in
            [&["restore", id, "--key", &key, "--accept-loss-of", "100", "--yes"][..], &["drill", id]]
        {
            let refusal = refused(server, command);
            assert!(refusal.contains(says), "{command:?}: {refusal}");
        }
    }
    assert_eq!(server.status().await.unwrap().group.unwrap().epoch, before.epoch);
    assert!(ok(server, &["status"])["drill"]["wrong"].as_str().unwrap().contains("truncated"));

    // What is not as it was put there is missed, and then nothing is removed.
    ok(server, &["set", "--keep-newest", "1", "--keep-days", "0", "--keep-weeks", "0", "--keep-months", "0"]);
    let folder = office.folder("backup").await;
    let names = || {
        let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.collect::<BTreeSet<_>>()
    };
    let (there, last) = (names(), another(&office, 15).await);
    let status = ok(server, &["status"]);
    assert!(status["not_removed"].as_str().unwrap().contains("are not in the folder"), "{status}");
    assert_eq!((&status["newest"]["id"], &status["failure"]), (&last.0.into(), &Json::Null));
    assert_eq!((names().is_superset(&there), names().len()), (true, there.len() + 2));

    // Without a name the newest that is whole is taken.
    let newest = ok(server, &["preview", "--key", &key]);
    assert_eq!(newest["archive"]["id"], ok(server, &["status"])["newest"]["id"]);
    ok(server, &["set", "--keep-newest", "2"]);
    let made = ok(server, &["now", "--accept-missing"]);
    assert_eq!(made["removed"], 1, "{made}");
    assert!(
        names().iter().any(|name| name.to_str().unwrap().starts_with(&broken)),
        "it is nobody's to remove"
    );
}

/// Two servers of one group, as after a restore on a new machine while the old one only seemed to be lost, write to
/// one folder at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn two_servers_that_write_to_one_folder_at_once_spoil_nothing() {
    let (mut office, _) = Office::with_archive(0, 0..10).await;
    let [kit, passphrase] = office.kit_files();
    let mut new = device("new");
    for log in [&mut new.log, &mut office.fleet.server.log] {
        log.expect("old archives were not removed");
        log.expect("came to nothing");
    }
    office.fleet.server.stop().await.unwrap();
    new.start().await.unwrap();
    office.set(&new);
    let by_kit = ["--kit", &*kit, "--kit-passphrase-file", &*passphrase];
    ok(&new, &[&["restore", "--key", &*office.key(), "--yes"][..], &by_kit].concat());
    running(&new, Role::Server).await.unwrap();
    office.fleet.server.start().await.unwrap();
    running(&office.fleet.server, Role::ServerClient).await.unwrap();
    let recipient = ok(&office.fleet.server, &["status"])["recipients"][0].as_str().unwrap().to_owned();
    ok(&new, &["set", "--recipient", &recipient]);
    let both = [&office.fleet.server, &new];
    for device in both {
        ok(
            device,
            &["set", "--keep-newest", "2", "--keep-days", "0", "--keep-weeks", "0", "--keep-months", "0"],
        );
    }
    let folder = office.folder("backup").await;
    let mut last = BTreeSet::new();
    for _ in 0..rounds(4, 40) {
        for device in both {
            ok(device, &["now", "--no-wait"]);
        }
        last.clear();
        for device in both {
            idle(device).await;
            let job = &ok(device, &["status"])["job"];
            assert_eq!(job["failure"], Json::Null);
            last.insert(job["archive"]["id"].as_str().unwrap().to_owned());
            sound(&folder);
        }
    }
    let there = sound(&folder);
    // Of several that were made in one second any two may stay.
    assert!(last.len() == 2 && there.len() >= 2, "{there:?}");
    for device in both {
        assert_eq!(listed(device), there);
        // Whose the newest one is does not matter to either.
        ok(device, &["drill", "--key", &office.key()]);
    }
    let parts = std::fs::read_dir(&folder)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|ending| ending == "part"));
    assert_eq!(parts.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_lets_nothing_be_removed_is_said_and_archives_go_on() {
    if !rustix::process::geteuid().is_root() {
        return skip("may not act as two users");
    }
    let mut office = Office::open(0).await;
    office.fleet.server.log.expect("old archives were not removed");
    let folder = office.folder("noperm").await;
    std::fs::create_dir(&folder).unwrap();
    // Everybody may write there; what somebody has written, they alone rename and remove.
    std::fs::set_permissions(&folder, Permissions::from_mode(0o1777)).unwrap();
    let mut made = vec![office.archived("noperm", 0..3).await];
    let server = &office.fleet.server;
    ok(server, &["set", "--keep-newest", "1", "--keep-days", "0", "--keep-weeks", "0", "--keep-months", "0"]);
    for item in 10..12 {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            chown(&path, Some(0), None).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        }
        written(server, item).await;
        let job = ok(server, &["now"]);
        assert_eq!((&job["failure"], &job["removed"]), (&Json::Null, &0.into()), "{job}");
        made.push(job["archive"]["id"].as_str().unwrap().to_owned());
        made.sort();
        let status = ok(server, &["status"]);
        assert_eq!((&status["failure"], &status["newest"]["id"]), (&Json::Null, &job["archive"]["id"]));
        let why = status["not_removed"].as_str().unwrap();
        assert!(why.contains(if item == 10 { "does not allow it" } else { "would go at once" }), "{why}");
        assert_eq!((sound(&folder), listed(server)), (made.clone(), made.clone()));
    }
    // They are let go once they may be.
    ok(server, &["set", "--keep-newest", "2"]);
    for entry in std::fs::read_dir(&folder).unwrap() {
        chown(entry.unwrap().path(), Some(NOBODY), None).unwrap();
    }
    written(server, 12).await;
    let job = ok(server, &["now"]);
    assert_eq!(job["removed"], 2, "{job}");
    assert_eq!(ok(server, &["status"])["not_removed"], Json::Null);
    assert_eq!(sound(&folder).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_whose_connection_breaks_anywhere_is_made_all_the_same() {
    let (office, _) = Office::with_archive(0, 0..60).await;
    let server = &office.fleet.server;
    let relay = Relay::open(office.share.address()).await.unwrap();
    let (host, port) = (relay.address().ip().to_string(), relay.address().port().to_string());
    ok(server, &["set", "--host", &host, "--port", &port, "--password-file", &office.password()]);
    let key = office.key();
    let restore = ["restore", "--key", &*key, "--accept-loss-of", "100000", "--yes"];
    let before = relay.passed();
    ok(server, &restore);
    let whole = relay.passed() - before;
    // While it logs in and looks around, and in the middle of the archive.
    for part in [8, 3, 2] {
        let (epoch, before) = (server.status().await.unwrap().group.unwrap().epoch, relay.passed());
        relay.mishap(Way::Back, whole / part, Mishap::Reset);
        ok(server, &restore);
        assert!(relay.passed() - before > whole, "1/{part}: nothing was asked for again");
        assert_eq!(server.status().await.unwrap().group.unwrap().epoch, epoch + 1);
        assert_eq!(count(server).await.unwrap(), 60);
    }
}
