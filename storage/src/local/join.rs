//! Joining a group: the time in which the device follows it and its own items stay apart, what was
//! here before, and what the join changed.
//!
//! What becomes of each own item is decided in `mfpsync_replication::join`; here is what that reads
//! and writes. Between [`LocalWrite::join`] and [`LocalWrite::enter`] readers see the own items alone.

use rusqlite::{OptionalExtension, params};

use super::{LocalRead, LocalWrite, Membership};
use crate::codec::DecodeError;
use crate::error::{Error, Result};
use crate::model::{ERASED_KIND, ErasedMark, Fields, Incarnation, ItemKey, Kind, Scope, Sequence};

/// How far the device's own items and its group have come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The mirror fills; the own items stay apart and edits of them wait for nobody.
    Joining,
    /// One set of data.
    Member,
    /// The join is being taken back: when nothing waits any more, the device leaves.
    Undoing,
}

/// An item as the group has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrored {
    /// Its last change.
    pub sequence: Sequence,
    /// Its fields; none when it was deleted.
    pub fields: Option<Fields>,
}

/// What the join made of one of the group's items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinEdit {
    /// Which item.
    pub key: ItemKey,
    /// As the group had it; none when it did not.
    pub before: Option<Fields>,
    /// As it was offered.
    pub after: Fields,
}

impl LocalRead<'_> {
    /// Where a join stands; none outside of a group.
    ///
    /// # Errors
    /// The database's.
    pub fn phase(&self) -> Result<Option<Phase>> {
        const SQL: &str = "SELECT phase FROM membership WHERE id = 1";
        let phase = self.connection.prepare_cached(SQL)?.query_row([], |row| row.get::<_, i64>(0));
        Ok(phase.optional()?.map(|phase| match phase {
            0 => Phase::Joining,
            1 => Phase::Member,
            _ => Phase::Undoing,
        }))
    }

    pub(super) fn is_joining(&self) -> Result<bool> {
        Ok(self.phase()? == Some(Phase::Joining))
    }

    /// What was wished for the own items when the join began; none when a person decides later.
    ///
    /// # Errors
    /// The database's.
    pub fn wishes(&self) -> Result<Option<Vec<u8>>> {
        const SQL: &str = "SELECT wishes FROM membership WHERE id = 1";
        let wishes = self.connection.prepare_cached(SQL)?.query_row([], |row| row.get(0)).optional()?;
        Ok(wishes.flatten())
    }

    /// The keys of the own items while joining, in order.
    ///
    /// # Errors
    /// The database's.
    pub fn own_keys(&self) -> Result<Vec<ItemKey>> {
        const SQL: &str = "SELECT scope, kind, device, id FROM items WHERE local_deleted = 0
            ORDER BY scope, kind, device, id";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query([])?;
        let mut keys = Vec::new();
        while let Some(row) = rows.next()? {
            keys.push(key(row)?);
        }
        Ok(keys)
    }

    /// An item as the group has it; none when the group never had it, as far as is known.
    ///
    /// # Errors
    /// The database's.
    pub fn mirrored(&self, key: &ItemKey) -> Result<Option<Mirrored>> {
        let row = self.row(key)?;
        Ok(row.and_then(|row| Some(Mirrored { sequence: row.mirror_sequence?, fields: row.mirror })))
    }

    /// The group's items of a scope and kind in the order of their keys, deleted ones left out.
    ///
    /// # Errors
    /// The database's.
    pub fn mirror_items(&self, scope: &Scope, kind: &Kind) -> Result<Vec<(ItemKey, Fields)>> {
        const SQL: &str = "SELECT scope, kind, device, id, mirror_fields FROM items
            WHERE scope = ? AND kind = ? AND mirror_deleted = 0 ORDER BY device, id";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query([scope.as_str(), kind.as_str()])?;
        let mut items = Vec::new();
        while let Some(row) = rows.next()? {
            items.push((key(row)?, Fields::decode(row.get_ref(4)?.as_blob().unwrap_or_default())?));
        }
        Ok(items)
    }

    /// When the join that can be taken back was carried out, Unix milliseconds; none when nothing is
    /// kept of it.
    ///
    /// # Errors
    /// The database's.
    pub fn joined_at(&self) -> Result<Option<u64>> {
        const SQL: &str = "SELECT at FROM joined WHERE id = 1";
        let at = self.connection.prepare_cached(SQL)?.query_row([], |row| row.get::<_, i64>(0)).optional()?;
        Ok(at.map(|at| at as u64))
    }

    /// How many items the device had before the join.
    ///
    /// # Errors
    /// The database's.
    pub fn kept_own(&self) -> Result<u64> {
        self.count("SELECT count(*) FROM kept_own")
    }

    /// What the join changed in the group.
    ///
    /// # Errors
    /// The database's.
    pub fn join_edits(&self) -> Result<Vec<JoinEdit>> {
        const SQL: &str = "SELECT scope, kind, device, id, before, after FROM join_edits ORDER BY number";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query([])?;
        let mut edits = Vec::new();
        while let Some(row) = rows.next()? {
            let before = row.get_ref(4)?.as_blob_or_null()?;
            edits.push(JoinEdit {
                key: key(row)?,
                before: before.map(Fields::decode).transpose()?,
                after: Fields::decode(row.get_ref(5)?.as_blob().unwrap_or_default())?,
            });
        }
        Ok(edits)
    }
}

impl LocalWrite<'_> {
    /// Becomes a member of a group with a new incarnation. The own items stay apart until
    /// [`LocalWrite::enter`]; `wishes` says what shall become of them, for whoever carries it out.
    ///
    /// # Errors
    /// The database's, or [`Error::Busy`] when the device belongs to a group already.
    pub fn join(
        &self,
        membership: &Membership,
        incarnation: Incarnation,
        wishes: Option<&[u8]>,
    ) -> Result<()> {
        if self.membership()?.is_some() {
            return Err(Error::Busy);
        }
        self.connection.execute(
            "INSERT INTO membership (id, group_id, group_name, root_key, phase, wishes)
                VALUES (1, ?, ?, ?, 0, ?)",
            params![membership.group.0, membership.group_name, membership.root_key.0, wishes],
        )?;
        self.connection.execute(
            "UPDATE device SET incarnation = ?, last_operation = 0, low_water = 0, cursor = NULL,
                resetting = 0, retained_dropped = 0 WHERE id = 1",
            [incarnation.0 as i64],
        )?;
        self.forget_join()
    }

    /// Changes what is wished for while the device is joining.
    ///
    /// # Errors
    /// The database's.
    pub fn wish(&self, wishes: Option<&[u8]>) -> Result<()> {
        self.connection.execute("UPDATE membership SET wishes = ? WHERE id = 1 AND phase = 0", [wishes])?;
        Ok(())
    }

    /// I-10: in the caller's one transaction, so that a power cut leaves the device joining or joined.
    /// Keeps a copy of the own items, and from now on shows the group's: own items that are still
    /// there belong to it and are no longer alone.
    ///
    /// # Errors
    /// The database's, or [`Error::Busy`] when the device is not joining.
    pub fn enter(&self, now: u64) -> Result<()> {
        if !self.is_joining()? {
            return Err(Error::Busy);
        }
        self.forget_join()?;
        self.connection.execute(
            "INSERT INTO joined (id, at, hours_run, parted_from)
                VALUES (1, ?, 0, (SELECT parted_from FROM device WHERE id = 1))",
            [now as i64],
        )?;
        self.connection.execute_batch(
            "INSERT INTO kept_own (scope, kind, device, id, fields, parted_fields)
                SELECT scope, kind, device, id, local_fields, parted_fields FROM items
                WHERE local_deleted = 0;
             UPDATE items SET parted_fields = NULL WHERE parted_fields IS NOT NULL;
             UPDATE device SET parted_from = NULL WHERE id = 1;
             UPDATE membership SET phase = 1, wishes = NULL WHERE id = 1;",
        )?;
        // News of erasures came while the own items stayed apart.
        let erased = Kind::parse(ERASED_KIND).map_err(|_| DecodeError::Invalid("kind"))?;
        for (mark, fields) in self.mirror_items(&Scope::shared(), &erased)? {
            if !ErasedMark::of(&fields).readmitted {
                self.purge(&mark)?;
            }
        }
        Ok(())
    }

    /// Forgets what is kept of a join and belongs to an erased user.
    pub(super) fn purge_kept_of_join(&self, is_meant: &impl Fn(&Scope) -> bool) -> Result<()> {
        const SCOPES: &str = "SELECT scope FROM kept_own UNION SELECT scope FROM join_edits";
        let mut statement = self.connection.prepare_cached(SCOPES)?;
        let scopes: Vec<String> =
            statement.query_map([], |row| row.get(0))?.collect::<std::result::Result<_, _>>()?;
        for text in scopes {
            let scope = Scope::parse(&text).map_err(|_| DecodeError::Invalid("item key"))?;
            if is_meant(&scope) {
                self.connection.prepare_cached("DELETE FROM kept_own WHERE scope = ?")?.execute([&text])?;
                self.connection.prepare_cached("DELETE FROM join_edits WHERE scope = ?")?.execute([&text])?;
            }
        }
        Ok(())
    }

    /// Takes an own item out of the way of the group's.
    ///
    /// # Errors
    /// The database's.
    pub fn drop_own(&self, key: &ItemKey) -> Result<()> {
        match self.row(key)? {
            Some(row) if row.mirror_sequence.is_some() => self
                .connection
                .prepare_cached(
                    "UPDATE items SET local_deleted = NULL, local_fields = NULL WHERE number = ?",
                )?
                .execute([row.number])
                .map(drop)?,
            Some(row) => self.delete_row(row.number)?,
            None => {}
        }
        Ok(())
    }

    /// Notes what the join makes of an item of the group.
    ///
    /// # Errors
    /// The database's.
    pub fn note_join_edit(&self, edit: &JoinEdit) -> Result<()> {
        let key = &edit.key;
        self.connection
            .prepare_cached(
                "INSERT INTO join_edits (scope, kind, device, id, before, after) VALUES (?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                key.scope.as_str(),
                key.kind.as_str(),
                key.device,
                key.id,
                edit.before.as_ref().map(Fields::encode),
                edit.after.encode()
            ])?;
        Ok(())
    }

    /// From now on the join is being taken back.
    ///
    /// # Errors
    /// The database's.
    pub fn begin_undo(&self) -> Result<()> {
        self.connection.execute("UPDATE membership SET phase = 2 WHERE id = 1", [])?;
        Ok(())
    }

    /// Leaves the group with the items the device had before it joined. So many edits may be given up
    /// that never reached the server; how many were is returned.
    ///
    /// # Errors
    /// The database's, or [`Error::Busy`] when no join is being taken back or more edits wait.
    pub fn leave_as_before(&self, accept_unsent: u64) -> Result<u64> {
        if self.phase()? != Some(Phase::Undoing) || self.waiting()?.operations > accept_unsent {
            return Err(Error::Busy);
        }
        let unsent = self.leave()?;
        self.connection.execute_batch(
            "DELETE FROM items;
             INSERT INTO items (scope, kind, device, id, generation, local_deleted, local_fields,
                    parted_fields)
                SELECT scope, kind, device, id, 0, 0, fields, parted_fields FROM kept_own;
             UPDATE device SET parted_from = (SELECT parted_from FROM joined WHERE id = 1) WHERE id = 1;",
        )?;
        self.forget_join()?;
        Ok(unsent)
    }

    /// Counts an hour of running since the join, and drops what is kept of it when that makes `limit`.
    ///
    /// # Errors
    /// The database's.
    pub fn age_join(&self, limit: u64) -> Result<()> {
        const SQL: &str = "UPDATE joined SET hours_run = hours_run + 1 WHERE id = 1 RETURNING hours_run";
        let hours: Option<i64> =
            self.connection.prepare_cached(SQL)?.query_row([], |row| row.get(0)).optional()?;
        let undoing = self.phase()? == Some(Phase::Undoing);
        match hours {
            Some(hours) if hours as u64 >= limit && !undoing => self.forget_join(),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn forget_join(&self) -> Result<()> {
        self.connection.execute_batch("DELETE FROM joined; DELETE FROM kept_own; DELETE FROM join_edits;")?;
        Ok(())
    }
}

pub(super) fn key(row: &rusqlite::Row<'_>) -> Result<ItemKey> {
    let text = |column| row.get_ref(column).map(|value| value.as_str().unwrap_or_default());
    let key = ItemKey::parse(text(0)?, text(1)?, text(2)?, text(3)?);
    Ok(key.map_err(|_| DecodeError::Invalid("item key"))?)
}
