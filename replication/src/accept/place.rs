//! Where an edit goes by the sharing of its kind, whatever that was when the edit was made.

use mfpsync_storage::Result;
use mfpsync_storage::master::{Loss, MasterWrite};
use mfpsync_storage::model::{Action, DeviceId, Edit, Fields, RejectReason};

use super::{Limits, Reigns};
use crate::merge::rule;
use crate::sharing::{Destination, can_switch, destination};

/// An edit at the item where it goes by the sharing of its kind.
pub(super) enum Placed {
    /// Decide it there.
    At(Edit),
    /// It is not taken; keep its values for the author.
    Aside(Loss),
    /// Reject its operation.
    Refused(RejectReason),
}

/// Says where an edit goes. Of erased users nothing is taken, and so nothing kept either.
///
/// # Errors
/// The database's.
pub(super) fn placed(
    write: &MasterWrite<'_>,
    author: DeviceId,
    reigns: &mut Reigns<'_>,
    edit: &Edit,
    limits: Limits,
) -> Result<Placed> {
    let base = reigns.base(write, edit.base.revision)?;
    if write.erasure(reigns.head.group, &edit.key.scope)?.is_some_and(|erasure| erasure.refuses(base)) {
        return Ok(Placed::Refused(RejectReason::Erased));
    }
    if !can_switch(&edit.key.kind) {
        return Ok(Placed::At(edit.clone()));
    }
    let setting = reigns.sharing(write, &edit.key)?;
    Ok(match destination(setting.sharing, &edit.key, author) {
        Destination::Item(key) => Placed::At(Edit { key, ..edit.clone() }),
        Destination::NotTheirs => Placed::Refused(RejectReason::OtherDevice),
        Destination::SetAside => {
            let kept = limits.keep_values && rule(&edit.key.kind).keep_loser;
            let fields = match &edit.action {
                Action::Put(fields) | Action::Patch { set: fields, .. } if kept => fields.clone(),
                Action::Put(_) | Action::Patch { .. } | Action::Delete => Fields::new(),
            };
            Placed::Aside(Loss { key: edit.key.clone(), by: setting.sequence, fields })
        }
    })
}
