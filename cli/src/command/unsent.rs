//! `mfpsync unsent`: edits of this device that the group never got, listed or written to a file.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use mfpsync_proto::records::{UnsentItem, UnsentRequest};
use serde_json::json;

use super::{Context, address_book};
use crate::exit::{Exit, Failure};
use crate::render::units::count;
use crate::render::unsent as render;
use crate::sockets::within;

/// Show or save edits of this device that never reached its group
///
/// In a group: edits that wait for the server, also for one that refuses this device. After leaving:
/// what differs from what the group had. They are offered when the device joins the group again, once
/// somebody has accepted the plan (`mfpsync join plan --unsent`).
#[derive(Debug, Args)]
pub(crate) struct UnsentArgs {
    #[command(subcommand)]
    command: Option<UnsentCommand>,
}

/// What to do with them.
#[derive(Debug, Subcommand)]
enum UnsentCommand {
    List(ListArgs),
    Export(ExportArgs),
}

/// List the items, and which of their fields were edited
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync unsent list
  mfpsync unsent list --json | jq '.items | length'")]
struct ListArgs {}

/// Write the items with their values to a JSON file
///
/// The file is the owner's alone. Sealed secrets are not in it: they are named by the id of their key.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync unsent export unsent.json
  mfpsync unsent export - | jq .items")]
struct ExportArgs {
    /// The file to write; `-` is standard output
    file: PathBuf,
}

/// Lists or exports.
///
/// # Errors
/// An unreachable daemon, or a file that cannot be written.
pub(crate) async fn run(context: &Context, args: UnsentArgs) -> Result<Exit, Failure> {
    match args.command.unwrap_or(UnsentCommand::List(ListArgs {})) {
        UnsentCommand::List(ListArgs {}) => {
            let items = fetch(context, false).await?;
            context.out.answer(&render::text(&items), &render::json(&items))?;
        }
        UnsentCommand::Export(args) => export(context, &args.file).await?,
    }
    Ok(Exit::Ok)
}

/// All of them.
///
/// # Errors
/// An unreachable daemon.
pub(super) async fn fetch(context: &Context, with_values: bool) -> Result<Vec<UnsentItem>, Failure> {
    let all = within(context.sockets.timeout, "the whole list", async {
        let mut records = context.sockets.records().await?;
        let mut batches = records.unsent(UnsentRequest { with_values }).await?.into_inner();
        let mut items = Vec::new();
        while let Some(batch) = batches.message().await? {
            items.extend(batch.items);
        }
        Ok(items)
    });
    all.await
}

async fn export(context: &Context, file: &Path) -> Result<(), Failure> {
    let items = fetch(context, true).await?;
    let bytes = format!("{:#}\n", render::document(&items)).into_bytes();
    if file == Path::new("-") {
        return context.out.bytes(&bytes);
    }
    address_book::write(file, &bytes)?;
    let written = count(items.len() as u64, "item", "items");
    let text = format!("{written} written to {}", file.display());
    context.out.answer(&text, &json!({ "items": items.len() }))
}
