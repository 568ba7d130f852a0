//! The server's side of a push: each operation is decided, written and recorded inside one
//! transaction, exactly once in effect however often it comes.
//!
//! Called by the daemon's `Push` handler inside the writer's transaction, and by the simulation.

mod place;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::{BTreeMap, BTreeSet};

use mfpsync_storage::Result;
use mfpsync_storage::codec::DecodeError;
use mfpsync_storage::master::{
    Author, Head, ItemWrite, Ledger, Loss, MasterItem, MasterRead, MasterWrite, OfferedAgain, OperatorAct,
    Prior, Progress, Setting,
};
use mfpsync_storage::model::{
    Action, Base, DeviceId, Edit, EditOutcome, FieldSequences, Fields, Incarnation, ItemKey, Kind, Operation,
    OperationNumber, Outcome, RejectReason, Revision, Scope, Sequence, limit,
};

use self::place::{Placed, placed};
pub use self::usage::Usage;
use crate::lineage::Lineage;
use crate::merge::{Merge, Rule, Seen, Standing, merge, rule};
use crate::message;

/// Outcomes of one incarnation that are kept unconfirmed. Above twice what an outbox holds: its last
/// operation may build on its first, and as many may be made while it is pushed.
pub(crate) const UNCONFIRMED: u64 = 1 << 17;

/// Bounds the server keeps.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Users of the group; looked at when a user's first item is made.
    pub users: u64,
    /// Items of one user; looked at when a new one is made.
    pub user_items: u64,
    /// Encoded bytes of one user's items; looked at when they grow.
    pub user_bytes: u64,
    /// Whether the history keeps values that were replaced or lost.
    pub keep_values: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            users: limit::USERS,
            user_items: limit::USER_ITEMS,
            user_bytes: limit::USER_BYTES,
            keep_values: true,
        }
    }
}

impl Limits {
    /// What devices are told of them when they say hello.
    #[must_use]
    pub fn announced(self) -> message::Limits {
        let figure = |figure| usize::try_from(figure).unwrap_or(usize::MAX);
        message::Limits {
            user_items: figure(self.user_items),
            user_bytes: figure(self.user_bytes),
            ..message::Limits::default()
        }
    }
}

/// Operations of one device, as they came.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Who pushes.
    pub device: DeviceId,
    /// Which life of its local state.
    pub incarnation: Incarnation,
    /// It has stored all outcomes up to here.
    pub low_water: OperationNumber,
    /// Operation records in rising order.
    pub operations: Vec<Vec<u8>>,
    /// The server's wall clock, Unix milliseconds; informs only.
    pub now: u64,
}

/// What the server answers to a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// One outcome for each operation, in order.
    Outcomes(Vec<(OperationNumber, Outcome)>),
    /// The records are not in order, or leave a gap: nothing was taken.
    OutOfOrder {
        /// The number that was due.
        expected: OperationNumber,
        /// The number that came.
        found: OperationNumber,
    },
    /// A record does not even name its operation: nothing was taken.
    Unreadable(DecodeError),
    /// The incarnation is another device's: nothing was taken.
    OtherIncarnation,
    /// The device offers more without confirming what came of the many before: nothing was taken.
    Unconfirmed,
    /// One number came with two contents: two devices share an identity, or a disk was rolled back.
    /// Nothing is taken from the device until a person decides.
    ///
    /// Also the answer to a number whose outcome the device has confirmed, without a mark at the
    /// server: either the network kept an old request back and nobody hears this, or a rolled back
    /// device does and stops.
    Quarantined,
}

/// Decides and stores a submission. `usage` is of this database; what it knows spares counting.
///
/// # Errors
/// The database's; the caller undoes the whole submission, and the device repeats it.
pub fn accept(
    write: &MasterWrite<'_>,
    usage: &mut Usage,
    submission: &Submission,
    limits: Limits,
) -> Result<Answer> {
    let progress = write.progress(submission.device)?;
    if progress.is_some_and(|progress| progress.quarantined) {
        return Ok(Answer::Quarantined);
    }
    if is_of_another(write, submission.device, submission.incarnation)? {
        return Ok(Answer::OtherIncarnation);
    }
    let mut numbers = Vec::with_capacity(submission.operations.len());
    for record in &submission.operations {
        match Operation::peek_number(record) {
            Ok(number) => numbers.push(number),
            Err(error) => return Ok(Answer::Unreadable(error)),
        }
    }
    // Seen before anything is taken: a gap further on must not leave half a submission behind.
    if let Some([before, found]) = numbers.array_windows().find(|[one, next]| next.0 != one.0 + 1) {
        return Ok(Answer::OutOfOrder { expected: OperationNumber(before.0 + 1), found: *found });
    }
    let mut ledger = write.ledger(submission.incarnation)?;
    let unconfirmed = ledger.last().0.saturating_sub(ledger.confirmed().max(submission.low_water).0);
    if unconfirmed >= UNCONFIRMED && numbers.last().is_some_and(|last| *last > ledger.last()) {
        return Ok(Answer::Unconfirmed);
    }
    let mut reigns = Reigns {
        head: write.founded_head()?,
        history: None,
        usage,
        users: None,
        new_users: BTreeSet::new(),
        sharing: BTreeMap::new(),
        switched: None,
    };
    reigns.usage.begin(&reigns.head);
    let mut outcomes = Vec::with_capacity(numbers.len());
    for (number, record) in numbers.into_iter().zip(&submission.operations) {
        let digest = Operation::digest(record);
        let due = ledger.last().max(ledger.confirmed());
        // I-03: what is known is answered from the ledger and not decided again.
        // Repetitions come before what is new: whatever ends this early has taken nothing.
        let earlier = write.ledger_of(submission.incarnation, &ledger, number)?;
        let place = earlier.as_ref().unwrap_or(&ledger);
        let known = place.digest(number).map(|known| *known == digest || is_withdrawn(record));
        let outcome = match (known, place.outcome(number)?) {
            (Some(true), Some(outcome)) => outcome,
            (Some(_), _) => return quarantine(write, submission),
            // An old request may come this late; whoever waits for the answer stops by itself.
            (None, _) if number <= ledger.confirmed() => return Ok(Answer::Quarantined),
            (None, _) if number <= due => return quarantine(write, submission),
            (None, _) if number.0 > due.0 + 1 => {
                let expected = OperationNumber(due.0 + 1);
                return Ok(Answer::OutOfOrder { expected, found: number });
            }
            (None, _) => {
                let outcome = decide(write, submission, &mut reigns, &ledger, record, limits)?;
                ledger.record(digest, &outcome);
                outcome
            }
        };
        outcomes.push((number, outcome));
    }
    ledger.confirm(submission.low_water);
    write.put_ledger(submission.incarnation, submission.device, &ledger)?;
    reigns.usage.end(&reigns.head);
    Ok(Answer::Outcomes(outcomes))
}

/// Whether an incarnation belongs to another device than the one that names it.
///
/// # Errors
/// The database's.
pub fn is_of_another(read: &MasterRead<'_>, device: DeviceId, incarnation: Incarnation) -> Result<bool> {
    Ok(read.device_of(incarnation)?.is_some_and(|own| own != device))
}

/// Whether a device took its operation back, as it must when it hears of an erasure: whether the server
/// had accepted it before is all it asks.
fn is_withdrawn(record: &[u8]) -> bool {
    Operation::decode(record).is_ok_and(|operation| operation.is_withdrawn())
}

fn quarantine(write: &MasterWrite<'_>, submission: &Submission) -> Result<Answer> {
    write.put_progress(&Progress {
        device: submission.device,
        incarnation: submission.incarnation,
        sequence: Sequence::ZERO,
        settled: Sequence::ZERO,
        quarantined: true,
    })?;
    Ok(Answer::Quarantined)
}

/// Where the master stands while a submission is taken, read once for all of it.
struct Reigns<'a> {
    head: Head,
    /// The reigns before: few edits ask for them.
    history: Option<Lineage>,
    usage: &'a mut Usage,
    /// How many users there are, if it was asked for.
    users: Option<u64>,
    /// Users that came with this submission.
    new_users: BTreeSet<Scope>,
    /// The sharing of kinds, as far as it was asked for.
    sharing: BTreeMap<Kind, Setting>,
    /// The kind that is being switched, if it was asked for and there is one.
    switched: Option<Option<Kind>>,
}

impl Reigns<'_> {
    fn history(&mut self, read: &MasterRead<'_>) -> Result<&Lineage> {
        if self.history.is_none() {
            self.history = Some(chained(&self.head, read)?);
        }
        self.history.as_ref().ok_or_else(|| DecodeError::Invalid("lineage of the master database").into())
    }

    /// Whether a user may have no further item, or the group no further user.
    fn over_item_limit(
        &mut self,
        read: &MasterRead<'_>,
        author: DeviceId,
        scope: &Scope,
        limits: Limits,
    ) -> Result<bool> {
        if !scope.is_user() {
            return Ok(false);
        }
        let (items, _) = self.usage.of(read, scope, &author.to_string())?;
        if items > 0 || self.new_users.contains(scope) || read.has_items(scope)? {
            return Ok(items >= limits.user_items);
        }
        let users = match self.users {
            Some(known) => known,
            None => read.count_users()?,
        };
        let over = users >= limits.users;
        self.users = Some(users + u64::from(!over));
        if !over {
            self.new_users.insert(scope.clone());
        }
        Ok(over || limits.user_items == 0)
    }

    /// Whether an item would take its user over the bytes it may have; what shrinks may stay over them.
    fn over_byte_limit(
        &mut self,
        read: &MasterRead<'_>,
        author: DeviceId,
        item: &ItemWrite,
        prior: Option<&Prior>,
        limits: Limits,
    ) -> Result<bool> {
        if !item.key.scope.is_user() || item.deleted {
            return Ok(false);
        }
        let after = item.fields.encode().len() as u64;
        let more = after.saturating_sub(prior.and_then(Prior::live_bytes).unwrap_or(0));
        if more == 0 {
            return Ok(false);
        }
        let (_, bytes) = self.usage.of(read, &item.key.scope, &author.to_string())?;
        Ok(bytes + more > limits.user_bytes)
    }

    /// The sharing of an item, read as rarely as that can be: for each kind, or while it is switched for
    /// each item.
    fn sharing(&mut self, read: &MasterRead<'_>, key: &ItemKey) -> Result<Setting> {
        if self.switched.is_none() {
            self.switched = Some(read.switching()?.map(|switching| switching.kind));
        }
        if self.switched.as_ref().and_then(Option::as_ref) == Some(&key.kind) {
            return read.sharing_of(key);
        }
        if let Some(known) = self.sharing.get(&key.kind) {
            return Ok(*known);
        }
        Ok(*self.sharing.entry(key.kind.clone()).or_insert(read.sharing(&key.kind)?))
    }

    /// The epoch in which a sequence was given.
    fn epoch_of(&mut self, read: &MasterRead<'_>, sequence: Sequence) -> Result<u64> {
        Ok(self.history(read)?.epoch_of(sequence))
    }

    /// A base of a reign that parted from this one counts only up to where both agree.
    fn base(&mut self, read: &MasterRead<'_>, base: Revision) -> Result<Sequence> {
        if base.epoch == self.head.epoch.number || base.sequence == Sequence::ZERO {
            return Ok(base.sequence);
        }
        Ok(self.history(read)?.base(base))
    }
}

/// What one edit makes of its item.
enum Decided {
    Write(Box<(ItemWrite, Option<Prior>)>, EditOutcome),
    Lost(Loss, EditOutcome),
    Nothing(EditOutcome),
}

fn decide(
    write: &MasterWrite<'_>,
    submission: &Submission,
    reigns: &mut Reigns<'_>,
    ledger: &Ledger,
    record: &[u8],
    limits: Limits,
) -> Result<Outcome> {
    let rejected = |reason, edit| Ok(Outcome::Rejected { reason, edit });
    let Ok(operation) = Operation::decode(record) else {
        return rejected(RejectReason::Malformed, 0);
    };
    let mut decided = Vec::with_capacity(operation.edits.len());
    let mut offered = Vec::new();
    let mut places = BTreeSet::new();
    for (place, edit) in operation.edits.iter().enumerate() {
        let placed = match placed(write, submission.device, reigns, edit, limits)? {
            Placed::At(edit) => edit,
            Placed::Aside(aside) => {
                let by = Revision { epoch: reigns.epoch_of(write, aside.by)?, sequence: aside.by };
                let outcome = EditOutcome::Superseded { by, fields: Vec::new() };
                decided.push(Decided::Lost(aside, outcome));
                continue;
            }
            Placed::Refused(reason) => return rejected(reason, place),
        };
        // Two keys of one item would be decided on the same state and written one over the other.
        if !places.insert(placed.key.clone()) {
            return rejected(RejectReason::Malformed, place);
        }
        let (placed, yields) = match operation.was {
            Some(was) => offered_again(write, reigns, placed, was, operation.yields, &mut offered)?,
            None => (placed, operation.yields),
        };
        let rule = rule(&placed.key.kind);
        let rule = if yields { rule.yielding(&placed.action) } else { rule };
        match decide_edit(write, submission, reigns, ledger, &placed, &rule, limits)? {
            Ok(one) => decided.push(one),
            Err(reason) => return rejected(reason, place),
        }
    }
    let author = Author {
        device: submission.device,
        incarnation: submission.incarnation,
        operation: operation.number,
        actor: operation.actor,
        made_at: operation.made_at,
        accepted_at: submission.now,
    };
    let outcome = store(write, reigns, &author, decided)?;
    if let Outcome::Accepted { revision, .. } = &outcome {
        for (key, was) in offered {
            let stands = write.item(&key)?.map(|item| item.sequence);
            if stands == Some(revision.sequence) {
                write.put_offered_again(&key, OfferedAgain { was, position: revision.sequence })?;
            }
        }
    }
    Ok(outcome)
}

/// An edit of what a reign had that ended early, and whether it gives way. Several devices offer one item, as they
/// saw it last, in any order: where nobody has edited it since, what was later there is later here.
fn offered_again(
    write: &MasterWrite<'_>,
    reigns: &Reigns<'_>,
    edit: Edit,
    was: Sequence,
    yields: bool,
    offered: &mut Vec<(ItemKey, Sequence)>,
) -> Result<(Edit, bool)> {
    let earlier = write.offered_again(&edit.key)?;
    let stands = write.item(&edit.key)?.map(|item| item.sequence);
    let earlier = earlier.filter(|earlier| stands == Some(earlier.position));
    match earlier {
        Some(earlier) if was > earlier.was => {
            let revision = Revision { epoch: reigns.head.epoch.number, sequence: earlier.position };
            offered.push((edit.key.clone(), was));
            Ok((Edit { base: Base { revision, after: None }, ..edit }, false))
        }
        Some(_) => Ok((edit, true)),
        None => {
            offered.push((edit.key.clone(), was));
            Ok((edit, yields))
        }
    }
}

fn store(
    write: &MasterWrite<'_>,
    reigns: &mut Reigns<'_>,
    author: &Author,
    decided: Vec<Decided>,
) -> Result<Outcome> {
    let mut writes = Vec::new();
    let mut edits = Vec::with_capacity(decided.len());
    for one in decided {
        match one {
            Decided::Write(item, outcome) => {
                let (write, prior) = &*item;
                let after = (!write.deleted).then(|| write.fields.encode().len() as u64);
                reigns.usage.count(&write.key, prior.as_ref().and_then(Prior::live_bytes), after);
                writes.push(*item);
                edits.push(outcome);
            }
            Decided::Lost(loss, outcome) => {
                if !loss.fields.is_empty() {
                    write.keep_loss(author, &loss)?;
                }
                edits.push(outcome);
            }
            Decided::Nothing(outcome) => edits.push(outcome),
        }
    }
    let revision = write.accept_behind(&mut reigns.head, author, writes)?;
    Ok(Outcome::Accepted { revision, edits })
}

/// The reigns the master knows, as a chain.
///
/// # Errors
/// The database's, or records that do not form a chain.
pub fn lineage(read: &MasterRead<'_>) -> Result<Lineage> {
    chained(&read.founded_head()?, read)
}

fn chained(head: &Head, read: &MasterRead<'_>) -> Result<Lineage> {
    let records = read.lineage()?.into_iter().map(|signed| signed.record).collect();
    Lineage::new(head.group, records)
        .map_err(|_| DecodeError::Invalid("lineage of the master database is broken").into())
}

fn decide_edit(
    write: &MasterWrite<'_>,
    submission: &Submission,
    reigns: &mut Reigns<'_>,
    ledger: &Ledger,
    edit: &Edit,
    rule: &Rule,
    limits: Limits,
) -> Result<std::result::Result<Decided, RejectReason>> {
    let base = reigns.base(write, edit.base.revision)?;
    if base > reigns.head.sequence {
        return Ok(Err(RejectReason::Malformed));
    }
    let incarnation = submission.incarnation;
    let prior = write.prior(&edit.key)?;
    let standing = prior.as_ref().map(Prior::item).transpose()?;
    if standing.as_ref().is_none_or(|item| item.deleted) {
        if builds_on_rejected(write, incarnation, ledger, edit)? {
            return Ok(Err(RejectReason::BuildsOnRejected));
        }
        if edit.action != Action::Delete
            && reigns.over_item_limit(write, submission.device, &edit.key.scope, limits)?
        {
            return Ok(Err(RejectReason::OverLimit));
        }
    }
    let seen = seen(write, incarnation, edit, base, standing.as_ref())?;
    let standing = match standing {
        Some(item) => Some(stands(write, &edit.key, item)?),
        None => forgotten(base, reigns.head.tombstone_floor),
    };
    let merged = merge(rule, standing.as_ref(), &edit.action, &seen);
    let epoch = match merged.superseded_by() {
        Some(by) => reigns.epoch_of(write, by)?,
        None => reigns.head.epoch.number,
    };
    let answer = match merged.answer(|_| epoch) {
        Ok(answer) => answer,
        Err(reason) => return Ok(Err(reason)),
    };
    Ok(Ok(match merged {
        Merge::Write { fields, deleted, touched, lost, .. } => {
            let keep_prior = limits.keep_values && !rule.sealed_only;
            let lost = if limits.keep_values { lost } else { Fields::new() };
            let item = ItemWrite {
                key: edit.key.clone(),
                deleted,
                fields,
                touched,
                sequences: None,
                lost,
                keep_prior,
            };
            if reigns.over_byte_limit(write, submission.device, &item, prior.as_ref(), limits)? {
                return Ok(Err(RejectReason::OverLimit));
            }
            Decided::Write(Box::new((item, prior)), answer)
        }
        Merge::Superseded { by, lost, .. } => {
            let fields = if limits.keep_values { lost } else { Fields::new() };
            Decided::Lost(Loss { key: edit.key.clone(), by, fields }, answer)
        }
        Merge::Unchanged | Merge::Rejected(_) => Decided::Nothing(answer),
    }))
}

/// An item whose author saw it, and of which nothing is left here: it was deleted behind the author's
/// back, and the deletion is forgotten. Members that keep their word never get there, a disk that was
/// put back does.
fn forgotten(base: Sequence, floor: Sequence) -> Option<Standing> {
    let was_there = base > Sequence::ZERO && base < floor;
    was_there.then(|| Standing {
        fields: Fields::new(),
        sequences: FieldSequences::default(),
        deleted: true,
        sequence: floor,
    })
}

/// The item as the merge sees it: a tombstone with what the history still has from before.
fn stands(write: &MasterWrite<'_>, key: &ItemKey, item: MasterItem) -> Result<Standing> {
    let fields = if item.deleted {
        // Nothing is accepted on a tombstone but what revives it, so its deletion is the newest entry.
        write
            .history(key, 1)?
            .pop()
            .and_then(|deletion| deletion.before.fields().cloned())
            .unwrap_or_default()
    } else {
        item.fields
    };
    Ok(Standing { fields, sequences: item.field_sequences, deleted: item.deleted, sequence: item.sequence })
}

/// What the author knew: its base, and its own earlier operations wherever one of them was the last
/// to change a field.
fn seen(
    write: &MasterWrite<'_>,
    incarnation: Incarnation,
    edit: &Edit,
    base: Sequence,
    standing: Option<&MasterItem>,
) -> Result<Seen> {
    let Some(item) = standing else { return Ok(Seen::up_to(base)) };
    let mut seen = Seen::up_to(base);
    if edit.base.after.is_some() {
        let fields = item.field_sequences.iter().map(|(_, sequence)| sequence);
        let newer: BTreeSet<Sequence> =
            fields.chain([item.sequence]).filter(|sequence| *sequence > base).collect();
        for sequence in newer {
            if write.author_of(sequence)? == Some(incarnation) {
                seen.own.insert(sequence);
            }
        }
    }
    // A switch of sharing changes no value: who knew all fields knew the item.
    let knew_all = item.field_sequences.iter().all(|(_, sequence)| seen.covers(sequence));
    if knew_all && !seen.covers(item.sequence) && write.act_at(item.sequence)? == Some(OperatorAct::Share) {
        seen.own.insert(item.sequence);
    }
    Ok(seen)
}

fn builds_on_rejected(
    read: &MasterRead<'_>,
    incarnation: Incarnation,
    ledger: &Ledger,
    edit: &Edit,
) -> Result<bool> {
    let (Some(after), Action::Patch { .. }) = (edit.base.after, &edit.action) else { return Ok(false) };
    let earlier = read.ledger_of(incarnation, ledger, after)?;
    let outcome = earlier.as_ref().unwrap_or(ledger).outcome(after)?;
    Ok(matches!(outcome, Some(Outcome::Rejected { .. })))
}
