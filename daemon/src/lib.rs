//! The process of `mfpsyncd`: roles, configuration, sockets and life from start to stop.
//!
//! It alone assembles the other crates. Start with [`app`] for the order in which parts are built
//! and stopped, then [`role`] for what a device can be asked to do.

pub mod app;
pub mod command_line;
pub mod config;
pub mod control_file;
pub mod debug_socket;
pub mod fault;
pub mod instance;
pub mod role;
pub mod shutdown;
pub mod systemd;
pub mod tasks;
pub mod telemetry;
pub mod unix_socket;
