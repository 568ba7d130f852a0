//! Pushes and their answers. Operation records pass as bytes: the server hashes what it got and
//! answers a record it cannot read like any other, so that it blocks none behind it.

use bytes::Bytes;
use mfpsync_proto::{limit, sync};
use mfpsync_storage::model::{OperationNumber, Outcome};

use super::{epoch, epoch_to_wire, group, incarnation, number, record, safe, sequence};
use crate::error::WireError;
use crate::message::{Leave, Push, PushAnswer};

/// Reads a push.
///
/// # Errors
/// Not well-formed, empty, or over a limit.
pub fn push_from_wire(request: sync::PushRequest) -> Result<Push, WireError> {
    if request.operations.is_empty() {
        return Err(WireError::Missing("operations"));
    }
    let bytes: usize = request.operations.iter().map(Bytes::len).sum();
    // A single operation of the largest size is a push of its own.
    if request.operations.len() > limit::PUSH_OPERATIONS || bytes > limit::PUSH_BYTES {
        return Err(WireError::OverLimit("push"));
    }
    Ok(Push {
        group: group(&request.group_id)?,
        incarnation: incarnation(request.incarnation)?,
        epoch: epoch(request.epoch)?,
        low_water: OperationNumber(number("low water", request.low_water)?),
        operations: request.operations.iter().map(|record| record.to_vec()).collect(),
    })
}

/// Writes a push.
#[must_use]
pub fn push_to_wire(push: Push) -> sync::PushRequest {
    sync::PushRequest {
        group_id: Bytes::copy_from_slice(&push.group.0),
        incarnation: push.incarnation.0,
        epoch: Some(epoch_to_wire(&push.epoch)),
        low_water: push.low_water.0,
        operations: push.operations.into_iter().map(Bytes::from).collect(),
    }
}

/// Reads the answer to a push of the operations `sent`.
///
/// # Errors
/// Not well-formed, or not one outcome for each operation, in order.
pub fn push_answer_from_wire(
    reply: sync::PushReply,
    sent: &[OperationNumber],
) -> Result<PushAnswer, WireError> {
    let answered = reply.outcomes.iter().map(|outcome| outcome.operation);
    if !answered.eq(sent.iter().map(|number| number.0)) {
        return Err(WireError::Contradiction("answer is for other operations than were pushed"));
    }
    let outcomes = reply.outcomes.iter().zip(sent).map(|(outcome, number)| {
        let outcome = record("outcome", Outcome::decode(&outcome.record))?;
        Ok((*number, outcome))
    });
    Ok(PushAnswer {
        outcomes: outcomes.collect::<Result<_, WireError>>()?,
        head: sequence(reply.head_sequence)?,
        safe: safe(reply.safe_sequence)?,
    })
}

/// Writes the answer to a push.
#[must_use]
pub fn push_answer_to_wire(answer: &PushAnswer) -> sync::PushReply {
    let outcomes = answer
        .outcomes
        .iter()
        .map(|(number, outcome)| sync::Outcome { operation: number.0, record: outcome.encode().into() });
    sync::PushReply {
        outcomes: outcomes.collect(),
        head_sequence: answer.head.0,
        safe_sequence: answer.safe.map(|safe| safe.0),
    }
}

/// Reads a wish to leave.
///
/// # Errors
/// Not well-formed.
pub fn leave_from_wire(request: &sync::LeaveRequest) -> Result<Leave, WireError> {
    Ok(Leave { group: group(&request.group_id)?, incarnation: incarnation(request.incarnation)? })
}

/// Writes a wish to leave.
#[must_use]
pub fn leave_to_wire(leave: &Leave) -> sync::LeaveRequest {
    sync::LeaveRequest { group_id: Bytes::copy_from_slice(&leave.group.0), incarnation: leave.incarnation.0 }
}
