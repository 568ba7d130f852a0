//! Taking over as the server, and what is left of a reign that ended.

use std::time::Duration;

use mfpsync_proto::panel as wire;
use mfpsync_storage::model::{Capabilities, Promotion, Signed};
use mfpsync_storage::physical::Standby;
use tonic::Status;

use super::replication::{opened, opened_if_given, place};
use super::service::Session;
use super::status::role;
use crate::communication::{Code, Event};
use crate::control_file::ControlFile;
use crate::device::Device;
use crate::group::OPERATOR;
use crate::reign::left_behind;
use crate::reign::promotion::{self, Order};
use crate::replica::{self, Ended};
use crate::role::{Phase, Role};
use crate::storage_fault;

/// How long the replica may take to reign after it was told to.
const HANDS_OVER: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);
/// How long the replica's part may take to stop.
const STOPS: Duration = Duration::from_secs(10);

/// Makes the replica the server.
pub(super) async fn promote(
    session: &Session,
    request: wire::PromoteRequest,
) -> Result<wire::PromoteReply, Status> {
    let root = opened_if_given(request.recovery_kit, request.kit_passphrase).await?;
    let order = Order { operator: OPERATOR, server_is_lost: request.server_is_lost, root };
    let promoted = promotion::promote(&session.device, &session.supervisor, order).await?;
    Ok(wire::PromoteReply {
        wanted: role(promoted.wanted).into(),
        position: Some(place(promoted.position)),
        missing_at_most: promoted.missing_at_most,
        stood_down: !request.server_is_lost,
    })
}

/// Has the replica take over from this server.
pub(super) async fn transfer(session: &Session) -> Result<wire::TransferReply, Status> {
    let (device, server) = (&session.device, session.server()?);
    let own = device.identity.device();
    let standing = server.serving.replicating.standing();
    let standing = standing.ok_or_else(|| {
        Status::failed_precondition("no replica is set to hand over to; nothing was changed")
    })?;
    let to = device.roster.member(standing.set.device);
    let to = to.ok_or_else(|| Status::failed_precondition("the replica is no device of the group"))?;
    if !to.capabilities.contains(Capabilities::SERVE) {
        return Err(Status::failed_precondition(
            "the recovery kit has not certified the replica as a server; nothing was changed \
             (`mfpsync replication set --kit FILE`)",
        ));
    }
    if !server.serving.replicating.hand_over() {
        return Err(Status::failed_precondition(
            "the replica is not connected, or does not have everything yet; nothing was changed \
             (`mfpsync replication status`)",
        ));
    }
    let handed_over = async {
        while device.reigning().is_none_or(|reigning| reigning == own) {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(HANDS_OVER, handed_over).await.is_err() {
        return Err(Status::unavailable(format!(
            "{} did not take over in time, and says why in its log; this server goes on",
            to.name
        )));
    }
    let (device_id, device_name) = (to.device.to_string(), to.name.clone());
    Ok(wire::TransferReply { device_id, device_name })
}

/// Makes this client the replica that can take over, by the recovery kit.
pub(super) async fn succeed(
    session: &Session,
    request: wire::SucceedRequest,
) -> Result<wire::SucceedReply, Status> {
    let device = &session.device;
    if !matches!(session.wanted(), Role::Client | Role::ReplicaClient) {
        return Err(Status::failed_precondition(
            "this device is no client of a group; join it first, then do this again",
        ));
    }
    let root = opened(request.recovery_kit, request.kit_passphrase).await?;
    let certificate = promotion::certify(device, &root).await?;
    // Whoever released it here before wants it back.
    let again = device.control.write(ControlFile::forget_release).await;
    again.map_err(|fault| Status::unavailable(fault.to_string()))?;
    replica::succeed(device, certificate).await.map_err(|ended| match ended {
        Ended::Server(status) => {
            Status::failed_precondition(format!("the server refuses: {}", status.message()))
        }
        ended => Status::unavailable(format!("the server cannot be asked: {ended}; nothing was changed")),
    })?;
    Ok(wire::SucceedReply {})
}

/// Gives up the copy on this replica.
pub(super) async fn release(
    session: &Session,
    request: wire::ReleaseReplicaRequest,
) -> Result<wire::ReleaseReplicaReply, Status> {
    let device = &session.device;
    if !matches!(session.wanted(), Role::Replica | Role::ReplicaClient) {
        return Err(Status::failed_precondition("this device is not the group's replica"));
    }
    let report = device.copy.borrow().clone();
    let directory = device.config.data_dir.join(replica::DIRECTORY);
    let whole = tokio::task::spawn_blocking(move || Standby::is_whole(&directory)).await;
    let whole = whole.map_err(|_| Status::internal("looking for the copy was interrupted"))?;
    if report.position.is_none() && whole.map_err(|error| storage_fault::refusal(&error))? {
        return Err(Status::unavailable(
            "the copy is being read, and what is at stake is not known before; nothing was changed, try again",
        ));
    }
    let at_stake = report.position.map_or(0, |position| position.sequence.0);
    if !report.connected && at_stake > request.accept_loss_of {
        return Err(Status::failed_precondition(format!(
            "the server does not answer, so this copy of {at_stake} changes may be all there is; nothing was changed \
             (make this device the server: `mfpsync role promote --server-is-lost`; or give the copy up all the \
             same: `mfpsync replication release --accept-loss-of {at_stake}`)"
        )));
    }
    let released = device.control.write(ControlFile::release_replica).await;
    let wanted = released.map_err(|fault| Status::unavailable(fault.to_string()))?;
    session.switch(wanted).await?;
    let mut states = session.supervisor.watch();
    let stopped = states.wait_for(|state| state.phase() == Phase::Running && state.running_role() == wanted);
    if !matches!(tokio::time::timeout(STOPS, stopped).await, Ok(Ok(_))) {
        return Err(Status::unavailable(
            "released; the copy is still in use, and is moved aside at the next start",
        ));
    }
    let directory = device.config.data_dir.clone();
    let aside = tokio::task::spawn_blocking(move || replica::move_aside(&directory)).await;
    let aside = aside.map_err(|_| Status::internal("moving the copy aside was interrupted"))?;
    let aside =
        aside.map_err(|error| Status::unavailable(format!("released; move the copy aside: {error}")))?;
    device.communication.record(Event::new(Code::ReplicaStopped));
    Ok(wire::ReleaseReplicaReply { path: aside.map_or_else(String::new, |path| path.display().to_string()) })
}

/// Has this server stay where others claim its reign.
pub(super) async fn stay(session: &Session) -> Result<wire::StayReply, Status> {
    let (device, server) = (&session.device, session.server()?);
    let ended = server.serving.rivals().iter().map(|ended| rival(device, ended)).collect();
    let nonce = device.nonce().map_err(|fault| Status::internal(fault.to_string()))?;
    let epoch = server.serving.stay(OPERATOR, nonce).await?;
    let seen = device.saw_epoch(server.serving.head().group, epoch).await;
    seen.map_err(|fault| Status::unavailable(fault.to_string()))?;
    tracing::info!(epoch = epoch.number, "an operator chose this server");
    device.communication.record(Event::new(Code::TookOver));
    Ok(wire::StayReply { epoch: epoch.number, ended })
}

/// A rival, as people know it.
pub(super) fn rival(device: &Device, rival: &Signed<Promotion>) -> wire::Rival {
    let Promotion { device: of, epoch, operator, made_at, .. } = &rival.record;
    wire::Rival {
        device_id: of.to_string(),
        device_name: device.roster.member(*of).map_or_else(String::new, |member| member.name.clone()),
        epoch: epoch.number,
        operator: operator.clone(),
        since_unix_millis: *made_at,
    }
}

/// Dismisses the master database of a reign that ended.
pub(super) async fn retire(session: &Session) -> Result<wire::RetireServerReply, Status> {
    let device = &session.device;
    if left_behind(device).await.is_none() {
        return Err(Status::failed_precondition(
            "this device holds no database of a reign that ended; nothing was changed",
        ));
    }
    let aside = crate::reign::retire(device).await;
    let aside = aside.map_err(|error| Status::unavailable(format!("move the database aside: {error}")))?;
    Ok(wire::RetireServerReply { path: aside.display().to_string() })
}
