//! An archive beside what is here, in numbers: what a restore would bring, take and change.

use std::collections::{BTreeMap, BTreeSet};

use mfpsync_proto::backup as wire;
use mfpsync_replication::lineage::{Lineage, Standpoint};
use mfpsync_replication::merge::is_written_by_devices;
use mfpsync_storage::Result;
use mfpsync_storage::master::MasterRead;
use mfpsync_storage::model::{
    ContentHash, Cursor, DeviceId, Fields, ItemKey, Kind, Promotion, Scope, Sequence, Signed,
};

/// Compares two masters. Items are looked at only where the hash of a scope and kind differs.
///
/// # Errors
/// The databases', or the reader's deadline.
pub(super) fn compare(here: &MasterRead<'_>, archived: &MasterRead<'_>) -> Result<wire::Comparison> {
    let (head, at) = (here.founded_head()?, archived.founded_head()?);
    let mut comparison = wire::Comparison {
        here_epoch: head.epoch.number,
        here_sequence: head.sequence.0,
        changes_lost: lost(&head.cursor(), reigns(here.lineage()?), &at.cursor()),
        ..wire::Comparison::default()
    };
    let (ours, theirs) = (hashes(here)?, hashes(archived)?);
    let all: BTreeSet<&(Scope, Kind)> = ours.keys().chain(theirs.keys()).collect();
    for place in all {
        if ours.get(place) != theirs.get(place) {
            count(&living(here, place)?, &living(archived, place)?, &mut comparison);
        }
    }
    members(here, archived, &mut comparison)?;
    let marks: BTreeMap<_, _> = archived.erasures()?.into_iter().collect();
    let newer = here.erasures()?.into_iter().filter(|(id, erasure)| {
        marks.get(id).is_none_or(|known| known.mark.generation < erasure.mark.generation)
    });
    comparison.erasures_kept = newer.count() as u64;
    Ok(comparison)
}

/// What an archive holds, where there is nothing to compare it with but where this device once was in the group's history.
///
/// # Errors
/// The database's.
pub(super) fn alone(
    archived: &MasterRead<'_>,
    known: Option<&Cursor>,
    lineage: Vec<Promotion>,
) -> Result<wire::Comparison> {
    let items_back = hashes(archived)?.values().map(|hash| hash.items).sum();
    let at = archived.founded_head()?.cursor();
    let changes_lost = known.map_or(0, |known| lost(known, lineage, &at));
    let here_sequence = known.map_or(0, |known| known.sequence.0);
    let here_epoch = known.map_or(0, |known| known.epoch.number);
    Ok(wire::Comparison {
        here_epoch,
        here_sequence,
        items_back,
        changes_lost,
        ..wire::Comparison::default()
    })
}

/// Changes up to `here` that an archive does not have: those since the two histories parted. Of an archive that is of no
/// known reign, all of them.
fn lost(here: &Cursor, lineage: Vec<Promotion>, archived: &Cursor) -> u64 {
    let standpoint = Lineage::new(here.group, lineage).map(|lineage| lineage.standpoint(archived));
    let both_have = match standpoint {
        Ok(Standpoint::Continue) => archived.sequence,
        Ok(Standpoint::PastFork { fork }) => fork,
        Ok(Standpoint::Unknown) | Err(_) => Sequence::ZERO,
    };
    here.sequence.0.saturating_sub(both_have.0)
}

fn reigns(lineage: Vec<Signed<Promotion>>) -> Vec<Promotion> {
    lineage.into_iter().map(|signed| signed.record).collect()
}

/// Of what devices write: sharing and marks of erased users are no items to people.
fn hashes(read: &MasterRead<'_>) -> Result<BTreeMap<(Scope, Kind), ContentHash>> {
    let mut hashes = read.content_hashes()?;
    hashes.retain(|(_, kind), _| is_written_by_devices(kind));
    Ok(hashes)
}

/// The living items of a scope and kind.
///
/// # Errors
/// The database's.
pub(super) fn living(read: &MasterRead<'_>, place: &(Scope, Kind)) -> Result<BTreeMap<ItemKey, Fields>> {
    let items = read.items_of_kind(&place.0, &place.1)?.into_iter();
    Ok(items.filter(|(_, item)| !item.deleted).map(|(key, item)| (key, item.fields)).collect())
}

fn count(here: &BTreeMap<ItemKey, Fields>, archived: &BTreeMap<ItemKey, Fields>, to: &mut wire::Comparison) {
    to.items_gone += here.keys().filter(|key| !archived.contains_key(*key)).count() as u64;
    for (key, fields) in archived {
        match here.get(key) {
            None => to.items_back += 1,
            Some(present) if present != fields => to.items_changed += 1,
            Some(_) => {}
        }
    }
}

fn members(here: &MasterRead<'_>, archived: &MasterRead<'_>, to: &mut wire::Comparison) -> Result<()> {
    let then: BTreeMap<DeviceId, bool> = archived
        .members()?
        .into_iter()
        .map(|signed| (signed.record.device, signed.record.released))
        .collect();
    for member in here.members()?.into_iter().map(|signed| signed.record) {
        match (then.get(&member.device), member.released) {
            (Some(false), true) => to.releases_kept += 1,
            (None, false) => to.devices_kept += 1,
            (Some(_) | None, _) => {}
        }
    }
    Ok(())
}
