//! Whether the devices of a group have a kind's items together or each its own, and what a switch
//! from one to the other does.
//!
//! A switch is an operator's change in the master. It moves the items in their order, some in each
//! transaction, so that pushes wait for no more than a step; at the end it writes the setting, an item
//! that travels as any other. What has moved is kept with each step, so a switch that was begun ends,
//! whatever ends the process. In between an item is by the old or by the new setting as it has moved or
//! not ([`MasterRead::sharing_of`]), and an edit goes where that says ([`destination`]).
//!
//! What becomes of one item is decided in [`decide`](fn@decide), which is pure and makes the preview and
//! the change alike. Values move with the sequences of their fields, so that an edit made before the
//! switch, which arrives after it, is merged as if nothing had moved.

mod decide;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use mfpsync_storage::Result;
use mfpsync_storage::master::{
    ItemWrite, MasterItem, MasterRead, MasterWrite, OperatorAct, Setting, Switching,
};
use mfpsync_storage::model::{DeviceId, Fields, ItemKey, Kind, Place, Scope, Sequence, Sharing, sharing_key};
use sha2::{Digest, Sha256};

pub use mfpsync_storage::model::{Choice, Start, Tally, Target};

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

/// One item of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
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
    pub first: Vec<Planned>,
    /// Tells this plan from one made of other data.
    pub digest: [u8; 32],
    /// Where the group stood.
    pub at: Sequence,
    devices: BTreeSet<DeviceId>,
}

/// Items a plan names.
const NAMED: usize = 200;

/// Values that one step of a switch moves, about: a push waits for no longer than that takes.
pub const STEP: usize = 1_000;

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
    let (mut tally, mut scopes, mut first) = (Tally::default(), BTreeMap::new(), Vec::new());
    for scope in read.scopes_with(&order.kind)? {
        let mut of_scope = Tally::default();
        for forms in forms(read, order.to, read.items_of_kind(&scope, &order.kind)?)? {
            forms.digest_into(&mut hasher);
            let decided = decide(order.to, &forms, &devices);
            decided.count(&forms, kept, &mut of_scope);
            if decided.fate != Fate::Nothing && first.len() < NAMED {
                first.push(Planned { key: forms.key.clone(), fate: decided.fate });
            }
        }
        tally.add(&of_scope);
        if of_scope != Tally::default() {
            scopes.insert(scope, of_scope);
        }
    }
    let (digest, at) = (hasher.finalize().into(), read.founded_head()?.sequence);
    Ok(Some(Plan { from, tally, scopes, first, digest, at, devices }))
}

/// What came of the order to switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// The first step is done: all, or it goes on with [`step`].
    Stepped(Step),
    /// The kind was so already; nothing was changed.
    Already,
    /// Another switch, or this one, is under way; nothing was changed.
    UnderWay(Switching),
    /// The data has changed since the plan was made; nothing was changed.
    Moved,
    /// The chosen device has no item of the kind, others have; nothing was changed.
    NothingChosen,
}

/// What a step of a switch came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// How far the switch is.
    pub switching: Switching,
    /// It was the last step: the kind is switched.
    pub ended: bool,
}

/// Begins a switch as it was planned, in the transaction at hand, with its first step of about `values`
/// values. With `exactly` only when nothing has changed since the plan was made; otherwise the plan
/// tells what to expect.
///
/// # Errors
/// The database's.
pub fn begin(
    write: &MasterWrite<'_>,
    operator: &Operator,
    order: &Order,
    plan: &Plan,
    exactly: bool,
    values: usize,
) -> Result<Begun> {
    if let Some(switching) = write.switching()? {
        return Ok(Begun::UnderWay(switching));
    }
    if write.sharing(&order.kind)?.sharing == order.to.sharing() {
        return Ok(Begun::Already);
    }
    if exactly && !still_holds(write, order, plan)? {
        return Ok(Begun::Moved);
    }
    if plan.tally.chosen == 0 && plan.tally.left_out > 0 {
        return Ok(Begun::NothingChosen);
    }
    let began = write.founded_head()?.sequence;
    let switching = Switching {
        kind: order.kind.clone(),
        to: order.to,
        actor: operator.actor.clone(),
        began,
        through: Place { scope: Scope::shared(), id: String::new() },
        sequence: began,
        expected: plan.tally.items,
        tally: Tally::default(),
    };
    Ok(Begun::Stepped(advance(write, operator, switching, None, values)?))
}

/// Whether a plan would be the same now. Looks at what has changed since, not at all of the kind.
fn still_holds(read: &MasterRead<'_>, order: &Order, plan: &Plan) -> Result<bool> {
    let same = devices(read)? == plan.devices && read.sharing(&order.kind)? == plan.from;
    Ok(same && !read.has_changed(&order.kind, plan.at)?)
}

/// Carries on the switch that is under way, in the transaction at hand, by about `values` values. None
/// when there is none. The person who ordered it stands in the history, whoever `operator` names.
///
/// # Errors
/// The database's.
pub fn step(write: &MasterWrite<'_>, operator: &Operator, values: usize) -> Result<Option<Step>> {
    let Some(switching) = write.switching()? else { return Ok(None) };
    let operator = Operator { actor: switching.actor.clone(), ..operator.clone() };
    let after = switching.through.clone();
    advance(write, &operator, switching, Some(&after), values).map(Some)
}

fn advance(
    write: &MasterWrite<'_>,
    operator: &Operator,
    mut switching: Switching,
    after: Option<&Place>,
    values: usize,
) -> Result<Step> {
    let devices = devices(write)?;
    let rows = match switching.to {
        Target::DeviceSpecific(_) => values / (devices.len() + 1),
        Target::Shared(_) => values,
    };
    let portion = write.portion(&switching.kind, after, rows.max(1))?;
    let keep_prior = operator.keep_values && !rule(&switching.kind).sealed_only;
    let mut writes = Vec::new();
    for forms in forms(write, switching.to, portion.items)? {
        let decided = decide(switching.to, &forms, &devices);
        decided.count(&forms, keep_prior, &mut switching.tally);
        writes.extend(decided.moves.into_iter().map(|one| one.into_write(&forms, keep_prior)));
    }
    let ended = portion.through.is_none();
    if ended {
        writes.extend(setting(&switching, operator));
    }
    switching.sequence =
        switching.sequence.max(write_all(write, &operator.author(OperatorAct::Share), &writes)?.sequence);
    if let Some(through) = portion.through {
        switching.through = through;
    }
    write.put_switching(Some(&switching).filter(|_| !ended))?;
    Ok(Step { switching, ended })
}

fn setting(switching: &Switching, operator: &Operator) -> Option<ItemWrite> {
    let fields = switching.to.sharing().fields(operator.now);
    Some(ItemWrite {
        key: sharing_key(&switching.kind)?,
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

/// Items, each with all its forms. What stood before an earlier switch is looked up only where it is
/// asked for.
fn forms(read: &MasterRead<'_>, to: Target, items: Vec<(ItemKey, MasterItem)>) -> Result<Vec<Forms>> {
    let wants_before = matches!(to, Target::DeviceSpecific(Start::Before) | Target::Shared(Choice::Before));
    let mut all: Vec<Forms> = Vec::new();
    for (key, item) in items {
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
