//! Connections between devices: accepting them, dialling them, and saying no on them.
//!
//! What is proven in the handshake is done in [`crate::tls`]; what flows afterwards is gRPC and
//! belongs to the services.

pub mod acceptor;
pub mod dial;
pub mod frames;
mod greeting;
mod keep_alive;
mod limits;
pub mod serve;
pub mod stream;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
