//! What the supervisor starts and stops: the server, the client and the replica part of this device.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio_util::sync::CancellationToken;

use crate::client::ClientPart;
use crate::device::Device;
use crate::fault::{Fault, FaultCode};
use crate::replica::ReplicaPart;
use crate::role::{Exits, Part, Parts};
use crate::server::ServerPart;

/// Starts and stops the parts of one device.
#[derive(Debug)]
pub struct DeviceParts {
    device: Arc<Device>,
    client: ArcSwapOption<ClientPart>,
    replica: ArcSwapOption<ReplicaPart>,
}

impl DeviceParts {
    /// The parts of `device`, none running.
    #[must_use]
    pub fn new(device: Arc<Device>) -> Self {
        Self { device, client: ArcSwapOption::empty(), replica: ArcSwapOption::empty() }
    }

    async fn bring_up(&self, part: Part) -> Result<(), Fault> {
        match part {
            Part::Server => {
                let server = ServerPart::start(&self.device).await?;
                self.device.server.store(Some(Arc::new(server)));
            }
            Part::Client => {
                let client = ClientPart::start(&self.device).await?;
                self.client.store(Some(Arc::new(client)));
            }
            Part::Replica => {
                let replica = ReplicaPart::start(&self.device).await?;
                self.replica.store(Some(Arc::new(replica)));
            }
        }
        Ok(())
    }
}

impl Parts for DeviceParts {
    async fn start(&self, part: Part, stop: CancellationToken, _exits: Exits) -> Result<(), Fault> {
        tokio::select! {
            started = self.bring_up(part) => started,
            () = stop.cancelled() => Err(Fault::with_detail(FaultCode::Listen, "stopped while starting")),
        }
    }

    async fn stop(&self, part: Part) {
        match part {
            Part::Server => {
                if let Some(server) = self.device.server.swap(None) {
                    server.stop().await;
                }
            }
            Part::Client => {
                if let Some(client) = self.client.swap(None) {
                    client.stop().await;
                }
            }
            Part::Replica => {
                if let Some(replica) = self.replica.swap(None) {
                    replica.stop().await;
                }
            }
        }
    }
}
