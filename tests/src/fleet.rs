//! A server and its clients, paired by code as an operator would do it, each behind a cable.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mfpsync_proto::panel::{
    FoundGroupRequest, JoinPolicies, JoinPolicy, JoinReply, JoinRequest, OpenPairingReply,
    OpenPairingRequest, PrepareGroupReply, PrepareGroupRequest, Role, RolePhase, StartServerRequest,
};
use tonic::Status;

use crate::contents::Contents;
use crate::device::TestDevice;
use crate::relay::Relay;
use crate::wait::{PATIENCE, eventually};

/// What recovery kits are sealed with in tests.
pub const PASSPHRASE: &str = "correct horse battery staple";
const GROUP: &str = "Office";

/// A group: a server that is also a client, and clients behind relays.
#[derive(Debug)]
pub struct Fleet {
    /// The server.
    pub server: TestDevice,
    /// Its clients.
    pub clients: Vec<TestDevice>,
    /// The cable of each client, in the same order.
    pub relays: Vec<Relay>,
}

impl Fleet {
    /// Starts a server and so many clients and waits until all are current.
    ///
    /// # Errors
    /// Any step's.
    pub async fn start(clients: usize) -> Result<Self> {
        let mut fleet = Self::server_only().await?;
        for number in 1..=clients {
            let device = TestDevice::new(&format!("client-{number}"))?;
            fleet.add(device, JoinPolicy::Merge).await?;
        }
        Ok(fleet)
    }

    /// Starts a group of one device.
    ///
    /// # Errors
    /// Any step's.
    pub async fn server_only() -> Result<Self> {
        let server = TestDevice::started("server").await?;
        start_server(&server, GROUP).await?;
        Ok(Self { server, clients: Vec::new(), relays: Vec::new() })
    }

    /// Pairs a device, which may already run, behind a relay of its own.
    ///
    /// # Errors
    /// Any step's.
    pub async fn add(&mut self, mut device: TestDevice, policy: JoinPolicy) -> Result<JoinReply> {
        let relay = Relay::open(self.server.address()).await?;
        device.setup.dial_only = vec![relay.address()];
        if device.status().await.is_ok() {
            device.restart().await?;
        } else {
            device.start().await?;
        }
        let code = open_pairing(&self.server).await?.code;
        let reply = join(&device, &relay.address().to_string(), &code, policy).await;
        let reply = reply.with_context(|| format!("join {}", device.name))?;
        current(&device).await?;
        self.clients.push(device);
        self.relays.push(relay);
        Ok(reply)
    }

    /// Server and clients.
    pub fn devices(&self) -> impl Iterator<Item = &TestDevice> {
        std::iter::once(&self.server).chain(&self.clients)
    }

    /// Waits until every device shows the same in these scopes, and its sums say the same of
    /// everything; returns what they show.
    ///
    /// # Errors
    /// They do not agree in time.
    pub async fn converged(&self, scopes: &[&str], deadline: Duration) -> Result<Contents> {
        eventually(deadline, "all devices to agree", async || self.agreement(scopes).await).await
    }

    async fn agreement(&self, scopes: &[&str]) -> Result<Contents> {
        let hashes = self.server.hashes().await?;
        let master = hashes.master.clone().context("the server has no master")?;
        let contents = self.server.contents(scopes).await?;
        for device in self.devices() {
            let status = device.client_status().await?;
            ensure!(status.waiting == 0, "{} edits wait at {}", status.waiting, device.name);
            let hashes = device.hashes().await?;
            ensure!(hashes.mirror == master, "mirror of {} differs from the master", device.name);
            ensure!(hashes.visible == master, "visible data of {} differs from the master", device.name);
            let shown = device.contents(scopes).await?;
            ensure!(
                shown == contents,
                "{} shows {} items, the server {}",
                device.name,
                shown.len(),
                contents.len()
            );
        }
        Ok(contents)
    }

    /// Takes a client off the network.
    ///
    /// # Errors
    /// It does not notice.
    pub async fn cut(&self, client: usize) -> Result<()> {
        self.relays[client].cut();
        eventually(PATIENCE, "the cut to be noticed", async || {
            let (_, freshness) = self.clients[client].login("nobody", Some(0)).await?;
            ensure!(!freshness.current, "still current");
            Ok(())
        })
        .await
    }

    /// Puts a client back on the network and waits until it is current.
    ///
    /// # Errors
    /// It does not come back.
    pub async fn mend(&self, client: usize) -> Result<()> {
        self.relays[client].mend();
        current(&self.clients[client]).await
    }
}

/// Makes a device the server and a client of a new group, and returns the recovery kit.
///
/// # Errors
/// The daemon's answer, or the role does not run in time.
pub async fn start_server(device: &TestDevice, group: &str) -> Result<String> {
    let mut panel = device.panel()?;
    let request = PrepareGroupRequest { group_name: group.to_owned(), kit_passphrase: PASSPHRASE.to_owned() };
    let PrepareGroupReply { group_id, recovery_kit } = panel.prepare_group(request).await?.into_inner();
    if !group_id.is_empty() {
        panel.found_group(FoundGroupRequest { group_id }).await?;
    }
    panel.start_server(StartServerRequest { with_client: true }).await?;
    running(device, Role::ServerClient).await?;
    current(device).await?;
    Ok(recovery_kit)
}

/// Waits until a role runs.
///
/// # Errors
/// It does not.
pub async fn running(device: &TestDevice, role: Role) -> Result<()> {
    eventually(PATIENCE, &format!("{} to run as {role:?}", device.name), async || {
        let status = device.status().await?;
        ensure!(
            status.running() == role && status.phase() == RolePhase::Running,
            "{:?} {:?}, faults {:?}",
            status.running(),
            status.phase(),
            status.faults
        );
        Ok(())
    })
    .await
}

/// Waits until a client has everything.
///
/// # Errors
/// It does not get it.
pub async fn current(device: &TestDevice) -> Result<()> {
    eventually(PATIENCE, &format!("{} to be current", device.name), async || {
        let status = device.client_status().await?;
        let (_, freshness) = device.login("nobody", Some(0)).await?;
        ensure!(freshness.current, "{:?}: {}", status.link(), status.last_error);
        Ok(())
    })
    .await
}

/// Opens pairing at a server.
///
/// # Errors
/// The daemon's answer.
pub async fn open_pairing(server: &TestDevice) -> Result<OpenPairingReply> {
    Ok(server.panel()?.open_pairing(OpenPairingRequest {}).await?.into_inner())
}

/// Joins a group.
///
/// # Errors
/// The daemon's answer.
pub async fn join(
    device: &TestDevice,
    address: &str,
    code: &str,
    policy: JoinPolicy,
) -> Result<JoinReply, Status> {
    let mut panel = device.panel().map_err(|error| Status::internal(error.to_string()))?;
    let policies = JoinPolicies { others: policy.into(), ..JoinPolicies::default() };
    let request = JoinRequest {
        address: address.to_owned(),
        code: code.to_owned(),
        policies: Some(policies),
        review: false,
    };
    Ok(panel.join(request).await?.into_inner())
}
