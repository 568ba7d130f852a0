//! When a change may be acknowledged: on whose stable storage it must be, and what becomes of that while
//! the replica is away. Pure: time is an argument.
//!
//! ```text
//!                       a change waits too long, and may go without the replica
//!   Protected ────────────────────────────────────────────────────────────────► Unprotected
//!       ▲                                                                            │
//!       └──────────────────────── the replica has everything ◄───────────────────────┘
//! ```
//!
//! I-16: without the operator's choice nothing is ever acknowledged that the replica does not have. The
//! choice to go on lapses with the process: a server that comes back alone cannot know whether it was
//! replaced meanwhile, so it must have met its replica first, or be told anew.

use std::collections::VecDeque;
use std::time::Duration;

use mfpsync_storage::master::Durability;
use mfpsync_storage::tap::Verdict;

/// A moment on a clock that only rises, since whenever.
pub type Since = Duration;

/// How long a change waits for the replica.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Decides for one server.
#[derive(Debug, Clone)]
pub struct Protection {
    durability: Durability,
    /// The replica was met, or the operator chose, in this life of the process.
    confirmed_here: bool,
    unprotected: bool,
    /// The last transaction.
    last: u64,
    /// The last that the replica has.
    durable: u64,
    given_up: u64,
    /// Transactions that the replica does not have yet, with when they were committed.
    waiting: VecDeque<(u64, Since)>,
}

/// What changed for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Changes are acknowledged without the replica from now on.
    Unprotected,
    /// The replica has everything again.
    Protected,
}

impl Protection {
    /// Before anything was committed; `chosen` is whether the operator chose just now.
    #[must_use]
    pub fn new(durability: Durability, chosen: bool) -> Self {
        Self {
            durability,
            confirmed_here: chosen,
            unprotected: false,
            last: 0,
            durable: 0,
            given_up: 0,
            waiting: VecDeque::new(),
        }
    }

    /// When changes are acknowledged.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// The operator chose.
    pub fn choose(&mut self, durability: Durability) -> Option<Turn> {
        (self.durability, self.confirmed_here) = (durability, true);
        let ended = self.unprotected && durability != Durability::SyncContinue;
        self.unprotected &= !ended;
        ended.then_some(Turn::Protected)
    }

    /// A new run of transactions begins at this one.
    pub fn begin(&mut self, transaction: u64) {
        (self.last, self.durable, self.given_up) = (transaction, 0, 0);
        self.waiting.clear();
    }

    /// A transaction is on the server's stable storage.
    pub fn committed(&mut self, transaction: u64, now: Since) {
        self.last = transaction;
        if self.durability != Durability::Async && !self.unprotected {
            self.waiting.push_back((transaction, now));
        }
    }

    /// The replica has everything up to this transaction on stable storage.
    pub fn confirmed(&mut self, transaction: u64) -> Option<Turn> {
        (self.durable, self.confirmed_here) = (self.durable.max(transaction), true);
        while self.waiting.front().is_some_and(|(waiting, _)| *waiting <= transaction) {
            self.waiting.pop_front();
        }
        let ended = self.unprotected && transaction >= self.last;
        self.unprotected &= !ended;
        ended.then_some(Turn::Protected)
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Since) -> Option<Turn> {
        let late = |(_, since): &&(u64, Since)| now.saturating_sub(*since) >= PATIENCE;
        let (late, _) = *self.waiting.iter().rev().find(late)?;
        if self.durability == Durability::SyncContinue && self.confirmed_here {
            self.waiting.clear();
            self.unprotected = true;
            return Some(Turn::Unprotected);
        }
        self.given_up = late;
        self.waiting.retain(|(transaction, _)| *transaction > late);
        None
    }

    /// Whether changes are acknowledged although the replica lacks them.
    #[must_use]
    pub fn is_unprotected(&self) -> bool {
        self.unprotected
    }

    /// Whether somebody waits for the replica.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Who is answered.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.durability == Durability::Async || self.unprotected {
            Verdict::ALL
        } else {
            Verdict { confirmed: self.durable, given_up: self.given_up }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Since = Duration::from_millis(10);
    const LATE: Since = Duration::from_millis(5_010);

    fn waiting(durability: Durability, chosen: bool) -> Protection {
        let mut protection = Protection::new(durability, chosen);
        protection.begin(6);
        protection.committed(7, Duration::ZERO);
        protection
    }

    #[test]
    fn without_sync_everybody_is_answered_at_once() {
        let protection = waiting(Durability::Async, true);
        assert_eq!(protection.verdict(), Verdict::ALL);
        assert!(!protection.is_waited_for());
    }

    #[test]
    fn sync_answers_what_the_replica_has() {
        for durability in [Durability::SyncHold, Durability::SyncContinue] {
            let mut protection = waiting(durability, true);
            assert_eq!(protection.tick(SOON), None);
            assert_eq!(protection.verdict(), Verdict { confirmed: 0, given_up: 0 });
            protection.committed(8, SOON);
            assert_eq!(protection.confirmed(7), None);
            assert_eq!(protection.verdict(), Verdict { confirmed: 7, given_up: 0 });
            assert!(protection.is_waited_for());
        }
    }

    #[test]
    fn i_16_held_changes_are_given_up_and_never_acknowledged_without_the_replica() {
        let mut protection = waiting(Durability::SyncHold, true);
        protection.committed(8, SOON * 2);
        assert_eq!(protection.tick(LATE), None);
        assert_eq!(protection.verdict(), Verdict { confirmed: 0, given_up: 7 });
        assert!(protection.is_waited_for());
        assert_eq!(protection.tick(LATE * 2), None);
        assert_eq!(protection.verdict(), Verdict { confirmed: 0, given_up: 8 });
        assert_eq!(protection.confirmed(8), None);
        assert_eq!(protection.verdict(), Verdict { confirmed: 8, given_up: 8 });
    }

    #[test]
    fn i_16_going_on_without_the_replica_needs_a_choice_of_this_life() {
        let mut protection = waiting(Durability::SyncContinue, false);
        assert_eq!(protection.tick(LATE), None);
        assert_eq!(protection.verdict(), Verdict { confirmed: 0, given_up: 7 });
        protection.committed(8, LATE);
        assert_eq!(protection.choose(Durability::SyncContinue), None);
        assert_eq!(protection.tick(LATE * 2), Some(Turn::Unprotected));
        assert_eq!(protection.verdict(), Verdict::ALL);
    }

    #[test]
    fn it_is_protected_again_when_the_replica_has_everything() {
        let mut protection = waiting(Durability::SyncContinue, true);
        assert_eq!(protection.tick(LATE), Some(Turn::Unprotected));
        protection.committed(8, LATE);
        assert_eq!(protection.confirmed(7), None);
        assert!(protection.is_unprotected());
        assert_eq!(protection.confirmed(8), Some(Turn::Protected));
        protection.committed(9, LATE);
        assert_eq!(protection.verdict(), Verdict { confirmed: 8, given_up: 0 });
    }

    #[test]
    fn another_choice_ends_going_on_without() {
        let mut protection = waiting(Durability::SyncContinue, true);
        assert_eq!(protection.tick(LATE), Some(Turn::Unprotected));
        assert_eq!(protection.choose(Durability::SyncHold), Some(Turn::Protected));
        protection.committed(8, LATE);
        assert_eq!(protection.verdict(), Verdict { confirmed: 0, given_up: 0 });
    }
}
