//! Reads of items and of the order of changes.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, params};

use super::{MasterRead, position, sequence_of};
use crate::codec::DecodeError;
use crate::error::{Error, Result};
use crate::model::{
    Chain, ChangeBatch, ContentHash, Cursor, Epoch, FieldSequences, Fields, GroupId, Incarnation, ItemKey,
    Kind, PublicKey, Revision, Scope, Sequence,
};
use crate::users::{self, Columns, User};

/// Where the master stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The group.
    pub group: GroupId,
    /// Its name for people.
    pub group_name: String,
    /// The trust anchor.
    pub root_key: PublicKey,
    /// The reign.
    pub epoch: Epoch,
    /// The last accepted operation.
    pub sequence: Sequence,
    /// The chain there.
    pub chain: Chain,
    /// Tombstones up to here may have been collected.
    pub tombstone_floor: Sequence,
}

impl Head {
    /// The head as a cursor.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor { group: self.group, epoch: self.epoch, sequence: self.sequence, chain: self.chain }
    }

    /// The head as a revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision { epoch: self.epoch.number, sequence: self.sequence }
    }
}

/// An item as the master holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterItem {
    /// The change that made it so.
    pub sequence: Sequence,
    /// A tombstone.
    pub deleted: bool,
    /// Its fields.
    pub fields: Fields,
    /// When each field last changed.
    pub field_sequences: FieldSequences,
}

/// A run of changes, ready to travel.
#[derive(Debug)]
pub struct ChangesRead {
    /// The change records.
    pub batch: ChangeBatch,
    /// Up to where a reader of them has everything.
    pub through: Sequence,
    /// Whether that is the end for now.
    pub complete: bool,
}

impl MasterRead<'_> {
    /// Where the master stands; none before a group was founded in this file.
    ///
    /// # Errors
    /// The database's.
    pub fn head(&self) -> Result<Option<Head>> {
        const SQL: &str =
            "SELECT group_id, group_name, root_key, epoch, nonce, sequence, chain, tombstone_floor
            FROM head WHERE id = 1";
        let head = self.connection.prepare_cached(SQL)?.query_row([], |row| {
            Ok(Head {
                group: GroupId(row.get(0)?),
                group_name: row.get(1)?,
                root_key: PublicKey(row.get(2)?),
                epoch: Epoch { number: row.get::<_, i64>(3)? as u64, nonce: row.get(4)? },
                sequence: Sequence(row.get::<_, i64>(5)? as u64),
                chain: Chain(row.get(6)?),
                tombstone_floor: Sequence(row.get::<_, i64>(7)? as u64),
            })
        });
        Ok(head.optional()?)
    }

    /// The head of a founded group.
    ///
    /// # Errors
    /// A file without a group, or the database's.
    pub fn founded_head(&self) -> Result<Head> {
        self.head()?.ok_or(Error::Record(DecodeError::Invalid("no group was founded in this file")))
    }

    /// One item, tombstones included.
    ///
    /// # Errors
    /// The database's.
    pub fn item(&self, key: &ItemKey) -> Result<Option<MasterItem>> {
        self.prior(key)?.map(|prior| prior.item()).transpose()
    }

    /// Changes after `after` in order, about `limit_bytes` of them, never splitting an operation.
    /// Rows go into the batch as they are stored.
    ///
    /// # Errors
    /// The database's, or its reader's deadline.
    pub fn changes_after(&self, after: Sequence, limit_bytes: usize) -> Result<ChangesRead> {
        const SQL: &str = "SELECT position, scope, kind, device, id, deleted, fields FROM items
            WHERE position >= ? ORDER BY position";
        let head = self.founded_head()?.sequence;
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query([position(after.next(), 0)])?;
        let mut batch = ChangeBatch::default();
        let mut through = after;
        while let Some(row) = rows.next()? {
            let sequence = sequence_of(row.get(0)?);
            if sequence > through && !batch.is_empty() && batch.len() >= limit_bytes {
                return Ok(ChangesRead { batch, through, complete: false });
            }
            let text = |column| row.get_ref(column).map(|value| value.as_str().unwrap_or_default());
            let key = [text(1)?, text(2)?, text(3)?, text(4)?];
            let fields = row.get_ref(6)?.as_blob().unwrap_or_default();
            batch.push_row(key, sequence, row.get(5)?, fields);
            through = sequence;
        }
        // Sequences whose items were all changed again leave no row: the end is the head.
        Ok(ChangesRead { batch, through: through.max(head), complete: true })
    }

    /// The chain at a sequence; none when nothing is known of it (any more).
    ///
    /// # Errors
    /// The database's.
    pub fn chain_at(&self, sequence: Sequence) -> Result<Option<Chain>> {
        const SQL: &str =
            "SELECT chain FROM changes WHERE position >= ? AND position < ? ORDER BY position DESC LIMIT 1";
        if sequence == Sequence::ZERO {
            return Ok(Some(Chain::START));
        }
        let range = params![position(sequence, 0), position(sequence.next(), 0)];
        let chain = self.connection.prepare_cached(SQL)?.query_row(range, |row| row.get(0).map(Chain));
        Ok(chain.optional()?)
    }

    /// The incarnation whose operation was accepted at a sequence.
    ///
    /// # Errors
    /// The database's.
    pub fn author_of(&self, sequence: Sequence) -> Result<Option<Incarnation>> {
        const SQL: &str = "SELECT incarnation FROM changes WHERE position >= ? AND position < ? LIMIT 1";
        let range = params![position(sequence, 0), position(sequence.next(), 0)];
        let author =
            self.connection.prepare_cached(SQL)?.query_row(range, |row| row.get::<_, i64>(0)).optional()?;
        Ok(author.map(|incarnation| Incarnation(incarnation as u64)))
    }

    /// The content hash of every scope and kind, from the items themselves.
    ///
    /// # Errors
    /// The database's, or its reader's deadline.
    pub fn content_hashes(&self) -> Result<BTreeMap<(Scope, Kind), ContentHash>> {
        const SQL: &str = "SELECT scope, kind, device, id, fields FROM items WHERE deleted = 0";
        crate::content::hashes(self.connection, SQL)
    }

    /// How many items there are, tombstones not counted; kept as they come and go.
    ///
    /// # Errors
    /// The database's.
    pub fn item_count(&self) -> Result<u64> {
        let sql = "SELECT items FROM head WHERE id = 1";
        let count = self.connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0));
        Ok(count.optional()?.unwrap_or(0) as u64)
    }

    /// Users in order of their ids, behind the id `after`.
    ///
    /// # Errors
    /// The database's, or its reader's deadline.
    pub fn users(&self, after: &str, limit: u32) -> Result<Vec<User>> {
        const COLUMNS: Columns<'static> = Columns { fields: "fields", lives: "deleted = 0" };
        users::users(self.connection, &COLUMNS, after, limit)
    }

    /// How many users have an item. One step of the index for each user, not for each item.
    ///
    /// # Errors
    /// The database's.
    pub fn count_users(&self) -> Result<u64> {
        const SQL: &str = "WITH RECURSIVE scopes(scope) AS (
                SELECT min(scope) FROM items WHERE scope > 'user/' AND scope < 'user0'
                UNION ALL
                SELECT (SELECT min(scope) FROM items WHERE scope > scopes.scope AND scope < 'user0')
                FROM scopes WHERE scopes.scope IS NOT NULL)
            SELECT count(*) FROM scopes
            WHERE EXISTS (SELECT 1 FROM items WHERE items.scope = scopes.scope AND deleted = 0)";
        Ok(self.connection.prepare_cached(SQL)?.query_row([], |row| row.get::<_, i64>(0))? as u64)
    }

    /// Whether a scope has an item, of whichever device.
    ///
    /// # Errors
    /// The database's.
    pub fn has_items(&self, scope: &Scope) -> Result<bool> {
        const SQL: &str = "SELECT EXISTS (SELECT 1 FROM items WHERE scope = ? AND deleted = 0)";
        Ok(self.connection.prepare_cached(SQL)?.query_row([scope.as_str()], |row| row.get(0))?)
    }

    /// Items of a scope that all devices share, or with a device's id those of its own, and their encoded bytes, for
    /// quotas. Reads each item of the scope.
    ///
    /// # Errors
    /// The database's.
    pub fn scope_usage(&self, scope: &Scope, device: &str) -> Result<(u64, u64)> {
        const SQL: &str = "SELECT count(*), coalesce(sum(length(fields)), 0) FROM items
            WHERE scope = ? AND deleted = 0 AND device = ?";
        let of = [scope.as_str(), device];
        let usage = self
            .connection
            .prepare_cached(SQL)?
            .query_row(of, |row| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64)))?;
        Ok(usage)
    }
}
