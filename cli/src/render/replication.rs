//! The replica and its copy: what is safe, what is missing, when it was proven. Pure.

use mfpsync_proto::panel::{
    CopyStatus, Durability, Proof, ReplicationReply, ReplicationStatus, Revision, Unprotected,
};
use serde_json::{Value, json};

use super::units::{ago, count, revision, revision_json, size, span};
use crate::output::printable;

/// When changes are confirmed, as the command line says it.
pub(crate) fn durability_name(durability: Durability) -> &'static str {
    match durability {
        Durability::Unspecified => "unknown",
        Durability::Async => "async",
        Durability::SyncHold => "sync-hold",
        Durability::SyncContinue => "sync-continue",
    }
}

/// When changes are confirmed, in words.
pub(crate) fn durability_text(durability: Durability) -> &'static str {
    match durability {
        Durability::Unspecified => "in a way that this version does not know",
        Durability::Async => "when this server has them; the replica follows (async)",
        Durability::SyncHold => "when the replica has them, and wait while it is away (sync-hold)",
        Durability::SyncContinue => {
            "when the replica has them; while it is away, when this server has them (sync-continue)"
        }
    }
}

/// The whole answer.
pub(crate) fn text(reply: &ReplicationReply, now: u64) -> String {
    let mut lines = Vec::new();
    lines.extend(reply.replica.iter().flat_map(|replica| replica_lines(replica, now)));
    lines.extend(reply.copy.iter().flat_map(|copy| copy_lines(copy, now)));
    lines.extend(reply.unprotected.iter().map(|range| unprotected_line(range, now)));
    if lines.is_empty() {
        return "no replica: the group's data is on its server alone; at the server, `mfpsync replication set \
                DEVICE` makes one"
            .to_owned();
    }
    lines.join("\n")
}

/// Who the replica is and what it does, in one line.
pub(crate) fn replica_line(replica: &ReplicationStatus) -> String {
    let name = printable(&replica.device_name);
    match (replica.connected, replica.live) {
        (true, true) => format!("{name} follows every change"),
        (true, false) => format!("{name} is catching up, {} to go", pages(replica.lacks_pages)),
        (false, _) => format!("{name} is not connected; it lacks {}", pages(replica.lacks_pages)),
    }
}

/// The copy and where it stands, in one line.
pub(crate) fn copy_line(copy: &CopyStatus) -> String {
    match &copy.position {
        Some(at) => {
            format!("this device holds a copy of {}, up to {}", size(copy.database_bytes), revision(at))
        }
        None => "this device is to hold a copy, which is not whole yet".to_owned(),
    }
}

/// What would be missing if the server never came back; nothing while it is connected. `seen` is up to where this
/// device itself has everything: its panel may have seen more of the server than its copy has.
pub(crate) fn loss_line(copy: &CopyStatus, seen: Option<&Revision>) -> Option<String> {
    if copy.connected {
        return None;
    }
    let here = copy.position.as_ref()?;
    let known = [copy.server.as_ref(), seen].into_iter().flatten().filter(|at| at.epoch == here.epoch);
    let known = known.map(|at| at.sequence).fold(here.sequence, u64::max);
    Some(match known - here.sequence {
        0 => "if the server is lost: the copy has everything it was known to have; had it more, that comes back \
              from the devices that made or saw it"
            .to_owned(),
        lacks => format!(
            "if the server is lost: the copy lacks {} it was known to have, and they come back from the devices \
             that made or saw them",
            count(lacks, "change", "changes")
        ),
    })
}

fn replica_lines(replica: &ReplicationStatus, now: u64) -> Vec<String> {
    let missing = match (replica.behind, replica.behind_millis) {
        (Some(0), None) => "the replica has everything".to_owned(),
        (Some(behind), since) => format!(
            "{} not on the replica yet{}",
            count(behind, "change is", "changes are"),
            since.map_or_else(String::new, |since| format!(", the oldest for {}", span(since)))
        ),
        (None, _) => "nothing is on the replica yet".to_owned(),
    };
    let safe =
        replica.safe.as_ref().map_or_else(String::new, |safe| format!(" (safe up to {})", revision(safe)));
    let mut lines = vec![
        replica_line(replica),
        format!("{missing}{safe}"),
        format!("changes are confirmed {}", durability_text(replica.durability())),
    ];
    lines.extend(replica.unprotected.then(|| {
        "NOT PROTECTED: changes are confirmed without the replica, which does not answer".to_owned()
    }));
    lines.push(if replica.can_take_over {
        "it can become the server (there: `mfpsync role promote`)".to_owned()
    } else {
        "it cannot become the server: certify it with `mfpsync replication set --kit FILE`".to_owned()
    });
    lines.push(replica.proof.as_ref().map_or_else(
        || "never proven since this server started; `mfpsync replication prove` does it".to_owned(),
        |proof| proof_text(proof, now),
    ));
    lines
}

fn pages(count: u32) -> String {
    size(u64::from(count) * 4096)
}

fn copy_lines(copy: &CopyStatus, now: u64) -> Vec<String> {
    let server = match (copy.connected, &copy.server) {
        (true, Some(at)) => format!("the server is connected, at {}", revision(at)),
        (true, None) => "the server is connected".to_owned(),
        (false, _) if copy.last_error.is_empty() => "the server is not connected".to_owned(),
        (false, _) => format!("the server is not connected: {}", printable(&copy.last_error)),
    };
    let mut lines = vec![copy_line(copy), server];
    lines.extend(copy.proof.as_ref().map(|proof| proof_text(proof, now)));
    lines
}

/// The last proof.
pub(crate) fn proof_text(proof: &Proof, now: u64) -> String {
    let when = ago(proof.at_unix_millis, now);
    if proof.wrong.is_empty() {
        let through =
            if proof.sequence == 0 { String::new() } else { format!(" up to change {}", proof.sequence) };
        format!("the copy was proven{through}, {when}")
    } else {
        format!("the copy was found wrong, {when}: {}; it is mended by itself", printable(&proof.wrong))
    }
}

fn unprotected_line(range: &Unprotected, now: u64) -> String {
    let began = ago(range.began_unix_millis, now);
    match range.through {
        Some(through) => format!(
            "changes {} to {through} were confirmed without the replica, which has them by now ({began})",
            range.after + 1
        ),
        None => {
            format!("changes from {} on are confirmed without the replica (began {began})", range.after + 1)
        }
    }
}

/// The same for scripts.
pub(crate) fn json(reply: &ReplicationReply) -> Value {
    let range = |range: &Unprotected| {
        json!({
            "after": range.after,
            "through": range.through,
            "began_unix_millis": range.began_unix_millis,
        })
    };
    json!({
        "replica": reply.replica.as_ref().map(replica_json),
        "copy": reply.copy.as_ref().map(copy_json),
        "unprotected": reply.unprotected.iter().map(range).collect::<Vec<_>>(),
    })
}

/// The replica for scripts.
pub(crate) fn replica_json(replica: &ReplicationStatus) -> Value {
    json!({
        "device_id": replica.device_id,
        "device_name": replica.device_name,
        "durability": durability_name(replica.durability()),
        "connected": replica.connected,
        "live": replica.live,
        "behind": replica.behind,
        "behind_millis": replica.behind_millis,
        "safe": revision_json(replica.safe.as_ref()),
        "lacks_pages": replica.lacks_pages,
        "unprotected": replica.unprotected,
        "can_take_over": replica.can_take_over,
        "proof": replica.proof.as_ref().map(proof_json),
    })
}

/// The copy for scripts.
pub(crate) fn copy_json(copy: &CopyStatus) -> Value {
    json!({
        "connected": copy.connected,
        "position": revision_json(copy.position.as_ref()),
        "server": revision_json(copy.server.as_ref()),
        "database_bytes": copy.database_bytes,
        "proof": copy.proof.as_ref().map(proof_json),
        "last_error": copy.last_error,
    })
}

/// A proof for scripts.
pub(crate) fn proof_json(proof: &Proof) -> Value {
    json!({
        "at_unix_millis": proof.at_unix_millis,
        "sequence": proof.sequence,
        "wrong": if proof.wrong.is_empty() { Value::Null } else { json!(proof.wrong) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_says_what_is_missing_before_how_it_is_set() {
        let replica = ReplicationStatus {
            device_name: "printer-2".to_owned(),
            durability: Durability::SyncContinue.into(),
            connected: false,
            behind: Some(12),
            behind_millis: Some(65_000),
            safe: Some(Revision { epoch: 1, sequence: 30 }),
            lacks_pages: 256,
            unprotected: true,
            ..ReplicationStatus::default()
        };
        let open = Unprotected { after: 30, through: None, began_unix_millis: 940_000 };
        let reply = ReplicationReply { replica: Some(replica), unprotected: vec![open], copy: None };
        let text = text(&reply, 1_000_000);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "printer-2 is not connected; it lacks 1.0 MiB");
        assert_eq!(lines[1], "12 changes are not on the replica yet, the oldest for 65 s (safe up to 1:30)");
        assert!(lines[3].starts_with("NOT PROTECTED"), "{text}");
        assert!(lines[4].contains("--kit"), "{text}");
        assert_eq!(lines[6], "changes from 31 on are confirmed without the replica (began 60 s ago)");
    }

    #[test]
    fn a_copy_without_its_server_says_what_it_lacks_of_what_this_device_knows() {
        let at = |epoch, sequence| Some(Revision { epoch, sequence });
        let copy =
            |connected, position, server| CopyStatus { connected, position, server, ..CopyStatus::default() };
        let loss =
            |copy: &CopyStatus, seen: Option<Revision>| loss_line(copy, seen.as_ref()).unwrap_or_default();
        assert_eq!(loss(&copy(true, at(1, 5), at(1, 9)), None), "");
        assert_eq!(loss(&copy(false, None, at(1, 9)), None), "");
        assert!(loss(&copy(false, at(1, 9), at(1, 9)), at(1, 8)).contains("has everything"));
        assert!(loss(&copy(false, at(1, 5), at(1, 6)), None).contains("lacks 1 change it"));
        assert!(loss(&copy(false, at(1, 5), at(1, 6)), at(1, 9)).contains("lacks 4 changes it"));
        assert!(loss(&copy(false, at(2, 5), at(2, 5)), at(1, 9)).contains("has everything"));
    }

    #[test]
    fn without_a_replica_it_says_how_to_get_one() {
        let text = text(&ReplicationReply::default(), 0);
        assert!(text.contains("mfpsync replication set"), "{text}");
    }
}
