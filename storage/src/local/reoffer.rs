//! What is offered to a new reign: changes that the one before accepted and this one does not have.
//!
//! A reign ends early when its server is lost and its successor had not got all of it. Two things are
//! left of the rest: edits retained at the devices that made them, and what every device has mirrored.
//! Both go into the outbox, the first as they were, under their own numbers, the second as operations that
//! give way to whatever the new reign has. I-08, I-17: so a change survives with any device that made or saw it.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, params};

use super::edit::apply;
use super::erase::withdrawn;
use super::{LocalRead, LocalWrite};
use crate::codec::DecodeError;
use crate::error::Result;
use crate::model::{
    Action, Base, ERASED_KIND, Edit, Fields, Held, Incarnation, ItemKey, Kind, Operation, OperationNumber,
    Revision, Sequence,
};

/// A sequence above all that are given: everything has passed it.
const END: Sequence = Sequence(i64::MAX as u64);

/// What a server has heard of this device's operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heard {
    /// The highest it has decided.
    pub known: OperationNumber,
    /// Up to which it tells no outcome any more: this device had confirmed them.
    pub confirmed: OperationNumber,
}

/// How much was offered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offered {
    /// Operations made at this device.
    pub own: u64,
    /// Items as others had changed them.
    pub mirrored: u64,
}

impl LocalRead<'_> {
    /// What this device holds of the reign before, while the present server has not heard of it; the record of
    /// a [`Held`].
    ///
    /// # Errors
    /// The database's.
    pub fn report(&self) -> Result<Option<Vec<u8>>> {
        let report = "SELECT report FROM device WHERE id = 1";
        let report = self.connection.query_row(report, [], |row| row.get(0)).optional()?;
        Ok(report.flatten())
    }

    /// What is kept from beyond the fork, and what the new reign has not decided although it lies before: its
    /// parent had lost it, as when a disk was put back.
    fn retained_beyond(
        &self,
        fork: Sequence,
        own: Incarnation,
        known: OperationNumber,
    ) -> Result<Vec<(Incarnation, Sequence, Vec<u8>)>> {
        const SQL: &str = "SELECT incarnation, sequence, record FROM retained
            WHERE sequence > ?1 OR incarnation = ?2 AND operation > ?3 ORDER BY operation";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let kept = params![fork.0 as i64, own.0 as i64, known.0 as i64];
        let rows = statement.query_map(kept, |row| {
            let incarnation = Incarnation(row.get::<_, i64>(0)? as u64);
            Ok((incarnation, Sequence(row.get::<_, i64>(1)? as u64), row.get(2)?))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn waiting_through(&self, last: OperationNumber) -> Result<Vec<(OperationNumber, Vec<u8>)>> {
        let sql = "SELECT operation, record FROM outbox WHERE operation <= ? ORDER BY operation";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map([last.0 as i64], |row| {
            Ok((OperationNumber(row.get::<_, i64>(0)? as u64), row.get(1)?))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn waiting_numbers(&self) -> Result<BTreeSet<u64>> {
        let mut statement = self.connection.prepare_cached("SELECT operation FROM outbox")?;
        let rows = statement.query_map([], |row| Ok(row.get::<_, i64>(0)? as u64))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

impl LocalWrite<'_> {
    /// Offers again what ended reigns had beyond `fork`, the last change that the new reign took over.
    /// `heard` is what the new server has of this device's operations; `offers` says
    /// which kinds devices may write. Readers see what they saw. To be called once for each new reign,
    /// before anything of it is stored.
    ///
    /// # Errors
    /// The database's; nothing is offered then.
    pub fn offer_again(
        &self,
        fork: Revision,
        heard: Heard,
        now: u64,
        offers: impl Fn(&Kind) -> bool,
    ) -> Result<Offered> {
        let mut offered = Offered::default();
        if self.is_joining()? {
            return Ok(offered);
        }
        let offered_keys: Vec<ItemKey> =
            self.mirrored_beyond(fork.sequence)?.into_iter().filter(|key| offers(&key.kind)).collect();
        self.note_held(fork.sequence, &offered_keys)?;
        let mut touched = self.expect_no_results(fork.sequence)?;
        self.forget_confirmed(heard.confirmed, &mut touched)?;
        // Before anything gets a number: what is older comes first.
        self.fill_gaps(heard, fork, now, &mut touched, &mut offered)?;
        self.limit_bases(fork)?;
        for key in offered_keys {
            if self.offer_mirrored(&key, fork, now)? {
                offered.mirrored += 1;
                touched.push(key);
            }
        }
        // What is edited until all is read anew is no edit of what the new reign has.
        if self.device()?.cursor.is_some_and(|cursor| cursor.sequence > fork.sequence) {
            self.set_cursor(None)?;
        }
        for key in touched {
            if let Some(row) = self.row(&key)? {
                self.rebase(&key, &row, END)?;
            }
        }
        Ok(offered)
    }

    /// Notes what this device holds from beyond the fork, for the new server to hear.
    fn note_held(&self, fork: Sequence, offered: &[ItemKey]) -> Result<()> {
        let Some(cursor) = self.device()?.cursor else { return Ok(()) };
        let mut statement =
            self.connection.prepare_cached("SELECT sequence FROM retained WHERE sequence > ?")?;
        let held = statement.query_map([fork.0 as i64], |row| Ok(Sequence(row.get::<_, i64>(0)? as u64)))?;
        let mut held: Vec<Sequence> = held.collect::<rusqlite::Result<_>>()?;
        for key in offered {
            held.extend(self.row(key)?.and_then(|row| row.mirror_sequence));
        }
        let highest = held.iter().copied().max().unwrap_or(fork).max(cursor.sequence);
        let report = Held::of(cursor.epoch, highest, held).encode();
        self.connection.execute("UPDATE device SET report = ? WHERE id = 1", [report])?;
        Ok(())
    }

    /// The server has heard what [`LocalRead::report`] says.
    ///
    /// # Errors
    /// The database's.
    pub fn reported(&self) -> Result<()> {
        self.connection.execute("UPDATE device SET report = NULL WHERE id = 1", [])?;
        Ok(())
    }

    /// Results of operations that the reign accepted beyond `fork` will not come. The items that wait for
    /// one.
    fn expect_no_results(&self, fork: Sequence) -> Result<Vec<ItemKey>> {
        const WAITING: &str = "SELECT scope, kind, device, id FROM items WHERE settled_at > ?";
        let keys = self.keys(WAITING, fork.0 as i64)?;
        let none = "UPDATE items SET settled_at = NULL, settled_by = NULL WHERE settled_at > ?";
        self.connection.prepare_cached(none)?.execute([fork.0 as i64])?;
        Ok(keys)
    }

    /// Has no operation wait any more whose outcome this device was told, and which the new server decided: the
    /// two reigns share it, and the one in between did not. It would not be answered. One that was never offered
    /// again was not told here: this disk was put back, and goes on waiting to be refused.
    fn forget_confirmed(&self, confirmed: OperationNumber, touched: &mut Vec<ItemKey>) -> Result<()> {
        for (number, record) in self.waiting_through(confirmed)? {
            let operation = Operation::decode(&record)?;
            if operation.was.is_none() && !operation.is_withdrawn() {
                continue;
            }
            self.take_from_outbox(number)?;
            for edit in &operation.edits {
                touched.extend(self.linked(&edit.key, number)?);
            }
            self.connection
                .prepare_cached("DELETE FROM outbox_items WHERE operation = ?")?
                .execute([number.0 as i64])?;
        }
        Ok(())
    }

    /// Has every operation that the server does not know wait: the retained ones, and in the place of those that
    /// came to nothing or are kept no more ones that ask for nothing, since the server takes numbers in order. So
    /// does what it decided and a reign that is left behind decided as well: how it did is not known here.
    fn fill_gaps(
        &self,
        heard: Heard,
        fork: Revision,
        now: u64,
        touched: &mut Vec<ItemKey>,
        offered: &mut Offered,
    ) -> Result<()> {
        let (device, known) = (self.device()?, heard.known);
        let mut earlier = Vec::new();
        for (incarnation, was, record) in self.retained_beyond(fork.sequence, device.incarnation, known)? {
            let operation = Operation { was: Some(was), ..Operation::decode(&record)? };
            self.count_retained(-1, -(record.len() as i64))?;
            if incarnation != device.incarnation {
                earlier.push(operation);
            } else if operation.number > heard.confirmed {
                self.requeue(&operation, &operation.encode(), touched)?;
            } else {
                // This device has heard how the new reign decided it, before it met the one that is left behind.
                continue;
            }
            offered.own += 1;
        }
        self.connection.execute(
            "DELETE FROM retained WHERE sequence > ?1 OR incarnation = ?2 AND operation > ?3",
            params![fork.sequence.0 as i64, device.incarnation.0 as i64, known.0 as i64],
        )?;
        let waiting = self.waiting_numbers()?;
        let nothing = ItemKey::parse("shared", ERASED_KIND, "", "none")
            .map_err(|_| DecodeError::Invalid("key of nothing"))?;
        let first = waiting.first().map_or(known.0 + 1, |first| *first.min(&(known.0 + 1)));
        for number in (first..=device.last_operation.0).filter(|number| !waiting.contains(number)) {
            let operation = withdrawn(OperationNumber(number), now, &nothing);
            self.queue(&operation, &operation.encode(), &[])?;
        }
        // Also below what they build on: the new server is to keep those outcomes.
        const LOW_WATER: &str = "UPDATE device SET low_water =
            min(low_water, ?, coalesce((SELECT min(builds_on) FROM outbox) - 1, low_water)) WHERE id = 1";
        self.connection.execute(LOW_WATER, [known.0 as i64])?;
        // An earlier life of this device cannot push any more.
        for operation in earlier {
            let number = OperationNumber(self.device()?.last_operation.0 + 1);
            let own = |edit: Edit| Edit { base: Base { after: None, ..edit.base }, ..edit };
            let edits = operation.edits.into_iter().map(own).collect();
            let operation = Operation { number, edits, ..operation };
            self.requeue(&operation, &operation.encode(), touched)?;
        }
        Ok(())
    }

    /// Waiting edits that were made to what came after the fork were made to something the new reign does not
    /// have, whatever its number: they count as made to what both have.
    fn limit_bases(&self, fork: Revision) -> Result<()> {
        const NEXT: &str =
            "SELECT operation, record FROM outbox WHERE operation > ? ORDER BY operation LIMIT 1";
        let mut at = 0;
        loop {
            let next = self
                .connection
                .prepare_cached(NEXT)?
                .query_row([at], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)));
            let Some((number, record)) = next.optional()? else { return Ok(()) };
            at = number;
            let mut operation = Operation::decode(&record)?;
            let beyond = |edit: &&mut Edit| edit.base.revision.sequence > fork.sequence;
            let mut limited = false;
            for edit in operation.edits.iter_mut().filter(beyond) {
                (edit.base.revision, limited) = (fork, true);
            }
            if limited {
                self.connection
                    .prepare_cached("UPDATE outbox SET record = ? WHERE operation = ?")?
                    .execute(params![operation.encode(), number])?;
            }
        }
    }

    fn requeue(&self, operation: &Operation, record: &[u8], touched: &mut Vec<ItemKey>) -> Result<()> {
        let mut items = Vec::with_capacity(operation.edits.len());
        for edit in &operation.edits {
            let key = if self.row(&edit.key)?.is_some() { edit.key.clone() } else { self.place(&edit.key)? };
            let number = match self.row(&key)? {
                Some(row) => row.number,
                None => self.show_local(&key, None, None, true)?,
            };
            items.push(number);
            touched.push(key);
        }
        self.queue(operation, record, &items)
    }

    /// Keys of items the mirror has from beyond a sequence, in the order of their changes.
    fn mirrored_beyond(&self, fork: Sequence) -> Result<Vec<ItemKey>> {
        const SQL: &str = "SELECT scope, kind, device, id FROM items
            WHERE mirror_sequence > ? AND device IN ('', (SELECT own_id FROM device))
            ORDER BY mirror_sequence, number";
        self.keys(SQL, fork.0 as i64)
    }

    /// Offers an item as the mirror has it; false if the device shows it nowhere.
    fn offer_mirrored(&self, key: &ItemKey, fork: Revision, now: u64) -> Result<bool> {
        let Some(row) = self.row(key)? else { return Ok(false) };
        let was = row.mirror_sequence;
        let action = row.mirror.clone().map_or(Action::Delete, Action::Put);
        let shown = apply(None, &action).as_ref().map(Fields::encode);
        if row.local.is_none() {
            self.set_local(row.number, shown.as_deref())?;
        }
        let number = OperationNumber(self.device()?.last_operation.0 + 1);
        let edits = vec![Edit { key: key.clone(), base: Base { revision: fork, after: None }, action }];
        let operation = Operation { number, made_at: now, actor: String::new(), yields: true, was, edits };
        self.queue(&operation, &operation.encode(), &[row.number])?;
        Ok(true)
    }
}
