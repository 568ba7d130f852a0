//! Edits set aside for a person, and what a person does with them: offer again, or drop.

use rusqlite::OptionalExtension;

use super::edit::{EditContext, LocalEdit};
use super::{LocalRead, LocalWrite};
use crate::error::Result;
use crate::model::{Action, EditOutcome, Fields, ItemKey, Operation, OperationNumber, Outcome};

/// An operation a person should see: rejected, or with an edit that lost a conflict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Its place in the list.
    pub entry: i64,
    /// The operation as it was made.
    pub operation: Operation,
    /// What became of it.
    pub outcome: Outcome,
    /// Wall clock when the answer came, Unix milliseconds.
    pub noticed_at: u64,
}

impl SetAside {
    /// What was not taken: of a rejected operation everything, else the edits, or their fields, that
    /// lost.
    #[must_use]
    pub fn lost(&self) -> Vec<LocalEdit> {
        let edit = |(place, edit): (usize, &crate::model::Edit)| {
            let action = match &self.outcome {
                Outcome::Rejected { .. } => edit.action.clone(),
                Outcome::Accepted { edits, .. } => match edits.get(place)? {
                    EditOutcome::Superseded { fields, .. } => lost_part(&edit.action, fields),
                    EditOutcome::Applied | EditOutcome::Merged { .. } | EditOutcome::Unchanged => {
                        return None;
                    }
                },
            };
            Some(LocalEdit { key: edit.key.clone(), action })
        };
        self.operation.edits.iter().enumerate().filter_map(edit).collect()
    }
}

/// The part of an action that names these fields; all of it when none is named.
fn lost_part(action: &Action, fields: &[String]) -> Action {
    if fields.is_empty() {
        return action.clone();
    }
    let given = match action {
        Action::Put(given) | Action::Patch { set: given, .. } => given,
        Action::Delete => return Action::Delete,
    };
    let mut set = Fields::new();
    let mut remove = Vec::new();
    for name in fields {
        match (given.get(name), action) {
            (Some(value), _) => set.insert(name.clone(), value.clone()),
            (None, Action::Patch { remove: removed, .. }) if !removed.contains(name) => {}
            // A put removes what it does not name.
            (None, _) => remove.push(name.clone()),
        }
    }
    Action::Patch { set, remove }
}

impl LocalRead<'_> {
    /// Operations set aside, newest first.
    ///
    /// # Errors
    /// The database's.
    pub fn set_aside(&self, limit: u32) -> Result<Vec<SetAside>> {
        const SQL: &str =
            "SELECT number, record, outcome, noticed_at FROM set_aside ORDER BY number DESC LIMIT ?";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query([limit])?;
        let mut set_aside = Vec::new();
        while let Some(row) = rows.next()? {
            set_aside.push(SetAside {
                entry: row.get(0)?,
                operation: Operation::decode(row.get_ref(1)?.as_blob().unwrap_or_default())?,
                outcome: Outcome::decode(row.get_ref(2)?.as_blob().unwrap_or_default())?,
                noticed_at: row.get::<_, i64>(3)? as u64,
            });
        }
        Ok(set_aside)
    }

    /// The entries of one operation, or of all, oldest first, with their operations' numbers.
    ///
    /// # Errors
    /// The database's.
    pub fn set_aside_entries(
        &self,
        operation: Option<OperationNumber>,
    ) -> Result<Vec<(i64, OperationNumber)>> {
        const SQL: &str =
            "SELECT number, operation FROM set_aside WHERE ?1 IS NULL OR operation = ?1 ORDER BY number";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query([operation.map(|operation| operation.0 as i64)])?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next()? {
            entries.push((row.get(0)?, OperationNumber(row.get::<_, i64>(1)? as u64)));
        }
        Ok(entries)
    }

    /// How many operations were rejected.
    ///
    /// # Errors
    /// The database's.
    pub fn rejected_count(&self) -> Result<u64> {
        // Byte 6 of an outcome record, behind magic and version, says which it is.
        self.count("SELECT count(*) FROM set_aside WHERE substr(outcome, 6, 1) = x'02'")
    }
}

impl LocalWrite<'_> {
    /// Offers an entry again: what was not taken becomes a new edit of what stands now, by the same
    /// person. Returns the items; none when there is no such entry.
    ///
    /// # Errors
    /// As [`LocalWrite::edit`]; the entry stays then.
    pub fn retry_set_aside(&self, entry: i64, context: &EditContext) -> Result<Option<Vec<ItemKey>>> {
        const TAKE: &str = "SELECT record, outcome, noticed_at FROM set_aside WHERE number = ?";
        let found = self.connection.prepare_cached(TAKE)?.query_row([entry], |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, i64>(2)?))
        });
        let Some((record, outcome, noticed_at)) = found.optional()? else { return Ok(None) };
        let set_aside = SetAside {
            entry,
            operation: Operation::decode(&record)?,
            outcome: Outcome::decode(&outcome)?,
            noticed_at: noticed_at as u64,
        };
        let edits = set_aside.lost();
        let keys = edits.iter().map(|edit| edit.key.clone()).collect();
        let context = EditContext { actor: set_aside.operation.actor, ..context.clone() };
        self.edit(edits, &context)?;
        self.drop_set_aside(entry)?;
        Ok(Some(keys))
    }

    /// Forgets an entry. False when there is none.
    ///
    /// # Errors
    /// The database's.
    pub fn drop_set_aside(&self, entry: i64) -> Result<bool> {
        let dropped =
            self.connection.prepare_cached("DELETE FROM set_aside WHERE number = ?")?.execute([entry])?;
        Ok(dropped == 1)
    }
}
