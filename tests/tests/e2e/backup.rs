//! Archives on a real file server, by the operator's command: made, proven, listed, restored; and what goes wrong.

mod doors;
mod killed;
mod room;
mod wrong;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Result, ensure};
use mfpsync_backup::manifest::Manifest;
use mfpsync_backup::smb::Library;
use mfpsync_proto::panel::{DevicesRequest, JoinPolicy, ReleaseDeviceRequest, Role};
use mfpsync_tests::item::{delete, key, put, text};
use mfpsync_tests::{
    Fleet, PASSPHRASE, PATIENCE, Port, SHARE_PASSWORD, ShareServer, TestDevice, TestShare, command_path,
    current, eventually, running, smb_helper_path, smb_library, start_server,
};
use ring::digest::{SHA256, digest};
use serde_json::Value as Json;

const USER: &str = "user/alice";

/// A device that may use file servers of this machine.
fn device(name: &str) -> TestDevice {
    let mut device = TestDevice::new(name).unwrap();
    let helpers = smb_helper_path().unwrap();
    let library = smb_library().unwrap();
    let (name, _) = Library::NAMES.into_iter().find(|(_, named)| *named == library).unwrap();
    device.setup.tables =
        format!("[backup]\nhelpers = {:?}\nsmb = {name:?}\nthis_machine = true\n", helpers.parent().unwrap());
    device
}

/// A group, its kit, and a file server.
struct Office {
    fleet: Fleet,
    kit: String,
    share: TestShare,
}

impl Office {
    async fn open(clients: usize) -> Self {
        let mut office = Self::at(ShareServer::default().start().unwrap(), device("server")).await;
        for number in 1..=clients {
            office.fleet.add(device(&format!("client-{number}")), JoinPolicy::Merge).await.unwrap();
        }
        office
    }

    /// One of a file server and a device that does not run yet.
    async fn at(share: TestShare, mut server: TestDevice) -> Self {
        server.start().await.unwrap();
        let kit = start_server(&server, "Office").await.unwrap();
        Self { fleet: Fleet { server, clients: Vec::new(), relays: Vec::new() }, kit, share }
    }

    /// The same, with a share that is set, a key, and one archive.
    async fn with_archive(clients: usize, items: std::ops::Range<u32>) -> (Self, String) {
        let office = Self::open(clients).await;
        let id = office.archived("backup", items).await;
        (office, id)
    }

    /// Writes items, sets the share, makes a key and an archive; the archive's id.
    async fn archived(&self, share: &str, items: std::ops::Range<u32>) -> String {
        let server = &self.fleet.server;
        write(server, items).await;
        self.set_share(server, share);
        ok(server, &["key", "--out", &self.key()]);
        ok(server, &["now"])["archive"]["id"].as_str().unwrap().to_owned()
    }

    /// The folder of the group behind a share.
    async fn folder(&self, share: &str) -> PathBuf {
        let group = self.fleet.server.status().await.unwrap().group.unwrap().group_id;
        self.share.folder(share).join(group)
    }

    fn key(&self) -> String {
        self.file("key.txt")
    }

    fn file(&self, name: &str) -> String {
        self.share.scratch().with_file_name(name).display().to_string()
    }

    /// Sets the share `backup` at a device.
    fn set(&self, device: &TestDevice) -> Json {
        self.set_share(device, "backup")
    }

    fn set_share(&self, device: &TestDevice, share: &str) -> Json {
        let (host, port) = (self.share.address().ip().to_string(), self.share.address().port().to_string());
        let place = ["--host", &host, "--port", &port, "--share", share, "--user", self.share.user()];
        ok(device, &[&["set"][..], &place, &["--password-file", &self.password()]].concat())
    }

    /// A file with the share's password.
    fn password(&self) -> String {
        let password = self.file("password");
        std::fs::write(&password, SHARE_PASSWORD).unwrap();
        password
    }

    /// The kit and its passphrase, as files.
    fn kit_files(&self) -> [String; 2] {
        let files = [self.file("kit.age"), self.file("passphrase")];
        std::fs::write(&files[0], &self.kit).unwrap();
        std::fs::write(&files[1], PASSPHRASE).unwrap();
        files
    }
}

fn run(device: &TestDevice, arguments: &[&str]) -> Output {
    let mut command = Command::new(command_path().unwrap());
    command.arg("--run").arg(device.run_dir()).args(["--json", "--timeout", "60", "backup"]).args(arguments);
    command.stdin(std::process::Stdio::null()).output().unwrap()
}

/// The answer of a command that does what it should.
fn ok(device: &TestDevice, arguments: &[&str]) -> Json {
    let output = run(device, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Why a command does not.
fn refused(device: &TestDevice, arguments: &[&str]) -> String {
    let output = run(device, arguments);
    assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

/// The ids of the archives on the share, oldest first, as a device sees them; all are good.
fn listed(device: &TestDevice) -> Vec<String> {
    let listed = ok(device, &["list"]);
    let archives = listed["archives"].as_array().unwrap();
    let good = |archive: &Json| archive["verified"] == true && archive["complete"] == true;
    assert!(archives.iter().all(good) && listed["unusable"].as_array().is_none_or(Vec::is_empty), "{listed}");
    let mut ids: Vec<_> = archives.iter().map(|archive| archive["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

/// The newest archive that a device knows to be good.
fn newest(device: &TestDevice) -> String {
    ok(device, &["status"])["newest"]["id"].as_str().unwrap().to_owned()
}

/// Waits until no job is under way.
async fn idle(device: &TestDevice) {
    eventually(PATIENCE, "the job under way to end", async || {
        let job = &ok(device, &["status"])["job"];
        ensure!(job.is_null() || job["ended"] == true, "{job}");
        Ok(())
    })
    .await
    .unwrap();
}

/// Any command.
fn mfpsync(device: &TestDevice, arguments: &[&str]) -> Output {
    let mut command = Command::new(command_path().unwrap());
    command.arg("--run").arg(device.run_dir()).args(arguments).output().unwrap()
}

fn metrics(device: &TestDevice) -> String {
    String::from_utf8(mfpsync(device, &["metrics"]).stdout).unwrap()
}

async fn write(device: &TestDevice, items: std::ops::Range<u32>) {
    for item in items {
        let edit = put(key(USER, "address.personal", &item.to_string()), vec![text("name", "x")]);
        device.write(vec![edit]).await.unwrap();
    }
}

/// Writes one item, and waits until the server has it.
async fn written(device: &TestDevice, item: u32) {
    write(device, item..item + 1).await;
    eventually(PATIENCE, "the edit to be accepted", async || {
        ensure!(device.client_status().await?.waiting == 0, "it waits");
        Ok(())
    })
    .await
    .unwrap();
}

/// How many items of the user a device shows.
async fn count(device: &TestDevice) -> Result<usize> {
    Ok(device.contents(&[USER]).await?.len())
}

/// Waits until all devices agree, and show so many items.
async fn agree(fleet: &Fleet, items: usize) {
    let contents = fleet.converged(&[USER], PATIENCE).await.unwrap();
    assert_eq!(contents.len(), items);
}

#[tokio::test(flavor = "multi_thread")]
async fn i_18_i_19_an_archive_is_made_proven_and_restored_and_devices_offer_what_came_after() {
    let (mut office, id) = Office::with_archive(2, 0..20).await;
    office.fleet.server.log.expect("came to nothing");
    office.fleet.clients[1].log.expect("F-RELEASED");
    let Office { fleet, .. } = &office;
    let server = &fleet.server;
    let listed = ok(server, &["list"]);
    assert_eq!(
        (listed["archives"][0]["id"].as_str(), listed["archives"].as_array().unwrap().len()),
        (Some(&*id), 1)
    );
    assert_eq!(
        (&listed["archives"][0]["verified"], &listed["archives"][0]["complete"]),
        (&true.into(), &true.into())
    );
    assert_eq!(ok(server, &["drill"])["archive"]["id"], *id);
    ok(server, &["drill", "--key", &office.key()]);
    let status = ok(server, &["status"]);
    assert_eq!((&status["drill"]["opened"], &status["drill"]["wrong"]), (&true.into(), &Json::Null));
    let metrics = metrics(server);
    for family in
        ["timestamp_seconds", "sequence", "bytes", "failures", "drill_timestamp_seconds", "drill_wrong"]
    {
        let name = format!("mfpsync_archive_{family} ");
        assert!(metrics.lines().any(|line| line.starts_with(&name)), "{name}: {metrics}");
    }
    let wrong = office.file("wrong.txt");
    std::fs::write(&wrong, "not the passphrase").unwrap();
    let refusal = refused(server, &["drill", "--passphrase-file", &wrong]);
    assert!(refusal.contains("wrong passphrase or identity"), "{refusal}");

    // Since then: items more, an erased user, a released device.
    agree(fleet, 20).await;
    write(&fleet.clients[0], 20..30).await;
    let erased = put(key("user/bob", "address.personal", "1"), vec![text("name", "y")]);
    server.write(vec![erased]).await.unwrap();
    agree(fleet, 30).await;
    let devices = server.panel().unwrap().devices(DevicesRequest {}).await.unwrap().into_inner().devices;
    let gone = devices.iter().find(|device| device.name == "client-2").unwrap().id.clone();
    server.panel().unwrap().release_device(ReleaseDeviceRequest { device_id: gone.clone() }).await.unwrap();

    let preview = ok(server, &["preview", "--key", &office.key()]);
    let lost = preview["comparison"]["changes_lost"].as_u64().unwrap();
    assert_eq!(preview["comparison"]["items_gone"], 11, "{preview}");
    assert_eq!(preview["comparison"]["releases_kept"], 1, "{preview}");
    assert_eq!(count(server).await.unwrap(), 30, "a preview changes nothing");
    let refusal = refused(server, &["restore", "--key", &office.key(), "--yes"]);
    assert!(refusal.contains(&format!("--accept-loss-of {lost}")), "{refusal}");
    let accept = lost.to_string();
    let restored =
        ok(server, &["restore", &id, "--key", &office.key(), "--accept-loss-of", &accept, "--yes"]);
    assert_eq!(restored["archive"]["id"], *id);

    // What the archive lacks comes back from the devices, and the released one stays out.
    eventually(PATIENCE, "what came after the archive to come back", async || {
        let items = count(&fleet.clients[0]).await?;
        ensure!(items == 30 && count(server).await? == 30, "{items} items");
        Ok(())
    })
    .await
    .unwrap();
    // One that was made in the reign before and holds more than this reign began with: what came since is named.
    let later = ok(server, &["now"])["archive"]["id"].as_str().unwrap().to_owned();
    ok(server, &["restore", &id, "--key", &office.key(), "--accept-loss-of", "1000000", "--yes"]);
    let refusal = refused(server, &["restore", &later, "--key", &office.key(), "--yes"]);
    assert!(refusal.contains("--accept-loss-of"), "{refusal}");
    let devices = server.panel().unwrap().devices(DevicesRequest {}).await.unwrap().into_inner().devices;
    assert!(devices.iter().any(|device| device.id == gone && device.released));
    let status = server.status().await.unwrap();
    assert_eq!(status.group.unwrap().epoch, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn i_17_a_lost_server_is_restored_on_a_blank_machine_by_archive_and_kit() {
    let (mut office, _) = Office::with_archive(2, 0..20).await;
    agree(&office.fleet, 20).await;
    write(&office.fleet.clients[0], 20..25).await;
    agree(&office.fleet, 25).await;
    office.fleet.server.kill().unwrap();
    let mut old = std::mem::replace(&mut office.fleet.server, device("new"));
    office.fleet.server.listen_at(old.listen_at(Port::reserve().unwrap()));
    office.fleet.server.log.expect("came to nothing");
    office.fleet.server.start().await.unwrap();
    let new = &office.fleet.server;
    office.set(new);
    let [kit, passphrase] = office.kit_files();
    let by_kit = ["--kit", &*kit, "--kit-passphrase-file", &*passphrase];
    let refusal = refused(new, &["list"]);
    assert!(refusal.contains("recovery kit"), "{refusal}");
    let listed = ok(new, &[&["list"][..], &by_kit].concat());
    assert_eq!(listed["archives"][0]["verified"], true, "{listed}");
    let refusal = refused(new, &["restore", "--key", &office.key(), "--yes"]);
    assert!(refusal.contains("recovery kit"), "{refusal}");
    let key = office.key();
    ok(new, &[&["restore", "--key", &*key, "--yes"][..], &by_kit].concat());
    running(new, Role::Server).await.unwrap();
    for client in &mut office.fleet.clients {
        current(client).await.unwrap();
        eventually(PATIENCE, "what came after the archive to come back", async || {
            let items = count(client).await?;
            ensure!(items == 25, "{items} items");
            Ok(())
        })
        .await
        .unwrap();
        client.log.expect("another device reigns");
    }
    // It is a server like any other: it makes archives, and its devices' edits go on.
    write(&office.fleet.clients[1], 25..26).await;
    ok(
        new,
        &[
            "set",
            "--recipient",
            ok(new, &["key", "--out", &office.file("key2.txt")])["recipient"].as_str().unwrap(),
        ],
    );
    ok(new, &["now"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_user_comes_back_from_an_archive_as_changes_that_can_be_taken_back() {
    let (office, _) = Office::with_archive(1, 0..8).await;
    let server = &office.fleet.server;
    agree(&office.fleet, 8).await;
    for item in 0..5 {
        server.write(vec![delete(key(USER, "address.personal", &item.to_string()))]).await.unwrap();
    }
    let changed = put(key(USER, "address.personal", "6"), vec![text("name", "changed")]);
    server.write(vec![changed]).await.unwrap();
    agree(&office.fleet, 3).await;
    let of_alice = ["bring-back", "--scope", USER, "--key", &office.key()].map(str::to_owned);
    let of_alice: Vec<&str> = of_alice.iter().map(String::as_str).collect();
    let dry = ok(server, &[&of_alice[..], &["--dry-run"]].concat());
    assert_eq!(
        (&dry["brought_back"]["items"], &dry["brought_back"]["differ"]),
        (&5.into(), &1.into()),
        "{dry}"
    );
    agree(&office.fleet, 3).await;
    let back = ok(server, &of_alice);
    assert_eq!(
        (&back["brought_back"]["restored"], &back["brought_back"]["same"]),
        (&5.into(), &2.into()),
        "{back}"
    );
    agree(&office.fleet, 8).await;
    let again = ok(server, &[&of_alice[..], &["--replace"]].concat());
    assert_eq!(again["brought_back"]["items"], 1, "{again}");
    let contents = office.fleet.converged(&[USER], PATIENCE).await.unwrap();
    assert!(!format!("{contents:?}").contains("changed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_of_a_lost_group_becomes_that_of_a_new_one_without_a_kit() {
    let (office, _) = Office::with_archive(0, 0..12).await;
    let old_group = office.fleet.server.status().await.unwrap().group.unwrap().group_id;
    let mut new = device("new");
    new.start().await.unwrap();
    start_server(&new, "New office").await.unwrap();
    office.set(&new);
    let listed = ok(&new, &["list", "--group", &old_group]);
    assert_eq!(listed["archives"][0]["verified"], false, "{listed}");
    let back = ok(&new, &["bring-back", "--group", &old_group, "--key", &office.key()]);
    assert_eq!(back["brought_back"]["items"], 12, "{back}");
    eventually(PATIENCE, "the items to be shown", async || {
        let items = count(&new).await?;
        ensure!(items == 12, "{items} items");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_made_by_schedule_and_a_person_is_asked_when_they_are_not() {
    let office = Office::open(0).await;
    let server = &office.fleet.server;
    write(server, 0..3).await;
    office.set(server);
    let refusal = refused(server, &["set", "--every", "24"]);
    assert!(refusal.contains("recipient"), "{refusal}");
    ok(server, &["key", "--out", &office.key()]);
    ok(server, &["set", "--every", "24", "--at", "02:30"]);
    eventually(PATIENCE * 2, "the first archive", async || {
        let status = ok(server, &["status"]);
        ensure!(!status["newest"].is_null(), "{status}");
        Ok(())
    })
    .await
    .unwrap();
    let status = ok(server, &["status"]);
    assert!(status["next_unix_millis"].as_u64().is_some(), "{status}");
    assert_eq!(status["failure"], Json::Null);
}

/// Every archive in a folder that exists is whole; their ids.
fn sound(folder: &Path) -> Vec<String> {
    let mut sound = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "manifest") {
            let manifest = Manifest::decode(&std::fs::read(&path).unwrap()).unwrap().record;
            let archive = std::fs::read(path.with_extension("archive")).unwrap();
            assert_eq!(digest(&SHA256, &archive).as_ref(), manifest.archive.sha256, "{}", path.display());
            sound.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    sound.sort();
    sound
}
