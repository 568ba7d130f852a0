//! Text snapshots of the status screen: one per situation an operator meets.

use mfpsync_proto::panel::{CopyStatus, ReplicationStatus, Revision};

use super::*;

fn device(role: Role, phase: RolePhase) -> StatusReply {
    StatusReply {
        version: "0.1.0".to_owned(),
        device_id: "00112233445566778899aabbccddeeff".to_owned(),
        device_name: "copier-1".to_owned(),
        wanted: role.into(),
        running: role.into(),
        phase: phase.into(),
        uptime_seconds: 65,
        ..StatusReply::default()
    }
}

fn revision_at(sequence: u64) -> Option<Revision> {
    Some(Revision { epoch: 1, sequence })
}

#[test]
fn an_idle_device_shows_the_two_ways_to_begin() {
    assert_eq!(
        text(&device(Role::Idle, RolePhase::Running), 0),
        "\
copier-1   device 00112233445566778899aabbccddeeff, mfpsyncd 0.1.0, up 65 s
Role    none, running
Safe    what is on this device stays on this device alone
Waits   nothing
Wrong   nothing
Next    `mfpsync role start-server --group NAME --kit FILE`, or `mfpsync join ADDRESS`"
    );
}

#[test]
fn a_server_alone_says_that_nobody_else_holds_its_data() {
    let mut status = device(Role::ServerClient, RolePhase::Running);
    status.group = Some(GroupStatus {
        group_name: "Second floor".to_owned(),
        epoch: 1,
        server_device_id: status.device_id.clone(),
        server_name: "copier-1".to_owned(),
        ..GroupStatus::default()
    });
    status.server = Some(ServerStatus {
        listening: vec!["192.0.2.1:7401".to_owned()],
        head: revision_at(204),
        items: 200,
        database_bytes: 1 << 20,
        connected_devices: 1,
        devices: 1,
        pairing_seconds_left: Some(540),
        ..ServerStatus::default()
    });
    let text = text(&status, 0);
    let tail = text.split_once("Role").unwrap().1;
    assert_eq!(
        tail,
        "    server+client, running
Group   Second floor, epoch 1, server copier-1 (this device)
Server  192.0.2.1:7401; 1 of 1 device connected; 200 items, 1.0 MiB
Safe    on this device's disk up to 1:204; no second holder yet beside the clients' working copies
Waits   pairing is open for 540 more s
Wrong   nothing
Next    `mfpsync pair open`, then `mfpsync join` on the other devices"
    );
}

#[test]
fn a_cut_off_client_says_what_waits_and_that_it_goes_on_by_itself() {
    let mut status = device(Role::Client, RolePhase::Running);
    status.client = Some(ClientStatus {
        link: Link::Waiting.into(),
        server_address: "192.0.2.1:7401".to_owned(),
        position: revision_at(200),
        waiting: 2,
        rejected: 1,
        retained: 3,
        last_current_millis: Some(90_000),
        last_error: "connection refused".to_owned(),
        ..ClientStatus::default()
    });
    let text = text(&status, 0);
    let tail = text.split_once("Client").unwrap().1;
    assert_eq!(
        tail,
        "  waiting to try again, server 192.0.2.1:7401, at 1:200, had everything 90 s ago
Safe    3 accepted edits of this device kept here as well until a second device holds them
Waits   2 edits to reach the server
Wrong   1 edit refused by the server
        last attempt to connect: connection refused
Next    look at the refused edits: `mfpsync set-aside`
        check the network and the server; this device tries again by itself"
    );
}

#[test]
fn a_replica_whose_server_is_gone_says_what_would_be_lost_and_how_to_take_over() {
    let mut status = device(Role::ReplicaClient, RolePhase::Running);
    status.client = Some(ClientStatus {
        link: Link::Waiting.into(),
        server_address: "192.0.2.1:7401".to_owned(),
        position: revision_at(209),
        ..ClientStatus::default()
    });
    status.copy = Some(CopyStatus {
        position: revision_at(200),
        server: revision_at(200),
        database_bytes: 1 << 20,
        ..CopyStatus::default()
    });
    let text = text(&status, 0);
    let tail = text.split_once("Copy").unwrap().1;
    assert_eq!(
        tail,
        "    this device holds a copy of 1.0 MiB, up to 1:200
Safe    if the server is lost: the copy lacks 9 changes it was known to have, and they come back from the devices that \
         made or saw them
Waits   nothing
Wrong   nothing
Next    check the network and the server; this device tries again by itself
        if the server is lost: `mfpsync role promote --server-is-lost`"
    );
}

#[test]
fn a_server_without_a_replica_says_how_to_get_one() {
    let mut status = device(Role::ServerClient, RolePhase::Running);
    status.server = Some(ServerStatus { devices: 3, head: revision_at(9), ..ServerStatus::default() });
    assert!(text(&status, 0).contains("Next    a second copy of the group's data: `mfpsync replication set"));
    status.replica = Some(ReplicationStatus::default());
    assert!(text(&status, 0).contains("Next    nothing to do"));
}

#[test]
fn a_fault_is_shown_with_its_code_and_age() {
    let mut status = device(Role::Server, RolePhase::Faulted);
    status.running = Role::Idle.into();
    status.faults = vec![Fault {
        code: "F-DISK-FULL".to_owned(),
        text: "the disk is full; everything stored is safe; free space".to_owned(),
        since_unix_millis: 1_000,
    }];
    let text = text(&status, 31_000);
    assert!(text.contains("Role    server, faulted (now none)"), "{text}");
    assert!(text.contains("Wrong   F-DISK-FULL (30 s ago): the disk is full;"), "{text}");
    assert!(text.contains("Next    do what the fault above says"), "{text}");
}

#[test]
fn scripts_get_absent_parts_as_null() {
    let json = json(&device(Role::Idle, RolePhase::Running));
    assert_eq!(json["wanted"], "none");
    assert!(json["server"].is_null() && json["client"].is_null() && json["group"].is_null());
}

#[test]
fn values_of_a_newer_daemon_are_unknown_rather_than_an_error() {
    let mut status = device(Role::Idle, RolePhase::Running);
    status.running = 99;
    assert_eq!(json(&status)["running"], "unknown");
}
