//! Answers of the daemon as text for people and JSON for scripts.
//!
//! Pure: a reply goes in, a text or a `serde_json::Value` comes out. Prints nothing, asks nobody.

pub(crate) mod backup;
pub(crate) mod devices;
pub(crate) mod discover;
pub(crate) mod history;
pub(crate) mod items;
pub(crate) mod join;
pub(crate) mod log;
pub(crate) mod pairing;
pub(crate) mod replication;
pub(crate) mod set_aside;
pub(crate) mod sharing;
pub(crate) mod status;
pub(crate) mod units;
pub(crate) mod unsent;
pub(crate) mod users;
