//! What is written at one device is read at the others, whole and unharmed.

use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use mfpsync_proto::local::watch_event::Event;
use mfpsync_proto::local::{Field, ItemKey, WatchEvent};
use mfpsync_proto::panel::{JoinPolicy, LeaveRequest, Role, StopServerRequest};
use mfpsync_tests::item::{bytes, delete, field, flag, integer, key, opaque, patch, put, remove, set, text};
use mfpsync_tests::{
    Fleet, PATIENCE, TestDevice, command_path, current, eventually, fields, running, start_server,
};
use tonic::Streaming;

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/address-list.csv");
const SAMPLE_ENTRIES: usize = 200;

async fn next(events: &mut Streaming<WatchEvent>) -> Event {
    let event = tokio::time::timeout(PATIENCE, events.message()).await.expect("an event in time");
    event.unwrap().expect("the stream goes on").event.unwrap()
}

/// Waits until an item has exactly these fields at a device.
async fn shows(device: &TestDevice, key: &ItemKey, wanted: &[Field]) {
    let wanted = fields(wanted.to_vec());
    eventually(PATIENCE, &format!("{} to show the item", device.name), async || {
        let found = device.get(key).await?;
        ensure!(found.as_ref() == Some(&wanted), "it shows {found:?}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_address_book_imported_at_one_device_is_at_all_of_them() {
    let fleet = Fleet::start(2).await.unwrap();
    let output = Command::new(command_path().unwrap())
        .arg("--run")
        .arg(fleet.clients[0].run_dir())
        .args(["import", SAMPLE, "--scope", "shared"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    eventually(PATIENCE, "the entries at the other client", async || {
        let count = fleet.clients[1].contents(&["shared"]).await?.len();
        ensure!(count >= SAMPLE_ENTRIES, "{count} items");
        Ok(())
    })
    .await
    .unwrap();
    let contents = fleet.converged(&["shared"], PATIENCE).await.unwrap();
    let entries = contents.iter().filter(|(key, _)| key[1] == "address.shared").count();
    assert!(entries >= SAMPLE_ENTRIES, "{entries} of {}", contents.len());

    let exported = fleet.server.home().join("exported.csv");
    let output = Command::new(command_path().unwrap())
        .arg("--run")
        .arg(fleet.clients[1].run_dir())
        .args(["export", exported.to_str().unwrap(), "--scope", "shared"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(std::fs::read(exported).unwrap() == std::fs::read(SAMPLE).unwrap(), "not what was imported");
}

#[tokio::test]
async fn puts_patches_and_deletes_travel_in_both_directions() {
    let fleet = Fleet::start(2).await.unwrap();
    let entry = key("user/alice", "address.personal", "a1");
    let fields = vec![
        text("name", "Bob"),
        text("mail", "bob@example.com"),
        integer("order", -7),
        flag("favourite", true),
        bytes("photo", &[0, 255, 7]),
        set("groups", &["b", "a"]),
    ];
    assert!(fleet.clients[0].write(vec![put(entry.clone(), fields.clone())]).await.unwrap().is_some());
    for device in fleet.devices() {
        shows(device, &entry, &fields).await;
    }
    fleet.clients[1].write(vec![patch(entry.clone(), vec![text("name", "Robert")])]).await.unwrap();
    let mut renamed = fields;
    renamed[0] = text("name", "Robert");
    for device in fleet.devices() {
        shows(device, &entry, &renamed).await;
    }
    fleet.server.write(vec![remove(entry.clone(), &["photo", "order"])]).await.unwrap();
    renamed.retain(|field| field.name != "photo" && field.name != "order");
    for device in fleet.devices() {
        shows(device, &entry, &renamed).await;
    }
    fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
    fleet.clients[0].write(vec![delete(entry.clone())]).await.unwrap();
    for device in fleet.devices() {
        eventually(PATIENCE, "the deletion", async || {
            ensure!(device.get(&entry).await?.is_none(), "{} still has it", device.name);
            Ok(())
        })
        .await
        .unwrap();
    }
    assert!(fleet.converged(&["user/alice"], PATIENCE).await.unwrap().is_empty());
}

/// Proves I-26.
#[tokio::test]
async fn what_no_device_knows_survives_an_edit_of_its_neighbour() {
    let fleet = Fleet::start(2).await.unwrap();
    let entry = key("user/alice", "hologram.preset", "h1");
    let unknown = opaque("shimmer", 4711, &[9, 8, 7, 0, 255]);
    let fields = vec![unknown.clone(), text("x-future-field", "kept"), text("title", "first")];
    fleet.clients[0].write(vec![put(entry.clone(), fields.clone())]).await.unwrap();
    shows(&fleet.clients[1], &entry, &fields).await;
    fleet.clients[1].write(vec![patch(entry.clone(), vec![text("title", "second")])]).await.unwrap();
    let edited = [unknown.clone(), text("x-future-field", "kept"), text("title", "second")];
    shows(&fleet.clients[0], &entry, &edited).await;
    // Handed back as it came, by a writer that replaces the whole item.
    let whole = vec![unknown, text("x-future-field", "kept"), text("title", "third")];
    fleet.server.write(vec![put(entry.clone(), whole.clone())]).await.unwrap();
    shows(&fleet.clients[0], &entry, &whole).await;
    fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
}

#[tokio::test]
async fn edits_written_together_arrive_together() {
    const ROUNDS: usize = 20;
    const EDITS: usize = 30;
    let fleet = Fleet::start(2).await.unwrap();
    let item = |number: usize| key("shared", "button.shared", &format!("b{number}"));
    for round in 0..ROUNDS {
        let value = round.to_string();
        let edits = (0..EDITS).map(|number| put(item(number), vec![text("round", &value)])).collect();
        fleet.clients[0].write(edits).await.unwrap();
        // Whatever a reader sees meanwhile is all of one write.
        let seen = fleet.clients[1].contents(&["shared"]).await.unwrap();
        let rounds: std::collections::BTreeSet<_> =
            (0..EDITS).map(|number| seen.text(&item(number), "round").map(str::to_owned)).collect();
        assert_eq!(rounds.len(), 1, "a write was split: {rounds:?}");
    }
    fleet.converged(&["shared"], PATIENCE).await.unwrap();
}

#[tokio::test]
async fn watchers_see_changes_made_here_and_elsewhere() {
    let fleet = Fleet::start(1).await.unwrap();
    let mut events = fleet.clients[0].watch(&["user/alice"], &["ui.language"]).await.unwrap();
    assert!(matches!(next(&mut events).await, Event::Started(_)));
    let language = key("user/alice", "ui.language", "language");
    fleet
        .server
        .write(vec![put(key("user/bob", "ui.language", "language"), vec![text("value", "fr")])])
        .await
        .unwrap();
    fleet
        .server
        .write(vec![put(key("user/alice", "shortcut", "s"), vec![text("value", "x")])])
        .await
        .unwrap();
    fleet.server.write(vec![put(language.clone(), vec![text("value", "ja")])]).await.unwrap();
    let Event::Changed(item) = next(&mut events).await else { panic!("not a change") };
    assert_eq!(item.key.as_ref(), Some(&language), "only what is watched is told");
    assert_eq!(item.fields, [text("value", "ja")]);

    fleet.clients[0].write(vec![patch(language.clone(), vec![text("value", "en")])]).await.unwrap();
    let Event::Changed(item) = next(&mut events).await else { panic!("not a change") };
    assert_eq!(item.fields, [text("value", "en")]);
    fleet.clients[0].write(vec![delete(language.clone())]).await.unwrap();
    loop {
        match next(&mut events).await {
            Event::Deleted(gone) => break assert_eq!(gone, language),
            // The server's confirmation may be told as well.
            Event::Changed(item) => assert_eq!(item.fields, [text("value", "en")]),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_login_says_how_current_its_answer_is() {
    let fleet = Fleet::start(1).await.unwrap();
    let language = key("user/alice", "ui.language", "language");
    fleet.server.write(vec![put(language.clone(), vec![text("value", "ja")])]).await.unwrap();
    fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
    // On a machine that stood still for some seconds the connection is new.
    eventually(PATIENCE, "a current answer", async || {
        let (items, freshness) = fleet.clients[0].login("alice", None).await?;
        ensure!(items.text(&language, "value") == Some("ja"), "{items:?}");
        ensure!(freshness.current && freshness.age_millis == Some(0), "{freshness:?}");
        Ok(())
    })
    .await
    .unwrap();

    fleet.cut(0).await.unwrap();
    let (items, freshness) = fleet.clients[0].login("alice", Some(0)).await.unwrap();
    assert_eq!(items.text(&language, "value"), Some("ja"), "offline the device answers from its own data");
    assert!(!freshness.current);
    assert!(freshness.age_millis.is_some());
    fleet.server.write(vec![patch(language.clone(), vec![text("value", "en")])]).await.unwrap();
    fleet.relays[0].mend();
    eventually(PATIENCE, "a fresh answer", async || {
        let (items, freshness) = fleet.clients[0].login("alice", Some(2_000)).await?;
        ensure!(freshness.current, "not current");
        ensure!(items.text(&language, "value") == Some("en"), "current, and yet the old value");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_login_on_a_device_of_no_group_is_answered_at_once() {
    let device = TestDevice::started("alone").await.unwrap();
    let language = key("user/alice", "ui.language", "language");
    let number = device.write(vec![put(language.clone(), vec![text("value", "de")])]).await.unwrap();
    assert_eq!(number, None, "no group, no operation");
    let (items, freshness) = device.login("alice", Some(2_000)).await.unwrap();
    assert_eq!(items.text(&language, "value"), Some("de"));
    assert_eq!((freshness.current, freshness.age_millis), (false, None));
}

#[tokio::test]
async fn edits_from_before_any_group_are_offered_at_the_join() {
    let mut fleet = Fleet::start(1).await.unwrap();
    let newcomer = TestDevice::started("newcomer").await.unwrap();
    let mine = key("user/alice", "address.personal", "a1");
    let deleted = key("user/alice", "address.personal", "a2");
    newcomer
        .write(vec![put(mine.clone(), vec![text("name", "Bob"), text("mail", "bob@example.com")])])
        .await
        .unwrap();
    newcomer.write(vec![put(deleted.clone(), vec![text("name", "Gone")])]).await.unwrap();
    newcomer.write(vec![delete(deleted.clone())]).await.unwrap();
    let reply = fleet.add(newcomer, JoinPolicy::Merge).await.unwrap();
    assert_eq!(reply.own_items, 1);
    eventually(PATIENCE, "the entry at the other client", async || {
        ensure!(fleet.clients[0].get(&mine).await?.is_some(), "not there yet");
        Ok(())
    })
    .await
    .unwrap();
    let contents = fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
    assert_eq!(contents.len(), 1);
}

#[tokio::test]
async fn a_server_keeps_what_it_held_before_it_founded_the_group() {
    let device = TestDevice::started("server").await.unwrap();
    let mine = key("shared", "address.shared", "s1");
    device.write(vec![put(mine.clone(), vec![text("name", "Reception")])]).await.unwrap();
    start_server(&device, "Office").await.unwrap();
    let mut fleet = Fleet { server: device, clients: Vec::new(), relays: Vec::new() };
    fleet.add(TestDevice::new("client").unwrap(), JoinPolicy::Merge).await.unwrap();
    eventually(PATIENCE, "the entry at the client", async || {
        ensure!(fleet.clients[0].get(&mine).await?.is_some(), "not there yet");
        Ok(())
    })
    .await
    .unwrap();
    fleet.converged(&["shared"], PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_device_that_leaves_keeps_the_data_as_its_own() {
    let fleet = Fleet::start(1).await.unwrap();
    let entry = key("shared", "address.shared", "s1");
    fleet.server.write(vec![put(entry.clone(), vec![text("name", "Reception")])]).await.unwrap();
    fleet.converged(&["shared"], PATIENCE).await.unwrap();
    let client = &fleet.clients[0];
    let reply =
        client.panel().unwrap().leave(LeaveRequest { accept_unsent: None }).await.unwrap().into_inner();
    assert_eq!((reply.unsent, reply.slot_freed), (0, true));
    running(client, Role::Idle).await.unwrap();
    assert!(client.get(&entry).await.unwrap().is_some());
    client.write(vec![patch(entry.clone(), vec![text("name", "Changed alone")])]).await.unwrap();
    assert!(client.status().await.unwrap().group.is_none());
    assert_eq!(fleet.server.contents(&["shared"]).await.unwrap().text(&entry, "name"), Some("Reception"));
}

#[tokio::test]
async fn leaving_with_unsent_edits_needs_their_number() {
    let mut fleet = Fleet::start(1).await.unwrap();
    fleet.clients[0].log.expect("tell the server of leaving");
    fleet.clients[0].log.expect("release this device there");
    fleet.cut(0).await.unwrap();
    let client = &fleet.clients[0];
    let entry = key("user/alice", "shortcut", "s1");
    client.write(vec![put(entry.clone(), vec![text("value", "unsent")])]).await.unwrap();
    let refused = client.panel().unwrap().leave(LeaveRequest { accept_unsent: None }).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains('1'), "{}", refused.message());
    let reply =
        client.panel().unwrap().leave(LeaveRequest { accept_unsent: Some(1) }).await.unwrap().into_inner();
    assert_eq!((reply.unsent, reply.slot_freed), (1, false));
    running(client, Role::Idle).await.unwrap();
    assert!(client.get(&entry).await.unwrap().is_some(), "it stays on this device");
}

#[tokio::test]
async fn clients_go_on_offline_while_the_server_is_stopped() {
    let fleet = Fleet::start(1).await.unwrap();
    fleet.server.panel().unwrap().stop_server(StopServerRequest {}).await.unwrap();
    let entry = key("user/alice", "shortcut", "s1");
    eventually(PATIENCE, "the client to notice", async || {
        ensure!(!fleet.clients[0].login("alice", Some(0)).await?.1.current, "still current");
        Ok(())
    })
    .await
    .unwrap();
    fleet.clients[0].write(vec![put(entry.clone(), vec![text("value", "later")])]).await.unwrap();
    start_server(&fleet.server, "Office").await.unwrap();
    current(&fleet.clients[0]).await.unwrap();
    let contents = fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
    assert_eq!(contents.text(&entry, "value"), Some("later"));
}

#[tokio::test]
async fn a_slow_line_delays_and_harms_nothing() {
    let mut fleet = Fleet::server_only().await.unwrap();
    fleet.add(TestDevice::new("far").unwrap(), JoinPolicy::Merge).await.unwrap();
    fleet.relays[0].delay(Duration::from_millis(80));
    fleet.relays[0].cut();
    fleet.mend(0).await.unwrap();
    for number in 0..50 {
        let entry = key("shared", "shortcut", &format!("s{number}"));
        let device = if number % 2 == 0 { &fleet.server } else { &fleet.clients[0] };
        device.write(vec![put(entry, vec![field_value(number)])]).await.unwrap();
    }
    let contents = fleet.converged(&["shared"], PATIENCE).await.unwrap();
    assert_eq!(contents.len(), 50);
}

fn field_value(number: i64) -> Field {
    field("value", mfpsync_proto::local::value::Value::Integer(number))
}
