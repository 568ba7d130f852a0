//! History, undo, set-aside edits, and users who are erased, on a fleet of real devices.

use std::time::Duration;

use anyhow::ensure;
use mfpsync_proto::local::{AcknowledgeNoticesRequest, ItemKey, LoginRequest, NoticeKind};
use mfpsync_proto::panel::DevicesRequest;
use mfpsync_proto::records::undo_request::What;
use mfpsync_proto::records::{
    ErasuresRequest, Event, HistoryRequest, ItemHistoryRequest, SetAsideChoice, UndoItems, UndoRequest,
    UserRequest, UsersRequest,
};
use mfpsync_tests::item::{delete, key, patch, put, text};
use mfpsync_tests::{Fleet, PATIENCE, TestDevice, eventually};

fn entry(id: &str) -> ItemKey {
    key("shared", "address.shared", id)
}

fn alice(id: &str) -> ItemKey {
    key("user/alice", "button.personal", id)
}

fn person(user: &str) -> UserRequest {
    UserRequest { user: user.to_owned(), actor: "admin".to_owned() }
}

async fn id_of(device: &TestDevice) -> String {
    device.status().await.unwrap().device_id
}

async fn head(fleet: &Fleet) -> u64 {
    fleet.server.status().await.unwrap().server.unwrap().head.unwrap().sequence
}

async fn settled(device: &TestDevice) {
    eventually(PATIENCE, "nothing to wait", async || {
        let waiting = device.client_status().await?.waiting;
        ensure!(waiting == 0, "{waiting} wait");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn all_that_one_device_wrote_since_is_taken_back_everywhere_and_can_be_given_again() {
    let fleet = Fleet::start(2).await.unwrap();
    fleet
        .server
        .write(vec![put(entry("a"), vec![text("name", "A"), text("mail", "a@example.com")])])
        .await
        .unwrap();
    fleet.server.write(vec![put(entry("b"), vec![text("name", "B")])]).await.unwrap();
    fleet.converged(&["shared"], PATIENCE).await.unwrap();
    let since = head(&fleet).await + 1;
    let (vandal, other) = (&fleet.clients[0], &fleet.clients[1]);
    vandal
        .write(vec![patch(entry("a"), vec![text("name", "X"), text("mail", "x@example.com")])])
        .await
        .unwrap();
    vandal.write(vec![delete(entry("b"))]).await.unwrap();
    vandal.write(vec![put(entry("c"), vec![text("name", "X")])]).await.unwrap();
    fleet.converged(&["shared"], PATIENCE).await.unwrap();
    other.write(vec![patch(entry("a"), vec![text("name", "A2")])]).await.unwrap();
    fleet.converged(&["shared"], PATIENCE).await.unwrap();

    let request = UndoRequest {
        what: Some(What::Items(UndoItems::default())),
        since_sequence: Some(since),
        device_id: id_of(vandal).await,
        actor: "admin".to_owned(),
        ..UndoRequest::default()
    };
    let mut records = fleet.server.records().unwrap();
    let preview = records.preview_undo(request.clone()).await.unwrap().into_inner();
    assert_eq!((preview.items, preview.restored, preview.removed, preview.stands), (3, 1, 1, 1));
    assert_eq!(head(&fleet).await, preview.through_sequence, "a preview writes nothing");
    let done = records.undo(request.clone()).await.unwrap().into_inner();
    assert_eq!((done.items, done.restored, done.removed), (3, 1, 1));
    let contents = fleet.converged(&["shared"], PATIENCE).await.unwrap();
    assert_eq!(contents.text(&entry("a"), "name"), Some("A2"), "another device's later value stands");
    assert_eq!(contents.text(&entry("a"), "mail"), Some("a@example.com"));
    assert_eq!(contents.text(&entry("b"), "name"), Some("B"));
    assert_eq!(contents.item(&entry("c")), None);
    let again = records.undo(request).await.unwrap().into_inner();
    assert_eq!(again.items, 0, "nothing of the device stands any more");

    let request = UndoRequest {
        what: Some(What::Item(entry("b"))),
        since_sequence: Some(done.through_sequence + 1),
        ..UndoRequest::default()
    };
    assert_eq!(records.undo(request).await.unwrap().into_inner().removed, 1);
    let contents = fleet.converged(&["shared"], PATIENCE).await.unwrap();
    assert_eq!(contents.item(&entry("b")), None, "the undo was undone");
}

#[tokio::test]
async fn the_history_tells_who_did_what_and_only_the_server_has_it() {
    let fleet = Fleet::start(1).await.unwrap();
    let client = &fleet.clients[0];
    client.write(vec![put(entry("a"), vec![text("name", "A")])]).await.unwrap();
    client.write(vec![patch(entry("a"), vec![text("name", "B")])]).await.unwrap();
    client.write(vec![put(alice("1"), vec![text("label", "copy")])]).await.unwrap();
    fleet.converged(&["shared", "user/alice"], PATIENCE).await.unwrap();
    let mut records = fleet.server.records().unwrap();
    let request = HistoryRequest { scope: "shared".to_owned(), limit: 1, ..HistoryRequest::default() };
    let page = records.history(request.clone()).await.unwrap().into_inner();
    assert_eq!(page.changes.len(), 1);
    let newest = &page.changes[0];
    assert_eq!((newest.event(), newest.fields.clone()), (Event::Changed, vec!["name".to_owned()]));
    assert_eq!((newest.device_id.clone(), newest.device_name.as_str()), (id_of(client).await, "client-1"));
    let next = HistoryRequest { place: page.place, limit: 10, ..request };
    let page = records.history(next).await.unwrap().into_inner();
    assert_eq!(page.changes.iter().map(|change| change.event()).collect::<Vec<_>>(), [Event::Created]);
    assert!(page.place.is_empty());
    let request = ItemHistoryRequest { key: Some(entry("a")), limit: 0 };
    let changes = records.item_history(request).await.unwrap().into_inner().changes;
    assert_eq!(changes[0].before, [text("name", "A")]);
    assert_eq!(changes[0].after, [text("name", "B")]);
    assert_eq!((changes[1].before.len(), changes[1].after.clone()), (0, vec![text("name", "A")]));
    let refused = client.records().unwrap().history(HistoryRequest::default()).await.unwrap_err();
    assert!(refused.message().contains("do it at server"), "{}", refused.message());
}

#[tokio::test]
async fn an_edit_that_lost_is_offered_again_and_wins_or_is_dropped() {
    let fleet = Fleet::start(2).await.unwrap();
    fleet.server.write(vec![put(entry("a"), vec![text("name", "A")])]).await.unwrap();
    fleet.converged(&["shared"], PATIENCE).await.unwrap();
    for id in ["a", "b"] {
        fleet.cut(1).await.unwrap();
        fleet.clients[0].write(vec![put(entry(id), vec![text("name", "first")])]).await.unwrap();
        fleet.clients[1].write(vec![put(entry(id), vec![text("name", "second")])]).await.unwrap();
        settled(&fleet.clients[0]).await;
        fleet.mend(1).await.unwrap();
        fleet.converged(&["shared"], PATIENCE).await.unwrap();
    }
    let loser = &fleet.clients[1];
    let lost = loser.set_aside().await.unwrap();
    assert_eq!(lost.len(), 2);
    let of = |id: &str| lost.iter().find(|edit| edit.item_id == id).unwrap().operation;
    let mut records = loser.records().unwrap();
    let dropped =
        records.drop_set_aside(SetAsideChoice { operation: Some(of("b")) }).await.unwrap().into_inner();
    let retried = records.retry_set_aside(SetAsideChoice { operation: None }).await.unwrap().into_inner();
    assert_eq!((dropped.done, retried.done), (1, 1));
    let missing = records.retry_set_aside(SetAsideChoice { operation: Some(of("a")) }).await.unwrap_err();
    assert_eq!(missing.code(), tonic::Code::NotFound);
    let contents = fleet.converged(&["shared"], PATIENCE).await.unwrap();
    assert_eq!(contents.text(&entry("a"), "name"), Some("second"));
    assert_eq!(contents.text(&entry("b"), "name"), Some("first"));
    assert!(loser.set_aside().await.unwrap().is_empty());
}

/// Whether any database file of a device holds these bytes.
fn holds(device: &TestDevice, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(device.data_dir()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.contains(".db") && std::fs::read(&path).unwrap().windows(bytes.len()).any(|at| at == bytes) {
            found.push(format!("{}: {name}", device.name));
        }
    }
    found
}

#[tokio::test]
async fn an_erased_user_is_gone_from_every_device_and_stays_gone_until_readmitted() {
    const MARKER: &str = "erase-me-7f3a9c";
    let mut fleet = Fleet::start(2).await.unwrap();
    let large = MARKER.repeat(800);
    for id in ["1", "2", "3"] {
        fleet
            .server
            .write(vec![put(alice(id), vec![text("label", MARKER), text("icon", &large)])])
            .await
            .unwrap();
    }
    fleet.server.write(vec![put(entry("a"), vec![text("name", "A")])]).await.unwrap();
    fleet.converged(&["user/alice", "shared"], PATIENCE).await.unwrap();
    fleet.clients[0].write(vec![patch(alice("1"), vec![text("label", "changed")])]).await.unwrap();
    fleet.clients[0].write(vec![delete(alice("2"))]).await.unwrap();
    fleet.converged(&["user/alice", "shared"], PATIENCE).await.unwrap();

    fleet.cut(1).await.unwrap();
    let offline = &fleet.clients[1];
    offline.write(vec![patch(alice("1"), vec![text("label", MARKER)])]).await.unwrap();
    offline
        .write(vec![put(alice("9"), vec![text("label", MARKER)]), put(entry("b"), vec![text("name", "B")])])
        .await
        .unwrap();

    for device in fleet.devices() {
        assert!(!holds(device, MARKER.as_bytes()).is_empty(), "{} never had it", device.name);
    }
    let mut records = fleet.server.records().unwrap();
    let refused = fleet.clients[0].records().unwrap().erase_user(person("alice")).await.unwrap_err();
    assert!(refused.message().contains("do it at server"), "{}", refused.message());
    let erased = records.erase_user(person("alice")).await.unwrap().into_inner();
    assert_eq!((erased.items, erased.hash.len()), (2, 64));
    let status = async || {
        let request = ErasuresRequest { user: "alice".to_owned() };
        let reply = fleet.server.records()?.erasures(request).await?.into_inner();
        ensure!(reply.erasures.len() == 1, "{} erasures", reply.erasures.len());
        let names = |devices: &[mfpsync_proto::records::DeviceRef]| {
            let mut names: Vec<String> = devices.iter().map(|device| device.name.clone()).collect();
            names.sort();
            names
        };
        Ok((names(&reply.erasures[0].passed), names(&reply.erasures[0].waiting)))
    };
    eventually(PATIENCE, "those on the network to confirm", async || {
        let (passed, waiting) = status().await?;
        ensure!(passed == ["client-1", "server"] && waiting == ["client-2"], "{passed:?} {waiting:?}");
        Ok(())
    })
    .await
    .unwrap();
    let undo = UndoRequest {
        what: Some(What::Items(UndoItems { scope: "user/alice".to_owned(), kind: String::new() })),
        since_sequence: Some(1),
        ..UndoRequest::default()
    };
    let undone = records.undo(undo).await.unwrap().into_inner();
    assert_eq!((undone.items, undone.fields), (0, 0), "an undo brings nothing back");

    fleet.mend(1).await.unwrap();
    let offline = &fleet.clients[1];
    settled(offline).await;
    let contents = fleet.converged(&["user/alice", "shared"], PATIENCE).await.unwrap();
    for id in ["1", "2", "3", "9"] {
        assert_eq!(contents.item(&alice(id)), None);
    }
    eventually(PATIENCE, "all to confirm", async || {
        let (passed, waiting) = status().await?;
        ensure!(passed.len() == 3 && waiting.is_empty(), "{passed:?} {waiting:?}");
        Ok(())
    })
    .await
    .unwrap();
    eventually(PATIENCE, "no file to hold the values while all devices run", async || {
        let found: Vec<String> =
            fleet.devices().flat_map(|device| holds(device, MARKER.as_bytes())).collect();
        ensure!(found.is_empty(), "{found:?}");
        Ok(())
    })
    .await
    .unwrap();
    for edit in offline.set_aside().await.unwrap() {
        assert_ne!(edit.scope, "user/alice", "what was refused is forgotten too");
    }
    for device in fleet.devices() {
        let error = device.try_write(vec![put(alice("1"), vec![text("label", "old")])]).await.unwrap_err();
        assert!(error.message().contains("erased"), "{}", error.message());
    }
    let users = records.users(UsersRequest::default()).await.unwrap().into_inner().users;
    assert!(users.is_empty());

    records.readmit_user(person("alice")).await.unwrap();
    eventually(PATIENCE, "the readmission to arrive", async || {
        Ok(fleet.clients[1].try_write(vec![put(alice("1"), vec![text("label", "new")])]).await?)
    })
    .await
    .unwrap();
    let contents = fleet.converged(&["user/alice", "shared"], PATIENCE).await.unwrap();
    assert_eq!(contents.text(&alice("1"), "label"), Some("new"));
    assert_eq!(contents.item(&alice("2")), None);

    fleet.server.stop().await.unwrap();
    for client in &mut fleet.clients {
        client.stop().await.unwrap();
    }
    let found: Vec<String> = fleet.devices().flat_map(|device| holds(device, MARKER.as_bytes())).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[tokio::test]
async fn a_user_is_found_and_deleted_at_a_client_and_comes_back_by_an_undo() {
    let fleet = Fleet::start(1).await.unwrap();
    let profile = key("user/alice", "user.profile", "1");
    fleet.server.write(vec![put(profile, vec![text("display_name", "Alice Example")])]).await.unwrap();
    fleet.server.write(vec![put(alice("1"), vec![text("label", "copy")])]).await.unwrap();
    fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
    let before = head(&fleet).await;
    let mut records = fleet.clients[0].records().unwrap();
    for (search, found) in [("", 1), ("ALI", 1), ("example", 1), ("bob", 0)] {
        let request = UsersRequest { search: search.to_owned(), ..UsersRequest::default() };
        let users = records.users(request).await.unwrap().into_inner().users;
        assert_eq!(users.len(), found, "{search}");
        assert!(users.iter().all(|user| user.items == 2 && user.display_name == "Alice Example"));
    }
    let deleted = records.delete_user(person("alice")).await.unwrap().into_inner();
    assert_eq!((deleted.items, deleted.on_its_way), (2, true));
    let contents = fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
    assert_eq!(contents.len(), 0);
    let undo = UndoRequest {
        what: Some(What::Items(UndoItems { scope: "user/alice".to_owned(), kind: String::new() })),
        since_sequence: Some(before + 1),
        ..UndoRequest::default()
    };
    let undone = fleet.server.records().unwrap().undo(undo).await.unwrap().into_inner();
    assert_eq!(undone.restored, 2);
    assert_eq!(fleet.converged(&["user/alice"], PATIENCE).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_server_that_keeps_no_history_takes_nothing_back() {
    let mut server = TestDevice::new("server").unwrap();
    server.setup.tables = "[history]\ndays = 0\n".to_owned();
    server.start().await.unwrap();
    mfpsync_tests::start_server(&server, "Office").await.unwrap();
    server.write(vec![put(entry("a"), vec![text("name", "A")])]).await.unwrap();
    settled(&server).await;
    server.write(vec![patch(entry("a"), vec![text("name", "B")])]).await.unwrap();
    settled(&server).await;
    let devices = server.panel().unwrap().devices(DevicesRequest {}).await.unwrap().into_inner().devices;
    let undo = UndoRequest {
        what: Some(What::Items(UndoItems::default())),
        since_sequence: Some(2),
        device_id: devices[0].id.clone(),
        ..UndoRequest::default()
    };
    let undone = server.records().unwrap().undo(undo).await.unwrap().into_inner();
    assert_eq!((undone.items, undone.forgotten), (0, 1));
    tokio::time::timeout(Duration::from_secs(30), server.stop()).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_was_made_before_a_readmission_does_not_return_with_it() {
    let fleet = Fleet::start(2).await.unwrap();
    fleet.server.write(vec![put(alice("1"), vec![text("label", "old")])]).await.unwrap();
    fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
    fleet.cut(1).await.unwrap();
    let offline = &fleet.clients[1];
    offline.write(vec![put(alice("9"), vec![text("label", "old")])]).await.unwrap();
    offline.write(vec![patch(alice("1"), vec![text("label", "older")])]).await.unwrap();
    let mut records = fleet.server.records().unwrap();
    records.erase_user(person("alice")).await.unwrap();
    let opened = records.readmit_user(person("alice")).await.unwrap().into_inner();
    assert_eq!(opened.generation, 2);
    assert!(records.readmit_user(person("alice")).await.is_err(), "once");
    fleet.mend(1).await.unwrap();
    settled(&fleet.clients[1]).await;
    let contents = fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
    assert_eq!(contents.len(), 0);
    fleet.clients[1].write(vec![put(alice("9"), vec![text("label", "new")])]).await.unwrap();
    let contents = fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
    assert_eq!(contents.text(&alice("9"), "label"), Some("new"));
}

#[tokio::test]
async fn both_versions_of_a_conflict_are_shown_at_login_until_they_are_acknowledged() {
    let fleet = Fleet::start(2).await.unwrap();
    let address = key("user/alice", "address.personal", "1");
    let unknown = key("user/alice", "vendor.hologram", "1");
    fleet.server.write(vec![put(address.clone(), vec![text("mail", "old@example.com")])]).await.unwrap();
    fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
    fleet.cut(0).await.unwrap();
    fleet.cut(1).await.unwrap();
    for (client, name) in [(0, "first"), (1, "second")] {
        let mail = format!("{name}@example.com");
        let device = &fleet.clients[client];
        device.write(vec![patch(address.clone(), vec![text("mail", &mail)])]).await.unwrap();
        device.write(vec![put(unknown.clone(), vec![text("shape", name)])]).await.unwrap();
        fleet.mend(client).await.unwrap();
        settled(device).await;
    }
    fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
    let mut local = fleet.clients[1].local().unwrap();
    let login = LoginRequest { user: "alice".to_owned(), wait_millis: Some(0) };
    let notices = local.login(login.clone()).await.unwrap().into_inner().notices;
    let shown: Vec<_> = notices.iter().map(|notice| (notice.kind(), notice.field.as_str())).collect();
    assert_eq!(shown, [(NoticeKind::Superseded, "shape"), (NoticeKind::BothKept, "second.mail")]);
    assert_eq!(notices[0].ours, text("shape", "second").value);
    assert_eq!(notices[0].standing, text("shape", "first").value);
    assert_eq!(notices[1].ours, text("mail", "first@example.com").value);
    assert_eq!(notices[1].standing, text("mail", "second@example.com").value);
    let seen = AcknowledgeNoticesRequest { user: "alice".to_owned(), ids: vec![notices[0].id.clone()] };
    local.acknowledge_notices(seen).await.unwrap();
    let left = local.login(login.clone()).await.unwrap().into_inner().notices;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].field, "second.mail");
    let other = LoginRequest { user: "bob".to_owned(), ..login };
    assert!(local.login(other).await.unwrap().into_inner().notices.is_empty());
}

#[tokio::test]
async fn a_user_near_the_limit_is_announced_and_over_it_refused_at_once() {
    let mut device = TestDevice::started("alone").await.unwrap();
    device.log.expect("F-USER-NEARLY-FULL");
    let items = |from: usize| {
        (from..from + 100).map(|number| put(alice(&number.to_string()), vec![text("label", "x")])).collect()
    };
    for write in 0..17 {
        assert_eq!(device.answer_to_write(items(write * 100)).await.unwrap().warning, "");
    }
    assert!(device.answer_to_write(items(1_700)).await.unwrap().warning.contains("1800 of 2000"));
    let faults = device.status().await.unwrap().faults;
    assert_eq!(faults.iter().map(|fault| fault.code.as_str()).collect::<Vec<_>>(), ["F-USER-NEARLY-FULL"]);
    device.write(items(1_800)).await.unwrap();
    device.write(items(1_900)).await.unwrap();
    let refused = device.try_write(vec![put(alice("more"), vec![text("label", "x")])]).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert!(refused.message().contains("2001 items"), "{}", refused.message());
    let large = vec![text("label", &"x".repeat(60_000))];
    let mut stored = 0;
    let refused = loop {
        match device.try_write(vec![put(alice(&stored.to_string()), large.clone())]).await {
            Ok(_) => stored += 1,
            Err(refused) => break refused,
        }
    };
    assert!((15..=18).contains(&stored), "{stored}: {}", refused.message());
    device.write(vec![delete(alice("0"))]).await.unwrap();
    device.write(vec![put(alice("more"), vec![text("label", "x")])]).await.unwrap();
    assert!(!device.log.text().contains("alice"), "no names in the log");
}
