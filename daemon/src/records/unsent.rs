//! Edits of this device that the group never got, for whoever decides what becomes of them.

use std::collections::BTreeSet;

use mfpsync_proto::records as wire;
use mfpsync_storage::local::{ItemState, LocalItem, Unsent};
use mfpsync_storage::model::{Fields, limit};
use tokio::sync::mpsc;
use tonic::Status;

use crate::db::SCAN_DEADLINE;
use crate::device::Device;
use crate::local::convert;
use crate::storage_fault::refusal;

/// Items read from the database at a time.
const CHUNK: u32 = 200;
/// About how much one answer holds, well under the message limit.
const ANSWER_BYTES: usize = 512 << 10;

/// Where the items are handed to.
pub(super) type Answers = mpsc::Sender<Result<wire::UnsentReply, Status>>;

/// Hands out all of them, without values unless asked for.
pub(super) async fn unsent(device: &Device, with_values: bool, to: &Answers) -> Result<(), Status> {
    let mut after = None;
    let (mut items, mut bytes) = (Vec::new(), 0);
    loop {
        let begin = after.take();
        let read = move |read: &mfpsync_storage::local::LocalRead<'_>| read.unsent(begin.as_ref(), CHUNK);
        let chunk = device.own.db().read(SCAN_DEADLINE, read).await.map_err(|error| refusal(&error))?;
        let is_last = chunk.len() < CHUNK as usize;
        after = chunk.last().map(|unsent| unsent.key.clone());
        for unsent in chunk {
            let values = unsent.after.as_ref().filter(|_| with_values);
            bytes += 4 * limit::NAME_BYTES + values.map_or(0, |fields| fields.encode().len());
            items.push(item(unsent, with_values));
            if bytes > ANSWER_BYTES {
                send(to, std::mem::take(&mut items)).await?;
                bytes = 0;
            }
        }
        if is_last {
            return send(to, items).await;
        }
    }
}

async fn send(to: &Answers, items: Vec<wire::UnsentItem>) -> Result<(), Status> {
    let sent = to.send(Ok(wire::UnsentReply { items })).await;
    sent.map_err(|_| Status::cancelled("the caller is gone"))
}

fn item(unsent: Unsent, with_values: bool) -> wire::UnsentItem {
    let Unsent { key, before, after } = unsent;
    let change = match (&before, &after) {
        (_, None) => wire::UnsentChange::Deleted,
        (None, Some(_)) => wire::UnsentChange::Added,
        (Some(_), Some(_)) => wire::UnsentChange::Changed,
    };
    let fields = after.as_ref().map(|after| differing(before.as_ref(), after)).unwrap_or_default();
    let shown = convert::shown_key(&key);
    let item = after.filter(|_| with_values).map(|fields| {
        // It is no other device's yet, whether it waits or not.
        convert::item(LocalItem { key, fields, state: ItemState::Own })
    });
    wire::UnsentItem { key: Some(shown), change: change.into(), fields, item }
}

fn differing(before: Option<&Fields>, after: &Fields) -> Vec<String> {
    let names: BTreeSet<&str> = before.into_iter().flat_map(Fields::names).chain(after.names()).collect();
    let differs = |name: &&str| before.and_then(|before| before.get(name)) != after.get(name);
    names.into_iter().filter(differs).map(str::to_owned).collect()
}
