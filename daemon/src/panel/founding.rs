//! Founding a group in three calls: its recovery kit goes out, the group is written, the server starts.
//!
//! I-25: the kit is with the operator before the group exists, so no cut leaves a group without one, and no
//! kit rests here. Between the calls this module keeps what is to be written, all of it signed and public.

use std::sync::Arc;

use mfpsync_proto::panel as wire;
use mfpsync_storage::local::Membership;
use mfpsync_storage::master::{Founding, Head};
use mfpsync_storage::model::GroupId;
use tokio::sync::Mutex;
use tonic::Status;

use super::service::Session;
use crate::device::Device;
use crate::group::{self, FoundError, Founder};
use crate::role::Role;
use crate::storage_fault;

/// A group that was prepared and is not written yet; the last one counts.
pub(super) type Prepared = Arc<Mutex<Option<Founding>>>;

/// Makes a group in memory alone and answers with its kit.
pub(super) async fn prepare(
    session: &Session,
    request: wire::PrepareGroupRequest,
) -> Result<wire::PrepareGroupReply, Status> {
    may_serve(session).await?;
    let device = session.device.clone();
    let mut prepared = session.prepared.clone().lock_owned().await;
    if own_head(&device).await?.is_some() {
        return Ok(wire::PrepareGroupReply::default());
    }
    belongs_to_none(&device).await?;
    let preparing = tokio::task::spawn_blocking(move || {
        let founder = Founder {
            identity: &device.identity,
            name: &device.config.name,
            keys: &*device.keys,
            endpoints: &device.endpoints(&device.config.listen),
        };
        let (founding, recovery_kit) =
            founder.prepare(&request.group_name, &request.kit_passphrase, &*device.random)?;
        let group_id = founding.promotion.record.group.to_string();
        *prepared = Some(founding);
        Ok(wire::PrepareGroupReply { group_id, recovery_kit })
    });
    let reply = preparing.await.map_err(|_| Status::internal("preparing the group was interrupted"))?;
    reply.map_err(refused)
}

/// Writes the group that was prepared; harmless when it is written already.
pub(super) async fn found(
    session: &Session,
    request: wire::FoundGroupRequest,
) -> Result<wire::FoundGroupReply, Status> {
    let group = GroupId::from_hex(&request.group_id)
        .ok_or_else(|| Status::invalid_argument("a group's id is 32 hex digits; preparing it gives one"))?;
    may_serve(session).await?;
    let device = session.device.clone();
    let mut prepared = session.prepared.clone().lock_owned().await;
    match own_head(&device).await? {
        Some(head) if head.group == group => return Ok(wire::FoundGroupReply {}),
        Some(head) => return Err(refused(FoundError::Exists(head.group_name))),
        None => belongs_to_none(&device).await?,
    }
    let turn = device.master_at_rest.turn().await;
    let founding = turn.run(move |_| {
        let founding = prepared.as_ref().filter(|founding| founding.promotion.record.group == group);
        group::found(&device.config.data_dir, founding.ok_or(FoundError::Unprepared)?)?;
        *prepared = None;
        Ok(wire::FoundGroupReply {})
    });
    let reply = founding.await.map_err(|_| Status::internal("founding the group was interrupted"))?;
    reply.map_err(refused)
}

fn refused(error: FoundError) -> Status {
    match error {
        FoundError::Name | FoundError::Kit(_) => Status::invalid_argument(error.to_string()),
        FoundError::Exists(_) | FoundError::Unprepared => Status::failed_precondition(error.to_string()),
        FoundError::Key(_) => Status::internal(error.to_string()),
        FoundError::Storage(error) => storage_fault::refusal(&error),
    }
}

/// Refuses a device that takes part in a group served elsewhere.
pub(super) async fn may_serve(session: &Session) -> Result<(), Status> {
    let wanted = session.wanted();
    let elsewhere = match wanted {
        // A server that was stopped goes on as a client of the group it holds.
        Role::Client => !holds_its_group(&session.device).await?,
        Role::Replica | Role::ReplicaClient => true,
        Role::Idle | Role::Server | Role::ServerClient => false,
    };
    if elsewhere {
        return Err(Status::failed_precondition(format!(
            "this device is {wanted} of a group; leave that group first, then start the server"
        )));
    }
    Ok(())
}

/// Refuses to found a group beside one that the own data belongs to.
async fn belongs_to_none(device: &Device) -> Result<(), Status> {
    let membership = device.membership().await.map_err(|error| storage_fault::refusal(&error))?;
    membership.map_or(Ok(()), |known| Err(other_group(&known)))
}

pub(super) fn other_group(known: &Membership) -> Status {
    Status::failed_precondition(format!(
        "this device's own data belongs to group {} already; leave that first",
        known.group_name
    ))
}

/// Whether the group that the own data belongs to is the one whose master database is here.
async fn holds_its_group(device: &Device) -> Result<bool, Status> {
    let membership = device.membership().await.map_err(|error| storage_fault::refusal(&error))?;
    let head = own_head(device).await?;
    Ok(head.is_some_and(|head| membership.is_some_and(|membership| membership.group == head.group)))
}

/// The head of the group whose master database is here.
pub(super) async fn own_head(device: &Device) -> Result<Option<Head>, Status> {
    let turn = device.master_at_rest.turn().await;
    if let Some(server) = device.server.load_full() {
        return Ok(Some(server.serving.head()));
    }
    let head = turn
        .run(group::head)
        .await
        .map_err(|_| Status::internal("reading the master database was interrupted"))?;
    head.map_err(|error| storage_fault::refusal(&error))
}
