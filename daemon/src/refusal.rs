//! How a refusal travels: a gRPC status whose details are a `Refusal` message, so that programs
//! read the reason and people the text.
//!
//! Which refusal fits is decided by the services.

use std::fmt::Display;

use mfpsync_proto::sync::{Reason, Refusal};
use prost::Message;
use tonic::{Code, Status};

/// A status with a machine-readable reason and a text for people.
#[must_use]
pub fn status(code: Code, reason: Reason, text: impl Into<String>) -> Status {
    from_refusal(code, &refusal(reason, text))
}

/// A status for a refusal made elsewhere, such as one with a promotion record in it.
#[must_use]
pub fn from_refusal(code: Code, refusal: &Refusal) -> Status {
    Status::with_details(code, refusal.text.clone(), refusal.encode_to_vec().into())
}

/// The refusal in a status; none if something else went wrong, or the peer is not ours.
#[must_use]
pub fn reason_of(status: &Status) -> Option<Refusal> {
    let refusal = Refusal::decode(status.details()).ok()?;
    // Empty details decode to a refusal without a reason.
    (refusal.reason() != Reason::Unspecified).then_some(refusal)
}

/// This device is stopping.
#[must_use]
pub fn stopping() -> Status {
    status(Code::Unavailable, Reason::Stopping, "mfpsyncd is stopping")
}

/// A message that is not well-formed, and in what way; nothing of it was taken.
#[must_use]
pub fn malformed(what: impl Display) -> Status {
    status(Code::InvalidArgument, Reason::Malformed, what.to_string())
}

/// The device's history contradicts the server's: nothing is taken from it until a person decides.
#[must_use]
pub fn quarantined() -> Status {
    let text = "two devices use this identity, or this device's data is an older copy of itself; \
                it was separated, nothing was lost";
    status(Code::FailedPrecondition, Reason::Quarantined, text)
}

/// The device's data says that it is another device's.
#[must_use]
pub fn other_incarnation() -> Status {
    let text = "this device's data was made by another device of the group; leave and join again";
    status(Code::PermissionDenied, Reason::Incarnation, text)
}

/// The server's data is older than what the device has seen.
#[must_use]
pub fn rolled_back() -> Status {
    let text = "this server's data is older than what this device has seen; nothing is sent";
    status(Code::FailedPrecondition, Reason::StorageFault, text)
}

pub(crate) fn refusal(reason: Reason, text: impl Into<String>) -> Refusal {
    Refusal { reason: reason.into(), text: text.into(), ..Refusal::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_comes_out_as_it_went_in() {
        let sent = status(Code::PermissionDenied, Reason::Released, "this device was released");
        let got = reason_of(&sent).unwrap();
        assert_eq!((got.reason(), got.text.as_str()), (Reason::Released, "this device was released"));
    }

    #[test]
    fn a_status_without_details_or_with_nonsense_has_no_reason() {
        assert!(reason_of(&Status::internal("x")).is_none());
        let nonsense = Status::with_details(Code::Internal, "x", vec![0xff; 9].into());
        assert!(reason_of(&nonsense).is_none());
    }
}
