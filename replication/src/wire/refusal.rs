//! Refusals, which travel in the status details of a call that failed.

use mfpsync_proto::sync;
use mfpsync_proto::sync::Reason;

use super::{claim, claim_to_wire};
use crate::error::WireError;
use crate::message::{Refusal, RefusalReason};

/// Longest text that is kept, in characters.
const TEXT_CHARS: usize = 200;

/// Reads a refusal; a reason this build does not know is [`RefusalReason::Unspecified`].
///
/// # Errors
/// Its claim does not decode.
pub fn refusal_from_wire(refusal: &sync::Refusal) -> Result<Refusal, WireError> {
    Ok(Refusal {
        reason: reason(refusal.reason()),
        text: refusal.text.chars().filter(|c| !c.is_control()).take(TEXT_CHARS).collect(),
        claim: claim(refusal.claim.as_ref())?,
    })
}

/// Writes a refusal.
#[must_use]
pub fn refusal_to_wire(refusal: &Refusal) -> sync::Refusal {
    sync::Refusal {
        reason: reason_to_wire(refusal.reason).into(),
        text: refusal.text.clone(),
        claim: refusal.claim.as_ref().map(claim_to_wire),
    }
}

fn reason(reason: Reason) -> RefusalReason {
    match reason {
        Reason::Unspecified => RefusalReason::Unspecified,
        Reason::ProtocolVersion => RefusalReason::ProtocolVersion,
        Reason::WrongGroup => RefusalReason::WrongGroup,
        Reason::UnknownDevice => RefusalReason::UnknownDevice,
        Reason::Released => RefusalReason::Released,
        Reason::Capability => RefusalReason::Capability,
        Reason::WrongEpoch => RefusalReason::WrongEpoch,
        Reason::Superseded => RefusalReason::Superseded,
        Reason::Malformed => RefusalReason::Malformed,
        Reason::OverLimit => RefusalReason::OverLimit,
        Reason::Busy => RefusalReason::Busy,
        Reason::StorageFull => RefusalReason::StorageFull,
        Reason::StorageFault => RefusalReason::StorageFault,
        Reason::Quarantined => RefusalReason::Quarantined,
        Reason::Stopping => RefusalReason::Stopping,
        Reason::DevicesFull => RefusalReason::DevicesFull,
        Reason::PairingClosed => RefusalReason::PairingClosed,
        Reason::PairingCode => RefusalReason::PairingCode,
        Reason::PairingTries => RefusalReason::PairingTries,
        Reason::Incarnation => RefusalReason::Incarnation,
    }
}

fn reason_to_wire(reason: RefusalReason) -> Reason {
    match reason {
        RefusalReason::Unspecified => Reason::Unspecified,
        RefusalReason::ProtocolVersion => Reason::ProtocolVersion,
        RefusalReason::WrongGroup => Reason::WrongGroup,
        RefusalReason::UnknownDevice => Reason::UnknownDevice,
        RefusalReason::Released => Reason::Released,
        RefusalReason::Capability => Reason::Capability,
        RefusalReason::WrongEpoch => Reason::WrongEpoch,
        RefusalReason::Superseded => Reason::Superseded,
        RefusalReason::Malformed => Reason::Malformed,
        RefusalReason::OverLimit => Reason::OverLimit,
        RefusalReason::Busy => Reason::Busy,
        RefusalReason::StorageFull => Reason::StorageFull,
        RefusalReason::StorageFault => Reason::StorageFault,
        RefusalReason::Quarantined => Reason::Quarantined,
        RefusalReason::Stopping => Reason::Stopping,
        RefusalReason::DevicesFull => Reason::DevicesFull,
        RefusalReason::PairingClosed => Reason::PairingClosed,
        RefusalReason::PairingCode => Reason::PairingCode,
        RefusalReason::PairingTries => Reason::PairingTries,
        RefusalReason::Incarnation => Reason::Incarnation,
    }
}
