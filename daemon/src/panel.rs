//! The local API for the operator: one service over [`crate::device::Device`] and the supervisor.

mod backup;
mod discover;
mod founding;
mod join;
mod joining;
mod refounding;
mod reign;
mod replication;
mod service;
mod status;

pub use backup::BackupService;
pub use joining::carry_joins_on;
pub use service::{PanelService, Session};
pub(crate) use status::status;
