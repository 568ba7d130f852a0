//! Archives on a real file server, by the operator's command: made, proven, listed, restored; and what goes wrong.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Result, ensure};
use mfpsync_backup::manifest::Manifest;
use mfpsync_backup::smb::Library;
use mfpsync_proto::panel::{DevicesRequest, JoinPolicy, ReleaseDeviceRequest, Role};
use mfpsync_tests::item::{delete, key, put, text};
use mfpsync_tests::{
    Fleet, PASSPHRASE, PATIENCE, Port, SHARE_PASSWORD, ShareServer, TestDevice, TestShare, command_path,
    current, eventually, rounds, running, seed, smb_helper_path, smb_library, start_server,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ring::digest::{SHA256, digest};
use rustix::process::{Pid, Signal, kill_process};
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
        let share = ShareServer::default().start().unwrap();
        let mut server = device("server");
        server.start().await.unwrap();
        let kit = start_server(&server, "Office").await.unwrap();
        let mut fleet = Fleet { server, clients: Vec::new(), relays: Vec::new() };
        for number in 1..=clients {
            fleet.add(device(&format!("client-{number}")), JoinPolicy::Merge).await.unwrap();
        }
        Self { fleet, kit, share }
    }

    /// The same, with a share that is set, a key, and one archive.
    async fn with_archive(clients: usize, items: std::ops::Range<u32>) -> (Self, String) {
        let office = Self::open(clients).await;
        write(&office.fleet.server, items).await;
        office.set(&office.fleet.server);
        ok(&office.fleet.server, &["key", "--out", &office.key()]);
        let made = ok(&office.fleet.server, &["now"]);
        let id = made["archive"]["id"].as_str().unwrap().to_owned();
        (office, id)
    }

    fn key(&self) -> String {
        self.file("key.txt")
    }

    fn file(&self, name: &str) -> String {
        self.share.scratch().with_file_name(name).display().to_string()
    }

    /// Sets the share at a device.
    fn set(&self, device: &TestDevice) -> Json {
        let password = self.file("password");
        std::fs::write(&password, SHARE_PASSWORD).unwrap();
        let (host, port) = (self.share.address().ip().to_string(), self.share.address().port().to_string());
        let user = self.share.user();
        ok(
            device,
            &[
                "set",
                "--host",
                &host,
                "--port",
                &port,
                "--share",
                "backup",
                "--user",
                user,
                "--password-file",
                &password,
            ],
        )
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

fn metrics(device: &TestDevice) -> String {
    let output =
        Command::new(command_path().unwrap()).arg("--run").arg(device.run_dir()).arg("metrics").output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

async fn write(device: &TestDevice, items: std::ops::Range<u32>) {
    for item in items {
        let edit = put(key(USER, "address.personal", &item.to_string()), vec![text("name", "x")]);
        device.write(vec![edit]).await.unwrap();
    }
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
async fn a_password_is_never_sent_to_another_door() {
    let (mut office, _) = Office::with_archive(0, 0..1).await;
    office.fleet.server.log.expect("came to nothing");
    let server = &office.fleet.server;
    let rogue = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    rogue.set_nonblocking(true).unwrap();
    let port = rogue.local_addr().unwrap().port().to_string();
    let before = office.share.log_ins().unwrap();
    for change in [
        &["--host", "127.0.0.1", "--port", &port][..],
        &["--share", "ro"],
        &["--user", "somebody"],
        &["--domain", "ELSEWHERE"],
        &["--smb", "3.0"],
        &["--encryption", "off"],
    ] {
        let set = ok(server, &[&["set"][..], change].concat());
        assert_eq!(set["has_password"], false, "{change:?}");
        for command in [&["now"][..], &["list"], &["drill"]] {
            let refusal = refused(server, command);
            assert!(refusal.contains("no password is stored"), "{change:?} {command:?}: {refusal}");
        }
        assert!(rogue.accept().is_err(), "somebody was dialled: {change:?}");
        office.set(server);
        ok(server, &["set", "--smb", "3.1.1", "--encryption", "preferred", "--domain", ""]);
        office.set(server);
    }
    assert_eq!(office.share.log_ins().unwrap(), before, "nobody logged in without a password");
    ok(server, &["now"]);
    let refusal =
        refused(server, &["test", "--host", "127.0.0.1", "--port", &port, "--share", "x", "--user", "y"]);
    assert!(refusal.contains("password"), "{refusal}");
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
async fn what_is_wrong_with_a_share_is_said_and_archives_stay() {
    let (mut office, id) = Office::with_archive(0, 0..3).await;
    office.fleet.server.log.expect("the group's data is not being backed up");
    let server = &office.fleet.server;
    // A folder that cannot be written, a share that is not there.
    for (share, says) in [("ro", "does not allow it"), ("nowhere", "no such share")] {
        ok(server, &["set", "--share", share]);
        let password = office.file("password");
        ok(server, &["set", "--password-file", &password]);
        let refusal = refused(server, &["now"]);
        assert!(refusal.contains(says), "{share}: {refusal}");
    }
    office.set(server);
    let status = ok(server, &["status"]);
    assert_eq!((&status["has_password"], &status["newest"]["id"]), (&true.into(), &id.as_str().into()));
    assert!(status["failure"]["text"].as_str().unwrap().contains("no such share"), "{status}");
    // One that is altered where it lies.
    let group = server.status().await.unwrap().group.unwrap().group_id;
    let archive = office.share.folder("backup").join(&group).join(format!("{id}.archive"));
    let mut bytes = std::fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&archive, bytes).unwrap();
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

/// The helper programs that work for a device, whichever they are.
fn helpers(device: &TestDevice) -> Vec<Pid> {
    let works_there = |process: &Path| {
        std::fs::read_link(process.join("cwd")).is_ok_and(|place| place.starts_with(device.data_dir()))
            && std::fs::read_to_string(process.join("comm")).is_ok_and(|name| name.starts_with("mfpsync-"))
    };
    let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let ids = processes
        .filter(|process| works_there(process))
        .filter_map(|process| Pid::from_raw(process.file_name()?.to_str()?.parse().ok()?));
    ids.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn i_18_i_20_whoever_is_killed_at_any_moment_no_archive_is_bad_and_none_is_lost() {
    let (mut office, _) = Office::with_archive(0, 0..40).await;
    office.fleet.server.log.expect("came to nothing");
    // More than half of them never go at once.
    office.fleet.server.log.expect("old archives were not removed");
    let group = office.fleet.server.status().await.unwrap().group.unwrap().group_id;
    let folder = office.share.folder("backup").join(group);
    ok(
        &office.fleet.server,
        &["set", "--keep-newest", "2", "--keep-days", "0", "--keep-weeks", "0", "--keep-months", "0"],
    );
    let mut luck = StdRng::seed_from_u64(seed());
    let mut known = sound(&folder);
    for round in 0..rounds(12, 200) {
        run(&office.fleet.server, &["now", "--no-wait"]);
        tokio::time::sleep(Duration::from_millis(luck.random_range(0..600))).await;
        match round % 3 {
            0 => {
                office.fleet.server.kill().unwrap();
                sound(&folder);
                office.fleet.server.start().await.unwrap();
                running(&office.fleet.server, Role::ServerClient).await.unwrap();
            }
            1 => helpers(&office.fleet.server)
                .into_iter()
                // Who has ended by itself meanwhile is as good.
                .for_each(|pid| {
                    let _ended = kill_process(pid, Signal::KILL);
                }),
            _ => office.share.sessions().unwrap().iter().for_each(|session| session.signal(Signal::KILL)),
        }
        let now = sound(&folder);
        // Two at the least, as was set; what went was older than what came.
        assert!(now.len() >= known.len().min(2), "{known:?} became {now:?}");
        known = now;
    }
    // Whatever was left on its way: the next one is good, and only good ones are listed.
    eventually(PATIENCE, "the job under way to end", async || {
        let job = &ok(&office.fleet.server, &["status"])["job"];
        ensure!(job.is_null() || job["ended"] == true, "{job}");
        Ok(())
    })
    .await
    .unwrap();
    let made = ok(&office.fleet.server, &["now", "--accept-missing"]);
    let id = made["archive"]["id"].as_str().unwrap();
    let listed = ok(&office.fleet.server, &["list"]);
    let listed: Vec<&str> =
        listed["archives"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!(listed.first(), Some(&id));
    assert_eq!(sound(&folder).len(), listed.len());
    assert!(std::fs::read_dir(office.fleet.server.data_dir().join("spool")).unwrap().next().is_none());
    ok(&office.fleet.server, &["drill", "--key", &office.key()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn i_10_i_18_a_restore_cut_at_any_moment_happened_or_did_not() {
    let (mut office, _) = Office::with_archive(0, 0..30).await;
    office.fleet.server.log.expect("came to nothing");
    let [mut before, mut after] = [0, 0];
    let mut luck = StdRng::seed_from_u64(seed());
    let restore =
        ["restore", "--key", &office.key(), "--accept-loss-of", "100000", "--yes"].map(str::to_owned);
    for _ in 0..rounds(10, 150) {
        let epoch = office.fleet.server.status().await.unwrap().group.unwrap().epoch;
        let mut command = Command::new(command_path().unwrap());
        command.arg("--run").arg(office.fleet.server.run_dir()).args(["--json", "backup"]).args(&restore);
        let quiet = std::process::Stdio::null;
        let mut restoring = command.stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(luck.random_range(0..250))).await;
        office.fleet.server.kill().unwrap();
        restoring.wait().unwrap();
        office.fleet.server.start().await.unwrap();
        running(&office.fleet.server, Role::ServerClient).await.unwrap();
        current(&office.fleet.server).await.unwrap();
        let status = office.fleet.server.status().await.unwrap();
        let now = status.group.unwrap().epoch;
        assert!(now == epoch || now == epoch + 1, "{epoch} became {now}");
        *if now == epoch { &mut before } else { &mut after } += 1;
        assert_eq!(count(&office.fleet.server).await.unwrap(), 30);
        assert!(!office.fleet.server.data_dir().join("restored.db").exists());
    }
    eprintln!("{before} did not happen, {after} did");
    let arguments: Vec<&str> = restore.iter().map(String::as_str).collect();
    ok(&office.fleet.server, &arguments);
}
