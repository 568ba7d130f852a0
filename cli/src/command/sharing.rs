//! `mfpsync sharing`: which kinds all devices share, and switching that for the whole group.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use indicatif::ProgressBar;
use mfpsync_proto::records::{SharingOrder, SharingRequest, SharingState, SharingValues};
use serde_json::json;

use super::Context;
use crate::confirm;
use crate::exit::{Exit, Failure};
use crate::render::sharing;

/// A kind may have items by the hundred thousand, and each device gets its own.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two turns of the spinner.
const TICK: Duration = Duration::from_millis(100);

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
/// its own values again, or the group the one it had.
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
    let elapsed = elapsed(context);
    let done = context.sockets.call_patiently(PATIENCE, records.set_sharing(order)).await;
    elapsed.finish_and_clear();
    let done = done?;
    let mut json = sharing::plan_json(&done);
    json["switched"] = json!(true);
    context.out.answer(&sharing::plan_text(&done, true), &json)?;
    Ok(Exit::Ok)
}

/// A switch of many items takes a while and cannot say how far it is.
fn elapsed(context: &Context) -> ProgressBar {
    if context.out.json {
        return ProgressBar::hidden();
    }
    // Hides itself when standard error is no terminal.
    let spinner = ProgressBar::new_spinner().with_message("switching");
    spinner.enable_steady_tick(TICK);
    spinner
}
