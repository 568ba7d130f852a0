//! Every device that could serve is lost, and the recovery kit as well: a new group of what the devices have.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mfpsync_proto::panel::{
    FoundGroupRequest, GroupStatus, JoinPolicy, LeaveRequest, LookForServersRequest, PrepareGroupRequest,
    Role, StopServerRequest,
};
use mfpsync_tests::item::{key, put, text};
use mfpsync_tests::{
    Fleet, PASSPHRASE, PATIENCE, TestDevice, command_path, current, eventually, join, open_pairing, running,
    start_server,
};
use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const USER: &str = "user/alice";

fn command(device: &TestDevice, arguments: &[impl AsRef<str>]) -> Command {
    let mut command = Command::new(command_path().unwrap());
    command.arg("--run").arg(device.run_dir()).args(["--json", "--timeout", "60"]);
    command.args(arguments.iter().map(AsRef::as_ref));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A command that tells what goes on, an object a line.
struct Guide {
    child: Child,
    events: Lines<BufReader<ChildStdout>>,
}

impl Guide {
    fn begin(device: &TestDevice, arguments: &[impl AsRef<str>]) -> Self {
        let mut child = command(device, arguments).stdout(Stdio::piped()).spawn().unwrap();
        let events = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, events }
    }

    async fn next(&mut self) -> Result<Json> {
        let line =
            tokio::time::timeout(PATIENCE, self.events.next_line()).await.context("nothing is told")?;
        Ok(serde_json::from_str(&line?.context("it ended")?)?)
    }

    /// Has a device join by the code that is shown, in the way the guide says.
    async fn let_in(&mut self, device: &TestDevice, leave: bool) -> Json {
        let shown = self.next().await.unwrap();
        let (code, address) = (shown["code"].as_str().unwrap(), shown["addresses"][0].as_str().unwrap());
        let join = [&["join", address, "--code", code][..], if leave { &["--leave"] } else { &[] }].concat();
        let joined = command(device, &join).output().await.unwrap();
        assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
        let told = self.next().await.unwrap();
        assert_eq!(told["device_id"], device.status().await.unwrap().device_id, "{told}");
        told
    }
}

async fn write(device: &TestDevice, item: &str) {
    let edit = put(key(USER, "address.personal", item), vec![text("name", item)]);
    device.write(vec![edit]).await.unwrap();
}

/// Waits until a device shows so many items.
async fn shows(device: &TestDevice, number: usize) {
    eventually(PATIENCE, "items of others", async || {
        let items = device.contents(&[USER]).await?.len();
        ensure!(items == number, "{items} items");
        Ok(())
    })
    .await
    .unwrap();
}

/// A server, and three clients that dial it; all show one item.
struct Office {
    server: TestDevice,
    devices: Vec<TestDevice>,
    home: TempDir,
}

impl Office {
    async fn open() -> Self {
        let mut server = TestDevice::new("server").unwrap();
        server.start().await.unwrap();
        start_server(&server, "Office").await.unwrap();
        let mut devices = Vec::new();
        for name in ["first", "second", "third"] {
            let mut device = TestDevice::started(name).await.unwrap();
            device.log.expect("tell the server of leaving");
            device.log.expect("release this device there");
            let opened = open_pairing(&server).await.unwrap();
            join(&device, &server.address().to_string(), &opened.code, JoinPolicy::Merge).await.unwrap();
            devices.push(device);
        }
        write(&server, "of the server").await;
        for device in &devices {
            shows(device, 1).await;
        }
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("passphrase"), PASSPHRASE).unwrap();
        Self { server, devices, home }
    }

    /// The new kit's file.
    fn kit(&self) -> PathBuf {
        self.home.path().join("kit.age")
    }

    /// What begins a new group.
    fn anew(&self) -> Vec<String> {
        let (kit, passphrase) = (self.kit(), self.home.path().join("passphrase"));
        let mut arguments = ["recover", "--without-kit", "--yes"].map(str::to_owned).to_vec();
        arguments.extend(["--new-kit".to_owned(), kit.display().to_string()]);
        arguments.extend(["--passphrase-file".to_owned(), passphrase.display().to_string()]);
        arguments
    }

    async fn group(&self, device: usize) -> GroupStatus {
        self.devices[device].status().await.unwrap().group.unwrap()
    }
}

/// Why a command is refused.
async fn refused(device: &TestDevice, arguments: &[impl AsRef<str>]) -> String {
    let output = command(device, arguments).output().await.unwrap();
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn without_server_and_kit_a_new_group_begins_with_what_the_devices_have() {
    let mut office = Office::open().await;
    let before = office.group(0).await.group_id;

    // As long as the server is there it is refused, and nothing changes.
    let told = refused(&office.devices[0], &office.anew()).await;
    assert!(told.contains("server could serve and answers; nothing was changed"), "{told}");
    assert!(!office.kit().exists());
    assert_eq!(office.group(0).await.group_id, before);

    office.server.kill().unwrap();
    // Edits that no server ever got, on the one that begins and on another.
    write(&office.devices[0], "alone on the first").await;
    write(&office.devices[2], "alone on the third").await;
    let found = office.devices[0].panel().unwrap().look_for_servers(LookForServersRequest {}).await.unwrap();
    assert_eq!((found.get_ref().items, found.get_ref().answering.len()), (2, 0));
    let mut guide = Guide::begin(&office.devices[0], &office.anew());
    let told = guide.let_in(&office.devices[1], true).await;
    assert_eq!(told["missing"], serde_json::json!(["third"]));
    let told = guide.let_in(&office.devices[2], true).await;
    assert_eq!(told["missing"], serde_json::json!([]));
    assert!(guide.child.wait().await.unwrap().success());
    assert!(std::fs::read_to_string(office.kit()).unwrap().contains("BEGIN AGE ENCRYPTED FILE"));

    let devices = &office.devices;
    running(&devices[0], Role::ServerClient).await.unwrap();
    let group = office.group(0).await;
    assert_ne!(group.group_id, before);
    assert_eq!(group.group_name, "Office");
    for client in devices {
        current(client).await.unwrap();
        shows(client, 3).await;
        assert_eq!(client.status().await.unwrap().group.unwrap().group_id, group.group_id);
    }
    // The group is one like any other: a change goes around.
    write(&devices[1], "later").await;
    shows(&devices[2], 4).await;
    // Whoever repeats the command does not leave the group that lives.
    let (address, opened) = (devices[0].address().to_string(), open_pairing(&devices[0]).await.unwrap());
    let told = refused(&devices[1], &["join", &address, "--code", &opened.code, "--leave"]).await;
    assert!(told.contains("first could serve and answers; nothing was changed"), "{told}");
    assert_eq!(office.group(1).await.group_id, group.group_id);
}

#[tokio::test]
async fn what_was_cut_short_on_the_way_to_a_new_group_goes_on_when_it_is_said_again() {
    let mut office = Office::open().await;
    office.server.freeze().unwrap();
    // The server keeps whoever leaves waiting, and the operator does not wait: the role is left, the data is not.
    for device in &office.devices[..2] {
        let mut panel = device.panel().unwrap();
        let leaving = tokio::spawn(async move { panel.leave(LeaveRequest { accept_unsent: Some(0) }).await });
        eventually(PATIENCE, "the role to be left", async || {
            ensure!(device.status().await?.wanted() == Role::Idle, "not yet");
            Ok(())
        })
        .await
        .unwrap();
        leaving.abort();
        assert!(device.status().await.unwrap().group.is_some(), "it has left already");
    }
    office.server.thaw().unwrap();
    office.server.kill().unwrap();

    // It goes on at the first, is cut once the group is founded, and goes on again.
    let first = &office.devices[0];
    let mut panel = first.panel().unwrap();
    panel.leave(LeaveRequest { accept_unsent: Some(0) }).await.unwrap();
    let request =
        PrepareGroupRequest { group_name: "Anew".to_owned(), kit_passphrase: PASSPHRASE.to_owned() };
    let prepared = panel.prepare_group(request).await.unwrap().into_inner();
    std::fs::write(office.kit(), &prepared.recovery_kit).unwrap();
    panel.found_group(FoundGroupRequest { group_id: prepared.group_id.clone() }).await.unwrap();
    let again = [&office.anew()[..], &["--group".to_owned(), "Anew".to_owned()]].concat();
    let output = command(first, &again).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    running(first, Role::ServerClient).await.unwrap();
    assert_eq!(office.group(0).await.group_id, prepared.group_id);
    assert_eq!(std::fs::read_to_string(office.kit()).unwrap(), prepared.recovery_kit);

    let mut guide = Guide::begin(first, &["pair", "each", "--leave", "second", "third"]);
    guide.let_in(&office.devices[1], true).await;
    guide.let_in(&office.devices[2], true).await;
    assert!(guide.child.wait().await.unwrap().success());
    for device in &office.devices {
        current(device).await.unwrap();
        shows(device, 1).await;
    }
}

#[tokio::test]
async fn a_device_that_still_has_a_servers_database_begins_no_new_group() {
    let office = Office::open().await;
    office.server.panel().unwrap().stop_server(StopServerRequest {}).await.unwrap();
    running(&office.server, Role::Client).await.unwrap();
    let told = refused(&office.server, &office.anew()).await;
    assert!(told.contains("role start-server") && told.contains("nothing was changed"), "{told}");
    start_server(&office.server, "Office").await.unwrap();
    for device in &office.devices {
        current(device).await.unwrap();
    }
}

#[tokio::test]
async fn a_guide_that_is_interrupted_names_who_is_missing_and_closes_the_door() {
    let fleet = Fleet::server_only().await.unwrap();
    let mut newcomer = TestDevice::new("newcomer").unwrap();
    newcomer.start().await.unwrap();
    let mut guide = Guide::begin(&fleet.server, &["pair", "each", "newcomer", "absent"]);
    let told = guide.let_in(&newcomer, false).await;
    assert_eq!(told["missing"], serde_json::json!(["absent"]));
    assert_eq!(guide.next().await.unwrap()["missing"], serde_json::json!(["absent"]));
    let id = guide.child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), guide.child.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(1));
    let server = fleet.server.status().await.unwrap().server.unwrap();
    assert_eq!((server.pairing_seconds_left, server.devices), (None, 2));
    // Run again it goes on: one is here already.
    let mut guide = Guide::begin(&fleet.server, &["pair", "each", "newcomer"]);
    assert!(guide.child.wait().await.unwrap().success());
    assert!(guide.events.next_line().await.unwrap().is_none());
}
