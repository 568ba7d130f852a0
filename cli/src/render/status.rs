//! The status as four answers: what is safe, what waits, what is wrong, what next.
//!
//! Pure. The first lines say who and what this device is; the answers follow, each on lines of its
//! own, so that the last thing read is what to do.

use mfpsync_proto::panel::client_status::Link;
use mfpsync_proto::panel::{
    BackupStatus, ClientStatus, Fault, GroupStatus, JoinPhase, Rival, Role, RolePhase, ServerStatus,
    StatusReply, Succession,
};
use serde_json::{Value, json};

use super::replication;
use super::units::{ago, count, revision, revision_json, size, span};
use crate::output::printable;

/// A role in words.
pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Unspecified => "unknown",
        Role::Idle => "none",
        Role::Server => "server",
        Role::Client => "client",
        Role::ServerClient => "server+client",
        Role::Replica => "replica",
        Role::ReplicaClient => "replica+client",
    }
}

fn phase_name(phase: RolePhase) -> &'static str {
    match phase {
        RolePhase::Unspecified => "unknown",
        RolePhase::Starting => "starting",
        RolePhase::Running => "running",
        RolePhase::Stopping => "stopping",
        RolePhase::Faulted => "faulted",
    }
}

fn link_name(link: Link) -> &'static str {
    match link {
        Link::Unspecified => "unknown",
        Link::Connecting => "connecting",
        Link::CatchingUp => "catching up",
        Link::Current => "current",
        Link::Refused => "refused",
        Link::Waiting => "waiting to try again",
    }
}

fn join_name(phase: JoinPhase) -> &'static str {
    match phase {
        JoinPhase::Unspecified => "none",
        JoinPhase::Joining => "joining",
        JoinPhase::Member => "member",
        JoinPhase::Undoing => "undoing",
    }
}

/// The whole screen.
pub(crate) fn text(status: &StatusReply, now_unix_millis: u64) -> String {
    let mut lines = vec![headline(status), labelled("Role", &role_line(status))];
    lines.extend(status.group.as_ref().map(|group| labelled("Group", &group_line(group, status))));
    lines.extend(status.server.as_ref().map(|server| labelled("Server", &server_line(server))));
    lines.extend(status.client.as_ref().map(|client| labelled("Client", &client_line(client))));
    lines.extend(
        status.replica.as_ref().map(|replica| labelled("Replica", &replication::replica_line(replica))),
    );
    lines.extend(status.copy.as_ref().map(|copy| labelled("Copy", &replication::copy_line(copy))));
    lines.extend(
        status.backup.as_ref().map(|backup| labelled("Backup", &backup_line(backup, now_unix_millis))),
    );
    lines.extend(status.debug_minutes_left.map(|minutes| {
        labelled("Debug", &format!("unlocked for {minutes} more min (`mfpsync debug lock` closes it)"))
    }));
    for (label, answers) in [
        ("Safe", safe(status)),
        ("Waits", waits(status)),
        ("Wrong", wrong(status, now_unix_millis)),
        ("Next", next(status)),
    ] {
        for (at, answer) in answers.iter().enumerate() {
            lines.push(labelled(if at == 0 { label } else { "" }, answer));
        }
    }
    lines.join("\n")
}

/// Another device that claims to be the server.
pub(crate) fn rival_json(rival: &Rival) -> Value {
    json!({
        "device_id": rival.device_id,
        "device_name": rival.device_name,
        "epoch": rival.epoch,
        "operator": rival.operator,
        "since_unix_millis": rival.since_unix_millis,
    })
}

/// Name, role and phase: what `role show` prints.
pub(crate) fn role_text(status: &StatusReply) -> String {
    format!("{}: {}", printable(&status.device_name), role_line(status))
}

fn backup_line(backup: &BackupStatus, now: u64) -> String {
    let mut line = match (backup.made_unix_millis, &backup.revision) {
        (Some(made), Some(at)) => format!("newest archive {}, at {}", ago(made, now), revision(at)),
        _ => "no archive was made here yet".to_owned(),
    };
    if backup.busy {
        line += "; a job is under way";
    } else if backup.next_unix_millis > now {
        line += &format!("; next in {}", span(backup.next_unix_millis - now));
    }
    if !backup.failure.is_empty() {
        line += "; the last one FAILED (`mfpsync backup status`)";
    }
    line
}

fn labelled(label: &str, text: &str) -> String {
    format!("{label:<7} {text}")
}

fn headline(status: &StatusReply) -> String {
    format!(
        "{}   device {}, mfpsyncd {}, up {}",
        printable(&status.device_name),
        printable(&status.device_id),
        printable(&status.version),
        span(status.uptime_seconds.saturating_mul(1000))
    )
}

fn role_line(status: &StatusReply) -> String {
    let (wanted, running) = (status.wanted(), status.running());
    let phase = phase_name(status.phase());
    if wanted == running {
        format!("{}, {phase}", role_name(running))
    } else {
        format!("{}, {phase} (now {})", role_name(wanted), role_name(running))
    }
}

fn group_line(group: &GroupStatus, status: &StatusReply) -> String {
    let own = if group.server_device_id == status.device_id { " (this device)" } else { "" };
    let server = if group.server_name.is_empty() { "unknown" } else { &group.server_name };
    let (name, server) = (printable(&group.group_name), printable(server));
    format!("{name}, epoch {}, server {server}{own}", group.epoch)
}

fn server_line(server: &ServerStatus) -> String {
    let listening =
        if server.listening.is_empty() { "not listening".to_owned() } else { server.listening.join(", ") };
    format!(
        "{}; {} of {} connected; {}, {}",
        printable(&listening),
        server.connected_devices,
        count(u64::from(server.devices), "device", "devices"),
        count(server.items, "item", "items"),
        size(server.database_bytes)
    )
}

fn client_line(client: &ClientStatus) -> String {
    let mut line = format!("{}, server {}", link_name(client.link()), printable(&client.server_address));
    if let Some(position) = &client.position {
        line.push_str(&format!(", at {}", revision(position)));
    }
    if client.link() != Link::Current
        && let Some(millis) = client.last_current_millis
    {
        line.push_str(&format!(", had everything {} ago", span(millis)));
    }
    line
}

fn safe(status: &StatusReply) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(server) = &status.server {
        let head = server.head.as_ref().map_or_else(|| "nothing yet".to_owned(), revision);
        lines.push(match &server.safe {
            Some(safe) if Some(safe) == server.head.as_ref() => format!("everything, up to {head}"),
            Some(safe) => format!("up to {} of {head}", revision(safe)),
            None => format!(
                "on this device's disk up to {head}; no second holder yet beside the clients' working copies"
            ),
        });
    }
    if let Some(succession) = status.server.as_ref().and_then(|server| server.succession.as_ref()) {
        lines.push(succession_line(succession));
    }
    let seen = status.client.as_ref().and_then(|client| client.position.as_ref());
    lines.extend(status.copy.as_ref().and_then(|copy| replication::loss_line(copy, seen)));
    if let Some(client) = &status.client
        && client.retained > 0
    {
        let edits = count(client.retained, "accepted edit", "accepted edits");
        lines.push(format!("{edits} of this device kept here as well until a second device holds them"));
    }
    if lines.is_empty() {
        lines.push(match &status.client {
            Some(client) if client.waiting == 0 => "every edit made here has reached the server".to_owned(),
            Some(_) => "edits made here are on this device's disk; see what waits".to_owned(),
            None => "what is on this device stays on this device alone".to_owned(),
        });
    }
    lines
}

fn succession_line(succession: &Succession) -> String {
    let fork = succession.fork.as_ref().map_or(0, |fork| fork.sequence);
    let lacked = count(succession.known_sequence.saturating_sub(fork), "change", "changes");
    let heard = format!("{} of {} devices have said", succession.reported_devices, succession.devices);
    if succession.missing == 0 {
        return format!(
            "{lacked} that the copy lacked are held by devices, which offer them; {heard} what they hold"
        );
    }
    let missing = count(succession.missing, "is", "are");
    if succession.reported_devices == succession.devices {
        format!(
            "of {lacked} that the copy lacked {missing} lost, or were replaced by later ones (all devices have said)"
        )
    } else {
        format!("of {lacked} that the copy lacked {missing} missing at the most; {heard} what they hold")
    }
}

/// What became of changes that the copy lacked.
fn succession_json(succession: &Succession) -> Value {
    json!({
        "fork": revision_json(succession.fork.as_ref()),
        "known_sequence": succession.known_sequence,
        "missing": succession.missing,
        "missing_runs": succession.missing_runs.iter().map(|run| [run.first, run.last]).collect::<Vec<_>>(),
        "reported_devices": succession.reported_devices,
        "devices": succession.devices,
        "unheard": succession.unheard,
    })
}

fn waits(status: &StatusReply) -> Vec<String> {
    let mut lines = Vec::new();
    if matches!(status.phase(), RolePhase::Starting | RolePhase::Stopping) {
        lines.push(format!("the role is {}", phase_name(status.phase())));
    }
    if let Some(client) = &status.client {
        match client.join() {
            JoinPhase::Joining if client.join_needs_decision => {
                lines.push("the join, for a decision; this device shows its own items".to_owned());
            }
            JoinPhase::Joining => {
                lines.push("the join, for the group's data; this device shows its own items".to_owned());
            }
            JoinPhase::Undoing => lines.push("the join is being taken back".to_owned()),
            JoinPhase::Member | JoinPhase::Unspecified => {}
        }
        if client.waiting > 0 {
            lines.push(format!("{} to reach the server", count(client.waiting, "edit", "edits")));
        }
        if let Some(behind) = client.behind.filter(|behind| *behind > 0) {
            lines.push(format!("{} of the group to arrive here", count(behind, "change", "changes")));
        }
    }
    if let Some(seconds) = status.server.as_ref().and_then(|server| server.pairing_seconds_left) {
        lines.push(format!("pairing is open for {seconds} more s"));
    }
    if lines.is_empty() {
        lines.push("nothing".to_owned());
    }
    lines
}

fn wrong(status: &StatusReply, now_unix_millis: u64) -> Vec<String> {
    let fault = |fault: &Fault| {
        let since = ago(fault.since_unix_millis, now_unix_millis);
        format!("{} ({since}): {}", printable(&fault.code), printable(&fault.text))
    };
    let mut lines: Vec<String> = status.faults.iter().map(fault).collect();
    if let Some(client) = &status.client {
        if client.rejected > 0 {
            lines.push(format!("{} refused by the server", count(client.rejected, "edit", "edits")));
        }
        if client.retained_dropped > 0 {
            let edits = count(client.retained_dropped, "accepted edit", "accepted edits");
            lines.push(format!("{edits} no longer kept here: what a dead server could cost at most"));
        }
        if !client.last_error.is_empty() {
            lines.push(format!("last attempt to connect: {}", printable(&client.last_error)));
        }
    }
    if lines.is_empty() {
        lines.push("nothing".to_owned());
    }
    lines
}

fn next(status: &StatusReply) -> Vec<String> {
    let mut lines = Vec::new();
    if !status.faults.is_empty() {
        lines.push("do what the fault above says; it clears by itself when the cause is gone".to_owned());
    }
    if let Some(client) = &status.client {
        if client.join_needs_decision {
            lines.push("`mfpsync join plan`, then `mfpsync join accept` or `mfpsync join cancel`".to_owned());
        }
        if client.rejected > 0 {
            lines.push("look at the refused edits: `mfpsync set-aside`".to_owned());
        }
        if client.link() == Link::Waiting {
            lines.push("check the network and the server; this device tries again by itself".to_owned());
        }
    }
    if status.copy.as_ref().is_some_and(|copy| !copy.connected && copy.position.is_some()) {
        lines.push("if the server is lost: `mfpsync role promote --server-is-lost`".to_owned());
    }
    if lines.is_empty() {
        lines.push(
            match status.wanted() {
                Role::Idle => {
                    "`mfpsync role start-server --group NAME --kit FILE`, or `mfpsync join ADDRESS`"
                }
                Role::Server | Role::ServerClient
                    if status.server.as_ref().is_some_and(|s| s.devices <= 1) =>
                {
                    "`mfpsync pair open`, then `mfpsync join` on the other devices"
                }
                Role::Server | Role::ServerClient if status.replica.is_none() => {
                    "a second copy of the group's data: `mfpsync replication set DEVICE --kit FILE`"
                }
                Role::Unspecified
                | Role::Server
                | Role::ServerClient
                | Role::Client
                | Role::Replica
                | Role::ReplicaClient => "nothing to do",
            }
            .to_owned(),
        );
    }
    lines
}

/// The same for scripts; field names as in `panel.proto`.
pub(crate) fn json(status: &StatusReply) -> Value {
    json!({
        "version": status.version,
        "device_id": status.device_id,
        "device_name": status.device_name,
        "wanted": role_name(status.wanted()),
        "running": role_name(status.running()),
        "phase": phase_name(status.phase()),
        "uptime_seconds": status.uptime_seconds,
        "faults": status.faults.iter().map(fault_json).collect::<Vec<_>>(),
        "group": status.group.as_ref().map(group_json),
        "server": status.server.as_ref().map(server_json),
        "client": status.client.as_ref().map(client_json),
        "replica": status.replica.as_ref().map(replication::replica_json),
        "copy": status.copy.as_ref().map(replication::copy_json),
        "backup": status.backup.as_ref().map(|backup| json!({
            "made_unix_millis": backup.made_unix_millis,
            "revision": revision_json(backup.revision.as_ref()),
            "next_unix_millis": (backup.next_unix_millis > 0).then_some(backup.next_unix_millis),
            "failure": (!backup.failure.is_empty()).then_some(&backup.failure),
            "busy": backup.busy,
        })),
        "debug_minutes_left": status.debug_minutes_left,
    })
}

fn fault_json(fault: &Fault) -> Value {
    json!({ "code": fault.code, "text": fault.text, "since_unix_millis": fault.since_unix_millis })
}

fn group_json(group: &GroupStatus) -> Value {
    json!({
        "group_id": group.group_id,
        "group_name": group.group_name,
        "epoch": group.epoch,
        "server_device_id": group.server_device_id,
        "server_name": group.server_name,
    })
}

fn server_json(server: &ServerStatus) -> Value {
    json!({
        "listening": server.listening,
        "head": revision_json(server.head.as_ref()),
        "safe": revision_json(server.safe.as_ref()),
        "items": server.items,
        "database_bytes": server.database_bytes,
        "connected_devices": server.connected_devices,
        "devices": server.devices,
        "pairing_seconds_left": server.pairing_seconds_left,
        "succession": server.succession.as_ref().map(succession_json),
        "rivals": server.rivals.iter().map(rival_json).collect::<Vec<_>>(),
    })
}

fn client_json(client: &ClientStatus) -> Value {
    json!({
        "link": link_name(client.link()),
        "server_address": client.server_address,
        "position": revision_json(client.position.as_ref()),
        "safe": revision_json(client.safe.as_ref()),
        "behind": client.behind,
        "waiting": client.waiting,
        "rejected": client.rejected,
        "retained": client.retained,
        "retained_dropped": client.retained_dropped,
        "last_current_millis": client.last_current_millis,
        "last_error": client.last_error,
        "join": join_name(client.join()),
        "join_needs_decision": client.join_needs_decision,
    })
}

#[cfg(test)]
mod tests;
