//! Proof of the storage crate over its public API: databases in memory for the rules, real files
//! for faults, frozen bytes for the formats.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test tells its failure by panicking, and why it was skipped by printing"
)]

mod archived;
mod codec;
mod crash;
mod edits;
mod erasure;
mod faults;
mod files;
mod frozen;
mod golden;
mod history;
#[path = "../../../tests/src/locks.rs"]
#[expect(unreachable_pub, reason = "shared with the tests of whole devices")]
mod locks;
mod master;
mod membership;
mod mirror;
mod outbox;
mod place;
mod plans;
mod pragmas;
mod readers;
mod reoffer;
mod restored;
mod snapshot;
mod standby;
mod support;
mod switching;
mod tap;
