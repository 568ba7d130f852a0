//! The ledger: what became of a device's latest operations, so that a repetition gets the same answer.
//!
//! One short row for each incarnation, rewritten with each push: the outcomes that the device has not
//! confirmed yet. A commit of a hundred devices' pushes then touches a few pages, where a row for each
//! outcome would touch one or two for each device.

use rusqlite::params;

use super::{MasterRead, MasterWrite};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::error::Result;
use crate::model::{Digest, Incarnation, OperationNumber, Outcome};

/// What is known of one incarnation's operations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The device has stored the outcomes up to here.
    confirmed: OperationNumber,
    /// In rising order without a gap; the last one stays although it is confirmed.
    entries: Vec<Entry>,
    changed: bool,
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
            self.entries.retain(|entry| entry.operation >= mark);
            (self.confirmed, self.changed) = (mark, true);
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut to = Encoder::new();
        to.varint(self.entries.first().map_or(0, |entry| entry.operation.0));
        to.varint(self.entries.len() as u64);
        for entry in &self.entries {
            to.fixed(&entry.digest).bytes(&entry.outcome);
        }
        to.finish()
    }

    fn decode(confirmed: OperationNumber, bytes: &[u8]) -> std::result::Result<Self, DecodeError> {
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
        Ok(Self { confirmed, entries, changed: false })
    }
}

impl MasterRead<'_> {
    /// What is known of an incarnation's operations; empty when none came.
    ///
    /// # Errors
    /// The database's, or a damaged row.
    pub fn ledger(&self, incarnation: Incarnation) -> Result<Ledger> {
        const SQL: &str = "SELECT confirmed, entries FROM ledger WHERE incarnation = ?";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query([incarnation.0 as i64])?;
        let Some(row) = rows.next()? else { return Ok(Ledger::default()) };
        let confirmed = OperationNumber(row.get::<_, i64>(0)? as u64);
        Ok(Ledger::decode(confirmed, row.get_ref(1)?.as_blob().unwrap_or_default())?)
    }
}

impl MasterWrite<'_> {
    /// Stores what was added to, or forgotten from, an incarnation's ledger.
    ///
    /// # Errors
    /// The database's.
    pub fn put_ledger(&self, incarnation: Incarnation, ledger: &Ledger) -> Result<()> {
        const SQL: &str = "INSERT OR REPLACE INTO ledger (incarnation, confirmed, entries) VALUES (?, ?, ?)";
        if ledger.changed {
            self.connection.prepare_cached(SQL)?.execute(params![
                incarnation.0 as i64,
                ledger.confirmed.0 as i64,
                ledger.encode()
            ])?;
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
        let row = ledger.encode();
        let outcome = rejected.encode();
        assert_eq!(row, [&[3, 1][..], &[3; 32], &[outcome.len() as u8], &outcome].concat());
        let read = Ledger::decode(OperationNumber(3), &row).unwrap();
        assert_eq!(read, Ledger { changed: false, ..ledger });
        for end in 0..row.len() {
            assert!(Ledger::decode(OperationNumber(3), &row[..end]).is_err(), "cut at {end}");
        }
    }
}
