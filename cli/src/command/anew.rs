//! `mfpsync recover --without-kit`: every device that could serve is lost, and the kit as well. Nobody can go on with
//! that group, so a new one begins with what its devices have, and each of them joins it.
//!
//! Steps of the daemon's, each durable. A command that was cut short is run again: it goes on from what it finds.

use std::path::PathBuf;

use clap::Args;
use mfpsync_proto::panel::{Role, StatusReply, StatusRequest};
use serde_json::json;

use super::devices::in_group;
use super::pair::Awaited;
use super::{Context, join, pair, role};
use crate::confirm;
use crate::exit::{Exit, Failure};
use crate::output::printable;
use crate::render::status::role_name;
use crate::render::units::count;
use crate::secret;
use crate::secret_file::SecretFile;

/// How a group begins anew.
#[derive(Debug, Args)]
pub(crate) struct AnewArgs {
    /// The kit is lost, too: make a new group of what this device has, then let each other device join it
    #[arg(long, conflicts_with_all = ["from", "code", "without_copy", "kit"], requires = "new_kit")]
    without_kit: bool,
    /// Where to write the new group's recovery kit; must not exist yet
    #[arg(long, value_name = "FILE", requires = "without_kit")]
    new_kit: Option<PathBuf>,
    /// The new group's name [default: that of the lost group]
    #[arg(long, value_name = "NAME", requires = "without_kit")]
    group: Option<String>,
    /// Do not ask before the new group begins
    #[arg(long, requires = "without_kit")]
    yes: bool,
}

/// Founds the group, and stays until the devices of the lost one are in it.
///
/// # Errors
/// Somebody could still serve the lost group, nobody says yes, the daemon's refusal, or Ctrl-C while devices are
/// missing.
pub(super) async fn found(
    context: &Context,
    args: AnewArgs,
    passphrase_file: Option<PathBuf>,
) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    let status = context.sockets.call(panel.status(StatusRequest {})).await?;
    let others = match status.wanted() {
        Role::Client => lost_group(context, &status, args.yes).await?,
        // It has left that group, by this command or otherwise, and knows its devices no more.
        Role::Idle => Vec::new(),
        other @ (Role::Unspecified
        | Role::Server
        | Role::ServerClient
        | Role::Replica
        | Role::ReplicaClient) => {
            return Err(Failure::Failed(format!(
                "this device is {} already; nothing was changed (`mfpsync pair each --leave NAME...` lets the devices \
                 of a lost group join a server, `mfpsync role promote --server-is-lost` makes a replica one)",
                role_name(other)
            )));
        }
    };
    let name = args.group.or_else(|| Some(status.group.as_ref()?.group_name.clone()));
    let name = name.ok_or_else(|| Failure::Usage("name the new group (--group NAME)".to_owned()))?;
    let path =
        args.new_kit.ok_or_else(|| Failure::Usage("name a file for the kit (--new-kit)".to_owned()))?;
    // Of an attempt of before it may be there already, and then it counts.
    let kit = (status.wanted() != Role::Idle).then(|| SecretFile::reserve(&path)).transpose()?;
    let passphrase = secret::new_passphrase("the recovery kit", passphrase_file.as_deref()).await?;
    join::leave_at_once(context).await?;
    let prepared =
        role::prepare(&context.sockets, &name, &passphrase).await.map_err(|source| Failure::Halfway {
            stands: "this device has left the lost group and has its data; run the command again, with --group",
            source: Box::new(source),
        })?;
    if prepared.group_id.is_empty() {
        context.out.note("the group exists already: its recovery kit was given out before it was founded")?;
        drop(kit);
    } else {
        let kit = kit.map_or_else(|| SecretFile::reserve(&path), Ok)?;
        role::hand_over(context, &prepared.recovery_kit, Some(kit))?;
        role::found(&context.sockets, prepared.group_id).await?;
    }
    let reply = role::serve(&context.sockets, true).await?;
    role::reach(context, reply.wanted()).await?;
    context.out.note(&format!("this device is the server of a new group, {}", printable(&name)))?;
    if others.is_empty() {
        let text = "let devices join with `mfpsync pair each --leave`\n";
        context.out.answer(text, &json!({ "group": name, "missing": [] }))?;
        return Ok(Exit::Ok);
    }
    context.out.note("now go from device to device; each brings what it has")?;
    pair::each(context, others, true).await
}

/// Makes sure that nobody could go on with the group, and that a person wants this; its other devices.
async fn lost_group(context: &Context, status: &StatusReply, yes: bool) -> Result<Vec<Awaited>, Failure> {
    let found = join::found_lost(context).await?;
    let mut others = in_group(context).await?;
    // Those that could serve are lost.
    others.retain(|device| !device.this_device && !device.capabilities.iter().any(|it| it == "serve"));
    let unsent = status.client.as_ref().map_or(0, |client| client.waiting);
    let (name, id) = status.group.as_ref().map_or(("", "ID"), |group| (&group.group_name, &group.group_id));
    context.out.note(&format!(
        "No device that could serve the group {} answers, and without its kit nobody can go on with it.\n\
         A new group begins with {} of this device, and {} that the lost server never got.\n\
         Then {} of the lost group can join it, one after the other, with what they have.\n\
         Gone is the history, with undo; what was deleted while a device was away comes back from it.\n\
         Archives of the lost group stay of use: `mfpsync backup bring-back --group {id}`.",
        printable(name),
        count(found.items, "item", "items"),
        count(unsent, "edit", "edits"),
        count(others.len() as u64, "other device", "other devices"),
    ))?;
    if !yes && !confirm::yes("Begin a new group?").await? {
        return Err(Failure::Failed("nothing was changed".to_owned()));
    }
    Ok(others.into_iter().map(Awaited::from).collect())
}
