//! What readers at this device see.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, Row, params};

use super::LocalRead;
use super::place::SHOWN;
use crate::codec::DecodeError;
use crate::error::Result;
use crate::model::{ContentHash, Fields, ItemKey, Kind, Scope, Sequence};
use crate::users::{self, Columns, User};

/// How far an item has travelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemState {
    /// As last agreed with the server.
    Synced,
    /// Edited here, not yet seen in the group's order.
    Pending,
    /// This device's alone: it was never in a group's mirror, and no edit of it waits.
    Own,
}

/// An item as readers at this device see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalItem {
    /// Which item.
    pub key: ItemKey,
    /// Its fields.
    pub fields: Fields,
    /// How far it has travelled.
    pub state: ItemState,
}

/// A row of `items` with both its states.
pub(super) struct ItemRow {
    pub number: i64,
    pub mirror_sequence: Option<Sequence>,
    pub mirror: Option<Fields>,
    pub local: Option<Option<Fields>>,
    pub settled: Option<Settled>,
}

/// The latest accepted operation on an item whose result the mirror has not shown yet.
#[derive(Clone, Copy)]
pub(super) struct Settled {
    pub at: i64,
    pub by: i64,
}

impl ItemRow {
    /// What readers see: the local state where there is one, and that alone while joining.
    pub(super) fn visible(&self, joining: bool) -> Option<&Fields> {
        match &self.local {
            Some(local) => local.as_ref(),
            None if joining => None,
            None => self.mirror.as_ref(),
        }
    }
}

const LIVING: &str = "SELECT scope, kind, device, id, coalesce(local_fields, mirror_fields),
        mirror_sequence IS NOT NULL, local_deleted IS NOT NULL,
        EXISTS (SELECT 1 FROM outbox_items WHERE item = items.number) OR settled_at IS NOT NULL
    FROM items WHERE coalesce(local_deleted, mirror_deleted) = 0";

/// The same while joining: own items, whatever the mirror holds beneath them.
const LIVING_JOINING: &str = "SELECT scope, kind, device, id, local_fields, 0, 1, 0
    FROM items WHERE local_deleted = 0";

impl LocalRead<'_> {
    /// One item, wherever [its place](LocalRead::place) is; none when it does not exist or was deleted.
    ///
    /// # Errors
    /// The database's.
    pub fn item(&self, key: &ItemKey) -> Result<Option<LocalItem>> {
        let (key, lives) = (&self.place(key)?, self.living()?);
        let sql = format!("{lives} AND scope = ? AND kind = ? AND device = ? AND id = ?");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params![key.scope.as_str(), key.kind.as_str(), key.device, key.id])?;
        rows.next()?.map(visible_item).transpose()
    }

    /// Items of a scope, of one kind or all, in key order, at most `limit`, beginning behind `after`.
    ///
    /// # Errors
    /// The database's.
    pub fn items(
        &self,
        scope: &Scope,
        kind: Option<&Kind>,
        after: Option<&ItemKey>,
        limit: u32,
    ) -> Result<Vec<LocalItem>> {
        // A lower bound and an upper one that the index can seek, whatever was asked: no text is
        // smaller than the empty one, no byte string smaller than a text.
        let start = after.map_or(("", "", ""), |key| (key.kind.as_str(), &key.device, &key.id));
        let start = kind.map_or(start, |kind| start.max((kind.as_str(), "", "")));
        let end = if kind.is_some() { "kind <= ?6" } else { "?6 IS NULL" };
        let visible = self.visible()?;
        let sql = format!(
            "{visible} AND scope = ?1 AND (kind, device, id) > (?2, ?3, ?4) AND {end}
             ORDER BY kind, device, id LIMIT ?5"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params![
            scope.as_str(),
            start.0,
            start.1,
            start.2,
            limit,
            kind.map(Kind::as_str)
        ])?;
        let mut items = Vec::new();
        while let Some(row) = rows.next()? {
            items.push(visible_item(row)?);
        }
        Ok(items)
    }

    /// How many items readers see.
    ///
    /// # Errors
    /// The database's, or its reader's deadline.
    pub fn visible_count(&self) -> Result<u64> {
        let sql = format!("SELECT count(*) FROM items WHERE {}", self.lives()?);
        let count: i64 = self.connection.query_row(&sql, [], |row| row.get(0))?;
        Ok(count.cast_unsigned())
    }

    /// Users in order of their ids, behind the id `after`.
    ///
    /// # Errors
    /// The database's, or its reader's deadline.
    pub fn users(&self, after: &str, limit: u32) -> Result<Vec<User>> {
        let lives = self.lives()?;
        let columns = Columns { fields: "coalesce(local_fields, mirror_fields)", lives: &lives };
        users::users(self.connection, &columns, after, limit)
    }

    /// The mirror's content hash of every scope and kind, from the rows themselves.
    ///
    /// # Errors
    /// The database's, or its reader's deadline.
    pub fn mirror_hashes(&self) -> Result<BTreeMap<(Scope, Kind), ContentHash>> {
        const SQL: &str = "SELECT scope, kind, device, id, mirror_fields FROM items WHERE mirror_deleted = 0";
        crate::content::hashes(self.connection, SQL)
    }

    /// The content hash of what readers see.
    ///
    /// # Errors
    /// The database's, or its reader's deadline.
    pub fn visible_hashes(&self) -> Result<BTreeMap<(Scope, Kind), ContentHash>> {
        crate::content::hashes(self.connection, &self.visible()?)
    }

    /// The item's revision in the mirror; none when the mirror does not have it.
    ///
    /// # Errors
    /// The database's.
    pub fn mirror_sequence(&self, key: &ItemKey) -> Result<Option<Sequence>> {
        Ok(self.row(key)?.and_then(|row| row.mirror_sequence))
    }

    /// Living items, of other devices too.
    fn living(&self) -> Result<&'static str> {
        Ok(if self.is_joining()? { LIVING_JOINING } else { LIVING })
    }

    fn visible(&self) -> Result<String> {
        Ok(if self.is_joining()? { LIVING_JOINING.to_owned() } else { format!("{LIVING} AND {SHOWN}") })
    }

    /// Which rows of `items` readers see.
    pub(super) fn lives(&self) -> Result<String> {
        Ok(if self.is_joining()? {
            "local_deleted = 0".to_owned()
        } else {
            format!("coalesce(local_deleted, mirror_deleted) = 0 AND {SHOWN}")
        })
    }

    pub(super) fn row(&self, key: &ItemKey) -> Result<Option<ItemRow>> {
        const SQL: &str = "SELECT number, mirror_sequence, mirror_deleted, mirror_fields, local_deleted,
                local_fields, settled_at, settled_by
            FROM items WHERE scope = ? AND kind = ? AND device = ? AND id = ?";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query(params![key.scope.as_str(), key.kind.as_str(), key.device, key.id])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let mirror_deleted: Option<bool> = row.get(2)?;
        let local_deleted: Option<bool> = row.get(4)?;
        Ok(Some(ItemRow {
            number: row.get(0)?,
            mirror_sequence: row.get::<_, Option<i64>>(1)?.map(|sequence| Sequence(sequence as u64)),
            mirror: state(row, 3, mirror_deleted)?.flatten(),
            local: state(row, 5, local_deleted)?,
            settled: row
                .get::<_, Option<i64>>(6)?
                .zip(row.get::<_, Option<i64>>(7)?)
                .map(|(at, by)| Settled { at, by }),
        }))
    }

    pub(super) fn count(&self, sql: &str) -> Result<u64> {
        let count = self.connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0));
        Ok(count.optional()?.unwrap_or(0) as u64)
    }
}

/// One side of a row: absent, deleted, or its fields.
fn state(row: &Row<'_>, column: usize, deleted: Option<bool>) -> Result<Option<Option<Fields>>> {
    Ok(match deleted {
        None => None,
        Some(true) => Some(None),
        Some(false) => Some(Some(Fields::decode(row.get_ref(column)?.as_blob().unwrap_or_default())?)),
    })
}

fn visible_item(row: &Row<'_>) -> Result<LocalItem> {
    let text = |column| row.get_ref(column).map(|value| value.as_str().unwrap_or_default());
    let key = ItemKey::parse(text(0)?, text(1)?, text(2)?, text(3)?)
        .map_err(|_| DecodeError::Invalid("item key"))?;
    let (mirrored, local, waits): (bool, bool, bool) = (row.get(5)?, row.get(6)?, row.get(7)?);
    let state = match (waits, mirrored, local) {
        (true, ..) => ItemState::Pending,
        (false, true, _) => ItemState::Synced,
        (false, false, _) => ItemState::Own,
    };
    Ok(LocalItem { key, fields: Fields::decode(row.get_ref(4)?.as_blob().unwrap_or_default())?, state })
}
