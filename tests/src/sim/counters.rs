//! How often rare things happened: a simulation that never meets them proves nothing about them.

use std::collections::BTreeMap;

/// What every campaign must have met at least once.
const SOMETIMES: [&str; 54] = [
    "server hears from another machine that it reigns no more",
    "device told by a former server who reigns",
    "edit superseded",
    "edit merged",
    "operation rejected",
    "operation built on a rejected one",
    "push answered from the ledger",
    "old push delivered late or again",
    "push refused because it came too late",
    "reset for want of a cursor",
    "reset behind the tombstone floor",
    "tombstone collected",
    "server crash before commit",
    "server crash after commit before reply",
    "client crash before a commit",
    "client crash between commit and its event",
    "disk full at a client",
    "disk full at the server",
    "second edit of an item still waiting",
    "operation of several edits",
    "own items offered at join",
    "device left",
    "deleted item made anew",
    "clock jumped",
    "follower fell behind the live ring",
    "kind became device-specific",
    "kind became shared",
    "switch went on after other things",
    "edit of a shared item went to its author's own",
    "edit of an own item was set aside",
    "server part started",
    "superseded server sealed",
    "replica took over",
    "copy proven",
    "changes held for want of the replica",
    "changes acknowledged without the replica",
    "replica connected",
    "reset past a fork",
    "push answered that it is not confirmed",
    "replica found its server silent",
    "promotion with a tail that was not copied",
    "server started again after its reign",
    "replication stopped",
    "promotion refused",
    "promotion beside a living server",
    "promotion after a loss",
    "planned handover",
    "disk put back to an earlier image",
    "empty disk",
    "edit of a mirror offered to a new reign",
    "retained edit offered to a new reign",
    "operation that came to nothing filled in",
    "bit of a copy changed",
    "changed copy noticed",
];

/// What one of 2,000 seeds must have met.
const SELDOM: [&str; 21] = [
    "replica met another reign while it was fed",
    "two claim one reign",
    "server is told who reigns",
    "operator chose between two reigns",
    "waiting edit rebased on a fork",
    "power cut in a takeover",
    "nobody took over and the server went on",
    "device that was put back is refused",
    "copy took nothing of its server",
    "replica crash after taking pages",
    "promotion of a copy older than what was safe",
    "two promotions from one parent",
    "server did not stand down",
    "operator stopped a second server",
    "operator found nobody serving and promoted a copy",
    "operator found nobody serving and started a server",
    "device that was put back paired anew",
    "device paired anew: the successor does not know it",
    "device paired anew for another reason",
    "epoch refused by a device's control file",
    "device released by a reign that had ended",
];

/// What nobody has to meet: servers whose disk was put back do, products that are worse than ours, and one seed
/// of a thousand.
const UNWANTED: [&str; 7] = [
    "device paired anew: it does not know the successor",
    "record of a reign that cannot be verified",
    "copy did not become what it should be",
    "copy ahead of its server",
    "reset of an unknown history",
    "server put back to an earlier image",
    "sealed server shown another successor",
];

/// From so many seeds on what is seldom must have been met.
const MANY: u64 = 2_000;

fn all() -> impl Iterator<Item = &'static str> {
    SOMETIMES.into_iter().chain(SELDOM).chain(UNWANTED)
}

/// Counts by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters(BTreeMap<&'static str, u64>);

impl Default for Counters {
    fn default() -> Self {
        Self(all().map(|name| (name, 0)).collect())
    }
}

impl Counters {
    pub(super) fn sometimes(&mut self, name: &'static str) {
        debug_assert!(self.0.contains_key(name), "{name} is not in the table");
        *self.0.entry(name).or_default() += 1;
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            *self.0.entry(name).or_default() += count;
        }
    }

    /// What so many seeds should have met and did not.
    #[must_use]
    pub fn never(&self, seeds: u64) -> Vec<&'static str> {
        let seldom: &[&str] = if seeds < MANY { &[] } else { &SELDOM };
        SOMETIMES.iter().chain(seldom).copied().filter(|name| self.0.get(name) == Some(&0)).collect()
    }

    /// All names with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(name, count)| (*name, *count))
    }
}
