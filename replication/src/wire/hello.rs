//! The first exchange of every connection.

use bytes::Bytes;
use mfpsync_proto::sync;
use mfpsync_storage::model::{OperationNumber, Promotion, PublicKey};

use super::{
    MAX_ENDPOINTS, claim, claim_to_wire, epoch, epoch_to_wire, group, incarnation, issuers, members, number,
    records, records_to_wire, safe, sequence, text, texts,
};
use crate::error::WireError;
use crate::message::{Greeting, Hello, Limits};

fn public_key(bytes: &[u8]) -> Result<Option<PublicKey>, WireError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    PublicKey::from_slice(bytes).map(Some).ok_or(WireError::Invalid("issuing key"))
}

/// Reads a client's first word.
///
/// # Errors
/// Not well-formed.
pub fn hello_from_wire(hello: sync::HelloRequest) -> Result<Hello, WireError> {
    if hello.protocol_min == 0 || hello.protocol_min > hello.protocol_max {
        return Err(WireError::Invalid("protocol range"));
    }
    Ok(Hello {
        protocol_min: hello.protocol_min,
        protocol_max: hello.protocol_max,
        group: group(&hello.group_id)?,
        incarnation: incarnation(hello.incarnation)?,
        claim: claim(hello.claim.as_ref())?,
        last_operation: OperationNumber(number("last operation", hello.last_operation)?),
        endpoints: texts("endpoints", MAX_ENDPOINTS, hello.endpoints)?,
        issuing_key: public_key(&hello.issuing_key)?,
        version: text("version", hello.version)?,
    })
}

/// Writes a client's first word.
#[must_use]
pub fn hello_to_wire(hello: &Hello) -> sync::HelloRequest {
    sync::HelloRequest {
        protocol_min: hello.protocol_min,
        protocol_max: hello.protocol_max,
        group_id: Bytes::copy_from_slice(&hello.group.0),
        incarnation: hello.incarnation.0,
        claim: hello.claim.as_ref().map(claim_to_wire),
        last_operation: hello.last_operation.0,
        endpoints: hello.endpoints.clone(),
        issuing_key: hello.issuing_key.map_or_else(Bytes::new, |key| Bytes::copy_from_slice(&key.0)),
        version: hello.version.clone(),
    }
}

/// Reads a server's answer.
///
/// # Errors
/// Not well-formed.
pub fn greeting_from_wire(reply: sync::HelloReply) -> Result<Greeting, WireError> {
    if reply.protocol == 0 {
        return Err(WireError::Missing("protocol"));
    }
    Ok(Greeting {
        protocol: reply.protocol,
        epoch: epoch(reply.epoch)?,
        head: sequence(reply.head_sequence)?,
        safe: safe(reply.safe_sequence)?,
        limits: reply.limits.map_or_else(Limits::default, limits),
        lineage: records("promotion", &reply.lineage, Promotion::decode)?,
        members: members(&reply.members)?,
        issuers: issuers(&reply.issuers)?,
        known_operation: OperationNumber(number("known operation", reply.known_operation)?),
        confirmed_operation: OperationNumber(number("confirmed operation", reply.confirmed_operation)?),
        group_name: text("group name", reply.group_name)?,
    })
}

/// Writes a server's answer.
#[must_use]
pub fn greeting_to_wire(greeting: &Greeting) -> sync::HelloReply {
    sync::HelloReply {
        protocol: greeting.protocol,
        epoch: Some(epoch_to_wire(&greeting.epoch)),
        head_sequence: greeting.head.0,
        safe_sequence: greeting.safe.map(|safe| safe.0),
        limits: Some(limits_to_wire(&greeting.limits)),
        lineage: records_to_wire(&greeting.lineage),
        members: records_to_wire(&greeting.members),
        issuers: records_to_wire(&greeting.issuers),
        known_operation: greeting.known_operation.0,
        confirmed_operation: greeting.confirmed_operation.0,
        group_name: greeting.group_name.clone(),
    }
}

fn limits(limits: sync::Limits) -> Limits {
    let or = |figure: u32, default| if figure == 0 { default } else { figure as usize };
    let default = Limits::default();
    Limits {
        push_operations: or(limits.push_operations, default.push_operations),
        push_bytes: or(limits.push_bytes, default.push_bytes),
        batch_bytes: or(limits.batch_bytes, default.batch_bytes),
        item_bytes: or(limits.item_bytes, default.item_bytes),
        item_fields: or(limits.item_fields, default.item_fields),
        user_items: or(limits.user_items, default.user_items),
        user_bytes: or(limits.user_bytes, default.user_bytes),
    }
}

fn limits_to_wire(limits: &Limits) -> sync::Limits {
    let figure = |figure| u32::try_from(figure).unwrap_or(u32::MAX);
    sync::Limits {
        push_operations: figure(limits.push_operations),
        push_bytes: figure(limits.push_bytes),
        batch_bytes: figure(limits.batch_bytes),
        item_bytes: figure(limits.item_bytes),
        item_fields: figure(limits.item_fields),
        user_items: figure(limits.user_items),
        user_bytes: figure(limits.user_bytes),
    }
}
