//! What a device does when it hears that a user was erased: it forgets everything it holds of them,
//! in the transaction that stores the news.
//!
//! Operations keep their numbers without a gap, so a waiting one that touches the user is withdrawn,
//! not removed: its record becomes one that asks for nothing, and the server answers it from the
//! ledger or refuses it.

use std::collections::BTreeMap;

use rusqlite::params;

use super::edit::EditContext;
use super::{LocalRead, LocalWrite};
use crate::codec::DecodeError;
use crate::error::{Error, Result};
use crate::model::{
    Action, Base, Change, ERASED_KIND, Edit, ErasedMark, Erasure, Fields, ItemKey, Operation,
    OperationNumber, Outcome, Scope, erasure_key,
};

/// Who stands as the author of what is left of a withdrawn operation.
const ACTOR: &str = "erasure";

impl LocalRead<'_> {
    /// The mark of an erased user, as far as this device has heard; none for everybody else.
    ///
    /// # Errors
    /// The database's.
    pub fn erasure(&self, scope: &Scope) -> Result<Option<Erasure>> {
        if !scope.is_user() {
            return Ok(None);
        }
        let Some(membership) = self.membership()? else { return Ok(None) };
        let Some(key) = erasure_key(membership.group, scope) else { return Ok(None) };
        let row = self.row(&key)?;
        Ok(row.and_then(|row| {
            let mark = ErasedMark::of(row.mirror.as_ref()?);
            Some(Erasure { mark, sequence: row.mirror_sequence? })
        }))
    }

    /// The marks this device has heard of, by their ids: what a restore elsewhere may lack.
    ///
    /// # Errors
    /// The database's, or a damaged record.
    pub fn erasures(&self) -> Result<BTreeMap<String, ErasedMark>> {
        const SQL: &str = "SELECT id, mirror_fields FROM items
            WHERE scope = 'shared' AND kind = ? AND device = '' AND mirror_deleted = 0";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query([ERASED_KIND])?;
        let mut marks = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let fields = Fields::decode(row.get_ref(1)?.as_blob().unwrap_or_default())?;
            marks.insert(row.get(0)?, ErasedMark::of(&fields));
        }
        Ok(marks)
    }

    /// Whether a change is news of an erasure or readmission.
    pub(super) fn is_news_of_erasure(&self, change: &Change) -> Result<bool> {
        if change.deleted || change.key.kind.as_str() != ERASED_KIND {
            return Ok(false);
        }
        let known = self.row(&change.key)?.and_then(|row| row.mirror);
        Ok(known.as_ref() != Some(&change.fields))
    }
}

impl LocalWrite<'_> {
    /// Forgets everything of the user whom a mark stands for. Returns the keys that readers saw.
    pub(super) fn purge(&self, mark: &ItemKey) -> Result<Vec<ItemKey>> {
        let Some(membership) = self.membership()? else { return Ok(Vec::new()) };
        let is_meant = |scope: &Scope| erasure_key(membership.group, scope).is_some_and(|key| key == *mark);
        self.purge_set_aside(&is_meant)?;
        self.purge_retained(&is_meant)?;
        self.purge_kept_of_join(&is_meant)?;
        let mut gone = Vec::new();
        for scope in self.user_scopes()? {
            if is_meant(&scope) {
                self.withdraw(&scope, mark)?;
                gone.extend(self.purge_items(&scope)?);
                self.connection
                    .prepare_cached("DELETE FROM acknowledged WHERE scope = ?")?
                    .execute([scope.as_str()])?;
            }
        }
        Ok(gone)
    }

    /// Every user's scope; a seek for each.
    fn user_scopes(&self) -> Result<Vec<Scope>> {
        const NEXT: &str = "SELECT min(scope) FROM items WHERE scope > ? AND scope < 'user0'";
        let mut statement = self.connection.prepare_cached(NEXT)?;
        let mut scopes: Vec<Scope> = Vec::new();
        loop {
            let after = scopes.last().map_or("user/", Scope::as_str);
            let next: Option<String> = statement.query_row([after], |row| row.get(0))?;
            let Some(next) = next else { return Ok(scopes) };
            scopes.push(Scope::parse(&next).map_err(|_| DecodeError::Invalid("item key"))?);
        }
    }

    fn purge_items(&self, scope: &Scope) -> Result<Vec<ItemKey>> {
        const VISIBLE: &str = "SELECT kind, device, id FROM items
            WHERE scope = ? AND coalesce(local_deleted, mirror_deleted) = 0";
        let mut statement = self.connection.prepare_cached(VISIBLE)?;
        let mut rows = statement.query([scope.as_str()])?;
        let mut seen = Vec::new();
        while let Some(row) = rows.next()? {
            let text = |column| row.get_ref(column).map(|value| value.as_str().unwrap_or_default());
            let key = ItemKey::parse(scope.as_str(), text(0)?, text(1)?, text(2)?);
            seen.push(key.map_err(|_| DecodeError::Invalid("item key"))?);
        }
        self.connection.prepare_cached("DELETE FROM items WHERE scope = ?")?.execute([scope.as_str()])?;
        Ok(seen)
    }

    /// Takes waiting operations that touch the scope back; what else they hold is offered anew.
    fn withdraw(&self, scope: &Scope, mark: &ItemKey) -> Result<()> {
        const WAITING: &str = "SELECT DISTINCT operation FROM outbox_items JOIN items ON item = number
            WHERE scope = ? ORDER BY operation";
        let operations: Vec<i64> = self
            .connection
            .prepare_cached(WAITING)?
            .query_map([scope.as_str()], |row| row.get(0))?
            .collect::<std::result::Result<_, _>>()?;
        for number in operations {
            let record: Vec<u8> = self
                .connection
                .prepare_cached("SELECT record FROM outbox WHERE operation = ?")?
                .query_row([number], |row| row.get(0))?;
            let operation = Operation::decode(&record)?;
            let asks_nothing = withdrawn(operation.number, operation.made_at, mark).encode();
            self.replace_record(number, record.len(), &asks_nothing)?;
            let rest: Vec<Edit> =
                operation.edits.into_iter().filter(|edit| edit.key.scope != *scope).collect();
            self.connection
                .prepare_cached("DELETE FROM outbox_items WHERE operation = ?")?
                .execute([number])?;
            self.offer_rest(rest, operation.actor, operation.made_at)?;
        }
        Ok(())
    }

    fn replace_record(&self, number: i64, old: usize, record: &[u8]) -> Result<()> {
        self.connection
            .prepare_cached("UPDATE outbox SET record = ?, builds_on = operation WHERE operation = ?")?
            .execute(params![record, number])?;
        let grown = record.len() as i64 - old as i64;
        self.connection
            .prepare_cached("UPDATE device SET waiting_bytes = waiting_bytes + ? WHERE id = 1")?
            .execute([grown])?;
        Ok(())
    }

    /// What stood beside the user's edits in one operation still shows here, so it is offered again.
    fn offer_rest(&self, rest: Vec<Edit>, actor: String, made_at: u64) -> Result<()> {
        let mut made = Vec::new();
        for edit in rest {
            let Some(row) = self.row(&self.place(&edit.key)?)? else { continue };
            made.push((row.number, edit));
        }
        if made.is_empty() {
            return Ok(());
        }
        let actor = if actor.is_empty() { ACTOR.to_owned() } else { actor };
        let number = OperationNumber(self.device()?.last_operation.0 + 1);
        self.enqueue(number, made, &EditContext { actor, now: made_at, limits: None }).map(drop)
    }

    fn purge_retained(&self, is_meant: &impl Fn(&Scope) -> bool) -> Result<()> {
        const ALL: &str = "SELECT incarnation, operation, record FROM retained";
        let mut statement = self.connection.prepare_cached(ALL)?;
        let mut rows = statement.query([])?;
        let mut meant = Vec::new();
        while let Some(row) = rows.next()? {
            let record = row.get_ref(2)?.as_blob().unwrap_or_default();
            if Operation::decode(record)?.edits.iter().any(|edit| is_meant(&edit.key.scope)) {
                meant.push((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, record.len() as i64));
            }
        }
        for (incarnation, operation, bytes) in meant {
            self.connection
                .prepare_cached("DELETE FROM retained WHERE incarnation = ? AND operation = ?")?
                .execute([incarnation, operation])?;
            self.count_retained(-1, -bytes)?;
        }
        Ok(())
    }

    fn purge_set_aside(&self, is_meant: &impl Fn(&Scope) -> bool) -> Result<()> {
        const ALL: &str = "SELECT number, record, outcome FROM set_aside";
        let mut statement = self.connection.prepare_cached(ALL)?;
        let mut rows = statement.query([])?;
        let mut meant = Vec::new();
        while let Some(row) = rows.next()? {
            let operation = Operation::decode(row.get_ref(1)?.as_blob().unwrap_or_default())?;
            if operation.edits.iter().any(|edit| is_meant(&edit.key.scope)) {
                let outcome = Outcome::decode(row.get_ref(2)?.as_blob().unwrap_or_default())?;
                meant.push((row.get::<_, i64>(0)?, operation, outcome));
            }
        }
        for (number, operation, outcome) in meant {
            match without(operation, outcome, is_meant) {
                None => drop(self.drop_set_aside(number)?),
                Some((operation, outcome)) => {
                    self.connection
                        .prepare_cached("UPDATE set_aside SET record = ?, outcome = ? WHERE number = ?")?
                        .execute(params![operation.encode(), outcome.encode(), number])?;
                }
            }
        }
        Ok(())
    }

    /// Refuses edits of an erased user at once, with nothing stored.
    pub(super) fn refuse_erased(&self, scope: &Scope) -> Result<()> {
        match self.erasure(scope)? {
            Some(erasure) if !erasure.mark.readmitted => Err(Error::Erased),
            _ => Ok(()),
        }
    }
}

/// An operation that asks for nothing.
pub(super) fn withdrawn(number: OperationNumber, made_at: u64, mark: &ItemKey) -> Operation {
    let edit = Edit { key: mark.clone(), base: Base::default(), action: Action::Delete };
    Operation { number, made_at, actor: String::new(), yields: false, was: None, edits: vec![edit] }
}

/// The same operation and outcome without some edits; none when nothing is left.
fn without(
    operation: Operation,
    outcome: Outcome,
    is_meant: &impl Fn(&Scope) -> bool,
) -> Option<(Operation, Outcome)> {
    let kept: Vec<bool> = operation.edits.iter().map(|edit| !is_meant(&edit.key.scope)).collect();
    let edits: Vec<Edit> =
        operation.edits.into_iter().zip(&kept).filter(|(_, kept)| **kept).map(|(edit, _)| edit).collect();
    let outcome = match outcome {
        Outcome::Rejected { reason, .. } => Outcome::Rejected { reason, edit: 0 },
        Outcome::Accepted { revision, edits } => {
            let edits = edits.into_iter().zip(&kept).filter(|(_, kept)| **kept).map(|(edit, _)| edit);
            Outcome::Accepted { revision, edits: edits.collect() }
        }
    };
    (!edits.is_empty()).then_some((Operation { edits, ..operation }, outcome))
}
