//! `mfpsync role`: what this device does in its group.
//!
//! A role is asked for, answered at once with the wanted role, and then waited for by watching the
//! status. The recovery kit is the one thing that exists only in an answer: the group is founded when the
//! kit is safe (`start_server`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use mfpsync_proto::panel::{
    FoundGroupRequest, PrepareGroupReply, PrepareGroupRequest, PromoteReply, PromoteRequest,
    RetireServerRequest, Rival, Role, RoleReply, StartClientRequest, StartServerRequest, StatusRequest,
    StayRequest, StopServerRequest,
};
use serde_json::{Value, json};

use super::{Context, status};
use crate::exit::{Exit, Failure};
use crate::kit::Kit;
use crate::output::printable;
use crate::render::status::{rival_json, role_name, role_text};
use crate::render::units::count;
use crate::secret::{self, Secret};
use crate::secret_file::SecretFile;
use crate::sockets::Sockets;
use crate::wait;

/// Wrapping the kit is made slow on purpose, and slower on a small device.
const KIT_PATIENCE: Duration = Duration::from_secs(120);

/// The server stands down, and the copy gets the last of it.
const PROMOTE_PATIENCE: Duration = Duration::from_secs(30);

/// Start, stop or show this device's role
#[derive(Debug, Subcommand)]
pub(crate) enum RoleCommand {
    StartServer(StartServerArgs),
    StopServer(StopServerArgs),
    StartClient(StartClientArgs),
    Promote(PromoteArgs),
    Stay(StayArgs),
    Retire(RetireArgs),
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
    /// Where to write the recovery kit; must not exist yet; `-` prints it, with --json as an object of
    /// its own before the answer
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

/// Make this replica the group's server
///
/// Run it at the replica. The server stands down first, and nothing is lost. If it is lost say so: what the
/// copy lacks comes back from the devices that made it or have seen it. Every device follows by itself,
/// the old server too, when it comes back.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync role promote
  mfpsync role promote --server-is-lost
  mfpsync role promote --server-is-lost --kit second-floor.age")]
pub(crate) struct PromoteArgs {
    /// The server is lost: do not ask it to stand down
    #[arg(long)]
    server_is_lost: bool,
    /// The group's recovery kit, if this replica was not certified by it before
    #[arg(long, value_name = "FILE")]
    kit: Option<PathBuf>,
    /// File whose first line is the kit's passphrase [default: ask]
    #[arg(long, value_name = "FILE", requires = "kit")]
    passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Keep this device the server, where two became it without knowing of each other
///
/// Run it at the one that stays. The other one ends as soon as it hears of it and goes on as a client. Nothing
/// is discarded: what only the other one had comes back from the devices that follow it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync role stay")]
pub(crate) struct StayArgs {}

/// Dismiss the database of a server that was superseded
///
/// It is renamed and kept on this device; the fault ends.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync role retire")]
pub(crate) struct RetireArgs {}

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
        RoleCommand::Promote(args) => promote(context, args).await,
        RoleCommand::Stay(StayArgs {}) => stay(context).await,
        RoleCommand::Retire(RetireArgs {}) => retire(context).await,
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

async fn promote(context: &Context, args: PromoteArgs) -> Result<Exit, Failure> {
    let kit = match &args.kit {
        Some(path) => Some(Kit::open(path, args.passphrase_file.as_deref()).await?),
        None => None,
    };
    let reply = take_over(&context.sockets, args.server_is_lost, kit.as_ref()).await?;
    context.out.note(&what_is_missing(&reply))?;
    let role = RoleReply { wanted: reply.wanted };
    let extra = json!({ "stood_down": reply.stood_down, "missing_at_most": reply.missing_at_most });
    settle(context, &role, args.wait, extra).await
}

/// Decides that this replica becomes the server.
///
/// # Errors
/// The daemon's refusal; nothing was changed then.
pub(crate) async fn take_over(
    sockets: &Sockets,
    server_is_lost: bool,
    kit: Option<&Kit>,
) -> Result<PromoteReply, Failure> {
    let mut request = PromoteRequest { server_is_lost, ..PromoteRequest::default() };
    let mut patience = PROMOTE_PATIENCE;
    if let Some(kit) = kit {
        request.recovery_kit = kit.text.reveal().to_owned();
        request.kit_passphrase = kit.passphrase.reveal().to_owned();
        patience = KIT_PATIENCE;
    }
    let mut panel = sockets.panel().await?;
    sockets.call_patiently(patience, panel.promote(request)).await
}

/// What the copy lacks, in a sentence.
pub(crate) fn what_is_missing(reply: &PromoteReply) -> String {
    match (reply.stood_down, reply.missing_at_most) {
        (true, _) => "the server stood down; nothing is missing".to_owned(),
        (false, 0) => {
            "the copy has everything the server was known to have; if it took more before it was lost, that \
             comes back from the devices"
                .to_owned()
        }
        (false, missing) => format!(
            "the copy lacks {} the server was known to have; they come back from the devices",
            count(missing, "change", "changes")
        ),
    }
}

async fn stay(context: &Context) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    let reply = context.sockets.call(panel.stay(StayRequest {})).await?;
    let named = |rival: &Rival| {
        let name = if rival.device_name.is_empty() { &rival.device_id } else { &rival.device_name };
        format!("{} ends as soon as it hears of it\n", printable(name))
    };
    let text = format!(
        "this device stays the server, in epoch {}\n{}",
        reply.epoch,
        reply.ended.iter().map(named).collect::<String>()
    );
    let ended: Vec<Value> = reply.ended.iter().map(rival_json).collect();
    context.out.answer(&text, &json!({ "epoch": reply.epoch, "ended": ended }))?;
    Ok(Exit::Ok)
}

async fn retire(context: &Context) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    let reply = context.sockets.call(panel.retire_server(RetireServerRequest {})).await?;
    let text = format!("the database of before is kept as {}\n", printable(&reply.path));
    context.out.answer(&text, &json!({ "path": reply.path }))?;
    Ok(Exit::Ok)
}

async fn start_server(context: &Context, args: StartServerArgs) -> Result<Exit, Failure> {
    let sockets = &context.sockets;
    sockets.panel().await?;
    let kit_file = if args.kit == Path::new("-") { None } else { Some(SecretFile::reserve(&args.kit)?) };
    let passphrase = secret::new_passphrase("the recovery kit", args.passphrase_file.as_deref()).await?;
    let prepared = prepare(sockets, &args.group, &passphrase).await?;
    let new = !prepared.group_id.is_empty();
    if new {
        hand_over(context, &prepared.recovery_kit, kit_file)?;
        found(sockets, prepared.group_id).await?;
    } else {
        context.out.note("the group exists already: its recovery kit was given out before it was founded")?;
        drop(kit_file);
    }
    let role = serve(sockets, args.client).await?;
    settle(context, &role, args.wait, json!({ "kit_written": new })).await
}

/// Has the daemon make a group, of which nothing is stored yet; no id says that it holds one already.
///
/// # Errors
/// The daemon's refusal.
pub(crate) async fn prepare(
    sockets: &Sockets,
    group: &str,
    passphrase: &Secret,
) -> Result<PrepareGroupReply, Failure> {
    let request =
        PrepareGroupRequest { group_name: group.to_owned(), kit_passphrase: passphrase.reveal().to_owned() };
    let mut panel = sockets.panel().await?;
    sockets.call_patiently(KIT_PATIENCE, panel.prepare_group(request)).await
}

/// Founds the group whose kit is safe by now.
///
/// # Errors
/// Nothing tells for certain whether the group was founded.
pub(crate) async fn found(sockets: &Sockets, group_id: String) -> Result<(), Failure> {
    let founding = async {
        let mut panel = sockets.panel().await?;
        sockets.call_patiently(KIT_PATIENCE, panel.found_group(FoundGroupRequest { group_id })).await
    };
    founding.await.map(drop).map_err(|source| Failure::Halfway {
        stands: "the recovery kit is written and counts if the group was founded all the same: run the command again \
                 with another file for the kit, and if that writes a new one, delete this one",
        source: Box::new(source),
    })
}

/// Starts to serve the group that the device holds.
///
/// # Errors
/// The group is founded, and does not run.
pub(crate) async fn serve(sockets: &Sockets, with_client: bool) -> Result<RoleReply, Failure> {
    let starting = async {
        let mut panel = sockets.panel().await?;
        sockets.call(panel.start_server(StartServerRequest { with_client })).await
    };
    starting.await.map_err(|source| Failure::Halfway {
        stands: "the group stands and its recovery kit is good; start the server again",
        source: Box::new(source),
    })
}

/// Puts the kit where the operator asked for it, before the group exists.
pub(super) fn hand_over(context: &Context, kit: &str, file: Option<SecretFile>) -> Result<(), Failure> {
    match file {
        Some(file) => {
            file.fill(kit)?;
            context.out.note("recovery kit written: keep it, with its passphrase, away from this device")
        }
        None => context.out.event(kit, &json!({ "recovery_kit": kit })),
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
