//! `mfpsync pair`: opening the server's door for one more device, or for several, one after the other.

use clap::{Args, Subcommand};
use mfpsync_proto::panel::{ClosePairingRequest, Device, OpenPairingRequest, StatusReply, StatusRequest};
use serde_json::json;

use super::Context;
use super::devices::in_group;
use crate::exit::{Exit, Failure};
use crate::output::printable;
use crate::render::pairing;
use crate::render::units::count;

/// Let other devices join this server's group
#[derive(Debug, Subcommand)]
pub(crate) enum PairCommand {
    Open(OpenArgs),
    Each(EachArgs),
    Close(CloseArgs),
}

/// Open pairing and show the code to type at the joining device
///
/// The code is good for one device, ten minutes and five tries.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync pair open
  mfpsync pair open --json | jq -r .code")]
pub(crate) struct OpenArgs {}

/// Show one code after the other, until each device has joined
///
/// Stays until the named devices are in the group, and without names until Ctrl-C. Go from device to device with
/// it; a code that has expired or was guessed at is followed by the next.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync pair each
  mfpsync pair each printer-2 printer-3
  mfpsync pair each --leave printer-2 printer-3")]
pub(crate) struct EachArgs {
    /// The devices, by the names they have in their configurations
    #[arg(value_name = "DEVICE")]
    devices: Vec<String>,
    /// They are in another group and leave it: show the command for that
    #[arg(long)]
    leave: bool,
}

/// Close pairing before its time
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync pair close")]
pub(crate) struct CloseArgs {}

/// Opens or closes pairing.
///
/// # Errors
/// A refusal, above all on a device that is no server.
pub(crate) async fn run(context: &Context, command: PairCommand) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    match command {
        PairCommand::Open(_) => {
            let reply = context.sockets.call(panel.open_pairing(OpenPairingRequest {})).await?;
            context.out.answer(&pairing::text(&reply, ""), &pairing::json(&reply))?;
        }
        PairCommand::Each(EachArgs { devices, leave }) => return each(context, devices, leave).await,
        PairCommand::Close(_) => {
            context.sockets.call(panel.close_pairing(ClosePairingRequest {})).await?;
            context.out.answer("pairing is closed", &json!({ "pairing": "closed" }))?;
        }
    }
    Ok(Exit::Ok)
}

/// Lets devices join until those named are in the group; without names until Ctrl-C.
///
/// # Errors
/// `Failure::Interrupted` while one is missing; a refusal, above all on a device that is no server.
pub(super) async fn each(context: &Context, names: Vec<String>, leave: bool) -> Result<Exit, Failure> {
    let options = if leave { " --leave" } else { "" };
    let endless = names.is_empty();
    let mut present = in_group(context).await?;
    let mut missing = names;
    missing.retain(|name| !present.iter().any(|device| device.name == *name));
    while endless || !missing.is_empty() {
        let mut panel = context.sockets.panel().await?;
        let opened = context.sockets.call(panel.open_pairing(OpenPairingRequest {})).await?;
        let mut shown = pairing::json(&opened);
        shown["missing"] = json!(missing);
        context.out.event(&pairing::text(&opened, options), &shown)?;
        tokio::select! {
            closed = closed(context) => closed?,
            _ = tokio::signal::ctrl_c() => {
                context.sockets.call(panel.close_pairing(ClosePairingRequest {})).await?;
                return interrupted(context, &missing, options);
            }
        }
        let now = in_group(context).await?;
        for device in now.iter().filter(|device| !present.iter().any(|known| known.id == device.id)) {
            missing.retain(|name| *name != device.name);
            tell(context, device, &missing)?;
        }
        present = now;
    }
    Ok(Exit::Ok)
}

fn tell(context: &Context, joined: &Device, missing: &[String]) -> Result<(), Failure> {
    let text = match missing {
        [] => format!("{} has joined\n", printable(&joined.name)),
        names => format!("{} has joined; still missing: {}\n", printable(&joined.name), listed(names)),
    };
    context.out.event(&text, &json!({ "joined": joined.name, "device_id": joined.id, "missing": missing }))
}

fn interrupted(context: &Context, missing: &[String], options: &str) -> Result<Exit, Failure> {
    if missing.is_empty() {
        return Ok(Exit::Ok);
    }
    let names: Vec<String> = missing.iter().map(|name| format!("'{}'", printable(name))).collect();
    context.out.note(&format!(
        "\npairing is closed; {} missing: go on with `mfpsync pair each{options} {}`",
        count(missing.len() as u64, "device is", "devices are"),
        names.join(" ")
    ))?;
    Err(Failure::Interrupted)
}

fn listed(names: &[String]) -> String {
    names.iter().map(|name| printable(name)).collect::<Vec<_>>().join(", ")
}

/// Waits until pairing is closed: a device has joined, or the code is good no more.
async fn closed(context: &Context) -> Result<(), Failure> {
    let mut statuses = context.sockets.panel().await?.watch_status(StatusRequest {}).await?.into_inner();
    while let Some(StatusReply { server, .. }) = statuses.message().await? {
        let server = server.ok_or_else(|| Failure::Failed("this device serves no more".to_owned()))?;
        if server.pairing_seconds_left.is_none() {
            return Ok(());
        }
    }
    Err(Failure::ConnectionLost)
}
