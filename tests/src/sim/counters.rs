//! How often rare things happened: a simulation that never meets them proves nothing about them.

use std::collections::BTreeMap;

/// What every campaign must have met at least once.
const SOMETIMES: [&str; 28] = [
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
];

/// Counts by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters(BTreeMap<&'static str, u64>);

impl Default for Counters {
    fn default() -> Self {
        Self(SOMETIMES.into_iter().map(|name| (name, 0)).collect())
    }
}

impl Counters {
    pub(super) fn sometimes(&mut self, name: &'static str) {
        debug_assert!(SOMETIMES.contains(&name), "{name} is not in the table");
        *self.0.entry(name).or_default() += 1;
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            *self.0.entry(name).or_default() += count;
        }
    }

    /// All names with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(name, count)| (*name, *count))
    }
}
