//! What this library and the helper programs of SMB share: [`Target`], where to and as whom; [`protocol`], the
//! frames between them; [`wire`], what may pass between a helper and a server; and [`helper`], what those programs
//! are but for the [`Library`] that speaks SMB in them.
//!
//! Pure, all but the last.

pub mod helper;
mod library;
pub mod protocol;
mod target;
pub mod wire;

pub use library::Library;
pub use target::{Dialect, Encryption, Secret, Target};
