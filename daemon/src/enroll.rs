//! Pairing over the network: the server's gRPC service and the joiner's call.
//!
//! The decisions are made in [`crate::pairing`]; what admitting a device means for the group's
//! data is behind [`Admission`].

mod join;
mod service;

pub use join::{JoinError, Joined, join};
pub use service::{Admission, Admitted, EnrollService, PairingDesk};

/// Metadata of a refusal: how many tries the code has left.
const TRIES_LEFT: &str = "mfpsync-tries-left";

#[cfg(test)]
mod tests;
