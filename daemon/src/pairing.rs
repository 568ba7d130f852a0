//! Pairing by a short code, as two state machines: the window an operator opens at the server, and
//! the joiner. Time, codes and session ids are arguments; nothing here waits or sends.
//!
//! Both run SPAKE2 over the code, so that a wrong guess costs a try and teaches nothing else. The
//! confirmations cover the TLS exporter of the connection, so that a machine in the middle, which
//! has two connections, can relay nothing. The joiner proves first. See
//! `docs/adr/0006-identity-membership-tls.md`.

mod exchange;
mod window;

pub use exchange::{Code, CodeError, Joiner, JoinerProof, PROOF_BYTES, SPAKE_BYTES};
pub use window::{
    Answer, EXCHANGE, Hello, LIFETIME, Newcomer, PairingError, PairingWindow, SESSIONS, SessionId, State,
    TRIES,
};

#[cfg(test)]
mod tests;
