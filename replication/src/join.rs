//! What becomes of a device's own items when it joins a group: planned, carried out, taken back.
//!
//! While joining, the device follows the group and its own items stay apart
//! ([`Phase::Joining`](mfpsync_storage::local::Phase)). So the plan compares two sets of data that lie
//! in one database and costs the server nothing. Accepting makes ordinary edits, based on what the
//! group had, in one transaction; taking back makes their inverse wherever nobody wrote since. What
//! becomes of a single item is decided in [`decide`](fn@decide), who is who in `natural`. Called by
//! the daemon's panel and client part, and by the simulation.

mod decide;
mod natural;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use mfpsync_storage::local::{EditContext, JoinEdit, LocalEdit, LocalRead, LocalWrite, Mirrored};
use mfpsync_storage::model::{Action, Fields, ItemKey, Kind, Scope, Sharing};
use mfpsync_storage::{Error, Result};
use sha2::{Digest, Sha256};

pub use decide::{Fate, Side, decide};

/// Who stands as the author of edits that a join makes.
pub const ACTOR: &str = "join";

/// Whose value stands where the device and its group both have an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Both, by the kind's row of the conflict table, the device being the later one.
    #[default]
    Merge,
    /// The group's; what only the device has is added.
    ServerWins,
    /// The device's; what only the device has is added.
    DeviceWins,
    /// The group's, and nothing of the device's is added.
    Fresh,
}

impl Policy {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::ServerWins => "server-wins",
            Self::DeviceWins => "device-wins",
            Self::Fresh => "fresh",
        }
    }
}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> std::result::Result<Self, UnknownPolicy> {
        let all = [Self::Merge, Self::ServerWins, Self::DeviceWins, Self::Fresh];
        all.into_iter().find(|policy| policy.as_str() == text).ok_or(UnknownPolicy)
    }
}

/// No policy, or no kind, has this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a policy is merge, server-wins, device-wins or fresh, perhaps with a kind before it")]
pub struct UnknownPolicy;

/// A policy for every kind.
///
/// As text, which is how it is stored while a device joins: a line for the kinds not named, then
/// `kind=policy` lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policies {
    /// For kinds not named.
    pub others: Policy,
    /// For these kinds.
    pub kinds: BTreeMap<Kind, Policy>,
}

impl Policies {
    /// The policy of a kind.
    #[must_use]
    pub fn of(&self, kind: &Kind) -> Policy {
        self.kinds.get(kind).copied().unwrap_or(self.others)
    }
}

impl fmt::Display for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.others.as_str())?;
        self.kinds.iter().try_for_each(|(kind, policy)| write!(f, "\n{}={}", kind.as_str(), policy.as_str()))
    }
}

impl FromStr for Policies {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> std::result::Result<Self, UnknownPolicy> {
        let mut lines = text.lines();
        let others = lines.next().ok_or(UnknownPolicy)?.parse()?;
        let kinds = lines.map(|line| {
            let (kind, policy) = line.split_once('=').ok_or(UnknownPolicy)?;
            Ok((Kind::parse(kind).map_err(|_| UnknownPolicy)?, policy.parse()?))
        });
        Ok(Self { others, kinds: kinds.collect::<std::result::Result<_, _>>()? })
    }
}

/// What becomes of one of the device's own items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The own item.
    pub own: ItemKey,
    /// The group's item it meets, or becomes: another one's key when both stand for one destination.
    pub target: ItemKey,
    /// What becomes of it.
    pub fate: Fate,
    /// The device was in this group before, and the item carries edits which that never got.
    pub unsent: bool,
}

/// How many of a scope's own items of one kind share a fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// The group gets an item it did not have.
    pub added: u64,
    /// An item of the group changes.
    pub changed: u64,
    /// Both are alike.
    pub identical: u64,
    /// The group's stands instead.
    pub replaced: u64,
    /// Left out: nothing in the group stands for it.
    pub left_out: u64,
    /// Of all these, items with edits which the group never got, of a device that was in it before.
    pub unsent: u64,
}

/// What a join makes of everything the device has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// One for each own item, in the order of their keys.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The numbers for each scope and kind.
    #[must_use]
    pub fn tallies(&self) -> BTreeMap<(Scope, Kind), Tally> {
        let mut tallies: BTreeMap<(Scope, Kind), Tally> = BTreeMap::new();
        for step in &self.steps {
            let tally = tallies.entry((step.own.scope.clone(), step.own.kind.clone())).or_default();
            tally.unsent += u64::from(step.unsent);
            match step.fate {
                Fate::Added(_) => tally.added += 1,
                Fate::Changed(_) => tally.changed += 1,
                Fate::Identical => tally.identical += 1,
                Fate::Replaced(_) => tally.replaced += 1,
                Fate::LeftOut => tally.left_out += 1,
            }
        }
        tallies
    }

    /// Tells this plan from one that would do anything else.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        for step in &self.steps {
            for key in [&step.own, &step.target] {
                for part in [key.scope.as_str(), key.kind.as_str(), &key.device, &key.id] {
                    hasher.update((part.len() as u64).to_be_bytes());
                    hasher.update(part);
                }
            }
            step.fate.digest_into(&mut hasher);
        }
        hasher.finalize().into()
    }
}

/// Whether the group that the device belongs to is the one it left last.
///
/// # Errors
/// The database's.
pub fn is_returning(read: &LocalRead<'_>) -> Result<bool> {
    let Some(parted_from) = read.parted_from()? else { return Ok(false) };
    Ok(read.membership()?.is_some_and(|membership| membership.group == parted_from))
}

/// Plans what would happen to the device's own items. Writes nothing.
///
/// # Errors
/// The database's, or its reader's deadline.
pub fn plan(read: &LocalRead<'_>, policies: &Policies) -> Result<Plan> {
    let (own, own_id) = (read.own_keys()?, read.own_id()?);
    let names = natural::Names::given(read, &own)?;
    let returns = is_returning(read)?;
    let mut erased = BTreeMap::new();
    let mut steps = Vec::with_capacity(own.len());
    for key in own {
        let mut target = names.target(&key);
        if read.sharing(&key.kind)? == Sharing::DeviceSpecific {
            target.device.clone_from(&own_id);
        }
        let is_erased = match erased.get(&key.scope) {
            Some(known) => *known,
            None => {
                let found = read.erasure(&key.scope)?.is_some_and(|erasure| !erasure.mark.readmitted);
                erased.insert(key.scope.clone(), found);
                found
            }
        };
        let Some(item) = read.item(&key)? else { continue };
        let mut group = read.mirrored(&target)?;
        let mut parted = if returns { read.parted(&key)? } else { None };
        let unsent = returns && parted.as_ref() != Some(&item.fields);
        let lives = group.as_ref().is_some_and(|group| group.fields.is_some());
        if !target.device.is_empty() && !lives {
            // Its kind became device-specific while it was away: nobody deleted anything, and what it
            // has is its own as with any newcomer.
            (group, parted) = (None, None);
        }
        let side = Side {
            own: names.renamed(&key, item.fields),
            group,
            by_destination: target.id != key.id,
            parted: parted.map(|parted| names.renamed(&key, parted)),
        };
        let fate = if is_erased { Fate::LeftOut } else { decide(policies.of(&key.kind), &key.kind, side) };
        steps.push(Step { own: key, target, fate, unsent });
    }
    Ok(Plan { steps })
}

/// Carries a join out as it is planned now, and returns the plan; `now` in Unix milliseconds. With
/// `expected` only when the plan is still the one with this digest: none is returned otherwise.
///
/// # Errors
/// The database's, or [`Error::Busy`] when the device is not joining; nothing is changed then.
pub fn accept(
    write: &LocalWrite<'_>,
    policies: &Policies,
    expected: Option<[u8; 32]>,
    now: u64,
) -> Result<Option<Plan>> {
    let plan = plan(write, policies)?;
    if expected.is_some_and(|expected| expected != plan.digest()) {
        return Ok(None);
    }
    write.enter(now)?;
    for step in &plan.steps {
        write.drop_own(&step.own)?;
    }
    let context = EditContext { actor: ACTOR.to_owned(), now, limits: None };
    for Step { target, fate, .. } in &plan.steps {
        let (Fate::Added(action) | Fate::Changed(action)) = fate else { continue };
        let before = write.item(target)?.map(|item| item.fields);
        write.edit(vec![LocalEdit { key: target.clone(), action: action.clone() }], &context)?;
        if let Some(after) = write.item(target)? {
            write.note_join_edit(&JoinEdit { key: target.clone(), before, after: after.fields })?;
        }
    }
    Ok(Some(plan))
}

/// What taking a join back does to the group's items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TakenBack {
    /// Items that the join added and that go again.
    pub removed: u64,
    /// Items that get values back which the join replaced.
    pub restored: u64,
    /// Items that somebody edited since, at least in part: what they wrote stands.
    pub standing: u64,
}

/// What taking the join back would do. Writes nothing; none when nothing is kept of a join.
///
/// # Errors
/// The database's, or its reader's deadline.
pub fn undo_preview(read: &LocalRead<'_>) -> Result<Option<TakenBack>> {
    if read.joined_at()?.is_none() {
        return Ok(None);
    }
    inverse(read).map(|(_, taken_back)| Some(taken_back))
}

/// Begins to take the join back: the inverse edits are made, and when they have reached the server
/// the device can [leave as it was before](LocalWrite::leave_as_before).
///
/// # Errors
/// The database's, or [`Error::Busy`] when nothing is kept of a join.
pub fn undo(write: &LocalWrite<'_>, now: u64) -> Result<TakenBack> {
    if write.joined_at()?.is_none() {
        return Err(Error::Busy);
    }
    let (edits, taken_back) = inverse(write)?;
    let context = EditContext { actor: ACTOR.to_owned(), now, limits: None };
    for edit in edits {
        write.edit(vec![edit], &context)?;
    }
    write.begin_undo()?;
    Ok(taken_back)
}

fn inverse(read: &LocalRead<'_>) -> Result<(Vec<LocalEdit>, TakenBack)> {
    let mut edits = Vec::new();
    let mut taken_back = TakenBack::default();
    for JoinEdit { key, before, after } in read.join_edits()? {
        // What it made its own has become the group's since.
        if !key.device.is_empty() && read.place(&key)? != key {
            taken_back.standing += 1;
            continue;
        }
        // Gone already, by whomever.
        let Some(item) = read.item(&key)? else { continue };
        let Some(before) = before else {
            if item.fields == after {
                taken_back.removed += 1;
                edits.push(LocalEdit { key, action: Action::Delete });
            } else {
                taken_back.standing += 1;
            }
            continue;
        };
        let (action, standing) = back(&before, &after, &item.fields);
        taken_back.standing += u64::from(standing);
        if let Some(action) = action {
            taken_back.restored += 1;
            edits.push(LocalEdit { key, action });
        }
    }
    Ok((edits, taken_back))
}

/// Field by field from `after` to `before` where `after` still stands; true when something else stands
/// in a field the join had changed.
fn back(before: &Fields, after: &Fields, present: &Fields) -> (Option<Action>, bool) {
    let (mut set, mut remove, mut standing) = (Fields::new(), Vec::new(), false);
    let names: BTreeSet<&str> = before.names().chain(after.names()).collect();
    for name in names {
        if before.get(name) == after.get(name) || present.get(name) == before.get(name) {
            continue;
        }
        if present.get(name) != after.get(name) {
            standing = true;
            continue;
        }
        match before.get(name) {
            Some(value) => set.assign(name, Some(value)),
            None => remove.push(name.to_owned()),
        }
    }
    let changes = !set.is_empty() || !remove.is_empty();
    (changes.then_some(Action::Patch { set, remove }), standing)
}

/// The group's fields where it has the item.
fn live(mirrored: Option<&Mirrored>) -> Option<&Fields> {
    mirrored.and_then(|mirrored| mirrored.fields.as_ref())
}
