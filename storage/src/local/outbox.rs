//! Operations on their way to the server, what became of them, and accepted edits that are kept
//! until a second holder has them.

use rusqlite::{OptionalExtension, params};

use super::{DeviceState, LocalRead, LocalWrite};
use crate::error::Result;
use crate::model::{
    EditOutcome, Incarnation, ItemKey, Operation, OperationNumber, Outcome, Revision, Sequence,
};

/// What waits for the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// Operations.
    pub operations: u64,
    /// Bytes of their records.
    pub bytes: u64,
}

/// How much is retained; beyond it the oldest is dropped, and counted.
#[derive(Debug, Clone, Copy)]
pub struct RetainedLimits {
    /// Operations.
    pub operations: u64,
    /// Bytes of their records.
    pub bytes: u64,
}

impl Default for RetainedLimits {
    fn default() -> Self {
        Self { operations: 10_000, bytes: 16 << 20 }
    }
}

/// What settling outcomes changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settlement {
    /// Keys whose visible state changed.
    pub changed: Vec<ItemKey>,
    /// Operations set aside for a person: rejected, or with an edit that lost.
    pub set_aside: u64,
}

impl LocalRead<'_> {
    /// How much waits for the server.
    ///
    /// # Errors
    /// The database's.
    pub fn waiting(&self) -> Result<Waiting> {
        let (operations, bytes) = self.counters("SELECT waiting, waiting_bytes FROM device WHERE id = 1")?;
        Ok(Waiting { operations, bytes })
    }

    /// The oldest waiting operations in order, at most so many and so many bytes, at least one.
    ///
    /// # Errors
    /// The database's.
    pub fn outbox(&self, operations: usize, bytes: usize) -> Result<Vec<(OperationNumber, Vec<u8>)>> {
        const SQL: &str = "SELECT operation, record FROM outbox ORDER BY operation LIMIT ?";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query([operations as i64])?;
        let mut taken: Vec<(OperationNumber, Vec<u8>)> = Vec::new();
        let mut size = 0;
        while let Some(row) = rows.next()? {
            let record: Vec<u8> = row.get(1)?;
            size += record.len();
            if size > bytes && !taken.is_empty() {
                break;
            }
            taken.push((OperationNumber(row.get::<_, i64>(0)? as u64), record));
        }
        Ok(taken)
    }

    /// Accepted edits kept until they are safe.
    ///
    /// # Errors
    /// The database's.
    pub fn retained_count(&self) -> Result<u64> {
        Ok(self.retained()?.0)
    }

    fn retained(&self) -> Result<(u64, u64)> {
        self.counters("SELECT retained, retained_bytes FROM device WHERE id = 1")
    }

    fn counters(&self, sql: &str) -> Result<(u64, u64)> {
        let counters = self
            .connection
            .prepare_cached(sql)?
            .query_row([], |row| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64)));
        Ok(counters.optional()?.unwrap_or_default())
    }
}

impl LocalWrite<'_> {
    /// Stores the server's outcomes: takes the operations from the outbox, retains accepted ones,
    /// sets rejected and losing ones aside. An outcome for an operation that no longer waits is
    /// ignored: it came twice.
    ///
    /// # Errors
    /// The database's; nothing is stored then.
    pub fn settle(
        &self,
        outcomes: &[(OperationNumber, Outcome)],
        now: u64,
        limits: RetainedLimits,
    ) -> Result<Settlement> {
        let device = self.device()?;
        let mut settlement = Settlement::default();
        for (number, outcome) in outcomes {
            self.settle_one(&device, *number, outcome, now, &mut settlement)?;
        }
        self.bound_retained(limits)?;
        self.raise_low_water()?;
        Ok(settlement)
    }

    fn settle_one(
        &self,
        device: &DeviceState,
        number: OperationNumber,
        outcome: &Outcome,
        now: u64,
        settlement: &mut Settlement,
    ) -> Result<()> {
        let Some(record) = self.take_from_outbox(number)? else { return Ok(()) };
        let operation = Operation::decode(&record)?;
        if operation.is_withdrawn() {
            return Ok(());
        }
        // Whoever made what gave way is told by the device where it was made.
        if needs_a_person(outcome) && !operation.yields {
            self.connection
                .prepare_cached(
                    "INSERT INTO set_aside (operation, outcome, record, noticed_at) VALUES (?, ?, ?, ?)",
                )?
                .execute(params![number.0 as i64, outcome.encode(), record, now as i64])?;
            settlement.set_aside += 1;
        }
        if let Some(revision) = outcome.revision() {
            self.retain(device.incarnation, number, revision, &record)?;
        }
        let cursor = device.cursor.map_or(Sequence::ZERO, |cursor| cursor.sequence);
        for edit in &operation.edits {
            let Some(key) = self.linked(&edit.key, number)? else { continue };
            if self.settle_item(&key, number, outcome.revision(), cursor)? {
                settlement.changed.push(key);
            }
        }
        Ok(())
    }

    /// An accepted edit goes on showing until the mirror has passed its revision; a rejected one ends.
    fn settle_item(
        &self,
        key: &ItemKey,
        number: OperationNumber,
        accepted: Option<Revision>,
        cursor: Sequence,
    ) -> Result<bool> {
        let Some(row) = self.row(key)? else { return Ok(false) };
        self.connection
            .prepare_cached("DELETE FROM outbox_items WHERE item = ? AND operation = ?")?
            .execute([row.number, number.0 as i64])?;
        match accepted {
            Some(revision) if revision.sequence > cursor => {
                self.connection
                    .prepare_cached(
                        "UPDATE items SET settled_at = max(coalesce(settled_at, 0), ?),
                            settled_by = max(coalesce(settled_by, 0), ?) WHERE number = ?",
                    )?
                    .execute([revision.sequence.0 as i64, number.0 as i64, row.number])?;
                Ok(false)
            }
            _ => self.rebase(key, &row, cursor),
        }
    }

    pub(super) fn take_from_outbox(&self, number: OperationNumber) -> Result<Option<Vec<u8>>> {
        let mut delete =
            self.connection.prepare_cached("DELETE FROM outbox WHERE operation = ? RETURNING record")?;
        let mut rows = delete.query([number.0 as i64])?;
        let record: Option<Vec<u8>> = rows.next()?.map(|row| row.get(0)).transpose()?;
        // The statement must run to its end before the row is really gone.
        while rows.next()?.is_some() {}
        if let Some(record) = &record {
            self.connection
                .prepare_cached(
                    "UPDATE device SET waiting = waiting - 1, waiting_bytes = waiting_bytes - ? WHERE id = 1",
                )?
                .execute([record.len() as i64])?;
        }
        Ok(record)
    }

    fn retain(
        &self,
        incarnation: Incarnation,
        number: OperationNumber,
        revision: Revision,
        record: &[u8],
    ) -> Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO retained (operation, incarnation, epoch, sequence, record)
                    VALUES (?, ?, ?, ?, ?)",
            )?
            .execute(params![
                number.0 as i64,
                incarnation.0 as i64,
                revision.epoch as i64,
                revision.sequence.0 as i64,
                record
            ])?;
        self.count_retained(1, record.len() as i64)
    }

    pub(super) fn count_retained(&self, operations: i64, bytes: i64) -> Result<()> {
        self.connection
            .prepare_cached(
                "UPDATE device SET retained = retained + ?, retained_bytes = retained_bytes + ? WHERE id = 1",
            )?
            .execute([operations, bytes])?;
        Ok(())
    }

    /// Lets go of edits retained up to the safe sequence. What an earlier reign accepted and this one does
    /// not have was [offered again](LocalWrite::offer_again) when this one was first met.
    ///
    /// # Errors
    /// The database's.
    pub fn release_retained(&self, safe: Sequence) -> Result<usize> {
        const SIZE: &str =
            "SELECT count(*), coalesce(sum(length(record)), 0) FROM retained WHERE sequence <= ?";
        const FORGET: &str = "DELETE FROM retained WHERE sequence <= ?";
        let through = [safe.0 as i64];
        let (operations, bytes) = self
            .connection
            .prepare_cached(SIZE)?
            .query_row(through, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
        if operations > 0 {
            self.connection.prepare_cached(FORGET)?.execute(through)?;
            self.count_retained(-operations, -bytes)?;
        }
        Ok(operations as usize)
    }

    fn bound_retained(&self, limits: RetainedLimits) -> Result<()> {
        const OLDEST: &str =
            "SELECT incarnation, operation, length(record) FROM retained ORDER BY sequence LIMIT 1";
        let (mut operations, mut bytes) = self.retained()?;
        while operations > 0 && (operations > limits.operations || bytes > limits.bytes) {
            let (incarnation, operation, size): (i64, i64, i64) = self
                .connection
                .prepare_cached(OLDEST)?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            self.connection
                .prepare_cached("DELETE FROM retained WHERE incarnation = ? AND operation = ?")?
                .execute([incarnation, operation])?;
            self.count_retained(-1, -size)?;
            self.connection
                .prepare_cached("UPDATE device SET retained_dropped = retained_dropped + 1 WHERE id = 1")?
                .execute([])?;
            (operations, bytes) = self.retained()?;
        }
        Ok(())
    }

    /// The mark below which no operation waits and none is built on by one that waits or may still
    /// be made: the server may forget its outcomes.
    pub(super) fn raise_low_water(&self) -> Result<()> {
        const SQL: &str = "UPDATE device SET low_water = max(low_water, min(last_operation,
                coalesce((SELECT min(builds_on) FROM outbox) - 1, last_operation),
                coalesce((SELECT min(settled_by) FROM items WHERE settled_by IS NOT NULL) - 1,
                    last_operation)))
            WHERE id = 1";
        self.connection.prepare_cached(SQL)?.execute([])?;
        Ok(())
    }
}

fn needs_a_person(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Rejected { .. } => true,
        Outcome::Accepted { edits, .. } => {
            edits.iter().any(|edit| matches!(edit, EditOutcome::Superseded { .. }))
        }
    }
}
