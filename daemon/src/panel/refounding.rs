//! The group goes on although every device that could serve is lost, with its data: a client becomes the
//! server by the recovery kit, and every device offers what it has.

use std::sync::Arc;

use mfpsync_proto::panel as wire;
use mfpsync_storage::model::{Chain, DeviceId, Epoch, Parent, Promotion, PromotionReason, Sequence, Signed};
use tonic::Status;

use super::founding::own_head;
use super::replication::opened;
use super::service::Session;
use super::status::role;
use crate::authority::IssuingKey;
use crate::clock::unix_millis;
use crate::db::{READ_DEADLINE, SCAN_DEADLINE};
use crate::device::Device;
use crate::group::OPERATOR;
use crate::reign::{others, promotion};
use crate::role::Role;
use crate::storage_fault;

/// Makes this client the server of its group, with nothing but what the devices have. Answered when the decision is
/// durable; the database is made by [`crate::reign::takeover`].
pub(super) async fn refound(
    session: &Session,
    request: wire::RefoundRequest,
) -> Result<wire::RoleReply, Status> {
    let device = &session.device;
    match session.wanted() {
        Role::Client => {}
        Role::Replica | Role::ReplicaClient => {
            return Err(Status::failed_precondition(
                "this device holds a copy of the group's data; nothing was changed: let it become the server with \
                 that (`mfpsync role promote --server-is-lost`)",
            ));
        }
        Role::Idle | Role::Server | Role::ServerClient => {
            return Err(Status::failed_precondition("this device is no client of a group"));
        }
    }
    nobody_answers(device).await?;
    let read = device.own.db().read(READ_DEADLINE, |read| Ok((read.device()?, read.lineage()?)));
    let (own, lineage) = read.await.map_err(|error| storage_fault::refusal(&error))?;
    let seen = own.cursor.map_or(0, |cursor| cursor.sequence.0);
    if request.accept_loss_of < seen {
        return Err(Status::failed_precondition(format!(
            "the group made {seen} changes that this device has heard of; their history, and what no device has, will \
             be gone; nothing was changed (if no replica and no archive is left: `mfpsync recover --without-copy \
             --accept-loss-of {seen}`)"
        )));
    }
    holds_no_master(device).await?;
    let root = opened(request.recovery_kit, request.kit_passphrase).await?;
    promotion::certify(device, &root).await?;
    let record = record(device, lineage)?;
    let (epoch, bytes) = (record.record.epoch, record.encode());
    let decided = device.control.write(move |file| file.begin_anew(OPERATOR, epoch, &bytes)).await;
    let wanted = decided.map_err(|fault| Status::unavailable(fault.to_string()))?;
    tracing::info!(epoch = epoch.number, "the group goes on here, with what its devices have");
    session.switch(wanted).await?;
    Ok(wire::RoleReply { wanted: role(wanted).into() })
}

/// Says whether anybody is left that this client's group could go on with.
pub(super) async fn look(session: &Session) -> Result<wire::LookForServersReply, Status> {
    let device = &session.device;
    if session.wanted() != Role::Client {
        return Err(Status::failed_precondition(
            "this device is no client of a group, or could serve itself",
        ));
    }
    holds_no_master(device).await?;
    let answering = answering(device).await?;
    let items = device.own.db().read(SCAN_DEADLINE, |read| read.visible_count()).await;
    let items = items.map_err(|error| storage_fault::refusal(&error))?;
    Ok(wire::LookForServersReply { answering, items })
}

/// What a server of before left behind is more than what this device has as a client.
async fn holds_no_master(device: &Device) -> Result<(), Status> {
    if own_head(device).await?.is_none() {
        return Ok(());
    }
    Err(Status::failed_precondition(
        "this device holds the database of a server of before; nothing was changed: let it serve again \
         (`mfpsync role start-server`), or dismiss it if another device has reigned since (`mfpsync role retire`)",
    ))
}

/// Asks all that may serve, also those that only say who does; the names of those that answer.
async fn answering(device: &Arc<Device>) -> Result<Vec<String>, Status> {
    let answers = others::who_answers(device).await.map_err(|error| storage_fault::refusal(&error))?;
    Ok(answers.iter().map(|of| name(device, *of)).collect())
}

async fn nobody_answers(device: &Arc<Device>) -> Result<(), Status> {
    let names = answering(device).await?;
    if names.is_empty() {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "{} could serve and answers; nothing was changed: let the group go on from there",
        names.join(", ")
    )))
}

fn name(device: &Device, of: DeviceId) -> String {
    device.roster.member(of).map_or_else(|| of.to_string(), |member| member.name.clone())
}

/// The reign follows the founding with nothing of what came since, numbered above all.
fn record(device: &Device, lineage: Vec<Signed<Promotion>>) -> Result<Signed<Promotion>, Status> {
    let key = IssuingKey::load(&*device.keys, device.identity.device())
        .map_err(|error| Status::unavailable(error.to_string()))?
        .ok_or_else(|| Status::internal("this device has no issuing key"))?;
    let nonce = device.nonce().map_err(|fault| Status::internal(fault.to_string()))?;
    let seen = device.control.current().epoch.map_or(0, |seen| seen.number);
    let highest = lineage.last().map_or(0, |last| last.record.epoch.number).max(seen);
    let founded = lineage.into_iter().next();
    let founded =
        founded.ok_or_else(|| Status::failed_precondition("this device never met its group"))?.record;
    Ok(key.sign_promotion(Promotion {
        group: founded.group,
        epoch: Epoch { number: highest + 1, nonce },
        parent: Some(Parent {
            epoch: founded.epoch,
            sequence: Sequence::ZERO,
            chain: Chain::START,
            transaction: 0,
            page_digest: [0; 16],
        }),
        ends: Vec::new(),
        device: key.device(),
        operator: OPERATOR.to_owned(),
        reason: PromotionReason::Recovered,
        made_at: unix_millis(),
    }))
}
