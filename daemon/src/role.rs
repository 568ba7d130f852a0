//! What a device does in its group, and how it goes from one role to another.
//!
//! [`machine`] decides, [`supervisor`] acts. The parts that serve, pull and push live elsewhere and
//! are plugged in through [`supervisor::Parts`].

pub mod machine;
pub mod supervisor;

pub use machine::{Part, PartSet, Phase, Rejected, Role, RoleState};
pub use supervisor::{Exits, Intent, Parts, Setup, SupervisorHandle, SwitchError};
