//! Replication for the operator: setting and ending it, how it is doing, proving the copy.

use std::sync::Arc;

use mfpsync_proto::panel as wire;
use mfpsync_storage::master::{Durability, Replication, Unprotected};
use mfpsync_storage::model::{Capabilities, DeviceId, Revision};
use mfpsync_storage::physical::{PAGE_BYTES, Position};
use tonic::Status;
use zeroize::Zeroizing;

use super::service::Session;
use super::status::revision;
use crate::authority::Root;
use crate::db::READ_DEADLINE;
use crate::device::Device;
use crate::kit;
use crate::role::Part;
use crate::server::ServerPart;
use crate::server::replicating::{Proved, Standing};

/// Sets the replica, or when changes are acknowledged.
pub(super) async fn set(
    session: &Session,
    request: wire::SetReplicationRequest,
) -> Result<wire::SetReplicationReply, Status> {
    let server = session.server()?;
    let before = server.serving.replicating.standing().map(|standing| standing.set);
    let device = match (request.device_id.as_str(), before) {
        ("", Some(before)) => before.device,
        ("", None) => return Err(Status::failed_precondition("no replica is set; name a device")),
        (id, _) => DeviceId::from_hex(id)
            .ok_or_else(|| Status::invalid_argument("a device id has 32 lower-case hex digits"))?,
    };
    let kept = before.filter(|before| before.device == device).map(|before| before.durability);
    let durability = match request.durability() {
        wire::Durability::Unspecified => kept.unwrap_or(Durability::Async),
        wire::Durability::Async => Durability::Async,
        wire::Durability::SyncHold => Durability::SyncHold,
        wire::Durability::SyncContinue => Durability::SyncContinue,
    };
    let root = opened_if_given(request.recovery_kit, request.kit_passphrase).await?;
    // First: a kit that is refused leaves all as it was.
    if let Some(root) = root {
        server.serving.certify(device, &root).await?;
    }
    server.serving.set_replica(Replication { device, durability }).await?;
    Ok(wire::SetReplicationReply {
        device_name: name(&session.device, device),
        durability: durability_to_wire(durability).into(),
    })
}

/// As [`opened`]; none without a kit.
pub(super) async fn opened_if_given(
    recovery_kit: String,
    passphrase: String,
) -> Result<Option<Root>, Status> {
    if recovery_kit.is_empty() { Ok(None) } else { opened(recovery_kit, passphrase).await.map(Some) }
}

/// The root key in a recovery kit; opening it is made slow on purpose.
pub(super) async fn opened(recovery_kit: String, passphrase: String) -> Result<Root, Status> {
    let (recovery_kit, passphrase) = (Zeroizing::new(recovery_kit), Zeroizing::new(passphrase));
    let opened = tokio::task::spawn_blocking(move || kit::open(&recovery_kit, &passphrase));
    let opened = opened.await.map_err(|_| Status::internal("opening the recovery kit was interrupted"))?;
    let (root, _name) = opened
        .map_err(|error| Status::invalid_argument(format!("recovery kit: {error}; nothing was changed")))?;
    Ok(root)
}

/// Ends replication.
pub(super) async fn stop(session: &Session) -> Result<wire::StopReplicationReply, Status> {
    let device = session.server()?.serving.stop_replica().await?;
    let device_name = device.map_or_else(String::new, |device| name(&session.device, device));
    Ok(wire::StopReplicationReply { device_name })
}

/// How replication is doing.
pub(super) async fn replication(session: &Session) -> Result<wire::ReplicationReply, Status> {
    let unprotected = match session.device.server.load_full() {
        Some(server) => unprotected(&server).await?,
        None => Vec::new(),
    };
    Ok(wire::ReplicationReply { replica: replica(&session.device), copy: copy(session), unprotected })
}

async fn unprotected(server: &Arc<ServerPart>) -> Result<Vec<wire::Unprotected>, Status> {
    let read = server.serving.master.read(READ_DEADLINE, |read| read.unprotected()).await;
    let ranges = read.map_err(|error| server.serving.storage_failed(&error))?;
    let range = |Unprotected { after, through, began_at }| wire::Unprotected {
        after: after.0,
        through: through.map(|through| through.0),
        began_unix_millis: began_at,
    };
    Ok(ranges.into_iter().map(range).collect())
}

/// Has the replica prove its copy.
pub(super) async fn prove(session: &Session) -> Result<wire::ProveReplicaReply, Status> {
    let server = session.server()?;
    let proved = server.serving.replicating.clone().prove().await.map_err(Status::failed_precondition)?;
    Ok(wire::ProveReplicaReply { proof: Some(proof(proved)) })
}

/// The replica as this server knows it.
pub(super) fn replica(device: &Device) -> Option<wire::ReplicationStatus> {
    let server = device.server.load_full()?;
    let standing = server.serving.replicating.standing()?;
    let Standing { set, connected, live, durable, position, lacks, behind, unprotected, proved } = standing;
    let missing = position.zip(durable).map(|(position, durable)| position.sequence.0 - durable.sequence.0);
    Some(wire::ReplicationStatus {
        device_id: set.device.to_string(),
        device_name: name(device, set.device),
        durability: durability_to_wire(set.durability).into(),
        connected,
        live,
        behind: missing,
        behind_millis: behind.map(|behind| u64::try_from(behind.as_millis()).unwrap_or(u64::MAX)),
        safe: durable.map(place),
        lacks_pages: lacks,
        unprotected,
        proof: proved.map(proof),
        can_take_over: device
            .roster
            .member(set.device)
            .is_some_and(|member| member.capabilities.contains(Capabilities::SERVE)),
    })
}

/// The copy on this device.
pub(super) fn copy(session: &Session) -> Option<wire::CopyStatus> {
    let running = session.supervisor.watch().borrow().running().contains(Part::Replica);
    let report = session.device.copy.borrow().clone();
    running.then(|| wire::CopyStatus {
        connected: report.connected,
        position: report.position.map(place),
        server: report.server.map(place),
        database_bytes: report.position.map_or(0, |at| u64::from(at.pages) * PAGE_BYTES as u64),
        proof: report.proof.map(|(at_unix_millis, wrong)| wire::Proof {
            at_unix_millis,
            sequence: 0,
            wrong: wrong.unwrap_or_default(),
        }),
        last_error: report.last_error,
    })
}

fn proof(Proved { sequence, at, wrong }: Proved) -> wire::Proof {
    wire::Proof { at_unix_millis: at, sequence: sequence.0, wrong: wrong.unwrap_or_default() }
}

pub(super) fn place(position: Position) -> wire::Revision {
    revision(Revision { epoch: position.epoch.number, sequence: position.sequence })
}

fn name(device: &Device, id: DeviceId) -> String {
    device.roster.member(id).map_or_else(|| id.to_string(), |member| member.name.clone())
}

fn durability_to_wire(durability: Durability) -> wire::Durability {
    match durability {
        Durability::Async => wire::Durability::Async,
        Durability::SyncHold => wire::Durability::SyncHold,
        Durability::SyncContinue => wire::Durability::SyncContinue,
    }
}
