//! `mfpsyncd` as a library: identity, connections, roles and services of one device.
//!
//! Here every other crate is put together; what is read, written and decided lives in them.

pub mod authority;
pub mod enroll;
pub mod identity;
pub mod keystore;
pub mod kit;
pub mod membership;
pub mod net;
pub mod pairing;
pub mod refusal;
pub mod signing;
pub mod tls;
