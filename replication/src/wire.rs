//! The door between protocol messages and domain types: all validation of what peers send.
//!
//! Plain functions, `x_from_wire` and `x_to_wire`. Called by the transport on both ends; nothing
//! behind this door meets a generated message. Signatures are not verified here.

mod follow;
mod hello;
mod push;
mod refusal;
mod replica;
mod report;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use mfpsync_proto::sync;
use mfpsync_storage::codec::DecodeError;
use mfpsync_storage::model::{
    Chain, Cursor, Epoch, GroupId, Incarnation, IssuingCertificate, Member, Promotion, Sequence, Signed,
    limit,
};

use crate::error::WireError;
use crate::message::Claim;

pub use follow::{
    batch_to_wire, caught_up_to_wire, follow_event_from_wire, follow_from_wire, follow_to_wire,
    heartbeat_to_wire, membership_to_wire, reset_to_wire,
};
pub use hello::{greeting_from_wire, greeting_to_wire, hello_from_wire, hello_to_wire};
pub use push::{
    leave_from_wire, leave_to_wire, push_answer_from_wire, push_answer_to_wire, push_from_wire, push_to_wire,
};
pub use refusal::{refusal_from_wire, refusal_to_wire};
pub use replica::{
    from_replica_from_wire, from_replica_to_wire, replica_of, to_replica_from_wire, to_replica_to_wire,
};
pub use report::{report_from_wire, report_to_wire};

/// Promotion, membership and certificate records in one message.
const MAX_RECORDS: usize = 4_096;
const MAX_ENDPOINTS: usize = 16;

/// Sequences and numbers fit the database's signed integers.
const MAX_NUMBER: u64 = i64::MAX as u64;

fn group(bytes: &[u8]) -> Result<GroupId, WireError> {
    GroupId::from_slice(bytes).ok_or(WireError::Invalid("group id"))
}

fn incarnation(number: u64) -> Result<Incarnation, WireError> {
    if number == 0 { Err(WireError::Missing("incarnation")) } else { Ok(Incarnation(number)) }
}

fn number(what: &'static str, number: u64) -> Result<u64, WireError> {
    if number > MAX_NUMBER { Err(WireError::Invalid(what)) } else { Ok(number) }
}

fn sequence(value: u64) -> Result<Sequence, WireError> {
    number("sequence", value).map(Sequence)
}

fn safe(value: Option<u64>) -> Result<Option<Sequence>, WireError> {
    value.map(sequence).transpose()
}

fn epoch(epoch: Option<sync::Epoch>) -> Result<Epoch, WireError> {
    let epoch = epoch.ok_or(WireError::Missing("epoch"))?;
    let nonce = epoch.nonce.as_ref().try_into().map_err(|_| WireError::Invalid("epoch nonce"))?;
    match number("epoch number", epoch.number)? {
        0 => Err(WireError::Invalid("epoch number")),
        number => Ok(Epoch { number, nonce }),
    }
}

fn epoch_to_wire(epoch: &Epoch) -> sync::Epoch {
    sync::Epoch { number: epoch.number, nonce: Bytes::copy_from_slice(&epoch.nonce) }
}

fn cursor(cursor: Option<sync::Cursor>) -> Result<Cursor, WireError> {
    let cursor = cursor.ok_or(WireError::Missing("cursor"))?;
    match cursor.filter.len() {
        0 => {}
        1..=limit::FILTER_BYTES => return Err(WireError::Invalid("filter of cursor")),
        _ => return Err(WireError::OverLimit("filter of cursor")),
    }
    Ok(Cursor {
        group: group(&cursor.group_id)?,
        epoch: epoch(cursor.epoch)?,
        sequence: sequence(cursor.sequence)?,
        chain: Chain::from_slice(&cursor.chain).ok_or(WireError::Invalid("chain"))?,
    })
}

fn cursor_to_wire(cursor: &Cursor) -> sync::Cursor {
    sync::Cursor {
        group_id: Bytes::copy_from_slice(&cursor.group.0),
        epoch: Some(epoch_to_wire(&cursor.epoch)),
        sequence: cursor.sequence.0,
        chain: Bytes::copy_from_slice(&cursor.chain.0),
        filter: Bytes::new(),
    }
}

fn text(what: &'static str, text: String) -> Result<String, WireError> {
    if text.len() > limit::NAME_BYTES {
        return Err(WireError::OverLimit(what));
    }
    if text.chars().any(char::is_control) {
        return Err(WireError::Invalid(what));
    }
    Ok(text)
}

fn texts(what: &'static str, most: usize, all: Vec<String>) -> Result<Vec<String>, WireError> {
    if all.len() > most {
        return Err(WireError::OverLimit(what));
    }
    all.into_iter().map(|one| text(what, one)).collect()
}

fn records<T>(
    what: &'static str,
    all: &[Bytes],
    decode: impl Fn(&[u8]) -> Result<Signed<T>, DecodeError>,
) -> Result<Vec<Signed<T>>, WireError> {
    if all.len() > MAX_RECORDS {
        return Err(WireError::OverLimit(what));
    }
    all.iter().map(|bytes| record(what, decode(bytes))).collect()
}

fn record<T>(what: &'static str, decoded: Result<T, DecodeError>) -> Result<T, WireError> {
    decoded.map_err(|source| WireError::Record { what, source })
}

/// Reads what proves a reign.
fn claim(claim: Option<&sync::Claim>) -> Result<Option<Claim>, WireError> {
    fn optional<T>(
        what: &'static str,
        bytes: &[u8],
        decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, WireError> {
        if bytes.is_empty() { Ok(None) } else { record(what, decode(bytes)).map(Some) }
    }
    let Some(claim) = claim else { return Ok(None) };
    Ok(Some(Claim {
        promotion: record("promotion", Promotion::decode(&claim.promotion))?,
        issuer: optional("issuing certificate", &claim.issuer, IssuingCertificate::decode)?,
        member: optional("member", &claim.member, Member::decode)?,
    }))
}

/// Writes what proves a reign.
#[must_use]
pub fn claim_to_wire(claim: &Claim) -> sync::Claim {
    sync::Claim {
        promotion: claim.promotion.encode().into(),
        issuer: claim.issuer.as_ref().map_or_else(Bytes::new, |record| record.encode().into()),
        member: claim.member.as_ref().map_or_else(Bytes::new, |record| record.encode().into()),
    }
}

fn members(all: &[Bytes]) -> Result<Vec<Signed<Member>>, WireError> {
    records("member", all, Member::decode)
}

fn issuers(all: &[Bytes]) -> Result<Vec<Signed<IssuingCertificate>>, WireError> {
    records("issuing certificate", all, IssuingCertificate::decode)
}

fn records_to_wire<T>(all: &[Signed<T>]) -> Vec<Bytes> {
    all.iter().map(|record| record.encode().into()).collect()
}
