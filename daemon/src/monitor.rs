//! What an operator watches a device by: the communication log, metrics, and reading the configuration
//! again. [`MonitorService`] answers at the panel's socket; [`listener`] hands metrics out over HTTP.

mod communications;
pub mod exposition;
pub mod listener;
mod metrics;
mod service;
mod watchers;

pub use metrics::exposition as metrics;
pub use service::MonitorService;
pub use watchers::{watch_faults, watch_roles};
