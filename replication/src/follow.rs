//! The server's side of a follow stream: where it starts. Pure.

use mfpsync_storage::master::Head;
use mfpsync_storage::model::{Chain, Cursor};

use crate::lineage::{Lineage, Standpoint};
use crate::message::ResetReason;

/// Where a follower's stream starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Behind its cursor.
    Resume,
    /// From nothing.
    Reset(ResetReason),
    /// The follower has seen changes of this very reign that this server does not have: the
    /// server's own disk was rolled back, and it must not serve.
    RolledBack,
}

/// Decides where a stream starts. `chain` is the server's chain at the cursor's sequence, if it
/// still knows it.
#[must_use]
pub fn start(cursor: Option<&Cursor>, head: &Head, lineage: &Lineage, chain: Option<Chain>) -> Start {
    let Some(cursor) = cursor else { return Start::Reset(ResetReason::NoCursor) };
    if cursor.group != head.group {
        return Start::Reset(ResetReason::UnknownHistory);
    }
    if cursor.epoch == head.epoch && cursor.sequence > head.sequence {
        return Start::RolledBack;
    }
    match lineage.standpoint(cursor) {
        Standpoint::Unknown => Start::Reset(ResetReason::UnknownHistory),
        Standpoint::PastFork { .. } => Start::Reset(ResetReason::PastFork),
        Standpoint::Continue if cursor.sequence < head.tombstone_floor => Start::Reset(ResetReason::TooOld),
        Standpoint::Continue if chain != Some(cursor.chain) => Start::Reset(ResetReason::UnknownHistory),
        Standpoint::Continue => Start::Resume,
    }
}
