//! Ten clients at addresses of their own, in a network that loses packets, go on writing while their server is lost for
//! good and another one serves in its place: nothing that was written is lost, and what the new server says of its
//! loss is the truth.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mfpsync_daemon::group;
use mfpsync_proto::local::WriteRequest;
use mfpsync_proto::panel::{Durability, RetireServerRequest, Role, SetReplicationRequest};
use mfpsync_tests::item::{key, put, text};
use mfpsync_tests::lan::Lan;
use mfpsync_tests::{LocalClient, PATIENCE, TestDevice, eventually, running, skip};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{Office, REPLICA, SERVER};
use crate::refused::copy_tree;

const CLIENTS: std::ops::Range<usize> = 2..12;
/// Between two edits of one client.
const PAUSE: Duration = Duration::from_millis(100);
/// Changes at the server before it is lost, and as many of which the replica lacks most.
const BEYOND: u64 = 30;

/// Who serves in the place of the server that was lost.
#[derive(Clone, Copy, PartialEq)]
enum Goes {
    /// The replica.
    On,
    /// Another machine at another address, after the replica.
    Elsewhere,
    /// The same machine at the same address, with an empty disk, after the replica.
    Back,
}

/// How long after the decision to promote something happened.
#[derive(Debug)]
#[expect(dead_code, reason = "printed")]
struct Took {
    first_change_accepted: Duration,
    all_follow: Duration,
    /// Written meanwhile, before and after.
    items: usize,
}

/// Cases 19 and 22, too: each machine has an address of its own, and loses one in a hundred packets.
#[tokio::test]
async fn ten_clients_follow_the_replica_to_its_address() {
    println!("{:?}", ten_clients_go_on(Goes::On, Durability::Async, "fail", 1).await);
}

/// Nothing was confirmed without the replica: it lacks nothing.
#[tokio::test]
async fn with_sync_ten_clients_follow_and_the_copy_lacks_nothing() {
    println!("{:?}", ten_clients_go_on(Goes::On, Durability::SyncHold, "hold", 3).await);
}

#[tokio::test]
async fn ten_clients_follow_to_another_machine_by_way_of_the_replica() {
    println!("{:?}", ten_clients_go_on(Goes::Elsewhere, Durability::Async, "other", 4).await);
}

#[tokio::test]
async fn with_sync_ten_clients_follow_to_another_machine() {
    println!("{:?}", ten_clients_go_on(Goes::Elsewhere, Durability::SyncHold, "othh", 5).await);
}

#[tokio::test]
async fn ten_clients_follow_to_the_same_machine_with_an_empty_disk() {
    println!("{:?}", ten_clients_go_on(Goes::Back, Durability::Async, "back", 6).await);
}

#[tokio::test]
async fn with_sync_ten_clients_follow_to_the_same_machine_with_an_empty_disk() {
    println!("{:?}", ten_clients_go_on(Goes::Back, Durability::SyncHold, "bckh", 7).await);
}

/// Everybody's edits, one after the other, until they are told to end.
struct Load {
    end: CancellationToken,
    writers: JoinSet<u32>,
}

impl Load {
    fn begin(office: &Office) -> Self {
        let (end, mut writers) = (CancellationToken::new(), JoinSet::new());
        for client in CLIENTS {
            writers.spawn(write_on(office.devices[client].local().unwrap(), client, end.clone()));
        }
        Self { end, writers }
    }

    /// How many items there are by now.
    async fn end(self) -> usize {
        self.end.cancel();
        self.writers.join_all().await.into_iter().sum::<u32>() as usize
    }
}

/// Writes one item after the other; no edit may be refused, whoever serves.
async fn write_on(mut local: LocalClient, client: usize, end: CancellationToken) -> u32 {
    let mut due = tokio::time::interval(PAUSE);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0.. {
        due.tick().await;
        if end.is_cancelled() {
            return number;
        }
        let item = key("user/alice", "address.personal", &format!("{client}-{number}"));
        let edits = vec![put(item, vec![text("name", &format!("written at {client}"))])];
        local.write(WriteRequest { edits, actor: "alice".to_owned() }).await.unwrap();
    }
    u32::MAX
}

fn machine(lan: &mut Lan, name: &str, address: &str) -> TestDevice {
    let mut device = TestDevice::new(name).unwrap();
    let namespace = lan.machine(&[&format!("{address}/24")]).unwrap();
    lan.lose_packets(&namespace).unwrap();
    device.setup.listen = vec![format!("{address}:7450").parse().unwrap()];
    device.setup.namespace = Some(namespace);
    device
}

/// The last change in the database of a server that does not run, which is left as it is.
fn last_change(server: &TestDevice) -> u64 {
    let copy = server.home().join("looked-at");
    copy_tree(&server.data_dir(), &copy);
    group::head(&copy.join(group::MASTER_FILE)).unwrap().unwrap().sequence.0
}

/// Waits until the server has so many changes more than it has now.
async fn more_changes(office: &Office, server: usize, more: u64) {
    let at = async || -> Result<u64> {
        let server = office.devices[server].status().await?.server.context("no server")?;
        Ok(server.head.context("no head")?.sequence)
    };
    let before = at().await.unwrap();
    eventually(PATIENCE, "more changes", async || {
        let now = at().await?;
        ensure!(now >= before + more, "{now} after {before}");
        Ok(())
    })
    .await
    .unwrap();
}

/// Waits until all clients follow `server`.
async fn all_follow(office: &Office, server: usize) {
    eventually(PATIENCE, "all clients to follow", async || {
        let epoch = office.devices[server].status().await?.group.context("no group")?.epoch;
        for client in CLIENTS {
            let position = office.devices[client].client_status().await?.position;
            ensure!(position.is_some_and(|at| at.epoch == epoch), "{client}: {position:?}");
        }
        Ok(())
    })
    .await
    .unwrap();
}

/// None where no network can be made.
async fn ten_clients_go_on(goes: Goes, durability: Durability, name: &str, subnet: u8) -> Option<Took> {
    let mut lan = match Lan::new(name) {
        Ok(lan) => lan,
        Err(error) => {
            skip(&format!("no network of its own: {error:#}"));
            return None;
        }
    };
    let address = |number: usize| format!("10.78.{subnet}.{}", number + 1);
    let machines = (0..CLIENTS.end)
        .map(|number| machine(&mut lan, &format!("device-{number}"), &address(number)))
        .collect();
    let mut office = Office::of(machines).await;
    for device in [SERVER, REPLICA] {
        office.devices[device].log.expect("F-SUPERSEDED");
        office.devices[device].log.expect("another device reigns");
    }
    let request = SetReplicationRequest { durability: durability.into(), ..SetReplicationRequest::default() };
    office.devices[SERVER].panel().unwrap().set_replication(request).await.unwrap();
    office.copied(SERVER, REPLICA).await;

    let load = Load::begin(&office);
    more_changes(&office, SERVER, BEYOND).await;
    let held = durability == Durability::SyncHold;
    if held {
        office.devices[SERVER].kill().unwrap();
    } else {
        // The server goes on without it, and then it is gone.
        office.devices[REPLICA].freeze().unwrap();
        more_changes(&office, SERVER, BEYOND).await;
        office.devices[SERVER].kill().unwrap();
        office.devices[REPLICA].thaw().unwrap();
    }
    let lost = last_change(&office.devices[SERVER]);

    // Waits at the new server's own panel, which is a client like any other.
    office.write(REPLICA, 0..1).await;
    let decided = Instant::now();
    let promoted = office.promote(REPLICA, true).await.unwrap();
    office.sent(REPLICA).await;
    let first_change_accepted = decided.elapsed();
    running(&office.devices[REPLICA], Role::ServerClient).await.unwrap();
    all_follow(&office, REPLICA).await;
    let followed = decided.elapsed();

    // What it says of its loss is what the disk of the lost server shows.
    let fork = promoted.position.unwrap().sequence;
    assert!(fork + promoted.missing_at_most <= lost, "{promoted:?}, {lost}");
    if held {
        assert_eq!(promoted.missing_at_most, 0);
    } else {
        assert!(fork < lost, "{fork}, {lost}");
    }
    eventually(PATIENCE, "all that live to say what they hold", async || {
        let status = office.devices[REPLICA].status().await?.server.context("no server")?;
        let Some(loss) = status.succession else {
            ensure!(held, "nothing is known of a loss");
            return Ok(());
        };
        ensure!(loss.unheard == ["device-0"] && loss.missing == 0, "{loss:?}");
        ensure!(fork < loss.known_sequence && loss.known_sequence <= lost, "{loss:?}, {lost}");
        Ok(())
    })
    .await
    .unwrap();

    let mut serves = REPLICA;
    if goes != Goes::On {
        let newcomer = if goes == Goes::Elsewhere {
            machine(&mut lan, "newcomer", &address(CLIENTS.end))
        } else {
            let mut emptied = TestDevice::new("newcomer").unwrap();
            emptied.setup = office.devices[SERVER].setup.clone();
            emptied
        };
        office.move_to(newcomer, REPLICA).await;
        serves = office.devices.len() - 1;
        all_follow(&office, serves).await;
        // The same replica goes on.
        running(&office.devices[REPLICA], Role::ReplicaClient).await.unwrap();
    }
    more_changes(&office, serves, BEYOND).await;
    let items = load.end().await + 1;
    let mut followers: Vec<usize> = CLIENTS.chain([REPLICA, serves]).collect();
    office.agree(serves, &followers, items).await;

    if goes != Goes::Back {
        // The old server comes back at its old address, with what nobody else may have seen.
        office.devices[SERVER].start().await.unwrap();
        running(&office.devices[SERVER], Role::Client).await.unwrap();
        followers.push(SERVER);
        office.agree(serves, &followers, items).await;
        let surplus = match lost - fork {
            0 => "had all of them".to_owned(),
            surplus => format!("all but the last {surplus} of them"),
        };
        eventually(PATIENCE, "the old server to say what its successor lacked", async || {
            let shown = office.devices[SERVER].fault("F-SUPERSEDED").await?.text;
            ensure!(shown.contains(&surplus), "{shown}, {surplus}");
            Ok(())
        })
        .await
        .unwrap();
        office.devices[SERVER].panel().unwrap().retire_server(RetireServerRequest {}).await.unwrap();
    }
    for device in followers {
        assert!(office.devices[device].set_aside().await.unwrap().is_empty(), "{device}");
    }
    Some(Took { first_change_accepted, all_follow: followed, items })
}
