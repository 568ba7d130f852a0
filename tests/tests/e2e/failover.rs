//! The server is lost, handed over or comes back, and no client is touched: real daemons at addresses of
//! their own, which find the new server by themselves.
//!
//! Who comes back, and the test in which it does:
//!
//! | Who | Test |
//! |---|---|
//! | the old server after a takeover, at its old address | `i_17_…`, `under_load` |
//! | the old server after a recovery on a machine it never heard of | `a_lost_server_is_recovered_on_another_machine_…`, `under_load` |
//! | a replica that was switched off while another one took over | `i_08_…` |
//! | two machines with one history | `i_08_…` |
//! | the same machine with an empty disk | `a_server_is_recovered_on_the_same_machine_…`, `under_load` |
//! | a server that nobody replaced | `faults::a_killed_server_comes_back_with_everything_it_acknowledged` |
//! | a server whose own disk was put back | `replica::a_server_whose_disk_was_put_back_…` |
//! | a client that was away while deletions were forgotten | `forgotten::a_disk_from_before_a_forgotten_deletion_…` |
//! | a client that was released, or its clone | `refused::a_released_device_loses_its_stream_…` |
//! | a client with an older copy of its disk | `refused::a_disk_restored_from_an_older_copy_…` |

mod killed;
mod under_load;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mfpsync_proto::panel::client_status::Link;
use mfpsync_proto::panel::{
    DevicesRequest, Durability, JoinPolicy, PromoteReply, PromoteRequest, RefoundRequest,
    ReleaseDeviceRequest, ReleaseReplicaRequest, ReplicationRequest, RetireServerRequest, Role, RolePhase,
    SetReplicationReply, SetReplicationRequest, StartServerRequest, StayRequest, StopReplicationRequest,
    SucceedRequest, Succession, TransferRequest,
};
use mfpsync_tests::item::{key, put, text};
use mfpsync_tests::lan::Lan;
use mfpsync_tests::steps::Steps;
use mfpsync_tests::{
    PASSPHRASE, PATIENCE, Port, TestDevice, current, eventually, join, open_pairing, running, skip,
    start_server,
};
use tonic::Status;

/// A group whose devices dial each other.
struct Office {
    kit: String,
    devices: Vec<TestDevice>,
}

const SERVER: usize = 0;
const REPLICA: usize = 1;

impl Office {
    /// A server, a replica that can take over, and so many clients besides.
    async fn open(clients: usize) -> Self {
        let devices = (0..clients + 2).map(|number| TestDevice::new(&format!("device-{number}")).unwrap());
        Self::of(devices.collect()).await
    }

    /// The same of these devices, none of which runs yet.
    async fn of(devices: Vec<TestDevice>) -> Self {
        let mut office = Self { kit: String::new(), devices: Vec::new() };
        for mut device in devices {
            device.start().await.unwrap();
            let Some(server) = office.devices.first() else {
                office.kit = start_server(&device, "Office").await.unwrap();
                office.devices.push(device);
                continue;
            };
            let pairing = open_pairing(server).await.unwrap();
            let [address, ..] = pairing.addresses.as_slice() else { panic!("the server is nowhere") };
            join(&device, address, &pairing.code, JoinPolicy::Merge).await.unwrap();
            current(&device).await.unwrap();
            office.devices.push(device);
        }
        office.replicate(SERVER, REPLICA).await.unwrap();
        running(&office.devices[REPLICA], Role::ReplicaClient).await.unwrap();
        office.copied(SERVER, REPLICA).await;
        office
    }

    async fn replicate(&self, server: usize, replica: usize) -> Result<SetReplicationReply, Status> {
        let request = SetReplicationRequest {
            device_id: self.devices[replica].status().await.unwrap().device_id,
            durability: Durability::Async.into(),
            recovery_kit: self.kit.clone(),
            kit_passphrase: PASSPHRASE.to_owned(),
        };
        Ok(self.devices[server].panel().unwrap().set_replication(request).await?.into_inner())
    }

    /// Waits until the replica has everything and can take over.
    async fn copied(&self, server: usize, replica: usize) {
        eventually(PATIENCE, "the replica to have everything", async || {
            let status = self.devices[server].panel()?.replication(ReplicationRequest {}).await?.into_inner();
            let status = status.replica.context("no replica is set")?;
            ensure!(status.live && status.behind == Some(0) && status.can_take_over, "{status:?}");
            let own = self.devices[replica].panel()?.replication(ReplicationRequest {}).await?.into_inner();
            ensure!(own.copy.context("no copy")?.position == status.safe, "{status:?}");
            Ok(())
        })
        .await
        .unwrap();
    }

    async fn write(&self, device: usize, items: std::ops::Range<u32>) {
        for item in items {
            let fields = vec![text("name", &format!("written at {device}"))];
            let edit = put(key("user/alice", "address.personal", &item.to_string()), fields);
            self.devices[device].write(vec![edit]).await.unwrap();
        }
    }

    async fn sent(&self, device: usize) {
        eventually(PATIENCE, "all edits to be taken", async || {
            let waiting = self.devices[device].client_status().await?.waiting;
            ensure!(waiting == 0, "{waiting} wait");
            Ok(())
        })
        .await
        .unwrap();
    }

    async fn promote(&self, replica: usize, server_is_lost: bool) -> Result<PromoteReply, Status> {
        let mut panel = self.devices[replica].panel().unwrap();
        let request = PromoteRequest { server_is_lost, ..PromoteRequest::default() };
        Ok(panel.promote(request).await?.into_inner())
    }

    /// Waits until the device has heard that replication was stopped.
    async fn no_replica_any_more(&self, device: usize) {
        eventually(PATIENCE, "the replica to hear of it", async || {
            let devices =
                self.devices[device].panel()?.devices(DevicesRequest {}).await?.into_inner().devices;
            let own = devices.iter().find(|device| device.this_device).context("no row")?;
            ensure!(!own.capabilities.iter().any(|name| name == "replicate"), "{own:?}");
            Ok(())
        })
        .await
        .unwrap();
    }

    /// What the server says of changes that the reign before had.
    async fn succession(&self, server: usize) -> Succession {
        let status = self.devices[server].status().await.unwrap();
        status.server.unwrap().succession.unwrap()
    }

    /// A new machine becomes the server in the place of this one; it is the last device from then on.
    async fn move_to(&mut self, mut newcomer: TestDevice, server: usize) {
        newcomer.start().await.unwrap();
        let pairing = open_pairing(&self.devices[server]).await.unwrap();
        let [address, ..] = pairing.addresses.as_slice() else { panic!("the server is nowhere") };
        join(&newcomer, address, &pairing.code, JoinPolicy::Merge).await.unwrap();
        current(&newcomer).await.unwrap();
        let request =
            SucceedRequest { recovery_kit: self.kit.clone(), kit_passphrase: PASSPHRASE.to_owned() };
        newcomer.panel().unwrap().succeed(request).await.unwrap();
        running(&newcomer, Role::ReplicaClient).await.unwrap();
        self.devices.push(newcomer);
        let newcomer = self.devices.len() - 1;
        self.copied(server, newcomer).await;
        self.promote(newcomer, false).await.unwrap();
        running(&self.devices[newcomer], Role::ServerClient).await.unwrap();
    }

    /// Waits until these devices follow `server` and all show so many items of the user.
    async fn agree(&self, server: usize, devices: &[usize], items: usize) {
        eventually(PATIENCE, "everybody to follow the new server and agree", async || {
            let epoch = self.devices[server].status().await?.group.context("no group")?.epoch;
            let shown = self.devices[server].contents(&["user/alice"]).await?;
            ensure!(shown.len() == items, "{} of {items} items", shown.len());
            let master = self.devices[server].hashes().await?.master.context("no master")?;
            for device in devices {
                let device = &self.devices[*device];
                let status = device.client_status().await?;
                ensure!(status.waiting == 0, "{} edits wait at {}", status.waiting, device.name);
                ensure!(status.position.is_some_and(|at| at.epoch == epoch), "{}: {status:?}", device.name);
                let hashes = device.hashes().await?;
                ensure!(hashes.mirror == master && hashes.visible == master, "{} differs", device.name);
            }
            Ok(())
        })
        .await
        .unwrap();
    }
}

/// I-17.
#[tokio::test]
async fn i_17_a_lost_servers_replica_takes_over_and_what_it_lacked_comes_back() {
    let mut office = Office::open(3).await;
    office.write(2, 0..20).await;
    office.write(3, 20..40).await;
    office.sent(2).await;
    office.sent(3).await;
    office.copied(SERVER, REPLICA).await;

    // The replica gets no more, the server goes on.
    office.devices[REPLICA].freeze().unwrap();
    office.write(2, 40..50).await;
    office.write(3, 50..60).await;
    office.sent(2).await;
    office.sent(3).await;
    // Made at a device that is lost as well: who has seen it offers it.
    eventually(PATIENCE, "another device to see the last edits", async || {
        let seen = office.devices[4].contents(&["user/alice"]).await?.len();
        ensure!(seen == 60, "{seen}");
        Ok(())
    })
    .await
    .unwrap();
    office.devices[SERVER].kill().unwrap();
    office.devices[3].kill().unwrap();
    office.devices[REPLICA].thaw().unwrap();

    // Its panel may have seen more than its copy: that is known to be missing.
    let lacks = eventually(PATIENCE, "the replica to miss its server", async || {
        let status = office.devices[REPLICA].status().await?;
        let (copy, client) = (status.copy.context("no copy")?, status.client.context("no client")?);
        ensure!(!copy.connected && client.link() == Link::Waiting, "{copy:?} {client:?}");
        let copied = copy.position.context("no position")?.sequence;
        Ok(client.position.context("no position")?.sequence.saturating_sub(copied))
    });
    let lacks = lacks.await.unwrap();
    let refused = office.promote(REPLICA, false).await.unwrap_err();
    assert!(refused.message().contains("nothing was changed"), "{refused}");
    let promoted = office.promote(REPLICA, true).await.unwrap();
    assert!(!promoted.stood_down);
    assert!(promoted.missing_at_most >= lacks, "{} of {lacks}", promoted.missing_at_most);
    assert_eq!(promoted.wanted(), Role::ServerClient);
    running(&office.devices[REPLICA], Role::ServerClient).await.unwrap();
    office.agree(REPLICA, &[REPLICA, 2, 4], 60).await;
    // What was missing at first has been seen by devices that live.
    let succession = office.succession(REPLICA).await;
    assert_eq!((succession.known_sequence, succession.missing), (60, 0), "{succession:?}");
    assert_eq!((succession.reported_devices, succession.devices), (3, 5));
    assert_eq!(succession.unheard, ["device-0", "device-3"]);
    office.write(2, 60..65).await;
    office.agree(REPLICA, &[REPLICA, 2, 4], 65).await;

    // The old server comes back at its old address, and the lost device with it.
    office.devices[SERVER].log.expect("F-SUPERSEDED");
    office.devices[SERVER].log.expect("another device reigns");
    office.devices[SERVER].start().await.unwrap();
    office.devices[3].start().await.unwrap();
    running(&office.devices[SERVER], Role::Client).await.unwrap();
    office.agree(REPLICA, &[SERVER, REPLICA, 2, 3, 4], 65).await;
    office.devices[SERVER].fault("F-SUPERSEDED").await.unwrap();
    let mut panel = office.devices[SERVER].panel().unwrap();
    let kept = panel.retire_server(RetireServerRequest {}).await.unwrap().into_inner().path;
    assert!(std::path::Path::new(&kept).exists());
    assert!(office.devices[SERVER].status().await.unwrap().faults.is_empty());
    for device in [SERVER, 2, 3, 4] {
        assert!(office.devices[device].set_aside().await.unwrap().is_empty(), "{device}");
    }
    // It becomes the replica of its successor.
    office.replicate(REPLICA, SERVER).await.unwrap();
    running(&office.devices[SERVER], Role::ReplicaClient).await.unwrap();
    office.copied(REPLICA, SERVER).await;
}

#[tokio::test]
async fn a_planned_takeover_loses_nothing_and_the_old_server_goes_on_as_a_client() {
    let mut office = Office::open(1).await;
    office.write(2, 0..30).await;
    office.devices[SERVER].log.expect("F-SUPERSEDED");
    office.devices[SERVER].log.expect("another device reigns");
    let promoted = office.promote(REPLICA, false).await.unwrap();
    assert!(promoted.stood_down);
    assert_eq!(promoted.missing_at_most, 0);
    running(&office.devices[REPLICA], Role::ServerClient).await.unwrap();
    // The two have changed places, and what the old server has serves as the copy.
    running(&office.devices[SERVER], Role::ReplicaClient).await.unwrap();
    office.agree(REPLICA, &[SERVER, REPLICA, 2], 30).await;
    office.copied(REPLICA, SERVER).await;
    assert!(office.devices[SERVER].status().await.unwrap().faults.is_empty());
    assert!(!office.devices[SERVER].data_dir().join("master.db").exists());
    // A new device pairs with the new server, by the key that the kit certified.
    let newcomer = TestDevice::started("newcomer").await.unwrap();
    let code = open_pairing(&office.devices[REPLICA]).await.unwrap().code;
    let address = office.devices[REPLICA].address().to_string();
    join(&newcomer, &address, &code, JoinPolicy::Merge).await.unwrap();
    current(&newcomer).await.unwrap();
    office.devices.push(newcomer);
    office.agree(REPLICA, &[SERVER, REPLICA, 2, 3], 30).await;
}

#[tokio::test]
async fn a_server_hands_over_and_back_and_its_clients_follow() {
    let mut office = Office::open(1).await;
    for device in [SERVER, REPLICA] {
        office.devices[device].log.expect("F-SUPERSEDED");
        office.devices[device].log.expect("another device reigns");
    }
    office.write(2, 0..10).await;
    let (mut server, mut replica) = (SERVER, REPLICA);
    for round in 1..=3 {
        office.copied(server, replica).await;
        let mut panel = office.devices[server].panel().unwrap();
        let transferred = panel.transfer(TransferRequest {}).await.unwrap().into_inner();
        assert_eq!(transferred.device_name, office.devices[replica].name);
        (server, replica) = (replica, server);
        running(&office.devices[server], Role::ServerClient).await.unwrap();
        running(&office.devices[replica], Role::ReplicaClient).await.unwrap();
        office.write(2, round * 10..round * 10 + 10).await;
        office.agree(server, &[0, 1, 2], round as usize * 10 + 10).await;
    }
    let refused = office.devices[replica].panel().unwrap().transfer(TransferRequest {}).await.unwrap_err();
    assert!(refused.message().contains("not a running server"), "{refused}");
}

#[tokio::test]
async fn a_lost_server_is_recovered_on_another_machine_from_the_replicas_copy() {
    let mut office = Office::open(2).await;
    for device in [SERVER, REPLICA] {
        office.devices[device].log.expect("F-SUPERSEDED");
        office.devices[device].log.expect("another device reigns");
    }
    office.write(2, 0..20).await;
    office.sent(2).await;
    office.copied(SERVER, REPLICA).await;
    office.devices[REPLICA].freeze().unwrap();
    office.write(2, 20..30).await;
    office.sent(2).await;
    office.devices[SERVER].kill().unwrap();
    office.devices[3].kill().unwrap();
    office.devices[REPLICA].thaw().unwrap();
    office.promote(REPLICA, true).await.unwrap();
    running(&office.devices[REPLICA], Role::ServerClient).await.unwrap();
    office.agree(REPLICA, &[REPLICA, 2], 30).await;

    office.move_to(TestDevice::new("newcomer").unwrap(), REPLICA).await;
    // The same replica goes on.
    running(&office.devices[REPLICA], Role::ReplicaClient).await.unwrap();
    office.agree(4, &[REPLICA, 2, 4], 30).await;
    office.copied(4, REPLICA).await;
    // The first server knows neither of the reigns since, nor the machine, and is sealed all the same.
    office.devices[SERVER].start().await.unwrap();
    running(&office.devices[SERVER], Role::Client).await.unwrap();
    office.devices[3].start().await.unwrap();
    office.write(3, 30..35).await;
    office.agree(4, &[SERVER, REPLICA, 2, 3, 4], 35).await;
}

/// Until its author is heard a change that nobody else has seen is missing.
#[tokio::test]
async fn what_is_missing_after_a_takeover_is_known_exactly_when_all_have_been_heard() {
    let mut office = Office::open(2).await;
    office.write(2, 0..10).await;
    office.sent(2).await;
    office.copied(SERVER, REPLICA).await;
    office.devices[3].kill().unwrap();
    office.devices[REPLICA].kill().unwrap();
    office.write(2, 10..13).await;
    office.sent(2).await;
    office.devices[SERVER].kill().unwrap();
    office.devices[2].kill().unwrap();
    office.devices[REPLICA].start().await.unwrap();
    running(&office.devices[REPLICA], Role::ReplicaClient).await.unwrap();
    eventually(PATIENCE, "the copy to be read", async || {
        let copy = office.devices[REPLICA].status().await?.copy.context("no copy")?;
        ensure!(copy.position.is_some(), "{copy:?}");
        Ok(())
    })
    .await
    .unwrap();
    office.promote(REPLICA, true).await.unwrap();
    running(&office.devices[REPLICA], Role::ServerClient).await.unwrap();
    office.devices[3].start().await.unwrap();
    office.agree(REPLICA, &[REPLICA, 3], 10).await;
    office.devices[2].start().await.unwrap();
    office.agree(REPLICA, &[REPLICA, 2, 3], 13).await;
    let told = async || {
        let succession = office.succession(REPLICA).await;
        ensure!((succession.missing, succession.known_sequence) == (0, 13), "{succession:?}");
        Ok(succession.unheard)
    };
    let unheard = eventually(PATIENCE, "all that live to say what they hold", told).await.unwrap();
    assert_eq!(unheard, ["device-0"]);
}

/// The machine stays where it is and is another device, since nothing of its identity is left.
#[tokio::test]
async fn a_server_is_recovered_on_the_same_machine_with_an_empty_disk() {
    let mut office = Office::open(1).await;
    office.devices[REPLICA].log.expect("F-SUPERSEDED");
    office.devices[REPLICA].log.expect("another device reigns");
    office.write(2, 0..20).await;
    office.sent(2).await;
    office.copied(SERVER, REPLICA).await;
    let address = office.devices[SERVER].address();
    let device_id = office.devices[SERVER].status().await.unwrap().device_id;
    office.devices[SERVER].kill().unwrap();
    let port = office.devices[SERVER].listen_at(Port::reserve().unwrap());
    office.promote(REPLICA, true).await.unwrap();
    running(&office.devices[REPLICA], Role::ServerClient).await.unwrap();
    let mut newcomer = TestDevice::new("newcomer").unwrap();
    newcomer.listen_at(port);
    office.move_to(newcomer, REPLICA).await;
    assert_eq!(office.devices[3].address(), address);
    running(&office.devices[REPLICA], Role::ReplicaClient).await.unwrap();
    office.write(2, 20..25).await;
    office.agree(3, &[REPLICA, 2, 3], 25).await;
    office.copied(3, REPLICA).await;
    // What the machine was before is released, as a broken device is.
    let mut panel = office.devices[3].panel().unwrap();
    panel.release_device(ReleaseDeviceRequest { device_id }).await.unwrap();
    office.write(2, 25..26).await;
    office.agree(3, &[REPLICA, 2, 3], 26).await;
}

/// Server and replica are gone with their data. The clients find the new server by discovery: it is at an
/// address, and has a key, that no server ever had.
#[tokio::test]
async fn every_server_is_lost_and_the_kit_makes_a_client_the_server() {
    let mut lan = match Lan::new("lost") {
        Ok(lan) => lan,
        Err(error) => return skip(&format!("no network of its own: {error:#}")),
    };
    let machines: Vec<TestDevice> = (0..5)
        .map(|number| {
            let mut device = TestDevice::new(&format!("device-{number}")).unwrap();
            let address = format!("10.78.2.{}", number + 1);
            device.setup.namespace = Some(lan.machine(&[&format!("{address}/24")]).unwrap());
            device.setup.listen = vec![format!("{address}:7450").parse().unwrap()];
            device.setup.discovery = true;
            device
        })
        .collect();
    let mut office = Office::of(machines).await;
    for client in [2, 3, 4] {
        office.write(client, client as u32 * 10..client as u32 * 10 + 5).await;
        office.sent(client).await;
    }
    office.agree(SERVER, &[2, 3, 4], 15).await;
    let mut request = RefoundRequest {
        recovery_kit: office.kit.clone(),
        kit_passphrase: PASSPHRASE.to_owned(),
        ..RefoundRequest::default()
    };
    let refused = office.devices[2].panel().unwrap().refound(request.clone()).await.unwrap_err();
    assert!(refused.message().contains("could serve and answers"), "{refused}");
    office.devices[4].stop().await.unwrap();
    office.devices[SERVER].kill().unwrap();
    office.devices[REPLICA].kill().unwrap();
    office.write(3, 100..105).await;
    let refused = office.devices[2].panel().unwrap().refound(request.clone()).await.unwrap_err();
    assert!(refused.message().contains("--accept-loss-of 15"), "{refused}");
    request.accept_loss_of = 15;
    eventually(PATIENCE, "the client to miss its server", async || {
        office.devices[2].panel()?.refound(request.clone()).await.map(drop).map_err(Into::into)
    })
    .await
    .unwrap();
    running(&office.devices[2], Role::ServerClient).await.unwrap();
    office.agree(2, &[2, 3], 20).await;
    office.devices[4].start().await.unwrap();
    office.agree(2, &[2, 3, 4], 20).await;
    let own = office.devices[2].status().await.unwrap().device_id;
    for device in [3, 4] {
        assert_eq!(office.devices[device].status().await.unwrap().group.unwrap().server_device_id, own);
    }
}

#[tokio::test]
async fn a_replica_is_released_and_is_asked_for_its_only_copy() {
    let mut office = Office::open(1).await;
    office.write(2, 0..10).await;
    office.sent(2).await;
    office.copied(SERVER, REPLICA).await;
    office.devices[SERVER].kill().unwrap();
    let at_stake = eventually(PATIENCE, "the replica to miss its server", async || {
        let copy = office.devices[REPLICA].status().await?.copy.context("no copy")?;
        ensure!(!copy.connected, "{copy:?}");
        Ok(copy.position.context("no position")?.sequence)
    });
    let at_stake = at_stake.await.unwrap();
    let release = async |accept_loss_of| {
        let mut panel = office.devices[REPLICA].panel().unwrap();
        panel.release_replica(ReleaseReplicaRequest { accept_loss_of }).await
    };
    for too_few in [0, at_stake - 1] {
        let refused = release(too_few).await.unwrap_err();
        assert!(refused.message().contains(&format!("this copy of {at_stake} changes")), "{refused}");
    }
    running(&office.devices[REPLICA], Role::ReplicaClient).await.unwrap();
    let aside = release(at_stake).await.unwrap().into_inner().path;
    assert!(std::path::Path::new(&aside).join("standby.pos").exists());
    running(&office.devices[REPLICA], Role::Client).await.unwrap();
    // Also where the server comes back and still counts on it, until its operator asks anew.
    office.devices[REPLICA].stop().await.unwrap();
    office.devices[SERVER].start().await.unwrap();
    office.devices[REPLICA].start().await.unwrap();
    office.agree(SERVER, &[SERVER, REPLICA, 2], 10).await;
    running(&office.devices[REPLICA], Role::Client).await.unwrap();
    let mut panel = office.devices[SERVER].panel().unwrap();
    panel.stop_replication(StopReplicationRequest {}).await.unwrap();
    office.no_replica_any_more(REPLICA).await;
    office.replicate(SERVER, REPLICA).await.unwrap();
    running(&office.devices[REPLICA], Role::ReplicaClient).await.unwrap();
    office.copied(SERVER, REPLICA).await;
}

/// I-10.
#[tokio::test]
async fn i_10_a_release_of_the_replica_that_is_killed_was_made_or_not() {
    let mut office = Office::open(0).await;
    office.write(REPLICA, 0..10).await;
    office.sent(REPLICA).await;
    for moment in [0, 2, 5, 10, 20, 40] {
        office.copied(SERVER, REPLICA).await;
        let mut panel = office.devices[REPLICA].panel().unwrap();
        let release =
            tokio::spawn(
                async move { panel.release_replica(ReleaseReplicaRequest::default()).await.map(drop) },
            );
        tokio::time::sleep(Duration::from_millis(moment)).await;
        office.devices[REPLICA].kill().unwrap();
        release.abort();
        office.devices[REPLICA].start().await.unwrap();
        let role = eventually(PATIENCE, "the replica to be one or not", async || {
            let status = office.devices[REPLICA].status().await?;
            ensure!(status.phase() == RolePhase::Running, "{status:?}");
            Ok(status.running())
        });
        match role.await.unwrap() {
            Role::ReplicaClient => {}
            Role::Client => {
                let mut panel = office.devices[SERVER].panel().unwrap();
                panel.stop_replication(StopReplicationRequest {}).await.unwrap();
                office.no_replica_any_more(REPLICA).await;
                // Also where the copy was not moved aside any more: it is the group's, and goes on.
                office.replicate(SERVER, REPLICA).await.unwrap();
                running(&office.devices[REPLICA], Role::ReplicaClient).await.unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
    office.agree(SERVER, &[SERVER, REPLICA], 10).await;
}

/// I-14.
#[tokio::test]
async fn i_14_a_server_that_lives_is_sealed_by_its_successors_first_word() {
    let mut office = Office::open(1).await;
    office.write(2, 0..5).await;
    office.devices[SERVER].log.expect("F-SUPERSEDED");
    office.devices[SERVER].log.expect("another device reigns");
    office.promote(REPLICA, true).await.unwrap();
    running(&office.devices[REPLICA], Role::ServerClient).await.unwrap();
    running(&office.devices[SERVER], Role::Client).await.unwrap();
    office.agree(REPLICA, &[SERVER, REPLICA, 2], 5).await;
    let refused = office.devices[SERVER].panel().unwrap().start_server(StartServerRequest::default()).await;
    assert!(
        refused.is_err() || {
            eventually(PATIENCE, "the old database to be refused", async || {
                let status = office.devices[SERVER].status().await?;
                ensure!(status.phase() == RolePhase::Faulted, "{:?}", status.phase());
                Ok(())
            })
            .await
            .is_ok()
        }
    );
}

/// I-08.
#[tokio::test]
async fn i_08_two_successors_of_one_server_hold_still_until_one_is_chosen_and_nothing_is_lost() {
    const OTHER: usize = 2;
    let mut office = Office::open(3).await;
    for device in [SERVER, REPLICA, OTHER] {
        office.devices[device].log.expect("F-SUPERSEDED");
        office.devices[device].log.expect("another device reigns");
        office.devices[device].log.expect("F-FORKED");
    }
    office.write(3, 0..5).await;
    office.sent(3).await;
    office.copied(SERVER, REPLICA).await;
    // One replica is switched off, another takes its place, and each is promoted by somebody.
    office.devices[REPLICA].kill().unwrap();
    office.devices[4].kill().unwrap();
    let mut panel = office.devices[SERVER].panel().unwrap();
    panel.stop_replication(StopReplicationRequest {}).await.unwrap();
    office.replicate(SERVER, OTHER).await.unwrap();
    running(&office.devices[OTHER], Role::ReplicaClient).await.unwrap();
    office.write(3, 5..10).await;
    office.sent(3).await;
    office.copied(SERVER, OTHER).await;
    office.devices[SERVER].kill().unwrap();
    office.promote(OTHER, true).await.unwrap();
    running(&office.devices[OTHER], Role::ServerClient).await.unwrap();
    office.agree(OTHER, &[OTHER, 3], 10).await;
    office.devices[3].freeze().unwrap();
    office.devices[OTHER].freeze().unwrap();
    office.devices[REPLICA].start().await.unwrap();
    office.devices[4].start().await.unwrap();
    office.promote(REPLICA, true).await.unwrap();
    running(&office.devices[REPLICA], Role::ServerClient).await.unwrap();
    office.write(4, 10..15).await;
    office.agree(REPLICA, &[REPLICA, 4], 10).await;
    office.devices[OTHER].thaw().unwrap();
    office.devices[3].thaw().unwrap();
    for device in [REPLICA, OTHER] {
        let forked = async || office.devices[device].fault("F-FORKED").await.map(drop);
        eventually(PATIENCE, "both to hear of each other", forked).await.unwrap();
    }
    let rivals = office.devices[REPLICA].status().await.unwrap().server.unwrap().rivals;
    assert_eq!(rivals.len(), 1);
    assert_eq!(rivals[0].device_name, "device-2");
    // Changes wait on the devices.
    office.write(3, 15..18).await;
    office.write(4, 18..20).await;
    assert_eq!(office.devices[3].client_status().await.unwrap().waiting, 3);
    assert_eq!(office.devices[4].client_status().await.unwrap().waiting, 2);

    let stays = office.devices[REPLICA].panel().unwrap().stay(StayRequest {}).await.unwrap().into_inner();
    assert_eq!((stays.epoch, stays.ended.len()), (3, 1));
    running(&office.devices[OTHER], Role::Client).await.unwrap();
    office.agree(REPLICA, &[REPLICA, OTHER, 3, 4], 20).await;
    let again = office.devices[REPLICA].panel().unwrap().stay(StayRequest {}).await.unwrap_err();
    assert!(again.message().contains("nothing was changed"), "{again}");
    office.devices[SERVER].start().await.unwrap();
    running(&office.devices[SERVER], Role::Client).await.unwrap();
    office.agree(REPLICA, &[SERVER, REPLICA, OTHER, 3, 4], 20).await;
}

#[tokio::test]
async fn a_replica_without_a_certificate_cannot_take_over_and_says_how_it_could() {
    let mut office = Office::open(0).await;
    let wrong_kit = {
        let other = TestDevice::started("other").await.unwrap();
        start_server(&other, "Other").await.unwrap()
    };
    let own_kit = std::mem::replace(&mut office.kit, wrong_kit);
    let refused = office.replicate(SERVER, REPLICA).await.unwrap_err();
    assert!(refused.message().contains("another group"), "{refused}");
    office.kit = own_kit;
    let device = TestDevice::started("uncertified").await.unwrap();
    let code = open_pairing(&office.devices[SERVER]).await.unwrap().code;
    let address = office.devices[SERVER].address().to_string();
    join(&device, &address, &code, JoinPolicy::Merge).await.unwrap();
    current(&device).await.unwrap();
    let mut panel = office.devices[SERVER].panel().unwrap();
    panel.stop_replication(StopReplicationRequest {}).await.unwrap();
    let device_id = device.status().await.unwrap().device_id;
    panel
        .set_replication(SetReplicationRequest { device_id, ..SetReplicationRequest::default() })
        .await
        .unwrap();
    running(&device, Role::ReplicaClient).await.unwrap();
    let lost = PromoteRequest { server_is_lost: true, ..PromoteRequest::default() };
    let refused = eventually(PATIENCE, "the copy to be whole", async || {
        let refused = device.panel()?.promote(lost.clone()).await.unwrap_err();
        ensure!(!refused.message().contains("no whole copy"), "{refused}");
        Ok(refused)
    });
    let refused = refused.await.unwrap();
    assert!(refused.message().contains("replication set --kit"), "{refused}");
    running(&device, Role::ReplicaClient).await.unwrap();
    // With the kit at hand it can, also without the server.
    office.devices[SERVER].kill().unwrap();
    let request = PromoteRequest {
        server_is_lost: true,
        recovery_kit: office.kit.clone(),
        kit_passphrase: PASSPHRASE.to_owned(),
    };
    device.panel().unwrap().promote(request).await.unwrap();
    running(&device, Role::ServerClient).await.unwrap();
}

/// Whatever is written after the server stood down the copy lacks, also what is said of devices.
#[tokio::test]
async fn a_device_that_comes_while_a_server_stands_down_waits_and_does_not_spoil_the_handover() {
    let mut devices: Vec<_> =
        (0..3).map(|number| TestDevice::new(&format!("device-{number}")).unwrap()).collect();
    let steps = Steps::of_device(&mut devices[REPLICA], "rename").unwrap();
    let mut office = Office::of(devices).await;
    office.write(2, 0..5).await;
    office.agree(SERVER, &[SERVER, REPLICA, 2], 5).await;
    office.copied(SERVER, REPLICA).await;
    // It is sealed by whoever says so first, and is the replica then.
    office.devices[SERVER].log.expect("F-SUPERSEDED");
    office.devices[SERVER].log.expect("another device reigns");
    // The replica is about to write down that it takes over.
    steps.count(Some(0)).unwrap();
    let mut panel = office.devices[SERVER].panel().unwrap();
    let handing = tokio::spawn(async move { panel.transfer(TransferRequest {}).await });
    assert_eq!(steps.held(0).await.unwrap(), "rename control");
    office.devices[2].restart().await.unwrap();
    eventually(PATIENCE, "the device to be told to wait", async || {
        let client = office.devices[2].client_status().await?;
        ensure!(client.link() == Link::Waiting && !client.last_error.is_empty(), "{client:?}");
        Ok(())
    })
    .await
    .unwrap();
    steps.go_on().unwrap();
    handing.await.unwrap().unwrap();
    running(&office.devices[REPLICA], Role::ServerClient).await.unwrap();
    office.agree(REPLICA, &[SERVER, REPLICA, 2], 5).await;
}

/// Who was released still holds a key that the group certified: it can sign a record, and nobody follows it.
#[tokio::test(flavor = "multi_thread")]
async fn a_released_server_that_takes_the_servers_address_gains_no_client() {
    let mut office = Office::open(1).await;
    let released = office.devices[REPLICA].status().await.unwrap().device_id;
    office.devices[REPLICA].kill().unwrap();
    let mut panel = office.devices[SERVER].panel().unwrap();
    panel.release_device(ReleaseDeviceRequest { device_id: released.clone() }).await.unwrap();
    eventually(PATIENCE, "the client to hear of the release", async || {
        let devices = office.devices[2].panel()?.devices(DevicesRequest {}).await?.into_inner().devices;
        ensure!(devices.iter().any(|device| device.id == released && device.released), "{devices:?}");
        Ok(())
    })
    .await
    .unwrap();
    office.devices[SERVER].kill().unwrap();
    let address = office.devices[SERVER].listen_at(Port::reserve().unwrap());
    office.devices[REPLICA].listen_at(address);
    office.devices[REPLICA].start().await.unwrap();
    office.devices[2].log.expect("who answers as the server was released");
    eventually(PATIENCE, "the copy to be read", async || {
        Ok(office.promote(REPLICA, true).await.map(drop)?)
    })
    .await
    .unwrap();
    running(&office.devices[REPLICA], Role::ServerClient).await.unwrap();
    eventually(PATIENCE, "the client to meet it", async || {
        let log = office.devices[2].log.text();
        ensure!(log.contains("who answers as the server was released"), "not yet");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(office.devices[2].status().await.unwrap().group.unwrap().epoch, 1);
}
