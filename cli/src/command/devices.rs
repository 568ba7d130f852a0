//! `mfpsync devices` and `mfpsync release`: who is in the group, and who no longer is.

use clap::Args;
use mfpsync_proto::panel::{Device, DevicesRequest, ReleaseDeviceRequest};

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

/// End a device's membership, also of a broken one
///
/// Run it at the server. The device's connections are cut at once and its slot is free; it returns
/// only by pairing anew. What it had not sent stays on it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync release 3f0c2f4e5d6a7b8c9d0e1f2a3b4c5d6e
  mfpsync release $(mfpsync devices --json | jq -r '.devices[] | select(.name == \"old-copier\") | .id')")]
pub(crate) struct ReleaseArgs {
    /// The device's id, as `mfpsync devices` shows it
    device: String,
}

/// Releases a device.
///
/// # Errors
/// Not a server, no such device, or an unreachable daemon.
pub(crate) async fn release(context: &Context, args: ReleaseArgs) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    let request = ReleaseDeviceRequest { device_id: args.device };
    let reply = context.sockets.call(panel.release_device(request)).await?;
    let text = format!("{} is released: its connections are cut, its slot is free\n", reply.device_name);
    context.out.answer(&text, &serde_json::json!({ "released": reply.device_name }))?;
    Ok(Exit::Ok)
}

/// The devices that are in the group, as this one knows.
///
/// # Errors
/// An unreachable daemon.
pub(super) async fn in_group(context: &Context) -> Result<Vec<Device>, Failure> {
    let mut panel = context.sockets.panel().await?;
    let mut devices = context.sockets.call(panel.devices(DevicesRequest {})).await?.devices;
    devices.retain(|device| !device.released);
    Ok(devices)
}

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
