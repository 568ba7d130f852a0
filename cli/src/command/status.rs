//! `mfpsync status`: what is safe, what waits, what is wrong, what next.

use clap::Args;
use mfpsync_proto::panel::{StatusReply, StatusRequest};

use super::{Context, now_unix_millis};
use crate::exit::{Exit, Failure};
use crate::render::status;

/// Show what is safe, what waits, what is wrong and what to do next
///
/// Exits with 6 while a fault needs a person, so that a monitor can call it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync status
  mfpsync status --watch
  mfpsync status --json | jq .client.waiting")]
pub(crate) struct StatusArgs {
    /// Show it again whenever it changes, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

/// Shows the status once, or for as long as it is watched.
///
/// # Errors
/// An unreachable daemon.
pub(crate) async fn run(context: &Context, args: &StatusArgs) -> Result<Exit, Failure> {
    if args.watch {
        return watch(context).await;
    }
    let mut panel = context.sockets.panel().await?;
    let reply = context.sockets.call(panel.status(StatusRequest {})).await?;
    context.out.answer(&status::text(&reply, now_unix_millis()), &status::json(&reply))?;
    Ok(exit_of(&reply))
}

async fn watch(context: &Context) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    let mut statuses = panel.watch_status(StatusRequest {}).await?.into_inner();
    let mut exit = Exit::Ok;
    loop {
        let reply = tokio::select! {
            reply = statuses.message() => reply?.ok_or(Failure::ConnectionLost)?,
            _ = tokio::signal::ctrl_c() => return Ok(exit),
        };
        let text = status::text(&reply, now_unix_millis());
        context.out.event(&format!("{text}\n\n"), &status::json(&reply))?;
        exit = exit_of(&reply);
    }
}

/// A fault is the only thing that calls for a person.
pub(crate) fn exit_of(reply: &StatusReply) -> Exit {
    if reply.faults.is_empty() { Exit::Ok } else { Exit::NeedsPerson }
}
