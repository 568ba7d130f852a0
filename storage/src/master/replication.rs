//! Which device is the replica, what it takes to acknowledge a change, and which changes were
//! acknowledged without it.

use rusqlite::{OptionalExtension, params};

use super::{MasterRead, MasterWrite};
use crate::codec::DecodeError;
use crate::error::Result;
use crate::model::{DeviceId, Sequence};

/// When a change is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// As soon as it is on the server's stable storage; the replica follows.
    Async,
    /// When it is on the replica's too; while that is away nothing is acknowledged.
    SyncHold,
    /// When it is on the replica's too; while that is away the server's own is enough, and what was
    /// acknowledged so is recorded.
    SyncContinue,
}

impl Durability {
    const ALL: [Self; 3] = [Self::Async, Self::SyncHold, Self::SyncContinue];
}

/// The group's replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replication {
    /// The device.
    pub device: DeviceId,
    /// When a change is acknowledged.
    pub durability: Durability,
}

/// Changes that were acknowledged although the replica did not have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unprotected {
    /// Those behind this one,
    pub after: Sequence,
    /// up to this one; none while it goes on.
    pub through: Option<Sequence>,
    /// The server's wall clock when it began, Unix milliseconds. Informs, never decides.
    pub began_at: u64,
}

/// Ranges that are kept.
const KEPT: i64 = 100;

impl MasterRead<'_> {
    /// The replica, if one is set.
    ///
    /// # Errors
    /// The database's.
    pub fn replication(&self) -> Result<Option<Replication>> {
        let sql = "SELECT device, durability FROM replication WHERE id = 1";
        let found = self
            .connection
            .prepare_cached(sql)?
            .query_row([], |row| Ok((DeviceId(row.get(0)?), row.get::<_, i64>(1)?)));
        let Some((device, durability)) = found.optional()? else { return Ok(None) };
        let durability = usize::try_from(durability).ok().and_then(|at| Durability::ALL.get(at));
        let durability = *durability.ok_or(DecodeError::Invalid("unknown durability"))?;
        Ok(Some(Replication { device, durability }))
    }

    /// What was acknowledged without the replica, the latest first; at most 100 ranges are kept.
    ///
    /// # Errors
    /// The database's.
    pub fn unprotected(&self) -> Result<Vec<Unprotected>> {
        let sql = "SELECT after_sequence, through_sequence, began_at FROM unprotected ORDER BY 1 DESC";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| {
            Ok(Unprotected {
                after: Sequence(row.get::<_, i64>(0)? as u64),
                through: row.get::<_, Option<i64>>(1)?.map(|through| Sequence(through as u64)),
                began_at: row.get::<_, i64>(2)? as u64,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

impl MasterWrite<'_> {
    /// Sets the replica, or that there is none.
    ///
    /// # Errors
    /// The database's.
    pub fn set_replication(&self, replication: Option<&Replication>) -> Result<()> {
        self.connection.execute("DELETE FROM replication", [])?;
        if let Some(Replication { device, durability }) = replication {
            let sql = "INSERT INTO replication (id, device, durability) VALUES (1, ?, ?)";
            self.connection.execute(sql, params![device.0, *durability as i64])?;
        }
        Ok(())
    }

    /// Notes that changes behind this one are acknowledged without the replica from now on.
    ///
    /// # Errors
    /// The database's.
    pub fn begin_unprotected(&self, after: Sequence, now: u64) -> Result<()> {
        // A range that began at the same change, perhaps with another replica, goes on.
        const ADD: &str =
            "INSERT INTO unprotected (after_sequence, through_sequence, began_at) VALUES (?, NULL, ?)
            ON CONFLICT (after_sequence) DO UPDATE SET through_sequence = NULL";
        self.connection.execute(ADD, params![after.0 as i64, now as i64])?;
        const BOUND: &str = "DELETE FROM unprotected WHERE after_sequence NOT IN
            (SELECT after_sequence FROM unprotected ORDER BY 1 DESC LIMIT ?)";
        self.connection.execute(BOUND, [KEPT])?;
        Ok(())
    }

    /// Notes that the replica has all changes up to this one, whether they were acknowledged without it
    /// or not.
    ///
    /// # Errors
    /// The database's.
    pub fn end_unprotected(&self, through: Sequence) -> Result<()> {
        let sql = "UPDATE unprotected SET through_sequence = ? WHERE through_sequence IS NULL";
        self.connection.execute(sql, [through.0 as i64])?;
        Ok(())
    }
}
