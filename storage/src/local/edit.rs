//! Edits made at this device. I-02: they change what readers see and enter the outbox in one transaction,
//! and leave it only with the server's answer.

use rusqlite::params;

use super::read::ItemRow;
use super::usage::{Growth, Usage};
use super::{DeviceState, LocalWrite};
use crate::error::{Error, Result};
use crate::model::{Action, Base, Edit, Fields, ItemKey, Operation, OperationNumber, Revision, limit};

/// An edit as a caller of the local API makes it.
#[derive(Debug, Clone)]
pub struct LocalEdit {
    /// Which item.
    pub key: ItemKey,
    /// What to do.
    pub action: Action,
}

/// How much may wait for the server.
#[derive(Debug, Clone, Copy)]
pub struct OutboxLimits {
    /// Operations.
    pub operations: u64,
    /// Bytes of their records.
    pub bytes: u64,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self { operations: 50_000, bytes: 64 << 20 }
    }
}

/// What an edit needs to know besides itself.
#[derive(Debug, Clone)]
pub struct EditContext {
    /// The person or program.
    pub actor: String,
    /// Wall clock, Unix milliseconds; informs only.
    pub now: u64,
    /// Bounds of the outbox; none for what the device held before, which no bound refuses, that of a
    /// user's room included.
    pub limits: Option<OutboxLimits>,
}

/// What came of edits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The operation that carries them to the server; none outside a group, or when nothing changed.
    pub operation: Option<OperationNumber>,
    /// How much room the users concerned have used now.
    pub users: Vec<Usage>,
}

/// The fields of an item after an action; none when deleted.
pub(super) fn apply(standing: Option<&Fields>, action: &Action) -> Option<Fields> {
    match action {
        Action::Put(fields) => Some(fields.clone()),
        Action::Patch { set, remove } => {
            let mut fields = standing.cloned().unwrap_or_default();
            for name in remove {
                fields.remove(name);
            }
            for (name, value) in set.iter() {
                fields.insert(name, value.clone());
            }
            Some(fields)
        }
        Action::Delete => None,
    }
}

impl LocalWrite<'_> {
    /// Stores edits that belong together. In a group they become one operation in the outbox, whose
    /// number is returned; outside of one, and while joining one, they only change the device's own
    /// items. Edits that change nothing are left out. An edit goes where [the item's
    /// place](super::LocalRead::place) is.
    ///
    /// # Errors
    /// [`Error::OutboxFull`], [`Error::ItemTooLarge`], [`Error::UserFull`], [`Error::Erased`],
    /// [`Error::Unacceptable`], or the database's; nothing is stored then.
    pub fn edit(&self, edits: Vec<LocalEdit>, context: &EditContext) -> Result<Option<OperationNumber>> {
        self.edit_counted(edits, context).map(|edited| edited.operation)
    }

    /// As [`LocalWrite::edit`], and says how much room the users concerned have used.
    ///
    /// # Errors
    /// As [`LocalWrite::edit`].
    pub fn edit_counted(&self, edits: Vec<LocalEdit>, context: &EditContext) -> Result<Edited> {
        let device = self.device()?;
        let joining = self.is_joining()?;
        let grouped = !joining && self.membership()?.is_some();
        let cursor = device.cursor.as_ref();
        let mut made = Vec::new();
        let mut growth = Growth::default();
        for LocalEdit { key, action } in edits {
            let key = self.place(&key)?;
            self.refuse_erased(&key.scope)?;
            let action = in_order(action);
            let row = self.row(&key)?;
            let visible = row.as_ref().and_then(|row| row.visible(joining));
            let after = apply(visible, &action);
            if visible == after.as_ref() {
                continue;
            }
            let encoded = after.as_ref().map(checked).transpose()?;
            growth.note(&key.scope, visible, encoded.as_deref());
            let number = self.show_local(&key, row.as_ref(), encoded.as_deref(), grouped)?;
            let mut base = self.base(row.as_ref(), &device)?;
            if let Some(readmitted) = self.erasure(&key.scope)? {
                // Nothing of before is left here: this author knows of the readmission.
                let sequence = base.revision.sequence.max(readmitted.sequence);
                let epoch = cursor.map_or(0, |cursor| cursor.epoch.number);
                base.revision = Revision { epoch, sequence };
            }
            made.push((number, Edit { key, base, action }));
        }
        let users = if context.limits.is_some() { growth.held_against_limits(self)? } else { Vec::new() };
        if made.is_empty() || !grouped {
            return Ok(Edited { operation: None, users });
        }
        let number = OperationNumber(device.last_operation.0 + 1);
        Ok(Edited { operation: Some(self.enqueue(number, made, context)?), users })
    }

    /// Queues an operation whose local effect already shows.
    pub(super) fn enqueue(
        &self,
        number: OperationNumber,
        made: Vec<(i64, Edit)>,
        context: &EditContext,
    ) -> Result<OperationNumber> {
        let (items, edits): (Vec<i64>, Vec<Edit>) = made.into_iter().unzip();
        let (made_at, actor) = (context.now, context.actor.clone());
        let operation = Operation { number, made_at, actor, yields: false, was: None, edits };
        let record = operation.encode();
        // What the server could not read would wait, or be refused, for ever.
        Operation::decode(&record).map_err(Error::Unacceptable)?;
        let waiting = self.waiting()?;
        let exceeds = |limits: OutboxLimits| {
            waiting.operations >= limits.operations || waiting.bytes + record.len() as u64 > limits.bytes
        };
        if context.limits.is_some_and(exceeds) {
            return Err(Error::OutboxFull { waiting: waiting.operations });
        }
        self.queue(&operation, &record, &items)?;
        Ok(number)
    }

    /// Puts an operation into the outbox: it waits for the server, on these rows.
    pub(super) fn queue(&self, operation: &Operation, record: &[u8], items: &[i64]) -> Result<()> {
        let number = operation.number.0 as i64;
        self.connection
            .prepare_cached("INSERT INTO outbox (operation, builds_on, record) VALUES (?, ?, ?)")?
            .execute(params![number, builds_on(operation).0 as i64, record])?;
        for item in items {
            self.connection
                .prepare_cached("INSERT INTO outbox_items (item, operation) VALUES (?, ?)")?
                .execute([*item, number])?;
        }
        self.connection
            .prepare_cached(
                "UPDATE device SET last_operation = max(last_operation, ?), waiting = waiting + 1,
                    waiting_bytes = waiting_bytes + ? WHERE id = 1",
            )?
            .execute([number, record.len() as i64])?;
        Ok(())
    }

    /// What the author of an edit sees of the item: the mirror's revision, and the latest operation
    /// on it that still waits or whose result the mirror has not shown yet. Of a deleted item all that
    /// the mirror has seen counts: the server may have forgotten when it was deleted. While all is read anew, what
    /// has not come again is no base: its number may be one that a reign which ended has given.
    pub(super) fn base(&self, row: Option<&ItemRow>, device: &DeviceState) -> Result<Base> {
        let Some(row) = row else { return Ok(Base::default()) };
        let came = !device.resetting || self.came_again(row.number)?;
        let cursor = device.cursor.as_ref().filter(|_| came);
        let epoch = cursor.map_or(0, |cursor| cursor.epoch.number);
        let seen = match (row.mirror_sequence, &row.mirror, cursor) {
            (Some(sequence), None, Some(cursor)) => Some(sequence.max(cursor.sequence)),
            (sequence, ..) => sequence,
        };
        let revision = seen.map_or_else(Revision::default, |sequence| Revision { epoch, sequence });
        let waiting: Option<i64> = self
            .connection
            .prepare_cached("SELECT max(operation) FROM outbox_items WHERE item = ?")?
            .query_row([row.number], |row| row.get(0))?;
        let after = waiting.or(row.settled.map(|settled| settled.by));
        Ok(Base { revision, after: after.map(|number| OperationNumber(number as u64)) })
    }

    /// Sets what readers see of an item and returns the row's number. Outside a group a deleted
    /// item leaves no trace.
    pub(super) fn show_local(
        &self,
        key: &ItemKey,
        row: Option<&ItemRow>,
        fields: Option<&[u8]>,
        grouped: bool,
    ) -> Result<i64> {
        if let Some(row) = row {
            if fields.is_none() && !grouped {
                self.drop_own(key)?;
            } else {
                self.set_local(row.number, fields)?;
            }
            return Ok(row.number);
        }
        self.connection
            .prepare_cached(
                "INSERT INTO items (scope, kind, device, id, generation, local_deleted, local_fields)
                    VALUES (?, ?, ?, ?, 0, ?, ?)",
            )?
            .execute(params![
                key.scope.as_str(),
                key.kind.as_str(),
                key.device,
                key.id,
                fields.is_none(),
                fields
            ])?;
        Ok(self.connection.last_insert_rowid())
    }

    pub(super) fn set_local(&self, number: i64, fields: Option<&[u8]>) -> Result<()> {
        self.connection
            .prepare_cached("UPDATE items SET local_deleted = ?, local_fields = ? WHERE number = ?")?
            .execute(params![fields.is_none(), fields, number])?;
        Ok(())
    }

    pub(super) fn delete_row(&self, number: i64) -> Result<()> {
        self.connection.prepare_cached("DELETE FROM items WHERE number = ?")?.execute([number])?;
        Ok(())
    }
}

/// The encoding of fields that every reader will accept.
fn checked(fields: &Fields) -> Result<Vec<u8>> {
    let encoded = fields.encode();
    if fields.len() > limit::ITEM_FIELDS || encoded.len() > limit::ITEM_BYTES {
        return Err(Error::ItemTooLarge);
    }
    Fields::decode(&encoded).map_err(Error::Unacceptable)?;
    Ok(encoded)
}

/// A patch as the record wants it: removed names in order, once, and none of them also set.
fn in_order(action: Action) -> Action {
    match action {
        Action::Patch { set, mut remove } => {
            remove.retain(|name| set.get(name).is_none());
            remove.sort_unstable();
            remove.dedup();
            Action::Patch { set, remove }
        }
        Action::Put(_) | Action::Delete => action,
    }
}

/// The earliest operation whose outcome the server must still know when this one arrives.
fn builds_on(operation: &Operation) -> OperationNumber {
    operation.edits.iter().filter_map(|edit| edit.base.after).min().unwrap_or(operation.number)
}
