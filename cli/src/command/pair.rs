//! `mfpsync pair`: opening the server's door for one more device, or for several, one after the other.

use std::time::Duration;

use clap::{Args, Subcommand};
use mfpsync_proto::panel::{ClosePairingRequest, Device, OpenPairingRequest, StatusRequest};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Context;
use super::devices::in_group;
use crate::exit::{Exit, Failure};
use crate::output::printable;
use crate::render::pairing;
use crate::render::units::count;

/// How long the server may take with a device that has proven the code.
const ADMITTED: Duration = Duration::from_secs(5);

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
        PairCommand::Each(EachArgs { devices, leave }) => {
            let missing = devices.into_iter().map(|name| Awaited { name, id: None });
            return each(context, missing.collect(), leave).await;
        }
        PairCommand::Close(_) => {
            context.sockets.call(panel.close_pairing(ClosePairingRequest {})).await?;
            context.out.answer("pairing is closed", &json!({ "pairing": "closed" }))?;
        }
    }
    Ok(Exit::Ok)
}

/// A device that is to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Awaited {
    name: String,
    /// A device keeps it from group to group; none if only its name is known.
    id: Option<String>,
}

impl From<Device> for Awaited {
    fn from(device: Device) -> Self {
        Self { name: device.name, id: Some(device.id) }
    }
}

/// Strikes one that has joined: that one, or else one of its name.
fn strike(missing: &mut Vec<Awaited>, joined: &Device) {
    let place = missing.iter().position(|awaited| awaited.id.as_ref() == Some(&joined.id));
    let place = place.or_else(|| missing.iter().position(|awaited| awaited.name == joined.name));
    if let Some(place) = place {
        missing.remove(place);
    }
}

/// Lets devices join until those that are missing are in the group; without any until Ctrl-C.
///
/// # Errors
/// `Failure::Interrupted` while one is missing; a refusal, above all on a device that is no server.
pub(super) async fn each(context: &Context, mut missing: Vec<Awaited>, leave: bool) -> Result<Exit, Failure> {
    let options = if leave { " --leave" } else { "" };
    let ended = one_by_one(context, &mut missing, options).await;
    if ended.is_err() && !missing.is_empty() {
        let names: Vec<String> =
            missing.iter().map(|awaited| format!("'{}'", printable(&awaited.name))).collect();
        context.out.note(&format!(
            "\n{} missing: go on with `mfpsync pair each{options} {}`",
            count(missing.len() as u64, "device is", "devices are"),
            names.join(" ")
        ))?;
    }
    ended
}

async fn one_by_one(context: &Context, missing: &mut Vec<Awaited>, options: &str) -> Result<Exit, Failure> {
    let endless = missing.is_empty();
    let mut present = in_group(context).await?;
    for device in present.iter().filter(|device| !device.this_device) {
        strike(missing, device);
    }
    while endless || !missing.is_empty() {
        let mut panel = context.sockets.panel().await?;
        let opened = context.sockets.call(panel.open_pairing(OpenPairingRequest {})).await?;
        let mut shown = pairing::json(&opened);
        shown["missing"] = names(missing);
        context.out.event(&pairing::text(&opened, options), &shown)?;
        let interrupted = tokio::select! {
            ended = joined_or_closed(context, present.len()) => ended.map(|()| false)?,
            _ = tokio::signal::ctrl_c() => true,
        };
        let now = in_group(context).await?;
        for device in now.iter().filter(|device| !present.iter().any(|known| known.id == device.id)) {
            strike(missing, device);
            tell(context, device, missing)?;
        }
        present = now;
        if interrupted {
            context.sockets.call(panel.close_pairing(ClosePairingRequest {})).await?;
            return if missing.is_empty() { Ok(Exit::Ok) } else { Err(Failure::Interrupted) };
        }
    }
    Ok(Exit::Ok)
}

fn names(missing: &[Awaited]) -> Value {
    missing.iter().map(|awaited| &*awaited.name).collect()
}

fn tell(context: &Context, joined: &Device, missing: &[Awaited]) -> Result<(), Failure> {
    let name = printable(&joined.name);
    let text = if missing.is_empty() {
        format!("{name} has joined\n")
    } else {
        let names: Vec<_> = missing.iter().map(|awaited| printable(&awaited.name)).collect();
        format!("{name} has joined; still missing: {}\n", names.join(", "))
    };
    let json = json!({ "joined": joined.name, "device_id": joined.id, "missing": names(missing) });
    context.out.event(&text, &json)
}

/// Waits until there are more devices than before, or the code is good no more.
async fn joined_or_closed(context: &Context, before: usize) -> Result<(), Failure> {
    let mut statuses = context.sockets.panel().await?.watch_status(StatusRequest {}).await?.into_inner();
    let mut closed = None;
    loop {
        let next = statuses.message();
        let status = match closed {
            None => next.await?,
            // A code is used up a moment before its device is in the group.
            Some(at) => match tokio::time::timeout_at(at + ADMITTED, next).await {
                Ok(status) => status?,
                Err(_) => return Ok(()),
            },
        };
        let server = status.ok_or(Failure::ConnectionLost)?.server;
        let server = server.ok_or_else(|| Failure::Failed("this device serves no more".to_owned()))?;
        if server.devices as usize > before {
            return Ok(());
        }
        if server.pairing_seconds_left.is_none() {
            closed.get_or_insert_with(Instant::now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_joins_is_struck_once_by_id_before_name() {
        let device =
            |id: &str, name: &str| Device { id: id.to_owned(), name: name.to_owned(), ..Device::default() };
        let named = |name: &str| Awaited { name: name.to_owned(), id: None };
        let (first, second) = (Awaited::from(device("1", "copier")), Awaited::from(device("2", "copier")));
        let mut missing = vec![first.clone(), second, named("printer"), named("printer")];
        strike(&mut missing, &device("2", "copier"));
        assert_eq!(missing, [first.clone(), named("printer"), named("printer")]);
        strike(&mut missing, &device("3", "printer"));
        assert_eq!(missing, [first, named("printer")]);
        // It has a new disk, and so a new id.
        strike(&mut missing, &device("4", "copier"));
        strike(&mut missing, &device("5", "scanner"));
        assert_eq!(missing, [named("printer")]);
    }
}
