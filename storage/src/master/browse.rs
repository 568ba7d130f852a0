//! Walks over the history of everything, newest first, and over the items changed since.
//!
//! A filter is applied row by row, so a walk looks at a bounded number of rows and says where to go
//! on: a page may be short, or empty, and yet not be the last.

use rusqlite::{Row, Statement, params};

use super::history::{ENTRY, entry};
use super::{HistoryEntry, MasterRead, position};
use crate::codec::DecodeError;
use crate::error::Result;
use crate::model::{DeviceId, Fields, Incarnation, ItemKey, Kind, OperationNumber, Scope, Sequence};

/// What of the history is wanted; what is none, or zero, does not restrict.
#[derive(Debug, Clone, Default)]
pub struct HistoryFilter {
    /// Whose items.
    pub scope: Option<Scope>,
    /// Which kind.
    pub kind: Option<Kind>,
    /// Written by which device.
    pub device: Option<DeviceId>,
    /// From this sequence on.
    pub since: Sequence,
    /// Accepted at or after this time, Unix milliseconds.
    pub since_millis: u64,
}

/// Where a walk goes on: behind these rows of `changes` and `superseded`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryPlace {
    /// A position in `changes`.
    pub position: i64,
    /// A number in `superseded`.
    pub loss: i64,
}

impl HistoryPlace {
    /// Before everything.
    pub const NEWEST: Self = Self { position: i64::MAX, loss: i64::MAX };
}

/// One line of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryLine {
    /// An accepted change.
    Change {
        /// Of which item.
        key: ItemKey,
        /// What is known of it.
        entry: Box<HistoryEntry>,
    },
    /// An edit of which nothing was taken.
    Lost(LostEdit),
}

/// An edit of which nothing was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostEdit {
    /// Of which item.
    pub key: ItemKey,
    /// By which device.
    pub device: DeviceId,
    /// Which life of its local state.
    pub incarnation: Incarnation,
    /// The device's number for the operation.
    pub operation: OperationNumber,
    /// By whom.
    pub actor: String,
    /// The server's wall clock then.
    pub accepted_at: u64,
    /// It came after this change.
    pub after: Sequence,
    /// The change that stands.
    pub by: Sequence,
    /// The values that were not taken.
    pub fields: Fields,
}

/// A part of the history.
#[derive(Debug)]
pub struct HistoryPage {
    /// Lines, newest first.
    pub lines: Vec<HistoryLine>,
    /// Where to go on; none at the end.
    pub next: Option<HistoryPlace>,
}

impl MasterRead<'_> {
    /// The next lines of the history behind `place`, at most `lines`, looking at no more than `rows`
    /// rows.
    ///
    /// # Errors
    /// The database's, or its reader's deadline.
    pub fn browse(
        &self,
        filter: &HistoryFilter,
        place: HistoryPlace,
        lines: usize,
        rows: usize,
    ) -> Result<HistoryPage> {
        let changes = format!(
            "SELECT {ENTRY}, scope, kind, device, id FROM changes
             WHERE position < ?1 AND position >= ?2 ORDER BY position DESC"
        );
        const LOSSES: &str = "SELECT number, scope, kind, device, id, author, incarnation, operation, actor,
                accepted_at, after_sequence, by_sequence, lost_fields
            FROM superseded WHERE number < ?1 AND after_sequence >= ?2 ORDER BY number DESC";
        let mut changes = self.connection.prepare_cached(&changes)?;
        let mut losses = self.connection.prepare_cached(LOSSES)?;
        let mut changes = changes.query(params![place.position, position(filter.since, 0)])?;
        let mut losses = losses.query(params![place.loss, filter.since.0 as i64])?;
        let mut page = HistoryPage { lines: Vec::new(), next: None };
        let mut place = place;
        let mut change = changes.next()?.map(change_at).transpose()?;
        let mut loss = losses.next()?.map(loss_at).transpose()?;
        for _ in 0..rows {
            if page.lines.len() == lines {
                break;
            }
            let loss_first = match (&change, &loss) {
                (None, None) => return Ok(page),
                (Some((at, _)), Some((_, lost))) => lost.after >= super::sequence_of(*at),
                (None, Some(_)) => true,
                (Some(_), None) => false,
            };
            let line = if loss_first {
                let taken = loss.take();
                loss = losses.next()?.map(loss_at).transpose()?;
                taken.map(|(number, lost)| {
                    place.loss = number;
                    HistoryLine::Lost(lost)
                })
            } else {
                let taken = change.take();
                change = changes.next()?.map(change_at).transpose()?;
                taken.map(|(at, line)| {
                    place.position = at;
                    line
                })
            };
            page.lines.extend(line.filter(|line| filter.wants(line)));
        }
        page.next = (change.is_some() || loss.is_some()).then_some(place);
        Ok(page)
    }

    /// Items whose last change stands behind the position `after`, in that order, with the position
    /// of the last one looked at; at most `rows` are looked at.
    ///
    /// # Errors
    /// The database's.
    pub fn changed_items(
        &self,
        scope: Option<&Scope>,
        kind: Option<&Kind>,
        after: i64,
        rows: u32,
    ) -> Result<(Vec<ItemKey>, Option<i64>)> {
        const ALL: &str = "SELECT scope, kind, device, id, position FROM items
            WHERE position > ?1 ORDER BY position LIMIT ?2";
        const ONE: &str = "SELECT scope, kind, device, id, position FROM items
            WHERE position > ?1 AND scope = ?3 ORDER BY position LIMIT ?2";
        let mut statement: Statement<'_>;
        let mut found = match scope {
            None => {
                statement = self.connection.prepare(ALL)?;
                statement.query(params![after, rows])?
            }
            Some(scope) => {
                statement = self.connection.prepare(ONE)?;
                statement.query(params![after, rows, scope.as_str()])?
            }
        };
        let (mut keys, mut last) = (Vec::new(), None);
        while let Some(row) = found.next()? {
            last = Some(row.get("position")?);
            let key = key(row)?;
            if kind.is_none_or(|kind| key.kind == *kind) {
                keys.push(key);
            }
        }
        Ok((keys, last))
    }

    /// All items of a scope, tombstones included.
    ///
    /// # Errors
    /// The database's.
    pub fn scope_items(&self, scope: &Scope) -> Result<Vec<ItemKey>> {
        const SQL: &str = "SELECT scope, kind, device, id FROM items WHERE scope = ?";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query([scope.as_str()])?;
        let mut keys = Vec::new();
        while let Some(row) = rows.next()? {
            keys.push(key(row)?);
        }
        Ok(keys)
    }
}

/// The position before the first row of a sequence: where a walk over what came since begins.
#[must_use]
pub fn before(sequence: Sequence) -> i64 {
    position(sequence, 0) - 1
}

impl HistoryFilter {
    fn wants(&self, line: &HistoryLine) -> bool {
        let (key, device, at) = match line {
            HistoryLine::Change { key, entry } => (key, entry.device, entry.accepted_at),
            HistoryLine::Lost(lost) => (&lost.key, lost.device, lost.accepted_at),
        };
        self.scope.as_ref().is_none_or(|scope| *scope == key.scope)
            && self.kind.as_ref().is_none_or(|kind| *kind == key.kind)
            && self.device.is_none_or(|wanted| wanted == device)
            && at >= self.since_millis
    }
}

fn change_at(row: &Row<'_>) -> Result<(i64, HistoryLine)> {
    let line = HistoryLine::Change { key: key(row)?, entry: Box::new(entry(row)?) };
    Ok((row.get("position")?, line))
}

fn loss_at(row: &Row<'_>) -> Result<(i64, LostEdit)> {
    let number = |column| row.get::<_, i64>(column).map(|number| number as u64);
    let lost = LostEdit {
        key: key(row)?,
        device: DeviceId(row.get("author")?),
        incarnation: Incarnation(number("incarnation")?),
        operation: OperationNumber(number("operation")?),
        actor: row.get("actor")?,
        accepted_at: number("accepted_at")?,
        after: Sequence(number("after_sequence")?),
        by: Sequence(number("by_sequence")?),
        fields: Fields::decode(row.get_ref("lost_fields")?.as_blob().unwrap_or_default())?,
    };
    Ok((row.get("number")?, lost))
}

fn key(row: &Row<'_>) -> Result<ItemKey> {
    let text = |column| row.get_ref(column).map(|value| value.as_str().unwrap_or_default());
    let key = ItemKey::parse(text("scope")?, text("kind")?, text("device")?, text("id")?);
    Ok(key.map_err(|_| DecodeError::Invalid("item key"))?)
}
