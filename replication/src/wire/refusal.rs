//! Refusals, which travel in the status details of a call that failed.

use bytes::Bytes;
use mfpsync_proto::sync;
use mfpsync_proto::sync::Reason;
use mfpsync_storage::model::Promotion;

use super::record;
use crate::error::WireError;
use crate::message::{Refusal, RefusalReason};

/// Longest text that is kept, in characters.
const TEXT_CHARS: usize = 200;

/// Reads a refusal; a reason this build does not know is [`RefusalReason::Unspecified`].
///
/// # Errors
/// Its promotion record does not decode.
pub fn refusal_from_wire(refusal: &sync::Refusal) -> Result<Refusal, WireError> {
    let promotion =
        (!refusal.promotion.is_empty()).then(|| Promotion::decode(&refusal.promotion)).transpose();
    Ok(Refusal {
        reason: reason(refusal.reason()),
        text: refusal.text.chars().filter(|c| !c.is_control()).take(TEXT_CHARS).collect(),
        promotion: record("promotion", promotion)?,
    })
}

/// Writes a refusal.
#[must_use]
pub fn refusal_to_wire(refusal: &Refusal) -> sync::Refusal {
    sync::Refusal {
        reason: reason_to_wire(refusal.reason).into(),
        text: refusal.text.clone(),
        promotion: refusal.promotion.as_ref().map_or_else(Bytes::new, |record| record.encode().into()),
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
