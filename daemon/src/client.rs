//! The client part: pulls and pushes by [`mfpsync_replication::round`], from start to stop.
//!
//! [`driver`](self) carries out the round's effects; `link` speaks on one connection; `report` says
//! how things stand, `seek` when to look around for a server that moved. No decision about sync is made here.

mod driver;
mod link;
mod report;
mod seek;

use std::sync::Arc;
use std::time::Duration;

use mfpsync_proto::sync::sync_client::SyncClient;
use mfpsync_replication::message::Leave;
use mfpsync_replication::wire::leave_to_wire;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use report::{Link, LinkReport};

use self::driver::Driver;
pub(crate) use self::link::{LinkError, Servers, greet};
use crate::db::READ_DEADLINE;
use crate::device::{Device, anchor};
use crate::fault::{Fault, FaultCode};
use crate::storage_fault::start_fault;
use crate::vital::Vital;

/// How long a call under way may take when the client part stops.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a leaving device waits for the server.
const LEAVE: Duration = Duration::from_secs(3);

/// A running client.
#[derive(Debug)]
pub struct ClientPart {
    /// The tasks it cannot do without.
    pub vital: Vital,
}

impl ClientPart {
    /// Starts the sync loop.
    ///
    /// # Errors
    /// A fault for a person: the own database fails, or knows no group.
    ///
    /// # Cancel safety
    /// Nothing runs when the future is dropped.
    pub async fn start(device: &Arc<Device>) -> Result<Self, Fault> {
        let membership = device.membership().await.map_err(|error| start_fault(&error))?;
        let membership = membership.ok_or_else(|| {
            Fault::with_detail(
                FaultCode::ControlFile,
                "the role is client, but this device belongs to no group",
            )
        })?;
        device.load_roster().await.map_err(|error| start_fault(&error))?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let driver =
            Driver::prepare(device.clone(), anchor(&membership), tasks.clone(), stop.clone()).await?;
        let vital = Vital::new(&tasks, &stop);
        vital.spawn("sync-loop", driver.run());
        Ok(Self { vital })
    }

    /// Lets the step under way finish and drops the connection.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the rest to the end of the process; nothing acknowledged is lost.
    pub async fn stop(&self) {
        self.vital.stop().cancel();
        self.vital.tasks().close();
        if tokio::time::timeout(DRAIN, self.vital.tasks().wait()).await.is_err() {
            tracing::warn!("the sync loop did not end in time");
        }
    }
}

/// Tells the server that this device leaves; true when it has freed the slot.
///
/// # Cancel safety
/// The server may have freed the slot although the future was dropped; asking again is harmless.
pub async fn leave(device: &Device) -> bool {
    match tokio::time::timeout(LEAVE, try_leave(device)).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(%error, "tell the server of leaving");
            false
        }
        Err(_) => {
            tracing::warn!("the server did not answer in time; release this device there");
            false
        }
    }
}

async fn try_leave(device: &Device) -> Result<(), link::LinkError> {
    // Whether or not a client ran here since the start.
    device.load_roster().await?;
    let servers = Servers::of(device).await?;
    let state = device.own.db().read(READ_DEADLINE, |read| Ok((read.device()?, read.membership()?))).await?;
    let (own, Some(membership)) = state else { return Ok(()) };
    let leave = Leave { group: membership.group, incarnation: own.incarnation };
    let mut last = link::LinkError::NoServer;
    for endpoint in servers.endpoints() {
        match leave_at(&servers, device, &endpoint, &leave).await {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The server cuts a released device's connections, perhaps before its answer is through; being
/// refused as released at the next attempt says the same.
async fn leave_at(
    servers: &Servers,
    device: &Device,
    endpoint: &str,
    leave: &Leave,
) -> Result<(), link::LinkError> {
    let dialled = servers.dial(device, endpoint, LEAVE).await;
    let told = match dialled {
        Ok(channel) => SyncClient::new(channel).leave(leave_to_wire(leave)).await,
        Err(error) => return if error.is_released() { Ok(()) } else { Err(error) },
    };
    let Err(status) = told else { return Ok(()) };
    match servers.dial(device, endpoint, LEAVE).await {
        Err(error) if error.is_released() => Ok(()),
        Ok(_) | Err(_) => Err(status.into()),
    }
}
