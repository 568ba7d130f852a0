//! Links that are slow, silent, or gone in the middle, other addresses, and clocks that are wrong. Cases
//! 19, 20 and 22.

use mfpsync_tests::{Relay, clock, start_server};

use super::*;

/// So many bytes in a second: a first copy takes a few.
const SLOW: u32 = 1 << 20;
/// What a window of 64 KiB makes of a long way.
const FAR: Duration = Duration::from_millis(50);

fn copied(device: &TestDevice) -> u64 {
    std::fs::metadata(device.data_dir().join("standby/standby-1.db")).map_or(0, |file| file.len())
}

#[tokio::test]
async fn a_first_copy_over_a_slow_link_goes_on_where_it_was_cut() {
    // A campaign has the slowest link there is, and the signs of life of a real device.
    let (slow, heartbeat) = (SLOW / rounds(1, 32), rounds(1, 15));
    let mut fleet = Fleet::start(2).await.unwrap();
    for device in std::iter::once(&mut fleet.server).chain(&mut fleet.clients) {
        device.setup.heartbeat = Some(heartbeat);
        device.restart().await.unwrap();
    }
    bulk(&fleet.server, 0..250).await;
    sent(&fleet.server).await;
    current(&fleet.clients[1]).await.unwrap();
    let whole = std::fs::metadata(fleet.server.master_database()).unwrap().len();
    fleet.relays[1].slow_down(FAR, Some(slow));
    set(&fleet, 1, Durability::Async).await;
    let minutes = Duration::from_secs(300);
    eventually(minutes, "a part of the copy", async || {
        let copied = copied(&fleet.clients[1]);
        ensure!(copied > whole / 3, "{copied} of {whole} bytes");
        Ok(())
    })
    .await
    .unwrap();
    fleet.relays[1].cut();
    fleet.relays[1].slow_down(Duration::ZERO, None);
    let first = fleet.relays[1].passed();
    fleet.mend(1).await.unwrap();
    caught_up(&fleet, 1).await;
    let rest = fleet.relays[1].passed() - first;
    // As many as from nothing.
    fleet.clients[1].stop().await.unwrap();
    std::fs::remove_dir_all(fleet.clients[1].data_dir().join("standby")).unwrap();
    let before = fleet.relays[1].passed();
    fleet.clients[1].start().await.unwrap();
    caught_up(&fleet, 1).await;
    let all = fleet.relays[1].passed() - before;
    assert!(rest < all * 4 / 5, "{rest} bytes for the rest of {all}");
    is_the_same_file(&mut fleet, 1).await;
}

#[tokio::test]
async fn a_replica_behind_a_slow_link_makes_nobody_wait_and_gets_everything() {
    let mut fleet = with_replica(2, Durability::Async).await;
    fleet.relays[1].slow_down(FAR, Some(SLOW / 4));
    fleet.cut(1).await.unwrap();
    fleet.mend(1).await.unwrap();
    caught_up(&fleet, 1).await;
    for round in 0..5 {
        write(&fleet.clients[0], round * 20..round * 20 + 20).await;
        bulk(&fleet.server, round * 2..round * 2 + 2).await;
    }
    sent(&fleet.clients[0]).await;
    sent(&fleet.server).await;
    is_proven(&fleet).await;
    is_the_same_file(&mut fleet, 1).await;
}

#[tokio::test]
async fn a_link_that_is_silent_without_an_end_is_given_up() {
    let mut fleet = with_replica(2, Durability::Async).await;
    let gone = fleet.clients[1].log.text().matches("the server is silent").count();
    fleet.relays[1].hush(true);
    write(&fleet.clients[0], 0..20).await;
    sent(&fleet.clients[0]).await;
    eventually(PATIENCE, "the silence to be noticed", async || {
        let noticed = fleet.clients[1].log.text().matches("the server is silent").count();
        ensure!(noticed > gone, "the replica still believes in its server");
        Ok(())
    })
    .await
    .unwrap();
    fleet.relays[1].hush(false);
    write(&fleet.clients[0], 20..40).await;
    sent(&fleet.clients[0]).await;
    is_the_same_file(&mut fleet, 1).await;
}

#[tokio::test]
async fn a_server_that_is_reached_elsewhere_goes_on_being_followed() {
    let mut server = TestDevice::new("server").unwrap();
    let ways = [Relay::open(server.address()).await.unwrap(), Relay::open(server.address()).await.unwrap()];
    server.setup.advertise = ways.iter().map(Relay::address).collect();
    server.start().await.unwrap();
    start_server(&server, "Office").await.unwrap();
    let mut fleet = Fleet { server, clients: Vec::new(), relays: Vec::new() };
    fleet.add(TestDevice::new("client-1").unwrap(), JoinPolicy::Merge).await.unwrap();
    fleet.clients[0].setup.dial_only.clear();
    fleet.clients[0].restart().await.unwrap();
    fleet.relays[0].cut();
    set(&fleet, 0, Durability::SyncHold).await;
    running(&fleet.clients[0], Role::ReplicaClient).await.unwrap();
    caught_up(&fleet, 0).await;
    for round in 0..2 {
        let (way, other) = (&ways[round], &ways[1 - round]);
        other.mend();
        way.cut();
        write(&fleet.server, round as u32 * 5..round as u32 * 5 + 5).await;
        sent(&fleet.server).await;
        caught_up(&fleet, 0).await;
    }
    is_the_same_file(&mut fleet, 0).await;
}

#[tokio::test]
async fn clocks_that_are_decades_apart_and_jump_decide_nothing_of_a_copy() {
    let mut fleet = with_replica(1, Durability::SyncHold).await;
    fleet.server.log.expect("F-CHANGES-HELD");
    for (server, replica) in
        [(clock::back_to_1970(), clock::years(30)), (clock::years(40), -clock::years(20))]
    {
        for (device, shift) in [(&mut fleet.server, server), (&mut fleet.clients[0], replica)] {
            device.setup.env = clock::shifted_by(shift, device.home()).unwrap();
            device.restart().await.unwrap();
        }
        write(&fleet.server, 0..10).await;
        sent(&fleet.server).await;
        caught_up(&fleet, 0).await;
        is_proven(&fleet).await;
    }
    is_the_same_file(&mut fleet, 0).await;
}
