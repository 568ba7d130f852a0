//! When a change may be acknowledged: on whose stable storage it must be, and what becomes of that while
//! the replica is away. Pure: time is an argument.
//!
//! ```text
//!               a change waits too long              ┌─ Held ──────── and must not go without the replica
//!   Protected ──────────────────────────────────────►┤
//!       ▲                                            └─ Unprotected ─ and may
//!       └──── the replica has everything ◄───────────────────┘
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
    state: State,
    /// The last transaction.
    last: u64,
    /// The last that the replica has.
    durable: u64,
    given_up: u64,
    /// Transactions that the replica does not have yet, with when they were committed.
    waiting: VecDeque<(u64, Since)>,
}

/// How things stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Changes are acknowledged as was chosen.
    Protected,
    /// Changes wait longer than anybody does: they are answered that they are not confirmed.
    Held,
    /// Changes are acknowledged without the replica.
    Unprotected,
}

impl Protection {
    /// Before anything was committed; `chosen` is whether the operator chose just now.
    #[must_use]
    pub fn new(durability: Durability, chosen: bool) -> Self {
        Self {
            durability,
            confirmed_here: chosen,
            state: State::Protected,
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

    /// The operator chose. The state, if it is another now.
    pub fn choose(&mut self, durability: Durability) -> Option<State> {
        (self.durability, self.confirmed_here) = (durability, true);
        match (durability, self.state) {
            (Durability::SyncContinue, _) | (_, State::Protected) | (Durability::SyncHold, State::Held) => {
                None
            }
            (Durability::Async, State::Held) | (_, State::Unprotected) => self.turn(State::Protected),
        }
    }

    /// A new run of transactions begins at this one.
    pub fn begin(&mut self, transaction: u64) {
        (self.last, self.durable, self.given_up) = (transaction, 0, 0);
        self.waiting.clear();
    }

    /// A transaction is on the server's stable storage.
    pub fn committed(&mut self, transaction: u64, now: Since) {
        self.last = transaction;
        if self.durability != Durability::Async && self.state != State::Unprotected {
            self.waiting.push_back((transaction, now));
        }
    }

    /// The replica has everything up to this transaction on stable storage. The state, if it is another now.
    pub fn confirmed(&mut self, transaction: u64) -> Option<State> {
        (self.durable, self.confirmed_here) = (self.durable.max(transaction), true);
        while self.waiting.front().is_some_and(|(waiting, _)| *waiting <= transaction) {
            self.waiting.pop_front();
        }
        if transaction >= self.last { self.turn(State::Protected) } else { None }
    }

    /// Time has passed. The state, if it is another now.
    pub fn tick(&mut self, now: Since) -> Option<State> {
        let late = |(_, since): &&(u64, Since)| now.saturating_sub(*since) >= PATIENCE;
        let (late, _) = *self.waiting.iter().rev().find(late)?;
        if self.durability == Durability::SyncContinue && self.confirmed_here {
            self.waiting.clear();
            return self.turn(State::Unprotected);
        }
        self.given_up = late;
        self.waiting.retain(|(transaction, _)| *transaction > late);
        self.turn(State::Held)
    }

    fn turn(&mut self, to: State) -> Option<State> {
        (std::mem::replace(&mut self.state, to) != to).then_some(to)
    }

    /// How things stand.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether somebody waits for the replica.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Who is answered.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.durability == Durability::Async || self.state == State::Unprotected {
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
        assert_eq!(protection.tick(LATE), Some(State::Held));
        assert_eq!(protection.verdict(), Verdict { confirmed: 0, given_up: 7 });
        assert!(protection.is_waited_for());
        assert_eq!(protection.tick(LATE * 2), None);
        assert_eq!(protection.verdict(), Verdict { confirmed: 0, given_up: 8 });
        assert_eq!(protection.confirmed(8), Some(State::Protected));
        assert_eq!(protection.verdict(), Verdict { confirmed: 8, given_up: 8 });
    }

    #[test]
    fn i_16_going_on_without_the_replica_needs_a_choice_of_this_life() {
        let mut protection = waiting(Durability::SyncContinue, false);
        assert_eq!(protection.tick(LATE), Some(State::Held));
        assert_eq!(protection.verdict(), Verdict { confirmed: 0, given_up: 7 });
        protection.committed(8, LATE);
        assert_eq!(protection.choose(Durability::SyncContinue), None);
        assert_eq!(protection.tick(LATE * 2), Some(State::Unprotected));
        assert_eq!(protection.verdict(), Verdict::ALL);
    }

    #[test]
    fn it_is_protected_again_when_the_replica_has_everything() {
        let mut protection = waiting(Durability::SyncContinue, true);
        assert_eq!(protection.tick(LATE), Some(State::Unprotected));
        protection.committed(8, LATE);
        assert_eq!(protection.confirmed(7), None);
        assert_eq!(protection.state(), State::Unprotected);
        assert_eq!(protection.confirmed(8), Some(State::Protected));
        protection.committed(9, LATE);
        assert_eq!(protection.verdict(), Verdict { confirmed: 8, given_up: 0 });
    }

    #[test]
    fn another_choice_ends_going_on_without() {
        let mut protection = waiting(Durability::SyncContinue, true);
        assert_eq!(protection.tick(LATE), Some(State::Unprotected));
        assert_eq!(protection.choose(Durability::SyncHold), Some(State::Protected));
        protection.committed(8, LATE);
        assert_eq!(protection.verdict(), Verdict { confirmed: 0, given_up: 0 });
    }
}
