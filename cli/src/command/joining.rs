//! `mfpsync join plan|accept|cancel|undo`: what a join would do, its decision, and taking it back.

use std::collections::HashMap;
use std::time::Duration;

use clap::{Args, ValueEnum};
use mfpsync_proto::panel::{
    AcceptJoinRequest, CancelJoinRequest, JoinFate, JoinItem, JoinPlanReply, JoinPlanRequest, JoinPolicies,
    JoinPolicy, UndoJoinRequest,
};
use serde_json::json;

use super::Context;
use super::join::left_json;
use crate::confirm;
use crate::exit::{Exit, Failure};
use crate::render::join as render;

/// A large book is compared whole, and right after pairing it still has to arrive.
const PATIENCE: Duration = Duration::from_secs(75);
/// Items the daemon names in one answer.
const PAGE: u32 = 500;

/// Policies for kinds, as flags.
#[derive(Debug, Clone, Args)]
pub(crate) struct PolicyArgs {
    /// Which side wins where both hold the same, for all kinds or for one; may be repeated
    #[arg(long = "policy", value_name = "[KIND=]POLICY", value_parser = policy)]
    policies: Vec<(Option<String>, JoinPolicy)>,
}

impl PolicyArgs {
    /// What was asked for; none when nothing was, so that the daemon's own choice counts.
    pub(super) fn wire(&self) -> Option<JoinPolicies> {
        if self.policies.is_empty() {
            return None;
        }
        let mut policies = JoinPolicies { others: JoinPolicy::Merge.into(), kinds: HashMap::new() };
        for (kind, policy) in &self.policies {
            match kind {
                Some(kind) => drop(policies.kinds.insert(kind.clone(), (*policy).into())),
                None => policies.others = (*policy).into(),
            }
        }
        Some(policies)
    }
}

fn policy(text: &str) -> Result<(Option<String>, JoinPolicy), String> {
    let (kind, word) = match text.split_once('=') {
        Some((kind, word)) => (Some(kind.to_owned()), word),
        None => (None, text),
    };
    let policy = match word {
        "merge" => JoinPolicy::Merge,
        "server-wins" => JoinPolicy::ServerWins,
        "device-wins" => JoinPolicy::DeviceWins,
        "fresh" => JoinPolicy::Fresh,
        _ => return Err("expected merge, server-wins, device-wins or fresh, perhaps behind KIND=".to_owned()),
    };
    Ok((kind, policy))
}

/// What becomes of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FateArg {
    /// The group gets it
    Added,
    /// An item of the group changes
    Changed,
    /// Both are alike
    Identical,
    /// The group's stands instead
    Replaced,
    /// Not offered, and the group has nothing in its place
    LeftOut,
}

/// Show what the join that waits for a decision would do to this device's items
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync join plan
  mfpsync join plan --policy server-wins --policy address.personal=merge
  mfpsync join plan --items --kind address.shared --fate replaced
  mfpsync join plan --unsent")]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    policies: PolicyArgs,
    /// Name the items, not only their numbers
    #[arg(long)]
    items: bool,
    /// Only items of this scope (`user/ID`, `shared` ...)
    #[arg(long, requires = "items")]
    scope: Option<String>,
    /// Only items of this kind
    #[arg(long, requires = "items")]
    kind: Option<String>,
    /// Only items with this fate; may be repeated
    #[arg(long = "fate", requires = "items", value_enum)]
    fates: Vec<FateArg>,
    /// Name the items with edits that this group never got when the device was in it before
    #[arg(long)]
    unsent: bool,
}

/// Carry out the join that waits for a decision
///
/// Shows the plan and asks; what is then done is what was shown, or nothing when it changed meanwhile.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync join accept
  mfpsync join accept --policy device-wins --yes")]
pub(crate) struct AcceptArgs {
    #[command(flatten)]
    policies: PolicyArgs,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
}

/// Give up the join that waits for a decision; the group was never touched
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync join cancel")]
pub(crate) struct CancelArgs {}

/// Take this device's join back, within 30 days
///
/// The group gets back what the join changed, except where somebody edited since; then this device
/// leaves with the items it had before. What was edited on it since the join stays in the group.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync join undo --dry-run
  mfpsync join undo --yes")]
pub(crate) struct UndoArgs {
    /// Only show what would happen
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
}

/// Shows the plan.
///
/// # Errors
/// No join waits, or the group's data has not arrived.
pub(super) async fn plan(context: &Context, args: &PlanArgs) -> Result<Exit, Failure> {
    let fates = args.fates.iter().map(|fate| match fate {
        FateArg::Added => JoinFate::Added,
        FateArg::Changed => JoinFate::Changed,
        FateArg::Identical => JoinFate::Identical,
        FateArg::Replaced => JoinFate::Replaced,
        FateArg::LeftOut => JoinFate::LeftOut,
    });
    let request = JoinPlanRequest {
        policies: args.policies.wire(),
        items: if args.items || args.unsent { PAGE } else { 0 },
        skip: 0,
        scope: args.scope.clone().unwrap_or_default(),
        kind: args.kind.clone().unwrap_or_default(),
        fates: fates.map(Into::into).collect(),
        unsent_only: args.unsent,
    };
    show_plan(context, request).await
}

/// Asks for a plan, and for all the items it shall name.
pub(super) async fn show_plan(context: &Context, mut request: JoinPlanRequest) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    let plan = context.sockets.call_patiently(PATIENCE, panel.join_plan(request.clone())).await?;
    let mut items: Vec<JoinItem> = plan.items.clone();
    while request.items > 0 && (items.len() as u64) < plan.matching {
        request.skip = items.len() as u64;
        let page = context.sockets.call_patiently(PATIENCE, panel.join_plan(request.clone())).await?;
        if page.plan_id != plan.plan_id {
            return Err(Failure::Failed(
                "the plan changed while it was read, because somebody edited; ask again".to_owned(),
            ));
        }
        if page.items.is_empty() {
            break;
        }
        items.extend(page.items);
    }
    let text = [render::plan_text(&plan), render::items_text(&items), render::DECIDE.to_owned()];
    let text = text.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n");
    context.out.answer(&text, &render::plan_json(&plan, &items))?;
    Ok(Exit::Ok)
}

/// Carries the join out.
///
/// # Errors
/// No join waits, nobody to ask, or the plan changed.
pub(super) async fn accept(context: &Context, args: &AcceptArgs) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    let policies = args.policies.wire();
    let mut plan_id = Default::default();
    if !args.yes {
        let request = JoinPlanRequest { policies: policies.clone(), ..JoinPlanRequest::default() };
        let plan: JoinPlanReply = context.sockets.call_patiently(PATIENCE, panel.join_plan(request)).await?;
        context.out.note(&render::plan_text(&plan))?;
        if !confirm::yes("Join so?").await? {
            return Err(Failure::Failed("nothing was changed; the join still waits".to_owned()));
        }
        plan_id = plan.plan_id;
    }
    let request = AcceptJoinRequest { policies, plan_id };
    let done = context.sockets.call_patiently(PATIENCE, panel.accept_join(request)).await?;
    let text = format!("joined\n{}", render::tallies_text(&done.tallies));
    context.out.answer(&text, &json!({ "tallies": render::tallies_json(&done.tallies) }))?;
    Ok(Exit::Ok)
}

/// Gives the join up.
///
/// # Errors
/// No join waits.
pub(super) async fn cancel(context: &Context) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    let left = context.sockets.call_patiently(PATIENCE, panel.cancel_join(CancelJoinRequest {})).await?;
    let slot = if left.slot_freed {
        "the server has freed its slot"
    } else {
        "the server was not reached: release this device there to free its slot"
    };
    let text = format!("the join is given up; this device has its own items as before; {slot}");
    context.out.answer(&text, &left_json(&left))?;
    Ok(Exit::Ok)
}

/// Takes the join back.
///
/// # Errors
/// Nothing is kept of a join, or nobody to ask.
pub(super) async fn undo(context: &Context, args: &UndoArgs) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    let preview = panel.undo_join(UndoJoinRequest { preview: true });
    let preview = context.sockets.call_patiently(PATIENCE, preview).await?;
    if args.dry_run {
        context.out.answer(&render::undo_text(&preview, false), &render::undo_json(&preview, false))?;
        return Ok(Exit::Ok);
    }
    if !args.yes {
        context.out.note(&render::undo_text(&preview, false))?;
        if !confirm::yes("Take the join back?").await? {
            return Err(Failure::Failed("nothing was taken back".to_owned()));
        }
    }
    let done = panel.undo_join(UndoJoinRequest { preview: false });
    let done = context.sockets.call_patiently(PATIENCE, done).await?;
    context.out.answer(&render::undo_text(&done, true), &render::undo_json(&done, true))?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_may_be_for_all_kinds_or_for_one() {
        let args = PolicyArgs {
            policies: vec![policy("server-wins").unwrap(), policy("address.personal=merge").unwrap()],
        };
        let wire = args.wire().unwrap();
        assert_eq!(wire.others(), JoinPolicy::ServerWins);
        assert_eq!(wire.kinds["address.personal"], i32::from(JoinPolicy::Merge));
        assert!(policy("mine").is_err());
    }
}
