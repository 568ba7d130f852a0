//! `mfpsync devices`: who is in the group.

use clap::Args;
use mfpsync_proto::panel::DevicesRequest;

use super::Context;
use crate::exit::{Exit, Failure};
use crate::render::devices;

/// List the group's devices as this device knows them
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync devices
  mfpsync devices --json | jq -r '.devices[] | select(.connected) | .name'")]
pub(crate) struct DevicesArgs {}

/// Lists the devices.
///
/// # Errors
/// An unreachable daemon.
pub(crate) async fn run(context: &Context) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    let reply = context.sockets.call(panel.devices(DevicesRequest {})).await?;
    context.out.answer(&devices::text(&reply), &devices::json(&reply))?;
    Ok(Exit::Ok)
}
