//! `mfpsync backup`: archives of the group on an SMB share, and coming back from one.
//!
//! What takes long is a job of the daemon's, which goes on whether or not anybody watches; Ctrl-C ends the watching alone.

mod following;
mod opening;
mod place;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use mfpsync_proto::backup::{
    ArchivesRequest, BeginRequest, CancelRequest, ForgetRequest, SettingsReply, SettingsRequest, WatchRequest,
};
use serde_json::json;

use self::following::finish;
pub(crate) use self::following::{followed, refused};
use self::opening::{BringBackArgs, DrillArgs, KitArgs, PreviewArgs, RestoreArgs};
use self::place::{KeyFileArgs, SetArgs, TestArgs};
use super::{Context, now_unix_millis};
use crate::exit::{Exit, Failure};
use crate::render::backup as render;
use crate::secret::{self, Secret};

/// A file server that is slow, or behind a slow network.
const SHARE_PATIENCE: Duration = Duration::from_secs(120);

/// Archives of the group on an SMB share: set, make, list, prove, restore
#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    Status(StatusArgs),
    Set(SetArgs),
    Test(TestArgs),
    Key(KeyFileArgs),
    Now(NowArgs),
    List(ListArgs),
    Drill(DrillArgs),
    Preview(PreviewArgs),
    Restore(RestoreArgs),
    BringBack(BringBackArgs),
    Watch(WatchArgs),
    Cancel(CancelArgs),
    Forget(ForgetArgs),
}

/// Show what is set, the newest archive, and what is wrong
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync backup status
  mfpsync backup status --json | jq .newest.made_unix_millis")]
pub(crate) struct StatusArgs {}

/// Make an archive now
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync backup now
  mfpsync backup now --with-passphrase
  mfpsync backup now --passphrase-file pass.txt --no-wait")]
pub(crate) struct NowArgs {
    /// Seal it with a passphrase that is asked for, instead of for the recipients that are set
    #[arg(long)]
    with_passphrase: bool,
    /// As --with-passphrase, from the file's first line
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Archives that were made here and are on the share no more were removed on purpose: old ones may go again
    #[arg(long)]
    accept_missing: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
struct WaitArgs {
    /// Return as soon as it is begun
    #[arg(long)]
    no_wait: bool,
}

/// List the archives on the share
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync backup list
  mfpsync backup list --kit second-floor.age
  mfpsync backup list --json | jq -r '.archives[0].id'")]
pub(crate) struct ListArgs {
    /// Of another group: its id
    #[arg(long, value_name = "ID")]
    group: Option<String>,
    #[command(flatten)]
    kit: KitArgs,
}

/// Follow the job under way, or show the last one
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync backup watch
  mfpsync backup watch --json")]
pub(crate) struct WatchArgs {}

/// Stop the job under way; what it has done so far harms nothing
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync backup cancel")]
pub(crate) struct CancelArgs {}

/// Forget share, password, schedule and rules; archives stay where they are
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync backup forget")]
pub(crate) struct ForgetArgs {}

/// Runs one of the backup commands.
///
/// # Errors
/// Nobody to ask, a person who is needed, or the daemon's refusal.
pub(crate) async fn run(context: &Context, command: BackupCommand) -> Result<Exit, Failure> {
    match command {
        BackupCommand::Status(StatusArgs {}) => status(context).await,
        BackupCommand::Set(args) => place::set(context, args).await,
        BackupCommand::Test(args) => place::test(context, &args).await,
        BackupCommand::Key(args) => place::key_file(context, &args).await,
        BackupCommand::Now(args) => now(context, &args).await,
        BackupCommand::List(args) => list(context, args).await,
        BackupCommand::Drill(args) => opening::drill(context, args).await,
        BackupCommand::Preview(args) => opening::preview(context, args).await,
        BackupCommand::Restore(args) => opening::restore(context, args).await,
        BackupCommand::BringBack(args) => opening::bring_back(context, args).await,
        BackupCommand::Watch(WatchArgs {}) => watch(context).await,
        BackupCommand::Cancel(CancelArgs {}) => cancel(context).await,
        BackupCommand::Forget(ForgetArgs {}) => forget(context).await,
    }
}

async fn settings(context: &Context) -> Result<SettingsReply, Failure> {
    let mut backup = context.sockets.backup().await?;
    context.sockets.call(backup.settings(SettingsRequest {})).await
}

async fn status(context: &Context) -> Result<Exit, Failure> {
    let reply = settings(context).await?;
    context.out.answer(&render::settings_text(&reply, now_unix_millis()), &render::settings_json(&reply))?;
    Ok(Exit::Ok)
}

async fn now(context: &Context, args: &NowArgs) -> Result<Exit, Failure> {
    let passphrase = if args.with_passphrase || args.passphrase_file.is_some() {
        secret::new_passphrase("the archive", args.passphrase_file.as_deref()).await?
    } else {
        Secret::new("")
    };
    let mut backup = context.sockets.backup().await?;
    let request =
        BeginRequest { passphrase: passphrase.reveal().to_owned(), accept_missing: args.accept_missing };
    let job = context.sockets.call(backup.begin(request)).await?;
    finish(context, job, args.wait.no_wait).await
}

async fn list(context: &Context, args: ListArgs) -> Result<Exit, Failure> {
    let (recovery_kit, kit_passphrase) = args.kit.open().await?;
    let request = ArchivesRequest { group_id: args.group.unwrap_or_default(), recovery_kit, kit_passphrase };
    let mut backup = context.sockets.backup().await?;
    let reply = context.sockets.call_patiently(SHARE_PATIENCE, backup.archives(request)).await?;
    context.out.answer(&render::archives_text(&reply, now_unix_millis()), &render::archives_json(&reply))?;
    Ok(Exit::Ok)
}

async fn watch(context: &Context) -> Result<Exit, Failure> {
    let mut backup = context.sockets.backup().await?;
    let mut jobs = context.sockets.call(backup.watch(WatchRequest {})).await?;
    let first = jobs.message().await?.ok_or(Failure::ConnectionLost)?;
    if first.number == 0 {
        context.out.answer("no job was begun since mfpsyncd started\n", &json!(null))?;
        return Ok(Exit::Ok);
    }
    finish(context, first, false).await
}

async fn cancel(context: &Context) -> Result<Exit, Failure> {
    let mut backup = context.sockets.backup().await?;
    let reply = context.sockets.call(backup.cancel(CancelRequest {})).await?;
    let text = if reply.was_under_way { "the job ends now\n" } else { "no job is under way\n" };
    context.out.answer(text, &json!({ "was_under_way": reply.was_under_way }))?;
    Ok(Exit::Ok)
}

async fn forget(context: &Context) -> Result<Exit, Failure> {
    let mut backup = context.sockets.backup().await?;
    let reply = context.sockets.call(backup.forget(ForgetRequest {})).await?;
    let text = if reply.was_set { "forgotten; archives stay where they are\n" } else { "nothing was set\n" };
    context.out.answer(text, &json!({ "was_set": reply.was_set }))?;
    Ok(Exit::Ok)
}
