//! Content hashes computed from the rows themselves, so that they prove what is stored: by them I-06 is
//! judged.

use std::collections::BTreeMap;

use rusqlite::Connection;

use crate::codec::DecodeError;
use crate::error::Result;
use crate::model::{ContentHash, Kind, Scope};

/// Hashes the rows of `sql`, which selects scope, kind, device, id and encoded fields.
pub(crate) fn hashes(connection: &Connection, sql: &str) -> Result<BTreeMap<(Scope, Kind), ContentHash>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut hashes = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let text = |column| row.get_ref(column).map(|value| value.as_str().unwrap_or_default());
        let (scope, kind) = (text(0)?, text(1)?);
        let key = Scope::parse(scope)
            .and_then(|scope| Ok((scope, Kind::parse(kind)?)))
            .map_err(|_| DecodeError::Invalid("item key"))?;
        let fields = row.get_ref(4)?.as_blob().unwrap_or_default();
        hashes.entry(key).or_insert(ContentHash::EMPTY).add([scope, kind, text(2)?, text(3)?], fields);
    }
    Ok(hashes)
}
