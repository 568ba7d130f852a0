//! The follow stream. Batches leave a server as the bytes its database built, and are decoded
//! only at the client.

use bytes::Bytes;
use mfpsync_proto::sync;
use mfpsync_proto::sync::follow_event::Event;
use mfpsync_storage::model::{ChangeBatch, Cursor, IssuingCertificate, Member, Sequence, Signed};

use super::{
    cursor, cursor_to_wire, group, incarnation, issuers, members, record, records_to_wire, safe, sequence,
};
use crate::error::WireError;
use crate::message::{Follow, FollowEvent, ResetReason};

/// Reads a client's wish to follow.
///
/// # Errors
/// Not well-formed, or a cursor of another group than the call.
pub fn follow_from_wire(request: sync::FollowRequest) -> Result<Follow, WireError> {
    let follow = Follow {
        group: group(&request.group_id)?,
        incarnation: incarnation(request.incarnation)?,
        cursor: request.cursor.map(|given| cursor(Some(given))).transpose()?,
        settled: request.settled,
    };
    if follow.cursor.is_some_and(|cursor| cursor.group != follow.group) {
        return Err(WireError::Contradiction("cursor is of another group than the call"));
    }
    Ok(follow)
}

/// Writes a client's wish to follow.
#[must_use]
pub fn follow_to_wire(follow: &Follow) -> sync::FollowRequest {
    sync::FollowRequest {
        group_id: Bytes::copy_from_slice(&follow.group.0),
        incarnation: follow.incarnation.0,
        cursor: follow.cursor.as_ref().map(cursor_to_wire),
        settled: follow.settled,
    }
}

/// Reads what came on the stream; none for an event this build does not know, which is skipped.
///
/// # Errors
/// Not well-formed, or a batch that contradicts its own cursor.
pub fn follow_event_from_wire(event: sync::FollowEvent) -> Result<Option<FollowEvent>, WireError> {
    event.event.map(known_event).transpose()
}

fn known_event(event: Event) -> Result<FollowEvent, WireError> {
    Ok(match event {
        Event::Reset(reset) => FollowEvent::Reset(reset_reason(reset.reason())),
        Event::Batch(batch) => batch_from_wire(batch)?,
        Event::CaughtUp(caught_up) => {
            FollowEvent::CaughtUp { cursor: cursor(caught_up.cursor)?, safe: safe(caught_up.safe_sequence)? }
        }
        Event::Heartbeat(heartbeat) => FollowEvent::Heartbeat {
            head: sequence(heartbeat.head_sequence)?,
            safe: safe(heartbeat.safe_sequence)?,
        },
        Event::Membership(membership) => FollowEvent::Membership {
            members: members(&membership.members)?,
            issuers: issuers(&membership.issuers)?,
        },
    })
}

fn batch_from_wire(batch: sync::Batch) -> Result<FollowEvent, WireError> {
    let cursor = cursor(batch.cursor)?;
    let previous = sequence(batch.previous_sequence)?;
    let changes = record("batch", ChangeBatch::decode(&batch.changes))?;
    if changes.len() != batch.count as usize {
        return Err(WireError::Contradiction("batch counts other changes than it holds"));
    }
    if changes.last().is_some_and(|last| last.sequence > cursor.sequence) {
        return Err(WireError::Contradiction("batch holds a change beyond its cursor"));
    }
    if previous > cursor.sequence || changes.first().is_some_and(|first| first.sequence <= previous) {
        return Err(WireError::Contradiction("batch holds a change from before it starts"));
    }
    Ok(FollowEvent::Batch { previous, changes, cursor })
}

fn reset_reason(reason: sync::ResetReason) -> ResetReason {
    match reason {
        sync::ResetReason::NoCursor => ResetReason::NoCursor,
        sync::ResetReason::PastFork => ResetReason::PastFork,
        sync::ResetReason::TooOld => ResetReason::TooOld,
        sync::ResetReason::UnknownHistory | sync::ResetReason::Unspecified => ResetReason::UnknownHistory,
    }
}

fn event(event: Event) -> sync::FollowEvent {
    sync::FollowEvent { event: Some(event) }
}

/// Writes the start from nothing.
#[must_use]
pub fn reset_to_wire(reason: ResetReason) -> sync::FollowEvent {
    let reason = match reason {
        ResetReason::NoCursor => sync::ResetReason::NoCursor,
        ResetReason::UnknownHistory => sync::ResetReason::UnknownHistory,
        ResetReason::PastFork => sync::ResetReason::PastFork,
        ResetReason::TooOld => sync::ResetReason::TooOld,
    };
    event(Event::Reset(sync::Reset { reason: reason.into() }))
}

/// Writes a batch from the bytes of a [`ChangeBatch`], for a follower that has all up to `previous`.
#[must_use]
pub fn batch_to_wire(previous: Sequence, changes: Bytes, count: u32, cursor: &Cursor) -> sync::FollowEvent {
    let (previous_sequence, cursor) = (previous.0, Some(cursor_to_wire(cursor)));
    event(Event::Batch(sync::Batch { changes, count, cursor, previous_sequence }))
}

/// Writes that everything up to a cursor was sent.
#[must_use]
pub fn caught_up_to_wire(cursor: &Cursor, safe: Option<Sequence>) -> sync::FollowEvent {
    let safe_sequence = safe.map(|safe| safe.0);
    event(Event::CaughtUp(sync::CaughtUp { cursor: Some(cursor_to_wire(cursor)), safe_sequence }))
}

/// Writes a sign of life.
#[must_use]
pub fn heartbeat_to_wire(head: Sequence, safe: Option<Sequence>) -> sync::FollowEvent {
    let safe_sequence = safe.map(|safe| safe.0);
    event(Event::Heartbeat(sync::Heartbeat { head_sequence: head.0, safe_sequence }))
}

/// Writes new membership.
#[must_use]
pub fn membership_to_wire(
    members: &[Signed<Member>],
    issuers: &[Signed<IssuingCertificate>],
) -> sync::FollowEvent {
    let (members, issuers) = (records_to_wire(members), records_to_wire(issuers));
    event(Event::Membership(sync::Membership { members, issuers }))
}
