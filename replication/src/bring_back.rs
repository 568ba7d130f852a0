//! Items out of an archive, written again as changes of their own: what became of each, decided inside the master's
//! transaction.
//!
//! What lives is left alone unless it is to be replaced. What must not come back does not: items of erased users, values
//! that are sealed, what is the server's own, and what stands beside the present sharing of its kind.

use std::collections::BTreeMap;

use mfpsync_storage::Result;
use mfpsync_storage::master::{ItemWrite, MasterRead, MasterWrite, OperatorAct};
use mfpsync_storage::model::{ErasedMark, Fields, ItemKey, Revision, Sharing, erasure_key, limit};

use crate::accept::Usage;
use crate::merge::{is_written_by_devices, rule};
use crate::operator::{Operator, write_all};

/// What bringing back does, or would do, in numbers of items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Are written.
    pub items: u64,
    /// Of those: did not live.
    pub restored: u64,
    /// Live, differ, and are left.
    pub differ: u64,
    /// Are as they were.
    pub same: u64,
    /// Must not come back.
    pub left: u64,
    /// Their user has no room for them.
    pub no_room: u64,
}

impl Tally {
    /// Adds what another step did.
    pub fn add(&mut self, other: &Self) {
        self.items += other.items;
        self.restored += other.restored;
        self.differ += other.differ;
        self.same += other.same;
        self.left += other.left;
        self.no_room += other.no_room;
    }
}

/// What an archive knew of erased users.
#[derive(Debug, Clone)]
pub enum Erased {
    /// How often each had been, by the ids of their marks. Who was erased since gets nothing back from before, also if
    /// the name was opened again.
    Until(BTreeMap<String, u64>),
    /// Nothing: it is of another group. Only who is erased now gets nothing.
    Unknown,
}

impl Erased {
    fn keeps_out(&self, id: &str, now: &ErasedMark) -> bool {
        match self {
            Self::Until(generations) => {
                !now.readmitted || generations.get(id).is_none_or(|known| *known < now.generation)
            }
            Self::Unknown => !now.readmitted,
        }
    }
}

/// Says what bringing these living items of an archive back would do.
///
/// # Errors
/// The database's.
pub fn preview(
    read: &MasterRead<'_>,
    archived: &[(ItemKey, Fields)],
    erased: &Erased,
    replace: bool,
) -> Result<Tally> {
    Ok(decide(read, archived, erased, replace, false)?.1)
}

/// As [`preview`], and does it. The revision of the last one; none when nothing was written.
///
/// # Errors
/// The database's.
pub fn bring_back(
    write: &MasterWrite<'_>,
    operator: &Operator,
    archived: &[(ItemKey, Fields)],
    erased: &Erased,
    replace: bool,
) -> Result<(Tally, Option<Revision>)> {
    let (writes, tally) = decide(write, archived, erased, replace, operator.keep_values)?;
    if writes.is_empty() {
        return Ok((tally, None));
    }
    let revision = write_all(write, &operator.author(OperatorAct::BringBack), &writes)?;
    Ok((tally, Some(revision)))
}

fn decide(
    read: &MasterRead<'_>,
    archived: &[(ItemKey, Fields)],
    erased: &Erased,
    replace: bool,
    keep_prior: bool,
) -> Result<(Vec<ItemWrite>, Tally)> {
    let group = read.founded_head()?.group;
    let (mut writes, mut tally, mut usage) = (Vec::new(), Tally::default(), Usage::default());
    for (key, fields) in archived {
        let mark = erasure_key(group, &key.scope).zip(read.erasure(group, &key.scope)?);
        let closed = mark.is_some_and(|(mark, now)| erased.keeps_out(&mark.id, &now.mark));
        let shared = read.sharing_of(key)?.sharing == Sharing::Shared;
        if closed
            || rule(&key.kind).sealed_only
            || !is_written_by_devices(&key.kind)
            || key.device.is_empty() != shared
        {
            tally.left += 1;
            continue;
        }
        let present = read.item(key)?.filter(|item| !item.deleted).map(|item| item.fields);
        if present.as_ref() == Some(fields) {
            tally.same += 1;
        } else if present.is_some() && !replace {
            tally.differ += 1;
        } else if !takes_room(&mut usage, read, key, present.as_ref(), fields)? {
            tally.no_room += 1;
        } else {
            tally.items += 1;
            tally.restored += u64::from(present.is_none());
            let names = present.iter().flat_map(Fields::names).chain(fields.names());
            let mut touched: Vec<String> = names.map(str::to_owned).collect();
            touched.sort_unstable();
            touched.dedup();
            writes.push(ItemWrite {
                key: key.clone(),
                deleted: false,
                fields: fields.clone(),
                touched,
                sequences: None,
                lost: Fields::new(),
                keep_prior,
            });
        }
    }
    Ok((writes, tally))
}

/// Whether a user has room for an item, which is taken then. Others have no bound.
fn takes_room(
    usage: &mut Usage,
    read: &MasterRead<'_>,
    key: &ItemKey,
    present: Option<&Fields>,
    fields: &Fields,
) -> Result<bool> {
    if !key.scope.is_user() {
        return Ok(true);
    }
    let (items, bytes) = usage.of(read, &key.scope, &key.device)?;
    let before = present.map(|fields| fields.encode().len() as u64);
    let after = fields.encode().len() as u64;
    let fits = items + u64::from(before.is_none()) <= limit::USER_ITEMS
        && bytes.saturating_sub(before.unwrap_or(0)) + after <= limit::USER_BYTES;
    if fits {
        usage.count(key, before, Some(after));
    }
    Ok(fits)
}
