//! What happened to the group's data, and what its operator does about it: history, undo, users,
//! edits set aside. Served on the panel's socket; decisions are made in `mfpsync_replication`.

mod history;
mod place;
pub mod prune;
mod service;
mod set_aside;
mod sharing;
pub mod switching;
mod undo;
mod unsent;
mod users;

pub(crate) use place::operator;
pub use service::RecordsService;
