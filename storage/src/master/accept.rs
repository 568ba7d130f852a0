//! Writing an accepted operation: items, history, chain, head and ledger in one transaction.

use rusqlite::params;

use super::{Head, MasterWrite, position};
use crate::codec::Encoder;
use crate::error::Result;
use crate::model::{
    Chain, DeviceId, Digest, FieldSequences, Fields, Incarnation, ItemKey, OperationNumber, Outcome,
    Revision, Sequence,
};

/// Who made an operation, and when it was accepted.
#[derive(Debug, Clone)]
pub struct Author {
    /// The device.
    pub device: DeviceId,
    /// Its local state's life.
    pub incarnation: Incarnation,
    /// The device's number for the operation.
    pub operation: OperationNumber,
    /// The person or program.
    pub actor: String,
    /// The device's wall clock when it was made.
    pub made_at: u64,
    /// The server's wall clock now.
    pub accepted_at: u64,
}

/// What an accepted operation makes of one item.
#[derive(Debug, Clone)]
pub struct ItemWrite {
    /// Which item.
    pub key: ItemKey,
    /// The item becomes a tombstone.
    pub deleted: bool,
    /// All its fields from now on.
    pub fields: Fields,
    /// The fields this operation changed or removed.
    pub touched: Vec<String>,
    /// When the fields last changed, for an item that moves as it is; none when what is touched changes
    /// now.
    pub sequences: Option<FieldSequences>,
    /// Values that lost a conflict, kept for the undo window.
    pub lost: Fields,
    /// Whether the history keeps the fields as they were before; never for secrets.
    pub keep_prior: bool,
}

/// An edit that was not taken, kept for the undo window.
#[derive(Debug, Clone)]
pub struct Loss {
    /// Which item.
    pub key: ItemKey,
    /// The change that stands.
    pub by: Sequence,
    /// The values that were not taken.
    pub fields: Fields,
}

/// An item's row as it is before a change, its fields still encoded.
struct Prior {
    position: i64,
    deleted: bool,
    fields: Vec<u8>,
    sequences: FieldSequences,
}

impl MasterWrite<'_> {
    /// Gives the next sequence to the writes of one operation and stores them. Without writes
    /// nothing changes and the revision is the head's.
    ///
    /// # Errors
    /// The database's.
    pub fn accept(&self, author: &Author, writes: &[ItemWrite]) -> Result<Revision> {
        let head = self.founded_head()?;
        if writes.is_empty() {
            return Ok(head.revision());
        }
        let sequence = head.sequence.next();
        let mut done = Encoder::new();
        for write in writes {
            write.key.encode(&mut done);
            done.fixed(&[u8::from(write.deleted)]).bytes(&write.fields.encode());
        }
        let chain = head.chain.after(sequence, done.as_bytes());
        let mut more = 0i64;
        for (ordinal, write) in writes.iter().enumerate() {
            let at = position(sequence, ordinal);
            let prior = self.prior(&write.key)?;
            let lived = prior.as_ref().is_some_and(|prior| !prior.deleted);
            more += i64::from(!write.deleted) - i64::from(lived);
            self.remember(author, write, prior.as_ref(), at, &head, &chain)?;
            self.store_item(write, prior, at, sequence)?;
        }
        self.connection
            .prepare_cached("UPDATE head SET sequence = ?, chain = ?, items = items + ? WHERE id = 1")?
            .execute(params![sequence.0 as i64, chain.0, more])?;
        Ok(Revision { epoch: head.epoch.number, sequence })
    }

    fn prior(&self, key: &ItemKey) -> Result<Option<Prior>> {
        const SQL: &str = "SELECT position, deleted, fields, field_sequences FROM items
            WHERE scope = ? AND kind = ? AND device = ? AND id = ?";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query(params![key.scope.as_str(), key.kind.as_str(), key.device, key.id])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        Ok(Some(Prior {
            position: row.get(0)?,
            deleted: row.get(1)?,
            fields: row.get(2)?,
            sequences: FieldSequences::decode(row.get_ref(3)?.as_blob().unwrap_or_default())?,
        }))
    }

    fn store_item(&self, write: &ItemWrite, prior: Option<Prior>, at: i64, sequence: Sequence) -> Result<()> {
        const SQL: &str = "INSERT INTO items
                (position, scope, kind, device, id, deleted, fields, field_sequences)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT (scope, kind, device, id) DO UPDATE SET position = excluded.position,
                deleted = excluded.deleted, fields = excluded.fields,
                field_sequences = excluded.field_sequences";
        let sequences = write.sequences.clone().unwrap_or_else(|| {
            let mut sequences = prior.map(|prior| prior.sequences).unwrap_or_default();
            write.touched.iter().for_each(|name| sequences.set(name, sequence));
            sequences
        });
        let key = &write.key;
        self.connection.prepare_cached(SQL)?.execute(params![
            at,
            key.scope.as_str(),
            key.kind.as_str(),
            key.device,
            key.id,
            write.deleted,
            write.fields.encode(),
            sequences.encode()
        ])?;
        Ok(())
    }

    fn remember(
        &self,
        author: &Author,
        write: &ItemWrite,
        prior: Option<&Prior>,
        at: i64,
        head: &Head,
        chain: &Chain,
    ) -> Result<()> {
        const SQL: &str = "INSERT INTO changes (position, scope, kind, device, id, author, incarnation,
                operation, actor, made_at, accepted_at, epoch, chain, deleted, touched, prior_position,
                prior_deleted, prior_fields, lost_fields)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let key = &write.key;
        let lost = (!write.lost.is_empty()).then(|| write.lost.encode());
        let kept = prior.filter(|prior| write.keep_prior || prior.deleted);
        self.connection.prepare_cached(SQL)?.execute(params![
            at,
            key.scope.as_str(),
            key.kind.as_str(),
            key.device,
            key.id,
            author.device.0,
            author.incarnation.0 as i64,
            author.operation.0 as i64,
            author.actor,
            author.made_at as i64,
            author.accepted_at as i64,
            head.epoch.number as i64,
            chain.0,
            write.deleted,
            names(&write.touched),
            prior.map(|prior| prior.position),
            prior.map(|prior| prior.deleted),
            kept.map(|prior| prior.fields.as_slice()),
            lost
        ])?;
        Ok(())
    }

    /// Keeps an edit that was not taken.
    ///
    /// # Errors
    /// The database's.
    pub fn keep_loss(&self, author: &Author, loss: &Loss) -> Result<()> {
        const SQL: &str = "INSERT INTO superseded (scope, kind, device, id, author, incarnation, operation,
                actor, made_at, accepted_at, after_sequence, by_sequence, lost_fields)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, (SELECT sequence FROM head WHERE id = 1), ?, ?)";
        let key = &loss.key;
        self.connection.prepare_cached(SQL)?.execute(params![
            key.scope.as_str(),
            key.kind.as_str(),
            key.device,
            key.id,
            author.device.0,
            author.incarnation.0 as i64,
            author.operation.0 as i64,
            author.actor,
            author.made_at as i64,
            author.accepted_at as i64,
            loss.by.0 as i64,
            loss.fields.encode()
        ])?;
        Ok(())
    }

    /// Notes what became of an operation, so that its repetition gets the same answer.
    ///
    /// # Errors
    /// The database's.
    pub fn record_outcome(
        &self,
        incarnation: Incarnation,
        operation: OperationNumber,
        digest: &Digest,
        outcome: &Outcome,
    ) -> Result<()> {
        const SQL: &str = "INSERT INTO ledger (incarnation, operation, digest, outcome) VALUES (?, ?, ?, ?)";
        self.connection.prepare_cached(SQL)?.execute(params![
            incarnation.0 as i64,
            operation.0 as i64,
            digest,
            outcome.encode()
        ])?;
        Ok(())
    }

    /// Forgets outcomes below the low-water mark the device confirmed; the mark's own stays, so that
    /// the device's highest number is always known.
    ///
    /// # Errors
    /// The database's.
    pub fn prune_ledger(&self, incarnation: Incarnation, low_water: OperationNumber) -> Result<()> {
        self.connection
            .prepare_cached("DELETE FROM ledger WHERE incarnation = ? AND operation < ?")?
            .execute(params![incarnation.0 as i64, low_water.0 as i64])?;
        Ok(())
    }
}

/// A list of names as a record holds it.
fn names(names: &[String]) -> Vec<u8> {
    let mut to = Encoder::new();
    to.varint(names.len() as u64);
    for name in names {
        to.text(name);
    }
    to.finish()
}
