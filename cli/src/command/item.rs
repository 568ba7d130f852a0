//! `mfpsync item`: single items by their key, for integrators and scripts.

use clap::{Args, Subcommand};
use mfpsync_proto::local::edit::Edit as EditKind;
use mfpsync_proto::local::{
    Delete, Edit, Field, GetRequest, Item, ItemKey, ListRequest, Patch, Put, WriteReply, WriteRequest,
};
use serde_json::{Value, json};

use super::Context;
use crate::exit::{Exit, Failure};
use crate::output::printable;
use crate::render::items;
use crate::sockets::{Sockets, within};
use crate::value;

/// Read and write single items
///
/// An item is named by SCOPE (user/ID, usergroup/ID, shared, device/ID), KIND and ID. Fields are given
/// as NAME=TEXT or NAME:=JSON: true and false are flags, whole numbers integers, ["a","b"] a set of
/// texts, {"bytes":BASE64} bytes.
#[derive(Debug, Subcommand)]
pub(crate) enum ItemCommand {
    Get(GetArgs),
    List(ListArgs),
    Put(PutArgs),
    Patch(PatchArgs),
    Delete(DeleteArgs),
}

/// What names an item.
#[derive(Debug, Clone, Args)]
pub(crate) struct KeyArgs {
    /// Whose it is: user/ID, usergroup/ID, shared or device/ID
    scope: String,
    /// What it is: address.personal, ui.language, or any other kind
    kind: String,
    /// Its id within scope and kind
    id: String,
    /// Another device, by its id (32 hex digits): only to look at what it has for itself
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    device: String,
}

impl From<KeyArgs> for ItemKey {
    fn from(key: KeyArgs) -> Self {
        Self { scope: key.scope, kind: key.kind, device: key.device, id: key.id }
    }
}

/// Who an edit is recorded under.
#[derive(Debug, Clone, Args)]
pub(crate) struct ActorArgs {
    /// Who did it, as the audit shall show it
    #[arg(long, default_value = "mfpsync")]
    actor: String,
}

/// Show one item
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync item get user/alice ui.language 1
  mfpsync item get shared address.shared 230824d2-15ce-43a1-8b35-10b0b46ee1da --json")]
pub(crate) struct GetArgs {
    #[command(flatten)]
    key: KeyArgs,
}

/// List the items of a scope
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync item list shared
  mfpsync item list user/alice --kind address.personal --json | jq length")]
pub(crate) struct ListArgs {
    /// Whose items: user/ID, usergroup/ID, shared or device/ID
    scope: String,
    /// Only this kind
    #[arg(long, default_value = "", hide_default_value = true)]
    kind: String,
}

/// Write a whole item; fields not named are removed
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync item put user/alice ui.language 1 language=ja
  mfpsync item put shared address.shared s1 class=group name=All 'members:=[\"a1\",\"a2\"]'")]
pub(crate) struct PutArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// NAME=TEXT or NAME:=JSON
    #[arg(value_name = "FIELD", value_parser = value::field)]
    fields: Vec<Field>,
    #[command(flatten)]
    actor: ActorArgs,
}

/// Change some fields of an item and leave the others alone
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync item patch shared address.shared s1 mail=front@example.com
  mfpsync item patch shared address.shared s1 --remove reading --actor alice")]
pub(crate) struct PatchArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// NAME=TEXT or NAME:=JSON
    #[arg(value_name = "FIELD", value_parser = value::field, required_unless_present = "remove")]
    fields: Vec<Field>,
    /// Remove this field; may be repeated
    #[arg(long, value_name = "NAME")]
    remove: Vec<String>,
    #[command(flatten)]
    actor: ActorArgs,
}

/// Delete an item
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync item delete shared address.shared s1")]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    actor: ActorArgs,
}

/// Runs one item command.
///
/// # Errors
/// The daemon's refusal, above all a missing item.
pub(crate) async fn run(context: &Context, command: ItemCommand) -> Result<Exit, Failure> {
    let (edit, actor) = match command {
        ItemCommand::Get(args) => return get(context, args.key.into()).await,
        ItemCommand::List(args) => return show_list(context, &args).await,
        ItemCommand::Put(args) => {
            (EditKind::Put(Put { key: Some(args.key.into()), fields: args.fields }), args.actor.actor)
        }
        ItemCommand::Patch(args) => {
            let patch = Patch { key: Some(args.key.into()), set: args.fields, remove: args.remove };
            (EditKind::Patch(patch), args.actor.actor)
        }
        ItemCommand::Delete(args) => {
            (EditKind::Delete(Delete { key: Some(args.key.into()) }), args.actor.actor)
        }
    };
    let reply = write(&context.sockets, vec![Edit { edit: Some(edit) }], &actor).await?;
    let (text, json) = written(&reply);
    context.out.answer(&text, &json)?;
    Ok(Exit::Ok)
}

async fn get(context: &Context, key: ItemKey) -> Result<Exit, Failure> {
    let mut local = context.sockets.local().await?;
    let reply = context.sockets.call(local.get(GetRequest { key: Some(key) })).await?;
    let item = reply.item.unwrap_or_default();
    let mut json = items::json(&item);
    json["freshness"] = items::freshness_json(reply.freshness.as_ref());
    let text = format!("{}\n({})", items::text(&item), items::freshness_text(reply.freshness.as_ref()));
    context.out.answer(&text, &json)?;
    Ok(Exit::Ok)
}

async fn show_list(context: &Context, args: &ListArgs) -> Result<Exit, Failure> {
    let found = list(&context.sockets, &args.scope, &args.kind).await?;
    let json: Vec<Value> = found.iter().map(items::json).collect();
    context.out.answer(&items::by_kind(&found), &json!(json))?;
    Ok(Exit::Ok)
}

/// All items of a scope, of one kind or (empty) all.
///
/// # Errors
/// The daemon's refusal, or a stream that does not end in time.
pub(crate) async fn list(sockets: &Sockets, scope: &str, kind: &str) -> Result<Vec<Item>, Failure> {
    within(sockets.timeout, "the whole list", async {
        let request = ListRequest { scope: scope.to_owned(), kind: kind.to_owned() };
        let mut batches = sockets.local().await?.list(request).await?.into_inner();
        let mut found = Vec::new();
        while let Some(batch) = batches.message().await? {
            found.extend(batch.items);
        }
        Ok(found)
    })
    .await
}

/// Writes edits that belong together: all or none.
///
/// # Errors
/// The daemon's refusal; nothing is stored then.
pub(crate) async fn write(sockets: &Sockets, edits: Vec<Edit>, actor: &str) -> Result<WriteReply, Failure> {
    let mut local = sockets.local().await?;
    sockets.call(local.write(WriteRequest { edits, actor: actor.to_owned() })).await
}

fn written(reply: &WriteReply) -> (String, Value) {
    let text = match reply.operation {
        Some(number) => format!("stored, on its way as operation {number}"),
        None => "stored; nothing to send (no group, or nothing changed)".to_owned(),
    };
    let text = if reply.warning.is_empty() { text } else { format!("{text}\n{}", printable(&reply.warning)) };
    (text, json!({ "operation": reply.operation, "warning": reply.warning }))
}
