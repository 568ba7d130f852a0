//! No room: on the device itself, and on the share; and shares that take nothing, or are gone.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, ensure};
use mfpsync_proto::monitor::CommunicationsRequest;
use mfpsync_proto::panel::Role;
use mfpsync_tests::item::{key, put, text};
use mfpsync_tests::volume::{Volume, may_mount};
use mfpsync_tests::{PATIENCE, ShareServer, TestDevice, clock, eventually, running, skip};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value as Json;

use super::{
    Office, USER, count, device, idle, metrics, mfpsync, newest, ok, refused, run, sound, write, written,
};
use crate::monitor::monitor;

/// All files of a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let files = entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
    files.map(|(name, path)| (name, std::fs::read(path).unwrap())).collect()
}

fn failures(device: &TestDevice) -> String {
    let metrics = metrics(device);
    let line = metrics.lines().find_map(|line| line.strip_prefix("mfpsync_archive_failures "));
    line.unwrap().to_owned()
}

/// Whether the communication log has an archive that was not made, for this reason.
async fn is_logged(device: &TestDevice, reason: &str) {
    eventually(PATIENCE, "the failure to be in the log", async || {
        let request =
            CommunicationsRequest { codes: vec!["C-ARCHIVE-NOT-MADE".to_owned()], ..Default::default() };
        let entries = monitor(device).communications(request).await?.into_inner().entries;
        ensure!(entries.iter().any(|entry| entry.reason == reason), "{reason}: {entries:?}");
        Ok(())
    })
    .await
    .unwrap();
}

/// Writes an item of bytes that do not get shorter by packing.
async fn write_large(device: &TestDevice, number: u32, luck: &mut StdRng) {
    let value: String = (0..40_000).map(|_| char::from(luck.random_range(b' '..b'~'))).collect();
    let item = key("shared", "shortcut", &format!("large-{number}"));
    device.write(vec![put(item, vec![text("value", &value)])]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_device_costs_an_archive_and_nothing_else() {
    if !may_mount() {
        return skip("only root may mount the small disk this needs");
    }
    let mut server = device("server");
    let alarms = ["came to nothing", "full", "F-DISK-FULL", "storage", "write the communication log"];
    for part in alarms.into_iter().chain(["remember archives"]) {
        server.log.expect(part);
    }
    let disk = server.home().join("disk");
    let volume = Volume::mount(&disk, 48).unwrap();
    server.setup.data_dir = Some(disk.join("data"));
    let office = Office::at(ShareServer::default().start().unwrap(), server).await;
    let server = &office.fleet.server;
    let mut luck = StdRng::seed_from_u64(1);
    for number in 0..40 {
        write_large(server, number, &mut luck).await;
    }
    office.archived("backup", 0..20).await;
    let folder = office.folder("backup").await;
    let (before, spool) = (files(&folder), server.data_dir().join("spool"));
    let archive = before.values().map(Vec::len).max().unwrap() as u64;
    // No room for the archive; room for that, and none to open it.
    for (round, room) in [archive / 2, archive + archive / 2].into_iter().enumerate() {
        volume.fill_but(room).unwrap();
        let refusal = refused(server, &["now"]);
        for part in ["room", "are as they were", "make room on this device"] {
            assert!(refusal.contains(part), "{part}: {refusal}");
        }
        let status = ok(server, &["status"]);
        let failure = &status["failure"];
        assert!(refusal.contains(failure["text"].as_str().unwrap()), "{status}");
        assert_eq!(failure["in_a_row"], round as u64 + 1);
        assert_eq!(failures(server), (round + 1).to_string());
        is_logged(server, "device").await;
        assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 0, "what it has no use for takes no room");
        assert_eq!(files(&folder), before);
        // So there is room for edits.
        let items = count(server).await.unwrap();
        let next = 100 + u32::try_from(round).unwrap();
        write(server, next..next + 1).await;
        eventually(PATIENCE, "the edit to be shown", async || {
            let shown = count(server).await?;
            ensure!(shown == items + 1, "{shown}");
            Ok(())
        })
        .await
        .unwrap();
        volume.empty().unwrap();
    }
    // Full to the last byte, with an archive asked for: edits wait until there is room.
    volume.fill().unwrap();
    let refusal = refused(server, &["now"]);
    assert!(refusal.contains("on this device"), "{refusal}");
    assert_eq!(failures(server), "3", "it is not forgotten for want of room");
    assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 0);
    volume.empty().unwrap();
    let edit = put(key(USER, "address.personal", "after"), vec![text("name", "x")]);
    eventually(PATIENCE, "room for an edit", async || server.write(vec![edit.clone()]).await).await.unwrap();
    let id = ok(server, &["now"])["archive"]["id"].as_str().unwrap().to_owned();
    let status = ok(server, &["status"]);
    assert_eq!((&status["failure"], failures(server).as_str()), (&Json::Null, "0"));
    assert_eq!(status["newest"]["id"], *id);
    assert!(sound(&folder).contains(&id));
    assert!(before.iter().all(|(name, bytes)| files(&folder).get(name) == Some(bytes)));
    ok(server, &["drill", "--key", &office.key()]);
    drop(office);
    drop(volume);
}

/// A server that makes an archive each hour, and whose clock can be put forward by hours.
struct Hourly {
    office: Office,
    hours: i64,
}

impl Hourly {
    /// Starts the server anew an hour later, and has it look at what is due.
    async fn next_hour(&mut self) {
        self.hours += 1;
        let server = &mut self.office.fleet.server;
        server.stop().await.unwrap();
        server.setup.env = clock::shifted_by(self.hours * 3_600, server.home()).unwrap();
        server.start().await.unwrap();
        running(server, Role::ServerClient).await.unwrap();
        ok(server, &["set", "--every", "1"]);
    }

    /// Waits until the schedule has failed so many times in a row; what is said of it.
    async fn failed(&self, times: u64) -> String {
        let server = &self.office.fleet.server;
        let failure = eventually(PATIENCE, "the schedule to fail", async || {
            let failure = ok(server, &["status"])["failure"].clone();
            ensure!(failure["in_a_row"] == times, "{failure}");
            Ok(failure)
        });
        let failure = failure.await.unwrap();
        assert_eq!(failures(server), times.to_string());
        failure["text"].as_str().unwrap().to_owned()
    }

    /// Waits until a person is asked, in the words that the status has.
    async fn asks(&self, says: &str) {
        let server = &self.office.fleet.server;
        let fault = eventually(PATIENCE, "a person to be asked", async || server.fault("F-BACKUP").await);
        let fault = fault.await.unwrap();
        assert!(fault.text.contains(says), "{}", fault.text);
        let shown = mfpsync(server, &["status"]);
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.contains("F-BACKUP") && shown.contains(says), "{shown}");
    }

    fn asks_nobody_because(&self, why: &str) {
        let shown = mfpsync(&self.office.fleet.server, &["status"]);
        assert!(!String::from_utf8(shown.stdout).unwrap().contains("F-BACKUP"), "{why}");
    }

    /// Waits until the schedule has made another archive than that; its id.
    async fn recovers(&self, before: &str) -> String {
        let server = &self.office.fleet.server;
        let made = eventually(PATIENCE, "the schedule to make one", async || {
            let status = ok(server, &["status"]);
            let id = status["newest"]["id"].as_str().context("none")?;
            ensure!(id != before && status["failure"].is_null(), "{status}");
            ensure!(status["job"].is_null() || status["job"]["ended"] == true, "{status}");
            Ok(id.to_owned())
        });
        let made = made.await.unwrap();
        assert_eq!(failures(server), "0");
        eventually(PATIENCE, "the fault to end", async || {
            ensure!(server.fault("F-BACKUP").await.is_err(), "it stands");
            Ok(())
        })
        .await
        .unwrap();
        made
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_is_full_read_only_or_gone_is_said_and_the_schedule_recovers() {
    if !may_mount() {
        return skip("only root may mount the small disk this needs");
    }
    let office = Office::at(ShareServer::default().start().unwrap(), device("server")).await;
    let volume = Volume::mount(&office.share.folder("full"), 4).unwrap();
    let first = office.archived("full", 0..3).await;
    let folder = office.folder("full").await;
    let mut hourly = Hourly { office, hours: 0 };
    for part in ["came to nothing", "F-BACKUP", "the group's data is not being backed up"] {
        hourly.office.fleet.server.log.expect(part);
    }
    ok(&hourly.office.fleet.server, &["set", "--keep-newest", "9"]);
    let untouched = files(&folder);

    volume.fill().unwrap();
    hourly.next_hour().await;
    let text = hourly.failed(1).await;
    assert!(text.contains("share is full") && text.contains("make room on the share"), "{text}");
    hourly.asks("share is full").await;
    is_logged(&hourly.office.fleet.server, "full").await;
    assert_eq!(files(&folder), untouched);
    volume.empty().unwrap();
    hourly.next_hour().await;
    let second = hourly.recovers(&first).await;

    let untouched = files(&folder);
    volume.set_read_only(true).unwrap();
    hourly.next_hour().await;
    let text = hourly.failed(1).await;
    assert!(text.contains("does not allow it") && text.contains("read, write and delete"), "{text}");
    hourly.asks("does not allow it").await;
    is_logged(&hourly.office.fleet.server, "denied").await;
    volume.set_read_only(false).unwrap();
    assert_eq!(files(&folder), untouched);
    hourly.next_hour().await;
    let third = hourly.recovers(&second).await;

    // A server that is gone may come again by itself: at the fourth time a person is asked.
    let untouched = files(&folder);
    hourly.office.share.stop().unwrap();
    for times in 1..=4 {
        hourly.next_hour().await;
        let text = hourly.failed(times).await;
        assert!(text.contains("nobody answers") && text.contains("check the file server"), "{text}");
        if times < 4 {
            hourly.asks_nobody_because("it may pass");
        }
    }
    hourly.asks("nobody answers").await;
    is_logged(&hourly.office.fleet.server, "unreachable").await;
    hourly.office.share.listen().unwrap();
    assert_eq!(files(&folder), untouched);
    hourly.next_hour().await;
    let fourth = hourly.recovers(&third).await;

    let mut all = [first, second, third, fourth];
    all.sort();
    assert_eq!(sound(&folder), all);
    let left = files(&folder).into_keys().filter(|name| name.ends_with(".part")).count();
    assert_eq!(left, 0, "parts stay behind");
    drop(hourly);
    drop(volume);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_goes_in_the_middle_of_an_upload_and_comes_again_gets_it_all_the_same() {
    let share = ShareServer::default().stepwise().start().unwrap();
    let mut office = Office::at(share, device("server")).await;
    let first = office.archived("backup", 0..10).await;
    let folder = office.folder("backup").await;
    written(&office.fleet.server, 10).await;
    let steps = office.share.steps().unwrap();
    steps.count(Some(1)).unwrap();
    run(&office.fleet.server, &["now", "--no-wait"]);
    assert!(steps.held(1).await.unwrap().starts_with("write"));
    office.share.stop().unwrap();
    office.share.steps().unwrap().go_on().unwrap();
    let server = &office.fleet.server;
    eventually(PATIENCE, "the job to try again", async || {
        let job = &ok(server, &["status"])["job"];
        ensure!(!job["retrying"].as_str().unwrap_or_default().is_empty(), "{job}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!((sound(&folder), failures(server)), (vec![first.clone()], "0".to_owned()));
    office.share.listen().unwrap();
    idle(server).await;
    let status = ok(server, &["status"]);
    assert_eq!((&status["job"]["failure"], &status["failure"]), (&Json::Null, &Json::Null), "{status}");
    // Of one second, they may stand in either order.
    let there = sound(&folder);
    assert!(there.len() == 2 && there.contains(&first) && there.contains(&newest(server)), "{there:?}");
}
