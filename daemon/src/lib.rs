//! The process of `mfpsyncd`: roles, sockets, identity and life from start to stop.
//!
//! It alone assembles the other crates. Start with [`app`] for how the parts come together,
//! [`role`] for what a device can be asked to do, and [`device`] for what all of it shares.

pub mod app;
pub mod assemble;
pub mod authority;
pub mod backup;
pub mod client;
pub mod clock;
pub mod command_line;
pub mod communication;
pub mod config;
pub mod control_file;
pub mod db;
pub mod debug_socket;
pub mod device;
pub mod discovery;
pub mod enroll;
pub mod fault;
pub mod group;
pub mod identity;
pub mod inspect;
pub mod instance;
pub mod keystore;
pub mod kit;
pub mod local;
pub mod master_at_rest;
pub mod membership;
pub mod monitor;
pub mod net;
pub mod own_data;
pub mod pairing;
pub mod panel;
pub mod parts;
mod quota;
pub mod records;
pub mod refusal;
pub mod reign;
pub mod replica;
pub mod role;
pub mod server;
pub mod settings;
pub mod shutdown;
pub mod signing;
pub mod storage_fault;
pub mod systemd;
pub mod tasks;
pub mod telemetry;
pub mod tls;
pub mod unix_socket;
pub mod vital;
