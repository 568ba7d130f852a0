//! The power fails at the server, at the replica, at both; the disks keep what was synced and nothing else.

use std::path::Path;

use mfpsync_storage::Inline;
use mfpsync_storage::master::{Head, Master};
use mfpsync_storage::physical::{Position, Standby};
use mfpsync_tests::power::Power;
use mfpsync_tests::start_server;

use super::*;
use crate::refused::copy_tree;

/// What a server's disk holds, seen on a copy of it.
fn master_on(device: &TestDevice) -> Head {
    let seen = tempfile::tempdir().unwrap();
    copy_tree(&device.data_dir(), &seen.path().join("data"));
    let database = Inline::<Master>::open(&seen.path().join("data/master.db"), false).unwrap();
    database.read(|read| read.founded_head()).unwrap()
}

/// What a replica's disk holds, seen on a copy of it; every page is looked at.
fn copy_on(device: &TestDevice) -> Position {
    let seen = tempfile::tempdir().unwrap();
    copy_tree(&device.data_dir().join("standby"), &seen.path().join("standby"));
    look_into(&seen.path().join("standby"))
}

fn look_into(directory: &Path) -> Position {
    let mut copy = Standby::open(directory).unwrap();
    assert!(copy.verify(&|| false).unwrap(), "the copy is torn");
    copy.position().unwrap()
}

/// A group whose first client is an ordinary one and whose second is the replica; server and replica lose
/// power as they are told to. The replica has everything.
async fn powered() -> (Fleet, Power, Power) {
    let mut server = TestDevice::new("server").unwrap();
    let server_power = Power::install(&mut server).unwrap();
    server.start().await.unwrap();
    start_server(&server, "Office").await.unwrap();
    let mut fleet = Fleet { server, clients: Vec::new(), relays: Vec::new() };
    fleet.add(TestDevice::new("client-1").unwrap(), JoinPolicy::Merge).await.unwrap();
    let mut replica = TestDevice::new("client-2").unwrap();
    let replica_power = Power::install(&mut replica).unwrap();
    fleet.add(replica, JoinPolicy::Merge).await.unwrap();
    fleet.server.log.expect("F-CHANGES-HELD");
    // Cut off right at its start, it has not yet checked what it had before.
    fleet.clients[1].log.expect("the copy is not what was written");
    set(&fleet, 1, Durability::SyncHold).await;
    running(&fleet.clients[1], Role::ReplicaClient).await.unwrap();
    caught_up(&fleet, 1).await;
    (fleet, server_power, replica_power)
}

async fn shown(fleet: &Fleet) -> u64 {
    fleet.server.status().await.unwrap().server.unwrap().head.unwrap().sequence
}

/// I-11 and I-16, cases 7, 8 and 13: without a sync at the right place something acknowledged is gone, or
/// the replica has what its server lost.
#[tokio::test]
async fn i_16_a_power_failure_loses_nothing_acknowledged_and_leaves_no_copy_ahead() {
    let (mut fleet, server_power, replica_power) = powered().await;
    let seed = seed();
    println!("seed {seed} (MFPSYNC_SEED={seed} replays its choices)");
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..rounds(6, 200) {
        write(&fleet.clients[0], round * 8..round * 8 + 8).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..120))).await;
        let acknowledged = shown(&fleet).await;
        let [at_server, at_replica] = [[true, true], [true, false], [false, true]][round as usize % 3];
        if at_server {
            server_power.cut(&mut fleet.server).unwrap();
        }
        if at_replica {
            replica_power.cut(&mut fleet.clients[1]).unwrap();
        }
        let copied = if at_replica {
            copy_on(&fleet.clients[1]).sequence.0
        } else {
            replication(&fleet.clients[1]).await.unwrap().copy.unwrap().position.unwrap().sequence
        };
        assert!(copied >= acknowledged, "{acknowledged} was shown, the replica has {copied}");
        if at_server {
            let kept = master_on(&fleet.server).sequence.0;
            assert!(kept >= acknowledged, "{acknowledged} was shown, the server has {kept}");
            assert!(copied <= kept, "the replica has {copied}, its server {kept}");
            fleet.server.start().await.unwrap();
        }
        if at_replica {
            fleet.clients[1].start().await.unwrap();
        }
        sent(&fleet.clients[0]).await;
        caught_up(&fleet, 1).await;
    }
    fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
    is_proven(&fleet).await;
    is_the_same_file(&mut fleet, 1).await;
}

/// Waits until a file is longer than it was.
async fn grows(file: &Path, before: u64) {
    eventually(PATIENCE, "something to be written", async || {
        let bytes = std::fs::metadata(file)?.len();
        ensure!(bytes > before, "{bytes} bytes");
        Ok(())
    })
    .await
    .unwrap();
}

/// What a killed process wrote and did not sync, the next one finds; the disk may still forget it.
#[tokio::test]
async fn what_a_killed_server_did_not_sync_is_not_sent_before_it_is() {
    let (mut fleet, power, _) = powered().await;
    let log = fleet.server.data_dir().join("master.db-wal");
    let before = shown(&fleet).await;
    let bytes = std::fs::metadata(&log).unwrap().len();
    power.stall(Some("master.db-wal")).unwrap();
    write(&fleet.clients[0], 0..1).await;
    grows(&log, bytes).await;
    fleet.server.kill().unwrap();
    power.stall(None).unwrap();
    // Nobody makes it write again.
    fleet.clients[0].kill().unwrap();
    fleet.server.start().await.unwrap();
    let copied = eventually(PATIENCE, "the replica to have it", async || {
        let copy = replication(&fleet.clients[1]).await?.copy.context("no copy")?;
        let sequence = copy.position.context("no position")?.sequence;
        ensure!(copy.connected && sequence > before, "{copy:?}");
        Ok(sequence)
    })
    .await
    .unwrap();
    power.cut(&mut fleet.server).unwrap();
    let kept = master_on(&fleet.server).sequence.0;
    assert!(copied <= kept, "the replica has {copied}, its server {kept}");
    fleet.server.start().await.unwrap();
    fleet.clients[0].start().await.unwrap();
    sent(&fleet.clients[0]).await;
    is_the_same_file(&mut fleet, 1).await;
}

#[tokio::test]
async fn what_a_killed_replica_did_not_sync_is_not_confirmed_before_it_is() {
    let (mut fleet, _, power) = powered().await;
    let log = copy_file(&fleet.clients[1]).with_extension("db-wal");
    let before = shown(&fleet).await;
    let bytes = std::fs::metadata(&log).unwrap().len();
    power.stall(Some("standby-1.db-wal")).unwrap();
    write(&fleet.clients[0], 0..1).await;
    grows(&log, bytes).await;
    assert_eq!(shown(&fleet).await, before);
    fleet.clients[1].kill().unwrap();
    // Nor is its log synced for being folded.
    power.stall(Some("standby.pos.tmp")).unwrap();
    fleet.clients[1].start().await.unwrap();
    let confirmed = eventually(PATIENCE, "the replica to confirm it", async || {
        let sequence = replica(&fleet).await?.safe.context("nothing is safe")?.sequence;
        ensure!(sequence > before, "{sequence}");
        Ok(sequence)
    })
    .await
    .unwrap();
    power.cut(&mut fleet.clients[1]).unwrap();
    let kept = copy_on(&fleet.clients[1]).sequence.0;
    assert!(kept >= confirmed, "{confirmed} was confirmed, the replica has {kept}");
    fleet.clients[1].start().await.unwrap();
    sent(&fleet.clients[0]).await;
    is_the_same_file(&mut fleet, 1).await;
}
