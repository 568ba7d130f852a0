//! Lineage, issuing certificates and membership rows: tables that the master and every device hold
//! alike. Records are stored as they were signed.

use rusqlite::{Connection, OptionalExtension, params};

use crate::codec::DecodeError;
use crate::error::Result;
use crate::model::{IssuingCertificate, Member, Promotion, Signed};

pub(crate) fn put_promotion(connection: &Connection, promotion: &Signed<Promotion>) -> Result<()> {
    connection.execute(
        "INSERT OR REPLACE INTO lineage (number, record) VALUES (?, ?)",
        params![promotion.record.epoch.number as i64, promotion.encode()],
    )?;
    Ok(())
}

pub(crate) fn put_issuer(connection: &Connection, issuer: &Signed<IssuingCertificate>) -> Result<()> {
    connection.execute(
        "INSERT OR REPLACE INTO issuers (device, record) VALUES (?, ?)",
        params![issuer.record.device.0, issuer.encode()],
    )?;
    Ok(())
}

/// Stores a row, unless the one that is there supersedes it.
pub(crate) fn put_member(connection: &Connection, member: &Signed<Member>) -> Result<()> {
    let stored = connection
        .prepare_cached("SELECT record FROM members WHERE device = ?")?
        .query_row([member.record.device.0], |row| row.get::<_, Vec<u8>>(0))
        .optional()?;
    if let Some(stored) = stored
        && !member.record.supersedes(&Member::decode(&stored)?.record)
    {
        return Ok(());
    }
    connection.execute(
        "INSERT OR REPLACE INTO members (device, record) VALUES (?, ?)",
        params![member.record.device.0, member.encode()],
    )?;
    Ok(())
}

pub(crate) fn lineage(connection: &Connection) -> Result<Vec<Signed<Promotion>>> {
    records(connection, "SELECT record FROM lineage ORDER BY number", Promotion::decode)
}

pub(crate) fn issuers(connection: &Connection) -> Result<Vec<Signed<IssuingCertificate>>> {
    records(connection, "SELECT record FROM issuers ORDER BY device", IssuingCertificate::decode)
}

pub(crate) fn members(connection: &Connection) -> Result<Vec<Signed<Member>>> {
    records(connection, "SELECT record FROM members ORDER BY device", Member::decode)
}

fn records<T>(
    connection: &Connection,
    sql: &str,
    decode: impl Fn(&[u8]) -> std::result::Result<T, DecodeError>,
) -> Result<Vec<T>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.push(decode(row.get_ref(0)?.as_blob().unwrap_or_default())?);
    }
    Ok(records)
}
