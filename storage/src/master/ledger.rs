//! The ledger: what became of a device's latest operations. I-03: a repetition gets the same answer and
//! changes nothing.
//!
//! One short row for each incarnation, rewritten with each push: the outcomes that the device has not
//! confirmed yet. A commit of a hundred devices' pushes then touches a few pages, where a row for each
//! outcome would touch one or two for each device. A device that confirms late, as after weeks alone, has
//! more rows, of which each push rewrites the last.
//!
//! The first row of an incarnation binds it to the device that pushed: no other one may name it.

use rusqlite::{OptionalExtension, params};

use super::{MasterRead, MasterWrite};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::error::Result;
use crate::model::{DeviceId, Digest, Incarnation, OperationNumber, Outcome};

/// Outcomes in one row: about 3 KB.
const BLOCK: usize = 64;

/// What is known of one incarnation's latest operations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The row's number, at most that of its first outcome; rows before it may hold earlier ones.
    block: i64,
    /// The device has stored the outcomes up to here.
    confirmed: OperationNumber,
    /// In rising order without a gap; the last one stays although it is confirmed.
    entries: Vec<Entry>,
    changed: bool,
    /// Nothing in the rows before is asked for any more.
    earlier_done: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    operation: OperationNumber,
    digest: Digest,
    outcome: Vec<u8>,
}

impl Ledger {
    /// The device has stored the outcomes up to here.
    #[must_use]
    pub fn confirmed(&self) -> OperationNumber {
        self.confirmed
    }

    /// The highest operation with an outcome; zero when there is none.
    #[must_use]
    pub fn last(&self) -> OperationNumber {
        self.entries.last().map_or(OperationNumber::default(), |entry| entry.operation)
    }

    fn first(&self) -> OperationNumber {
        self.entries.first().map_or(OperationNumber::default(), |entry| entry.operation)
    }

    /// Whether an outcome that is not here may stand in a row before.
    fn has_earlier(&self, operation: OperationNumber) -> bool {
        self.block > 0 && operation < self.first() && self.confirmed < self.first()
    }

    /// The digest of the record that came under a number; none when it is forgotten or never came.
    #[must_use]
    pub fn digest(&self, operation: OperationNumber) -> Option<&Digest> {
        self.entry(operation).map(|entry| &entry.digest)
    }

    /// What became of an operation; none when it is forgotten or never came.
    ///
    /// # Errors
    /// A damaged row.
    pub fn outcome(&self, operation: OperationNumber) -> Result<Option<Outcome>> {
        Ok(self.entry(operation).map(|entry| Outcome::decode(&entry.outcome)).transpose()?)
    }

    fn entry(&self, operation: OperationNumber) -> Option<&Entry> {
        let first = self.entries.first()?.operation.0;
        let at = usize::try_from(operation.0.checked_sub(first)?).ok()?;
        self.entries.get(at)
    }

    /// Notes what became of the operation behind the last one.
    pub fn record(&mut self, digest: Digest, outcome: &Outcome) {
        let operation = OperationNumber(self.last().max(self.confirmed).0 + 1);
        self.entries.push(Entry { operation, digest, outcome: outcome.encode() });
        self.changed = true;
    }

    /// Forgets outcomes below the mark the device confirmed. The mark's own stays, so that its highest
    /// number is always known; a mark beyond that would make the next operation look repeated.
    pub fn confirm(&mut self, mark: OperationNumber) {
        let mark = mark.min(self.last());
        if mark > self.confirmed {
            self.earlier_done = self.block > 0 && self.confirmed < self.first() && mark >= self.first();
            self.entries.retain(|entry| entry.operation >= mark);
            (self.confirmed, self.changed) = (mark, true);
        }
    }

    /// A row's outcomes as they were, if every one of them is an outcome.
    pub(super) fn checked(
        block: i64,
        confirmed: i64,
        bytes: &[u8],
    ) -> std::result::Result<Vec<u8>, DecodeError> {
        let ledger = Self::decode(block, confirmed, bytes)?;
        ledger.entries.iter().try_for_each(|entry| Outcome::decode(&entry.outcome).map(drop))?;
        Ok(encode(&ledger.entries))
    }

    fn decode(block: i64, confirmed: i64, bytes: &[u8]) -> std::result::Result<Self, DecodeError> {
        let mut from = Decoder::new(bytes);
        let first = from.varint()?;
        let count = from.count()? as u64;
        let entry = |number| {
            let (digest, outcome) = (from.array()?, from.bytes()?.to_vec());
            Ok(Entry { operation: OperationNumber(number), digest, outcome })
        };
        let numbers = first..first.saturating_add(count);
        let entries = numbers.map(entry).collect::<std::result::Result<_, DecodeError>>()?;
        from.finish()?;
        let confirmed = OperationNumber(confirmed as u64);
        Ok(Self { block, confirmed, entries, changed: false, earlier_done: false })
    }
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut to = Encoder::new();
    to.varint(entries.first().map_or(0, |entry| entry.operation.0));
    to.varint(entries.len() as u64);
    for entry in entries {
        to.fixed(&entry.digest).bytes(&entry.outcome);
    }
    to.finish()
}

impl MasterRead<'_> {
    /// What is known of an incarnation's latest operations; empty when none came.
    ///
    /// # Errors
    /// The database's, or a damaged row.
    pub fn ledger(&self, incarnation: Incarnation) -> Result<Ledger> {
        Ok(self.ledger_at(incarnation, i64::MAX)?.unwrap_or_default())
    }

    /// Whose incarnation it is; none when no operation of it came.
    ///
    /// # Errors
    /// The database's.
    pub fn device_of(&self, incarnation: Incarnation) -> Result<Option<DeviceId>> {
        const SQL: &str = "SELECT device FROM ledger WHERE incarnation = ? LIMIT 1";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let device = statement.query_row([incarnation.0 as i64], |row| row.get(0)).optional()?;
        Ok(device.map(DeviceId))
    }

    /// The part of an incarnation's ledger in which an operation is looked for: `latest`, or an earlier
    /// row of a device that has confirmed little.
    ///
    /// # Errors
    /// The database's, or a damaged row.
    pub fn ledger_of(
        &self,
        incarnation: Incarnation,
        latest: &Ledger,
        operation: OperationNumber,
    ) -> Result<Option<Ledger>> {
        if !latest.has_earlier(operation) {
            return Ok(None);
        }
        self.ledger_at(incarnation, operation.0 as i64)
    }

    /// The row that begins last of those that begin at or before an operation.
    fn ledger_at(&self, incarnation: Incarnation, operation: i64) -> Result<Option<Ledger>> {
        const SQL: &str = "SELECT block, confirmed, entries FROM ledger WHERE incarnation = ? AND block <= ?
            ORDER BY block DESC LIMIT 1";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query(params![incarnation.0 as i64, operation])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let entries = row.get_ref(2)?.as_blob().unwrap_or_default();
        Ok(Some(Ledger::decode(row.get(0)?, row.get(1)?, entries)?))
    }
}

impl MasterWrite<'_> {
    /// Stores what was added to, or forgotten from, the ledger of a device's incarnation.
    ///
    /// # Errors
    /// The database's.
    pub fn put_ledger(&self, incarnation: Incarnation, device: DeviceId, ledger: &Ledger) -> Result<()> {
        const PUT: &str = "INSERT OR REPLACE INTO ledger (incarnation, block, device, confirmed, entries)
            VALUES (?, ?, ?, ?, ?)";
        const FORGET: &str = "DELETE FROM ledger WHERE incarnation = ? AND block < ?";
        if !ledger.changed {
            return Ok(());
        }
        let (incarnation, confirmed) = (incarnation.0 as i64, ledger.confirmed.0 as i64);
        for (at, entries) in ledger.entries.chunks(BLOCK).enumerate() {
            // The row that was read keeps its number; further ones begin with their first outcome.
            let begins = entries.first().filter(|_| at > 0).map(|first| first.operation.0 as i64);
            let block = begins.unwrap_or(ledger.block);
            let row = params![incarnation, block, device.0, confirmed, encode(entries)];
            self.connection.prepare_cached(PUT)?.execute(row)?;
        }
        if ledger.earlier_done {
            self.connection.prepare_cached(FORGET)?.execute([incarnation, ledger.block])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RejectReason;

    #[test]
    fn a_row_is_as_short_as_what_is_not_confirmed() {
        let rejected = Outcome::Rejected { reason: RejectReason::ReadOnlyKind, edit: 0 };
        let mut ledger = Ledger::default();
        for digest in [[1; 32], [2; 32], [3; 32]] {
            ledger.record(digest, &rejected);
        }
        ledger.confirm(OperationNumber(3));
        let row = encode(&ledger.entries);
        let outcome = rejected.encode();
        assert_eq!(row, [&[3, 1][..], &[3; 32], &[outcome.len() as u8], &outcome].concat());
        let read = Ledger::decode(0, 3, &row).unwrap();
        assert_eq!(read, Ledger { changed: false, ..ledger });
        for end in 0..row.len() {
            assert!(Ledger::decode(0, 3, &row[..end]).is_err(), "cut at {end}");
        }
    }
}
