//! What becomes of an edit: three-way merge per field, by the conflict table.
//!
//! Pure: no clock, no database, and no order but the server's sequences. The server calls
//! [`merge`] inside its write transaction for each edit of a pushed operation and stores what it
//! answers; a client calls it to preview. The first leg is the item as it [stands](Standing), the
//! second the author's [`Action`], the third is not a copy but what the author had
//! [`Seen`]: a field whose last change the author knew is simply overwritten, any other is a
//! conflict. The rules stand in [`kinds`](rule), the keeping of both destinations in
//! `destinations`.

mod destinations;
mod fields;
mod kinds;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use mfpsync_storage::model::{
    Action, EditOutcome, FieldSequences, Fields, RejectReason, Revision, Sequence, Value, limit,
};

pub use destinations::{DESTINATIONS, SECOND};
pub use kinds::{EditAgainstDelete, Rule, SameField, is_written_by_devices, rule};

use fields::Resolver;

/// An item as the server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its fields. Of a tombstone: what the history still has from before the deletion, or none.
    pub fields: Fields,
    /// When each field last changed, removed ones included.
    pub sequences: FieldSequences,
    /// Whether it is a tombstone.
    pub deleted: bool,
    /// When it last changed.
    pub sequence: Sequence,
}

/// Which changes the author of an edit knew when making it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// Everything up to here; zero when the author's mirror did not have the item.
    pub base: Sequence,
    /// Sequences of the author's own earlier operations which the edit builds on.
    pub own: BTreeSet<Sequence>,
}

impl Seen {
    /// Everything up to a sequence, and no operation of one's own beyond it.
    #[must_use]
    pub fn up_to(base: Sequence) -> Self {
        Self { base, own: BTreeSet::new() }
    }

    /// Whether the author knew the change with this sequence.
    #[must_use]
    pub fn covers(&self, sequence: Sequence) -> bool {
        sequence <= self.base || self.own.contains(&sequence)
    }
}

/// What became of an edit that was taken, at least in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MergeOutcome {
    /// Taken as it was.
    Applied,
    /// Taken; in these fields it met a change its author had not seen.
    Merged {
        /// Their names.
        fields: Vec<String>,
    },
    /// Taken except for these fields.
    Superseded {
        /// The latest of the changes that stand instead.
        by: Sequence,
        /// Their names.
        fields: Vec<String>,
    },
}

/// What to do with an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merge {
    /// The item is so already.
    Unchanged,
    /// Write the item.
    Write {
        /// All its fields from now on; none in a tombstone.
        fields: Fields,
        /// Whether it is now a tombstone.
        deleted: bool,
        /// Fields that get the new sequence, removed ones included, in order.
        touched: Vec<String>,
        /// Values that lost, theirs or ours, for the history.
        lost: Fields,
        /// What to answer.
        outcome: MergeOutcome,
    },
    /// Write nothing: what was accepted earlier stands.
    Superseded {
        /// The latest of the changes that stand.
        by: Sequence,
        /// Fields not taken; none when a whole put or delete was not.
        fields: Vec<String>,
        /// The author's values, for the history.
        lost: Fields,
    },
    /// Set the operation aside.
    Rejected(RejectReason),
}

impl Merge {
    /// The change that stands instead of the author's, wholly or in part.
    #[must_use]
    pub fn superseded_by(&self) -> Option<Sequence> {
        match self {
            Self::Write { outcome: MergeOutcome::Superseded { by, .. }, .. }
            | Self::Superseded { by, .. } => Some(*by),
            Self::Write { .. } | Self::Unchanged | Self::Rejected(_) => None,
        }
    }

    /// The answer to the author; `epoch_of` names the reign that gave a sequence.
    ///
    /// # Errors
    /// The reason, when rejected.
    pub fn answer(&self, epoch_of: impl FnOnce(Sequence) -> u64) -> Result<EditOutcome, RejectReason> {
        let superseded = |by: &Sequence, fields: &Vec<String>| EditOutcome::Superseded {
            by: Revision { epoch: epoch_of(*by), sequence: *by },
            fields: fields.clone(),
        };
        Ok(match self {
            Self::Unchanged => EditOutcome::Unchanged,
            Self::Write { outcome: MergeOutcome::Applied, .. } => EditOutcome::Applied,
            Self::Write { outcome: MergeOutcome::Merged { fields }, .. } => {
                EditOutcome::Merged { fields: fields.clone() }
            }
            Self::Write { outcome: MergeOutcome::Superseded { by, fields }, .. }
            | Self::Superseded { by, fields, .. } => superseded(by, fields),
            Self::Rejected(reason) => return Err(*reason),
        })
    }
}

/// Decides one edit.
///
/// Absence removes a field only where the author had seen it: a put does not touch fields added
/// or changed by others since its base. Equal values never conflict.
#[must_use]
pub fn merge(rule: &Rule, standing: Option<&Standing>, action: &Action, seen: &Seen) -> Merge {
    if rule.same_field == SameField::ServerOnly {
        return Merge::Rejected(RejectReason::ReadOnlyKind);
    }
    if rule.sealed_only && !sealed(action) {
        return Merge::Rejected(RejectReason::NotSealed);
    }
    let merged = match (standing, action) {
        (None, Action::Delete) => Merge::Unchanged,
        (Some(standing), Action::Delete) if standing.deleted => Merge::Unchanged,
        (Some(standing), Action::Delete) => delete(rule, standing, seen),
        (None, Action::Put(_) | Action::Patch { .. }) => create(action),
        (Some(standing), Action::Put(_) | Action::Patch { .. }) if standing.deleted => {
            revive(rule, standing, action, seen)
        }
        (Some(standing), Action::Put(fields)) => Resolver::new(rule, standing, seen).put(fields),
        (Some(standing), Action::Patch { set, remove }) => {
            Resolver::new(rule, standing, seen).patch(set, remove)
        }
    };
    finish(rule, merged)
}

fn sealed(action: &Action) -> bool {
    named(action).iter().all(|(_, value)| matches!(value, Value::Sealed(_)))
}

/// The fields an action sets.
fn named(action: &Action) -> Fields {
    match action {
        Action::Put(fields) | Action::Patch { set: fields, .. } => fields.clone(),
        Action::Delete => Fields::new(),
    }
}

fn names(fields: &Fields) -> Vec<String> {
    fields.names().map(str::to_owned).collect()
}

/// A new item; a patch that only removes fields makes none.
fn create(action: &Action) -> Merge {
    let fields = named(action);
    if fields.is_empty() && matches!(action, Action::Patch { .. }) {
        return Merge::Unchanged;
    }
    let touched = names(&fields);
    Merge::Write { fields, deleted: false, touched, lost: Fields::new(), outcome: MergeOutcome::Applied }
}

/// An edit of a deleted item. Who knew of the deletion makes a new item. Who did not either loses
/// against it, or brings the item back: a put as it says, a patch on top of what the history still
/// has, so that without a history only the patch's own fields come back.
fn revive(rule: &Rule, standing: &Standing, action: &Action, seen: &Seen) -> Merge {
    let ours = named(action);
    if seen.covers(standing.sequence) {
        return create(action);
    }
    let Action::Patch { set, remove } = action else {
        return match rule.edit_against_delete {
            EditAgainstDelete::EditWins => revived(ours.clone(), &ours),
            EditAgainstDelete::DeleteWins => {
                Merge::Superseded { by: standing.sequence, fields: Vec::new(), lost: ours }
            }
        };
    };
    if set.is_empty() {
        return Merge::Unchanged;
    }
    match rule.edit_against_delete {
        EditAgainstDelete::EditWins => {
            let mut fields = standing.fields.clone();
            remove.iter().for_each(|name| fields.assign(name, None));
            set.iter().for_each(|(name, value)| fields.assign(name, Some(value)));
            revived(fields, set)
        }
        EditAgainstDelete::DeleteWins => {
            Merge::Superseded { by: standing.sequence, fields: names(set), lost: ours }
        }
    }
}

fn revived(fields: Fields, ours: &Fields) -> Merge {
    let touched = names(&fields);
    let outcome = MergeOutcome::Merged { fields: names(ours) };
    Merge::Write { fields, deleted: false, touched, lost: Fields::new(), outcome }
}

/// The deletion of a living item, perhaps edited by others meanwhile.
fn delete(rule: &Rule, standing: &Standing, seen: &Seen) -> Merge {
    let resolver = Resolver::new(rule, standing, seen);
    let unseen = resolver.unseen();
    let conflict = !unseen.is_empty() || !seen.covers(standing.sequence);
    if conflict && rule.edit_against_delete == EditAgainstDelete::EditWins {
        let by = unseen.iter().map(|name| standing.sequences.get(name)).max();
        let by = by.unwrap_or(standing.sequence);
        return Merge::Superseded { by, fields: Vec::new(), lost: Fields::new() };
    }
    let mut lost = Fields::new();
    for name in &unseen {
        lost.assign(name, standing.fields.get(name));
    }
    let outcome = if conflict { MergeOutcome::Merged { fields: unseen } } else { MergeOutcome::Applied };
    Merge::Write { fields: Fields::new(), deleted: true, touched: names(&standing.fields), lost, outcome }
}

/// Holds the result against the limits, and drops losers that must not be kept.
fn finish(rule: &Rule, merged: Merge) -> Merge {
    let kept = |lost: Fields| if rule.keep_loser { lost } else { Fields::new() };
    match merged {
        Merge::Write { fields, .. }
            if fields.len() > limit::ITEM_FIELDS || fields.encode().len() > limit::ITEM_BYTES =>
        {
            Merge::Rejected(RejectReason::OverLimit)
        }
        Merge::Write { fields, deleted, touched, lost, outcome } => {
            Merge::Write { fields, deleted, touched, lost: kept(lost), outcome }
        }
        Merge::Superseded { by, fields, lost } => Merge::Superseded { by, fields, lost: kept(lost) },
        Merge::Unchanged | Merge::Rejected(_) => merged,
    }
}
