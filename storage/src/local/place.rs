//! Which of an item's two rows this device's readers see: the one all devices share, or the device's
//! own.
//!
//! At the server only one of the two lives, as the sharing of the kind says. On the way there a mirror
//! may hold both or neither, and edits made under one setting may still wait when the other arrives.
//! So the row decides, not the setting: a shared item that lives in the mirror shows; else the device's
//! own; else a shared one that was made here. An edit goes to what shows, and by the setting where
//! nothing does. When an item moves from shared to own, what waits of it moves along.

use rusqlite::{OptionalExtension, params};

use super::{LocalRead, LocalWrite};
use crate::error::Result;
use crate::model::{Change, ItemKey, Kind, OperationNumber, Sharing, sharing_key};

/// Holds for rows of `items` that are this device's to show; the row itself must live besides. Other
/// devices' items are mirrored, and shown to nobody who does not name the device.
pub(super) const SHOWN: &str = "(
    items.device = '' AND (items.mirror_deleted = 0 OR NOT EXISTS (
        SELECT 1 FROM items AS own WHERE own.scope = items.scope AND own.kind = items.kind
            AND own.device = (SELECT own_id FROM device) AND own.id = items.id
            AND coalesce(own.local_deleted, own.mirror_deleted) = 0))
    OR items.device = (SELECT own_id FROM device) AND NOT EXISTS (
        SELECT 1 FROM items AS shared WHERE shared.scope = items.scope AND shared.kind = items.kind
            AND shared.device = '' AND shared.id = items.id AND shared.mirror_deleted = 0))";

impl LocalRead<'_> {
    /// Whether the group's devices have the items of a kind together, as far as this device has heard.
    ///
    /// # Errors
    /// The database's.
    pub fn sharing(&self, kind: &Kind) -> Result<Sharing> {
        let Some(key) = sharing_key(kind) else { return Ok(Sharing::Shared) };
        let setting = self.row(&key)?.and_then(|row| row.mirror);
        Ok(setting.map_or(Sharing::Shared, |fields| Sharing::of(&fields)))
    }

    /// This device's id, as its own items carry it; empty in a file that was never initialised.
    ///
    /// # Errors
    /// The database's.
    pub fn own_id(&self) -> Result<String> {
        let sql = "SELECT own_id FROM device WHERE id = 1";
        Ok(self
            .connection
            .prepare_cached(sql)?
            .query_row([], |row| row.get(0))
            .optional()?
            .unwrap_or_default())
    }

    /// Where an item is for this device's readers and writers, whichever of its two keys they use. The
    /// key of another device's item stays as it is.
    ///
    /// # Errors
    /// The database's.
    pub fn place(&self, key: &ItemKey) -> Result<ItemKey> {
        let own_id = self.own_id()?;
        if !key.device.is_empty() && key.device != own_id {
            return Ok(key.clone());
        }
        let shared = key.shared();
        if self.is_joining()? {
            return Ok(shared);
        }
        let shared_row = self.row(&shared)?;
        if shared_row.as_ref().is_some_and(|row| row.mirror.is_some()) {
            return Ok(shared);
        }
        let own = ItemKey { device: own_id, ..shared.clone() };
        let own_row = self.row(&own)?;
        let shows = |row: &super::read::ItemRow| row.visible(false).is_some();
        if own_row.as_ref().is_some_and(shows) {
            return Ok(own);
        }
        // Also where one was deleted here and the deletion still waits: the next edit builds on that.
        if shared_row.as_ref().is_some_and(|row| shows(row) || row.local.is_some()) {
            return Ok(shared);
        }
        if own_row.is_some_and(|row| row.local.is_some()) {
            return Ok(own);
        }
        Ok(match self.sharing(&key.kind)? {
            Sharing::Shared => shared,
            Sharing::DeviceSpecific => own,
        })
    }

    /// The row on which a waiting operation's edit of an item lies: its own, or where the item moved.
    pub(super) fn linked(&self, key: &ItemKey, operation: OperationNumber) -> Result<Option<ItemKey>> {
        const SQL: &str = "SELECT device FROM items JOIN outbox_items ON item = number
            WHERE scope = ? AND kind = ? AND id = ? AND device IN ('', (SELECT own_id FROM device), ?4)
                AND operation = ?5
            ORDER BY device = ?4 DESC LIMIT 1";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query(params![
            key.scope.as_str(),
            key.kind.as_str(),
            key.id,
            key.device,
            operation.0 as i64
        ])?;
        let device = rows.next()?.map(|row| row.get(0)).transpose()?;
        Ok(device.map(|device| ItemKey { device, ..key.clone() }))
    }
}

impl LocalWrite<'_> {
    /// After a change of either row: when the device's own item lives in the mirror and the shared one
    /// no longer does, edits of the shared one that wait, or whose result has not come, go on showing
    /// on the own one. Their records stay as they are: the server knows them so. Returns the own key
    /// when something moved.
    pub(super) fn move_to_own(&self, change: &Change) -> Result<Option<ItemKey>> {
        // Only when a shared item went, or an own one came; a snapshot is spared the look.
        let changed = &change.key;
        if changed.device.is_empty() != change.deleted {
            return Ok(None);
        }
        let own_id = self.own_id()?;
        if !changed.device.is_empty() && changed.device != own_id {
            return Ok(None);
        }
        let (shared, own) = (changed.shared(), ItemKey { device: own_id, ..changed.clone() });
        let Some(from) = self.row(&shared)?.filter(|row| row.mirror.is_none() && row.local.is_some()) else {
            return Ok(None);
        };
        let Some(to) = self.row(&own)?.filter(|row| row.mirror.is_some()) else { return Ok(None) };
        self.connection
            .prepare_cached("UPDATE OR IGNORE outbox_items SET item = ? WHERE item = ?")?
            .execute([to.number, from.number])?;
        self.connection.prepare_cached("DELETE FROM outbox_items WHERE item = ?")?.execute([from.number])?;
        self.connection
            .prepare_cached(
                "UPDATE items SET (local_deleted, local_fields, settled_at, settled_by) =
                    (SELECT shared.local_deleted, shared.local_fields,
                        nullif(max(coalesce(shared.settled_at, 0), coalesce(items.settled_at, 0)), 0),
                        nullif(max(coalesce(shared.settled_by, 0), coalesce(items.settled_by, 0)), 0)
                     FROM items AS shared WHERE shared.number = ?1)
                 WHERE number = ?2",
            )?
            .execute([from.number, to.number])?;
        if from.mirror_sequence.is_none() {
            self.delete_row(from.number)?;
        } else {
            self.connection
                .prepare_cached(
                    "UPDATE items SET local_deleted = NULL, local_fields = NULL, settled_at = NULL,
                        settled_by = NULL WHERE number = ?",
                )?
                .execute([from.number])?;
        }
        if let Some(row) = self.row(&own)? {
            self.rebase(&own, &row, change.sequence)?;
        }
        Ok(Some(own))
    }
}
