//! `mfpsync pair`: opening the server's door for one more device.

use clap::{Args, Subcommand};
use mfpsync_proto::panel::{ClosePairingRequest, OpenPairingRequest};
use serde_json::json;

use super::Context;
use crate::exit::{Exit, Failure};
use crate::render::pairing;

/// Let another device join this server's group
#[derive(Debug, Subcommand)]
pub(crate) enum PairCommand {
    Open(OpenArgs),
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
pub(crate) async fn run(context: &Context, command: &PairCommand) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    match command {
        PairCommand::Open(_) => {
            let reply = context.sockets.call(panel.open_pairing(OpenPairingRequest {})).await?;
            context.out.answer(&pairing::text(&reply), &pairing::json(&reply))?;
        }
        PairCommand::Close(_) => {
            context.sockets.call(panel.close_pairing(ClosePairingRequest {})).await?;
            context.out.answer("pairing is closed", &json!({ "pairing": "closed" }))?;
        }
    }
    Ok(Exit::Ok)
}
