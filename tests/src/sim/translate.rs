//! From the product's words to the model's.

use mfpsync_storage::model::{Action, EditOutcome, Fields, ItemKey, Operation, Outcome, RejectReason, Value};

use super::model::{Act, Change, FieldMap, Key, Refused, Val, Verdict};
use super::reigns::Line;

pub(super) fn key(key: &ItemKey) -> Key {
    [key.scope.as_str().to_owned(), key.kind.as_str().to_owned(), key.device.clone(), key.id.clone()]
}

pub(super) fn fields(fields: &Fields) -> FieldMap {
    fields.iter().map(|(name, value)| (name.to_owned(), val(value))).collect()
}

fn val(value: &Value) -> Val {
    match value {
        Value::Flag(flag) => Val::Flag(*flag),
        Value::Sealed(sealed) => Val::Sealed([sealed.key_id.as_slice(), &sealed.sealed].concat()),
        Value::Text(text) => Val::Other(format!("text {text}")),
        Value::Integer(number) => Val::Other(format!("integer {number}")),
        Value::Bytes(bytes) => Val::Other(format!("bytes {bytes:?}")),
        Value::Set(texts) => Val::Other(format!("set {texts:?}")),
        Value::Opaque { type_number, payload } => Val::Other(format!("{type_number} {payload:?}")),
    }
}

/// The operation's edits; bases count as far as the line contains them.
pub(super) fn changes(operation: &Operation, line: &Line) -> Vec<Change> {
    let change = |edit: &mfpsync_storage::model::Edit| Change {
        key: key(&edit.key),
        base: line.base(edit.base.revision),
        yields: operation.yields,
        was: operation.was.map(|was| was.0),
        after: edit.base.after.map(|number| number.0),
        act: match &edit.action {
            Action::Put(all) => Act::Put(fields(all)),
            Action::Patch { set, remove } => Act::Patch(fields(set), remove.clone()),
            Action::Delete => Act::Delete,
        },
    };
    operation.edits.iter().map(change).collect()
}

/// The product's answer in the model's words; none for a reason the model does not know.
pub(super) fn outcome(outcome: &Outcome) -> Option<Result<(u64, Vec<Verdict>), Refused>> {
    let verdict = |edit: &EditOutcome| match edit {
        EditOutcome::Applied => Verdict::Applied,
        EditOutcome::Merged { .. } => Verdict::Merged,
        EditOutcome::Superseded { .. } => Verdict::Superseded,
        EditOutcome::Unchanged => Verdict::Unchanged,
    };
    Some(match outcome {
        Outcome::Accepted { revision, edits } => {
            Ok((revision.sequence.0, edits.iter().map(verdict).collect()))
        }
        Outcome::Rejected { reason, .. } => Err(match reason {
            RejectReason::OverLimit => Refused::OverLimit,
            RejectReason::ReadOnlyKind => Refused::ReadOnly,
            RejectReason::NotSealed => Refused::NotSealed,
            RejectReason::BuildsOnRejected => Refused::BuildsOnRejected,
            RejectReason::Malformed
            | RejectReason::NumberReused
            | RejectReason::Erased
            | RejectReason::OtherDevice
            | RejectReason::Unknown(_) => return None,
        }),
    })
}
