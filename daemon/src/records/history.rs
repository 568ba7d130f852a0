//! The history as people read it: what happened, to which item, by whom; values only for one item.

use mfpsync_proto::local as local_wire;
use mfpsync_proto::panel::Revision;
use mfpsync_proto::records as wire;
use mfpsync_storage::master::{
    Before, HistoryEntry, HistoryFilter, HistoryLine, HistoryPlace, LostEdit, OperatorAct,
};
use mfpsync_storage::model::{Fields, ItemKey, Kind, Scope, Sequence};
use tonic::Status;

use super::place;
use crate::db::READ_DEADLINE;
use crate::device::Device;
use crate::local::convert;

const LINES: u32 = 100;
const LINES_MAX: u32 = 500;
/// Rows a page looks at, so that a filter that matches little is answered soon.
const ROWS: usize = 20_000;
const VERSIONS: u32 = 50;
const VERSIONS_MAX: u32 = 200;

/// A page of the history.
pub(super) async fn history(
    device: &Device,
    request: wire::HistoryRequest,
) -> Result<wire::HistoryReply, Status> {
    let server = place::server(device)?;
    let invalid = |error| Status::invalid_argument(format!("{error}"));
    let filter = HistoryFilter {
        scope: named(&request.scope).map(Scope::parse).transpose().map_err(invalid)?,
        kind: named(&request.kind).map(Kind::parse).transpose().map_err(invalid)?,
        device: place::device_id(&request.device_id)?,
        since: Sequence(request.since_sequence),
        since_millis: request.since_unix_millis,
    };
    let at = place_from_wire(&request.place)?;
    let lines = bounded(request.limit, LINES, LINES_MAX) as usize;
    let read = move |read: &mfpsync_storage::master::MasterRead<'_>| {
        Ok((read.founded_head()?.epoch.number, read.browse(&filter, at, lines, ROWS)?))
    };
    let (epoch, page) = server
        .serving
        .master
        .read(READ_DEADLINE, read)
        .await
        .map_err(|error| server.serving.storage_failed(&error))?;
    let shown = |line| match line {
        HistoryLine::Change { key, entry } => change(device, &key, &entry),
        HistoryLine::Lost(lost) => lost_edit(device, epoch, &lost),
    };
    Ok(wire::HistoryReply {
        changes: page.lines.into_iter().map(shown).collect(),
        place: page.next.map(place_to_wire).unwrap_or_default().into(),
    })
}

/// One item's changes, with values.
pub(super) async fn item_history(
    device: &Device,
    request: wire::ItemHistoryRequest,
) -> Result<wire::ItemHistoryReply, Status> {
    let server = place::server(device)?;
    let key = convert::key(request.key)?;
    let limit = bounded(request.limit, VERSIONS, VERSIONS_MAX);
    let of = key.clone();
    let read = server
        .serving
        .master
        .read(READ_DEADLINE, move |read| Ok((read.item(&of)?, read.history(&of, limit)?)))
        .await;
    let (item, entries) = read.map_err(|error| server.serving.storage_failed(&error))?;
    let mut after = item.filter(|item| !item.deleted).map(|item| item.fields);
    let mut known = true;
    let mut changes = Vec::with_capacity(entries.len());
    for entry in &entries {
        let became = after.filter(|_| known).unwrap_or_default();
        let stood = entry.before.fields().cloned().unwrap_or_default();
        changes.push(wire::ItemChange {
            change: Some(change(device, &key, entry)),
            before: differing(&stood, &became),
            after: differing(&became, &stood),
            lost: entry.lost.as_ref().map(all).unwrap_or_default(),
        });
        known = entry.before != Before::Forgotten;
        after = entry.before.fields().cloned();
    }
    Ok(wire::ItemHistoryReply { changes })
}

fn named(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn bounded(asked: u32, default: u32, most: u32) -> u32 {
    if asked == 0 { default } else { asked.min(most) }
}

fn place_to_wire(place: HistoryPlace) -> Vec<u8> {
    [place.position.to_be_bytes(), place.loss.to_be_bytes()].concat()
}

fn place_from_wire(bytes: &[u8]) -> Result<HistoryPlace, Status> {
    if bytes.is_empty() {
        return Ok(HistoryPlace::NEWEST);
    }
    let number = |range: std::ops::Range<usize>| bytes.get(range)?.try_into().ok().map(i64::from_be_bytes);
    match (number(0..8), number(8..16), bytes.len()) {
        (Some(position), Some(loss), 16) => Ok(HistoryPlace { position, loss }),
        _ => Err(Status::invalid_argument("place is not one this server gave")),
    }
}

fn change(device: &Device, key: &ItemKey, entry: &HistoryEntry) -> wire::Change {
    let act = OperatorAct::of(entry.incarnation, entry.operation);
    let event = match (entry.deleted, &entry.before) {
        (true, _) => wire::Event::Deleted,
        (false, Before::Absent | Before::Deleted) => wire::Event::Created,
        (false, Before::Fields(_) | Before::Forgotten) => wire::Event::Changed,
    };
    wire::Change {
        revision: Some(Revision { epoch: entry.revision.epoch, sequence: entry.revision.sequence.0 }),
        accepted_unix_millis: entry.accepted_at,
        actor: entry.actor.clone(),
        device_id: entry.device.to_string(),
        device_name: place::device_name(device, entry.device),
        key: Some(convert::shown_key(key)),
        event: event.into(),
        act: act.map_or("", act_name).to_owned(),
        fields: entry.touched.clone(),
        lost_fields: entry.lost.iter().flat_map(Fields::names).map(str::to_owned).collect(),
        lost_against: None,
        forgotten: entry.before == Before::Forgotten,
    }
}

fn lost_edit(device: &Device, epoch: u64, lost: &LostEdit) -> wire::Change {
    wire::Change {
        revision: Some(Revision { epoch, sequence: lost.after.0 }),
        accepted_unix_millis: lost.accepted_at,
        actor: lost.actor.clone(),
        device_id: lost.device.to_string(),
        device_name: place::device_name(device, lost.device),
        key: Some(convert::shown_key(&lost.key)),
        event: wire::Event::Lost.into(),
        act: String::new(),
        fields: lost.fields.names().map(str::to_owned).collect(),
        lost_fields: Vec::new(),
        lost_against: Some(lost.by.0),
        forgotten: false,
    }
}

fn act_name(act: OperatorAct) -> &'static str {
    match act {
        OperatorAct::Undo => "undo",
        OperatorAct::DeleteUser => "delete-user",
        OperatorAct::Erase => "erase",
        OperatorAct::Readmit => "readmit",
        OperatorAct::Share => "sharing",
        OperatorAct::BringBack => "bring-back",
    }
}

/// The fields of one side that the other has not, or otherwise.
fn differing(one: &Fields, other: &Fields) -> Vec<local_wire::Field> {
    let fields = one.iter().filter(|(name, value)| other.get(name) != Some(*value));
    fields.map(|(name, value)| field(name, value)).collect()
}

fn all(fields: &Fields) -> Vec<local_wire::Field> {
    fields.iter().map(|(name, value)| field(name, value)).collect()
}

fn field(name: &str, value: &mfpsync_storage::model::Value) -> local_wire::Field {
    local_wire::Field {
        name: name.to_owned(),
        value: Some(local_wire::Value { value: Some(convert::shown(value)) }),
    }
}
