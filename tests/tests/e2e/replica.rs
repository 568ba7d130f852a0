//! A replica of a real server: set by the operator, followed through kills, cuts and lost copies, proven,
//! and waited for where that was asked for.
//!
//! What can befall a copy, and which test would fail if it were not guarded against. Those that need no whole
//! device are in `storage` (`pages`: `src/physical/pages/tests.rs`; `tap`, `standby`, `faults`, `crash`,
//! `golden`: `tests/proof`) and `replication` (`ship`: `src/ship/tests.rs` and below; `batch`).
//!
//! | What | Test |
//! |---|---|
//! | 1 a reader stays for long under load | `faults::the_log_stays_bounded_beside_slow_readers`, `pages::a_reader_that_holds_the_log_hides_nothing` |
//! | 2, 3 the log starts over, or could not, between two commits | `pages::a_reader_that_holds_the_log_hides_nothing` |
//! | 4 another writer, or nobody reports commits | `tap::what_another_program_writes_or_folds_meanwhile_begins_a_new_run`, `tap::a_commit_that_nobody_reported_is_noticed` |
//! | 5 another program at the server's database | `tap::what_another_program_did_around_the_end_begins_a_new_run`, `strangers` |
//! | 6 locks given up by a look at a file | `tap::following_a_database_and_ending_that_gives_up_none_of_its_locks`, `strangers` |
//! | 7 killed at any step | `pages::an_anchor_leads_to_the_same_place_after_a_crash`, `standby::torn::a_fold_cut_anywhere_ends_at_the_same_position`, `whoever_is_killed_whenever_the_copy_is_the_master_in_the_end` |
//! | 8, 13 what was not synced is lost | `power` |
//! | 9 a transaction larger than all that is kept | `ship::a_transaction_larger_than_all_that_is_kept_arrives_in_parts` |
//! | 10 undone transactions and savepoints | `pages::a_copy_follows_through_growth_deletion_vacuum_and_schema_changes` |
//! | 11 growth, beyond 1 GiB too, `VACUUM`, new schemas | the same, `standby::the_copy_is_the_sources_bytes_through_growth_shrinking_and_new_tables`, case 9's in a campaign, `strangers` |
//! | 12 no room | `disk`, `standby::torn::a_full_device_leaves_the_copy_as_it_was_and_it_goes_on_when_there_is_room` |
//! | 14 a bit flips: in the copy, in its log, on the way | `a_page_that_rotted_is_found_by_a_proof_or_a_start_and_mended`, `standby::torn::a_bit_that_flips_in_the_log_of_an_open_copy_is_found`, `ship::mishaps::a_bit_that_flips_on_the_way_is_never_committed` |
//! | 15 a torn log | `standby::torn::a_log_cut_at_any_byte_of_the_last_transaction_leads_to_the_one_before`, `standby::torn::a_byte_changed_anywhere_in_the_last_transaction_voids_it` |
//! | 16 a change to another page | `batch::a_change_goes_onto_no_other_page`, `ship::whatever_happens_the_copy_becomes_the_database` |
//! | 17 the set of pages lost, stale, damaged | `ship::mishaps::a_set_of_pages_that_is_lost_damaged_or_of_another_time_leaves_no_hole` |
//! | 18 another program at the copy | `standby::shared::other_programs_are_kept_out_while_the_copy_is_open`, `standby::shared::a_log_removed_or_cut_while_the_copy_is_open_is_noticed` |
//! | 19 cuts, silence, slow links, lost packets | `network`, `failover::under_load`, `ship::whatever_happens_the_copy_becomes_the_database` |
//! | 20 a slow replica | `network`, `ship::changes_wait_for_two_on_their_way_and_are_merged` |
//! | 21 away for long | `ship::a_replica_that_is_away_for_long_costs_the_server_a_bit_for_each_page` |
//! | 22 other addresses, wrong clocks | `network` |
//! | 33 reading the copy while it changes | `ship::mishaps::a_proof_under_load_sees_one_position_and_nothing_of_the_next` |

mod disk;
mod network;
mod power;
mod strangers;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mfpsync_proto::panel::{
    CopyStatus, Durability, JoinPolicy, ProveReplicaRequest, ReplicationReply, ReplicationRequest,
    ReplicationStatus, Role, SetReplicationRequest, StopReplicationRequest,
};
use mfpsync_tests::item::{bytes, key, put, text};
use mfpsync_tests::{Fleet, PATIENCE, TestDevice, current, eventually, rounds, running, seed, skip};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tonic::Code;

async fn replication(device: &TestDevice) -> Result<ReplicationReply> {
    Ok(device.panel()?.replication(ReplicationRequest {}).await?.into_inner())
}

async fn replica(fleet: &Fleet) -> Result<ReplicationStatus> {
    replication(&fleet.server).await?.replica.context("no replica is set")
}

pub(crate) async fn set(fleet: &Fleet, client: usize, durability: Durability) {
    let device_id = fleet.clients[client].status().await.unwrap().device_id;
    let request = SetReplicationRequest {
        device_id,
        durability: durability.into(),
        ..SetReplicationRequest::default()
    };
    fleet.server.panel().unwrap().set_replication(request).await.unwrap();
}

/// A group whose last client is the replica and has everything.
pub(crate) async fn with_replica(clients: usize, durability: Durability) -> Fleet {
    let fleet = Fleet::start(clients).await.unwrap();
    set(&fleet, clients - 1, durability).await;
    running(&fleet.clients[clients - 1], Role::ReplicaClient).await.unwrap();
    caught_up(&fleet, clients - 1).await;
    fleet
}

/// Waits until the replica has what the server has, on stable storage.
pub(crate) async fn caught_up(fleet: &Fleet, client: usize) -> CopyStatus {
    eventually(PATIENCE, "the replica to have everything", async || {
        let status = replica(fleet).await?;
        ensure!(status.connected && status.live, "{status:?}");
        ensure!(status.behind == Some(0) && status.behind_millis.is_none(), "{status:?}");
        let copy = replication(&fleet.clients[client]).await?.copy.context("it is no replica")?;
        ensure!(copy.position == status.safe, "{copy:?} {status:?}");
        Ok(copy)
    })
    .await
    .unwrap()
}

async fn write(device: &TestDevice, items: std::ops::Range<u32>) {
    for item in items {
        let edit = put(key("user/alice", "address.personal", &item.to_string()), vec![text("name", "Alice")]);
        device.write(vec![edit]).await.unwrap();
    }
}

/// As many items of 16 kB that do not pack.
async fn bulk(device: &TestDevice, items: std::ops::Range<u32>) {
    for item in items {
        let mut content = vec![0; 16_000];
        StdRng::seed_from_u64(item.into()).fill(&mut content[..]);
        let edit = put(key("shared", "shortcut", &format!("bulk-{item}")), vec![bytes("value", &content)]);
        device.write(vec![edit]).await.unwrap();
    }
}

async fn sent(device: &TestDevice) {
    eventually(PATIENCE, "all edits to be taken", async || {
        let waiting = device.client_status().await?.waiting;
        ensure!(waiting == 0, "{waiting} wait");
        Ok(())
    })
    .await
    .unwrap();
}

/// Has the copy proven, at a moment when the replica has everything.
pub(crate) async fn is_proven(fleet: &Fleet) {
    let proof = eventually(PATIENCE, "the copy to be proven", async || {
        let reply = fleet.server.panel()?.prove_replica(ProveReplicaRequest {}).await?;
        reply.into_inner().proof.context("no proof")
    });
    assert_eq!(proof.await.unwrap().wrong, "");
}

fn copy_file(device: &TestDevice) -> PathBuf {
    let directory = std::fs::read_dir(device.data_dir().join("standby")).unwrap();
    let mut files: Vec<_> = directory.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "db"));
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

/// Ends both and compares the files.
async fn is_the_same_file(fleet: &mut Fleet, client: usize) {
    // Whoever connects late has the server write how far it is, perhaps just when it stops.
    for device in fleet.devices() {
        current(device).await.unwrap();
    }
    caught_up(fleet, client).await;
    fleet.server.stop().await.unwrap();
    fleet.clients[client].stop().await.unwrap();
    let master = std::fs::read(fleet.server.master_database()).unwrap();
    let copy = std::fs::read(copy_file(&fleet.clients[client])).unwrap();
    assert!(master == copy, "the copy of {} bytes is not the master of {}", copy.len(), master.len());
}

/// I-11, at the end of everything.
#[tokio::test]
async fn i_11_a_client_becomes_the_replica_and_its_copy_is_the_master_byte_for_byte() {
    let mut fleet = Fleet::start(2).await.unwrap();
    write(&fleet.clients[0], 0..40).await;
    sent(&fleet.clients[0]).await;
    set(&fleet, 1, Durability::Unspecified).await;
    running(&fleet.clients[1], Role::ReplicaClient).await.unwrap();
    caught_up(&fleet, 1).await;
    write(&fleet.clients[0], 20..60).await;
    sent(&fleet.clients[0]).await;
    caught_up(&fleet, 1).await;
    is_proven(&fleet).await;
    let safe = fleet.server.status().await.unwrap().server.unwrap();
    assert_eq!(safe.safe, safe.head);
    eventually(PATIENCE, "what is safe to be let go", async || {
        let retained = fleet.clients[0].client_status().await?.retained;
        ensure!(retained == 0, "{retained} retained");
        Ok(())
    })
    .await
    .unwrap();
    is_the_same_file(&mut fleet, 1).await;
}

#[tokio::test]
async fn a_replica_that_was_away_gets_what_it_lacks_and_one_that_lost_its_copy_gets_all() {
    let mut fleet = with_replica(2, Durability::Async).await;
    fleet.cut(1).await.unwrap();
    write(&fleet.clients[0], 0..50).await;
    sent(&fleet.clients[0]).await;
    let away = replica(&fleet).await.unwrap();
    assert!(!away.live && away.behind.is_some_and(|behind| behind >= 50), "{away:?}");
    fleet.mend(1).await.unwrap();
    caught_up(&fleet, 1).await;

    fleet.clients[1].kill().unwrap();
    write(&fleet.clients[0], 50..60).await;
    sent(&fleet.clients[0]).await;
    fleet.clients[1].start().await.unwrap();
    caught_up(&fleet, 1).await;

    fleet.server.kill().unwrap();
    fleet.server.start().await.unwrap();
    write(&fleet.clients[0], 60..70).await;
    sent(&fleet.clients[0]).await;
    caught_up(&fleet, 1).await;

    fleet.clients[1].stop().await.unwrap();
    std::fs::remove_dir_all(fleet.clients[1].data_dir().join("standby")).unwrap();
    fleet.clients[1].start().await.unwrap();
    is_the_same_file(&mut fleet, 1).await;
}

#[tokio::test]
async fn a_page_that_rotted_is_found_by_a_proof_or_a_start_and_mended() {
    let mut fleet = with_replica(2, Durability::Async).await;
    write(&fleet.clients[0], 0..30).await;
    sent(&fleet.clients[0]).await;
    caught_up(&fleet, 1).await;
    fleet.clients[1].stop().await.unwrap();
    let file = copy_file(&fleet.clients[1]);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&file, bytes).unwrap();
    fleet.clients[1].log.expect("the copy is not what was written");
    fleet.clients[1].start().await.unwrap();
    is_the_same_file(&mut fleet, 1).await;
}

#[tokio::test]
async fn a_proof_whose_replica_is_lost_ends_and_the_next_one_succeeds() {
    let mut fleet = with_replica(1, Durability::Async).await;
    bulk(&fleet.server, 0..100).await;
    sent(&fleet.server).await;
    for cut in [true, false, true] {
        caught_up(&fleet, 0).await;
        let mut panel = fleet.server.panel().unwrap();
        let (relay, client) = (&fleet.relays[0], &mut fleet.clients[0]);
        let lost = async {
            if cut {
                relay.cut();
                relay.mend();
            } else {
                client.kill().unwrap();
                client.start().await.unwrap();
            }
        };
        let (answer, ()) = tokio::join!(panel.prove_replica(ProveReplicaRequest {}), lost);
        if let Err(status) = answer {
            assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        }
        is_proven(&fleet).await;
    }
}

/// I-16: followers are not shown it either.
#[tokio::test]
async fn i_16_with_sync_nothing_is_acknowledged_that_the_replica_does_not_have() {
    let mut fleet = with_replica(2, Durability::SyncHold).await;
    write(&fleet.clients[0], 0..5).await;
    sent(&fleet.clients[0]).await;
    let protected = caught_up(&fleet, 1).await;
    fleet.server.log.expect("F-CHANGES-HELD");
    fleet.clients[1].kill().unwrap();
    write(&fleet.clients[0], 5..6).await;
    eventually(PATIENCE, "the replica to be missed", async || {
        ensure!(!replica(&fleet).await?.connected, "it is not");
        Ok(())
    })
    .await
    .unwrap();
    eventually(PATIENCE, "people to be told", async || {
        let faults = fleet.server.status().await?.faults;
        ensure!(faults.iter().any(|fault| fault.code == "F-CHANGES-HELD"), "{faults:?}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(fleet.clients[0].client_status().await.unwrap().waiting, 1);
    let server = fleet.server.status().await.unwrap();
    assert_eq!(server.server.unwrap().head, protected.position, "shown before it was safe");
    // Nor after it starts again: whoever was not answered yet is told by the replica's return.
    fleet.server.kill().unwrap();
    fleet.server.start().await.unwrap();
    write(&fleet.clients[0], 6..7).await;
    fleet.clients[1].start().await.unwrap();
    sent(&fleet.clients[0]).await;
    caught_up(&fleet, 1).await;
    fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
    assert!(fleet.server.status().await.unwrap().faults.is_empty());
}

#[tokio::test]
async fn i_16_going_on_without_the_replica_is_shown_and_recorded() {
    let mut fleet = with_replica(2, Durability::SyncContinue).await;
    fleet.server.log.expect("F-UNPROTECTED");
    write(&fleet.clients[0], 0..5).await;
    sent(&fleet.clients[0]).await;
    fleet.clients[1].kill().unwrap();
    write(&fleet.clients[0], 5..8).await;
    sent(&fleet.clients[0]).await;
    let status = replica(&fleet).await.unwrap();
    assert!(status.unprotected, "{status:?}");
    let faults = fleet.server.status().await.unwrap().faults;
    assert!(faults.iter().any(|fault| fault.code == "F-UNPROTECTED"), "{faults:?}");
    fleet.clients[1].start().await.unwrap();
    caught_up(&fleet, 1).await;
    eventually(PATIENCE, "protection to be back", async || {
        let reply = replication(&fleet.server).await?;
        ensure!(!reply.replica.as_ref().is_some_and(|replica| replica.unprotected), "{reply:?}");
        let [range] = reply.unprotected.as_slice() else { anyhow::bail!("{:?}", reply.unprotected) };
        ensure!(range.through.is_some_and(|through| through >= range.after + 3), "{range:?}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_server_whose_disk_was_put_back_does_not_overwrite_the_copy_that_knows_more() {
    let mut fleet = with_replica(1, Durability::Async).await;
    fleet.server.stop().await.unwrap();
    let older = std::fs::read(fleet.server.master_database()).unwrap();
    fleet.server.start().await.unwrap();
    caught_up(&fleet, 0).await;
    write(&fleet.clients[0], 0..5).await;
    sent(&fleet.clients[0]).await;
    let knows = caught_up(&fleet, 0).await.position;
    fleet.server.stop().await.unwrap();
    std::fs::write(fleet.server.master_database(), older).unwrap();
    fleet.server.log.expect("F-ROLLED-BACK");
    for device in [&mut fleet.server, &mut fleet.clients[0]] {
        device.log.expect("rolled");
        device.log.expect("F-REFUSED");
    }
    fleet.server.start().await.unwrap();
    eventually(PATIENCE, "the server to see that it is behind", async || {
        let faults = fleet.server.status().await?.faults;
        let told = |text: &str| text.contains("the replica, device");
        ensure!(faults.iter().any(|fault| fault.code == "F-ROLLED-BACK" && told(&fault.text)), "{faults:?}");
        Ok(())
    })
    .await
    .unwrap();
    let copy = replication(&fleet.clients[0]).await.unwrap().copy.unwrap();
    assert_eq!(copy.position, knows);
}

#[tokio::test]
async fn replication_is_stopped_while_the_replica_is_dead_and_set_anew() {
    let mut fleet = with_replica(2, Durability::SyncHold).await;
    fleet.clients[1].kill().unwrap();
    let mut panel = fleet.server.panel().unwrap();
    let stopped = panel.stop_replication(StopReplicationRequest {}).await.unwrap().into_inner();
    assert_eq!(stopped.device_name, "client-2");
    write(&fleet.clients[0], 0..5).await;
    sent(&fleet.clients[0]).await;
    fleet.clients[1].start().await.unwrap();
    running(&fleet.clients[1], Role::Client).await.unwrap();
    let id = fleet.server.status().await.unwrap().device_id;
    let own = SetReplicationRequest { device_id: id, ..SetReplicationRequest::default() };
    assert_eq!(panel.set_replication(own).await.unwrap_err().code(), Code::FailedPrecondition);
    set(&fleet, 1, Durability::Async).await;
    running(&fleet.clients[1], Role::ReplicaClient).await.unwrap();
    is_the_same_file(&mut fleet, 1).await;
}

#[tokio::test]
async fn whoever_is_killed_whenever_the_copy_is_the_master_in_the_end() {
    let mut fleet = with_replica(2, Durability::SyncHold).await;
    fleet.server.log.expect("F-CHANGES-HELD");
    // Killed right at its start, it has not yet checked what it had before.
    fleet.clients[1].log.expect("the copy is not what was written");
    let seed = seed();
    println!("seed {seed} (MFPSYNC_SEED={seed} replays its choices)");
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..rounds(200, 1_000) {
        write(&fleet.clients[0], round * 5..round * 5 + 5).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..60))).await;
        let killed = match random.random_range(0..3) {
            0 => &mut fleet.server,
            1 => &mut fleet.clients[1],
            _ => {
                fleet.server.kill().unwrap();
                fleet.server.start().await.unwrap();
                &mut fleet.clients[1]
            }
        };
        killed.kill().unwrap();
        killed.start().await.unwrap();
    }
    sent(&fleet.clients[0]).await;
    fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
    caught_up(&fleet, 1).await;
    is_proven(&fleet).await;
    is_the_same_file(&mut fleet, 1).await;
}
