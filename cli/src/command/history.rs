//! `mfpsync history` and `mfpsync undo`: what happened to the group's data, and taking it back.

use clap::Args;
use mfpsync_proto::local::ItemKey;
use mfpsync_proto::records::undo_request::What;
use mfpsync_proto::records::{Change, HistoryRequest, ItemHistoryRequest, UndoItems, UndoReply, UndoRequest};
use serde_json::json;

use super::{Context, now_unix_millis};
use crate::confirm;
use crate::exit::{Exit, Failure};
use crate::render::history;
use crate::since::Since;

/// An undo walks over everything changed since; more than an answer usually takes.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

/// Show what happened to the group's data, newest first
///
/// Run it at the group's server. With SCOPE, KIND and ID the changes of one item are shown with the
/// values before and after; secrets never.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync history --since 2h
  mfpsync history user/alice --limit 20
  mfpsync history --device 3f0c2f4e5d6a7b8c9d0e1f2a3b4c5d6e --json
  mfpsync history shared address.shared a1")]
pub(crate) struct HistoryArgs {
    #[command(flatten)]
    of: OfArgs,
    /// From a revision (212 or 1:212) or a time ago (45m, 2h, 3d) on
    #[arg(long, value_name = "WHEN")]
    since: Option<Since>,
    /// At most so many lines
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

/// Which items.
#[derive(Debug, Clone, Args)]
struct OfArgs {
    /// Whose: user/ID, usergroup/ID, shared or device/ID
    scope: Option<String>,
    /// Only this kind
    #[arg(requires = "scope")]
    kind: Option<String>,
    /// Only this item
    #[arg(requires = "kind")]
    id: Option<String>,
    /// The device's id of an item that each device holds for itself
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true, requires = "id")]
    item_device: String,
    /// Only what this device wrote (its id, as `mfpsync devices` shows it)
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true, conflicts_with = "id")]
    device: String,
}

impl OfArgs {
    fn item(&self) -> Option<ItemKey> {
        Some(ItemKey {
            scope: self.scope.clone()?,
            kind: self.kind.clone()?,
            id: self.id.clone()?,
            device: self.item_device.clone(),
        })
    }
}

/// Take changes back
///
/// Run it at the group's server. Shows first what would happen, and asks. Fields go back to how they
/// were before WHEN; what others wrote later stands when --device names whose changes are taken back.
/// An undo is a change like any other: it is in the history and can itself be undone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync undo shared address.shared a1 --since 212
  mfpsync undo user/alice --since 2h
  mfpsync undo shared address.shared --since 1d --dry-run
  mfpsync undo --device 3f0c2f4e5d6a7b8c9d0e1f2a3b4c5d6e --since 30m --yes")]
pub(crate) struct UndoArgs {
    #[command(flatten)]
    of: OfArgs,
    /// Back to how it was before this revision (212 or 1:212), or so long ago (45m, 2h, 3d)
    #[arg(long, value_name = "WHEN")]
    since: Since,
    /// Only show what would happen
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// Who did it, as the history shall show it
    #[arg(long, default_value = "mfpsync")]
    actor: String,
}

/// Shows the history.
///
/// # Errors
/// Not the server, or an unreachable daemon.
pub(crate) async fn history(context: &Context, args: HistoryArgs) -> Result<Exit, Failure> {
    let mut records = context.sockets.records().await?;
    if let Some(key) = args.of.item() {
        let request = ItemHistoryRequest { key: Some(key), limit: args.limit };
        let reply = context.sockets.call(records.item_history(request)).await?;
        let now = now_unix_millis();
        context.out.answer(&history::item_text(&reply, now), &history::item_json(&reply))?;
        return Ok(Exit::Ok);
    }
    let (sequence, millis) = args.since.map_or((None, None), |since| since.parts(now_unix_millis()));
    let mut request = HistoryRequest {
        scope: args.of.scope.unwrap_or_default(),
        kind: args.of.kind.unwrap_or_default(),
        device_id: args.of.device,
        since_sequence: sequence.unwrap_or_default(),
        since_unix_millis: millis.unwrap_or_default(),
        ..HistoryRequest::default()
    };
    let wanted = args.limit as usize;
    let mut changes: Vec<Change> = Vec::new();
    let more = loop {
        request.limit = u32::try_from(wanted - changes.len()).unwrap_or(u32::MAX);
        let reply = context.sockets.call(records.history(request.clone())).await?;
        changes.extend(reply.changes);
        request.place = reply.place;
        if request.place.is_empty() || changes.len() >= wanted {
            break !request.place.is_empty();
        }
    };
    let text = history::text(&changes, more, now_unix_millis());
    context.out.answer(&text, &history::json(&changes, more))?;
    Ok(Exit::Ok)
}

/// Takes changes back, after showing what that means.
///
/// # Errors
/// Not the server, nobody to ask, or an unreachable daemon.
pub(crate) async fn undo(context: &Context, args: UndoArgs) -> Result<Exit, Failure> {
    let mut records = context.sockets.records().await?;
    let (since_sequence, since_unix_millis) = args.since.parts(now_unix_millis());
    let what = match args.of.item() {
        Some(key) => What::Item(key),
        None => What::Items(UndoItems {
            scope: args.of.scope.clone().unwrap_or_default(),
            kind: args.of.kind.clone().unwrap_or_default(),
        }),
    };
    let mut request = UndoRequest {
        what: Some(what),
        since_sequence,
        since_unix_millis,
        device_id: args.of.device.clone(),
        through_sequence: None,
        actor: args.actor.clone(),
    };
    let preview = context.sockets.call_patiently(PATIENCE, records.preview_undo(request.clone())).await?;
    if args.dry_run || preview.items == 0 {
        let mut json = history::undo_json(&preview);
        json["undone"] = json!(false);
        context.out.answer(&history::undo_text(&preview, false), &json)?;
        return Ok(Exit::Ok);
    }
    if !args.yes && !agreed(context, &preview).await? {
        return Err(Failure::Failed("nothing was taken back".to_owned()));
    }
    // What was shown is what is done, whatever came in between.
    request.since_sequence = Some(preview.from_sequence);
    request.since_unix_millis = None;
    request.through_sequence = Some(preview.through_sequence);
    let done = context.sockets.call_patiently(PATIENCE, records.undo(request)).await?;
    let mut json = history::undo_json(&done);
    json["undone"] = json!(true);
    context.out.answer(&history::undo_text(&done, true), &json)?;
    Ok(Exit::Ok)
}

async fn agreed(context: &Context, preview: &UndoReply) -> Result<bool, Failure> {
    context.out.note(&history::undo_text(preview, false))?;
    confirm::yes("Take this back on all devices?").await
}
