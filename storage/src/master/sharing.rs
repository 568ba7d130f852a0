//! The sharing of kinds as the master holds it, and the items a switch looks at.

use std::collections::BTreeMap;

use rusqlite::params;

use super::{MasterItem, MasterRead, OperatorAct, position, sequence_of};
use crate::codec::DecodeError;
use crate::error::Result;
use crate::model::{
    FieldSequences, Fields, Incarnation, ItemKey, Kind, OperationNumber, SHARING_KIND, Scope, Sequence,
    Sharing, sharing_key,
};

/// The sharing of a kind, and the change that made it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Setting {
    /// As it is.
    pub sharing: Sharing,
    /// When it was last switched; zero when never.
    pub sequence: Sequence,
}

/// How many items of a kind live.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KindCount {
    /// Shared by all devices.
    pub shared: u64,
    /// By the devices that have them for themselves.
    pub own: BTreeMap<String, u64>,
}

impl MasterRead<'_> {
    /// The sharing of a kind.
    ///
    /// # Errors
    /// The database's.
    pub fn sharing(&self, kind: &Kind) -> Result<Setting> {
        let Some(key) = sharing_key(kind) else { return Ok(Setting::default()) };
        let item = self.item(&key)?;
        Ok(item.map_or_else(Setting::default, |item| Setting {
            sharing: Sharing::of(&item.fields),
            sequence: item.sequence,
        }))
    }

    /// The sharing of every kind that was ever switched.
    ///
    /// # Errors
    /// The database's.
    pub fn sharings(&self) -> Result<BTreeMap<Kind, Setting>> {
        const SQL: &str = "SELECT id, fields, position FROM items
            WHERE scope = 'shared' AND kind = ? AND device = '' AND deleted = 0";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query([SHARING_KIND])?;
        let mut settings = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let kind = Kind::parse(row.get_ref(0)?.as_str().unwrap_or_default());
            let kind = kind.map_err(|_| DecodeError::Invalid("item key"))?;
            let fields = Fields::decode(row.get_ref(1)?.as_blob().unwrap_or_default())?;
            let sequence = sequence_of(row.get(2)?);
            settings.insert(kind, Setting { sharing: Sharing::of(&fields), sequence });
        }
        Ok(settings)
    }

    /// How many items of each kind live, shared and of each device.
    ///
    /// # Errors
    /// The database's, or its reader's deadline.
    pub fn kind_counts(&self) -> Result<BTreeMap<Kind, KindCount>> {
        const SQL: &str = "SELECT kind, device, count(*) FROM items WHERE deleted = 0 GROUP BY kind, device";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query([])?;
        let mut counts: BTreeMap<Kind, KindCount> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let kind = Kind::parse(row.get_ref(0)?.as_str().unwrap_or_default());
            let count = counts.entry(kind.map_err(|_| DecodeError::Invalid("item key"))?).or_default();
            let (device, items): (String, i64) = (row.get(1)?, row.get(2)?);
            if device.is_empty() {
                count.shared = items as u64;
            } else {
                count.own.insert(device, items as u64);
            }
        }
        Ok(counts)
    }

    /// The scopes that have, or had, items of a kind, in order.
    ///
    /// # Errors
    /// The database's, or its reader's deadline.
    pub fn scopes_with(&self, kind: &Kind) -> Result<Vec<Scope>> {
        const SQL: &str = "SELECT DISTINCT scope FROM items WHERE kind = ? ORDER BY scope";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query([kind.as_str()])?;
        let mut scopes = Vec::new();
        while let Some(row) = rows.next()? {
            let scope = Scope::parse(row.get_ref(0)?.as_str().unwrap_or_default());
            scopes.push(scope.map_err(|_| DecodeError::Invalid("item key"))?);
        }
        Ok(scopes)
    }

    /// All items of a scope and kind, tombstones included: what belongs to one id stands together, the
    /// shared one first.
    ///
    /// # Errors
    /// The database's.
    pub fn items_of_kind(&self, scope: &Scope, kind: &Kind) -> Result<Vec<(ItemKey, MasterItem)>> {
        const SQL: &str = "SELECT id, device, position, deleted, fields, field_sequences FROM items
            WHERE scope = ? AND kind = ? ORDER BY id, device";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query([scope.as_str(), kind.as_str()])?;
        let mut items = Vec::new();
        while let Some(row) = rows.next()? {
            let key =
                ItemKey { scope: scope.clone(), kind: kind.clone(), id: row.get(0)?, device: row.get(1)? };
            let item = MasterItem {
                sequence: sequence_of(row.get(2)?),
                deleted: row.get(3)?,
                fields: Fields::decode(row.get_ref(4)?.as_blob().unwrap_or_default())?,
                field_sequences: FieldSequences::decode(row.get_ref(5)?.as_blob().unwrap_or_default())?,
            };
            items.push((key, item));
        }
        Ok(items)
    }

    /// What the operator did at a sequence; none for a device's operation.
    ///
    /// # Errors
    /// The database's.
    pub fn act_at(&self, sequence: Sequence) -> Result<Option<OperatorAct>> {
        const SQL: &str =
            "SELECT incarnation, operation FROM changes WHERE position >= ? AND position < ? LIMIT 1";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query(params![position(sequence, 0), position(sequence.next(), 0)])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let (incarnation, operation): (i64, i64) = (row.get(0)?, row.get(1)?);
        Ok(OperatorAct::of(Incarnation(incarnation as u64), OperationNumber(operation as u64)))
    }
}
