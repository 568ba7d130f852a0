//! From replica to server, by an operator's decision: here, or at a server that hands over.
//!
//! What is done then is [`super::takeover`]'s; here is what must hold before, and the one durable decision.

use std::sync::Arc;
use std::time::Duration;

use mfpsync_storage::model::Sequence;
use mfpsync_storage::physical::Position;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::takeover;
use crate::authority::{IssuingKey, Root};
use crate::control_file::Way;
use crate::db::READ_DEADLINE;
use crate::device::Device;
use crate::replica::{self, CopyReport, StoodDown};
use crate::role::{Role, SupervisorHandle};
use crate::storage_fault;

/// How long the copy may take to hold what the server said was the last of its reign.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an operator decided.
#[derive(Debug)]
pub struct Order {
    /// Who, as the promotion record names it.
    pub operator: &'static str,
    /// The server is not asked to stand down.
    pub server_is_lost: bool,
    /// The group's root key, which certifies this device.
    pub root: Option<Root>,
}

/// A promotion that is decided on.
#[derive(Debug)]
pub struct Promoted {
    /// The role from now on.
    pub wanted: Role,
    /// Up to where the copy has everything.
    pub position: Position,
    /// Changes the server was known to have and the copy has not.
    pub missing_at_most: u64,
}

/// Decides that this replica becomes the server. With the server there it stands down first and becomes the
/// replica in turn.
///
/// # Errors
/// Why not; nothing was changed then.
///
/// # Cancel safety
/// It may be decided although the future was dropped.
pub async fn promote(
    device: &Device,
    supervisor: &SupervisorHandle,
    order: Order,
) -> Result<Promoted, Status> {
    if !matches!(supervisor.watch().borrow().wanted(), Role::Replica | Role::ReplicaClient) {
        return Err(Status::failed_precondition(
            "this device is not the group's replica; do this at the replica",
        ));
    }
    let report = device.copy.borrow().clone();
    let position = whole_copy(device, &report)?;
    if let Some(root) = &order.root {
        certify(device, root).await?;
    }
    may_sign(device).await?;
    let (position, way, known) = if order.server_is_lost {
        (position, Way::Lost, last_known(device, &position, &report).await?)
    } else {
        let StoodDown { last, goes_on: swaps } = stand_down(device, &report).await?;
        (last, Way::HandedOver { swaps }, last.sequence)
    };
    let operator = order.operator;
    let decided = device.control.write(move |file| file.begin_takeover(operator, way, known)).await;
    let wanted = decided.map_err(|fault| Status::unavailable(fault.to_string()))?;
    let switched = supervisor.switch(wanted).await;
    switched.map_err(|error| Status::failed_precondition(error.to_string()))?;
    let missing_at_most = known.0.saturating_sub(position.sequence.0);
    Ok(Promoted { wanted, position, missing_at_most })
}

/// Has this replica take over whenever the server's operator hands over.
///
/// # Cancel safety
/// Safe.
pub async fn obey_invitations(device: Arc<Device>, supervisor: SupervisorHandle, stop: CancellationToken) {
    while stop.run_until_cancelled(device.invited.notified()).await.is_some() {
        let order = Order { operator: "server", server_is_lost: false, root: None };
        if let Err(status) = promote(&device, &supervisor, order).await {
            tracing::warn!(reason = status.message(), "take over from the server that hands over");
        }
    }
}

/// Has the root certify this device's key, so that it may take over.
///
/// # Errors
/// The kit is another group's, or the storage fails.
pub async fn certify(device: &Device, root: &Root) -> Result<Vec<u8>, Status> {
    let membership = device.membership().await.map_err(|error| storage_fault::refusal(&error))?;
    let anchor = membership.as_ref().map(crate::device::anchor);
    if anchor != Some(root.anchor()) {
        return Err(Status::invalid_argument(
            "this is the recovery kit of another group; nothing was changed",
        ));
    }
    let key = IssuingKey::load_or_create(&*device.keys, device.identity.device(), &*device.random)
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let certificate = root.certify(key.device(), key.public_key());
    let encoded = certificate.encode();
    let noted = device.own.write(move |db| {
        db.adopt_roster(&[], std::slice::from_ref(&certificate), &[])?;
        Ok(((), Vec::new()))
    });
    noted.await.map_err(|error| storage_fault::refusal(&error))?;
    Ok(encoded)
}

/// Where the copy stands, if it could become the master database.
fn whole_copy(device: &Device, report: &CopyReport) -> Result<Position, Status> {
    let position = report.position.ok_or_else(|| {
        Status::failed_precondition(
            "there is no whole copy here yet; wait until it is, as `mfpsync status` shows",
        )
    })?;
    let seen = device.control.current().epoch.map_or(0, |epoch| epoch.number);
    if seen > position.epoch.number {
        return Err(Status::failed_precondition(
            "another device reigns by now, and the copy here is of the reign before; nothing was changed",
        ));
    }
    Ok(position)
}

async fn may_sign(device: &Device) -> Result<(), Status> {
    let issuers = device.own.db().read(READ_DEADLINE, |read| read.issuers()).await;
    let issuers = issuers.map_err(|error| storage_fault::refusal(&error))?;
    takeover::issuing(device, &issuers).map(drop).map_err(|fault| {
        Status::failed_precondition(format!(
            "{fault}; nothing was changed (give the kit here: `mfpsync role promote --kit FILE`, or at the server: \
             `mfpsync replication set --kit FILE`)"
        ))
    })
}

/// Up to where the lost server is known to have been: by its own word to the copy, or by what has come to this device's
/// panel, which may be more.
async fn last_known(device: &Device, position: &Position, report: &CopyReport) -> Result<Sequence, Status> {
    let own = device.own.db().read(READ_DEADLINE, |read| read.device()).await;
    let shown = own.map_err(|error| storage_fault::refusal(&error))?.cursor;
    let told = report.server.map(|server| (server.epoch, server.sequence));
    let known = [told, shown.map(|cursor| (cursor.epoch, cursor.sequence))];
    let of_this_reign = known.into_iter().flatten().filter(|(epoch, _)| *epoch == position.epoch);
    Ok(of_this_reign.map(|(_, sequence)| sequence).fold(position.sequence, Sequence::max))
}

/// Has the server stand down; where the copy stands then, which is all there was.
async fn stand_down(device: &Device, report: &CopyReport) -> Result<StoodDown, Status> {
    if !report.connected {
        return Err(Status::failed_precondition(
            "the server does not answer, so it cannot stand down first; nothing was changed; if it is lost, \
             say so (`--server-is-lost`)",
        ));
    }
    let stood_down = replica::stand_down(device).await.map_err(|error| {
        Status::unavailable(format!("the server did not stand down: {error}; nothing was changed"))
    })?;
    let mut copy = device.copy.subscribe();
    let last = stood_down.last;
    let arrived = copy.wait_for(|copy| copy.position.is_some_and(|at| at.transaction >= last.transaction));
    match tokio::time::timeout(PATIENCE, arrived).await {
        Ok(Ok(_)) => Ok(stood_down),
        Ok(Err(_)) | Err(_) => Err(Status::unavailable(
            "the copy did not get all that the server had; nothing was changed, and the server goes on by itself",
        )),
    }
}
