//! The users this device knows: listing, handing out, deleting, erasing, and who has confirmed.

use mfpsync_proto::local as local_wire;
use mfpsync_proto::panel::Revision;
use mfpsync_proto::records as wire;
use mfpsync_replication::operator;
use mfpsync_storage::User;
use mfpsync_storage::local::{ItemState, LocalEdit, LocalItem};
use mfpsync_storage::master::{MasterRead, MasterWrite};
use mfpsync_storage::model::{
    Action, Capabilities, DeviceId, Erasure, GroupId, ItemKey, Scope, Sequence, erasure_key, limit,
};
use tokio::sync::mpsc;
use tonic::Status;

use super::place;
use crate::communication::{Code, Event};
use crate::db::{READ_DEADLINE, SCAN_DEADLINE};
use crate::device::Device;
use crate::local::convert;
use crate::storage_fault::refusal;

const USERS: u32 = 100;
const USERS_MAX: u32 = 500;
/// Users read from the database at a time.
const CHUNK: u32 = 500;
/// Items read from the master at a time.
const ITEMS: usize = 100;
const ANSWER_BYTES: usize = 1 << 20;

/// The users this device knows: of the group at its server, else of its own data.
pub(super) async fn users(device: &Device, request: wire::UsersRequest) -> Result<wire::UsersReply, Status> {
    let wanted = if request.limit == 0 { USERS } else { request.limit.min(USERS_MAX) } as usize;
    let search = request.search.to_lowercase();
    let matches = |user: &User| {
        let name = user.display_name.as_deref().unwrap_or_default();
        user.id.to_lowercase().contains(&search) || name.to_lowercase().contains(&search)
    };
    let mut after = request.after;
    let mut found: Vec<User> = Vec::new();
    loop {
        let chunk = chunk(device, after.clone()).await?;
        let complete = chunk.len() < CHUNK as usize;
        after = chunk.last().map_or(after, |user| user.id.clone());
        found.extend(chunk.into_iter().filter(&matches));
        if complete || found.len() > wanted {
            break;
        }
    }
    let more = found.len() > wanted;
    found.truncate(wanted);
    let shown = |user: User| wire::User {
        id: user.id,
        display_name: user.display_name.unwrap_or_default(),
        items: user.items,
        bytes: user.bytes,
    };
    Ok(wire::UsersReply { users: found.into_iter().map(shown).collect(), more })
}

async fn chunk(device: &Device, after: String) -> Result<Vec<User>, Status> {
    match device.server.load_full() {
        Some(server) => {
            let read = server.serving.master.read(SCAN_DEADLINE, move |read| read.users(&after, CHUNK)).await;
            read.map_err(|error| server.serving.storage_failed(&error))
        }
        None => {
            let read = device.own.db().read(SCAN_DEADLINE, move |read| read.users(&after, CHUNK)).await;
            read.map_err(|error| refusal(&error))
        }
    }
}

/// Where an export is handed to.
pub(super) type Answers = mpsc::Sender<Result<local_wire::ListReply, Status>>;

/// Hands out all items of a user, in answers well under the message limit.
pub(super) async fn export(device: &Device, scope: Scope, to: &Answers) -> Result<(), Status> {
    let mut answer = Vec::new();
    let mut bytes = 0;
    let keys = match device.server.load_full() {
        Some(server) => {
            let of = scope.clone();
            let read = server.serving.master.read(READ_DEADLINE, move |read| read.scope_items(&of)).await;
            read.map_err(|error| server.serving.storage_failed(&error))?
        }
        None => Vec::new(),
    };
    let mut chunks = keys.chunks(ITEMS);
    let mut after: Option<ItemKey> = None;
    loop {
        let (items, more) = match (device.server.load_full(), chunks.next()) {
            (Some(server), Some(keys)) => {
                let keys = keys.to_vec();
                let read = server.serving.master.read(READ_DEADLINE, move |read| living(read, keys)).await;
                (read.map_err(|error| server.serving.storage_failed(&error))?, true)
            }
            (Some(_), None) => (Vec::new(), false),
            (None, _) => {
                let read = device.own.chunk(scope.clone(), None, after.take()).await;
                read.map_err(|error| refusal(&error))?
            }
        };
        after = items.last().map(|item| item.key.clone());
        for item in items {
            bytes += item.fields.encode().len() + 4 * limit::NAME_BYTES;
            answer.push(convert::item(item));
            if bytes > ANSWER_BYTES {
                send(to, std::mem::take(&mut answer)).await?;
                bytes = 0;
            }
        }
        if !more {
            return send(to, answer).await;
        }
    }
}

async fn send(to: &Answers, items: Vec<local_wire::Item>) -> Result<(), Status> {
    let sent = to.send(Ok(local_wire::ListReply { items })).await;
    sent.map_err(|_| Status::cancelled("the caller left"))
}

fn living(read: &MasterRead<'_>, keys: Vec<ItemKey>) -> mfpsync_storage::Result<Vec<LocalItem>> {
    let mut items = Vec::with_capacity(keys.len());
    for key in keys {
        if let Some(item) = read.item(&key)?.filter(|item| !item.deleted) {
            items.push(LocalItem { key, fields: item.fields, state: ItemState::Synced });
        }
    }
    Ok(items)
}

/// Deletes a user: at the server at once, else as this device's own edits.
pub(super) async fn delete(
    device: &Device,
    request: wire::UserRequest,
) -> Result<wire::DeleteUserReply, Status> {
    let scope = place::user(&request.user)?;
    let operator = place::operator(device, request.actor)?;
    if let Some(server) = device.server.load_full() {
        let delete = move |write: &MasterWrite<'_>| operator::delete_user(write, &operator, &scope);
        let items = server.serving.change(delete).await?;
        return Ok(wire::DeleteUserReply { items, on_its_way: false });
    }
    let items = device.own.all(scope).await.map_err(|error| refusal(&error))?;
    let edits: Vec<LocalEdit> =
        items.into_iter().map(|item| LocalEdit { key: item.key, action: Action::Delete }).collect();
    let (items, mut on_its_way) = (edits.len() as u64, false);
    for chunk in edits.chunks(limit::OPERATION_EDITS) {
        let edited = device.own.edit(chunk.to_vec(), operator.actor.clone()).await;
        on_its_way |= edited.map_err(|error| refusal(&error))?.operation.is_some();
    }
    Ok(wire::DeleteUserReply { items, on_its_way })
}

/// Erases a user.
pub(super) async fn erase(
    device: &Device,
    request: wire::UserRequest,
) -> Result<wire::EraseUserReply, Status> {
    let server = place::server(device)?;
    let scope = place::user(&request.user)?;
    let operator = place::operator(device, request.actor)?;
    let of = scope.clone();
    let erase = move |write: &MasterWrite<'_>| operator::erase(write, &operator, &of);
    let erased = server.serving.change(erase).await?;
    let erased = erased.ok_or_else(|| Status::invalid_argument("only users can be erased"))?;
    // What was wiped must not live on in the log either.
    server.serving.master.store().truncate_log();
    device.communication.record(Event::new(Code::ErasureBegun).count("items", erased.items));
    let head = server.serving.head();
    Ok(wire::EraseUserReply {
        items: erased.items,
        hash: hash(head.group, &scope),
        revision: Some(Revision { epoch: head.epoch.number, sequence: erased.erasure.sequence.0 }),
    })
}

/// Opens an erased user's name again.
pub(super) async fn readmit(
    device: &Device,
    request: wire::UserRequest,
) -> Result<wire::ReadmitUserReply, Status> {
    let server = place::server(device)?;
    let scope = place::user(&request.user)?;
    let operator = place::operator(device, request.actor)?;
    let readmit = move |write: &MasterWrite<'_>| operator::readmit(write, &operator, &scope);
    let opened = server.serving.change(readmit).await?;
    let opened =
        opened.ok_or_else(|| Status::failed_precondition("this user is not erased; nothing was done"))?;
    Ok(wire::ReadmitUserReply {
        revision: Some(Revision { epoch: server.serving.head().epoch.number, sequence: opened.sequence.0 }),
        generation: opened.mark.generation,
    })
}

/// Who has passed each erasure.
pub(super) async fn erasures(
    device: &Device,
    request: wire::ErasuresRequest,
) -> Result<wire::ErasuresReply, Status> {
    let server = place::server(device)?;
    let head = server.serving.head();
    let named = if request.user.is_empty() { None } else { Some(place::user(&request.user)?) };
    let only = named.as_ref().and_then(|scope| erasure_key(head.group, scope)).map(|key| key.id);
    let members: Vec<DeviceId> = device
        .roster
        .members()
        .iter()
        .filter(|member| !member.released && member.capabilities.contains(Capabilities::CLIENT))
        .map(|member| member.device)
        .collect();
    let of = members.clone();
    let read = server.serving.master.read(READ_DEADLINE, move |read| {
        let mut progress = Vec::with_capacity(of.len());
        for member in of {
            progress.push(read.progress(member)?.map_or(Sequence::ZERO, |progress| progress.sequence));
        }
        Ok((read.erasures()?, progress))
    });
    let (erasures, progress) = read.await.map_err(|error| server.serving.storage_failed(&error))?;
    let reference =
        |id: DeviceId| wire::DeviceRef { id: id.to_string(), name: place::device_name(device, id) };
    let shown = |(hash, erasure): (String, Erasure)| {
        let (passed, waiting): (Vec<_>, Vec<_>) =
            members.iter().zip(&progress).partition(|(_, sequence)| **sequence >= erasure.sequence);
        let names = |devices: Vec<(&DeviceId, &Sequence)>| {
            devices.into_iter().map(|(id, _)| reference(*id)).collect()
        };
        wire::Erasure {
            hash,
            user: request.user.clone(),
            readmitted: erasure.mark.readmitted,
            at_unix_millis: erasure.mark.at,
            generation: erasure.mark.generation,
            revision: Some(Revision { epoch: head.epoch.number, sequence: erasure.sequence.0 }),
            passed: names(passed),
            waiting: names(waiting),
        }
    };
    let wanted = |(hash, _): &(String, Erasure)| only.as_ref().is_none_or(|only| only == hash);
    Ok(wire::ErasuresReply { erasures: erasures.into_iter().filter(wanted).map(shown).collect() })
}

fn hash(group: GroupId, scope: &Scope) -> String {
    erasure_key(group, scope).map_or_else(String::new, |key| key.id)
}
