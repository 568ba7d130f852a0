//! Who has nearly used up their room, so that a person hears of it before edits are refused.
//!
//! Knows users only while they are near a limit, and shows how many there are, never who.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use mfpsync_storage::local::Usage;
use mfpsync_storage::model::{Scope, limit};

use crate::fault::{Fault, FaultBoard, FaultCode};

/// Follows the users whom this device has edited since it started.
#[derive(Debug)]
pub(crate) struct QuotaWatch {
    board: FaultBoard,
    near: Mutex<HashSet<Scope>>,
}

impl QuotaWatch {
    /// Shows on `board`.
    pub(crate) fn new(board: FaultBoard) -> Self {
        Self { board, near: Mutex::default() }
    }

    /// Notes how much room users have used after an edit.
    pub(crate) fn note(&self, users: &[Usage]) {
        let mut near = self.near.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = users.iter().fold(false, |changed, usage| {
            let moved = if usage.is_nearly_full() {
                near.insert(usage.scope.clone())
            } else {
                near.remove(&usage.scope)
            };
            changed || moved
        });
        match near.len() {
            _ if !changed => {}
            0 => self.board.clear(FaultCode::UserNearlyFull),
            users => {
                self.board.set(Fault::with_detail(FaultCode::UserNearlyFull, format_args!("users: {users}")))
            }
        }
    }
}

/// What the author of an edit is told when a user is near a limit; empty as a rule.
pub(crate) fn warning(users: &[Usage]) -> String {
    let nearly = users.iter().find(|usage| usage.is_nearly_full());
    nearly.map_or_else(String::new, |usage| {
        format!(
            "everything is stored, but this user's room is nearly used up: {} of {} items, {} of {} bytes; \
             delete what is no longer needed",
            usage.items,
            limit::USER_ITEMS,
            usage.bytes,
            limit::USER_BYTES
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(user: &str, items: u64) -> Usage {
        Usage { scope: Scope::user(user).unwrap(), items, bytes: 10 }
    }

    #[test]
    fn the_fault_stands_while_anybody_is_near_a_limit_and_names_nobody() {
        let board = FaultBoard::default();
        let watch = QuotaWatch::new(board.clone());
        watch.note(&[usage("alice", 1_799)]);
        assert!(board.snapshot().is_empty());
        watch.note(&[usage("alice", 1_800), usage("bob", 1_900)]);
        let text = board.snapshot()[0].text.clone();
        assert!(text.contains("users: 2") && !text.contains("alice"), "{text}");
        watch.note(&[usage("alice", 5)]);
        watch.note(&[usage("bob", 5)]);
        assert!(board.snapshot().is_empty());
        assert!(warning(&[usage("bob", 5)]).is_empty());
        assert!(warning(&[usage("bob", 1_850)]).contains("1850 of 2000"));
    }
}
