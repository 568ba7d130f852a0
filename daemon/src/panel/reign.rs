//! Taking over as the server, and what is left of a reign that ended.

use std::time::Duration;

use mfpsync_proto::panel as wire;
use mfpsync_storage::model::{Promotion, Signed};
use mfpsync_storage::physical::Position;
use ring::rand::SecureRandom;
use tonic::Status;

use super::replication::place;
use super::service::Session;
use super::status::role;
use crate::communication::{Code, Event};
use crate::db::READ_DEADLINE;
use crate::device::Device;
use crate::reign::{left_behind, takeover};
use crate::replica::{self, CopyReport};
use crate::role::Role;
use crate::storage_fault;

/// Who decided, as the promotion record names it.
const OPERATOR: &str = "panel";
/// How long the copy may take to hold what the server said was the last of its reign.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes the replica the server.
pub(super) async fn promote(
    session: &Session,
    request: wire::PromoteRequest,
) -> Result<wire::PromoteReply, Status> {
    let device = &session.device;
    if !matches!(session.wanted(), Role::Replica | Role::ReplicaClient) {
        return Err(Status::failed_precondition(
            "this device is not the group's replica; do this at the replica",
        ));
    }
    let report = device.copy.borrow().clone();
    let position = may_take_over(device, &report).await?;
    let stood_down = !request.server_is_lost;
    let position = if stood_down { stand_down(device, &report).await? } else { position };
    let known = report.server.map_or(position.sequence, |server| server.sequence);
    let missing_at_most = if stood_down { 0 } else { known.0.saturating_sub(position.sequence.0) };
    let decided = device.control.write(|file| file.begin_takeover(OPERATOR)).await;
    let wanted = decided.map_err(|fault| Status::unavailable(fault.to_string()))?;
    session.switch(wanted).await?;
    Ok(wire::PromoteReply {
        wanted: role(wanted).into(),
        position: Some(place(position)),
        missing_at_most,
        stood_down,
    })
}

/// Where the copy stands, if this device may make it the master database.
async fn may_take_over(device: &Device, report: &CopyReport) -> Result<Position, Status> {
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
    let issuers = device.own.db().read(READ_DEADLINE, |read| read.issuers()).await;
    let issuers = issuers.map_err(|error| storage_fault::refusal(&error))?;
    takeover::issuing(device, &issuers).map_err(|fault| {
        Status::failed_precondition(format!(
            "{fault}; nothing was changed (at the server: `mfpsync replication set --kit FILE`)"
        ))
    })?;
    Ok(position)
}

/// Has the server stand down; where the copy stands then, which is all there was.
async fn stand_down(device: &Device, report: &CopyReport) -> Result<Position, Status> {
    if !report.connected {
        return Err(Status::failed_precondition(
            "the server does not answer, so it cannot stand down first; nothing was changed; if it is lost, \
             say so (`--server-is-lost`)",
        ));
    }
    let last = replica::stand_down(device).await.map_err(|error| {
        Status::unavailable(format!("the server did not stand down: {error}; nothing was changed"))
    })?;
    let mut copy = device.copy.subscribe();
    let arrived = copy.wait_for(|copy| copy.position.is_some_and(|at| at.sequence >= last.sequence));
    match tokio::time::timeout(PATIENCE, arrived).await {
        Ok(Ok(_)) => Ok(last),
        Ok(Err(_)) | Err(_) => Err(Status::unavailable(
            "the copy did not get all that the server had; nothing was changed, and the server goes on by itself",
        )),
    }
}

/// Has this server stay where others claim its reign.
pub(super) async fn stay(session: &Session) -> Result<wire::StayReply, Status> {
    let (device, server) = (&session.device, session.server()?);
    let ended = server.serving.rivals().iter().map(|ended| rival(device, ended)).collect();
    let mut nonce = [0; 16];
    let random: &dyn SecureRandom = &*device.random;
    random.fill(&mut nonce).map_err(|_| Status::internal("no random numbers"))?;
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
