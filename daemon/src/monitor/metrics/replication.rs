//! How the replica is doing, as samples: from what the server knows of it, and from what it knows itself.

use mfpsync_storage::physical::PAGE_BYTES;

use super::Family;
use crate::replica::CopyReport;
use crate::server::replicating::Standing;

/// At the server, while a replica is set.
pub(super) fn at_server(family: Family, standing: &Standing) -> Option<f64> {
    let proved = standing.proved.as_ref();
    match family {
        Family::ReplicaConnected => Some(flag(standing.connected)),
        Family::ReplicaLive => Some(flag(standing.live)),
        Family::ReplicaSafe => standing.durable.map(|durable| durable.sequence.0 as f64),
        Family::ReplicaBehind => standing
            .position
            .zip(standing.durable)
            .filter(|(here, there)| here.log == there.log)
            .map(|(here, there)| here.transaction.saturating_sub(there.transaction) as f64),
        Family::ReplicaBehindSeconds => Some(standing.behind.map_or(0.0, |behind| behind.as_secs_f64())),
        Family::ReplicaLacking => Some(standing.lacks.into()),
        Family::ReplicaUnprotected => Some(flag(standing.unprotected)),
        Family::ReplicaProofTime => proved.map(|proved| seconds(proved.at)),
        Family::ReplicaProofWrong => proved.map(|proved| flag(proved.wrong.is_some())),
        _ => None,
    }
}

/// At the replica.
pub(super) fn at_replica(family: Family, report: &CopyReport) -> Option<f64> {
    let proof = report.proof.as_ref();
    match family {
        Family::CopyConnected => Some(flag(report.connected)),
        Family::CopyPosition => report.position.map(|position| position.sequence.0 as f64),
        Family::CopyBehind => report
            .server
            .zip(report.position)
            .map(|(there, here)| there.sequence.0.saturating_sub(here.sequence.0) as f64),
        Family::CopyDatabase => report.position.map(|position| f64::from(position.pages) * PAGE_BYTES as f64),
        Family::CopyProofTime => proof.map(|(at, _)| seconds(*at)),
        Family::CopyProofWrong => proof.map(|(_, wrong)| flag(wrong.is_some())),
        _ => None,
    }
}

fn flag(set: bool) -> f64 {
    f64::from(u8::from(set))
}

fn seconds(unix_millis: u64) -> f64 {
    unix_millis as f64 / 1e3
}
