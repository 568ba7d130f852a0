//! What this library and the helper program `mfpsync-smb` share: [`Target`], where to and as whom;
//! [`protocol`], the frames between them; [`wire`], what may pass between the helper and a server.
//!
//! Pure. Nothing here knows libsmbclient, a process or a socket.

pub mod protocol;
mod target;
pub mod wire;

pub use target::{Dialect, Encryption, Secret, Target};
