//! Deletions that the server has forgotten stay deletions, whoever comes back.

use anyhow::{Result, ensure};
use mfpsync_proto::local::ItemKey;
use mfpsync_tests::item::{delete, key, patch, put, text};
use mfpsync_tests::{Fleet, PATIENCE, TestDevice, current, eventually};
use serde_json::Value;

fn entry(id: &str) -> ItemKey {
    key("user/alice", "shortcut", id)
}

/// A group whose server keeps no old values, and so forgets deletions as soon as all have seen them.
async fn fleet(clients: usize) -> Result<Fleet> {
    let mut server = TestDevice::new("server")?;
    server.setup.tables = "[history]\ndays = 0\n".to_owned();
    server.start().await?;
    mfpsync_tests::start_server(&server, "Office").await?;
    let mut fleet = Fleet { server, clients: Vec::new(), relays: Vec::new() };
    for number in 1..=clients {
        let device = TestDevice::new(&format!("client-{number}"))?;
        fleet.add(device, mfpsync_proto::panel::JoinPolicy::Merge).await?;
    }
    Ok(fleet)
}

async fn master(fleet: &Fleet) -> Result<Value> {
    let answer = fleet.server.debug("positions").await?;
    let found = answer.iter().find_map(|line| line.get("master").filter(|master| !master.is_null()));
    Ok(found.cloned().unwrap_or_default())
}

/// All devices say how far they are, as they do every hour, and the server forgets what it may, as it
/// does every day.
async fn a_day_passes(fleet: &mut Fleet, present: &[usize]) -> Result<()> {
    for client in present {
        fleet.clients[*client].restart().await?;
        current(&fleet.clients[*client]).await?;
    }
    fleet.server.restart().await?;
    // Its own client function connects again at once; that says how far it is.
    current(&fleet.server).await?;
    fleet.server.restart().await?;
    current(&fleet.server).await?;
    for client in present {
        current(&fleet.clients[*client]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_deletion_is_forgotten_when_all_have_seen_it_and_not_before() {
    let mut fleet = fleet(2).await.unwrap();
    fleet.server.write(vec![put(entry("a"), vec![text("name", "A")])]).await.unwrap();
    fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
    fleet.clients[1].stop().await.unwrap();
    fleet.server.write(vec![delete(entry("a"))]).await.unwrap();
    eventually(PATIENCE, "the deletion at the present client", async || {
        ensure!(fleet.clients[0].get(&entry("a")).await?.is_none(), "still there");
        Ok(())
    })
    .await
    .unwrap();
    a_day_passes(&mut fleet, &[0]).await.unwrap();
    let held = master(&fleet).await.unwrap();
    assert_eq!(held["tombstone_floor"], 0, "{held}");
    assert!(held["tombstones_held_by"].is_string(), "{held}");

    fleet.clients[1].start().await.unwrap();
    current(&fleet.clients[1]).await.unwrap();
    assert!(fleet.clients[1].get(&entry("a")).await.unwrap().is_none());
    a_day_passes(&mut fleet, &[0, 1]).await.unwrap();
    eventually(PATIENCE, "the deletion to be forgotten", async || {
        let forgotten = master(&fleet).await?;
        ensure!(forgotten["tombstone_floor"].as_u64() > Some(0), "{forgotten}");
        Ok(())
    })
    .await
    .unwrap();
    fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_disk_from_before_a_forgotten_deletion_does_not_bring_the_item_back() {
    let mut fleet = fleet(2).await.unwrap();
    let backup = tempfile::tempdir().unwrap();
    let kept = key("user/alice", "address.shared", "k");
    fleet.server.write(vec![put(entry("a"), vec![text("name", "A")])]).await.unwrap();
    fleet.server.write(vec![put(entry("b"), vec![text("name", "B")])]).await.unwrap();
    fleet.server.write(vec![put(kept.clone(), vec![text("name", "K")])]).await.unwrap();
    fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
    fleet.clients[1].stop().await.unwrap();
    super::refused::copy_tree(&fleet.clients[1].data_dir(), &backup.path().join("data"));
    fleet.clients[1].start().await.unwrap();
    current(&fleet.clients[1]).await.unwrap();
    for gone in [entry("a"), entry("b"), kept.clone()] {
        fleet.server.write(vec![delete(gone)]).await.unwrap();
    }
    fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
    a_day_passes(&mut fleet, &[0, 1]).await.unwrap();
    eventually(PATIENCE, "the deletions to be forgotten", async || {
        let forgotten = master(&fleet).await?;
        ensure!(forgotten["tombstone_floor"].as_u64() > Some(0), "{forgotten}");
        Ok(())
    })
    .await
    .unwrap();

    // The machine gets its disk of before back, and is used before it has heard of anything.
    fleet.clients[1].stop().await.unwrap();
    super::refused::replace_tree(&backup.path().join("data"), &fleet.clients[1].data_dir());
    fleet.relays[1].cut();
    fleet.clients[1].start().await.unwrap();
    assert!(fleet.clients[1].get(&entry("a")).await.unwrap().is_some(), "as the disk has it");
    fleet.clients[1].write(vec![patch(kept.clone(), vec![text("name", "from the past")])]).await.unwrap();
    fleet.clients[1].write(vec![patch(entry("b"), vec![text("name", "wins")])]).await.unwrap();
    fleet.mend(1).await.unwrap();
    let contents = fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
    assert_eq!(contents.text(&entry("a"), "name"), None, "untouched, so it stays deleted");
    assert_eq!(contents.text(&kept, "name"), None, "of a shared entry the deletion wins");
    assert_eq!(contents.text(&entry("b"), "name"), Some("wins"), "of a person's own the edit wins");
}
