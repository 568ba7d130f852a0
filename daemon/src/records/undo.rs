//! Taking changes back, in steps that leave room for pushes between them.

use std::sync::Arc;

use mfpsync_proto::records as wire;
use mfpsync_replication::operator::{self, Operator, Step, Tally, Wanted};
use mfpsync_replication::undo::Selection;
use mfpsync_storage::master::MasterRead;
use mfpsync_storage::model::{ItemKey, Kind, Scope, Sequence};
use tonic::Status;

use super::place;
use crate::communication::{Code, Event};
use crate::db::{READ_DEADLINE, SCAN_DEADLINE};
use crate::device::Device;
use crate::local::convert;
use crate::server::ServerPart;

/// Items looked at in one transaction: a push waits for no more than these.
const STEP: u32 = 100;
/// Items named in the answer.
const NAMED: usize = 200;

/// What is to be done, checked.
struct Order {
    wanted: Wanted,
    selection: Selection,
}

/// Says what an undo would do.
pub(super) async fn preview(device: &Device, request: wire::UndoRequest) -> Result<wire::UndoReply, Status> {
    let server = place::server(device)?;
    let order = Order::parse(&server, &request).await?;
    let (mut sum, mut after) = (Sum::default(), Some(operator::first(&order.selection)));
    while let Some(from) = after {
        let (wanted, selection) = (order.wanted.clone(), order.selection);
        let read = move |read: &MasterRead<'_>| operator::preview(read, &wanted, &selection, from, STEP);
        let step = server.serving.master.read(READ_DEADLINE, read).await;
        after = sum.take(step.map_err(|error| server.serving.storage_failed(&error))?);
    }
    Ok(sum.reply(&order.selection))
}

/// Takes back. A failure on the way leaves what was taken back so far; the same call goes on.
pub(super) async fn undo(device: &Device, request: wire::UndoRequest) -> Result<wire::UndoReply, Status> {
    let server = place::server(device)?;
    let operator: Operator = place::operator(device, request.actor.clone())?;
    let order = Order::parse(&server, &request).await?;
    let (mut sum, mut after) = (Sum::default(), Some(operator::first(&order.selection)));
    while let Some(from) = after {
        let (operator, wanted, selection) = (operator.clone(), order.wanted.clone(), order.selection);
        let step = server
            .serving
            .change(move |write| operator::take_back(write, &operator, &wanted, &selection, from, STEP));
        after = sum.take(step.await?);
    }
    let reply = sum.reply(&order.selection);
    device.communication.record(Event::new(Code::Undone).count("items", reply.items));
    Ok(reply)
}

impl Order {
    async fn parse(server: &Arc<ServerPart>, request: &wire::UndoRequest) -> Result<Self, Status> {
        use wire::undo_request::What;
        let device = place::device_id(&request.device_id)?;
        let invalid = |error| Status::invalid_argument(format!("{error}"));
        let wanted = match &request.what {
            Some(What::Item(key)) => Wanted::Item(convert::key(Some(key.clone()))?),
            Some(What::Items(items)) => Wanted::Items {
                scope: Some(&items.scope)
                    .filter(|text| !text.is_empty())
                    .map(|text| Scope::parse(text))
                    .transpose()
                    .map_err(invalid)?,
                kind: Some(&items.kind)
                    .filter(|text| !text.is_empty())
                    .map(|text| Kind::parse(text))
                    .transpose()
                    .map_err(invalid)?,
            },
            None => Wanted::Items { scope: None, kind: None },
        };
        if device.is_none() && matches!(&wanted, Wanted::Items { scope: None, .. }) {
            return Err(Status::invalid_argument(
                "name an item, a scope or a device: everything of everybody is not taken back at once",
            ));
        }
        let from = match (request.since_sequence, request.since_unix_millis) {
            (Some(sequence), None) => Sequence(sequence.max(1)),
            (None, Some(millis)) => first_since(server, millis).await?,
            _ => return Err(Status::invalid_argument("name either a revision or a time to go back to")),
        };
        let head = server.serving.head().sequence;
        let through = request.through_sequence.map_or(head, |through| Sequence(through).min(head));
        Ok(Self { wanted, selection: Selection { from, through, device } })
    }
}

async fn first_since(server: &ServerPart, millis: u64) -> Result<Sequence, Status> {
    let read = server.serving.master.read(SCAN_DEADLINE, move |read| read.first_since(millis)).await;
    read.map_err(|error| server.serving.storage_failed(&error))
}

/// All steps together.
#[derive(Default)]
struct Sum {
    tally: Tally,
    first: Vec<wire::UndoneItem>,
}

impl Sum {
    fn take(&mut self, step: Step) -> Option<i64> {
        self.tally.add(&step.tally);
        let room = NAMED.saturating_sub(self.first.len());
        let shown = |(key, restored): (ItemKey, mfpsync_replication::undo::Restored)| wire::UndoneItem {
            key: Some(convert::shown_key(&key)),
            fields: restored.touched,
            removed: restored.deleted,
        };
        self.first.extend(step.items.into_iter().take(room).map(shown));
        step.next
    }

    fn reply(self, selection: &Selection) -> wire::UndoReply {
        let Tally {
            items,
            restored,
            removed,
            fields,
            stands,
            forgotten,
            not_kept,
            erased,
            too_large,
            other_sharing,
        } = self.tally;
        wire::UndoReply {
            from_sequence: selection.from.0,
            through_sequence: selection.through.0,
            items,
            restored,
            removed,
            fields,
            stands,
            forgotten,
            not_kept,
            erased,
            too_large,
            other_sharing,
            first: self.first,
        }
    }
}
