//! The rows of an archived master, table by table: each value is decoded as what it is said to be, and what
//! was decoded is written. A row that nobody of ours would have written is refused.

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use super::super::{Head, Ledger, history, sequence_of};
use super::{ArchivedError, row};
use crate::codec::DecodeError;
use crate::error::{Error, Result};
use crate::model::{
    DeviceId, FieldSequences, Fields, Held, IssuingCertificate, ItemKey, Kind, Member, Promotion, Scope,
    Sequence, Tally, Target, limit,
};

/// One table: its columns in order, and how a row of them is read.
struct Table {
    name: &'static str,
    columns: &'static [&'static str],
    read: fn(&Columns<'_, '_>) -> Result<Vec<Value>>,
}

/// A row with what its values are measured against.
struct Columns<'r, 's> {
    row: &'r Row<'s>,
    head: &'r Head,
}

/// Where `AUTOINCREMENT` stands: numbers that were given out are never given again.
const LAST_NUMBER: &str = "SELECT seq FROM sqlite_sequence WHERE name = 'superseded'";
const SET_NUMBER: &str = "INSERT OR REPLACE INTO sqlite_sequence (rowid, name, seq)
    VALUES ((SELECT rowid FROM sqlite_sequence WHERE name = 'superseded'), 'superseded', ?)";

/// Copies all tables.
pub(super) fn copy(
    from: &Connection,
    to: &Connection,
    head: &Head,
) -> std::result::Result<(), ArchivedError> {
    for table in &TABLES {
        copy_table(table, from, to, head)?;
    }
    let found = from.query_row(LAST_NUMBER, [], |row| row.get::<_, i64>(0));
    match found {
        Ok(number) => to.execute(SET_NUMBER, [number]).map(drop).map_err(own),
        Err(rusqlite::Error::QueryReturnedNoRows) => Ok(()),
        Err(error) => Err(row("sqlite_sequence", error.into())),
    }
}

fn copy_table(
    table: &Table,
    from: &Connection,
    to: &Connection,
    head: &Head,
) -> std::result::Result<(), ArchivedError> {
    let Table { name, columns, read } = table;
    let (names, places) = (columns.join(", "), vec!["?"; columns.len()].join(", "));
    let damaged = |error: rusqlite::Error| row(name, error.into());
    let mut select = from.prepare(&format!("SELECT {names} FROM {name}")).map_err(damaged)?;
    let mut insert = to.prepare(&format!("INSERT INTO {name} ({names}) VALUES ({places})")).map_err(own)?;
    let mut rows = select.query([]).map_err(damaged)?;
    while let Some(found) = rows.next().map_err(damaged)? {
        let values = read(&Columns { row: found, head }).map_err(|error| row(name, error))?;
        // A row that breaks a constraint was not written under it.
        insert.execute(params_from_iter(values)).map_err(|error| match Error::from(error) {
            error @ Error::Statement(_) => row(name, error),
            error => ArchivedError::Storage(error),
        })?;
    }
    Ok(())
}

fn own(error: rusqlite::Error) -> ArchivedError {
    ArchivedError::Storage(error.into())
}

const TABLES: [Table; 16] = [
    Table {
        name: "head",
        columns: &[
            "id",
            "group_id",
            "group_name",
            "root_key",
            "epoch",
            "nonce",
            "sequence",
            "chain",
            "items",
            "tombstone_floor",
            "hours_run",
        ],
        read: |at| {
            Ok(vec![
                at.whole(0)?,
                at.fixed::<16>(1)?,
                at.name(2)?,
                at.fixed::<32>(3)?,
                at.whole(4)?,
                at.fixed::<16>(5)?,
                at.sequence(6)?,
                at.fixed::<32>(7)?,
                at.whole(8)?,
                at.sequence(9)?,
                at.whole(10)?,
            ])
        },
    },
    Table {
        name: "marks",
        columns: &["day", "sequence", "superseded"],
        read: |at| Ok(vec![at.whole(0)?, at.sequence(1)?, at.whole(2)?]),
    },
    Table {
        name: "items",
        columns: &["position", "scope", "kind", "device", "id", "deleted", "fields", "field_sequences"],
        read: |at| {
            let [scope, kind, device, id] = at.key(1)?;
            let sequences =
                at.decoded(7, |bytes| FieldSequences::decode(bytes).map(|found| found.encode()))?;
            Ok(vec![at.position(0)?, scope, kind, device, id, at.flag(5)?, at.fields(6)?, sequences])
        },
    },
    Table {
        name: "changes",
        columns: &[
            "position",
            "scope",
            "kind",
            "device",
            "id",
            "author",
            "incarnation",
            "operation",
            "actor",
            "made_at",
            "accepted_at",
            "epoch",
            "chain",
            "deleted",
            "touched",
            "prior_position",
            "prior_deleted",
            "prior_fields",
            "lost_fields",
        ],
        read: |at| {
            let [scope, kind, device, id] = at.key(1)?;
            Ok(vec![
                at.position(0)?,
                scope,
                kind,
                device,
                id,
                at.fixed::<16>(5)?,
                at.bits(6)?,
                at.bits(7)?,
                at.name(8)?,
                at.bits(9)?,
                at.bits(10)?,
                at.whole(11)?,
                at.fixed::<32>(12)?,
                at.flag(13)?,
                at.names(14)?,
                at.optional(15, Columns::position)?,
                at.optional(16, Columns::flag)?,
                at.optional(17, Columns::fields)?,
                at.optional(18, Columns::fields)?,
            ])
        },
    },
    Table {
        name: "superseded",
        columns: &[
            "number",
            "scope",
            "kind",
            "device",
            "id",
            "author",
            "incarnation",
            "operation",
            "actor",
            "made_at",
            "accepted_at",
            "after_sequence",
            "by_sequence",
            "lost_fields",
        ],
        read: |at| {
            let [scope, kind, device, id] = at.key(1)?;
            Ok(vec![
                at.whole(0)?,
                scope,
                kind,
                device,
                id,
                at.fixed::<16>(5)?,
                at.bits(6)?,
                at.bits(7)?,
                at.name(8)?,
                at.bits(9)?,
                at.bits(10)?,
                at.sequence(11)?,
                at.sequence(12)?,
                at.fields(13)?,
            ])
        },
    },
    Table {
        name: "ledger",
        columns: &["incarnation", "block", "device", "confirmed", "entries"],
        read: |at| {
            let (block, confirmed) = (at.row.get(1)?, at.row.get(3)?);
            let entries = at.decoded(4, |bytes| Ledger::checked(block, confirmed, bytes))?;
            Ok(vec![at.bits(0)?, at.whole(1)?, at.fixed::<16>(2)?, at.bits(3)?, entries])
        },
    },
    Table {
        name: "lineage",
        columns: &["number", "record"],
        read: |at| {
            let number: i64 = at.row.get(0)?;
            let record = at.decoded(1, |bytes| {
                let promotion = Promotion::decode(bytes)?;
                let (group, epoch) = (promotion.record.group, promotion.record.epoch);
                as_keyed(group == at.head.group && epoch.number == number as u64, &promotion.encode())
            })?;
            Ok(vec![at.whole(0)?, record])
        },
    },
    Table {
        name: "issuers",
        columns: &["device", "record"],
        read: |at| {
            let device = DeviceId(at.row.get(0)?);
            let record = at.decoded(1, |bytes| {
                let issuer = IssuingCertificate::decode(bytes)?;
                let of = (issuer.record.group, issuer.record.device);
                as_keyed(of == (at.head.group, device), &issuer.encode())
            })?;
            Ok(vec![at.fixed::<16>(0)?, record])
        },
    },
    Table {
        name: "members",
        columns: &["device", "record"],
        read: |at| {
            let device = DeviceId(at.row.get(0)?);
            let record = at.decoded(1, |bytes| {
                let member = Member::decode(bytes)?;
                let of = (member.record.group, member.record.device);
                as_keyed(of == (at.head.group, device), &member.encode())
            })?;
            Ok(vec![at.fixed::<16>(0)?, record])
        },
    },
    Table {
        name: "replication",
        columns: &["id", "device", "durability"],
        read: |at| Ok(vec![at.whole(0)?, at.fixed::<16>(1)?, at.whole(2)?]),
    },
    Table {
        name: "unprotected",
        columns: &["after_sequence", "through_sequence", "began_at"],
        read: |at| Ok(vec![at.whole(0)?, at.optional(1, Columns::whole)?, at.bits(2)?]),
    },
    Table {
        name: "succession",
        columns: &["id", "known_sequence"],
        read: |at| Ok(vec![at.whole(0)?, at.bits(1)?]),
    },
    Table {
        name: "offered",
        columns: &["scope", "kind", "device", "id", "was", "position"],
        read: |at| {
            let [scope, kind, device, id] = at.key(0)?;
            Ok(vec![scope, kind, device, id, at.whole(4)?, at.whole(5)?])
        },
    },
    Table {
        name: "reports",
        columns: &["device", "held"],
        read: |at| {
            let held = at.decoded(1, |bytes| Held::decode(bytes).map(|held| held.encode()))?;
            Ok(vec![at.fixed::<16>(0)?, held])
        },
    },
    Table {
        name: "switching",
        columns: &[
            "id",
            "kind",
            "target",
            "device",
            "actor",
            "began",
            "through_scope",
            "through_id",
            "sequence",
            "expected",
            "tally",
        ],
        read: |at| {
            let device = at.row.get::<_, Option<[u8; 16]>>(3)?.map(DeviceId);
            Target::of_number(at.row.get(2)?, device)?;
            let scope = Scope::parse(&at.text(6)?).map_err(|_| KEY)?;
            let tally = at.decoded(10, |bytes| Tally::decode(bytes).map(|tally| tally.encode()))?;
            Ok(vec![
                at.whole(0)?,
                Value::Text(at.kind(1)?),
                at.whole(2)?,
                device.map_or(Value::Null, |device| Value::Blob(device.0.to_vec())),
                at.name(4)?,
                at.sequence(5)?,
                Value::Text(scope.as_str().to_owned()),
                at.name(7)?,
                at.sequence(8)?,
                at.whole(9)?,
                tally,
            ])
        },
    },
    Table {
        name: "progress",
        columns: &["device", "incarnation", "sequence", "settled", "quarantined"],
        read: |at| Ok(vec![at.fixed::<16>(0)?, at.bits(1)?, at.whole(2)?, at.whole(3)?, at.flag(4)?]),
    },
];

const KEY: DecodeError = DecodeError::Invalid("item key");

/// A record's bytes, if it is the one its row is keyed by.
fn as_keyed(is: bool, record: &[u8]) -> std::result::Result<Vec<u8>, DecodeError> {
    if is { Ok(record.to_owned()) } else { Err(DecodeError::Invalid("record of another row or group")) }
}

impl Columns<'_, '_> {
    /// An integer that may have been drawn from all 64 bits.
    fn bits(&self, at: usize) -> Result<Value> {
        Ok(Value::Integer(self.row.get(at)?))
    }

    /// A count or number.
    fn whole(&self, at: usize) -> Result<Value> {
        let value: i64 = self.row.get(at)?;
        if value < 0 { Err(DecodeError::Invalid("negative count").into()) } else { Ok(Value::Integer(value)) }
    }

    /// A sequence that was given.
    fn sequence(&self, at: usize) -> Result<Value> {
        let value: i64 = self.row.get(at)?;
        self.given(Sequence(u64::try_from(value).map_err(|_| DecodeError::Invalid("negative sequence"))?))?;
        Ok(Value::Integer(value))
    }

    /// The position of an item or change: within the order of what was accepted.
    fn position(&self, at: usize) -> Result<Value> {
        let value: i64 = self.row.get(at)?;
        if value < 0 {
            return Err(DecodeError::Invalid("negative position").into());
        }
        self.given(sequence_of(value))?;
        Ok(Value::Integer(value))
    }

    /// I-18: what is beyond the head would be given a second time.
    fn given(&self, sequence: Sequence) -> Result<()> {
        if sequence <= self.head.sequence {
            return Ok(());
        }
        Err(DecodeError::Invalid("sequence beyond the head").into())
    }

    fn flag(&self, at: usize) -> Result<Value> {
        match self.row.get(at)? {
            value @ 0..=1_i64 => Ok(Value::Integer(value)),
            _ => Err(DecodeError::Invalid("flag is neither 0 nor 1").into()),
        }
    }

    fn fixed<const N: usize>(&self, at: usize) -> Result<Value> {
        Ok(Value::Blob(self.row.get::<_, [u8; N]>(at)?.to_vec()))
    }

    fn text(&self, at: usize) -> Result<String> {
        Ok(self.row.get(at)?)
    }

    /// The name of a person, an item, or the group.
    fn name(&self, at: usize) -> Result<Value> {
        let text = self.text(at)?;
        if text.len() > limit::NAME_BYTES {
            return Err(DecodeError::Invalid("name is too long").into());
        }
        Ok(Value::Text(text))
    }

    fn kind(&self, at: usize) -> Result<String> {
        Ok(Kind::parse(&self.text(at)?).map_err(|_| KEY)?.as_str().to_owned())
    }

    /// The four columns of an item's key.
    fn key(&self, at: usize) -> Result<[Value; 4]> {
        let (scope, kind, device, id) =
            (self.text(at)?, self.text(at + 1)?, self.text(at + 2)?, self.text(at + 3)?);
        let key = ItemKey::parse(&scope, &kind, &device, &id).map_err(|_| KEY)?;
        let (scope, kind) = (key.scope.as_str().to_owned(), key.kind.as_str().to_owned());
        Ok([scope, kind, key.device, key.id].map(Value::Text))
    }

    fn fields(&self, at: usize) -> Result<Value> {
        self.decoded(at, |bytes| Fields::decode(bytes).map(|fields| fields.encode()))
    }

    fn names(&self, at: usize) -> Result<Value> {
        let bytes: Vec<u8> = self.row.get(at)?;
        history::names(&bytes)?;
        Ok(Value::Blob(bytes))
    }

    /// What a record's bytes decode to, encoded anew.
    fn decoded(
        &self,
        at: usize,
        again: impl FnOnce(&[u8]) -> std::result::Result<Vec<u8>, DecodeError>,
    ) -> Result<Value> {
        Ok(Value::Blob(again(self.row.get_ref(at)?.as_blob()?)?))
    }

    fn optional(&self, at: usize, read: impl FnOnce(&Self, usize) -> Result<Value>) -> Result<Value> {
        let absent = matches!(self.row.get_ref(at)?, rusqlite::types::ValueRef::Null);
        if absent { Ok(Value::Null) } else { read(self, at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open;
    use crate::schema::MASTER;

    #[test]
    fn no_table_or_column_of_the_schema_is_left_out() {
        let schema = open::in_memory(MASTER).unwrap();
        let sql = "SELECT tables.name, columns.name FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS columns
            WHERE tables.type = 'table' AND tables.name <> 'sqlite_sequence' ORDER BY 1, columns.cid";
        let mut statement = schema.prepare(sql).unwrap();
        let declared =
            statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)));
        let declared: Vec<(String, String)> = declared.unwrap().map(std::result::Result::unwrap).collect();
        let mut copied: Vec<(String, String)> = Vec::new();
        let mut tables: Vec<&Table> = TABLES.iter().collect();
        tables.sort_by_key(|table| table.name);
        for Table { name, columns, .. } in tables {
            copied.extend(columns.iter().map(|column| ((*name).to_owned(), (*column).to_owned())));
        }
        assert_eq!(copied, declared);
    }
}
