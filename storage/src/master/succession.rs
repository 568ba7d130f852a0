//! What a reign had whose server was lost, and its successor began without; what devices say they hold of it.

use rusqlite::{OptionalExtension, params};

use super::{MasterRead, MasterWrite};
use crate::error::Result;
use crate::model::{DeviceId, Epoch, Held, ItemKey, Parent, Promotion, PromotionReason, Sequence, Signed};

/// What became of the end of a reign whose server was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Succession {
    /// That reign.
    pub ended: Epoch,
    /// The last change this reign took over.
    pub fork: Sequence,
    /// The last one that the reign before is known to have made.
    pub known: Sequence,
    /// Who has said what it holds.
    pub reported: Vec<DeviceId>,
    /// First and last sequence of runs between the two that nobody has said to hold yet.
    pub missing: Vec<(Sequence, Sequence)>,
}

/// An item as a device offered it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfferedAgain {
    /// The sequence its value had in the reign that ended.
    pub was: Sequence,
    /// Where it stands in this one since; if the item stands elsewhere by now, somebody edited it.
    pub position: Sequence,
}

impl MasterRead<'_> {
    /// How an item was offered again in this reign; none if it was not.
    ///
    /// # Errors
    /// The database's.
    pub fn offered_again(&self, key: &ItemKey) -> Result<Option<OfferedAgain>> {
        const SQL: &str =
            "SELECT was, position FROM offered WHERE scope = ? AND kind = ? AND device = ? AND id = ?";
        let offered = self.connection.prepare_cached(SQL)?.query_row(
            params![key.scope.as_str(), key.kind.as_str(), key.device, key.id],
            |row| {
                let (was, position) = (row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64);
                Ok(OfferedAgain { was: Sequence(was), position: Sequence(position) })
            },
        );
        Ok(offered.optional()?)
    }

    /// The last reign that began with a copy of one whose server was lost: where that ended.
    fn lost(&self) -> Result<Option<Parent>> {
        let promoted = |signed: &Signed<Promotion>| signed.record.reason == PromotionReason::Promoted;
        let lineage = self.lineage()?;
        Ok(lineage.into_iter().rev().find(promoted).and_then(|signed| signed.record.parent))
    }

    /// What became of the end of the last reign whose server was lost; none if there was none.
    ///
    /// # Errors
    /// The database's, or a damaged record.
    pub fn succession(&self) -> Result<Option<Succession>> {
        let Some(parent) = self.lost()? else { return Ok(None) };
        let known = "SELECT known_sequence FROM succession WHERE id = 1";
        let known = self.connection.query_row(known, [], |row| row.get::<_, i64>(0)).optional()?;
        let mut statement =
            self.connection.prepare_cached("SELECT device, held FROM reports ORDER BY device")?;
        let rows = statement.query_map([], |row| Ok((DeviceId(row.get(0)?), row.get::<_, Vec<u8>>(1)?)))?;
        let (mut reported, mut held) = (Vec::new(), Vec::new());
        for row in rows {
            let (device, record) = row?;
            reported.push(device);
            held.push(Held::decode(&record)?);
        }
        let fork = parent.sequence;
        let heard = held.iter().map(|held| held.highest).max().unwrap_or(fork);
        let known = Sequence(known.unwrap_or(0) as u64).max(heard).max(fork);
        Ok(Some(Succession {
            ended: parent.epoch,
            fork,
            known,
            reported,
            missing: Held::missing(fork, known, &held),
        }))
    }
}

impl MasterWrite<'_> {
    /// Notes the last change that the reign before is known to have made; who holds what of it is to be said
    /// anew.
    ///
    /// # Errors
    /// The database's.
    pub(super) fn begin_succession(&self, known: Sequence) -> Result<()> {
        self.connection.execute("DELETE FROM reports", [])?;
        let known_sequence = "INSERT OR REPLACE INTO succession (id, known_sequence) VALUES (1, ?)";
        self.connection.execute(known_sequence, [known.0 as i64])?;
        Ok(())
    }

    /// Notes how an item was offered again.
    ///
    /// # Errors
    /// The database's.
    pub fn put_offered_again(&self, key: &ItemKey, offered: OfferedAgain) -> Result<()> {
        const SQL: &str = "INSERT OR REPLACE INTO offered (scope, kind, device, id, was, position)
            VALUES (?, ?, ?, ?, ?, ?)";
        let OfferedAgain { was, position } = offered;
        self.connection.prepare_cached(SQL)?.execute(params![
            key.scope.as_str(),
            key.kind.as_str(),
            key.device,
            key.id,
            was.0 as i64,
            position.0 as i64
        ])?;
        Ok(())
    }

    /// Notes what a device holds of the last reign whose server was lost. What it says of another one is not kept.
    ///
    /// # Errors
    /// The database's.
    pub fn report(&self, device: DeviceId, held: Held) -> Result<()> {
        let Some(parent) = self.lost()?.filter(|parent| parent.epoch == held.ended) else { return Ok(()) };
        let report = "INSERT OR REPLACE INTO reports (device, held) VALUES (?, ?)";
        self.connection.execute(report, params![device.0, held.beyond(parent.sequence).encode()])?;
        Ok(())
    }

    /// Notes that a device which was not there holds nothing of that reign.
    ///
    /// # Errors
    /// The database's.
    pub fn report_nothing(&self, device: DeviceId) -> Result<()> {
        let Some(parent) = self.lost()? else { return Ok(()) };
        self.report(device, Held::of(parent.epoch, parent.sequence, Vec::new()))
    }
}
