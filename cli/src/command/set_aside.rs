//! `mfpsync set-aside`: edits of this device that did not win.

use clap::Args;
use mfpsync_proto::panel::SetAsideRequest;

use super::{Context, now_unix_millis};
use crate::exit::{Exit, Failure};
use crate::render::set_aside;

/// List edits of this device that the server refused or that lost a conflict
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync set-aside
  mfpsync set-aside --json | jq '.edits | length'")]
pub(crate) struct SetAsideArgs {}

/// Lists what was set aside.
///
/// # Errors
/// An unreachable daemon.
pub(crate) async fn run(context: &Context) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    let reply = context.sockets.call(panel.set_aside(SetAsideRequest {})).await?;
    context.out.answer(&set_aside::text(&reply, now_unix_millis()), &set_aside::json(&reply))?;
    Ok(Exit::Ok)
}
