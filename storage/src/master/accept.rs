//! Writing an accepted operation: items, history, chain and head in one transaction.

use rusqlite::params;

use super::{Head, MasterItem, MasterRead, MasterWrite, position, sequence_of};
use crate::codec::Encoder;
use crate::error::Result;
use crate::model::{
    Chain, DeviceId, FieldSequences, Fields, Incarnation, ItemKey, OperationNumber, Revision, Sequence,
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

/// An item's row as it is before a change, its fields still encoded. Good for the transaction that
/// read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prior {
    position: i64,
    deleted: bool,
    fields: Vec<u8>,
    sequences: FieldSequences,
}

impl Prior {
    /// The encoded bytes of the item; none when it is deleted.
    #[must_use]
    pub fn live_bytes(&self) -> Option<u64> {
        (!self.deleted).then_some(self.fields.len() as u64)
    }

    /// The item itself.
    ///
    /// # Errors
    /// A damaged row.
    pub fn item(&self) -> Result<MasterItem> {
        Ok(MasterItem {
            sequence: sequence_of(self.position),
            deleted: self.deleted,
            fields: Fields::decode(&self.fields)?,
            field_sequences: self.sequences.clone(),
        })
    }
}

impl MasterRead<'_> {
    /// An item's row, for whoever decides what becomes of it and writes that.
    ///
    /// # Errors
    /// The database's.
    pub fn prior(&self, key: &ItemKey) -> Result<Option<Prior>> {
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
}

impl MasterWrite<'_> {
    /// Gives the next sequence to the writes of one operation and stores them. Without writes
    /// nothing changes and the revision is the head's.
    ///
    /// # Errors
    /// The database's.
    pub fn accept(&self, author: &Author, writes: &[ItemWrite]) -> Result<Revision> {
        let prior = |write: &ItemWrite| Ok((write.clone(), self.prior(&write.key)?));
        let writes: Vec<_> = writes.iter().map(prior).collect::<Result<_>>()?;
        self.accept_behind(&mut self.founded_head()?, author, writes)
    }

    /// As [`Self::accept`], by a caller that has read the head and the items' rows in this transaction
    /// anyway; the head moves on.
    ///
    /// # Errors
    /// The database's.
    pub fn accept_behind(
        &self,
        head: &mut Head,
        author: &Author,
        writes: Vec<(ItemWrite, Option<Prior>)>,
    ) -> Result<Revision> {
        if writes.is_empty() {
            return Ok(head.revision());
        }
        let sequence = head.sequence.next();
        let fields: Vec<Vec<u8>> = writes.iter().map(|(write, _)| write.fields.encode()).collect();
        let mut done = Encoder::new();
        for ((write, _), fields) in writes.iter().zip(&fields) {
            write.key.encode(&mut done);
            done.fixed(&[u8::from(write.deleted)]).bytes(fields);
        }
        let chain = head.chain.after(sequence, done.as_bytes());
        let mut more = 0i64;
        for (ordinal, ((write, prior), fields)) in writes.into_iter().zip(&fields).enumerate() {
            let at = position(sequence, ordinal);
            let lived = prior.as_ref().is_some_and(|prior| !prior.deleted);
            more += i64::from(!write.deleted) - i64::from(lived);
            self.remember(author, &write, prior.as_ref(), at, head, &chain)?;
            self.store_item(&write, fields, prior, at, sequence)?;
        }
        self.connection
            .prepare_cached("UPDATE head SET sequence = ?, chain = ?, items = items + ? WHERE id = 1")?
            .execute(params![sequence.0 as i64, chain.0, more])?;
        (head.sequence, head.chain) = (sequence, chain);
        Ok(head.revision())
    }

    fn store_item(
        &self,
        write: &ItemWrite,
        fields: &[u8],
        prior: Option<Prior>,
        at: i64,
        sequence: Sequence,
    ) -> Result<()> {
        const MOVE: &str = "UPDATE items SET position = ?, deleted = ?, fields = ?, field_sequences = ?
            WHERE position = ?";
        const ADD: &str = "INSERT INTO items
                (position, deleted, fields, field_sequences, scope, kind, device, id)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
        let before = prior.as_ref().map(|prior| prior.position);
        let sequences = write.sequences.clone().unwrap_or_else(|| {
            let mut sequences = prior.map(|prior| prior.sequences).unwrap_or_default();
            write.touched.iter().for_each(|name| sequences.set(name, sequence));
            sequences
        });
        let sequences = sequences.encode();
        match before {
            Some(before) => self.connection.prepare_cached(MOVE)?.execute(params![
                at,
                write.deleted,
                fields,
                sequences,
                before
            ])?,
            None => {
                let key = &write.key;
                let (scope, kind) = (key.scope.as_str(), key.kind.as_str());
                self.connection.prepare_cached(ADD)?.execute(params![
                    at,
                    write.deleted,
                    fields,
                    sequences,
                    scope,
                    kind,
                    key.device,
                    key.id
                ])?
            }
        };
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

    /// Keeps an edit that was not taken. I-05: it can be looked up, and by whom it was overruled.
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
