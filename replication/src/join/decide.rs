//! What becomes of one own item that meets, or does not meet, one of the group's. Pure.

use mfpsync_storage::local::Mirrored;
use mfpsync_storage::model::{Action, FieldSequences, Fields, Kind, Sequence};

use super::{Policy, live};
use sha2::{Digest, Sha256};

use crate::merge::{DESTINATIONS, Merge, SameField, Seen, Standing, merge, rule};

/// The field of an entry's number in its list; two lists number alike what is not alike.
const INDEX: &str = "index";

/// An own item beside what the group has in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// The own item's fields; references in them name the group's items already.
    pub own: Fields,
    /// The group's item; a tombstone has no fields.
    pub group: Option<Mirrored>,
    /// They met by standing for one destination, not by their ids.
    pub by_destination: bool,
    /// The own item as this group had it when the device left it; none when it did not.
    pub parted: Option<Fields>,
}

/// What becomes of an own item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The group has the same.
    Identical,
    /// It becomes an item of the group, by this edit.
    Added(Action),
    /// The group's item changes, by this edit.
    Changed(Action),
    /// The group's stands instead; these fields differ. Of an item that the group deleted: all of them.
    Replaced(Vec<String>),
    /// It is not offered, and the group has nothing in its place.
    LeftOut,
}

impl Fate {
    /// The fields in which device and group differ, of those that change or give way.
    #[must_use]
    pub fn fields(&self) -> Vec<String> {
        match self {
            Self::Added(action) | Self::Changed(action) => match action {
                Action::Put(fields) => fields.names().map(str::to_owned).collect(),
                Action::Patch { set, remove } => {
                    set.names().map(str::to_owned).chain(remove.iter().cloned()).collect()
                }
                Action::Delete => Vec::new(),
            },
            Self::Replaced(fields) => fields.clone(),
            Self::Identical | Self::LeftOut => Vec::new(),
        }
    }

    /// Every part behind its length, so that no two fates give the same bytes.
    pub(super) fn digest_into(&self, hasher: &mut Sha256) {
        let mut part = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        match self {
            Self::Identical => part(b"identical"),
            Self::LeftOut => part(b"left out"),
            Self::Added(action) | Self::Changed(action) => match action {
                Action::Put(fields) => part(&fields.encode()),
                Action::Patch { set, remove } => {
                    part(&set.encode());
                    remove.iter().for_each(|name| part(name.as_bytes()));
                }
                Action::Delete => part(b"delete"),
            },
            Self::Replaced(names) => names.iter().for_each(|name| part(name.as_bytes())),
        }
    }
}

/// Decides by policy and kind.
///
/// A deletion in the group stands against every policy but the one by which the device wins: what was
/// deleted does not come back because a machine that still has it joins. An item that this group had
/// before is the group's: short of the policy by which the device wins, only what was edited here since
/// is offered, and what is no longer there was deleted, also when that is forgotten.
#[must_use]
pub fn decide(policy: Policy, kind: &Kind, side: Side) -> Fate {
    let rule = rule(kind);
    let edited = policy == Policy::DeviceWins || side.parted.as_ref() != Some(&side.own);
    let offered = edited && policy != Policy::Fresh && rule.same_field != SameField::ServerOnly;
    let own = if side.by_destination { identified(&side) } else { side.own.clone() };
    match (live(side.group.as_ref()), &side.group) {
        (Some(group), _) if *group == own => Fate::Identical,
        (Some(group), _) if !offered || policy == Policy::ServerWins => replaced(&own, group),
        (Some(group), _) if policy == Policy::DeviceWins => Fate::Changed(towards(group, &own)),
        (Some(group), Some(mirrored)) => {
            let standing = Standing {
                fields: group.clone(),
                sequences: news(group, mirrored.sequence, side.parted.as_ref()),
                deleted: false,
                sequence: mirrored.sequence,
            };
            let patch = match &side.parted {
                Some(parted) => towards(parted, &own),
                None => Action::Patch { set: own.clone(), remove: Vec::new() },
            };
            match merge(&rule, Some(&standing), &patch, &Seen::default()) {
                Merge::Write { fields, .. } if fields != *group => Fate::Changed(towards(group, &fields)),
                // Also what would grow over an item's limit: the group's stays as it is.
                Merge::Write { .. } | Merge::Unchanged | Merge::Superseded { .. } | Merge::Rejected(_) => {
                    replaced(&own, group)
                }
            }
        }
        (None, _) if !offered => Fate::LeftOut,
        (None, tombstone)
            if policy != Policy::DeviceWins && (tombstone.is_some() || side.parted.is_some()) =>
        {
            Fate::Replaced(own.names().map(str::to_owned).collect())
        }
        (None, _) | (Some(_), None) => Fate::Added(Action::Put(own)),
    }
}

/// Which of the group's fields changed beyond what the device knew. When each did is the server's
/// knowledge: to a stranger all of it is news, to one that returns what is not as it left it.
fn news(group: &Fields, at: Sequence, parted: Option<&Fields>) -> FieldSequences {
    let mut sequences = FieldSequences::default();
    let before = parted.into_iter().flat_map(Fields::names);
    for name in group.names().chain(before) {
        if parted.is_none_or(|parted| parted.get(name) != group.get(name)) {
            sequences.set(name, at);
        }
    }
    sequences
}

/// The own fields with the group's spelling of what identifies the entry, so that one destination
/// written in two ways does not become two.
fn identified(side: &Side) -> Fields {
    let mut own = side.own.clone();
    if let Some(group) = live(side.group.as_ref()) {
        for name in DESTINATIONS.into_iter().flatten().copied().chain([INDEX]) {
            if let Some(value) = group.get(name) {
                own.assign(name, Some(value));
            }
        }
    }
    own
}

fn replaced(own: &Fields, group: &Fields) -> Fate {
    let differs = |name: &&str| group.get(name) != own.get(name);
    Fate::Replaced(own.names().filter(differs).map(str::to_owned).collect())
}

/// The edit that makes one item of the other.
fn towards(from: &Fields, to: &Fields) -> Action {
    let mut set = Fields::new();
    for (name, value) in to.iter().filter(|(name, value)| from.get(name) != Some(value)) {
        set.assign(name, Some(value));
    }
    let remove = from.names().filter(|name| to.get(name).is_none()).map(str::to_owned).collect();
    Action::Patch { set, remove }
}
