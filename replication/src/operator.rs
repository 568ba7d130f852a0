//! What the operator changes at the server itself: taking changes back, deleting and erasing users,
//! opening an erased name again.
//!
//! Called by the daemon inside the master's transactions. Such changes take the same way as pushed
//! ones: they get sequences, stand in the history, travel by follow streams, and can be taken back.

use mfpsync_storage::Result;
use mfpsync_storage::master::{Author, ItemWrite, MasterRead, MasterWrite, OperatorAct, before};
use mfpsync_storage::model::{
    DeviceId, ErasedMark, Erasure, Fields, ItemKey, Kind, Revision, Scope, Sharing, erasure_key, limit,
};

use crate::merge::rule;
use crate::undo::{Restored, Selection, Undone, undo};

/// Bytes of the items that share one sequence; a single larger one stands alone.
const SEQUENCE_BYTES: usize = limit::OPERATION_BYTES;

/// Who acts.
#[derive(Debug, Clone)]
pub struct Operator {
    /// The server.
    pub server: DeviceId,
    /// The person, as history shows it.
    pub actor: String,
    /// The server's wall clock, Unix milliseconds; informs only.
    pub now: u64,
    /// Whether the history keeps what is replaced.
    pub keep_values: bool,
}

impl Operator {
    pub(crate) fn author(&self, act: OperatorAct) -> Author {
        Author::operator(self.server, act, self.actor.clone(), self.now)
    }
}

/// Which items an undo looks at.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// One.
    Item(ItemKey),
    /// All of a scope and a kind; none does not restrict.
    Items {
        /// Whose.
        scope: Option<Scope>,
        /// What.
        kind: Option<Kind>,
    },
}

/// What taking back does, or would do, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Items that change.
    pub items: u64,
    /// Of those: items that come back.
    pub restored: u64,
    /// Of those: items that go.
    pub removed: u64,
    /// Fields that change.
    pub fields: u64,
    /// Fields others wrote later, which stand.
    pub stands: u64,
    /// Fields whose value before is no longer kept.
    pub forgotten: u64,
    /// Items whose replaced values are never kept: secrets, and the server's own settings.
    pub not_kept: u64,
    /// Items of erased users.
    pub erased: u64,
    /// Items that would exceed what an item may hold.
    pub too_large: u64,
    /// Items from the time before the sharing of their kind was switched.
    pub other_sharing: u64,
}

impl Tally {
    /// Adds what another step did.
    pub fn add(&mut self, other: &Self) {
        self.items += other.items;
        self.restored += other.restored;
        self.removed += other.removed;
        self.fields += other.fields;
        self.stands += other.stands;
        self.forgotten += other.forgotten;
        self.not_kept += other.not_kept;
        self.erased += other.erased;
        self.too_large += other.too_large;
        self.other_sharing += other.other_sharing;
    }
}

/// One step of taking back.
#[derive(Debug, Default)]
pub struct Step {
    /// In numbers.
    pub tally: Tally,
    /// Each item that changes.
    pub items: Vec<(ItemKey, Restored)>,
    /// Where to go on; none at the end.
    pub next: Option<i64>,
}

/// Where the first step begins.
#[must_use]
pub fn first(selection: &Selection) -> i64 {
    before(selection.from)
}

/// Looks at the next `rows` items behind `after` and says what would be taken back.
///
/// # Errors
/// The database's.
pub fn preview(
    read: &MasterRead<'_>,
    wanted: &Wanted,
    selection: &Selection,
    after: i64,
    rows: u32,
) -> Result<Step> {
    let (keys, next) = match wanted {
        Wanted::Item(key) => (vec![key.clone()], None),
        Wanted::Items { scope, kind } => read.changed_items(scope.as_ref(), kind.as_ref(), after, rows)?,
    };
    let group = read.founded_head()?.group;
    let mut step = Step { next, ..Step::default() };
    for key in keys {
        let chain = read.history_since(&key, selection.from)?;
        // What an earlier step of the same undo wrote: it was counted then.
        let done = |act| act == OperatorAct::Undo;
        let newest = chain.first().filter(|newest| newest.revision.sequence > selection.through);
        if newest
            .is_some_and(|newest| OperatorAct::of(newest.incarnation, newest.operation).is_some_and(done))
        {
            continue;
        }
        let present = read.item(&key)?.filter(|item| !item.deleted).map(|item| item.fields);
        let mut undone = undo(&key.kind, present.as_ref(), &chain, selection);
        if undone.write.is_some()
            && key.device.is_empty() != (read.sharing_of(&key)?.sharing == Sharing::Shared)
        {
            // It would come back beside what the devices have now.
            undone.write = None;
            step.tally.other_sharing += 1;
        }
        let closed = read.erasure(group, &key.scope)?.is_some_and(|erasure| !erasure.mark.readmitted);
        step.take(key, present.is_some(), undone, closed);
    }
    Ok(step)
}

impl Step {
    fn take(&mut self, key: ItemKey, lived: bool, undone: Undone, closed: bool) {
        let Undone { write, stands, forgotten, not_kept } = undone;
        if closed && write.is_some() {
            self.tally.erased += 1;
            return;
        }
        self.tally.stands += stands as u64;
        self.tally.forgotten += forgotten as u64;
        self.tally.not_kept += u64::from(not_kept);
        let Some(write) = write else { return };
        if write.fields.len() > limit::ITEM_FIELDS || write.fields.encode().len() > limit::ITEM_BYTES {
            self.tally.too_large += 1;
            return;
        }
        self.tally.items += 1;
        self.tally.restored += u64::from(!lived && !write.deleted);
        self.tally.removed += u64::from(lived && write.deleted);
        self.tally.fields += write.touched.len() as u64;
        self.items.push((key, write));
    }
}

/// As [`preview`], and does it.
///
/// # Errors
/// The database's.
pub fn take_back(
    write: &MasterWrite<'_>,
    operator: &Operator,
    wanted: &Wanted,
    selection: &Selection,
    after: i64,
    rows: u32,
) -> Result<Step> {
    let step = preview(write, wanted, selection, after, rows)?;
    let writes = step.items.iter().map(|(key, restored)| ItemWrite {
        key: key.clone(),
        deleted: restored.deleted,
        fields: restored.fields.clone(),
        touched: restored.touched.clone(),
        sequences: None,
        lost: Fields::new(),
        keep_prior: operator.keep_values,
    });
    let writes: Vec<ItemWrite> = writes.collect();
    write_all(write, &operator.author(OperatorAct::Undo), &writes)?;
    Ok(step)
}

/// Deletes all items of a user and returns how many.
///
/// # Errors
/// The database's.
pub fn delete_user(write: &MasterWrite<'_>, operator: &Operator, scope: &Scope) -> Result<u64> {
    let writes = tombstones(write, operator, scope)?;
    write_all(write, &operator.author(OperatorAct::DeleteUser), &writes)?;
    Ok(writes.len() as u64)
}

/// What an erasure did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erased {
    /// The mark, as it stands now.
    pub erasure: Erasure,
    /// Items that were deleted.
    pub items: u64,
}

/// Erases a user: deletes all items, wipes what the history keeps of them and of the name as an
/// actor, and sets the mark behind which nothing of this user is taken. Erasing again wipes again
/// and leaves the mark. None for a scope that is no user's.
///
/// # Errors
/// The database's.
pub fn erase(write: &MasterWrite<'_>, operator: &Operator, scope: &Scope) -> Result<Option<Erased>> {
    let group = write.founded_head()?.group;
    let known = write.erasure(group, scope)?;
    let writes = tombstones(write, operator, scope)?;
    write_all(write, &operator.author(OperatorAct::Erase), &writes)?;
    let items = writes.len() as u64;
    let erasure = match known {
        Some(erasure) if !erasure.mark.readmitted => Some(erasure),
        _ => mark(write, operator, scope, OperatorAct::Erase)?,
    };
    let Some(stand_in) = erasure_key(group, scope).and_then(|key| Scope::user(&key.id).ok()) else {
        return Ok(None);
    };
    let user = scope.as_str().split_once('/').map_or("", |(_, user)| user);
    write.wipe_history(scope, &stand_in, user)?;
    Ok(erasure.map(|erasure| Erased { erasure, items }))
}

/// Opens an erased user's name again. None when the user was not erased.
///
/// # Errors
/// The database's.
pub fn readmit(write: &MasterWrite<'_>, operator: &Operator, scope: &Scope) -> Result<Option<Erasure>> {
    let group = write.founded_head()?.group;
    match write.erasure(group, scope)? {
        Some(erasure) if !erasure.mark.readmitted => mark(write, operator, scope, OperatorAct::Readmit),
        _ => Ok(None),
    }
}

fn mark(
    write: &MasterWrite<'_>,
    operator: &Operator,
    scope: &Scope,
    act: OperatorAct,
) -> Result<Option<Erasure>> {
    let group = write.founded_head()?.group;
    let Some(key) = erasure_key(group, scope) else { return Ok(None) };
    let generation = write.erasure(group, scope)?.map_or(1, |erasure| erasure.mark.generation + 1);
    let mark = ErasedMark { readmitted: act == OperatorAct::Readmit, at: operator.now, generation };
    let fields = mark.fields();
    let item = ItemWrite {
        key,
        deleted: false,
        touched: fields.names().map(str::to_owned).collect(),
        sequences: None,
        fields,
        lost: Fields::new(),
        keep_prior: true,
    };
    let revision = write.accept(&operator.author(act), &[item])?;
    Ok(Some(Erasure { mark, sequence: revision.sequence }))
}

/// Tombstones for all living items of a scope.
fn tombstones(read: &MasterRead<'_>, operator: &Operator, scope: &Scope) -> Result<Vec<ItemWrite>> {
    let mut writes = Vec::new();
    for key in read.scope_items(scope)? {
        let Some(item) = read.item(&key)?.filter(|item| !item.deleted) else { continue };
        writes.push(ItemWrite {
            keep_prior: operator.keep_values && !rule(&key.kind).sealed_only,
            key,
            deleted: true,
            fields: Fields::new(),
            touched: item.fields.names().map(str::to_owned).collect(),
            sequences: None,
            lost: Fields::new(),
        });
    }
    Ok(writes)
}

/// Writes many items in as few sequences as their limits allow.
pub(crate) fn write_all(write: &MasterWrite<'_>, author: &Author, writes: &[ItemWrite]) -> Result<Revision> {
    let (mut start, mut bytes) = (0, 0);
    for (at, item) in writes.iter().enumerate() {
        let size = item.fields.encode().len() + 4 * limit::NAME_BYTES;
        if at > start && (at - start == limit::OPERATION_EDITS || bytes + size > SEQUENCE_BYTES) {
            write.accept(author, &writes[start..at])?;
            (start, bytes) = (at, 0);
        }
        bytes += size;
    }
    write.accept(author, &writes[start..])
}
