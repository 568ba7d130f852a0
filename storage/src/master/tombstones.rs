//! Forgetting deletions that everybody has seen.
//!
//! Which those are is decided in `mfpsync_replication::tombstones`.

use rusqlite::{OptionalExtension, params};

use super::{MasterWrite, position, sequence_of};
use crate::error::Result;
use crate::model::Sequence;

/// How far the collecting of tombstones has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collected {
    /// Tombstones that are gone.
    pub rows: usize,
    /// Where to go on; none at the end.
    pub next: Option<i64>,
}

impl MasterWrite<'_> {
    /// Drops tombstones of changes up to `through`, looking at no more than `rows` items behind the
    /// position `after`. The floor rises to the last one dropped: who is not that far reads
    /// everything anew.
    ///
    /// # Errors
    /// The database's.
    pub fn collect_tombstones(&self, through: Sequence, after: i64, rows: u32) -> Result<Collected> {
        const END: &str = "SELECT position FROM items WHERE position > ?1 AND position < ?2
            ORDER BY position LIMIT 1 OFFSET ?3";
        const MEANT: &str = "position > ?1 AND position <= ?2 AND deleted = 1";
        let bound = position(Sequence(through.0.saturating_add(1)), 0);
        let end: Option<i64> = self
            .connection
            .prepare_cached(END)?
            .query_row(params![after, bound, rows.saturating_sub(1)], |row| row.get(0))
            .optional()?;
        let last = end.unwrap_or(bound - 1);
        let span = [after, last];
        let highest: Option<i64> = self
            .connection
            .prepare_cached(&format!("SELECT max(position) FROM items WHERE {MEANT}"))?
            .query_row(span, |row| row.get(0))?;
        let Some(highest) = highest else { return Ok(Collected { rows: 0, next: end }) };
        let rows =
            self.connection.prepare_cached(&format!("DELETE FROM items WHERE {MEANT}"))?.execute(span)?;
        self.connection
            .prepare_cached("UPDATE head SET tombstone_floor = max(tombstone_floor, ?) WHERE id = 1")?
            .execute([sequence_of(highest).0 as i64])?;
        Ok(Collected { rows, next: end })
    }
}
