//! A fleet in one process: virtual time, one seeded source of luck, no threads and no real network.
//!
//! Real are the databases (in memory at devices, files where a machine may serve), the control files,
//! [`Round`](mfpsync_replication::round::Round), the server's `accept` and `follow`, what feeds a replica page by
//! page (tap, [`Shipping`](mfpsync_replication::ship::Shipping),
//! [`Protection`](mfpsync_replication::protection::Protection)), the standby copy and what takes pages into it, what a
//! device offers to a new reign, and every protocol message, which is written and read at both ends.
//! Simulated are what carries out effects (as the daemon's driver, its handlers and its supervisor do), the network,
//! disks, clocks, crashes and people, among them an operator who sets replicas, promotes them and makes mistakes.
//! Signatures are in form only: a record counts as proven if its signer's certificate is known or comes along. When
//! servers ask each other who reigns they are answered at once or not at all. The seed decides everything, also
//! which faults there are.
//!
//! Start with [`run`]; `world` owns time and the queue, `house` a machine that may serve, `operator` what its
//! operator does. What must hold is checked in `oracle`, `reigns` and `history`, and against the independent
//! restatement of the conflict table in [`model`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "test code; a memory database that fails is the end of the simulation"
)]

mod copy;
mod counters;
mod driver;
mod faults;
mod feeding;
mod history;
mod house;
mod images;
pub mod model;
mod network;
mod operator;
mod oracle;
mod reigns;
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
    /// Disks of servers are put back to earlier images, too: more than the product promises to survive.
    pub server_images: bool,
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
