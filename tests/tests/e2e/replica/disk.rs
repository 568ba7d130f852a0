//! No room, at the replica and at the server: people are told, nothing is half applied, and all goes on by
//! itself when there is room. Case 12.

use mfpsync_tests::start_server;
use mfpsync_tests::volume::{Volume, may_mount};

use super::*;

const MEBIBYTES: u32 = 24;

/// A group whose server or replica has a small disk, which comes with it; the replica has everything.
async fn on_a_small_disk(at_server: bool, durability: Durability) -> (Fleet, Volume) {
    let [mut server, mut client] = ["server", "client-1"].map(|name| TestDevice::new(name).unwrap());
    let small = if at_server { &mut server } else { &mut client };
    let disk = small.home().join("disk");
    let volume = Volume::mount(&disk, MEBIBYTES).unwrap();
    small.setup.data_dir = Some(disk.join("data"));
    for device in [&mut server, &mut client] {
        for part in ["full", "F-DISK-FULL", "storage", "push", "write the communication log"] {
            device.log.expect(part);
        }
    }
    server.log.expect("note where the database stands");
    server.log.expect("fold the write-ahead log back");
    client.log.expect("fold the copy's log");
    server.start().await.unwrap();
    start_server(&server, "Office").await.unwrap();
    let mut fleet = Fleet { server, clients: Vec::new(), relays: Vec::new() };
    fleet.add(client, JoinPolicy::Merge).await.unwrap();
    set(&fleet, 0, durability).await;
    running(&fleet.clients[0], Role::ReplicaClient).await.unwrap();
    caught_up(&fleet, 0).await;
    (fleet, volume)
}

async fn fault(device: &TestDevice, code: &str) {
    eventually(PATIENCE, "people to be told", async || device.fault(code).await).await.unwrap();
}

async fn fault_ends(device: &TestDevice, code: &str) {
    eventually(PATIENCE, "the fault to end", async || match device.fault(code).await {
        Ok(fault) => anyhow::bail!("it stands: {}", fault.text),
        Err(_none) => Ok(()),
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_full_disk_at_the_replica_holds_changes_back_and_heals_by_itself() {
    if !may_mount() {
        return skip("only root may mount the small disk this needs");
    }
    let (mut fleet, volume) = on_a_small_disk(false, Durability::SyncHold).await;
    fleet.server.log.expect("F-CHANGES-HELD");
    bulk(&fleet.server, 0..5).await;
    sent(&fleet.server).await;
    let before = caught_up(&fleet, 0).await.position;
    volume.fill().unwrap();
    // More than its log has blocks for already.
    bulk(&fleet.server, 5..40).await;
    fault(&fleet.clients[0], "F-DISK-FULL").await;
    fault(&fleet.server, "F-CHANGES-HELD").await;
    let copy = replication(&fleet.clients[0]).await.unwrap().copy.unwrap();
    let stands = copy.position.unwrap().sequence;
    assert!(stands >= before.unwrap().sequence, "{copy:?}");
    let shown = fleet.server.status().await.unwrap().server.unwrap().head.unwrap().sequence;
    assert!(shown <= stands, "{shown} was shown, the replica has {stands}");
    volume.empty().unwrap();
    sent(&fleet.server).await;
    caught_up(&fleet, 0).await;
    fault_ends(&fleet.clients[0], "F-DISK-FULL").await;
    fault_ends(&fleet.server, "F-CHANGES-HELD").await;
    is_proven(&fleet).await;
    is_the_same_file(&mut fleet, 0).await;
    drop(fleet);
    drop(volume);
}

/// Also where it has to note where it stands before it folds its log, and at every start.
#[tokio::test]
async fn a_full_disk_at_the_server_costs_the_replica_nothing() {
    if !may_mount() {
        return skip("only root may mount the small disk this needs");
    }
    let (mut fleet, volume) = on_a_small_disk(true, Durability::Async).await;
    fleet.clients[0].log.expect("the replica lost its server");
    bulk(&fleet.clients[0], 0..200).await;
    sent(&fleet.clients[0]).await;
    caught_up(&fleet, 0).await;
    volume.fill().unwrap();
    bulk(&fleet.clients[0], 200..420).await;
    fault(&fleet.server, "F-DISK-FULL").await;
    let waiting = fleet.clients[0].client_status().await.unwrap().waiting;
    assert!(waiting > 0, "what the server could not store waits at the client");
    // Killed with its disk full, it comes up so.
    fleet.server.kill().unwrap();
    fleet.server.spawn().unwrap();
    eventually(PATIENCE, "the server to answer", async || fleet.server.status().await).await.unwrap();
    volume.empty().unwrap();
    sent(&fleet.clients[0]).await;
    caught_up(&fleet, 0).await;
    fault_ends(&fleet.server, "F-DISK-FULL").await;
    is_proven(&fleet).await;
    is_the_same_file(&mut fleet, 0).await;
    drop(fleet);
    drop(volume);
}
