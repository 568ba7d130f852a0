//! Processes that die, files that are in the way, configurations and clocks that are wrong.

use std::net::Ipv4Addr;
use std::os::unix::net::UnixListener;

use anyhow::ensure;
use mfpsync_proto::panel::{JoinPolicy, UndoJoinRequest};
use mfpsync_proto::records::{Event, HistoryRequest, ItemHistoryRequest};
use mfpsync_tests::item::{key, patch, put, text};
use mfpsync_tests::{
    Fleet, PATIENCE, Port, TestDevice, clock, current, eventually, join, open_pairing, start_server,
};

async fn waiting(device: &TestDevice, number: u64) {
    eventually(PATIENCE, "the outbox", async || {
        let waiting = device.client_status().await?.waiting;
        ensure!(waiting == number, "{waiting} wait");
        Ok(())
    })
    .await
    .unwrap();
}

/// Proves I-02.
#[tokio::test]
async fn a_client_killed_with_edits_waiting_sends_them_after_its_restart() {
    let mut fleet = Fleet::start(2).await.unwrap();
    fleet.cut(0).await.unwrap();
    for number in 0..20 {
        let item = key("user/alice", "shortcut", &format!("s{number}"));
        fleet.clients[0].write(vec![put(item, vec![text("value", "kept")])]).await.unwrap();
    }
    fleet.clients[0].kill().unwrap();
    fleet.clients[0].start().await.unwrap();
    waiting(&fleet.clients[0], 20).await;
    fleet.mend(0).await.unwrap();
    let contents = fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
    assert_eq!(contents.len(), 20);
}

#[tokio::test]
async fn a_killed_server_comes_back_with_everything_it_acknowledged() {
    let mut fleet = Fleet::start(2).await.unwrap();
    let item = key("shared", "button.shared", "b1");
    fleet.clients[0].write(vec![put(item.clone(), vec![text("title", "before")])]).await.unwrap();
    waiting(&fleet.clients[0], 0).await;
    fleet.server.kill().unwrap();
    fleet.clients[1].write(vec![patch(item.clone(), vec![text("note", "while it was down")])]).await.unwrap();
    waiting(&fleet.clients[1], 1).await;
    fleet.server.start().await.unwrap();
    for client in &fleet.clients {
        current(client).await.unwrap();
    }
    let contents = fleet.converged(&["shared"], PATIENCE).await.unwrap();
    assert_eq!(contents.text(&item, "title"), Some("before"));
    assert_eq!(contents.text(&item, "note"), Some("while it was down"));
}

#[tokio::test]
async fn clients_find_a_server_that_returns_at_another_of_its_addresses() {
    let mut server = TestDevice::new("server").unwrap();
    let other = Port::reserve_at(Ipv4Addr::new(127, 0, 0, 2)).unwrap();
    assert!(
        other.address().ip() != server.address().ip() && other.address().port() != server.address().port()
    );
    server.setup.advertise = vec![server.address(), other.address()];
    server.start().await.unwrap();
    start_server(&server, "Office").await.unwrap();
    let client = TestDevice::started("client").await.unwrap();
    let code = open_pairing(&server).await.unwrap().code;
    join(&client, &server.address().to_string(), &code, JoinPolicy::Merge).await.unwrap();
    current(&client).await.unwrap();

    server.stop().await.unwrap();
    server.listen_at(other);
    server.start().await.unwrap();
    let fleet = Fleet { server, clients: vec![client], relays: Vec::new() };
    fleet.server.write(vec![put(key("shared", "shortcut", "s"), vec![text("value", "x")])]).await.unwrap();
    current(&fleet.clients[0]).await.unwrap();
    assert_eq!(fleet.converged(&["shared"], PATIENCE).await.unwrap().len(), 1);
}

#[tokio::test]
async fn sockets_left_behind_do_not_keep_a_daemon_from_starting() {
    let mut device = TestDevice::new("copier").unwrap();
    std::fs::create_dir_all(device.run_dir()).unwrap();
    for socket in ["local.sock", "panel.sock", "debug.sock"] {
        drop(UnixListener::bind(device.run_dir().join(socket)).unwrap());
    }
    device.start().await.unwrap();
    device.kill().unwrap();
    assert!(device.run_dir().join("local.sock").exists(), "a killed daemon leaves its sockets");
    device.start().await.unwrap();
    device.debug("state").await.unwrap();
    device.stop().await.unwrap();
    let left: Vec<_> =
        std::fs::read_dir(device.run_dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "a stopped daemon leaves {left:?}");
}

#[tokio::test]
async fn a_second_daemon_on_the_same_data_says_so_and_harms_nothing() {
    let first = TestDevice::started("first").await.unwrap();
    let mut second = TestDevice::new("second").unwrap();
    second.setup.data_dir = Some(first.data_dir());
    second.log.expect("another mfpsyncd uses the same data directory");
    second.spawn().unwrap();
    let status = second.ended().await.unwrap();
    assert_eq!(status.code(), Some(75), "{}", second.log.text());
    let said = second.log.text();
    assert!(said.contains("F-ALREADY-RUNNING"), "{said}");
    assert!(said.contains(&first.data_dir().display().to_string()), "{said}");
    first.write(vec![put(key("shared", "shortcut", "s"), vec![text("value", "x")])]).await.unwrap();
    first.status().await.unwrap();
}

#[tokio::test]
async fn unknown_configuration_keys_are_named_with_their_path() {
    let mut device = TestDevice::new("copier").unwrap();
    device.setup.top = "colour = \"red\"\n".to_owned();
    device.setup.tables = "[limits]\nspeed = 3\n".to_owned();
    device.log.expect("colour");
    device.log.expect("limits.speed");
    device.spawn().unwrap();
    let status = device.ended().await.unwrap();
    let said = device.log.text();
    assert_eq!(status.code(), Some(78), "{said}");
    for part in ["colour", "limits.speed", &device.config_path().display().to_string()] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

/// Proves I-09.
#[tokio::test]
async fn wrong_clocks_decide_nothing() {
    let libraries = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::server_only().await.unwrap();
    for (name, shift) in [("past", clock::back_to_1970()), ("future", clock::years(10))] {
        let directory = libraries.path().join(name);
        std::fs::create_dir(&directory).unwrap();
        let mut device = TestDevice::new(name).unwrap();
        device.setup.env = clock::shifted_by(shift, &directory).unwrap();
        fleet.add(device, JoinPolicy::Merge).await.unwrap();
    }
    let first_line = |device: &TestDevice| device.log.text().lines().next().unwrap_or_default().to_owned();
    assert!(first_line(&fleet.clients[0]).contains("1970-01-01T"), "{}", first_line(&fleet.clients[0]));
    let item = key("user/alice", "ui.language", "language");
    fleet.clients[1].write(vec![put(item.clone(), vec![text("value", "future")])]).await.unwrap();
    fleet.converged(&["user/alice"], PATIENCE).await.unwrap();

    // Both offline; the one whose clock says 1970 is accepted later, and therefore wins.
    fleet.cut(0).await.unwrap();
    fleet.cut(1).await.unwrap();
    fleet.clients[0].write(vec![patch(item.clone(), vec![text("value", "from 1970")])]).await.unwrap();
    fleet.clients[1].write(vec![patch(item.clone(), vec![text("value", "from tomorrow")])]).await.unwrap();
    fleet.mend(1).await.unwrap();
    waiting(&fleet.clients[1], 0).await;
    fleet.mend(0).await.unwrap();
    let contents = fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
    assert_eq!(contents.text(&item, "value"), Some("from 1970"));
}

#[tokio::test]
async fn a_server_whose_clock_jumps_goes_on() {
    let libraries = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::start(1).await.unwrap();
    for shift in [clock::back_to_1970(), clock::years(10), 0] {
        fleet.server.stop().await.unwrap();
        fleet.server.setup.env = clock::shifted_by(shift, libraries.path()).unwrap();
        fleet.server.start().await.unwrap();
        current(&fleet.clients[0]).await.unwrap();
        let item = key("shared", "shortcut", &format!("shift {shift}"));
        fleet.clients[0].write(vec![put(item, vec![text("value", "x")])]).await.unwrap();
        fleet.converged(&["shared"], PATIENCE).await.unwrap();
    }
}

#[tokio::test]
async fn no_clock_decides_what_is_forgotten() {
    async fn restart(device: &mut TestDevice, shift: i64, libraries: &std::path::Path) {
        device.stop().await.unwrap();
        device.setup.env = clock::shifted_by(shift, libraries).unwrap();
        device.start().await.unwrap();
        current(device).await.unwrap();
    }
    let libraries = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::start(1).await.unwrap();
    restart(&mut fleet.server, clock::back_to_1970(), libraries.path()).await;
    let mut newcomer = TestDevice::new("newcomer").unwrap();
    newcomer.setup.env = clock::shifted_by(clock::back_to_1970(), libraries.path()).unwrap();
    newcomer.start().await.unwrap();
    let item = key("shared", "address.shared", "a");
    newcomer.write(vec![put(key("shared", "address.shared", "own"), vec![text("name", "O")])]).await.unwrap();
    fleet.add(newcomer, JoinPolicy::Merge).await.unwrap();
    fleet.server.write(vec![put(item.clone(), vec![text("name", "A")])]).await.unwrap();
    fleet.converged(&["shared"], PATIENCE).await.unwrap();
    fleet.cut(1).await.unwrap();
    fleet.clients[0].write(vec![put(item.clone(), vec![text("name", "first")])]).await.unwrap();
    fleet.clients[1].write(vec![put(item.clone(), vec![text("name", "second")])]).await.unwrap();
    waiting(&fleet.clients[0], 0).await;
    fleet.mend(1).await.unwrap();
    fleet.converged(&["shared"], PATIENCE).await.unwrap();

    // All that was made in 1970 is decades old now, and then of the last decade.
    for shift in [0, clock::years(10), 0] {
        restart(&mut fleet.server, shift, libraries.path()).await;
        restart(&mut fleet.clients[1], shift, libraries.path()).await;
        // Behind this write the server has forgotten what it means to forget at its start.
        let next = key("shared", "shortcut", "s");
        fleet.server.write(vec![put(next, vec![text("value", &shift.to_string())])]).await.unwrap();
        let contents = fleet.converged(&["shared"], PATIENCE).await.unwrap();
        assert_eq!(contents.text(&item, "name"), Some("first"));
        let mut records = fleet.server.records().unwrap();
        let request = ItemHistoryRequest { key: Some(item.clone()), limit: 0 };
        let changes = records.item_history(request).await.unwrap().into_inner().changes;
        assert_eq!(changes[0].before, [text("name", "A")], "the value before");
        let request = HistoryRequest { scope: "shared".to_owned(), limit: 100, ..HistoryRequest::default() };
        let lines = records.history(request).await.unwrap().into_inner().changes;
        assert_eq!(lines.iter().filter(|line| line.event() == Event::Lost).count(), 1, "the losing value");
        let undo = UndoJoinRequest { preview: true };
        let undo = fleet.clients[1].panel().unwrap().undo_join(undo).await.unwrap().into_inner();
        assert_eq!(undo.own_items, 1, "what takes the join back");
    }
}

#[tokio::test]
async fn a_stop_is_clean_also_while_everything_is_busy() {
    let mut fleet = Fleet::start(1).await.unwrap();
    let _watching = fleet.server.watch(&[], &[]).await.unwrap();
    for number in 0..50 {
        let item = key("shared", "shortcut", &format!("s{number}"));
        fleet.clients[0].write(vec![put(item, vec![text("value", "x")])]).await.unwrap();
    }
    fleet.server.stop().await.unwrap();
    fleet.clients[0].stop().await.unwrap();
    fleet.server.start().await.unwrap();
    fleet.clients[0].start().await.unwrap();
    current(&fleet.clients[0]).await.unwrap();
    assert_eq!(fleet.converged(&["shared"], PATIENCE).await.unwrap().len(), 50);
}
