//! Servers found by name, and a server that moved, on networks of their own with IPv4 and IPv6.
//!
//! Needs the right to make network namespaces; says so and proves nothing where it lacks.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use mdns_sd::{ServiceDaemon, ServiceInfo};
use mfpsync_daemon::discovery::Announcement;
use mfpsync_proto::panel::client_status::Link;
use mfpsync_proto::panel::{JoinRequest, Role};
use mfpsync_storage::model::GroupId;
use mfpsync_tests::item::{key, put, text};
use mfpsync_tests::lan::Lan;
use mfpsync_tests::{
    PATIENCE, TestDevice, command_path, current, eventually, open_pairing, running, skip, start_server,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

fn lan(name: &str) -> Option<Lan> {
    Lan::new(name).inspect_err(|error| skip(&format!("no network of its own: {error:#}"))).ok()
}

async fn device(name: &str, namespace: &str, port: u16) -> TestDevice {
    let mut device = TestDevice::new(name).unwrap();
    device.setup.namespace = Some(namespace.to_owned());
    device.setup.discovery = true;
    device.setup.listen = vec![format!("[::]:{port}").parse().unwrap()];
    device.start().await.unwrap();
    device
}

fn mfpsync(device: &TestDevice, words: &[&str]) -> Output {
    let mut command = Command::new(command_path().unwrap());
    command.arg("--run").arg(device.run_dir()).args(words).output().unwrap()
}

/// What `mfpsync discover` shows.
fn discovered(device: &TestDevice) -> Result<Vec<Value>> {
    let output = mfpsync(device, &["discover", "--seconds", "2", "--json"]);
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    answer["servers"].as_array().cloned().context("no list of servers")
}

fn addresses(server: &Value) -> Vec<String> {
    server["addresses"].as_array().unwrap().iter().map(|at| at.as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_are_shown_by_name_and_joined_by_code_alone() {
    let Some(mut lan) = lan("mfpname") else { return };
    let machines = [
        lan.machine(&["10.77.1.1/24", "fd77:1::1/64"]).unwrap(),
        lan.machine(&["10.77.1.2/24"]).unwrap(),
        lan.machine(&["10.77.1.3/24", "fd77:1::3/64"]).unwrap(),
    ];
    let mut one = device("copier", &machines[0], 7450).await;
    one.log.expect("error=wrong pairing code");
    let other = device("printer", &machines[1], 7451).await;
    let client = device("newcomer", &machines[2], 7452).await;
    start_server(&one, "Office").await.unwrap();
    start_server(&other, "Branch").await.unwrap();

    let code = open_pairing(&one).await.unwrap().code;
    let servers = eventually(PATIENCE, "both servers to be seen", async || {
        let servers = discovered(&client)?;
        let names: Vec<_> = servers.iter().filter_map(|server| server["name"].as_str()).collect();
        ensure!(names == ["copier", "printer"], "{names:?}");
        ensure!(servers[0]["pairing_open"] == true, "the open window was not seen yet");
        Ok(servers)
    })
    .await
    .unwrap();
    assert_eq!((&servers[0]["group_name"], &servers[1]["group_name"]), (&"Office".into(), &"Branch".into()));
    assert_eq!(servers[1]["pairing_open"], false);
    assert!(servers.iter().all(|server| server["own_group"] == false));
    let at = addresses(&servers[0]);
    assert_eq!(at[..2], ["10.77.1.1:7450", "[fd77:1::1]:7450"], "{at:?}");
    assert_eq!(addresses(&servers[1])[0], "10.77.1.2:7451");

    let wrong = if code == "00000000" { "11111111" } else { "00000000" };
    let refused = mfpsync(&client, &["join", "copier", "--code", wrong]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("wrong pairing code"), "{told}");
    assert_eq!(client.status().await.unwrap().wanted(), Role::Idle);
    let unknown = mfpsync(&client, &["join", "scanner", "--code", wrong]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("printer (group Branch)"));

    let joined = mfpsync(&client, &["join", "copier", "--code", &code]);
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    current(&client).await.unwrap();
    assert_eq!(client.status().await.unwrap().group.unwrap().group_name, "Office");
    eventually(PATIENCE, "its own group to be told from the other", async || {
        let servers = discovered(&client)?;
        let own: Vec<_> = servers.iter().map(|server| server["own_group"] == true).collect();
        ensure!(own == [true, false], "{servers:?}");
        Ok(())
    })
    .await
    .unwrap();
}

/// A machine that announces itself as the group's server and lets connections hang.
struct Impostor {
    dialled: Arc<AtomicUsize>,
    responder: ServiceDaemon,
}

impl Impostor {
    fn start(namespace: &str, group: GroupId) -> Result<Self> {
        let place = File::open(format!("/run/netns/{namespace}"))?;
        let dialled = Arc::new(AtomicUsize::new(0));
        let counter = dialled.clone();
        // Only this thread, and the responder's that it starts, live in the namespace.
        let started = std::thread::spawn(move || -> Result<ServiceDaemon> {
            move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network))?;
            let listener = TcpListener::bind(("0.0.0.0", 7450))?;
            let responder = ServiceDaemon::new()?;
            let said = Announcement::new("copier", "Office", group, [9; 8]);
            let txt: std::collections::HashMap<String, String> =
                said.to_txt().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let service = "_mfpsync._tcp.local.";
            let info = ServiceInfo::new(service, "impostor", "impostor.local.", "10.77.2.66", 7450, txt)?;
            responder.register(info)?;
            std::thread::spawn(move || {
                let mut held = Vec::new();
                while let Ok((connection, _)) = listener.accept() {
                    counter.fetch_add(1, Ordering::SeqCst);
                    held.push(connection);
                }
            });
            Ok(responder)
        });
        let responder = started.join().map_err(|_| anyhow::anyhow!("the impostor's thread panicked"))??;
        Ok(Self { dialled, responder })
    }

    fn dialled(&self) -> usize {
        self.dialled.load(Ordering::SeqCst)
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        drop(self.responder.shutdown());
    }
}

fn group_of(hex: &str) -> GroupId {
    let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
    GroupId(bytes.try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moved_server_is_found_without_a_command_and_an_impostor_is_not_followed() {
    let Some(mut lan) = lan("mfpmove") else { return };
    let at_server = lan.machine(&["10.77.2.1/24", "fd77:2::1/64"]).unwrap();
    let at_client = lan.machine(&["10.77.2.2/24", "fd77:2::2/64"]).unwrap();
    let at_impostor = lan.machine(&["10.77.2.66/24"]).unwrap();
    let mut server = device("copier", &at_server, 7450).await;
    let client = device("client", &at_client, 7451).await;
    start_server(&server, "Office").await.unwrap();
    let code = open_pairing(&server).await.unwrap().code;
    let request = JoinRequest { address: "10.77.2.1:7450".to_owned(), code, ..JoinRequest::default() };
    client.panel().unwrap().join(request).await.unwrap();
    current(&client).await.unwrap();

    server.stop().await.unwrap();
    let group = group_of(&client.status().await.unwrap().group.unwrap().group_id);
    let impostor = Impostor::start(&at_impostor, group).unwrap();
    eventually(PATIENCE, "the impostor to be dialled", async || {
        ensure!(impostor.dialled() > 0, "not yet");
        Ok(())
    })
    .await
    .unwrap();
    let status = client.client_status().await.unwrap();
    assert!(matches!(status.link(), Link::Connecting | Link::Waiting), "{:?}", status.link());

    lan.readdress(&at_server, &["10.77.2.9/24", "fd77:2::9/64"]).unwrap();
    server.setup.listen = vec!["[::]:7999".parse().unwrap()];
    server.start().await.unwrap();
    running(&server, Role::ServerClient).await.unwrap();
    current(&server).await.unwrap();
    eventually(PATIENCE * 2, "the client to find its server", async || current(&client).await).await.unwrap();
    client.write(vec![put(key("shared", "setting", "moved"), vec![text("value", "yes")])]).await.unwrap();
    let place = client.client_status().await.unwrap().server_address;
    assert!(place.ends_with(":7999"), "{place}");
    assert!(impostor.dialled() <= 2, "dialled {} times", impostor.dialled());
    assert!(client.status().await.unwrap().faults.is_empty());

    // The server signed where it is now: known from the membership, not from the hint.
    let devices = mfpsync(&client, &["devices"]);
    let told = String::from_utf8_lossy(&devices.stdout).into_owned();
    assert!(told.contains("10.77.2.9:7999") && !told.contains("10.77.2.1:"), "{told}");

    // A lease that changes while the server runs is signed as well.
    lan.readdress(&at_server, &["10.77.2.10/24", "fd77:2::10/64"]).unwrap();
    eventually(PATIENCE * 2, "the new lease to be known to the client", async || {
        let told = mfpsync(&client, &["devices"]);
        ensure!(String::from_utf8_lossy(&told.stdout).contains("10.77.2.10:7999"), "not yet");
        Ok(())
    })
    .await
    .unwrap();
}
