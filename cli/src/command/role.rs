//! `mfpsync role`: what this device does in its group.
//!
//! A role is asked for, answered at once with the wanted role, and then waited for by watching the
//! status. The recovery kit is the one thing that exists only in an answer: see `start_server`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use mfpsync_proto::panel::{
    Role, RoleReply, StartClientRequest, StartServerReply, StartServerRequest, StatusRequest,
    StopServerRequest,
};
use serde_json::{Value, json};

use super::{Context, status};
use crate::exit::{Exit, Failure};
use crate::kit::KitFile;
use crate::output::printable;
use crate::render::status::{role_name, role_text};
use crate::secret::{self, Secret};
use crate::wait;

/// Wrapping the kit is made slow on purpose, and slower on a small device; its answer comes once.
const START_PATIENCE: Duration = Duration::from_secs(120);

/// Start, stop or show this device's role
#[derive(Debug, Subcommand)]
pub(crate) enum RoleCommand {
    StartServer(StartServerArgs),
    StopServer(StopServerArgs),
    StartClient(StartClientArgs),
    Show(ShowArgs),
}

/// Start a group with this device as its server
///
/// Writes the recovery kit: an encrypted file that, with its passphrase, can certify a new server when
/// this one is lost. It is shown once and not kept on the device: print it, or keep it elsewhere.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync role start-server --group 'Second floor' --client --kit second-floor.age
  mfpsync role start-server --group Lab --kit - --passphrase-file pass.txt > lab.age")]
pub(crate) struct StartServerArgs {
    /// The group's name, as people shall see it
    #[arg(long, value_name = "NAME")]
    group: String,
    /// Also share the group's data at this device's own panel
    #[arg(long)]
    client: bool,
    /// Where to write the recovery kit; must not exist yet; `-` prints it
    #[arg(long, value_name = "FILE")]
    kit: PathBuf,
    /// File whose first line is the kit's passphrase, 12 characters or more [default: ask]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Stop serving; clients keep working offline and all data stays
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync role stop-server")]
pub(crate) struct StopServerArgs {
    #[command(flatten)]
    wait: WaitArgs,
}

/// Share the group's data at this server's own panel as well
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync role start-client")]
pub(crate) struct StartClientArgs {
    #[command(flatten)]
    wait: WaitArgs,
}

/// Show the wanted and the running role
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync role show
  mfpsync role show --json")]
pub(crate) struct ShowArgs {}

/// Whether to stay until the role runs.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct WaitArgs {
    /// Wait until the role runs or a fault shows (the default)
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Return as soon as the decision is durable
    #[arg(long, overrides_with = "wait")]
    no_wait: bool,
}

/// Runs one role command.
///
/// # Errors
/// The daemon's refusal, or a wait that failed.
pub(crate) async fn run(context: &Context, command: RoleCommand) -> Result<Exit, Failure> {
    match command {
        RoleCommand::StartServer(args) => start_server(context, args).await,
        RoleCommand::StopServer(args) => {
            let mut panel = context.sockets.panel().await?;
            let reply = context.sockets.call(panel.stop_server(StopServerRequest {})).await?;
            settle(context, &reply, args.wait, json!({})).await
        }
        RoleCommand::StartClient(args) => {
            let mut panel = context.sockets.panel().await?;
            let reply = context.sockets.call(panel.start_client(StartClientRequest {})).await?;
            settle(context, &reply, args.wait, json!({})).await
        }
        RoleCommand::Show(_) => show(context).await,
    }
}

async fn show(context: &Context) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    let reply = context.sockets.call(panel.status(StatusRequest {})).await?;
    let full = crate::render::status::json(&reply);
    let json = json!({ "wanted": full["wanted"], "running": full["running"], "phase": full["phase"] });
    context.out.answer(&role_text(&reply), &json)?;
    Ok(status::exit_of(&reply))
}

async fn start_server(context: &Context, args: StartServerArgs) -> Result<Exit, Failure> {
    let to_stdout = args.kit == Path::new("-");
    let mut panel = context.sockets.panel().await?;
    let kit_file = if to_stdout { None } else { Some(KitFile::reserve(&args.kit)?) };
    let passphrase = secret::passphrase(args.passphrase_file.as_deref()).await?;
    let request = request(&args.group, &passphrase, args.client);
    let reply = context.sockets.call_patiently(START_PATIENCE, panel.start_server(request)).await?;
    let extra = hand_over(context, &reply, kit_file)?;
    if !reply.trouble.is_empty() {
        return Err(Failure::Failed(format!(
            "the group was founded and its recovery kit is yours, but the server did not start: {}; start it again",
            printable(&reply.trouble)
        )));
    }
    let role = reply.role.unwrap_or_default();
    settle(context, &role, args.wait, extra).await
}

/// The request for a new group.
pub(crate) fn request(group: &str, passphrase: &Secret, with_client: bool) -> StartServerRequest {
    StartServerRequest {
        group_name: group.to_owned(),
        kit_passphrase: passphrase.reveal().to_owned(),
        with_client,
    }
}

/// Puts the kit where the operator asked for it. When the file fails the kit is printed instead: it
/// cannot be asked for again.
fn hand_over(context: &Context, reply: &StartServerReply, file: Option<KitFile>) -> Result<Value, Failure> {
    let kit = &reply.recovery_kit;
    if kit.is_empty() {
        context.out.note("the group exists already: its recovery kit was given out when it was made")?;
        return Ok(json!({ "kit_written": false }));
    }
    match file.map(|file| file.fill(kit)) {
        Some(Ok(())) => {
            context.out.note("recovery kit written: keep it, with its passphrase, away from this device")?;
            Ok(json!({ "kit_written": true }))
        }
        Some(Err(failure)) => {
            context.out.bytes(kit.as_bytes())?;
            Err(Failure::Failed(format!(
                "{failure}\nthe group is started; its recovery kit stands above and cannot be shown again: save it now"
            )))
        }
        None if context.out.json => Ok(json!({ "kit_written": true, "recovery_kit": kit })),
        None => {
            context.out.bytes(kit.as_bytes())?;
            Ok(json!({ "kit_written": true }))
        }
    }
}

/// Waits for the role when asked to, and tells how it ended.
async fn settle(context: &Context, reply: &RoleReply, how: WaitArgs, extra: Value) -> Result<Exit, Failure> {
    let wanted = reply.wanted();
    if how.no_wait {
        let mut json = extra;
        json["wanted"] = json!(role_name(wanted));
        return tell(context, &format!("wanted role: {}", role_name(wanted)), &json).map(|()| Exit::Ok);
    }
    let status = reach(context, wanted).await?;
    let mut json = extra;
    json["status"] = crate::render::status::json(&status);
    tell(context, &role_text(&status), &json)?;
    Ok(status::exit_of(&status))
}

/// Standard output may carry the kit, so people read this on standard error.
fn tell(context: &Context, text: &str, json: &Value) -> Result<(), Failure> {
    if context.out.json { context.out.answer("", json) } else { context.out.note(text) }
}

/// Waits until `wanted` runs.
///
/// # Errors
/// As `wait::until`.
pub(crate) async fn reach(
    context: &Context,
    wanted: Role,
) -> Result<mfpsync_proto::panel::StatusReply, Failure> {
    let what = format!("role {}", role_name(wanted));
    wait::until(&context.sockets, &what, |status| wait::role_reached(status, wanted)).await
}
