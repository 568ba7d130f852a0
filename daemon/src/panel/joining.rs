//! A join after pairing: its plan, its decision, its end, and taking it back.
//!
//! What happens to items is decided in [`mfpsync_replication::join`]. Here is who may ask when, and the
//! task that carries on what was decided, also after a power cut.

use std::sync::Arc;
use std::time::Duration;

use mfpsync_proto::panel as wire;
use mfpsync_replication::join::{self, Fate, Plan, Policies, Policy, Step};
use mfpsync_storage::Error;
use mfpsync_storage::local::{LocalRead, Phase};
use mfpsync_storage::model::Kind;
use tonic::Status;

use super::join::{finish_leaving, leave_group};
use super::service::Session;
use crate::client::Link;
use crate::clock::{running_hours, unix_millis};
use crate::communication::{Code, Event};
use crate::db::{READ_DEADLINE, SCAN_DEADLINE};
use crate::device::Device;
use crate::storage_fault;

/// What a join replaced is kept for so many hours of running: 30 days.
const KEPT_HOURS: u64 = 30 * 24;
/// A plan is asked for right after pairing: so long its reader waits for the group's data.
const ARRIVAL: Duration = Duration::from_secs(10);
/// After a failure the next attempt comes this much later.
const RETRY: Duration = Duration::from_secs(5);
/// Items named in one answer.
const ITEMS: u32 = 500;

/// Policies as they were asked for.
pub(super) fn policies(wire: Option<wire::JoinPolicies>) -> Result<Option<Policies>, Status> {
    let Some(wire) = wire else { return Ok(None) };
    let kinds = wire.kinds.iter().map(|(kind, policy)| {
        let parsed = Kind::parse(kind).map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok((parsed, self::policy(*policy)?))
    });
    let kinds = kinds.collect::<Result<_, Status>>()?;
    Ok(Some(Policies { others: policy(wire.others)?, kinds }))
}

fn policy(wire: i32) -> Result<Policy, Status> {
    match wire::JoinPolicy::try_from(wire) {
        Ok(wire::JoinPolicy::Unspecified | wire::JoinPolicy::Merge) => Ok(Policy::Merge),
        Ok(wire::JoinPolicy::ServerWins) => Ok(Policy::ServerWins),
        Ok(wire::JoinPolicy::DeviceWins) => Ok(Policy::DeviceWins),
        Ok(wire::JoinPolicy::Fresh) => Ok(Policy::Fresh),
        Err(_) => Err(Status::invalid_argument("this version does not know that join policy")),
    }
}

/// What was wished for when the join began.
fn wished(read: &LocalRead<'_>) -> Result<Option<Policies>, Error> {
    let wishes = read.wishes()?.and_then(|wishes| String::from_utf8(wishes).ok());
    Ok(wishes.and_then(|wishes| wishes.parse().ok()))
}

/// Says what the join would do.
pub(super) async fn plan(
    session: &Session,
    request: wire::JoinPlanRequest,
) -> Result<wire::JoinPlanReply, Status> {
    let device = &session.device;
    arrived(device).await?;
    let asked = policies(request.policies.clone())?;
    let read = move |read: &LocalRead<'_>| {
        let policies = asked.map_or_else(|| wished(read), |asked| Ok(Some(asked)))?.unwrap_or_default();
        let membership = read.membership()?;
        Ok((membership.map_or_else(String::new, |known| known.group_name), join::plan(read, &policies)?))
    };
    let read = device.own.db().read(SCAN_DEADLINE, read).await;
    let (group_name, plan) = read.map_err(|error| storage_fault::refusal(&error))?;
    let chosen: Vec<&Step> = plan.steps.iter().filter(|step| is_wanted(&request, step)).collect();
    let skip = usize::try_from(request.skip).unwrap_or(usize::MAX);
    let named = chosen.iter().skip(skip).take(request.items.min(ITEMS) as usize).map(|step| item(step));
    Ok(wire::JoinPlanReply {
        group_name,
        tallies: tallies(&plan),
        plan_id: plan.digest().to_vec().into(),
        items: named.collect(),
        matching: chosen.len() as u64,
    })
}

fn is_wanted(request: &wire::JoinPlanRequest, step: &Step) -> bool {
    (!request.unsent_only || step.unsent)
        && (request.scope.is_empty() || request.scope == step.own.scope.as_str())
        && (request.kind.is_empty() || request.kind == step.own.kind.as_str())
        && (request.fates.is_empty() || request.fates.contains(&fate(&step.fate).into()))
}

fn tallies(plan: &Plan) -> Vec<wire::JoinTally> {
    let tallies = plan.tallies().into_iter();
    tallies
        .map(|((scope, kind), tally)| wire::JoinTally {
            scope: scope.as_str().to_owned(),
            kind: kind.as_str().to_owned(),
            added: tally.added,
            changed: tally.changed,
            identical: tally.identical,
            replaced: tally.replaced,
            left_out: tally.left_out,
            unsent: tally.unsent,
        })
        .collect()
}

fn item(step: &Step) -> wire::JoinItem {
    let elsewhere = step.target != step.own;
    wire::JoinItem {
        scope: step.own.scope.as_str().to_owned(),
        kind: step.own.kind.as_str().to_owned(),
        item_id: step.own.id.clone(),
        group_item_id: if elsewhere { step.target.id.clone() } else { String::new() },
        fate: fate(&step.fate).into(),
        fields: step.fate.fields(),
        unsent: step.unsent,
    }
}

fn fate(fate: &Fate) -> wire::JoinFate {
    match fate {
        Fate::Added(_) => wire::JoinFate::Added,
        Fate::Changed(_) => wire::JoinFate::Changed,
        Fate::Identical => wire::JoinFate::Identical,
        Fate::Replaced(_) => wire::JoinFate::Replaced,
        Fate::LeftOut => wire::JoinFate::LeftOut,
    }
}

/// Waits a little for everything of the group to be here.
async fn arrived(device: &Device) -> Result<(), Status> {
    if *device.own.phase().borrow() != Some(Phase::Joining) {
        return Err(Status::failed_precondition(
            "no join waits for a decision on this device; nothing was changed",
        ));
    }
    let mut links = device.link.subscribe();
    match tokio::time::timeout(ARRIVAL, links.wait_for(|report| report.link == Link::Current)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Status::unavailable(
            "the group's data has not all arrived yet, so nothing can be said of the join; the device keeps \
             its own data meanwhile; see the status and ask again",
        )),
    }
}

/// Carries the join out.
pub(super) async fn accept(
    session: &Session,
    request: wire::AcceptJoinRequest,
) -> Result<wire::AcceptJoinReply, Status> {
    let device = &session.device;
    arrived(device).await?;
    let asked = policies(request.policies)?;
    let expected = match request.plan_id.len() {
        0 => None,
        _ => Some(
            <[u8; 32]>::try_from(&*request.plan_id)
                .map_err(|_| Status::invalid_argument("the plan's id is not one"))?,
        ),
    };
    let plan = carry_out(device, asked, expected).await.map_err(|error| storage_fault::refusal(&error))?;
    let plan = plan.ok_or_else(|| {
        Status::failed_precondition(
            "the plan is another by now, because somebody edited here or in the group; nothing was changed; \
             look at the plan again",
        )
    })?;
    Ok(wire::AcceptJoinReply { tallies: tallies(&plan) })
}

async fn carry_out(
    device: &Device,
    asked: Option<Policies>,
    expected: Option<[u8; 32]>,
) -> Result<Option<Plan>, Error> {
    let plan = device.own.change_membership(move |write| {
        let policies = match &asked {
            Some(asked) => asked.clone(),
            None => wished(write)?.unwrap_or_default(),
        };
        join::accept(write, &policies, expected, unix_millis())
    });
    let plan = plan.await?;
    if let Some(plan) = &plan {
        device.communication.record(Event::new(Code::Joined).count("items", plan.steps.len() as u64));
        tracing::info!(items = plan.steps.len(), "the device's own items became part of the group");
    }
    Ok(plan)
}

/// Gives the join up before it was carried out.
pub(super) async fn cancel(session: &Session) -> Result<wire::LeaveReply, Status> {
    if *session.device.own.phase().borrow() != Some(Phase::Joining) {
        return Err(Status::failed_precondition(
            "no join waits for a decision on this device; to take back one that was carried out, undo it",
        ));
    }
    leave_group(session, 0).await
}

/// Begins to take the join back, or says what that would do.
pub(super) async fn undo(
    session: &Session,
    request: wire::UndoJoinRequest,
) -> Result<wire::UndoJoinReply, Status> {
    let own = &session.device.own;
    let phase = *own.phase().borrow();
    match phase {
        Some(Phase::Member) => {}
        Some(Phase::Joining) => {
            return Err(Status::failed_precondition("the join was not carried out yet; cancel it instead"));
        }
        Some(Phase::Undoing) => {
            return Err(Status::failed_precondition(
                "the join is being taken back already; the device leaves when its last edit has reached the server",
            ));
        }
        None => return Err(Status::failed_precondition("this device belongs to no group")),
    }
    let read = |read: &LocalRead<'_>| Ok((join::undo_preview(read)?, read.joined_at()?, read.kept_own()?));
    let read = own.db().read(SCAN_DEADLINE, read).await.map_err(|error| storage_fault::refusal(&error))?;
    let (Some(mut taken_back), Some(joined_at), own_items) = read else {
        return Err(Status::failed_precondition(
            "nothing is kept of this device's join any more (it is for 30 days of running); to part from the group and \
             keep its data, leave it",
        ));
    };
    if !request.preview {
        let undone = own.change_membership(|write| join::undo(write, unix_millis())).await;
        taken_back = undone.map_err(|error| storage_fault::refusal(&error))?;
        tracing::info!("the join is being taken back");
        let event = Event::new(Code::JoinUndone).count("removed", taken_back.removed);
        session.device.communication.record(event.count("restored", taken_back.restored));
    }
    Ok(wire::UndoJoinReply {
        removed: taken_back.removed,
        restored: taken_back.restored,
        standing: taken_back.standing,
        own_items,
        joined_at_unix_millis: joined_at,
    })
}

/// Carries out joins that need no decision once everything has arrived, ends those that are taken
/// back, finishes a leave that the last daemon did not, and forgets what was kept long enough; until the
/// daemon stops.
///
/// # Cancel safety
/// What was under way is carried on at the next start.
pub async fn carry_joins_on(session: Arc<Session>) {
    let device = &session.device;
    let (mut phases, mut links) = (device.own.phase(), device.link.subscribe());
    let mut settlements = device.own.settlements();
    let mut hours = running_hours();
    let mut left = false;
    loop {
        let carried_on = async {
            if !left {
                finish_leaving(&session).await?;
                left = true;
            }
            carry_on(&session).await
        };
        let carried_on = carried_on.await;
        if let Err(error) = &carried_on {
            tracing::warn!(%error, "carry the join on");
        }
        tokio::select! {
            () = session.stop.cancelled() => return,
            Ok(()) = phases.changed() => {}
            Ok(()) = links.changed() => {}
            Ok(()) = settlements.changed() => {}
            _ = hours.tick() => age(device).await,
            () = tokio::time::sleep(RETRY), if carried_on.is_err() => {}
        }
    }
}

async fn carry_on(session: &Session) -> Result<(), Status> {
    let device = &session.device;
    let phase = *device.own.phase().borrow();
    let current = device.link.borrow().link == Link::Current;
    let read = |read: &LocalRead<'_>| Ok((read.wishes()?, read.waiting()?.operations));
    match phase {
        Some(Phase::Joining) if current => {}
        Some(Phase::Undoing) => {}
        Some(Phase::Joining | Phase::Member) | None => return Ok(()),
    }
    let read = device.own.db().read(READ_DEADLINE, read).await;
    let (wishes, waiting) = read.map_err(|error| storage_fault::refusal(&error))?;
    match phase {
        Some(Phase::Joining) if wishes.is_some() => {
            carry_out(device, None, None).await.map(drop).map_err(|error| storage_fault::refusal(&error))
        }
        Some(Phase::Undoing) if waiting == 0 => leave_group(session, 0).await.map(drop),
        Some(_) | None => Ok(()),
    }
}

async fn age(device: &Device) {
    if let Err(error) = device.own.note(|write| write.age_join(KEPT_HOURS)).await {
        // An hour that was not counted: the copy is kept longer.
        tracing::warn!(%error, "count the hours since a join");
    }
}
