//! The mirror: what the server sent, and what becomes of local edits when it changes beneath them.

use rusqlite::{OptionalExtension, params};

use super::LocalWrite;
use super::edit::apply;
use super::read::ItemRow;
use crate::codec::DecodeError;
use crate::error::Result;
use crate::model::{Change, Cursor, Fields, ItemKey, Operation, Sequence};

impl LocalWrite<'_> {
    /// Takes a batch into the mirror and moves the cursor with it. Applying a batch again is
    /// harmless. Returns the keys whose visible state changed.
    ///
    /// # Errors
    /// The database's; nothing of the batch is stored then.
    pub fn apply_changes(&self, changes: &[Change], cursor: &Cursor) -> Result<Vec<ItemKey>> {
        let generation = self.generation()?;
        let joining = self.is_joining()?;
        let mut changed = Vec::new();
        for change in changes {
            if !joining && self.is_news_of_erasure(change)? {
                changed.extend(self.purge(&change.key)?);
            }
            if self.apply_change(change, generation, joining)? {
                changed.push(change.key.clone());
            }
            if !joining {
                changed.extend(self.move_to_own(change)?);
            }
        }
        self.set_cursor(Some(cursor))?;
        changed.extend(self.uncover_settled(cursor)?);
        self.raise_low_water()?;
        Ok(changed)
    }

    fn apply_change(&self, change: &Change, generation: i64, joining: bool) -> Result<bool> {
        let fields = change.fields.encode();
        if self.insert_mirror(change, &fields, generation)? {
            return Ok(!change.deleted && !joining);
        }
        let Some(row) = self.row(&change.key)? else { return Ok(false) };
        self.connection
            .prepare_cached(
                "UPDATE items SET mirror_sequence = ?, mirror_deleted = ?, mirror_fields = ?, generation = ?
                    WHERE number = ?",
            )?
            .execute(params![change.sequence.0 as i64, change.deleted, fields, generation, row.number])?;
        if joining {
            return Ok(false);
        }
        let mirror = (!change.deleted).then_some(&change.fields);
        if row.local.is_none() {
            return Ok(row.mirror.as_ref() != mirror);
        }
        let row = ItemRow { mirror_sequence: Some(change.sequence), mirror: mirror.cloned(), ..row };
        self.rebase(&change.key, &row, change.sequence)
    }

    /// The whole work for an item that is new here: a snapshot into an empty mirror is this alone.
    fn insert_mirror(&self, change: &Change, fields: &[u8], generation: i64) -> Result<bool> {
        const SQL: &str = "INSERT INTO items (scope, kind, device, id, mirror_sequence, mirror_deleted,
                mirror_fields, generation)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (scope, kind, device, id) DO NOTHING";
        let key = &change.key;
        let inserted = self.connection.prepare_cached(SQL)?.execute(params![
            key.scope.as_str(),
            key.kind.as_str(),
            key.device,
            key.id,
            change.sequence.0 as i64,
            change.deleted,
            fields,
            generation
        ])?;
        Ok(inserted == 1)
    }

    /// Lays the operations that still wait over the mirror state; without any, the mirror shows
    /// again. An edit that was accepted but whose result has not come (the mirror stands at `passed`)
    /// keeps showing as it is: what a person sees never goes back in between. True when readers see
    /// something else now.
    pub(super) fn rebase(&self, key: &ItemKey, row: &ItemRow, passed: Sequence) -> Result<bool> {
        if row.settled.is_some_and(|settled| settled.at > passed.0 as i64) {
            return Ok(false);
        }
        let waiting = self.waiting_actions(row.number, key)?;
        if waiting.is_empty() && row.mirror_sequence.is_none() {
            self.delete_row(row.number)?;
            return Ok(row.visible(false).is_some());
        }
        self.connection
            .prepare_cached(
                "UPDATE items SET local_deleted = NULL, local_fields = NULL, settled_at = NULL,
                    settled_by = NULL WHERE number = ?",
            )?
            .execute([row.number])?;
        if waiting.is_empty() {
            return Ok(row.visible(false) != row.mirror.as_ref());
        }
        let local = waiting.iter().fold(row.mirror.clone(), |fields, action| apply(fields.as_ref(), action));
        self.set_local(row.number, local.as_ref().map(Fields::encode).as_deref())?;
        Ok(row.visible(false) != local.as_ref())
    }

    fn waiting_actions(&self, number: i64, key: &ItemKey) -> Result<Vec<crate::model::Action>> {
        const SQL: &str = "SELECT record FROM outbox JOIN outbox_items USING (operation)
            WHERE item = ? ORDER BY operation";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query([number])?;
        let (mut actions, mut yielding) = (Vec::new(), Vec::new());
        while let Some(row) = rows.next()? {
            let operation = Operation::decode(row.get_ref(0)?.as_blob().unwrap_or_default())?;
            // The item may have moved since.
            let edit = operation.edits.into_iter().find(|edit| edit.key.is_same_item(key));
            let edit = edit.ok_or(DecodeError::Invalid("outbox names an item of no edit"))?;
            // What gives way lies beneath what somebody edited here.
            if operation.yields { &mut yielding } else { &mut actions }.push(edit.action);
        }
        yielding.append(&mut actions);
        Ok(yielding)
    }

    /// The cursor has passed accepted edits: the mirror shows what became of them.
    fn uncover_settled(&self, cursor: &Cursor) -> Result<Vec<ItemKey>> {
        const SQL: &str = "SELECT scope, kind, device, id FROM items WHERE settled_at <= ?";
        let mut changed = Vec::new();
        for key in self.keys(SQL, cursor.sequence.0 as i64)? {
            let Some(row) = self.row(&key)? else { continue };
            if self.rebase(&key, &row, cursor.sequence)? {
                changed.push(key);
            }
        }
        Ok(changed)
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
        let joining = self.is_joining()?;
        let mut changed = Vec::new();
        for key in self.keys(GONE, self.generation()?)? {
            let shown = self.forget_mirror(&key)? && !joining;
            changed.extend(shown.then_some(key));
        }
        self.connection.execute("UPDATE device SET resetting = 0 WHERE id = 1", [])?;
        Ok(changed)
    }

    fn forget_mirror(&self, key: &ItemKey) -> Result<bool> {
        let Some(row) = self.row(key)? else { return Ok(false) };
        if row.local.is_none() {
            self.delete_row(row.number)?;
            return Ok(row.mirror.is_some());
        }
        let sql = "UPDATE items SET mirror_sequence = NULL, mirror_deleted = NULL, mirror_fields = NULL
            WHERE number = ?";
        self.connection.prepare_cached(sql)?.execute([row.number])?;
        Ok(false)
    }

    /// Whether the reset under way has brought what the mirror has of an item.
    pub(super) fn came_again(&self, number: i64) -> Result<bool> {
        const SQL: &str = "SELECT generation FROM items WHERE number = ?";
        let of_item: Option<i64> =
            self.connection.prepare_cached(SQL)?.query_row([number], |row| row.get(0)).optional()?;
        Ok(of_item == Some(self.generation()?))
    }

    fn generation(&self) -> Result<i64> {
        let sql = "SELECT generation FROM device WHERE id = 1";
        Ok(self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
    }

    pub(super) fn keys(&self, sql: &str, parameter: i64) -> Result<Vec<ItemKey>> {
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
