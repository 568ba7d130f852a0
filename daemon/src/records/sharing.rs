//! Which kinds the devices share, and the switching of it: at the group's server.

use std::collections::BTreeSet;

use mfpsync_proto::panel::Revision;
use mfpsync_proto::records as wire;
use mfpsync_replication::sharing::{
    self, Choice, Fate, Order, Plan, Start, Step, Switched, Tally, Target, can_switch,
};
use mfpsync_storage::Priority;
use mfpsync_storage::master::{MasterRead, MasterWrite};
use mfpsync_storage::model::{DeviceId, Kind, Sequence, Sharing};
use tonic::Status;

use super::place;
use crate::communication::{Code, Event};
use crate::db::SCAN_DEADLINE;
use crate::device::Device;
use crate::local::convert;

/// All kinds the group knows.
pub(super) async fn list(device: &Device) -> Result<wire::SharingReply, Status> {
    let server = place::server(device)?;
    let read = |read: &MasterRead<'_>| Ok((read.sharings()?, read.kind_counts()?));
    let read = server.serving.master.read(SCAN_DEADLINE, read).await;
    let (settings, counts) = read.map_err(|error| server.serving.storage_failed(&error))?;
    let epoch = server.serving.head().epoch.number;
    let kinds: BTreeSet<&Kind> = settings.keys().chain(counts.keys()).collect();
    let shown = |kind: &Kind| {
        let setting = settings.get(kind).copied().unwrap_or_default();
        let count = counts.get(kind).cloned().unwrap_or_default();
        let switched =
            (setting.sequence > Sequence::ZERO).then_some(Revision { epoch, sequence: setting.sequence.0 });
        wire::KindSharing {
            kind: kind.as_str().to_owned(),
            state: state(setting.sharing).into(),
            fixed: !can_switch(kind),
            switched,
            shared_items: count.shared,
            own: count.own.into_iter().map(|(id, items)| own(device, &id, items)).collect(),
        }
    };
    Ok(wire::SharingReply { kinds: kinds.into_iter().map(shown).collect() })
}

fn own(device: &Device, id: &str, items: u64) -> wire::DeviceItems {
    let member = DeviceId::from_hex(id).and_then(|id| device.roster.member(id));
    wire::DeviceItems {
        device: Some(reference(device, id)),
        released: member.is_none_or(|member| member.released),
        items,
    }
}

fn reference(device: &Device, id: &str) -> wire::DeviceRef {
    let name = DeviceId::from_hex(id).map(|id| place::device_name(device, id)).unwrap_or_default();
    wire::DeviceRef { id: id.to_owned(), name }
}

/// Says what a switch would do.
pub(super) async fn preview(
    device: &Device,
    request: wire::SharingOrder,
) -> Result<wire::SharingPlan, Status> {
    let server = place::server(device)?;
    let order = order(device, &request)?;
    let keep_values = place::operator(device, request.actor)?.keep_values;
    let of = order.clone();
    let read = move |read: &MasterRead<'_>| sharing::plan(read, &of, keep_values);
    let plan = server.serving.master.read(SCAN_DEADLINE, read).await;
    let plan = plan.map_err(|error| server.serving.storage_failed(&error))?.ok_or_else(|| already(&order))?;
    Ok(shown(device, &order, plan, None))
}

/// Switches. Devices follow as they hear of it, and nobody has to be there.
pub(super) async fn set(device: &Device, request: wire::SharingOrder) -> Result<wire::SharingPlan, Status> {
    let server = place::server(device)?;
    let order = order(device, &request)?;
    let expected = match request.plan_id.len() {
        0 => None,
        _ => {
            let bad = |_| Status::invalid_argument("the plan's id is not one a preview gave");
            Some(<[u8; 32]>::try_from(request.plan_id.as_ref()).map_err(bad)?)
        }
    };
    let operator = place::operator(device, request.actor)?;
    let of = order.clone();
    let switch = move |write: &MasterWrite<'_>| sharing::switch(write, &operator, &of, expected);
    let switched = server.serving.master.write(Priority::Sync, switch).await;
    match place::written(&server.serving, switched)? {
        Switched::Done(plan) => {
            device.communication.record(Event::new(Code::SharingSwitched));
            let head = server.serving.head();
            let revision = Revision { epoch: head.epoch.number, sequence: head.sequence.0 };
            Ok(shown(device, &order, plan, Some(revision)))
        }
        Switched::Already => Err(already(&order)),
        Switched::NothingChosen => Err(Status::failed_precondition(format!(
            "that device has no items of kind {}, and others have; nothing was switched: choose another device",
            order.kind.as_str()
        ))),
        Switched::Moved => Err(Status::aborted(
            "the data has changed since the preview; nothing was switched: look at it again, then switch",
        )),
    }
}

fn already(order: &Order) -> Status {
    Status::failed_precondition(format!(
        "kind {} is {} already; nothing was done",
        order.kind.as_str(),
        order.to.sharing().as_str()
    ))
}

fn order(device: &Device, request: &wire::SharingOrder) -> Result<Order, Status> {
    use wire::{SharingState as State, SharingValues as Values};
    let kind = Kind::parse(&request.kind).map_err(|error| Status::invalid_argument(error.to_string()))?;
    if !can_switch(&kind) {
        return Err(Status::invalid_argument(format!(
            "kind {} is written by the server alone and stays shared",
            kind.as_str()
        )));
    }
    let to = match (request.state(), request.values()) {
        (State::Unspecified, _) => {
            return Err(Status::invalid_argument("say whether the kind becomes shared or device-specific"));
        }
        (State::DeviceSpecific, Values::Unspecified | Values::Seen) => Target::DeviceSpecific(Start::Seen),
        (State::DeviceSpecific, Values::Before) => Target::DeviceSpecific(Start::Before),
        (State::DeviceSpecific, Values::Device | Values::Newest) => {
            return Err(Status::invalid_argument(
                "a value is chosen when a kind becomes shared; device-specific, each device keeps its own",
            ));
        }
        (State::Shared, Values::Device) => Target::Shared(Choice::Of(named(device, &request.device)?)),
        (State::Shared, Values::Newest) => Target::Shared(Choice::Newest),
        (State::Shared, Values::Before) => Target::Shared(Choice::Before),
        (State::Shared, Values::Unspecified | Values::Seen) => {
            return Err(Status::invalid_argument(
                "devices differ: say which value becomes the group's, one device's, the newest, or the one \
                 the group had before",
            ));
        }
    };
    Ok(Order { kind, to })
}

/// A device by id or name; also a released one, whose items are kept.
fn named(device: &Device, text: &str) -> Result<DeviceId, Status> {
    let members = device.roster.members();
    if let Some(member) = DeviceId::from_hex(text).and_then(|id| device.roster.member(id)) {
        return Ok(member.device);
    }
    let named: Vec<DeviceId> =
        members.iter().filter(|member| member.name == text).map(|member| member.device).collect();
    match named.as_slice() {
        [id] => Ok(*id),
        [] => {
            Err(Status::invalid_argument("the group has no device of this id or name; see the device list"))
        }
        _ => Err(Status::invalid_argument("several devices have this name: name one by its id")),
    }
}

fn state(sharing: Sharing) -> wire::SharingState {
    match sharing {
        Sharing::Shared => wire::SharingState::Shared,
        Sharing::DeviceSpecific => wire::SharingState::DeviceSpecific,
    }
}

fn shown(device: &Device, order: &Order, plan: Plan, revision: Option<Revision>) -> wire::SharingPlan {
    let scopes = plan.scopes.iter().map(|(scope, of_scope)| wire::ScopeSharing {
        scope: scope.as_str().to_owned(),
        tally: Some(tally(of_scope)),
    });
    wire::SharingPlan {
        kind: order.kind.as_str().to_owned(),
        from: state(plan.from.sharing).into(),
        to: state(order.to.sharing()).into(),
        tally: Some(tally(&plan.tally)),
        scopes: scopes.take(SCOPES).collect(),
        first: plan.first.iter().map(|step| item(device, step)).collect(),
        plan_id: plan.digest.to_vec().into(),
        revision,
    }
}

/// Scopes an answer names, so that it stays well under the message limit.
const SCOPES: usize = 1_000;

fn tally(tally: &Tally) -> wire::SharingTally {
    let Tally { items, copies, brought_back, chosen, identical, kept, not_kept, left_out } = *tally;
    wire::SharingTally { items, copies, brought_back, chosen, identical, kept, not_kept, left_out }
}

fn item(device: &Device, step: &Step) -> wire::SharedItem {
    let (of, devices, left_out) = match &step.fate {
        Fate::Nothing => (None, 0, false),
        Fate::Split { devices } => (None, *devices, false),
        Fate::Joined { of, others } => (of.as_deref(), *others, false),
        Fate::LeftOut { devices } => (None, *devices, true),
    };
    wire::SharedItem {
        key: Some(convert::shown_key(&step.key)),
        of: of.map(|id| reference(device, id)),
        devices,
        left_out,
    }
}
