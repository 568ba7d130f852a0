//! Reads of the ledger and of what was replaced.

use rusqlite::{OptionalExtension, params};

use super::{MasterRead, sequence_of};
use crate::error::Result;
use crate::model::{DeviceId, Digest, Fields, Incarnation, ItemKey, OperationNumber, Outcome, Revision};

/// What became of an operation that came before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Of the operation's record.
    pub digest: Digest,
    /// The recorded answer.
    pub outcome: Outcome,
}

/// One accepted change of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// When in the order.
    pub revision: Revision,
    /// By which device.
    pub device: DeviceId,
    /// The device's number for the operation.
    pub operation: OperationNumber,
    /// By whom.
    pub actor: String,
    /// The server's wall clock then.
    pub accepted_at: u64,
    /// The fields before; none when the item did not exist, was deleted, or the undo window has passed.
    pub prior: Option<Fields>,
    /// Values that lost.
    pub lost: Option<Fields>,
}

impl MasterRead<'_> {
    /// The recorded outcome of an operation.
    ///
    /// # Errors
    /// The database's.
    pub fn ledger(
        &self,
        incarnation: Incarnation,
        operation: OperationNumber,
    ) -> Result<Option<LedgerEntry>> {
        const SQL: &str = "SELECT digest, outcome FROM ledger WHERE incarnation = ? AND operation = ?";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query(params![incarnation.0 as i64, operation.0 as i64])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let outcome = Outcome::decode(row.get_ref(1)?.as_blob().unwrap_or_default())?;
        Ok(Some(LedgerEntry { digest: row.get(0)?, outcome }))
    }

    /// The highest operation of an incarnation with a recorded outcome; zero when there is none.
    ///
    /// # Errors
    /// The database's.
    pub fn last_operation(&self, incarnation: Incarnation) -> Result<OperationNumber> {
        const SQL: &str =
            "SELECT operation FROM ledger WHERE incarnation = ? ORDER BY operation DESC LIMIT 1";
        let last = self
            .connection
            .prepare_cached(SQL)?
            .query_row([incarnation.0 as i64], |row| row.get::<_, i64>(0))
            .optional()?;
        Ok(OperationNumber(last.unwrap_or(0) as u64))
    }

    /// An item's accepted changes, newest first, at most `limit`.
    ///
    /// # Errors
    /// The database's.
    pub fn history(&self, key: &ItemKey, limit: u32) -> Result<Vec<HistoryEntry>> {
        const SQL: &str = "SELECT position, epoch, author, operation, actor, accepted_at,
                iif(prior_deleted, NULL, prior_fields), lost_fields, prior_position
            FROM changes WHERE position = ?";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut entries = Vec::new();
        let mut next = self.last_change(key)?;
        while let Some(position) = next.take_if(|_| entries.len() < limit as usize) {
            let mut rows = statement.query([position])?;
            let Some(row) = rows.next()? else { break };
            next = row.get(8)?;
            let fields = |column| -> Result<Option<Fields>> {
                let bytes = row.get_ref(column)?.as_blob_or_null().unwrap_or_default();
                Ok(bytes.map(Fields::decode).transpose()?)
            };
            entries.push(HistoryEntry {
                revision: Revision {
                    epoch: row.get::<_, i64>(1)? as u64,
                    sequence: sequence_of(row.get(0)?),
                },
                device: DeviceId(row.get(2)?),
                operation: OperationNumber(row.get::<_, i64>(3)? as u64),
                actor: row.get(4)?,
                accepted_at: row.get::<_, i64>(5)? as u64,
                prior: fields(6)?,
                lost: fields(7)?,
            });
        }
        Ok(entries)
    }

    /// Where an item's history begins: its own position, or by search when its tombstone is gone.
    fn last_change(&self, key: &ItemKey) -> Result<Option<i64>> {
        const CURRENT: &str =
            "SELECT position FROM items WHERE scope = ? AND kind = ? AND device = ? AND id = ?";
        const SEARCH: &str =
            "SELECT max(position) FROM changes WHERE scope = ? AND kind = ? AND device = ? AND id = ?";
        for sql in [CURRENT, SEARCH] {
            let parts = params![key.scope.as_str(), key.kind.as_str(), key.device, key.id];
            let found = self.connection.prepare_cached(sql)?.query_row(parts, |row| row.get(0)).optional()?;
            if let Some(position) = found.flatten() {
                return Ok(Some(position));
            }
        }
        Ok(None)
    }

    /// Whether an operation is recorded as (partly) superseded.
    ///
    /// # Errors
    /// The database's.
    pub fn superseded_operations(&self, incarnation: Incarnation) -> Result<Vec<OperationNumber>> {
        const SQL: &str =
            "SELECT DISTINCT operation FROM superseded WHERE incarnation = ? ORDER BY operation";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let operations = statement
            .query_map([incarnation.0 as i64], |row| row.get::<_, i64>(0))?
            .map(|operation| Ok(OperationNumber(operation? as u64)))
            .collect::<Result<_>>()?;
        Ok(operations)
    }
}
