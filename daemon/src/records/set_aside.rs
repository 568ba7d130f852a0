//! Edits of this device that were set aside: offered again, or dropped, by a person's choice.

use mfpsync_proto::records as wire;
use mfpsync_storage::model::OperationNumber;
use mfpsync_storage::{Class, Error};
use tonic::Status;

use crate::db::READ_DEADLINE;
use crate::device::Device;
use crate::storage_fault::refusal;

/// Reasons named in one answer.
const REASONS: usize = 20;

/// Offers entries again, each by itself: one that is refused stays in the list.
pub(super) async fn retry(
    device: &Device,
    choice: wire::SetAsideChoice,
) -> Result<wire::SetAsideDone, Status> {
    let mut done = wire::SetAsideDone::default();
    for (entry, operation) in entries(device, choice).await? {
        match device.own.retry_set_aside(entry).await {
            Ok(true) => done.done += 1,
            // Somebody else was quicker.
            Ok(false) => {}
            Err(error) if is_its_own(&error) => {
                if done.left.len() < REASONS {
                    let reason = refusal(&error).message().to_owned();
                    done.left.push(wire::SetAsideLeft { operation: operation.0, reason });
                }
            }
            Err(error) => return Err(refusal(&error)),
        }
    }
    Ok(done)
}

/// Drops entries.
pub(super) async fn discard(
    device: &Device,
    choice: wire::SetAsideChoice,
) -> Result<wire::SetAsideDone, Status> {
    let mut done = wire::SetAsideDone::default();
    for (entry, _) in entries(device, choice).await? {
        let dropped = device.own.drop_set_aside(entry).await.map_err(|error| refusal(&error))?;
        done.done += u64::from(dropped);
    }
    Ok(done)
}

async fn entries(
    device: &Device,
    choice: wire::SetAsideChoice,
) -> Result<Vec<(i64, OperationNumber)>, Status> {
    let operation = choice.operation.map(OperationNumber);
    let read = device.own.db().read(READ_DEADLINE, move |read| read.set_aside_entries(operation)).await;
    let entries = read.map_err(|error| refusal(&error))?;
    match operation {
        Some(operation) if entries.is_empty() => Err(Status::not_found(format!(
            "operation {} is not set aside; see `mfpsync set-aside list`",
            operation.0
        ))),
        _ => Ok(entries),
    }
}

/// Whether an entry is refused for what it is, so that others may still be offered.
fn is_its_own(error: &Error) -> bool {
    error.class() == Class::Reject && !matches!(error, Error::OutboxFull { .. })
}
