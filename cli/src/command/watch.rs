//! `mfpsync watch`: changes as they become visible on this device.

use clap::Args;
use mfpsync_proto::local::WatchRequest;
use mfpsync_proto::local::watch_event::Event;

use super::Context;
use crate::exit::{Exit, Failure};
use crate::render::items;

/// Print a line for every change until Ctrl-C
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync watch
  mfpsync watch --scope shared --scope user/alice --kind address.shared
  mfpsync watch --json --count 1")]
pub(crate) struct WatchArgs {
    /// Only this scope; may be repeated
    #[arg(long, value_name = "SCOPE")]
    scope: Vec<String>,
    /// Only this kind; may be repeated
    #[arg(long, value_name = "KIND")]
    kind: Vec<String>,
    /// Stop after N events; the one that says that watching began is not counted
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// Watches until Ctrl-C or until enough was seen.
///
/// # Errors
/// A lost connection.
pub(crate) async fn run(context: &Context, args: WatchArgs) -> Result<Exit, Failure> {
    let mut local = context.sockets.local().await?;
    let request = WatchRequest { scopes: args.scope, kinds: args.kind };
    let mut events = local.watch(request).await?.into_inner();
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let event = tokio::select! {
            event = events.message() => event?.ok_or(Failure::ConnectionLost)?,
            _ = tokio::signal::ctrl_c() => break,
        };
        let (text, json) = items::event(&event);
        context.out.event(&text, &json)?;
        if !matches!(event.event, Some(Event::Started(_))) {
            left -= 1;
        }
    }
    Ok(Exit::Ok)
}
