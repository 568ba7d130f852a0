//! Proof of archives over the public API, the helper as a process, and the public tools that open archives
//! without us.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test tells its failure by panicking, and its figures by printing"
)]

mod campaign;
mod confined;
mod damage;
mod reign;
mod support;
mod tools;
