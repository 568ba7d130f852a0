//! What can be wrong with a message that came over the wire.
//!
//! Every one of these means the same to the caller: drop the connection, or refuse the call as
//! malformed. The variants tell the engineer why. No content of a message is ever in them.

use mfpsync_storage::codec::DecodeError;
use thiserror::Error;

/// A protocol message that is not well-formed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    /// A required part is absent.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// An identifier or hash has the wrong length, or a number is out of its range.
    #[error("{0} is not one")]
    Invalid(&'static str),
    /// More, or longer, than the protocol allows.
    #[error("{0} is over its limit")]
    OverLimit(&'static str),
    /// A record inside the message does not decode.
    #[error("decode {what}: {source}")]
    Record {
        /// Which record.
        what: &'static str,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// Parts of the message contradict each other.
    #[error("{0}")]
    Contradiction(&'static str),
}
