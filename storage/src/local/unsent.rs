//! Edits that the group never got: those that still wait, and, on a device that left or was released
//! and left, what it has otherwise than the group last had it.
//!
//! The second is why leaving keeps a copy of the group's state beside the own one: on its return the
//! device offers what was edited here, not what merely grew old (`mfpsync_replication::join`).

use rusqlite::{OptionalExtension, params};

use super::join::key;
use super::{LocalRead, LocalWrite};
use crate::error::Result;
use crate::model::{Fields, GroupId, ItemKey};

/// An item that differs here from what the group last had, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsent {
    /// Which item.
    pub key: ItemKey,
    /// As the group had it; none when it did not.
    pub before: Option<Fields>,
    /// As it stands here; none when it was deleted.
    pub after: Option<Fields>,
}

/// Items with an operation that still waits.
const WAITING: &str = "SELECT scope, kind, device, id, local_fields,
        CASE mirror_deleted WHEN 0 THEN mirror_fields END
    FROM items WHERE EXISTS (SELECT 1 FROM outbox_items WHERE item = items.number)";
/// Own items of a device that was in a group.
const PARTED: &str = "SELECT scope, kind, device, id, local_fields, parted_fields
    FROM items WHERE local_deleted = 0 AND local_fields IS NOT parted_fields
        AND EXISTS (SELECT 1 FROM device WHERE parted_from IS NOT NULL)";

impl LocalRead<'_> {
    /// The group this device left last, until it is a member of one again.
    ///
    /// # Errors
    /// The database's.
    pub fn parted_from(&self) -> Result<Option<GroupId>> {
        const SQL: &str = "SELECT parted_from FROM device WHERE id = 1";
        let group = self.connection.prepare_cached(SQL)?.query_row([], |row| row.get(0)).optional()?;
        Ok(group.flatten().map(GroupId))
    }

    /// An own item as the group had it that this device left; none when it did not.
    ///
    /// # Errors
    /// The database's.
    pub fn parted(&self, key: &ItemKey) -> Result<Option<Fields>> {
        const SQL: &str = "SELECT parted_fields FROM items
            WHERE scope = ? AND kind = ? AND device = ? AND id = ?";
        let found = self
            .connection
            .prepare_cached(SQL)?
            .query_row(params![key.scope.as_str(), key.kind.as_str(), key.device, key.id], |row| {
                row.get::<_, Option<Vec<u8>>>(0)
            });
        Ok(found.optional()?.flatten().map(|record| Fields::decode(&record)).transpose()?)
    }

    /// Items with edits that the group never got, in the order of their keys, at most `limit`,
    /// beginning behind `after`. Outside of a group, and while joining one: compared with what the
    /// group had that this device left last.
    ///
    /// # Errors
    /// The database's, or its reader's deadline.
    pub fn unsent(&self, after: Option<&ItemKey>, limit: u32) -> Result<Vec<Unsent>> {
        let sql = format!(
            "{} AND (scope, kind, device, id) > (?, ?, ?, ?) ORDER BY scope, kind, device, id LIMIT ?",
            self.differing()?
        );
        let after = after
            .map_or(("", "", "", ""), |key| (key.scope.as_str(), key.kind.as_str(), &key.device, &key.id));
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params![after.0, after.1, after.2, after.3, limit])?;
        let mut unsent = Vec::new();
        while let Some(row) = rows.next()? {
            let fields = |column| {
                let record = row.get_ref(column)?.as_blob_or_null()?;
                Ok::<_, crate::Error>(record.map(Fields::decode).transpose()?)
            };
            unsent.push(Unsent { key: key(row)?, after: fields(4)?, before: fields(5)? });
        }
        Ok(unsent)
    }

    /// How many items [`LocalRead::unsent`] has.
    ///
    /// # Errors
    /// The database's, or its reader's deadline.
    pub fn unsent_count(&self) -> Result<u64> {
        self.count(&format!("SELECT count(*) FROM ({})", self.differing()?))
    }

    fn differing(&self) -> Result<&'static str> {
        let parted = self.is_joining()? || self.membership()?.is_none();
        Ok(if parted { PARTED } else { WAITING })
    }
}

impl LocalWrite<'_> {
    /// Remembers what the group has, before it is left. An edit that was accepted is the group's,
    /// although its result has not come.
    pub(super) fn note_parting(&self) -> Result<()> {
        self.connection.execute_batch(
            "UPDATE items SET parted_fields = CASE
                WHEN settled_at IS NOT NULL
                    AND NOT EXISTS (SELECT 1 FROM outbox_items WHERE item = items.number)
                    THEN CASE local_deleted WHEN 0 THEN local_fields END
                WHEN mirror_deleted = 0 THEN mirror_fields END;
             UPDATE device SET parted_from = coalesce((SELECT group_id FROM membership WHERE id = 1),
                parted_from) WHERE id = 1;",
        )?;
        Ok(())
    }
}
