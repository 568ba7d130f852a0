//! Which kinds the devices share, and the switching of it: at the group's server.
//!
//! A switch is begun here, carried on by [`super::switching`], and followed here again.

use std::collections::BTreeSet;
use std::sync::Arc;

use mfpsync_proto::panel::Revision;
use mfpsync_proto::records as wire;
use mfpsync_replication::sharing::{
    self, Begun, Choice, Fate, Order, Plan, Planned, STEP, Start, Step, Tally, Target, can_switch,
};
use mfpsync_storage::master::{MasterRead, MasterWrite, Switching};
use mfpsync_storage::model::{DeviceId, Kind, Sequence, Sharing};
use tokio::sync::{mpsc, watch};
use tonic::Status;

use super::place;
use crate::db::SCAN_DEADLINE;
use crate::device::Device;
use crate::local::convert;
use crate::server::ServerPart;
use crate::server::serving::Serving;

/// All kinds the group knows.
pub(super) async fn list(device: &Device) -> Result<wire::SharingReply, Status> {
    let server = place::server(device)?;
    let read = |read: &MasterRead<'_>| Ok((read.sharings()?, read.kind_counts()?, read.switching()?));
    let read = server.serving.master.read(SCAN_DEADLINE, read).await;
    let (settings, counts, switching) = read.map_err(|error| server.serving.storage_failed(&error))?;
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
            under_way: switching.as_ref().filter(|switching| switching.kind == *kind).map(progress),
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
    match planned(&server, &order, keep_values).await? {
        Ok(plan) => Ok(shown(device, &order, plan, None)),
        Err(switching) => Err(under_way(&switching)),
    }
}

/// The plan of a switch, or the switch that is under way.
async fn planned(
    server: &ServerPart,
    order: &Order,
    keep_values: bool,
) -> Result<Result<Plan, Switching>, Status> {
    let of = order.clone();
    let read = move |read: &MasterRead<'_>| match read.switching()? {
        Some(switching) => Ok(Err(switching)),
        None => Ok(Ok(sharing::plan(read, &of, keep_values)?)),
    };
    let read = server.serving.master.read(SCAN_DEADLINE, read).await;
    match read.map_err(|error| server.serving.storage_failed(&error))? {
        Ok(plan) => plan.map(Ok).ok_or_else(|| already(order)),
        Err(switching) => Ok(Err(switching)),
    }
}

/// A switch that was begun, to be followed.
pub(super) struct Followed {
    server: Arc<ServerPart>,
    order: Order,
    /// What it was planned to do; none when it had been ordered before.
    plan: Option<Plan>,
    switching: Switching,
    steps: watch::Receiver<Option<Arc<Step>>>,
}

/// Begins a switch, or finds the same one under way. Devices follow as they hear of it, and nobody has
/// to be there.
pub(super) async fn set(device: &Device, request: wire::SharingOrder) -> Result<Followed, Status> {
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
    let steps = server.serving.switches.watch();
    let plan = match planned(&server, &order, operator.keep_values).await? {
        Ok(plan) => plan,
        Err(switching) => return follows(server, order, switching, steps),
    };
    if expected.is_some_and(|expected| expected != plan.digest) {
        return Err(moved());
    }
    let (of, as_planned) = (order.clone(), plan.clone());
    let begin = move |write: &MasterWrite<'_>| {
        sharing::begin(write, &operator, &of, &as_planned, expected.is_some(), STEP)
    };
    let begun = server.serving.change(begin).await;
    // Also where the replica did not confirm it: then it is begun all the same.
    server.serving.switches.carry_on();
    match begun? {
        Begun::Stepped(step) => {
            let switching = step.switching.clone();
            server.serving.switches.stepped(step, &device.communication);
            Ok(Followed { server, order, plan: Some(plan), switching, steps })
        }
        Begun::UnderWay(switching) => follows(server, order, switching, steps),
        Begun::Already => Err(already(&order)),
        Begun::NothingChosen => Err(Status::failed_precondition(format!(
            "that device has no items of kind {}, and others have; nothing was switched: choose another device",
            order.kind.as_str()
        ))),
        Begun::Moved => Err(moved()),
    }
}

fn follows(
    server: Arc<ServerPart>,
    order: Order,
    switching: Switching,
    steps: watch::Receiver<Option<Arc<Step>>>,
) -> Result<Followed, Status> {
    if (&switching.kind, switching.to) != (&order.kind, order.to) {
        return Err(under_way(&switching));
    }
    Ok(Followed { server, order, plan: None, switching, steps })
}

/// Tells how far a switch is, until it has ended.
pub(super) async fn follow(
    device: &Device,
    mut followed: Followed,
    to: &mpsc::Sender<Result<wire::SharingProgress, Status>>,
) -> Result<(), Status> {
    let gone = |_| Status::cancelled("the caller left; the switch goes on");
    let serving = followed.server.serving.clone();
    if followed.plan.is_none() {
        to.send(Ok(progress(&followed.switching))).await.map_err(gone)?;
    }
    loop {
        let latest = followed.steps.borrow_and_update().clone();
        match latest.filter(|step| step.switching.began >= followed.switching.began) {
            Some(step) if step.switching.began > followed.switching.began => {
                return Err(Status::aborted("this switch has ended, and another was begun since"));
            }
            Some(step) if step.ended => {
                let ended = Some(ended(device, &serving, &followed, &step.switching));
                let last = wire::SharingProgress { ended, ..progress(&step.switching) };
                return to.send(Ok(last)).await.map_err(gone);
            }
            Some(step) => to.send(Ok(progress(&step.switching))).await.map_err(gone)?,
            None => {}
        }
        let stopped = || Status::unavailable("the server stops; the switch goes on when it runs again");
        tokio::select! {
            changed = followed.steps.changed() => changed.map_err(|_closed| stopped())?,
            () = serving.stop.cancelled() => return Err(stopped()),
        }
    }
}

/// What a switch has done, with what its plan named.
fn ended(
    device: &Device,
    serving: &Serving,
    followed: &Followed,
    switching: &Switching,
) -> wire::SharingPlan {
    let revision = Revision { epoch: serving.head().epoch.number, sequence: switching.sequence.0 };
    let done = Some(tally(&switching.tally));
    match followed.plan.clone() {
        Some(plan) => {
            wire::SharingPlan { tally: done, ..shown(device, &followed.order, plan, Some(revision)) }
        }
        None => wire::SharingPlan {
            kind: switching.kind.as_str().to_owned(),
            from: state(switching.to.sharing().other()).into(),
            to: state(switching.to.sharing()).into(),
            tally: done,
            revision: Some(revision),
            ..wire::SharingPlan::default()
        },
    }
}

fn progress(switching: &Switching) -> wire::SharingProgress {
    wire::SharingProgress {
        kind: switching.kind.as_str().to_owned(),
        to: state(switching.to.sharing()).into(),
        done: switching.tally.items,
        items: switching.expected,
        ended: None,
    }
}

fn moved() -> Status {
    Status::aborted(
        "the data has changed since the preview; nothing was switched: look at it again, then switch",
    )
}

fn under_way(switching: &Switching) -> Status {
    Status::failed_precondition(format!(
        "kind {} is being switched to {}, {} of {} items are done; nothing else was done: wait for it to end, \
         or give the same order again to follow it",
        switching.kind.as_str(),
        switching.to.sharing().as_str(),
        switching.tally.items,
        switching.expected
    ))
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
        first: plan.first.iter().map(|planned| item(device, planned)).collect(),
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

fn item(device: &Device, planned: &Planned) -> wire::SharedItem {
    let (of, devices, left_out) = match &planned.fate {
        Fate::Nothing => (None, 0, false),
        Fate::Split { devices } => (None, *devices, false),
        Fate::Joined { of, others } => (of.as_deref(), *others, false),
        Fate::LeftOut { devices } => (None, *devices, true),
    };
    wire::SharedItem {
        key: Some(convert::shown_key(&planned.key)),
        of: of.map(|id| reference(device, id)),
        devices,
        left_out,
    }
}
