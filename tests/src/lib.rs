//! Real devices for tests: `mfpsyncd` as processes, each with its own files, sockets and network.
//!
//! Start at [`Fleet`], a server and its clients paired by code, or at [`TestDevice`] for a single
//! one. [`Relay`] is the cable between a client and its server, [`eventually`] the only place that
//! waits, [`item`] builds edits, [`clock`] turns a device's clock, [`volume`] fills its
//! disk, [`read_only`] stops its writes, [`power`] fails, [`steps`] are held one by one, [`lan`] is an office network of its own, [`TestShare`] a real SMB server.
//! [`sim`] is a fleet without any of these: one process, virtual time, luck from a seed.
//! No product crate may depend on this one.

mod binary;
mod campaign;
pub mod clock;
mod contents;
mod debug;
mod device;
mod fleet;
pub mod fuzz;
pub mod item;
pub mod lan;
mod locks;
mod log;
mod port;
pub mod power;
mod preload;
pub mod read_only;
mod relay;
mod share;
pub mod sim;
mod skip;
pub mod steps;
pub mod volume;
mod wait;

pub use binary::{command_path, daemon_path, smb_helper_path, smb_library};
pub use campaign::{rounds, seed};
pub use contents::{Contents, fields};
pub use debug::Hashes;
pub use device::{Setup, TestDevice};
pub use fleet::{Fleet, PASSPHRASE, current, join, open_pairing, running, start_server};
pub use locks::locks;
pub use log::Log;
pub use port::Port;
pub use relay::{Mishap, Relay, Way};
pub use share::{SHARE_PASSWORD, Session, ShareServer, TestShare};
pub use skip::skip;
pub use wait::{PATIENCE, eventually};

/// Connections to the local API.
pub type LocalClient = mfpsync_proto::local::local_client::LocalClient<tonic::transport::Channel>;
/// Connections to the panel API.
pub type PanelClient = mfpsync_proto::panel::panel_client::PanelClient<tonic::transport::Channel>;
