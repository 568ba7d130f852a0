//! tests

pub mod sim;
