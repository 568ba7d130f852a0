//! Changes made at the server itself, by its operator: who stands as their author, the forgetting of
//! what history keeps.
//!
//! What such a change does is decided in `mfpsync_replication::operator`.

use rusqlite::{OptionalExtension, params};

use super::{Author, Extent, MasterRead, MasterWrite, position};
use crate::error::Result;
use crate::model::{
    DeviceId, ERASED_KIND, ErasedMark, Erasure, Fields, GroupId, Incarnation, OperationNumber, Scope,
    Sequence, erasure_key,
};

/// The incarnation under which the operator's changes stand; devices draw theirs from 1 on.
pub const OPERATOR: Incarnation = Incarnation(0);

/// What the operator did; the number stands where a device's operation number would.
///
/// **Source**: `docs/formats.md`, "The operator's changes". Numbers are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperatorAct {
    /// Took changes back.
    Undo = 1,
    /// Deleted a user.
    DeleteUser = 2,
    /// Erased a user.
    Erase = 3,
    /// Opened an erased user's name again.
    Readmit = 4,
    /// Changed the sharing of a kind.
    Share = 5,
    /// Brought items back from an archive.
    BringBack = 6,
}

impl OperatorAct {
    /// The act behind an author; none for a device's own operation.
    #[must_use]
    pub fn of(incarnation: Incarnation, operation: OperationNumber) -> Option<Self> {
        let acts = [Self::Undo, Self::DeleteUser, Self::Erase, Self::Readmit, Self::Share, Self::BringBack];
        acts.into_iter().find(|act| incarnation == OPERATOR && operation.0 == *act as u64)
    }
}

impl Author {
    /// The operator at the server's own panel.
    #[must_use]
    pub fn operator(server: DeviceId, act: OperatorAct, actor: String, now: u64) -> Self {
        Self {
            device: server,
            incarnation: OPERATOR,
            operation: OperationNumber(act as u64),
            actor,
            made_at: now,
            accepted_at: now,
        }
    }
}

/// How far the forgetting of old history has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    /// Rows whose values were forgotten.
    pub rows: usize,
    /// Where to go on; none at the end.
    pub next: Option<i64>,
}

impl MasterWrite<'_> {
    /// Forgets prior and losing values accepted up to `through`, looking at no more than `rows` changes
    /// behind the position `after`. The order of changes stays.
    ///
    /// # Errors
    /// The database's.
    pub fn prune_history(&self, through: Extent, after: i64, rows: u32) -> Result<Pruned> {
        const END: &str = "SELECT position FROM changes WHERE position > ? AND position < ? ORDER BY position LIMIT 1 OFFSET ?";
        const FORGET: &str = "UPDATE changes SET prior_fields = NULL, lost_fields = NULL
            WHERE position > ?1 AND position <= ?2 AND (prior_fields IS NOT NULL OR lost_fields IS NOT NULL)";
        let bound = position(Sequence(through.sequence.0.saturating_add(1)), 0);
        let end: Option<i64> = self
            .connection
            .prepare_cached(END)?
            .query_row(params![after, bound, rows.saturating_sub(1)], |row| row.get(0))
            .optional()?;
        let last = end.unwrap_or(bound - 1);
        let mut forgotten = self.connection.prepare_cached(FORGET)?.execute([after, last])?;
        if end.is_none() {
            forgotten += self
                .connection
                .prepare_cached("DELETE FROM superseded WHERE number <= ?")?
                .execute([through.superseded])?;
        }
        Ok(Pruned { rows: forgotten, next: end })
    }

    /// Wipes what the history keeps of one scope: values before, losing values, lost edits, and the
    /// names of scope and items, for which `stand_in` stands from now on; and the name of a person
    /// wherever it stands as the actor. An item's chain of changes goes by positions and stays whole.
    ///
    /// # Errors
    /// The database's.
    pub fn wipe_history(&self, scope: &Scope, stand_in: &Scope, actor: &str) -> Result<()> {
        const CHANGES: &str = "UPDATE changes SET actor = iif(actor = ?2, '', actor),
                prior_fields = iif(scope = ?1, NULL, prior_fields),
                lost_fields = iif(scope = ?1, NULL, lost_fields),
                id = iif(scope = ?1, 'erased', id), scope = iif(scope = ?1, ?3, scope)
            WHERE scope = ?1 OR actor = ?2";
        self.connection.prepare_cached(CHANGES)?.execute([scope.as_str(), actor, stand_in.as_str()])?;
        self.connection
            .prepare_cached("DELETE FROM superseded WHERE scope = ?")?
            .execute([scope.as_str()])?;
        self.connection
            .prepare_cached("UPDATE superseded SET actor = '' WHERE actor = ?")?
            .execute([actor])?;
        self.connection.prepare_cached("DELETE FROM offered WHERE scope = ?")?.execute([scope.as_str()])?;
        Ok(())
    }
}

impl MasterRead<'_> {
    /// The mark of an erased user; none for everybody else.
    ///
    /// # Errors
    /// The database's.
    pub fn erasure(&self, group: GroupId, scope: &Scope) -> Result<Option<Erasure>> {
        let Some(key) = erasure_key(group, scope) else { return Ok(None) };
        let item = self.item(&key)?;
        Ok(item.map(|item| Erasure { mark: ErasedMark::of(&item.fields), sequence: item.sequence }))
    }

    /// The marks of all users that were ever erased, with their hashes, oldest first.
    ///
    /// # Errors
    /// The database's.
    pub fn erasures(&self) -> Result<Vec<(String, Erasure)>> {
        const SQL: &str = "SELECT id, fields, position FROM items
            WHERE scope = 'shared' AND kind = ? AND device = '' AND deleted = 0 ORDER BY position";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query([ERASED_KIND])?;
        let mut erasures = Vec::new();
        while let Some(row) = rows.next()? {
            let fields = Fields::decode(row.get_ref(1)?.as_blob().unwrap_or_default())?;
            let sequence = super::sequence_of(row.get(2)?);
            erasures.push((row.get(0)?, Erasure { mark: ErasedMark::of(&fields), sequence }));
        }
        Ok(erasures)
    }

    /// The first change accepted at or after a time (Unix milliseconds): a person's way to name a
    /// sequence. One behind the head when there is none.
    ///
    /// # Errors
    /// The database's.
    pub fn first_since(&self, accepted_at: u64) -> Result<Sequence> {
        const SQL: &str = "SELECT min(position) FROM changes WHERE accepted_at >= ?";
        let first: Option<i64> =
            self.connection.prepare_cached(SQL)?.query_row([accepted_at as i64], |row| row.get(0))?;
        let behind = self.founded_head()?.sequence.next();
        Ok(first.map_or(behind, super::sequence_of))
    }
}
