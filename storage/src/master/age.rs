//! How old things are, in hours that the server has run: no clock decides what is forgotten.
//!
//! Which marks bound what may be forgotten is decided in `mfpsync_replication::window`.

use super::{MasterRead, MasterWrite};
use crate::error::Result;
use crate::model::Sequence;

/// Hours in a day of running.
const DAY: u64 = 24;

/// How far the history reached at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The last accepted change.
    pub sequence: Sequence,
    /// The number of the last edit of which nothing was taken.
    pub superseded: i64,
}

/// Where the history ended when a day of running did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Days run until then, since the group was founded.
    pub day: u64,
    /// What had been accepted by then.
    pub extent: Extent,
}

impl MasterRead<'_> {
    /// Whole days that servers of this database have run.
    ///
    /// # Errors
    /// The database's.
    pub fn days_run(&self) -> Result<u64> {
        Ok(self.hours_run()? / DAY)
    }

    fn hours_run(&self) -> Result<u64> {
        const SQL: &str = "SELECT hours_run FROM head WHERE id = 1";
        let hours: i64 = self.connection.prepare_cached(SQL)?.query_row([], |row| row.get(0))?;
        Ok(hours as u64)
    }

    /// How far the history reaches now.
    ///
    /// # Errors
    /// The database's.
    pub fn extent(&self) -> Result<Extent> {
        const SQL: &str = "SELECT coalesce(max(number), 0) FROM superseded";
        let superseded = self.connection.prepare_cached(SQL)?.query_row([], |row| row.get(0))?;
        Ok(Extent { sequence: self.founded_head()?.sequence, superseded })
    }

    /// The marks that are kept, oldest first.
    ///
    /// # Errors
    /// The database's.
    pub fn marks(&self) -> Result<Vec<Mark>> {
        const SQL: &str = "SELECT day, sequence, superseded FROM marks ORDER BY day";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let marks = statement.query_map([], |row| {
            let (day, sequence) = (row.get::<_, i64>(0)?, row.get::<_, i64>(1)?);
            let extent = Extent { sequence: Sequence(sequence as u64), superseded: row.get(2)? };
            Ok(Mark { day: day as u64, extent })
        })?;
        Ok(marks.collect::<rusqlite::Result<_>>()?)
    }
}

impl MasterWrite<'_> {
    /// Counts an hour of running, and marks where the history ends when that completes a day; returns
    /// whether it did.
    ///
    /// # Errors
    /// The database's.
    pub fn pass_hour(&self) -> Result<bool> {
        self.connection
            .prepare_cached("UPDATE head SET hours_run = hours_run + 1 WHERE id = 1")?
            .execute([])?;
        let hours = self.hours_run()?;
        if hours % DAY != 0 {
            return Ok(false);
        }
        let extent = self.extent()?;
        self.connection
            .prepare_cached("INSERT INTO marks (day, sequence, superseded) VALUES (?, ?, ?)")?
            .execute([(hours / DAY) as i64, extent.sequence.0 as i64, extent.superseded])?;
        Ok(true)
    }

    /// Drops the marks of days before `day`.
    ///
    /// # Errors
    /// The database's.
    pub fn drop_marks_before(&self, day: u64) -> Result<()> {
        self.connection.prepare_cached("DELETE FROM marks WHERE day < ?")?.execute([day as i64])?;
        Ok(())
    }
}
