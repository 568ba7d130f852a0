//! The SQLite files of mfpsync, their schema, and the domain types. Never the network, never roles.
//!
//! Start with [`model`] for the words everything else is made of, then [`master`] (the group's
//! database at the server) and [`local`] (every device's own).

pub mod codec;
pub mod model;
