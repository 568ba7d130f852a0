//! What one screen shows, gathered from the parts.

use std::sync::Arc;

use mfpsync_proto::panel as wire;
use mfpsync_storage::Error;
use mfpsync_storage::local::{self, DeviceState, Membership, Waiting};
use mfpsync_storage::master::Succession;
use mfpsync_storage::model::{Capabilities, Member, Revision, Sequence};

use super::replication;
use super::service::Session;
use crate::client::{Link, LinkReport};
use crate::db::READ_DEADLINE;
use crate::device::Device;
use crate::pairing::State as Pairing;
use crate::role::{Phase, Role};

/// Runs of missing changes that are named.
const RUNS: usize = 100;

/// Gathers the status. What cannot be read shows as absent: the fault says why.
pub(crate) async fn status(session: &Session) -> wire::StatusReply {
    let device = &session.device;
    let state = session.supervisor.watch().borrow().clone();
    let (own, membership) = own_state(device).await.unzip();
    let membership = membership.flatten();
    wire::StatusReply {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        device_id: device.identity.device().to_string(),
        device_name: device.config.name.clone(),
        wanted: role(state.wanted()).into(),
        running: role(state.running_role()).into(),
        phase: phase(state.phase()).into(),
        faults: device.faults.snapshot().into_iter().map(fault).collect(),
        uptime_seconds: session.started.elapsed().as_secs(),
        group: group(device, membership.as_ref()),
        server: server(device).await,
        client: client(device, membership.as_ref(), own),
        debug_minutes_left: session.debug.minutes_left(),
        replica: replication::replica(device),
        copy: replication::copy(session),
        backup: backup(device),
    }
}

fn backup(device: &Device) -> Option<wire::BackupStatus> {
    let standing = super::backup::standing(device)?;
    Some(wire::BackupStatus {
        made_unix_millis: standing.newest.as_ref().map(|newest| newest.made_unix_millis),
        revision: standing
            .newest
            .map(|newest| wire::Revision { epoch: newest.epoch, sequence: newest.sequence }),
        next_unix_millis: standing.next_unix_millis,
        failure: standing.failure,
        busy: standing.job.is_some_and(|job| !job.ended),
    })
}

/// What the own database says of waiting edits and the cursor.
pub(super) struct OwnState {
    device: DeviceState,
    waiting: Waiting,
    rejected: u64,
    retained: u64,
    phase: Option<local::Phase>,
    has_wishes: bool,
}

async fn own_state(device: &Device) -> Option<(OwnState, Option<Membership>)> {
    let read = device.own.db().read(READ_DEADLINE, |read| {
        let own = OwnState {
            device: read.device()?,
            waiting: read.waiting()?,
            rejected: read.rejected_count()?,
            retained: read.retained_count()?,
            phase: read.phase()?,
            has_wishes: read.wishes()?.is_some(),
        };
        Ok((own, read.membership()?))
    });
    match read.await {
        Ok(state) => Some(state),
        Err(error) => {
            tracing::warn!(%error, "read own state");
            None
        }
    }
}

fn group(device: &Device, membership: Option<&Membership>) -> Option<wire::GroupStatus> {
    let (id, name, epoch) = match device.server.load().as_ref() {
        Some(server) => {
            let head = server.serving.head();
            (head.group, head.group_name, head.epoch.number)
        }
        None => {
            let membership = membership?;
            (membership.group, membership.group_name.clone(), device.link.borrow().epoch)
        }
    };
    let serving = device.group_server();
    Some(wire::GroupStatus {
        group_id: id.to_string(),
        group_name: name,
        epoch,
        server_device_id: serving.as_ref().map_or_else(String::new, |member| member.device.to_string()),
        server_name: serving.map_or_else(String::new, |member| member.name.clone()),
    })
}

async fn server(device: &Device) -> Option<wire::ServerStatus> {
    let part = device.server.load_full()?;
    let serving = &part.serving;
    let read = serving.master.read(READ_DEADLINE, |read| Ok((read.item_count()?, read.succession()?)));
    let (items, succession) = match read.await {
        Ok(read) => read,
        // It ceased to serve meanwhile.
        Err(Error::Closed) => return None,
        Err(error) => {
            // The fault board has it by now if a person is needed.
            tracing::warn!(%error, "read what is served");
            (0, None)
        }
    };
    let (database_bytes, _) = serving.master.store().bytes();
    Some(wire::ServerStatus {
        listening: part.listening.iter().map(ToString::to_string).collect(),
        head: Some(revision(serving.head().revision())),
        safe: serving
            .hub
            .safe()
            .map(|sequence| revision(Revision { epoch: serving.head().epoch.number, sequence })),
        items,
        database_bytes,
        connected_devices: serving.connected.count() as u32,
        succession: succession.and_then(|found| self::succession(device, found)),
        rivals: serving.rivals().iter().map(|rival| super::reign::rival(device, rival)).collect(),
        devices: device.roster.members().iter().filter(|member| !member.released).count() as u32,
        pairing_seconds_left: match part.desk.state() {
            Pairing::Open { remaining, .. } => Some(u32::try_from(remaining.as_secs()).unwrap_or(u32::MAX)),
            Pairing::Closed | Pairing::Expired | Pairing::TooManyTries => None,
        },
    })
}

/// What became of changes that the reign before made and this one began without.
fn succession(device: &Device, succession: Succession) -> Option<wire::Succession> {
    let Succession { ended, fork, known, reported, missing } = succession;
    if known <= fork {
        return None;
    }
    let counts =
        |member: &Arc<Member>| !member.released && member.capabilities.contains(Capabilities::CLIENT);
    let members: Vec<_> = device.roster.members().into_iter().filter(counts).collect();
    let unheard = members.iter().filter(|member| !reported.contains(&member.device));
    let mut unheard: Vec<String> = unheard.map(|member| member.name.clone()).collect();
    unheard.sort();
    Some(wire::Succession {
        fork: Some(revision(Revision { epoch: ended.number, sequence: fork })),
        known_sequence: known.0,
        missing: missing.iter().map(|(first, last)| last.0 - first.0 + 1).sum(),
        missing_runs: missing
            .iter()
            .take(RUNS)
            .map(|(first, last)| wire::Run { first: first.0, last: last.0 })
            .collect(),
        reported_devices: (members.len() - unheard.len()) as u32,
        devices: members.len() as u32,
        unheard,
    })
}

fn client(
    device: &Device,
    membership: Option<&Membership>,
    own: Option<OwnState>,
) -> Option<wire::ClientStatus> {
    let (_, own) = (membership?, own?);
    let report: LinkReport = device.link.borrow().clone();
    let freshness = *device.own.freshness().borrow();
    let position = own.device.cursor.map(|cursor| cursor.sequence);
    Some(wire::ClientStatus {
        link: link(report.link).into(),
        server_address: report.address,
        position: own
            .device
            .cursor
            .map(|cursor| revision(Revision { epoch: cursor.epoch.number, sequence: cursor.sequence })),
        behind: report.head.map(|head| head.0.saturating_sub(position.unwrap_or(Sequence::ZERO).0)),
        waiting: own.waiting.operations,
        rejected: own.rejected,
        retained: own.retained,
        retained_dropped: own.device.retained_dropped,
        last_current_millis: freshness.age().map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        last_error: report.last_error,
        safe: report.safe.map(revision),
        join: join_phase(own.phase).into(),
        join_needs_decision: own.phase == Some(local::Phase::Joining) && !own.has_wishes,
    })
}

fn join_phase(phase: Option<local::Phase>) -> wire::JoinPhase {
    match phase {
        None => wire::JoinPhase::Unspecified,
        Some(local::Phase::Joining) => wire::JoinPhase::Joining,
        Some(local::Phase::Member) => wire::JoinPhase::Member,
        Some(local::Phase::Undoing) => wire::JoinPhase::Undoing,
    }
}

fn link(link: Link) -> wire::client_status::Link {
    use wire::client_status::Link as Wire;
    match link {
        Link::Connecting => Wire::Connecting,
        Link::CatchingUp => Wire::CatchingUp,
        Link::Current => Wire::Current,
        Link::Refused => Wire::Refused,
        Link::Waiting => Wire::Waiting,
    }
}

pub(super) fn revision(revision: Revision) -> wire::Revision {
    wire::Revision { epoch: revision.epoch, sequence: revision.sequence.0 }
}

pub(super) fn role(role: Role) -> wire::Role {
    match role {
        Role::Idle => wire::Role::Idle,
        Role::Server => wire::Role::Server,
        Role::Client => wire::Role::Client,
        Role::ServerClient => wire::Role::ServerClient,
        Role::Replica => wire::Role::Replica,
        Role::ReplicaClient => wire::Role::ReplicaClient,
    }
}

fn fault(fault: crate::fault::Fault) -> wire::Fault {
    wire::Fault {
        code: fault.code.as_str().to_owned(),
        text: fault.text,
        since_unix_millis: fault.since_unix_millis,
    }
}

fn phase(phase: Phase) -> wire::RolePhase {
    match phase {
        Phase::Off | Phase::Starting => wire::RolePhase::Starting,
        Phase::Running => wire::RolePhase::Running,
        Phase::Stopping => wire::RolePhase::Stopping,
        Phase::Faulted => wire::RolePhase::Faulted,
    }
}
