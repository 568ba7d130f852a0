//! All metrics, from what status, faults and counters already hold: nothing is counted for them alone.
//!
//! [`FAMILIES`] is the list that `docs/operations.md` shows. A family without samples has none in the
//! present role. Labels are roles, codes, reasons, and at the server the ids of its members.

mod replication;

use mfpsync_proto::panel as wire;
use mfpsync_storage::{Database, Store};

use super::exposition::{Exposition, Type};
use crate::backup::Ledger;
use crate::client::Link;
use crate::fault::FaultCode;
use crate::panel::{Session, status};
use crate::role::{Part, Phase, Role};
use crate::server::ServerPart;

use Type::{Counter, Gauge, Histogram};

/// Of a second; what histograms of times count in.
const MICROS: f64 = 1e6;

macro_rules! families {
    ($($variant:ident = $name:literal, $kind:ident: $help:literal;)*) => {
        /// Names of the families.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum Family { $($variant,)* }

        /// Name, type and help of every family, in the order they are shown.
        const FAMILIES: &[(Family, &str, Type, &str)] =
            &[$((Family::$variant, $name, $kind, $help),)*];
    };
}

families! {
    BuildInfo = "mfpsync_build_info", Gauge: "1, with the release as a label.";
    Uptime = "mfpsync_uptime_seconds", Gauge: "Since the daemon started.";
    Memory = "process_resident_memory_bytes", Gauge: "Resident memory.";
    Cpu = "process_cpu_seconds_total", Counter: "Time of all processors used.";
    RoleWanted = "mfpsync_role_wanted", Gauge: "1 for the wanted role.";
    RoleRunning = "mfpsync_role_running", Gauge: "1 for the running role.";
    RolePhase = "mfpsync_role_phase", Gauge: "1 for what is being done about the wanted role.";
    Faults = "mfpsync_fault", Gauge: "1 while the fault stands.";
    RoleSwitches = "mfpsync_role_switches_total", Counter: "Roles asked for and adopted.";
    PartExits = "mfpsync_part_exits_total", Counter: "Role parts that ended by themselves.";
    PartFailures = "mfpsync_part_start_failures_total", Counter: "Role parts that did not start.";
    PartRetries = "mfpsync_part_retries_total", Counter: "Starts of role parts tried again.";
    DebugSessions = "mfpsync_debug_sessions_total", Counter: "Debug sessions opened.";
    DebugCommands = "mfpsync_debug_commands_total", Counter: "Debug commands answered.";
    LocalRefused = "mfpsync_local_peers_refused_total", Counter: "Callers turned away at the debug socket.";
    Scrapes = "mfpsync_scrapes_total", Counter: "Times metrics were asked for.";
    LogEntries = "mfpsync_communication_log_entries", Gauge: "Entries of the communication log.";
    DatabaseBytes = "mfpsync_database_bytes", Gauge: "Size of a database.";
    WalBytes = "mfpsync_database_wal_bytes", Gauge: "Size of its write-ahead log.";
    CommitSeconds = "mfpsync_database_commit_seconds", Histogram: "From a transaction's beginning to stable storage.";
    CommitRequests = "mfpsync_database_commit_requests", Histogram: "Requests that shared a transaction.";
    Checkpoints = "mfpsync_database_checkpoints_total", Counter: "Checkpoints tried.";
    OutboxWaiting = "mfpsync_outbox_waiting_operations", Gauge: "Own operations the server has not answered.";
    OutboxRetained = "mfpsync_outbox_retained_operations", Gauge: "Accepted operations kept until they are safe.";
    OutboxDropped = "mfpsync_outbox_retained_dropped_total", Counter: "Retained operations dropped for want of room.";
    OutboxRejected = "mfpsync_outbox_rejected_operations", Gauge: "Operations set aside for a person.";
    ClientOnline = "mfpsync_client_connected", Gauge: "1 while the server is at the other end.";
    ClientCurrent = "mfpsync_client_current", Gauge: "1 while everything of the group is here.";
    ClientPosition = "mfpsync_client_position_sequence", Gauge: "Up to where this device has everything.";
    ClientBehind = "mfpsync_client_behind_changes", Gauge: "Sequences the server is ahead, as far as is known.";
    ClientConnections = "mfpsync_client_connections_total", Counter: "Connections with the server, by how the attempt ended.";
    ClientOperations = "mfpsync_client_operations_total", Counter: "Own operations by the server's answer.";
    ClientBatches = "mfpsync_client_batches_total", Counter: "Batches of the group's changes applied.";
    ClientChanges = "mfpsync_client_changes_total", Counter: "Changes in them.";
    ServerHead = "mfpsync_server_head_sequence", Gauge: "The last accepted sequence.";
    ServerEpoch = "mfpsync_server_epoch", Gauge: "The number of the server's epoch.";
    ServerRivals = "mfpsync_server_rivals", Gauge: "Devices known to claim this reign as well; no change is taken while there is one.";
    ServerMissing = "mfpsync_server_missing_changes", Gauge: "Changes of the reign before that no device has said to hold; 0 where nothing was missing.";
    ServerUnheard = "mfpsync_server_unheard_devices", Gauge: "Devices that have not said what they hold of it, where something was missing.";
    ServerItems = "mfpsync_server_items", Gauge: "Items of the group.";
    ServerMembers = "mfpsync_server_members", Gauge: "Devices of the group that were not released.";
    ServerFollowers = "mfpsync_server_followers", Gauge: "Devices that follow now.";
    ServerAccepted = "mfpsync_server_connections_accepted_total", Counter: "Connections of devices let in.";
    ServerRefused = "mfpsync_server_connections_refused_total", Counter: "Connections refused since the server part started, by reason.";
    ServerFollows = "mfpsync_server_follows_total", Counter: "Follow streams begun.";
    ServerPushes = "mfpsync_server_pushes_total", Counter: "Pushes answered.";
    ServerOperations = "mfpsync_server_operations_total", Counter: "Pushed operations by outcome.";
    PairingOpen = "mfpsync_server_pairing_open", Gauge: "1 while a device may pair.";
    MemberConnected = "mfpsync_server_member_connected", Gauge: "1 while the member follows.";
    MemberPosition = "mfpsync_server_member_position_sequence", Gauge: "Up to where changes were handed to the member.";
    ReplicaConnected = "mfpsync_replica_connected", Gauge: "1 while the replica is connected, at the server.";
    ReplicaLive = "mfpsync_replica_live", Gauge: "1 while it gets each commit as it happens.";
    ReplicaSafe = "mfpsync_replica_safe_sequence", Gauge: "The last sequence it has on stable storage.";
    ReplicaBehind = "mfpsync_replica_behind_transactions", Gauge: "Transactions of the server that it lacks; none while its copy is of another run.";
    ReplicaBehindSeconds = "mfpsync_replica_behind_seconds", Gauge: "Age of the first commit that it lacks; 0 if it has everything.";
    ReplicaLacking = "mfpsync_replica_lacking_pages", Gauge: "Pages that it lacks, besides those on their way.";
    ReplicaUnprotected = "mfpsync_replica_unprotected", Gauge: "1 while changes are confirmed without it, although they should wait.";
    ReplicaProofTime = "mfpsync_replica_proof_timestamp_seconds", Gauge: "When its copy was last proven or found wrong, Unix time.";
    ReplicaProofWrong = "mfpsync_replica_proof_wrong", Gauge: "1 if that proof found it wrong.";
    ReplicaLag = "mfpsync_replica_lag_seconds", Histogram: "From a commit to the replica's word that it is on its stable storage, since the server part started.";
    ReplicaBytes = "mfpsync_replica_sent_bytes_total", Counter: "Bytes of the messages to it, before TLS.";
    ReplicaParts = "mfpsync_replica_sent_parts_total", Counter: "Parts of transactions among them.";
    ArchiveTime = "mfpsync_archive_timestamp_seconds", Gauge: "When the newest good archive was made here, Unix time.";
    ArchiveSequence = "mfpsync_archive_sequence", Gauge: "The last sequence in it.";
    ArchiveBytes = "mfpsync_archive_bytes", Gauge: "Its size on the share.";
    ArchiveFailures = "mfpsync_archive_failures", Gauge: "Attempts to make one that have failed in a row since.";
    ArchiveDrillTime = "mfpsync_archive_drill_timestamp_seconds", Gauge: "When an archive was last read back, Unix time.";
    ArchiveDrillWrong = "mfpsync_archive_drill_wrong", Gauge: "1 if it was not what it should be.";
    CopyConnected = "mfpsync_copy_connected", Gauge: "1 while the server is connected, at the replica.";
    CopyPosition = "mfpsync_copy_position_sequence", Gauge: "The last sequence in the copy.";
    CopyBehind = "mfpsync_copy_behind_changes", Gauge: "Sequences the server was ahead when it last said where it stands.";
    CopyDatabase = "mfpsync_copy_database_bytes", Gauge: "Size of the database that the copy is of.";
    CopyProofTime = "mfpsync_copy_proof_timestamp_seconds", Gauge: "When the copy was last proven or found wrong, Unix time.";
    CopyProofWrong = "mfpsync_copy_proof_wrong", Gauge: "1 if that proof found a page wrong.";
    CopyBytes = "mfpsync_copy_received_bytes_total", Counter: "Bytes of the server's messages to the copy, before TLS.";
    CopyParts = "mfpsync_copy_received_parts_total", Counter: "Parts of transactions among them.";
    CopyTransactions = "mfpsync_copy_transactions_total", Counter: "Transactions committed to the copy; one may hold several of the server's.";
}

/// The metrics of this moment.
pub async fn exposition(session: &Session) -> String {
    session.device.stats.scrapes.increment();
    let shown = status(session).await;
    let server = session.device.server.load_full();
    let mut text = Exposition::default();
    for (family, name, kind, help) in FAMILIES {
        text.family(name, *kind, help);
        samples(&mut text, *family, session, &shown, server.as_deref());
    }
    text.finish()
}

/// No `_` arm: a new family asks for its samples.
fn samples(
    text: &mut Exposition,
    family: Family,
    session: &Session,
    shown: &wire::StatusReply,
    server: Option<&ServerPart>,
) {
    let (device, stats) = (&session.device, &session.device.stats);
    match family {
        Family::BuildInfo => drop(text.sample(&[("version", &shown.version)], 1)),
        Family::Uptime => drop(text.sample(&[], shown.uptime_seconds)),
        Family::Memory => some(text, resident_bytes()),
        Family::Cpu => some(text, cpu_seconds()),
        Family::RoleWanted => roles(text, session.supervisor.watch().borrow().wanted()),
        Family::RoleRunning => roles(text, session.supervisor.watch().borrow().running_role()),
        Family::RolePhase => phases(text, session.supervisor.watch().borrow().phase()),
        Family::Faults => {
            for code in FaultCode::ALL {
                let stands = shown.faults.iter().any(|fault| fault.code == code.as_str());
                text.sample(&[("code", code.as_str())], u8::from(stands));
            }
        }
        Family::RoleSwitches => drop(text.sample(&[], stats.role_switches.get())),
        Family::PartExits => drop(text.sample(&[], stats.part_exits.get())),
        Family::PartFailures => drop(text.sample(&[], stats.part_start_failures.get())),
        Family::PartRetries => drop(text.sample(&[], stats.part_retries.get())),
        Family::DebugSessions => drop(text.sample(&[], stats.debug_sessions.get())),
        Family::DebugCommands => drop(text.sample(&[], stats.debug_commands.get())),
        Family::LocalRefused => drop(text.sample(&[], stats.local_peers_refused.get())),
        Family::Scrapes => drop(text.sample(&[], stats.scrapes.get())),
        Family::LogEntries => drop(text.sample(&[], device.communication.count())),
        Family::DatabaseBytes
        | Family::WalBytes
        | Family::CommitSeconds
        | Family::CommitRequests
        | Family::Checkpoints => {
            database(text, family, "local", device.own.db().store());
            if let Some(server) = server {
                database(text, family, "master", server.serving.master.store());
            }
        }
        Family::ClientConnections => {
            text.sample(&[("result", "made")], stats.connections_made.get());
            text.sample(&[("result", "failed")], stats.connections_failed.get());
        }
        Family::ClientOperations => {
            text.sample(&[("outcome", "accepted")], stats.own_operations_accepted.get());
            text.sample(&[("outcome", "superseded")], stats.own_operations_superseded.get());
            text.sample(&[("outcome", "rejected")], stats.own_operations_rejected.get());
        }
        Family::ClientBatches => drop(text.sample(&[], stats.batches_applied.get())),
        Family::ClientChanges => drop(text.sample(&[], stats.changes_applied.get())),
        Family::OutboxWaiting
        | Family::OutboxRetained
        | Family::OutboxDropped
        | Family::OutboxRejected
        | Family::ClientOnline
        | Family::ClientCurrent
        | Family::ClientPosition
        | Family::ClientBehind => {
            if let Some(client) = &shown.client {
                some(text, client_sample(family, client, device.link.borrow().link));
            }
        }
        Family::ServerAccepted => drop(text.sample(&[], stats.connections_accepted.get())),
        Family::ServerFollows => drop(text.sample(&[], stats.follows_begun.get())),
        Family::ServerPushes => drop(text.sample(&[], stats.pushes_answered.get())),
        Family::ServerOperations => {
            text.sample(&[("outcome", "accepted")], stats.operations_accepted.get());
            text.sample(&[("outcome", "superseded")], stats.operations_superseded.get());
            text.sample(&[("outcome", "rejected")], stats.operations_rejected.get());
        }
        Family::ServerHead
        | Family::ServerEpoch
        | Family::ServerRivals
        | Family::ServerMissing
        | Family::ServerUnheard
        | Family::ServerItems
        | Family::ServerMembers
        | Family::ServerFollowers
        | Family::PairingOpen => {
            some(text, shown.server.as_ref().and_then(|server| server_sample(family, server)))
        }
        Family::ServerRefused => {
            for (reason, count) in server.map(|server| server.serving.refused()).unwrap_or_default() {
                text.sample(&[("reason", reason)], count);
            }
        }
        Family::MemberConnected | Family::MemberPosition => {
            if let Some(server) = server {
                members(text, family, session, server);
            }
        }
        Family::ReplicaConnected
        | Family::ReplicaLive
        | Family::ReplicaSafe
        | Family::ReplicaBehind
        | Family::ReplicaBehindSeconds
        | Family::ReplicaLacking
        | Family::ReplicaUnprotected
        | Family::ReplicaProofTime
        | Family::ReplicaProofWrong => {
            if let Some(standing) = server.and_then(|server| server.serving.replicating.standing()) {
                some(text, replication::at_server(family, &standing));
            }
        }
        Family::ReplicaLag => {
            if let Some(replicating) = server.map(|server| &server.serving.replicating) {
                text.histogram(&[], replicating.lag(), MICROS);
            }
        }
        Family::ArchiveTime
        | Family::ArchiveSequence
        | Family::ArchiveBytes
        | Family::ArchiveFailures
        | Family::ArchiveDrillTime
        | Family::ArchiveDrillWrong => {
            some(text, device.archiving.remembered(|ledger| archive(family, ledger)))
        }
        Family::ReplicaBytes => drop(text.sample(&[], stats.replica_bytes_sent.get())),
        Family::ReplicaParts => drop(text.sample(&[], stats.replica_parts_sent.get())),
        Family::CopyBytes => drop(text.sample(&[], stats.copy_bytes_taken.get())),
        Family::CopyParts => drop(text.sample(&[], stats.copy_parts_taken.get())),
        Family::CopyTransactions => drop(text.sample(&[], stats.copy_transactions.get())),
        Family::CopyConnected
        | Family::CopyPosition
        | Family::CopyBehind
        | Family::CopyDatabase
        | Family::CopyProofTime
        | Family::CopyProofWrong => {
            if session.supervisor.watch().borrow().running().contains(Part::Replica) {
                some(text, replication::at_replica(family, &device.copy.borrow()));
            }
        }
    }
}

fn archive(family: Family, ledger: &Ledger) -> Option<f64> {
    let newest = || ledger.newest().map(|(_, manifest)| manifest);
    match family {
        Family::ArchiveTime => newest().map(|manifest| manifest.made_at as f64 / 1e3),
        Family::ArchiveSequence => newest().map(|manifest| manifest.held.at.sequence.0 as f64),
        Family::ArchiveBytes => newest().map(|manifest| manifest.archive.bytes as f64),
        Family::ArchiveFailures => Some(ledger.failure().map_or(0, |failure| failure.times).into()),
        Family::ArchiveDrillTime => ledger.drill().map(|drill| drill.at as f64 / 1e3),
        Family::ArchiveDrillWrong => ledger.drill().map(|drill| f64::from(u8::from(drill.wrong.is_some()))),
        _ => None,
    }
}

fn client_sample(family: Family, client: &wire::ClientStatus, link: Link) -> Option<u64> {
    match family {
        Family::OutboxWaiting => Some(client.waiting),
        Family::OutboxRetained => Some(client.retained),
        Family::OutboxDropped => Some(client.retained_dropped),
        Family::OutboxRejected => Some(client.rejected),
        Family::ClientOnline => Some(link.is_online().into()),
        Family::ClientCurrent => Some((link == Link::Current).into()),
        Family::ClientPosition => client.position.as_ref().map(|position| position.sequence),
        Family::ClientBehind => client.behind,
        _ => None,
    }
}

fn server_sample(family: Family, server: &wire::ServerStatus) -> Option<u64> {
    match family {
        Family::ServerHead => server.head.as_ref().map(|head| head.sequence),
        Family::ServerEpoch => server.head.as_ref().map(|head| head.epoch),
        Family::ServerRivals => Some(server.rivals.len() as u64),
        Family::ServerMissing => Some(server.succession.as_ref().map_or(0, |succession| succession.missing)),
        Family::ServerUnheard => {
            Some(server.succession.as_ref().map_or(0, |succession| succession.unheard.len() as u64))
        }
        Family::ServerItems => Some(server.items),
        Family::ServerMembers => Some(server.devices.into()),
        Family::ServerFollowers => Some(server.connected_devices.into()),
        Family::PairingOpen => Some(server.pairing_seconds_left.is_some().into()),
        _ => None,
    }
}

fn members(text: &mut Exposition, family: Family, session: &Session, server: &ServerPart) {
    for member in session.device.roster.members().iter().filter(|member| !member.released) {
        let seen = server.serving.connected.seen(member.device);
        let id = member.device.to_string();
        match family {
            Family::MemberPosition => {
                if let Some(seen) = seen {
                    text.sample(&[("device", &id)], seen.position.0);
                }
            }
            _ => drop(text.sample(&[("device", &id)], u8::from(seen.is_some_and(|seen| seen.connected)))),
        }
    }
}

fn database<D: Database>(text: &mut Exposition, family: Family, name: &str, store: &Store<D>) {
    let (figures, label) = (store.figures(), ("database", name));
    match family {
        Family::DatabaseBytes => drop(text.sample(&[label], store.bytes().0)),
        Family::WalBytes => drop(text.sample(&[label], store.bytes().1)),
        Family::CommitSeconds => drop(text.histogram(&[label], &figures.commit_micros, MICROS)),
        Family::CommitRequests => drop(text.histogram(&[label], &figures.group_requests, 1.0)),
        _ => {
            for (mode, count) in figures.checkpoints() {
                text.sample(&[label, ("mode", mode)], count);
            }
        }
    }
}

fn some(text: &mut Exposition, value: Option<impl std::fmt::Display>) {
    if let Some(value) = value {
        text.sample(&[], value);
    }
}

fn roles(text: &mut Exposition, which: Role) {
    let all =
        [Role::Idle, Role::Server, Role::Client, Role::ServerClient, Role::Replica, Role::ReplicaClient];
    for role in all {
        text.sample(&[("role", &role.to_string())], u8::from(role == which));
    }
}

fn phases(text: &mut Exposition, which: Phase) {
    for (phase, name) in [
        (Phase::Off, "off"),
        (Phase::Starting, "starting"),
        (Phase::Running, "running"),
        (Phase::Stopping, "stopping"),
        (Phase::Faulted, "faulted"),
    ] {
        text.sample(&[("phase", name)], u8::from(phase == which));
    }
}

/// **Source**: `proc_pid_statm(5)`.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// **Source**: `proc_pid_stat(5)`, `utime` and `stime` behind the name in brackets.
fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, behind) = text.rsplit_once(") ")?;
    let ticks: u64 = behind.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_family_is_documented_and_the_other_way_round() {
        let operations = include_str!("../../../docs/operations.md");
        let documented: BTreeSet<&str> = operations
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .filter_map(|line| line.split_once('`'))
            .map(|(name, _)| name)
            .filter(|name| name.starts_with("mfpsync_") || name.starts_with("process_"))
            .collect();
        let families: BTreeSet<&str> = FAMILIES.iter().map(|(_, name, _, _)| *name).collect();
        assert_eq!(documented, families);
        assert_eq!(families.len(), FAMILIES.len());
        for (_, name, kind, help) in FAMILIES {
            assert_eq!(name.ends_with("_total"), *kind == Counter, "{name}");
            assert!(help.ends_with('.'), "{name}");
        }
    }

    #[test]
    fn this_process_has_memory_and_has_used_a_processor() {
        assert!(resident_bytes().unwrap() > 1 << 20);
        assert!(cpu_seconds().unwrap() >= 0.0);
    }
}
