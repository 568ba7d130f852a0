//! Which notices of conflicts a person has seen. What a notice says is put together by the daemon.

use std::collections::BTreeSet;

use rusqlite::params;

use super::{LocalRead, LocalWrite};
use crate::codec::Encoder;
use crate::error::Result;
use crate::model::{Fields, ItemKey, Scope, Value, sha256};

/// Bytes of a notice's id.
const ID_BYTES: usize = 16;

/// Names a notice by what it says, so that another conflict is another notice.
#[must_use]
pub fn notice_id(key: &ItemKey, field: &str, ours: Option<&Value>, standing: Option<&Value>) -> Vec<u8> {
    let mut to = Encoder::new();
    key.encode(&mut to);
    to.text(field);
    for value in [ours, standing] {
        let fields: Fields = value.into_iter().map(|value| ("v", value.clone())).collect();
        to.bytes(&fields.encode());
    }
    sha256(to.as_bytes()).into_iter().take(ID_BYTES).collect()
}

impl LocalRead<'_> {
    /// Notices that a user has seen.
    ///
    /// # Errors
    /// The database's.
    pub fn acknowledged(&self, scope: &Scope) -> Result<BTreeSet<Vec<u8>>> {
        let mut statement =
            self.connection.prepare_cached("SELECT notice FROM acknowledged WHERE scope = ?")?;
        let mut rows = statement.query([scope.as_str()])?;
        let mut seen = BTreeSet::new();
        while let Some(row) = rows.next()? {
            seen.insert(row.get(0)?);
        }
        Ok(seen)
    }
}

impl LocalWrite<'_> {
    /// Notes which notices a user has seen, in place of what was noted before.
    ///
    /// # Errors
    /// The database's.
    pub fn set_acknowledged(&self, scope: &Scope, seen: &BTreeSet<Vec<u8>>) -> Result<()> {
        self.connection
            .prepare_cached("DELETE FROM acknowledged WHERE scope = ?")?
            .execute([scope.as_str()])?;
        for notice in seen {
            self.connection
                .prepare_cached("INSERT INTO acknowledged (scope, notice) VALUES (?, ?)")?
                .execute(params![scope.as_str(), notice])?;
        }
        Ok(())
    }
}
