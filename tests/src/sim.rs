//! A fleet in one process: virtual time, one seeded source of luck, no threads and no real network.
//!
//! Real are the databases (in memory), [`Round`](mfpsync_replication::round::Round), the server's
//! `accept` and `follow`, and every protocol message, which is written and read at both ends.
//! Simulated are what carries out effects (as the daemon's driver and its handlers do), the network,
//! disks, clocks, crashes and people. The seed decides everything, also which faults there are.
//!
//! Start with [`run`]; `world` owns time and the queue. What must hold is checked in `oracle`
//! and `history`, and against the independent restatement of the conflict table in [`model`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "test code; a memory database that fails is the end of the simulation"
)]

mod counters;
mod driver;
mod faults;
mod history;
pub mod model;
mod network;
mod oracle;
mod server;
mod sharing;
mod swarm;
mod trace;
mod translate;
mod users;
mod world;

use std::time::Duration;

pub use counters::Counters;
pub use swarm::Defect;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// A mistake made on purpose, to see that it is noticed.
    pub defect: Option<Defect>,
    /// Print what happens to standard error.
    pub trace: bool,
}

/// What came of a run.
#[derive(Debug)]
pub struct Run {
    /// The first invariant that did not hold, and how.
    pub violation: Option<String>,
    /// Equal for two runs that took the same way.
    pub trace_hash: u64,
    /// How often rare things happened.
    pub counters: Counters,
    /// Simulated time.
    pub virtual_time: Duration,
    /// Simulated time from the end of all faults until everything agreed.
    pub converged_after: Duration,
    /// Devices that took part.
    pub devices: usize,
}

/// Runs one seed to its end, or to the first violation.
#[must_use]
pub fn run(options: Options) -> Run {
    world::World::new(options).run()
}
