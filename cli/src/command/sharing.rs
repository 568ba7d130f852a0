//! `mfpsync sharing`: which kinds all devices share, and switching that for the whole group.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use mfpsync_proto::records::{
    SharingOrder, SharingPlan, SharingProgress, SharingRequest, SharingState, SharingValues,
};
use serde_json::json;
use tonic::Response;

use super::Context;
use crate::confirm;
use crate::exit::{Exit, Failure};
use crate::render::sharing;

/// A plan looks at every item of a kind, which may have them by the hundred thousand; and so long a step
/// may wait for a replica.
const PATIENCE: Duration = Duration::from_secs(300);

/// Show which kinds all devices share and of which each has its own; switch it
#[derive(Debug, Subcommand)]
pub(crate) enum SharingCommand {
    List(ListArgs),
    Preview(PreviewArgs),
    Set(SetArgs),
}

/// List the kinds of the group, how they are shared, and which devices have items of their own
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync sharing list
  mfpsync sharing list --json | jq -r '.kinds[] | select(.sharing == \"device-specific\").kind'")]
pub(crate) struct ListArgs {}

/// Show what a switch would do; nothing is changed
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync sharing preview ui.language device-specific
  mfpsync sharing preview ui.language shared --from copier-3
  mfpsync sharing preview ui.language shared --newest --json")]
pub(crate) struct PreviewArgs {
    #[command(flatten)]
    order: OrderArgs,
}

/// Switch a kind for the whole group, while everything runs
///
/// Run it at the group's server. A kind that becomes device-specific stays as it is on every device, and
/// each goes its own way from then on. When it becomes shared again, you say which value becomes the
/// group's; the others are kept in the history. With --before a switch is taken back: every device gets
/// its own values again, or the group the one it had. Once begun a switch ends, also when this command is
/// interrupted or the server restarts: the same order again shows how far it is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync sharing set ui.language device-specific
  mfpsync sharing set ui.language shared --from copier-3
  mfpsync sharing set job.recall shared --newest --yes
  mfpsync sharing set ui.language device-specific --before")]
pub(crate) struct SetArgs {
    #[command(flatten)]
    order: OrderArgs,
    /// Switch without asking
    #[arg(long)]
    yes: bool,
    /// Who did it, as the history shall show it
    #[arg(long, default_value = "mfpsync")]
    actor: String,
}

#[derive(Debug, Args)]
struct OrderArgs {
    /// What: ui.language, address.personal, or any other kind
    kind: String,
    /// How it shall be
    #[arg(value_enum)]
    sharing: To,
    #[command(flatten)]
    values: ValuesArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum To {
    Shared,
    DeviceSpecific,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
struct ValuesArgs {
    /// Becoming shared: what this device has (its id or name) becomes the group's
    #[arg(long, value_name = "DEVICE")]
    from: Option<String>,
    /// Becoming shared: of each item the value that was accepted last
    #[arg(long)]
    newest: bool,
    /// Take the last switch back: the values from before it
    #[arg(long)]
    before: bool,
}

impl OrderArgs {
    fn order(&self, actor: &str) -> SharingOrder {
        let (state, plain) = match self.sharing {
            To::Shared => (SharingState::Shared, SharingValues::Unspecified),
            To::DeviceSpecific => (SharingState::DeviceSpecific, SharingValues::Seen),
        };
        let values = match &self.values {
            ValuesArgs { from: Some(_), .. } => SharingValues::Device,
            ValuesArgs { newest: true, .. } => SharingValues::Newest,
            ValuesArgs { before: true, .. } => SharingValues::Before,
            ValuesArgs { .. } => plain,
        };
        SharingOrder {
            kind: self.kind.clone(),
            state: state.into(),
            values: values.into(),
            device: self.values.from.clone().unwrap_or_default(),
            plan_id: Default::default(),
            actor: actor.to_owned(),
        }
    }
}

/// Runs one of the sharing commands.
///
/// # Errors
/// Not the server, nobody to ask, or the daemon's refusal.
pub(crate) async fn run(context: &Context, command: SharingCommand) -> Result<Exit, Failure> {
    match command {
        SharingCommand::List(ListArgs {}) => list(context).await,
        SharingCommand::Preview(args) => preview(context, &args).await,
        SharingCommand::Set(args) => set(context, &args).await,
    }
}

async fn list(context: &Context) -> Result<Exit, Failure> {
    let mut records = context.sockets.records().await?;
    let reply = context.sockets.call_patiently(PATIENCE, records.sharing(SharingRequest {})).await?;
    context.out.answer(&sharing::text(&reply), &sharing::json(&reply))?;
    Ok(Exit::Ok)
}

async fn preview(context: &Context, args: &PreviewArgs) -> Result<Exit, Failure> {
    let mut records = context.sockets.records().await?;
    let order = args.order.order("");
    let plan = context.sockets.call_patiently(PATIENCE, records.preview_sharing(order)).await?;
    let mut json = sharing::plan_json(&plan);
    json["switched"] = json!(false);
    context.out.answer(&sharing::plan_text(&plan, false), &json)?;
    Ok(Exit::Ok)
}

async fn set(context: &Context, args: &SetArgs) -> Result<Exit, Failure> {
    let mut records = context.sockets.records().await?;
    let mut order = args.order.order(&args.actor);
    if !args.yes {
        let plan = context.sockets.call_patiently(PATIENCE, records.preview_sharing(order.clone())).await?;
        context.out.note(&sharing::plan_text(&plan, false))?;
        if !confirm::yes("Switch this on all devices?").await? {
            return Err(Failure::Failed("nothing was switched".to_owned()));
        }
        // What was shown is what is done, or nothing.
        order.plan_id = plan.plan_id;
    }
    let sockets = &context.sockets;
    let mut answers = sockets.call_patiently(PATIENCE, records.set_sharing(order)).await?;
    let bar = progress_bar(context);
    let next =
        async || sockets.call_patiently(PATIENCE, async { answers.message().await.map(Response::new) }).await;
    let done = follow(&bar, next).await;
    bar.finish_and_clear();
    let done = done?;
    let mut json = sharing::plan_json(&done);
    json["switched"] = json!(true);
    context.out.answer(&sharing::plan_text(&done, true), &json)?;
    Ok(Exit::Ok)
}

/// Shows how far a switch is until it has ended.
async fn follow(
    bar: &ProgressBar,
    mut next: impl AsyncFnMut() -> Result<Option<SharingProgress>, Failure>,
) -> Result<SharingPlan, Failure> {
    while let Some(SharingProgress { done, items, ended, .. }) = next().await? {
        if let Some(ended) = ended {
            return Ok(ended);
        }
        // What was made meanwhile comes on top.
        bar.set_length(items.max(done));
        bar.set_position(done);
    }
    Err(Failure::ConnectionLost)
}

fn progress_bar(context: &Context) -> ProgressBar {
    if context.out.json {
        return ProgressBar::hidden();
    }
    // Hides itself when standard error is no terminal.
    let bar = ProgressBar::no_length();
    match ProgressStyle::with_template("{bar:40} {pos}/{len} items, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_plain_style_will_do) => bar,
    }
}
