//! The server's side of a follow stream: where it starts, and how far its follower is. Pure.

use mfpsync_storage::Result;
use mfpsync_storage::master::{Head, MasterWrite, Progress};
use mfpsync_storage::model::{Chain, Cursor, DeviceId, Incarnation, Sequence};

use crate::accept::is_of_another;
use crate::lineage::{Lineage, Standpoint};
use crate::message::ResetReason;

/// Where a follower's stream starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Behind its cursor.
    Resume,
    /// From nothing.
    Reset(ResetReason),
    /// The follower has seen changes of this very reign that this server does not have, or has others in
    /// their place: the server's own disk was rolled back, and it must not serve.
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
        // The very sequence means something else here: what the follower has was made before the disk was put back.
        Standpoint::Continue
            if cursor.epoch == head.epoch && chain.is_some_and(|chain| chain != cursor.chain) =>
        {
            Start::RolledBack
        }
        Standpoint::Continue if chain != Some(cursor.chain) => Start::Reset(ResetReason::UnknownHistory),
        Standpoint::Continue => Start::Resume,
    }
}

/// Whether a device's position was noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// It was.
    Done,
    /// The device is in quarantine. Only pairing anew ends that, whatever incarnation it names.
    Quarantined,
    /// The incarnation is another device's.
    OtherIncarnation,
}

/// Notes up to where a device has everything, for the device list and for forgetting deletions.
///
/// # Errors
/// The database's.
pub fn note(
    write: &MasterWrite<'_>,
    device: DeviceId,
    incarnation: Incarnation,
    sequence: Sequence,
    settled: bool,
) -> Result<Noted> {
    let known = write.progress(device)?;
    if known.is_some_and(|known| known.quarantined) {
        return Ok(Noted::Quarantined);
    }
    if is_of_another(write, device, incarnation)? {
        return Ok(Noted::OtherIncarnation);
    }
    let known = known.filter(|known| known.incarnation == incarnation);
    let before = known.map_or(Sequence::ZERO, |known| known.settled);
    let settled = if settled { sequence } else { before.min(sequence) };
    write.put_progress(&Progress { device, incarnation, sequence, settled, quarantined: false })?;
    Ok(Noted::Done)
}
