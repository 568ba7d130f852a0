//! The server's side of a push: each operation is decided, written and recorded inside one
//! transaction, exactly once in effect however often it comes.
//!
//! Called by the daemon's `Push` handler inside the writer's transaction, and by the simulation.

mod place;

use std::collections::BTreeSet;

use mfpsync_storage::Result;
use mfpsync_storage::codec::DecodeError;
use mfpsync_storage::master::{
    Author, Head, ItemWrite, Loss, MasterItem, MasterRead, MasterWrite, OperatorAct, Progress,
};
use mfpsync_storage::model::{
    Action, DeviceId, Edit, EditOutcome, FieldSequences, Fields, GroupId, Incarnation, ItemKey, Operation,
    OperationNumber, Outcome, RejectReason, Revision, Sequence, limit,
};

use self::place::{Placed, placed};
use crate::lineage::Lineage;
use crate::merge::{Merge, Seen, Standing, merge, rule};

/// Bounds the server keeps.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Items of one user; looked at when a new one is made.
    pub user_items: u64,
    /// Encoded bytes of one user's items; looked at when a new one is made.
    pub user_bytes: u64,
    /// Outcomes of a device that the ledger may hold beyond its low-water mark, so that not every
    /// push of one operation prunes. Few: each device's outcomes fill pages of their own, and a
    /// commit writes every page it touched.
    pub ledger_slack: u64,
    /// Whether the history keeps values that were replaced or lost.
    pub keep_values: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            user_items: limit::USER_ITEMS,
            user_bytes: limit::USER_BYTES,
            ledger_slack: 8,
            keep_values: true,
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
    /// One number came with two contents: two devices share an identity, or a disk was rolled back.
    /// Nothing is taken from the device until a person decides.
    ///
    /// Also the answer to a number whose outcome the device has confirmed, without a mark at the
    /// server: either the network kept an old request back and nobody hears this, or a rolled back
    /// device does and stops.
    Quarantined,
}

/// Decides and stores a submission.
///
/// # Errors
/// The database's; the caller undoes the whole submission, and the device repeats it.
pub fn accept(write: &MasterWrite<'_>, submission: &Submission, limits: Limits) -> Result<Answer> {
    let progress = write.progress(submission.device)?;
    if progress.is_some_and(|progress| progress.quarantined) {
        return Ok(Answer::Quarantined);
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
    let confirmed = progress
        .filter(|progress| progress.incarnation == submission.incarnation)
        .map_or(OperationNumber::default(), |progress| progress.low_water);
    let head = write.founded_head()?;
    let mut reigns = Reigns {
        group: head.group,
        history: chained(&head, write)?,
        head: head.sequence,
        floor: head.tombstone_floor,
    };
    let mut due = write.last_operation(submission.incarnation)?.max(confirmed);
    let mut outcomes = Vec::with_capacity(numbers.len());
    for (number, record) in numbers.into_iter().zip(&submission.operations) {
        let digest = Operation::digest(record);
        let outcome = match write.ledger(submission.incarnation, number)? {
            Some(known) if known.digest == digest || is_withdrawn(record) => known.outcome,
            Some(_) => return quarantine(write, submission),
            // An old request may come this late; whoever waits for the answer stops by itself.
            None if number <= confirmed => return Ok(Answer::Quarantined),
            None if number <= due => return quarantine(write, submission),
            None if number.0 > due.0 + 1 => {
                let expected = OperationNumber(due.0 + 1);
                return Ok(Answer::OutOfOrder { expected, found: number });
            }
            None => {
                let outcome = decide(write, submission, &reigns, number, record, limits)?;
                if let Outcome::Accepted { revision, .. } = &outcome {
                    reigns.head = revision.sequence;
                }
                write.record_outcome(submission.incarnation, number, &digest, &outcome)?;
                due = number;
                outcome
            }
        };
        outcomes.push((number, outcome));
    }
    confirm(write, submission, progress, limits)?;
    Ok(Answer::Outcomes(outcomes))
}

/// Stores the low-water mark when it rose enough, and forgets what it covers.
fn confirm(
    write: &MasterWrite<'_>,
    submission: &Submission,
    known: Option<Progress>,
    limits: Limits,
) -> Result<()> {
    let known = known.filter(|known| known.incarnation == submission.incarnation);
    let stored = known.map_or(OperationNumber::default(), |known| known.low_water);
    if submission.low_water.0 <= stored.0 + limits.ledger_slack {
        return Ok(());
    }
    // A mark beyond what this server has answered would make the next operation look repeated.
    let low_water = submission.low_water.min(write.last_operation(submission.incarnation)?);
    write.prune_ledger(submission.incarnation, low_water)?;
    write.put_progress(&Progress {
        device: submission.device,
        incarnation: submission.incarnation,
        sequence: known.map_or(Sequence::ZERO, |known| known.sequence),
        settled: known.map_or(Sequence::ZERO, |known| known.settled),
        low_water,
        quarantined: false,
    })
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
        low_water: OperationNumber::default(),
        quarantined: true,
    })?;
    Ok(Answer::Quarantined)
}

/// Where the master stands while a submission is taken, read once for all of it.
struct Reigns {
    group: GroupId,
    history: Lineage,
    head: Sequence,
    /// Tombstones up to here may be gone.
    floor: Sequence,
}

/// What one edit makes of its item.
enum Decided {
    Write(Box<ItemWrite>, EditOutcome),
    Lost(Loss, EditOutcome),
    Nothing(EditOutcome),
}

fn decide(
    write: &MasterWrite<'_>,
    submission: &Submission,
    reigns: &Reigns,
    number: OperationNumber,
    record: &[u8],
    limits: Limits,
) -> Result<Outcome> {
    let rejected = |reason, edit| Ok(Outcome::Rejected { reason, edit });
    let Ok(operation) = Operation::decode(record) else {
        return rejected(RejectReason::Malformed, 0);
    };
    let mut decided = Vec::with_capacity(operation.edits.len());
    let mut places = BTreeSet::new();
    for (place, edit) in operation.edits.iter().enumerate() {
        let placed = match placed(write, submission.device, reigns, edit, limits)? {
            Placed::At(edit) => edit,
            Placed::Aside(aside) => {
                let by = Revision { epoch: reigns.history.epoch_of(aside.by), sequence: aside.by };
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
        match decide_edit(write, submission, reigns, &placed, limits)? {
            Ok(one) => decided.push(one),
            Err(reason) => return rejected(reason, place),
        }
    }
    let author = Author {
        device: submission.device,
        incarnation: submission.incarnation,
        operation: number,
        actor: operation.actor,
        made_at: operation.made_at,
        accepted_at: submission.now,
    };
    store(write, &author, decided)
}

fn store(write: &MasterWrite<'_>, author: &Author, decided: Vec<Decided>) -> Result<Outcome> {
    let mut writes = Vec::new();
    let mut edits = Vec::with_capacity(decided.len());
    for one in decided {
        match one {
            Decided::Write(item, outcome) => {
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
    let revision = write.accept(author, &writes)?;
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
    Reigns { history, head, floor, .. }: &Reigns,
    edit: &Edit,
    limits: Limits,
) -> Result<std::result::Result<Decided, RejectReason>> {
    // A base of a reign that parted from this one counts only up to where both agree.
    let base = history.base(edit.base.revision);
    if base > *head {
        return Ok(Err(RejectReason::Malformed));
    }
    let incarnation = submission.incarnation;
    let standing = write.item(&edit.key)?;
    if standing.as_ref().is_none_or(|item| item.deleted) {
        if builds_on_rejected(write, incarnation, edit)? {
            return Ok(Err(RejectReason::BuildsOnRejected));
        }
        if edit.action != Action::Delete && over_user_limit(write, submission.device, edit, limits)? {
            return Ok(Err(RejectReason::OverLimit));
        }
    }
    let seen = seen(write, incarnation, edit, base, standing.as_ref())?;
    let standing = match standing {
        Some(item) => Some(stands(write, &edit.key, item)?),
        None => forgotten(base, *floor),
    };
    let merged = merge(&rule(&edit.key.kind), standing.as_ref(), &edit.action, &seen);
    let answer = match merged.answer(|sequence| history.epoch_of(sequence)) {
        Ok(answer) => answer,
        Err(reason) => return Ok(Err(reason)),
    };
    Ok(Ok(match merged {
        Merge::Write { fields, deleted, touched, lost, .. } => {
            let keep_prior = limits.keep_values && !rule(&edit.key.kind).sealed_only;
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
            Decided::Write(Box::new(item), answer)
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

fn builds_on_rejected(write: &MasterWrite<'_>, incarnation: Incarnation, edit: &Edit) -> Result<bool> {
    let (Some(after), Action::Patch { .. }) = (edit.base.after, &edit.action) else { return Ok(false) };
    let known = write.ledger(incarnation, after)?;
    Ok(matches!(known.map(|entry| entry.outcome), Some(Outcome::Rejected { .. })))
}

fn over_user_limit(write: &MasterWrite<'_>, author: DeviceId, edit: &Edit, limits: Limits) -> Result<bool> {
    if !edit.key.scope.is_user() {
        return Ok(false);
    }
    let (items, bytes) = write.scope_usage(&edit.key.scope, author)?;
    Ok(items >= limits.user_items || bytes >= limits.user_bytes)
}
