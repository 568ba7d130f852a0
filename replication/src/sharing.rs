//! Whether the devices of a group have a kind's items together or each its own, and what a switch
//! from one to the other does.
//!
//! A switch is an operator's change in the master: one transaction writes the setting, an item that
//! travels as any other, and moves every item of the kind. What becomes of one item is decided in
//! [`decide`](fn@decide), which is pure and makes the preview and the change alike. Values move with
//! the sequences of their fields, so that an edit made before the switch, which arrives after it, is
//! merged as if nothing had moved. Where such an edit goes is said by [`destination`].

mod decide;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use mfpsync_storage::Result;
use mfpsync_storage::master::{ItemWrite, MasterRead, MasterWrite, OperatorAct, Setting};
use mfpsync_storage::model::{DeviceId, Fields, ItemKey, Kind, Scope, Sharing, sharing_key};
use sha2::{Digest, Sha256};

pub use decide::{Fate, Forms, Held, Move, decide};

use crate::merge::{SameField, rule};
use crate::operator::{Operator, write_all};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Of which kind.
    pub kind: Kind,
    /// How it shall be, and with which values.
    pub to: Target,
}

/// How the items of a kind shall be, and with which values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Each device has its own.
    DeviceSpecific(Start),
    /// All devices have one.
    Shared(Choice),
}

/// What each device begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// What it shows now.
    Seen,
    /// What it had for itself before the kind became shared; what is new since, as it shows now.
    Before,
}

/// Which value becomes the group's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The one of this device. What it does not have the group will not have.
    Of(DeviceId),
    /// The one that was accepted last.
    Newest,
    /// The group's own, as it was before the kind became device-specific; of what is new since, the
    /// newest.
    Before,
}

impl Target {
    /// The setting alone.
    #[must_use]
    pub const fn sharing(self) -> Sharing {
        match self {
            Self::DeviceSpecific(_) => Sharing::DeviceSpecific,
            Self::Shared(_) => Sharing::Shared,
        }
    }
}

/// Whether the sharing of a kind can be switched: not of what only the server writes.
#[must_use]
pub fn can_switch(kind: &Kind) -> bool {
    rule(kind).same_field != SameField::ServerOnly
}

/// Where an edit of a device goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// To this item.
    Item(ItemKey),
    /// Nowhere: the device wrote its own item, and meanwhile the operator has chosen what all devices
    /// have. The edit is kept for its author to decide.
    SetAside,
    /// Nowhere: the item is another device's.
    NotTheirs,
}

/// Says where an edit goes, whatever the setting was when it was made.
///
/// What was written for everybody goes to the author's own item once each device has its own: it is
/// what the author saw. What was written for one device never becomes everybody's by itself.
#[must_use]
pub fn destination(sharing: Sharing, key: &ItemKey, author: DeviceId) -> Destination {
    let own = key.of_device(author);
    if !key.device.is_empty() && *key != own {
        return Destination::NotTheirs;
    }
    match sharing {
        Sharing::DeviceSpecific => Destination::Item(own),
        Sharing::Shared if key.device.is_empty() => Destination::Item(key.clone()),
        Sharing::Shared => Destination::SetAside,
    }
}

/// What a switch does, or would do, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Items of the kind that are concerned, each counted once however many devices have it.
    pub items: u64,
    /// Values that devices get for their own.
    pub copies: u64,
    /// Of those: values that devices had for their own before and get back.
    pub brought_back: u64,
    /// Values that become the group's.
    pub chosen: u64,
    /// Values of devices that are the same as the group's.
    pub identical: u64,
    /// Values that no longer show and are kept in the history.
    pub kept: u64,
    /// Values that no longer show and are kept nowhere: secrets, or all when there is no history.
    pub not_kept: u64,
    /// Of the items: those of which the group has none afterwards.
    pub left_out: u64,
}

/// One item of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which, as all devices share it.
    pub key: ItemKey,
    /// What becomes of it.
    pub fate: Fate,
}

/// What a switch does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// As it is before.
    pub from: Setting,
    /// In numbers.
    pub tally: Tally,
    /// The same for each scope.
    pub scopes: BTreeMap<Scope, Tally>,
    /// The first items.
    pub first: Vec<Step>,
    /// Tells this plan from one made of other data.
    pub digest: [u8; 32],
}

/// Items a plan names.
const NAMED: usize = 200;

/// Plans a switch. Writes nothing. None when the kind is so already.
///
/// # Errors
/// The database's, or its reader's deadline.
pub fn plan(read: &MasterRead<'_>, order: &Order, keep_values: bool) -> Result<Option<Plan>> {
    let from = read.sharing(&order.kind)?;
    if from.sharing == order.to.sharing() {
        return Ok(None);
    }
    let devices = devices(read)?;
    let mut hasher = Sha256::new();
    hasher.update(format!("{:?} {} {keep_values} {devices:?}", order, from.sequence.0));
    let kept = keep_values && !rule(&order.kind).sealed_only;
    let mut plan =
        Plan { from, tally: Tally::default(), scopes: BTreeMap::new(), first: Vec::new(), digest: [0; 32] };
    for scope in read.scopes_with(&order.kind)? {
        let mut tally = Tally::default();
        for forms in forms(read, order, &scope)? {
            forms.digest_into(&mut hasher);
            let decided = decide(order.to, &forms, &devices);
            decided.count(&forms, kept, &mut tally);
            if decided.fate != Fate::Nothing && plan.first.len() < NAMED {
                plan.first.push(Step { key: forms.key.clone(), fate: decided.fate });
            }
        }
        plan.tally.add(&tally);
        if tally != Tally::default() {
            plan.scopes.insert(scope, tally);
        }
    }
    plan.digest = hasher.finalize().into();
    Ok(Some(plan))
}

/// What came of the order to switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Switched {
    /// Done as planned.
    Done(Plan),
    /// The kind was so already; nothing was changed.
    Already,
    /// The data has changed since the plan with the expected digest was made; nothing was changed.
    Moved,
    /// The chosen device has no item of the kind, others have; nothing was changed.
    NothingChosen,
}

/// Switches, in the transaction at hand. With `expected` only when the plan is still the one with this
/// digest.
///
/// # Errors
/// The database's.
pub fn switch(
    write: &MasterWrite<'_>,
    operator: &Operator,
    order: &Order,
    expected: Option<[u8; 32]>,
) -> Result<Switched> {
    let Some(plan) = plan(write, order, operator.keep_values)? else { return Ok(Switched::Already) };
    if expected.is_some_and(|expected| expected != plan.digest) {
        return Ok(Switched::Moved);
    }
    if plan.tally.chosen == 0 && plan.tally.left_out > 0 {
        return Ok(Switched::NothingChosen);
    }
    let author = operator.author(OperatorAct::Share);
    write_all(write, &author, &setting(order, operator).into_iter().collect::<Vec<_>>())?;
    let devices = devices(write)?;
    let keep_prior = operator.keep_values && !rule(&order.kind).sealed_only;
    for scope in write.scopes_with(&order.kind)? {
        let mut writes = Vec::new();
        for forms in forms(write, order, &scope)? {
            let moves = decide(order.to, &forms, &devices).moves;
            writes.extend(moves.into_iter().map(|one| one.into_write(&forms, keep_prior)));
        }
        write_all(write, &author, &writes)?;
    }
    Ok(Switched::Done(plan))
}

fn setting(order: &Order, operator: &Operator) -> Option<ItemWrite> {
    let fields = order.to.sharing().fields(operator.now);
    Some(ItemWrite {
        key: sharing_key(&order.kind)?,
        deleted: false,
        touched: fields.names().map(str::to_owned).collect(),
        sequences: None,
        fields,
        lost: Fields::new(),
        keep_prior: true,
    })
}

/// Everybody who belongs to the group now, also the server that is no client yet.
fn devices(read: &MasterRead<'_>) -> Result<BTreeSet<DeviceId>> {
    let members = read.members()?.into_iter().filter(|member| !member.record.released);
    Ok(members.map(|member| member.record.device).collect())
}

/// The items of a scope, each with all its forms. What stood before an earlier switch is looked up
/// only where it is asked for.
fn forms(read: &MasterRead<'_>, order: &Order, scope: &Scope) -> Result<Vec<Forms>> {
    let wants_before =
        matches!(order.to, Target::DeviceSpecific(Start::Before) | Target::Shared(Choice::Before));
    let mut all: Vec<Forms> = Vec::new();
    for (key, item) in read.items_of_kind(scope, &order.kind)? {
        let before = if wants_before && item.deleted { moved_away(read, &key)? } else { None };
        let held = Held {
            fields: item.fields,
            sequences: item.field_sequences,
            deleted: item.deleted,
            sequence: item.sequence,
            before,
        };
        if all.last().is_none_or(|forms| !forms.key.is_same_item(&key)) {
            all.push(Forms::new(key.shared()));
        }
        if let Some(forms) = all.last_mut() {
            forms.hold(&key, held);
        }
    }
    Ok(all)
}

/// What an item held when a switch took it away; none when it was deleted otherwise, or is not kept.
fn moved_away(read: &MasterRead<'_>, key: &ItemKey) -> Result<Option<Fields>> {
    let newest = read.history(key, 1)?.pop();
    Ok(newest
        .filter(|entry| OperatorAct::of(entry.incarnation, entry.operation) == Some(OperatorAct::Share))
        .and_then(|entry| entry.before.fields().cloned()))
}

impl Tally {
    /// Adds what else is done.
    pub fn add(&mut self, other: &Self) {
        self.items += other.items;
        self.copies += other.copies;
        self.brought_back += other.brought_back;
        self.chosen += other.chosen;
        self.identical += other.identical;
        self.kept += other.kept;
        self.not_kept += other.not_kept;
        self.left_out += other.left_out;
    }
}
