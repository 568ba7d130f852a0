//! The mirror: what the server sent, and what becomes of local edits when it changes beneath them.

use rusqlite::params;

use super::LocalWrite;
use super::edit::apply;
use super::read::ItemRow;
use crate::codec::DecodeError;
use crate::error::Result;
use crate::model::{Change, Cursor, Fields, ItemKey, Operation};

impl LocalWrite<'_> {
    /// Takes a batch into the mirror and moves the cursor with it. Applying a batch again is
    /// harmless. Returns the keys whose visible state changed.
    ///
    /// # Errors
    /// The database's; nothing of the batch is stored then.
    pub fn apply_changes(&self, changes: &[Change], cursor: &Cursor) -> Result<Vec<ItemKey>> {
        let generation = self.generation()?;
        let mut changed = Vec::new();
        for change in changes {
            if self.apply_change(change, generation)? {
                changed.push(change.key.clone());
            }
        }
        self.set_cursor(Some(cursor))?;
        changed.extend(self.uncover_settled(cursor)?);
        Ok(changed)
    }

    fn apply_change(&self, change: &Change, generation: i64) -> Result<bool> {
        let row = self.row(&change.key)?;
        let before = row.as_ref().and_then(ItemRow::visible).cloned();
        let number = self.store_mirror(change, generation)?;
        if row.is_some_and(|row| row.local.is_some()) {
            self.rebase(number, &change.key)?;
        }
        let after = self.row(&change.key)?;
        Ok(before.as_ref() != after.as_ref().and_then(ItemRow::visible))
    }

    fn store_mirror(&self, change: &Change, generation: i64) -> Result<i64> {
        const SQL: &str = "INSERT INTO items (scope, kind, device, id, mirror_sequence, mirror_deleted,
                mirror_fields, generation)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT (scope, kind, device, id) DO UPDATE SET
                mirror_sequence = excluded.mirror_sequence, mirror_deleted = excluded.mirror_deleted,
                mirror_fields = excluded.mirror_fields, generation = excluded.generation
            RETURNING number";
        let key = &change.key;
        let number = self.connection.prepare_cached(SQL)?.query_row(
            params![
                key.scope.as_str(),
                key.kind.as_str(),
                key.device,
                key.id,
                change.sequence.0 as i64,
                change.deleted,
                change.fields.encode(),
                generation
            ],
            |row| row.get(0),
        )?;
        Ok(number)
    }

    /// Lays the operations that still wait over the new mirror state. An edit that was accepted but
    /// has not come back yet keeps showing until the mirror has passed it.
    fn rebase(&self, number: i64, key: &ItemKey) -> Result<()> {
        let waiting = self.waiting_actions(number, key)?;
        if waiting.is_empty() {
            let sql = "UPDATE items SET local_deleted = NULL, local_fields = NULL, settled_at = NULL
                WHERE number = ? AND (settled_at IS NULL OR settled_at <= mirror_sequence)";
            self.connection.prepare_cached(sql)?.execute([number])?;
            return Ok(());
        }
        let mirror = self.row(key)?.and_then(|row| row.mirror);
        let local = waiting.iter().fold(mirror, |fields, action| apply(fields.as_ref(), action));
        self.connection
            .prepare_cached("UPDATE items SET local_deleted = ?, local_fields = ? WHERE number = ?")?
            .execute(params![local.is_none(), local.as_ref().map(Fields::encode), number])?;
        Ok(())
    }

    fn waiting_actions(&self, number: i64, key: &ItemKey) -> Result<Vec<crate::model::Action>> {
        const SQL: &str = "SELECT record FROM outbox JOIN outbox_items USING (operation)
            WHERE item = ? ORDER BY operation";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query([number])?;
        let mut actions = Vec::new();
        while let Some(row) = rows.next()? {
            let operation = Operation::decode(row.get_ref(0)?.as_blob().unwrap_or_default())?;
            let edit = operation.edits.into_iter().find(|edit| edit.key == *key);
            actions.push(edit.ok_or(DecodeError::Invalid("outbox names an item of no edit"))?.action);
        }
        Ok(actions)
    }

    /// Drops local states of edits that the cursor has passed: the mirror shows their result now.
    fn uncover_settled(&self, cursor: &Cursor) -> Result<Vec<ItemKey>> {
        const SQL: &str = "SELECT scope, kind, device, id FROM items WHERE settled_at <= ?
            AND NOT EXISTS (SELECT 1 FROM outbox_items WHERE item = items.number)";
        let mut keys = Vec::new();
        for key in self.keys(SQL, cursor.sequence.0 as i64)? {
            if self.uncover(&key)? {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    /// Drops an item's local state; true when that changed what readers see.
    pub(super) fn uncover(&self, key: &ItemKey) -> Result<bool> {
        let Some(row) = self.row(key)? else { return Ok(false) };
        let sql = if row.mirror_sequence.is_none() {
            "DELETE FROM items WHERE number = ?"
        } else {
            "UPDATE items SET local_deleted = NULL, local_fields = NULL, settled_at = NULL WHERE number = ?"
        };
        self.connection.prepare_cached(sql)?.execute([row.number])?;
        Ok(row.visible() != row.mirror.as_ref())
    }

    /// Starts over: what is in the mirror and does not come again before [`Self::finish_reset`] was
    /// deleted elsewhere. The mirror stays readable meanwhile.
    ///
    /// # Errors
    /// The database's.
    pub fn begin_reset(&self) -> Result<()> {
        self.connection.execute(
            "UPDATE device SET generation = generation + 1, resetting = 1, cursor = NULL WHERE id = 1",
            [],
        )?;
        Ok(())
    }

    /// Everything has come: drops what did not come again, keeping edits that wait. Does nothing
    /// when no reset is under way. Returns the keys whose visible state changed.
    ///
    /// # Errors
    /// The database's.
    pub fn finish_reset(&self) -> Result<Vec<ItemKey>> {
        const GONE: &str = "SELECT scope, kind, device, id FROM items
            WHERE mirror_sequence IS NOT NULL AND generation < ?";
        if !self.device()?.resetting {
            return Ok(Vec::new());
        }
        let mut changed = Vec::new();
        for key in self.keys(GONE, self.generation()?)? {
            changed.extend(self.forget_mirror(&key)?.then_some(key));
        }
        self.connection.execute("UPDATE device SET resetting = 0 WHERE id = 1", [])?;
        Ok(changed)
    }

    fn forget_mirror(&self, key: &ItemKey) -> Result<bool> {
        let Some(row) = self.row(key)? else { return Ok(false) };
        if row.local.is_none() {
            self.connection.execute("DELETE FROM items WHERE number = ?", [row.number])?;
            return Ok(row.mirror.is_some());
        }
        let sql = "UPDATE items SET mirror_sequence = NULL, mirror_deleted = NULL, mirror_fields = NULL
            WHERE number = ?";
        self.connection.execute(sql, [row.number])?;
        Ok(false)
    }

    fn generation(&self) -> Result<i64> {
        let sql = "SELECT generation FROM device WHERE id = 1";
        Ok(self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
    }

    fn keys(&self, sql: &str, parameter: i64) -> Result<Vec<ItemKey>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([parameter])?;
        let mut keys = Vec::new();
        while let Some(row) = rows.next()? {
            let text = |column| row.get_ref(column).map(|value| value.as_str().unwrap_or_default());
            let key = ItemKey::parse(text(0)?, text(1)?, text(2)?, text(3)?);
            keys.push(key.map_err(|_| DecodeError::Invalid("item key"))?);
        }
        Ok(keys)
    }
}
