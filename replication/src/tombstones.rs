//! Which deletions may be forgotten. Pure.
//!
//! I-07: only a tombstone deletes. It keeps a deleted item from coming back by an edit of somebody who has not heard of the
//! deletion. When every member that may still offer such an edit has heard, it has done its work.

use mfpsync_storage::Result;
use mfpsync_storage::master::MasterRead;
use mfpsync_storage::model::{DeviceId, Sequence};

/// Who may still need a tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The device.
    pub device: DeviceId,
    /// Whatever it offers from now on was made with a view of at least this.
    pub settled: Sequence,
}

/// Up to where tombstones may go, and the member behind which the others have to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// Tombstones of changes up to here have been seen by everybody.
    pub through: Sequence,
    /// The device furthest behind; none when nothing holds them but the head or the archive.
    pub held_by: Option<DeviceId>,
}

/// Decides up to where tombstones may go, by sequences alone (I-09). `archive` is the newest verified archive's revision, which a
/// restore would bring back; none while there is no archive, which then nobody can restore.
#[must_use]
pub fn horizon(
    holders: impl IntoIterator<Item = Holder>,
    archive: Option<Sequence>,
    head: Sequence,
) -> Horizon {
    let limit = archive.map_or(head, |archive| archive.min(head));
    let furthest = holders.into_iter().min_by_key(|holder| (holder.settled, holder.device));
    match furthest {
        Some(holder) if holder.settled < limit => {
            Horizon { through: holder.settled, held_by: Some(holder.device) }
        }
        Some(_) | None => Horizon { through: limit, held_by: None },
    }
}

/// The horizon as the master database tells, beside the `archive` as in [`horizon`]. Released devices hold nothing; one
/// that has never followed has nothing that could come back.
///
/// # Errors
/// The database's.
pub fn horizon_of(read: &MasterRead<'_>, archive: Option<Sequence>) -> Result<Horizon> {
    let mut holders = Vec::new();
    for member in read.members()?.into_iter().filter(|member| !member.record.released) {
        let progress = read.progress(member.record.device)?;
        let holder = |settled| Holder { device: member.record.device, settled };
        holders.extend(progress.map(|progress| holder(progress.settled)));
    }
    Ok(horizon(holders, archive, read.founded_head()?.sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(device: u8, settled: u64) -> Holder {
        Holder { device: DeviceId([device; 16]), settled: Sequence(settled) }
    }

    #[test]
    fn the_device_furthest_behind_holds_them_all() {
        let all = [holder(1, 9), holder(2, 4), holder(3, 7)];
        let expected = Horizon { through: Sequence(4), held_by: Some(DeviceId([2; 16])) };
        assert_eq!(horizon(all, None, Sequence(10)), expected);
    }

    #[test]
    fn an_archive_holds_what_it_would_bring_back() {
        let all = [holder(1, 9), holder(2, 8)];
        let expected = Horizon { through: Sequence(3), held_by: None };
        assert_eq!(horizon(all, Some(Sequence(3)), Sequence(10)), expected);
        assert_eq!(horizon(all, Some(Sequence(12)), Sequence(10)).through, Sequence(8));
    }

    #[test]
    fn nobody_holds_more_than_the_head() {
        assert_eq!(horizon([], None, Sequence(10)), Horizon { through: Sequence(10), held_by: None });
        assert_eq!(horizon([holder(1, 10)], None, Sequence(10)).held_by, None);
    }
}
