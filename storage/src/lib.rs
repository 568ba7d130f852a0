//! The SQLite files of mfpsync, their schema, and the domain types. Never the network, never roles.
//!
//! Start with [`model`] for the words everything else is made of, then [`master`] (the group's
//! database at the server) and [`local`] (every device's own).

mod checkpoint;
pub mod codec;
mod content;
mod durable;
mod error;
pub mod figures;
mod followed;
#[cfg(test)]
#[path = "../tests/proof/frozen.rs"]
mod frozen;
pub mod local;
pub mod master;
pub mod model;
mod open;
pub mod physical;
mod readers;
mod roster;
mod schema;
mod snapshot;
mod store;
pub mod tap;
mod users;
mod writer;

pub use durable::replace;
pub use error::{Class, Error, Result};
pub use followed::Followed;
pub use open::{FileKind, discard, place, remains, retire, set_aside};
pub use readers::SHORT_READ;
pub use snapshot::Snapshot;
pub use store::{Database, Inline, Priority, Store};
pub use users::{DISPLAY_NAME, User};
pub use writer::Published;
