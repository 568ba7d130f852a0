//! Daemons killed in the midst of founding, pairing, changing roles, leaving and releasing: afterwards the
//! step was done or never begun, and the operator carries on.
//!
//! Each step is measured once and then killed at moments spread over that time, and a little beyond. Which
//! moment meets which line of code differs from run to run; what must hold afterwards does not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::ensure;
use mfpsync_daemon::kit;
use mfpsync_proto::panel::{
    DevicesRequest, FoundGroupRequest, JoinPolicy, JoinRequest, LeaveRequest, PrepareGroupRequest,
    ReleaseDeviceRequest, Role, RolePhase, StartServerRequest, StopServerRequest,
};
use mfpsync_storage::Inline;
use mfpsync_storage::master::Master;
use mfpsync_tests::item::{key, put, text};
use mfpsync_tests::{
    Fleet, PASSPHRASE, PATIENCE, PanelClient, TestDevice, current, eventually, join, open_pairing, running,
    start_server,
};
use tonic::Status;

/// Moments at which a step is killed.
const MOMENTS: u32 = 8;

/// The moments, from the beginning of a step that takes `whole` to a little beyond its end.
fn moments(whole: Duration) -> impl Iterator<Item = Duration> {
    (0..MOMENTS).map(move |moment| whole * moment * 5 / (4 * MOMENTS))
}

/// Kills the device so long after a step began, and returns the step's answer if it came before.
async fn killed_during<T: Send + 'static>(
    device: &mut TestDevice,
    after: Duration,
    step: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Option<T> {
    let begun = Arc::new(Mutex::new(None));
    let answer = begun.clone();
    // Goes on while the device is killed, as a caller does who does not know.
    let step = tokio::spawn(async move {
        let answered = step.await;
        *answer.lock().unwrap() = answered.ok();
    });
    tokio::time::sleep(after).await;
    let before = begun.lock().unwrap().take();
    device.kill().unwrap();
    step.await.unwrap();
    before
}

async fn took<T>(step: impl Future<Output = Result<T, Status>>) -> Duration {
    let begun = Instant::now();
    step.await.unwrap();
    begun.elapsed()
}

/// Kits that the operator holds, by the group's id.
type Kits = Arc<Mutex<BTreeMap<String, String>>>;

async fn prepare(mut panel: PanelClient, kits: Kits) -> Result<String, Status> {
    let request =
        PrepareGroupRequest { group_name: "Office".to_owned(), kit_passphrase: PASSPHRASE.to_owned() };
    let prepared = panel.prepare_group(request).await?.into_inner();
    kits.lock().unwrap().insert(prepared.group_id.clone(), prepared.recovery_kit);
    Ok(prepared.group_id)
}

async fn found_and_serve(mut panel: PanelClient, group_id: String) -> Result<(), Status> {
    panel.found_group(FoundGroupRequest { group_id }).await?;
    panel.start_server(StartServerRequest { with_client: true }).await?;
    Ok(())
}

/// Whatever was cut short is done again, and then the device serves a group whose kit is at hand.
async fn serves_a_group_with_a_kit(device: &mut TestDevice, kits: Kits) {
    device.start().await.unwrap();
    let group_id = prepare(device.panel().unwrap(), kits.clone()).await.unwrap();
    if !group_id.is_empty() {
        device.panel().unwrap().found_group(FoundGroupRequest { group_id }).await.unwrap();
    }
    device.panel().unwrap().start_server(StartServerRequest { with_client: true }).await.unwrap();
    running(device, Role::ServerClient).await.unwrap();
    current(device).await.unwrap();
    device.stop().await.unwrap();
    let master = Inline::<Master>::open(&device.master_database(), false).unwrap();
    let head = master.read(|read| read.founded_head()).unwrap();
    let kit = kits.lock().unwrap().get(&head.group.to_string()).expect("the group's kit").clone();
    let (root, name) = kit::open(&kit, PASSPHRASE).unwrap();
    assert_eq!((root.anchor().root, name.as_str()), (head.root_key, "Office"));
}

/// Proves I-25.
#[tokio::test]
async fn a_group_never_exists_without_its_kit_in_somebodys_hands() {
    let device = TestDevice::started("measured").await.unwrap();
    let begun = Instant::now();
    let group_id = prepare(device.panel().unwrap(), Kits::default()).await.unwrap();
    let preparing = begun.elapsed();
    let founding = took(found_and_serve(device.panel().unwrap(), group_id)).await;
    drop(device);
    for moment in moments(founding) {
        let mut device = TestDevice::started("copier").await.unwrap();
        let kits = Kits::default();
        let group_id = prepare(device.panel().unwrap(), kits.clone()).await.unwrap();
        assert!(!device.master_database().exists(), "the kit comes first");
        let panel = device.panel().unwrap();
        killed_during(&mut device, moment, found_and_serve(panel, group_id)).await;
        serves_a_group_with_a_kit(&mut device, kits).await;
    }
    // While it is prepared there is nothing to find again.
    let mut device = TestDevice::started("copier").await.unwrap();
    let kits = Kits::default();
    let preparing_again = prepare(device.panel().unwrap(), kits.clone());
    killed_during(&mut device, preparing / 2, preparing_again).await;
    assert!(!device.master_database().exists());
    serves_a_group_with_a_kit(&mut device, kits).await;
}

#[tokio::test]
async fn a_role_switch_cut_short_was_made_or_not() {
    let mut device = TestDevice::started("server").await.unwrap();
    start_server(&device, "Office").await.unwrap();
    let mut panel = device.panel().unwrap();
    let stopping = took(panel.stop_server(StopServerRequest {})).await;
    panel.start_server(StartServerRequest { with_client: true }).await.unwrap();
    running(&device, Role::ServerClient).await.unwrap();
    for moment in moments(stopping) {
        let mut panel = device.panel().unwrap();
        let stop = async move { panel.stop_server(StopServerRequest {}).await };
        let stopped = killed_during(&mut device, moment, stop).await.is_some();
        device.start().await.unwrap();
        let wanted = settled(&device).await;
        assert!(wanted == Role::Client || wanted == Role::ServerClient && !stopped, "{wanted:?}");
        let mut panel = device.panel().unwrap();
        let start = async move { panel.start_server(StartServerRequest { with_client: true }).await };
        let started = killed_during(&mut device, moment, start).await.is_some();
        device.start().await.unwrap();
        let again = settled(&device).await;
        assert!(again == Role::ServerClient || again == wanted && !started, "{again:?}");
        device.panel().unwrap().start_server(StartServerRequest { with_client: true }).await.unwrap();
        running(&device, Role::ServerClient).await.unwrap();
        current(&device).await.unwrap();
    }
}

/// Waits until the wanted role runs, whichever it is.
async fn settled(device: &TestDevice) -> Role {
    eventually(PATIENCE, "the wanted role to run", async || {
        let status = device.status().await?;
        ensure!(
            status.phase() == RolePhase::Running && status.running() == status.wanted(),
            "{:?}, faults {:?}",
            status.phase(),
            status.faults
        );
        Ok(status.wanted())
    })
    .await
    .unwrap()
}

/// Whom the power fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Client,
    Server,
}

fn expect_breaks(fleet: &mut Fleet) {
    for device in std::iter::once(&mut fleet.server).chain(&mut fleet.clients) {
        // Connections that break are what this is about; an error is still one too many.
        device.log.expect(" WARN ");
    }
}

/// Starts a step at the client and kills one of the two while it goes on; both run again afterwards.
async fn disturbed<T: Send + 'static>(
    fleet: &mut Fleet,
    victim: Victim,
    after: Duration,
    step: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Option<T> {
    let device = match victim {
        Victim::Client => &mut fleet.clients[0],
        Victim::Server => &mut fleet.server,
    };
    let answer = killed_during(device, after, step).await;
    device.start().await.unwrap();
    running(&fleet.server, Role::ServerClient).await.unwrap();
    answer
}

/// The operator looks where the device stands, and has it join if it did not.
async fn is_member(fleet: &Fleet) {
    let client = &fleet.clients[0];
    if settled(client).await == Role::Idle {
        let code = open_pairing(&fleet.server).await.unwrap().code;
        join(client, &fleet.server.address().to_string(), &code, JoinPolicy::Merge).await.unwrap();
    }
    current(client).await.unwrap();
}

/// The operator looks where the device stands, and has it leave if it did not.
async fn has_left(fleet: &Fleet) {
    if settled(&fleet.clients[0]).await != Role::Idle {
        leaving(fleet).await.unwrap();
    }
    eventually(PATIENCE, "the device to be its own", async || {
        let status = fleet.clients[0].status().await?;
        ensure!(status.running() == Role::Idle && status.group.is_none(), "{status:?}");
        ensure!(status.faults.is_empty(), "{:?}", status.faults);
        Ok(())
    })
    .await
    .unwrap();
}

fn joining(fleet: &Fleet, code: String) -> impl Future<Output = Result<(), Status>> + Send + use<> {
    let (mut panel, address) = (fleet.clients[0].panel().unwrap(), fleet.server.address().to_string());
    let request = JoinRequest { address, code, ..JoinRequest::default() };
    async move { panel.join(request).await.map(drop) }
}

fn leaving(fleet: &Fleet) -> impl Future<Output = Result<(), Status>> + Send + use<> {
    let mut panel = fleet.clients[0].panel().unwrap();
    async move { panel.leave(LeaveRequest { accept_unsent: None }).await.map(drop) }
}

/// A server with an item and a client that has both, without a relay between them.
async fn pair() -> Fleet {
    let mut fleet = Fleet::server_only().await.unwrap();
    fleet.clients.push(TestDevice::started("client").await.unwrap());
    expect_breaks(&mut fleet);
    for (device, id) in [(&fleet.server, "s"), (&fleet.clients[0], "c")] {
        device.write(vec![put(key("shared", "shortcut", id), vec![text("value", id)])]).await.unwrap();
    }
    fleet
}

async fn whole(fleet: &Fleet) {
    let contents = fleet.converged(&["shared"], PATIENCE).await.unwrap();
    assert_eq!(contents.len(), 2);
    let mut panel = fleet.server.panel().unwrap();
    let devices = panel.devices(DevicesRequest {}).await.unwrap().into_inner().devices;
    assert_eq!(devices.iter().filter(|device| !device.released).count(), 2, "{devices:?}");
}

#[tokio::test]
async fn a_pairing_cut_short_is_whole_or_can_be_done_again() {
    let mut fleet = pair().await;
    let code = open_pairing(&fleet.server).await.unwrap().code;
    let whole_step = took(joining(&fleet, code)).await;
    current(&fleet.clients[0]).await.unwrap();
    for victim in [Victim::Client, Victim::Server] {
        for moment in moments(whole_step) {
            has_left(&fleet).await;
            let code = open_pairing(&fleet.server).await.unwrap().code;
            let step = joining(&fleet, code);
            let joined = disturbed(&mut fleet, victim, moment, step).await.is_some();
            assert!(!joined || settled(&fleet.clients[0]).await == Role::Client, "a join that was answered");
            is_member(&fleet).await;
            whole(&fleet).await;
        }
    }
}

#[tokio::test]
async fn a_leave_cut_short_was_made_or_not_and_loses_nothing() {
    let mut fleet = pair().await;
    is_member(&fleet).await;
    let whole_step = took(leaving(&fleet)).await;
    for victim in [Victim::Client, Victim::Server] {
        for moment in moments(whole_step) {
            is_member(&fleet).await;
            whole(&fleet).await;
            let step = leaving(&fleet);
            let left = disturbed(&mut fleet, victim, moment, step).await.is_some();
            assert!(!left || settled(&fleet.clients[0]).await == Role::Idle, "a leave that was answered");
            assert_eq!(fleet.clients[0].contents(&["shared"]).await.unwrap().len(), 2, "the data stays");
            has_left(&fleet).await;
        }
    }
}

#[tokio::test]
async fn a_release_cut_short_was_made_or_not() {
    let mut fleet = pair().await;
    is_member(&fleet).await;
    fleet.clients[0].log.expect("F-RELEASED");
    let device_id = fleet.clients[0].status().await.unwrap().device_id;
    let releasing = |fleet: &Fleet| {
        let mut panel = fleet.server.panel().unwrap();
        let request = ReleaseDeviceRequest { device_id: device_id.clone() };
        async move { panel.release_device(request).await.map(drop) }
    };
    let whole_step = took(releasing(&fleet)).await;
    for moment in moments(whole_step) {
        // Released: it takes part again only by pairing anew.
        eventually(PATIENCE, "the release to be known", async || fleet.clients[0].fault("F-RELEASED").await)
            .await
            .unwrap();
        leaving(&fleet).await.unwrap();
        is_member(&fleet).await;
        whole(&fleet).await;
        let step = releasing(&fleet);
        let answered = disturbed(&mut fleet, Victim::Server, moment, step).await.is_some();
        let mut panel = fleet.server.panel().unwrap();
        let devices = panel.devices(DevicesRequest {}).await.unwrap().into_inner().devices;
        let released = devices.iter().any(|device| device.id == device_id && device.released);
        assert!(released || !answered, "a release that was answered");
        if !released {
            current(&fleet.clients[0]).await.unwrap();
            releasing(&fleet).await.unwrap();
        }
    }
}
