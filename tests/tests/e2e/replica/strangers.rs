//! Other programs at the databases, and the locks that tell them of ours. Cases 4 to 6, 11 and 18.

use std::process::Command;

use mfpsync_proto::monitor::MetricsRequest;
use mfpsync_tests::locks;

use super::*;
use crate::monitor::monitor;

/// Has another program use a database; false if there is none here.
fn stock(database: &std::path::Path, sql: &str) -> bool {
    match Command::new("sqlite3").arg(database).arg(sql).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            skip("there is no sqlite3");
            false
        }
        output => {
            let output = output.unwrap();
            assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
            true
        }
    }
}

fn noticed(fleet: &Fleet) -> usize {
    fleet.server.log.text().matches("another program used the database").count()
}

#[tokio::test]
async fn what_another_program_does_to_the_servers_database_is_noticed_and_copied() {
    let mut fleet = with_replica(2, Durability::Async).await;
    fleet.server.log.expect("another program used the database");
    let database = fleet.server.master_database();
    let mut item = 0;
    let mut changed = async |fleet: &Fleet| {
        item += 5;
        write(&fleet.clients[0], item..item + 5).await;
        sent(&fleet.clients[0]).await;
        caught_up(fleet, 1).await;
        is_proven(fleet).await;
    };
    for (number, sql) in [
        "CREATE TABLE stranger (x); INSERT INTO stranger VALUES (randomblob(20000))",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "DELETE FROM stranger; PRAGMA wal_checkpoint(TRUNCATE)",
    ]
    .into_iter()
    .enumerate()
    {
        if !stock(&database, sql) {
            return;
        }
        changed(&fleet).await;
        assert!(noticed(&fleet) > number, "{sql} was not noticed");
    }
    // While it is down, after a kill and after an end.
    fleet.server.kill().unwrap();
    stock(&database, "INSERT INTO stranger VALUES (randomblob(30000))");
    fleet.server.start().await.unwrap();
    changed(&fleet).await;
    fleet.server.stop().await.unwrap();
    stock(&database, "DROP TABLE stranger");
    fleet.server.start().await.unwrap();
    changed(&fleet).await;
    is_the_same_file(&mut fleet, 1).await;
}

/// A new release's migration is no other than these to the copy: new tables, new columns, moved pages.
#[tokio::test]
async fn a_database_that_grew_was_vacuumed_or_got_another_schema_is_copied() {
    let mut fleet = with_replica(2, Durability::Async).await;
    let database = fleet.server.master_database();
    bulk(&fleet.server, 0..60).await;
    sent(&fleet.server).await;
    for sql in [
        "CREATE TABLE grown (x); INSERT INTO grown SELECT randomblob(3000000)",
        "PRAGMA auto_vacuum = full; DROP TABLE grown; VACUUM",
        "CREATE TABLE next (y); CREATE INDEX next_y ON next (y); ALTER TABLE next ADD COLUMN z",
        "PRAGMA auto_vacuum = none; DROP TABLE next; VACUUM",
    ] {
        fleet.server.stop().await.unwrap();
        if !stock(&database, sql) {
            return;
        }
        fleet.server.start().await.unwrap();
        write(&fleet.clients[0], 0..5).await;
        sent(&fleet.clients[0]).await;
        caught_up(&fleet, 1).await;
        is_proven(&fleet).await;
    }
    is_the_same_file(&mut fleet, 1).await;
}

/// Every lock on the databases of a device; those of a transaction under way come and go.
fn all_locks(device: &TestDevice) -> Vec<String> {
    let data = device.data_dir();
    ["master.db", "master.db-shm", "local.db", "local.db-shm"]
        .iter()
        .flat_map(|name| locks(&data.join(name)))
        .collect()
}

async fn has_locks(device: &TestDevice, expected: &[String], when: &str) {
    eventually(PATIENCE, &format!("the locks of {}, {when}", device.name), async || {
        let found = all_locks(device);
        ensure!(found == expected, "{found:?} instead of {expected:?}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn nothing_a_device_does_gives_up_the_locks_of_its_databases() {
    let mut fleet = Fleet::start(2).await.unwrap();
    let before = [&fleet.server, &fleet.clients[1]].map(all_locks);
    assert!(before.iter().all(|locks| !locks.is_empty()), "{before:?}");
    set(&fleet, 1, Durability::Async).await;
    running(&fleet.clients[1], Role::ReplicaClient).await.unwrap();
    caught_up(&fleet, 1).await;
    let copy = copy_file(&fleet.clients[1]);
    let of_the_copy = locks(&copy);
    assert_eq!(of_the_copy.len(), 1, "{of_the_copy:?}");
    for round in 0..3 {
        write(&fleet.clients[0], round * 10..round * 10 + 10).await;
        bulk(&fleet.server, round * 20..round * 20 + 20).await;
        sent(&fleet.clients[0]).await;
        sent(&fleet.server).await;
        caught_up(&fleet, 1).await;
        is_proven(&fleet).await;
        fleet.server.hashes().await.unwrap();
        for device in fleet.devices() {
            monitor(device).metrics(MetricsRequest {}).await.unwrap();
            device.debug("positions").await.unwrap();
            replication(device).await.unwrap();
        }
        fleet.cut(1).await.unwrap();
        fleet.mend(1).await.unwrap();
        caught_up(&fleet, 1).await;
    }
    has_locks(&fleet.server, &before[0], "replicated").await;
    has_locks(&fleet.clients[1], &before[1], "replicated").await;
    eventually(PATIENCE, "the lock of the copy", async || {
        ensure!(locks(&copy) == of_the_copy, "{:?}", locks(&copy));
        Ok(())
    })
    .await
    .unwrap();
    let mut panel = fleet.server.panel().unwrap();
    panel.stop_replication(StopReplicationRequest {}).await.unwrap();
    running(&fleet.clients[1], Role::Client).await.unwrap();
    write(&fleet.clients[0], 0..5).await;
    sent(&fleet.clients[0]).await;
    has_locks(&fleet.server, &before[0], "replicated no more").await;
    set(&fleet, 1, Durability::Async).await;
    running(&fleet.clients[1], Role::ReplicaClient).await.unwrap();
    is_the_same_file(&mut fleet, 1).await;
}
