//! Reads of what was replaced.

use rusqlite::{OptionalExtension, Row, params};

use super::{MasterRead, sequence_of};
use crate::codec::Decoder;
use crate::error::Result;
use crate::model::{DeviceId, Fields, Incarnation, ItemKey, OperationNumber, Revision, Sequence};

/// What stood before a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// No such item.
    Absent,
    /// A tombstone.
    Deleted,
    /// These fields.
    Fields(Fields),
    /// An item whose fields are no longer, or never were, kept.
    Forgotten,
}

impl Before {
    /// The fields, where they are known and the item lived.
    #[must_use]
    pub fn fields(&self) -> Option<&Fields> {
        match self {
            Self::Fields(fields) => Some(fields),
            Self::Absent | Self::Deleted | Self::Forgotten => None,
        }
    }
}

/// One accepted change of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// When in the order.
    pub revision: Revision,
    /// By which device.
    pub device: DeviceId,
    /// Which life of its local state; the operator's mark for changes made at the server itself.
    pub incarnation: Incarnation,
    /// The device's number for the operation.
    pub operation: OperationNumber,
    /// By whom.
    pub actor: String,
    /// The device's wall clock when it was made.
    pub made_at: u64,
    /// The server's wall clock then.
    pub accepted_at: u64,
    /// The item became a tombstone.
    pub deleted: bool,
    /// The fields it changed or removed.
    pub touched: Vec<String>,
    /// What stood before.
    pub before: Before,
    /// Values that lost.
    pub lost: Option<Fields>,
}

/// The columns [`entry`] reads.
pub(super) const ENTRY: &str = "position, epoch, author, incarnation, operation, actor, made_at, accepted_at,
    deleted, touched, prior_position, prior_deleted, prior_fields, lost_fields";

/// Reads a row of `changes`.
pub(super) fn entry(row: &Row<'_>) -> Result<HistoryEntry> {
    let fields = |column| -> Result<Option<Fields>> {
        let bytes = row.get_ref(column)?.as_blob_or_null()?;
        Ok(bytes.map(Fields::decode).transpose()?)
    };
    let existed = row.get::<_, Option<i64>>("prior_position")?.is_some();
    let before = match (existed, row.get("prior_deleted")?, fields("prior_fields")?) {
        (false, ..) => Before::Absent,
        (true, Some(true), _) => Before::Deleted,
        (true, _, Some(fields)) => Before::Fields(fields),
        (true, _, None) => Before::Forgotten,
    };
    Ok(HistoryEntry {
        revision: Revision {
            epoch: row.get::<_, i64>("epoch")? as u64,
            sequence: sequence_of(row.get("position")?),
        },
        device: DeviceId(row.get("author")?),
        incarnation: Incarnation(row.get::<_, i64>("incarnation")? as u64),
        operation: OperationNumber(row.get::<_, i64>("operation")? as u64),
        actor: row.get("actor")?,
        made_at: row.get::<_, i64>("made_at")? as u64,
        accepted_at: row.get::<_, i64>("accepted_at")? as u64,
        deleted: row.get("deleted")?,
        touched: names(row.get_ref("touched")?.as_blob().unwrap_or_default())?,
        before,
        lost: fields("lost_fields")?,
    })
}

/// A list of names as [`MasterWrite::accept`](super::MasterWrite::accept) writes it.
pub(super) fn names(bytes: &[u8]) -> Result<Vec<String>> {
    let mut from = Decoder::new(bytes);
    let names = (0..from.count()?).map(|_| Ok(from.text()?.to_owned())).collect::<Result<_>>()?;
    from.finish()?;
    Ok(names)
}

impl MasterRead<'_> {
    /// An item's accepted changes, newest first, at most `limit`.
    ///
    /// # Errors
    /// The database's.
    pub fn history(&self, key: &ItemKey, limit: u32) -> Result<Vec<HistoryEntry>> {
        self.walk(key, |entries, _| entries < limit as usize)
    }

    /// An item's accepted changes from a sequence on, newest first.
    ///
    /// # Errors
    /// The database's.
    pub fn history_since(&self, key: &ItemKey, from: Sequence) -> Result<Vec<HistoryEntry>> {
        self.walk(key, |_, position| sequence_of(position) >= from)
    }

    /// Follows the chain of changes of one item, from the newest on, as long as `wanted` says, given
    /// how many were taken and the next one's position.
    fn walk(&self, key: &ItemKey, wanted: impl Fn(usize, i64) -> bool) -> Result<Vec<HistoryEntry>> {
        let sql = format!("SELECT {ENTRY} FROM changes WHERE position = ?");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut entries = Vec::new();
        let mut next = self.last_change(key)?;
        while let Some(position) = next.take_if(|position| wanted(entries.len(), *position)) {
            let mut rows = statement.query([position])?;
            let Some(row) = rows.next()? else { break };
            next = row.get("prior_position")?;
            entries.push(entry(row)?);
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
