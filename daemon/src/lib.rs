//! d
pub mod fault;
pub mod role;
