//! Becoming a server, joining a group and leaving it. I-10: each decision is durable before its effect,
//! each step harmless when it is repeated after a power cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mfpsync_proto::panel as wire;
use mfpsync_replication::join::Policies;
use mfpsync_storage::local::{Membership, Phase};
use mfpsync_storage::model::Incarnation;
use tonic::Status;

use super::service::Session;
use super::{founding, joining};
use crate::client;
use crate::communication::{Code as EventCode, Event};
use crate::config::HostPort;
use crate::db::{READ_DEADLINE, SCAN_DEADLINE};
use crate::device::Device;
use crate::enroll::{self, JoinError, Joined};
use crate::group::membership_of;
use crate::pairing::Code;
use crate::role::{Role, SupervisorHandle};
use crate::storage_fault;

/// Pairing is two round trips; a person waits.
const JOIN_DEADLINE: Duration = Duration::from_secs(10);
/// How long a leaving device tries to send what waits.
const FLUSH: Duration = Duration::from_secs(5);

/// Starts serving the group that this device holds.
pub(super) async fn start_server(
    session: &Session,
    request: wire::StartServerRequest,
) -> Result<wire::RoleReply, Status> {
    founding::may_serve(session).await?;
    if founding::own_head(&session.device).await?.is_none() {
        return Err(Status::failed_precondition(
            "this device holds no group; prepare one, save its recovery kit, and found it first",
        ));
    }
    let with_client = request.with_client || matches!(session.wanted(), Role::ServerClient | Role::Client);
    if with_client {
        enter_own_group(&session.device).await?;
    }
    session.switch(if with_client { Role::ServerClient } else { Role::Server }).await
}

/// Makes a server a client of its own group as well.
pub(super) async fn start_client(session: &Session) -> Result<wire::RoleReply, Status> {
    match session.wanted() {
        Role::Server | Role::ServerClient => {
            enter_own_group(&session.device).await?;
            session.switch(Role::ServerClient).await
        }
        Role::Client => session.switch(Role::Client).await,
        Role::Idle | Role::Replica | Role::ReplicaClient => Err(Status::failed_precondition(
            "this device belongs to no group: join one with the server's address and pairing code",
        )),
    }
}

/// The own data becomes part of the group that this device serves.
async fn enter_own_group(device: &Arc<Device>) -> Result<(), Status> {
    let head = founding::own_head(device).await?;
    let membership = membership_of(&head.ok_or_else(|| Status::internal("this device holds no group"))?);
    match device.membership().await.map_err(|error| storage_fault::refusal(&error))? {
        Some(known) if known.group == membership.group => Ok(()),
        Some(known) => Err(founding::other_group(&known)),
        None => enter(device, membership, Some(Policies::default())).await,
    }
}

/// Gives the own data its group and a new incarnation; without policies a person decides later what
/// becomes of the own items.
async fn enter(device: &Device, membership: Membership, policies: Option<Policies>) -> Result<(), Status> {
    let incarnation = new_incarnation(device)?;
    let wishes = policies.map(|policies| policies.to_string().into_bytes());
    let joined =
        device.own.change_membership(move |write| write.join(&membership, incarnation, wishes.as_deref()));
    joined.await.map_err(|error| storage_fault::refusal(&error))
}

fn new_incarnation(device: &Device) -> Result<Incarnation, Status> {
    crate::own_data::draw_incarnation(&*device.random).ok_or_else(|| Status::internal("no random numbers"))
}

/// Pairs with a server and becomes a client of its group.
pub(super) async fn join(session: &Session, request: wire::JoinRequest) -> Result<wire::JoinReply, Status> {
    let wanted = session.wanted();
    if wanted != Role::Idle {
        return Err(Status::failed_precondition(format!(
            "this device is {wanted} already; end that first, then join"
        )));
    }
    let policies = joining::policies(request.policies)?.unwrap_or_default();
    let policies = (!request.review).then_some(policies);
    let device = &session.device;
    let known = device.membership().await.map_err(|error| storage_fault::refusal(&error))?;
    // A link-local address has a scope, which only a socket address can have.
    if request.address.parse::<SocketAddr>().is_err() {
        request.address.parse::<HostPort>().map_err(Status::invalid_argument)?;
    }
    let code = Code::parse(&request.code).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let joined = enroll::join(&request.address, &code, &device.identity, &device.config.name, JOIN_DEADLINE)
        .await
        .map_err(|error| {
            let event = Event::new(EventCode::NotPaired).reason(error.word());
            device.communication.record(event.address(&request.address));
            refused(&error)
        })?;
    device.communication.record(Event::new(EventCode::Paired).peer(joined.server).address(&request.address));
    let membership = Membership {
        group: joined.anchor.group,
        group_name: joined.group_name.clone(),
        root_key: joined.anchor.root,
    };
    let unsent_items = unsent_of_return(device, &membership).await?;
    // What an earlier member never sent is offered by nobody's default: a person looks first.
    let policies = policies.filter(|_| unsent_items == 0);
    let needs_decision = policies.is_none();
    match known {
        // A join that was cut after this step, perhaps with other wishes.
        Some(known) if known.group == membership.group => {
            let wishes = policies.map(|policies| policies.to_string().into_bytes());
            let wished = device.own.note(move |write| write.wish(wishes.as_deref())).await;
            wished.map_err(|error| storage_fault::refusal(&error))?;
        }
        Some(known) => {
            return Err(Status::failed_precondition(format!(
                "this device's own data belongs to group {}; leave that first",
                known.group_name
            )));
        }
        None => enter(device, membership, policies).await?,
    }
    let own_items = device.own.db().read(SCAN_DEADLINE, |read| read.visible_count()).await;
    let own_items = own_items.map_err(|error| storage_fault::refusal(&error))?;
    adopt(device, joined.clone()).await?;
    let role = session.switch(Role::Client).await?;
    Ok(wire::JoinReply {
        group_id: joined.anchor.group.to_string(),
        group_name: joined.group_name,
        role: Some(role),
        own_items,
        unsent_items,
        needs_decision,
    })
}

/// How many own items carry edits which this group never got when the device was in it before.
async fn unsent_of_return(device: &Device, membership: &Membership) -> Result<u64, Status> {
    let group = membership.group;
    let read = device.own.db().read(SCAN_DEADLINE, move |read| {
        if read.parted_from()? == Some(group) { read.unsent_count() } else { Ok(0) }
    });
    read.await.map_err(|error| storage_fault::refusal(&error))
}

async fn adopt(device: &Device, joined: Joined) -> Result<(), Status> {
    let rows: Vec<_> = joined.members.iter().map(|signed| signed.record.clone()).collect();
    if let Some(last) = joined.lineage.last() {
        device.saw_reign(last.record.device);
    }
    let stored = device.own.write(move |write| {
        write.adopt_roster(&joined.lineage, &joined.issuers, &joined.members)?;
        Ok(((), Vec::new()))
    });
    stored.await.map_err(|error| storage_fault::refusal(&error))?;
    device.roster.update(rows);
    Ok(())
}

/// A refused pairing in words a person can act on.
fn refused(error: &JoinError) -> Status {
    match error {
        JoinError::WrongCode { tries_left: Some(left) } => Status::permission_denied(format!(
            "{error}; {left} tries are left; check the code at the server and type it again"
        )),
        JoinError::WrongCode { tries_left: None } => {
            Status::permission_denied(format!("{error}; check the code at the server and type it again"))
        }
        JoinError::Closed => Status::failed_precondition(format!("{error}; open it there, then join again")),
        JoinError::TooManyTries | JoinError::TooLate => Status::failed_precondition(error.to_string()),
        JoinError::Unreachable(_) | JoinError::Timeout => {
            Status::unavailable(format!("{error}; check address and network; nothing was changed here"))
        }
        JoinError::Impostor | JoinError::Membership(_) | JoinError::Malformed(_) => {
            Status::permission_denied(format!(
                "{error}; nothing was adopted; somebody may be between the two devices"
            ))
        }
        JoinError::Refused(_) => Status::failed_precondition(error.to_string()),
        JoinError::Identity => Status::internal(error.to_string()),
    }
}

/// Leaves the group: sends what waits, frees the slot, keeps the data as the device's own; of a join
/// that is being taken back, the data from before it.
pub(super) async fn leave(
    session: &Session,
    request: wire::LeaveRequest,
) -> Result<wire::LeaveReply, Status> {
    let unsent = flushed(&session.device).await?;
    if unsent > 0 && request.accept_unsent != Some(unsent) {
        return Err(Status::failed_precondition(format!(
            "{unsent} edits have not reached the server; they stay on this device only (`mfpsync unsent` names \
             them, `mfpsync unsent export` writes them to a file); to leave all the same, repeat that \
             number (--accept-unsent {unsent})"
        )));
    }
    leave_group(session, unsent).await
}

/// Leaves the group, giving up at most so many edits that never reached the server.
pub(super) async fn leave_group(session: &Session, accept_unsent: u64) -> Result<wire::LeaveReply, Status> {
    let device = &session.device;
    let next = match session.wanted() {
        Role::Client => Role::Idle,
        Role::ServerClient => Role::Server,
        Role::Idle
            if device.membership().await.map_err(|error| storage_fault::refusal(&error))?.is_some() =>
        {
            Role::Idle
        }
        Role::Idle | Role::Server | Role::Replica | Role::ReplicaClient => {
            return Err(Status::failed_precondition("this device is not a client of a group"));
        }
    };
    let life = incarnation(device).await?;
    // First, so that the client part does not meet the refusal of a device that has left.
    let role = stop_client(&session.supervisor, session, next).await?;
    // The server's own client function ends without giving up the server's membership.
    let slot_freed = next == Role::Idle && client::leave(device).await;
    let left = device.own.change_membership(move |write| {
        if write.device()?.incarnation != life {
            // It joined a group meanwhile; what was to be left is left already.
            return Ok(None);
        }
        match write.phase()? {
            Some(Phase::Undoing) => write.leave_as_before(accept_unsent).map(Some),
            Some(Phase::Joining | Phase::Member) => write.leave().map(Some),
            None => Ok(None),
        }
    });
    let left = left.await.map_err(|error| storage_fault::refusal(&error))?;
    let unsent = left.unwrap_or_default();
    if left.is_some() && next == Role::Idle {
        device.roster.clear();
        device.left_group().await.map_err(|fault| Status::unavailable(fault.to_string()))?;
    }
    device.communication.record(Event::new(EventCode::Left).count("unsent", unsent));
    Ok(wire::LeaveReply { role: Some(role), unsent, slot_freed })
}

/// Carries a leave on that was cut short: the decision is durable, and the group's data still shows.
pub(super) async fn finish_leaving(session: &Session) -> Result<(), Status> {
    let control = session.device.control.current();
    let membership = session.device.membership().await.map_err(|error| storage_fault::refusal(&error))?;
    let left = membership.is_some_and(|membership| control.group == Some(membership.group));
    if control.wanted == Role::Idle && left {
        tracing::info!("a leave that was cut short is carried on");
        leave_group(session, u64::MAX).await?;
    }
    Ok(())
}

async fn incarnation(device: &Device) -> Result<Incarnation, Status> {
    let read = device.own.db().read(READ_DEADLINE, |read| read.device()).await;
    Ok(read.map_err(|error| storage_fault::refusal(&error))?.incarnation)
}

/// Switches and waits until the client part has ended, so that nothing writes the mirror any more.
async fn stop_client(
    supervisor: &SupervisorHandle,
    session: &Session,
    next: Role,
) -> Result<wire::RoleReply, Status> {
    let reply = session.switch(next).await?;
    let mut states = supervisor.watch();
    let stopped = states.wait_for(|state| state.running_role() == next);
    match tokio::time::timeout(JOIN_DEADLINE, stopped).await {
        Ok(Ok(_)) => Ok(reply),
        Ok(Err(_)) | Err(_) => {
            Err(Status::unavailable("the client function did not stop in time; try again"))
        }
    }
}

/// Waits a little for the outbox to empty while the server is there; returns what is left.
async fn flushed(device: &Device) -> Result<u64, Status> {
    let (mut links, mut settlements) = (device.link.subscribe(), device.own.settlements());
    let until = tokio::time::Instant::now() + FLUSH;
    loop {
        settlements.mark_unchanged();
        let waiting = device.own.db().read(READ_DEADLINE, |read| read.waiting()).await;
        let waiting = waiting.map_err(|error| storage_fault::refusal(&error))?.operations;
        let online = links.borrow_and_update().link.is_online();
        if waiting == 0 || !online || tokio::time::Instant::now() >= until {
            return Ok(waiting);
        }
        tokio::select! {
            Ok(()) = links.changed() => {}
            Ok(()) = settlements.changed() => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }
}
