//! Field by field: an edit of a living item.
//!
//! Takes what the author may overwrite, asks the rule about the rest, and remembers who lost (I-05).
//! Called by `merge` alone.

use std::collections::BTreeSet;

use mfpsync_storage::model::{Fields, Sequence, Value};

use super::destinations::{self, SECOND};
use super::{Merge, MergeOutcome, Rule, SameField, Seen, Standing};

/// A merge of one edit on its way from field to field.
pub(super) struct Resolver<'a> {
    pub(super) rule: &'a Rule,
    pub(super) standing: &'a Standing,
    seen: &'a Seen,
    /// The item as it will be.
    pub(super) fields: Fields,
    /// Fields the edit gives a value, also the one they have.
    pub(super) given: BTreeSet<String>,
    /// Fields whose value changed.
    pub(super) touched: BTreeSet<String>,
    /// Fields taken over an unseen change.
    pub(super) merged: BTreeSet<String>,
    /// Fields not taken.
    refused: BTreeSet<String>,
    /// The latest change that stood against one of those.
    by: Sequence,
    pub(super) lost: Fields,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(rule: &'a Rule, standing: &'a Standing, seen: &'a Seen) -> Self {
        Self {
            rule,
            standing,
            seen,
            fields: standing.fields.clone(),
            given: BTreeSet::new(),
            touched: BTreeSet::new(),
            merged: BTreeSet::new(),
            refused: BTreeSet::new(),
            by: Sequence::ZERO,
            lost: Fields::new(),
        }
    }

    /// Whether the author knew the field as it stands.
    ///
    /// A second destination was put there by a merge, not by its author: even one that came with
    /// the author's own operation is unknown until the author's mirror has it.
    pub(super) fn knows(&self, name: &str) -> bool {
        let sequence = self.standing.sequences.get(name);
        let by_merge =
            self.rule.same_field == SameField::LaterWinsKeepDestinations && name.starts_with(SECOND);
        if by_merge { sequence <= self.seen.base } else { self.seen.covers(sequence) }
    }

    /// All fields the author did not know as they stand, removed ones included.
    pub(super) fn unseen(&self) -> Vec<String> {
        let all = self.standing.sequences.iter().map(|(name, _)| name);
        all.filter(|name| !self.knows(name)).map(str::to_owned).collect()
    }

    pub(super) fn put(mut self, fields: &Fields) -> Merge {
        let gone = self.standing.fields.names().filter(|name| fields.get(name).is_none());
        for name in gone {
            if self.knows(name) {
                self.take(name, None);
            }
        }
        fields.iter().for_each(|(name, value)| self.resolve(name, Some(value)));
        self.finish()
    }

    pub(super) fn patch(mut self, set: &Fields, remove: &[String]) -> Merge {
        remove.iter().for_each(|name| self.resolve(name, None));
        set.iter().for_each(|(name, value)| self.resolve(name, Some(value)));
        self.finish()
    }

    fn resolve(&mut self, name: &str, ours: Option<&Value>) {
        if ours.is_some() {
            self.given.insert(name.to_owned());
        }
        let theirs = self.standing.fields.get(name);
        if theirs == ours {
            return;
        }
        if self.knows(name) {
            return self.take(name, ours);
        }
        if later_wins(self.rule.same_field, name, theirs, ours) {
            self.merged.insert(name.to_owned());
            self.lost.assign(name, theirs);
            self.take(name, ours);
        } else {
            self.refused.insert(name.to_owned());
            self.by = self.by.max(self.standing.sequences.get(name));
            self.lost.assign(name, ours);
        }
    }

    fn take(&mut self, name: &str, value: Option<&Value>) {
        self.fields.assign(name, value);
        self.touched.insert(name.to_owned());
    }

    fn finish(mut self) -> Merge {
        if self.rule.same_field == SameField::LaterWinsKeepDestinations {
            destinations::keep_both(&mut self);
        }
        let Self { fields, touched, merged, refused, by, lost, .. } = self;
        let list = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>();
        let outcome = match (refused.is_empty(), merged.is_empty()) {
            (false, _) if touched.is_empty() => {
                return Merge::Superseded { by, fields: list(refused), lost };
            }
            (true, _) if touched.is_empty() => return Merge::Unchanged,
            (false, _) => MergeOutcome::Superseded { by, fields: list(refused) },
            (true, false) => MergeOutcome::Merged { fields: list(merged) },
            (true, true) => MergeOutcome::Applied,
        };
        Merge::Write { fields, deleted: false, touched: list(touched), lost, outcome }
    }
}

/// Whether the later of two differing values stands.
fn later_wins(rule: SameField, name: &str, theirs: Option<&Value>, ours: Option<&Value>) -> bool {
    match rule {
        SameField::LaterWins => true,
        // Nobody clears away a second destination without having seen it.
        SameField::LaterWinsKeepDestinations => ours.is_some() || !name.starts_with(SECOND),
        SameField::FirstWins | SameField::ServerOnly => false,
        // Somebody switched it on unseen: neither switching it off nor removing it counts.
        SameField::EnabledWins => {
            theirs != Some(&Value::Flag(true)) || !matches!(ours, None | Some(Value::Flag(false)))
        }
    }
}
