//! Every device that could serve is lost, and the recovery kit as well: a new group of what the devices have.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mfpsync_proto::panel::{JoinPolicy, LookForServersRequest, Role};
use mfpsync_tests::item::{key, put, text};
use mfpsync_tests::{
    Fleet, PASSPHRASE, PATIENCE, TestDevice, command_path, current, eventually, join, open_pairing, running,
    start_server,
};
use serde_json::Value as Json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const USER: &str = "user/alice";

fn command(device: &TestDevice, arguments: &[&str]) -> Command {
    let mut command = Command::new(command_path().unwrap());
    command.arg("--run").arg(device.run_dir()).args(["--json", "--timeout", "60"]).args(arguments);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A command that tells what goes on, an object a line.
struct Guide {
    child: Child,
    events: Lines<BufReader<ChildStdout>>,
}

impl Guide {
    fn begin(device: &TestDevice, arguments: &[&str]) -> Self {
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

#[tokio::test]
async fn without_server_and_kit_a_new_group_begins_with_what_the_devices_have() {
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
    let file = |name: &str| home.path().join(name).display().to_string();
    std::fs::write(file("passphrase"), PASSPHRASE).unwrap();
    let kit = file("kit.age");
    let passphrase = file("passphrase");
    let anew = ["recover", "--without-kit", "--new-kit", &*kit, "--passphrase-file", &*passphrase, "--yes"];
    let before = devices[0].status().await.unwrap().group.unwrap().group_id;

    // As long as the server is there it is refused, and nothing changes.
    let refused = command(&devices[0], &anew).output().await.unwrap();
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(told.contains("server could serve and answers; nothing was changed"), "{told}");
    assert!(!std::path::Path::new(&kit).exists());
    assert_eq!(devices[0].status().await.unwrap().group.unwrap().group_id, before);

    server.kill().unwrap();
    // Edits that no server ever got, on the one that begins and on another.
    write(&devices[0], "alone on the first").await;
    write(&devices[2], "alone on the third").await;
    let found = devices[0].panel().unwrap().look_for_servers(LookForServersRequest {}).await.unwrap();
    assert_eq!((found.get_ref().items, found.get_ref().answering.len()), (2, 0));
    let mut guide = Guide::begin(&devices[0], &anew);
    let told = guide.let_in(&devices[1], true).await;
    assert_eq!(told["missing"], serde_json::json!(["third"]));
    let told = guide.let_in(&devices[2], true).await;
    assert_eq!(told["missing"], serde_json::json!([]));
    assert!(guide.child.wait().await.unwrap().success());
    assert!(std::fs::read_to_string(&kit).unwrap().contains("BEGIN AGE ENCRYPTED FILE"));

    let first = &devices[0];
    running(first, Role::ServerClient).await.unwrap();
    let group = first.status().await.unwrap().group.unwrap();
    assert_ne!(group.group_id, before);
    assert_eq!(group.group_name, "Office");
    for client in &devices {
        current(client).await.unwrap();
        shows(client, 3).await;
        assert_eq!(client.status().await.unwrap().group.unwrap().group_id, group.group_id);
    }
    // The group is one like any other: a change goes around.
    write(&devices[1], "later").await;
    shows(&devices[2], 4).await;
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
