//! How much room a user's items take, and that edits do not take more than there is.

use std::collections::BTreeMap;

use super::{LocalRead, LocalWrite};
use crate::error::{Error, Result};
use crate::model::{Fields, Scope, limit};

/// From this part of a limit on a person should know.
const NEARLY_PERCENT: u64 = 90;

/// The room a user's items take, as readers at this device see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Whose.
    pub scope: Scope,
    /// Items.
    pub items: u64,
    /// Their encoded bytes.
    pub bytes: u64,
}

impl Usage {
    /// Whether the room is nearly used up, or more.
    #[must_use]
    pub fn is_nearly_full(&self) -> bool {
        self.items * 100 >= limit::USER_ITEMS * NEARLY_PERCENT
            || self.bytes * 100 >= limit::USER_BYTES * NEARLY_PERCENT
    }
}

impl LocalRead<'_> {
    /// The room the items of a scope take.
    ///
    /// # Errors
    /// The database's.
    pub fn scope_usage(&self, scope: &Scope) -> Result<Usage> {
        let sql = format!(
            "SELECT count(*), coalesce(sum(length(coalesce(local_fields, mirror_fields))), 0)
             FROM items WHERE scope = ? AND {}",
            self.lives()?
        );
        let (items, bytes) = self.connection.prepare_cached(&sql)?.query_row([scope.as_str()], |row| {
            Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))
        })?;
        Ok(Usage { scope: scope.clone(), items, bytes })
    }
}

/// By how much edits of one operation change what users hold.
#[derive(Default)]
pub(super) struct Growth(BTreeMap<Scope, (i64, i64)>);

impl Growth {
    /// Notes what one edit does; `after` is the item's encoding, none when deleted.
    pub(super) fn note(&mut self, scope: &Scope, before: Option<&Fields>, after: Option<&[u8]>) {
        if !scope.is_user() {
            return;
        }
        let (items, bytes) = self.0.entry(scope.clone()).or_default();
        *items += i64::from(after.is_some()) - i64::from(before.is_some());
        let length = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        *bytes +=
            length(after.map_or(0, <[u8]>::len)) - length(before.map_or(0, |fields| fields.encode().len()));
    }

    /// Refuses what would take a user over a limit; what only shrinks may stay over it.
    pub(super) fn held_against_limits(self, write: &LocalWrite<'_>) -> Result<Vec<Usage>> {
        let mut users = Vec::with_capacity(self.0.len());
        for (scope, (more_items, more_bytes)) in self.0 {
            let usage = write.scope_usage(&scope)?;
            let over = more_items > 0 && usage.items > limit::USER_ITEMS
                || more_bytes > 0 && usage.bytes > limit::USER_BYTES;
            if over {
                return Err(Error::UserFull { items: usage.items, bytes: usage.bytes });
            }
            users.push(usage);
        }
        Ok(users)
    }
}
