//! Shows which servers announce themselves on the network.

use std::net::SocketAddr;
use std::time::Duration;

use mfpsync_proto::panel as wire;
use mfpsync_storage::model::GroupId;
use tonic::Status;

use super::service::Session;
use crate::discovery::{Candidate, DiscoveryError, SCAN_MAX};
use crate::refusal;
use crate::storage_fault;

/// Listens, and says what was heard.
pub(super) async fn discover(
    session: &Session,
    request: wire::DiscoverRequest,
) -> Result<wire::DiscoverReply, Status> {
    let time = Duration::from_secs(request.seconds.into());
    if time.is_zero() || time > SCAN_MAX {
        return Err(Status::invalid_argument(format!("listen for 1 to {} seconds", SCAN_MAX.as_secs())));
    }
    let device = &session.device;
    let membership = device.membership().await.map_err(|error| storage_fault::refusal(&error))?;
    let served = device.server.load_full().map(|server| server.serving.head().group);
    let group = served.or(membership.map(|membership| membership.group));
    tokio::select! {
        scanned = device.discovery.scan(time) => scanned.map_err(|error| refused(&error))?,
        () = session.stop.cancelled() => return Err(refusal::stopping()),
    }
    let servers = device.discovery.candidates().into_iter().map(|one| server(one, group)).collect();
    Ok(wire::DiscoverReply { servers })
}

fn server(candidate: Candidate, group: Option<GroupId>) -> wire::DiscoveredServer {
    let Candidate { announcement, addresses } = candidate;
    wire::DiscoveredServer {
        own_group: group.is_some_and(|group| announcement.is_of(group)),
        name: announcement.name,
        group_name: announcement.group_name,
        addresses: addresses.iter().map(SocketAddr::to_string).collect(),
        pairing_open: announcement.pairing_open,
    }
}

fn refused(error: &DiscoveryError) -> Status {
    let advice = "use the address the server shows (`mfpsync pair open`)";
    match error {
        DiscoveryError::Off => Status::failed_precondition(format!("{error}; {advice}")),
        DiscoveryError::Network(_) => Status::unavailable(format!("{error}; {advice}")),
    }
}
