//! The local API for the operator: one service over [`crate::device::Device`] and the supervisor.

mod join;
mod service;
mod status;

pub use service::{PanelService, Session};
