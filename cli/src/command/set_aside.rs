//! `mfpsync set-aside`: edits of this device that did not win, and what to do with them.

use clap::{Args, Subcommand};
use mfpsync_proto::panel::SetAsideRequest;
use mfpsync_proto::records::{SetAsideChoice, SetAsideDone};
use serde_json::{Value, json};

use super::{Context, now_unix_millis};
use crate::exit::{Exit, Failure};
use crate::output::printable;
use crate::render::set_aside;
use crate::render::units::count;

/// List, offer again or drop edits of this device that were refused or lost a conflict
#[derive(Debug, Args)]
pub(crate) struct SetAsideArgs {
    #[command(subcommand)]
    command: Option<SetAsideCommand>,
}

/// What to do with them.
#[derive(Debug, Subcommand)]
enum SetAsideCommand {
    List(ListArgs),
    Retry(RetryArgs),
    Drop(DropArgs),
}

/// List edits of this device that the server refused or that lost a conflict
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync set-aside list
  mfpsync set-aside list --json | jq '.edits | length'")]
struct ListArgs {}

/// Offer them to the group again, as edits of what stands now
///
/// What lost a conflict now wins against the value that stands. What was refused is judged anew: what
/// is still over a limit is refused again and comes back to the list.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync set-aside retry 7
  mfpsync set-aside retry --all")]
struct RetryArgs {
    #[command(flatten)]
    which: Which,
}

/// Forget them; what stands in the group goes on to stand
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync set-aside drop 7
  mfpsync set-aside drop --all")]
struct DropArgs {
    #[command(flatten)]
    which: Which,
}

/// One operation, or all.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The operation's number, as the list shows it
    operation: Option<u64>,
    /// All that are set aside
    #[arg(long)]
    all: bool,
}

/// Lists what was set aside, offers it again or drops it.
///
/// # Errors
/// An unreachable daemon, or no such operation.
pub(crate) async fn run(context: &Context, args: SetAsideArgs) -> Result<Exit, Failure> {
    match args.command.unwrap_or(SetAsideCommand::List(ListArgs {})) {
        SetAsideCommand::List(ListArgs {}) => list(context).await,
        SetAsideCommand::Retry(args) => {
            let choice = SetAsideChoice { operation: args.which.operation };
            let mut records = context.sockets.records().await?;
            let done = context.sockets.call(records.retry_set_aside(choice)).await?;
            answer(context, &done, "offered again")
        }
        SetAsideCommand::Drop(args) => {
            let choice = SetAsideChoice { operation: args.which.operation };
            let mut records = context.sockets.records().await?;
            let done = context.sockets.call(records.drop_set_aside(choice)).await?;
            answer(context, &done, "dropped")
        }
    }
}

async fn list(context: &Context) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    let reply = context.sockets.call(panel.set_aside(SetAsideRequest {})).await?;
    context.out.answer(&set_aside::text(&reply, now_unix_millis()), &set_aside::json(&reply))?;
    Ok(Exit::Ok)
}

/// Says what was done; entries that stay make the command end with 1.
fn answer(context: &Context, done: &SetAsideDone, what: &str) -> Result<Exit, Failure> {
    let mut lines = vec![format!("{} {what}", count(done.done, "operation", "operations"))];
    let left = |left: &mfpsync_proto::records::SetAsideLeft| {
        format!("operation {} stays: {}", left.operation, printable(&left.reason))
    };
    lines.extend(done.left.iter().map(left));
    let left: Vec<Value> =
        done.left.iter().map(|left| json!({ "operation": left.operation, "reason": left.reason })).collect();
    context.out.answer(&lines.join("\n"), &json!({ "done": done.done, "left": left }))?;
    Ok(if done.left.is_empty() { Exit::Ok } else { Exit::Refused })
}
