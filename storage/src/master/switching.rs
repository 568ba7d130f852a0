//! A switch of sharing that is under way: how far it has come, and the items it looks at next.
//!
//! Items move in the order of scope and id, some in each transaction. Everything up to
//! [`Switching::through`] is as it will be, everything behind it as it was: [`MasterRead::sharing_of`].

use rusqlite::{OptionalExtension, params};

use super::{MasterItem, MasterRead, MasterWrite, Setting, position, sequence_of};
use crate::codec::DecodeError;
use crate::error::Result;
use crate::model::{DeviceId, FieldSequences, Fields, ItemKey, Kind, Place, Scope, Sequence, Tally, Target};

/// Scopes looked into for one portion, whether they have items of the kind or not.
const SCOPES: usize = 2_000;

/// A switch that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switching {
    /// Of which kind.
    pub kind: Kind,
    /// How it shall be.
    pub to: Target,
    /// Who ordered it.
    pub actor: String,
    /// Where the group stood before it; no two have the same.
    pub began: Sequence,
    /// Items up to here have moved, those behind it have not.
    pub through: Place,
    /// Its last change, or where the group stood before it.
    pub sequence: Sequence,
    /// Items that were concerned when it began.
    pub expected: u64,
    /// What it has done so far.
    pub tally: Tally,
}

impl Switching {
    /// Whether an item is as it will be; also one that does not exist.
    #[must_use]
    pub fn has_moved(&self, key: &ItemKey) -> bool {
        (key.scope.as_str(), key.id.as_str()) <= (self.through.scope.as_str(), self.through.id.as_str())
    }
}

/// The next items of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Portion {
    /// Tombstones included. What belongs to one id stands together and is complete, the shared form first.
    pub items: Vec<(ItemKey, MasterItem)>,
    /// Up to where nothing else is; none when that is everywhere.
    pub through: Option<Place>,
}

impl MasterRead<'_> {
    /// The switch that is under way.
    ///
    /// # Errors
    /// The database's.
    pub fn switching(&self) -> Result<Option<Switching>> {
        const SQL: &str = "SELECT kind, target, device, actor, began, through_scope, through_id, sequence,
            expected, tally FROM switching WHERE id = 1";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query([])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let text = |column| row.get_ref(column).map(|value| value.as_str().unwrap_or_default());
        let invalid = |_| DecodeError::Invalid("item key");
        Ok(Some(Switching {
            kind: Kind::parse(text(0)?).map_err(invalid)?,
            to: Target::of_number(row.get(1)?, row.get::<_, Option<[u8; 16]>>(2)?.map(DeviceId))?,
            actor: row.get(3)?,
            began: Sequence(row.get::<_, i64>(4)? as u64),
            through: Place { scope: Scope::parse(text(5)?).map_err(invalid)?, id: row.get(6)? },
            sequence: Sequence(row.get::<_, i64>(7)? as u64),
            expected: row.get::<_, i64>(8)? as u64,
            tally: Tally::decode(row.get_ref(9)?.as_blob().unwrap_or_default())?,
        }))
    }

    /// The sharing of an item: that of its kind, or while that is being switched, what holds for the item.
    ///
    /// # Errors
    /// The database's.
    pub fn sharing_of(&self, key: &ItemKey) -> Result<Setting> {
        match self.switching()? {
            Some(switching) if switching.kind == key.kind && switching.has_moved(key) => {
                Ok(Setting { sharing: switching.to.sharing(), sequence: switching.sequence })
            }
            Some(_) | None => self.sharing(&key.kind),
        }
    }

    /// Whether an item of a kind has changed since a sequence.
    ///
    /// # Errors
    /// The database's.
    pub fn has_changed(&self, kind: &Kind, since: Sequence) -> Result<bool> {
        const SQL: &str = "SELECT EXISTS (SELECT 1 FROM items WHERE position >= ? AND kind = ?)";
        let behind = params![position(since.next(), 0), kind.as_str()];
        Ok(self.connection.prepare_cached(SQL)?.query_row(behind, |row| row.get(0))?)
    }

    /// The next items of a kind behind a place, or from the beginning, in the order of scope and id: not
    /// many more than `rows` rows, and at least one item where there is one in reach.
    ///
    /// # Errors
    /// The database's.
    pub fn portion(&self, kind: &Kind, after: Option<&Place>, rows: usize) -> Result<Portion> {
        let mut portion = Portion::default();
        let mut at = match after {
            Some(after) => after.clone(),
            None => match self.scope_behind("")? {
                Some(scope) => Place { scope, id: String::new() },
                None => return Ok(portion),
            },
        };
        for _ in 0..SCOPES {
            // Less than half is not worth another look.
            let room = rows.saturating_sub(portion.items.len());
            if 2 * room < rows {
                break;
            }
            at = match self.take_from_scope(kind, &at, room, &mut portion.items)? {
                Some(id) => Place { id, ..at },
                None => match self.scope_behind(at.scope.as_str())? {
                    Some(scope) => Place { scope, id: String::new() },
                    None => return Ok(portion),
                },
            };
        }
        portion.through = Some(at);
        Ok(portion)
    }

    fn scope_behind(&self, scope: &str) -> Result<Option<Scope>> {
        const SQL: &str = "SELECT scope FROM items WHERE scope > ? ORDER BY scope LIMIT 1";
        let next: Option<String> =
            self.connection.prepare_cached(SQL)?.query_row([scope], |row| row.get(0)).optional()?;
        let parsed = next.map(|scope| Scope::parse(&scope)).transpose();
        Ok(parsed.map_err(|_| DecodeError::Invalid("item key"))?)
    }

    /// Items of one scope behind a place. Returns the last id that was taken; none when that was all.
    ///
    /// The index is ordered by device and then by id. So each device is asked for as many, and those are
    /// taken that every device was asked for.
    fn take_from_scope(
        &self,
        kind: &Kind,
        at: &Place,
        room: usize,
        items: &mut Vec<(ItemKey, MasterItem)>,
    ) -> Result<Option<String>> {
        let devices = self.devices_with(kind, &at.scope)?;
        let each = (room / devices.len().max(1)).max(1);
        let mut found = Vec::new();
        let mut last: Option<String> = None;
        for device in devices {
            let of_device = self.of_device(kind, at, device, each)?;
            if let Some((key, _)) = of_device.last().filter(|_| of_device.len() == each)
                && last.as_ref().is_none_or(|last| key.id < *last)
            {
                last = Some(key.id.clone());
            }
            found.extend(of_device);
        }
        found.retain(|(key, _)| last.as_ref().is_none_or(|last| key.id <= *last));
        found.sort_by(|(one, _), (other, _)| (&one.id, &one.device).cmp(&(&other.id, &other.device)));
        items.extend(found);
        Ok(last)
    }

    /// The devices that have items of a kind in a scope, the empty one for what is shared.
    fn devices_with(&self, kind: &Kind, scope: &Scope) -> Result<Vec<String>> {
        const SQL: &str = "SELECT device FROM items WHERE scope = ? AND kind = ? AND device >= ? || ?
            ORDER BY device LIMIT 1";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut devices: Vec<String> = Vec::new();
        loop {
            // The shortest text behind another is that with a zero byte more.
            let (after, more) = devices.last().map_or(("", ""), |last| (last.as_str(), "\0"));
            let next = statement
                .query_row(params![scope.as_str(), kind.as_str(), after, more], |row| row.get(0))
                .optional()?;
            match next {
                Some(device) => devices.push(device),
                None => return Ok(devices),
            }
        }
    }

    fn of_device(
        &self,
        kind: &Kind,
        at: &Place,
        device: String,
        limit: usize,
    ) -> Result<Vec<(ItemKey, MasterItem)>> {
        const SQL: &str = "SELECT id, position, deleted, fields, field_sequences FROM items
            WHERE scope = ? AND kind = ? AND device = ? AND id > ? ORDER BY id LIMIT ?";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows =
            statement.query(params![at.scope.as_str(), kind.as_str(), device, at.id, limit as i64])?;
        let mut items = Vec::new();
        while let Some(row) = rows.next()? {
            let key = ItemKey {
                scope: at.scope.clone(),
                kind: kind.clone(),
                id: row.get(0)?,
                device: device.clone(),
            };
            let item = MasterItem {
                sequence: sequence_of(row.get(1)?),
                deleted: row.get(2)?,
                fields: Fields::decode(row.get_ref(3)?.as_blob().unwrap_or_default())?,
                field_sequences: FieldSequences::decode(row.get_ref(4)?.as_blob().unwrap_or_default())?,
            };
            items.push((key, item));
        }
        Ok(items)
    }
}

impl MasterWrite<'_> {
    /// Keeps how far a switch has come; none when it has ended.
    ///
    /// # Errors
    /// The database's.
    pub fn put_switching(&self, switching: Option<&Switching>) -> Result<()> {
        const PUT: &str = "INSERT OR REPLACE INTO switching (id, kind, target, device, actor, began,
                through_scope, through_id, sequence, expected, tally)
            VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let Some(switching) = switching else {
            self.connection.prepare_cached("DELETE FROM switching")?.execute([])?;
            return Ok(());
        };
        let (target, device) = switching.to.number();
        self.connection.prepare_cached(PUT)?.execute(params![
            switching.kind.as_str(),
            target,
            device.map(|device| device.0),
            switching.actor,
            switching.began.0 as i64,
            switching.through.scope.as_str(),
            switching.through.id,
            switching.sequence.0 as i64,
            switching.expected as i64,
            switching.tally.encode()
        ])?;
        Ok(())
    }
}
