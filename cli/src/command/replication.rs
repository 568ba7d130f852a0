//! `mfpsync replication`: the standby copy of the group's data on another device.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use mfpsync_proto::panel::{
    Device, DevicesRequest, Durability, ProveReplicaRequest, ReleaseReplicaRequest, ReplicationRequest,
    SetReplicationReply, SetReplicationRequest, StopReplicationRequest,
};
use serde_json::json;

use super::{Context, now_unix_millis};
use crate::exit::{Exit, Failure};
use crate::kit::Kit;
use crate::output::printable;
use crate::render::replication;
use crate::sockets::Sockets;

/// Opening the kit is made slow on purpose, and slower on a small device.
const KIT_PATIENCE: Duration = Duration::from_secs(120);
/// The part that keeps the copy stops first.
const RELEASE_PATIENCE: Duration = Duration::from_secs(20);
/// The replica reads its whole copy twice.
const PATIENCE: Duration = Duration::from_secs(600);

/// Keep a standby copy of the group's data on another device; see what is safe
#[derive(Debug, Subcommand)]
pub(crate) enum ReplicationCommand {
    Status(StatusArgs),
    Set(SetArgs),
    Stop(StopArgs),
    Release(ReleaseArgs),
    Prove(ProveArgs),
}

/// Show the replica, how far it is, what is safe, and when its copy was proven last
///
/// At the server: the replica as the server knows it, and which changes were ever confirmed without it.
/// At the replica: its copy.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync replication status
  mfpsync replication status --json | jq .replica.behind")]
pub(crate) struct StatusArgs {}

/// Make a device of the group the replica, or say when changes are confirmed
///
/// Run it at the group's server. The device goes on as a client; its users notice nothing. It gets a full
/// copy first, then every change.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync replication set printer-2
  mfpsync replication set printer-2 --kit second-floor.age
  mfpsync replication set printer-2 --durability sync-hold
  mfpsync replication set --kit second-floor.age
  mfpsync replication set --durability async")]
pub(crate) struct SetArgs {
    /// The device: its id, or its name if only one has it; without it the present replica
    device: Option<String>,
    /// When a change is confirmed to the device that made it
    #[arg(long, value_enum)]
    durability: Option<When>,
    /// The group's recovery kit: certifies the replica, so that it can become the server
    #[arg(long, value_name = "FILE")]
    kit: Option<PathBuf>,
    /// File whose first line is the kit's passphrase [default: ask]
    #[arg(long, value_name = "FILE", requires = "kit")]
    passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum When {
    /// When the server has it on its storage; the replica follows
    Async,
    /// When the replica has it as well; while it is away changes wait on the devices
    SyncHold,
    /// When the replica has it as well; while it is away the server is enough, and that is recorded
    SyncContinue,
}

/// End replication; the device keeps its copy and goes on as a client
///
/// Run it at the group's server, also when the replica is broken.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync replication stop")]
pub(crate) struct StopArgs {}

/// Give up being the replica, also when the server is lost
///
/// Run it at the replica. The copy is kept aside. While the server answers, rather stop replication there. While it
/// does not, this copy may be all there is of the group's data: then say how many changes you give up.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync replication release
  mfpsync replication release --accept-loss-of 48219")]
pub(crate) struct ReleaseArgs {
    /// Release although the copy of N changes, as the refusal says, may be the only one
    #[arg(long, value_name = "N", default_value_t = 0)]
    accept_loss_of: u64,
}

/// Have the replica prove its copy: every page, SQLite's own check, and the items
///
/// Run it at the group's server. Ends with exit code 1 if something is wrong; it is mended by itself.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync replication prove
  mfpsync replication prove --json && echo proven")]
pub(crate) struct ProveArgs {}

/// Runs one of the replication commands.
///
/// # Errors
/// Not the server, no such device, or the daemon's refusal.
pub(crate) async fn run(context: &Context, command: ReplicationCommand) -> Result<Exit, Failure> {
    match command {
        ReplicationCommand::Status(StatusArgs {}) => status(context).await,
        ReplicationCommand::Set(args) => set(context, args).await,
        ReplicationCommand::Stop(StopArgs {}) => stop(context).await,
        ReplicationCommand::Release(args) => release(context, args).await,
        ReplicationCommand::Prove(ProveArgs {}) => prove(context).await,
    }
}

async fn status(context: &Context) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    let reply = context.sockets.call(panel.replication(ReplicationRequest {})).await?;
    context.out.answer(&replication::text(&reply, now_unix_millis()), &replication::json(&reply))?;
    Ok(Exit::Ok)
}

async fn set(context: &Context, args: SetArgs) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    let device_id = match args.device {
        Some(named) => {
            let devices = context.sockets.call(panel.devices(DevicesRequest {})).await?.devices;
            named_device(&devices, &named)?
        }
        None => String::new(),
    };
    let durability = args.durability.map_or(Durability::Unspecified, |when| match when {
        When::Async => Durability::Async,
        When::SyncHold => Durability::SyncHold,
        When::SyncContinue => Durability::SyncContinue,
    });
    let kit = match &args.kit {
        Some(path) => Some(Kit::open(path, args.passphrase_file.as_deref()).await?),
        None => None,
    };
    let certified = kit.is_some();
    let reply = replicate(&context.sockets, device_id, durability, kit.as_ref()).await?;
    let next = if certified {
        "it is certified and can become the server"
    } else {
        "give --kit as well, or it cannot become the server when this one is lost"
    };
    let text = format!(
        "{} is the replica; changes are confirmed {}\n{next}\nsee `mfpsync replication status` for how far it is\n",
        printable(&reply.device_name),
        replication::durability_text(reply.durability())
    );
    let json = json!({
        "replica": reply.device_name,
        "durability": replication::durability_name(reply.durability()),
        "certified": certified,
    });
    context.out.answer(&text, &json)?;
    Ok(Exit::Ok)
}

/// Makes a device (empty: the present one) the replica; with the kit it is certified.
///
/// # Errors
/// The daemon's refusal.
pub(crate) async fn replicate(
    sockets: &Sockets,
    device_id: String,
    durability: Durability,
    kit: Option<&Kit>,
) -> Result<SetReplicationReply, Failure> {
    let mut request = SetReplicationRequest {
        device_id,
        durability: durability.into(),
        ..SetReplicationRequest::default()
    };
    if let Some(kit) = kit {
        request.recovery_kit = kit.text.reveal().to_owned();
        request.kit_passphrase = kit.passphrase.reveal().to_owned();
    }
    let mut panel = sockets.panel().await?;
    sockets.call_patiently(KIT_PATIENCE, panel.set_replication(request)).await
}

pub(super) fn named_device(devices: &[Device], named: &str) -> Result<String, Failure> {
    let mut found =
        devices.iter().filter(|device| !device.released && (device.id == named || device.name == named));
    match (found.next(), found.next()) {
        (Some(device), None) => Ok(device.id.clone()),
        (None, _) => Err(Failure::Failed(format!(
            "no device of the group is called {}; `mfpsync devices` lists them",
            printable(named)
        ))),
        (Some(_), Some(_)) => Err(Failure::Failed(format!(
            "several devices are called {}; give the id, as `mfpsync devices` shows it",
            printable(named)
        ))),
    }
}

async fn stop(context: &Context) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    let reply = context.sockets.call(panel.stop_replication(StopReplicationRequest {})).await?;
    let text = if reply.device_name.is_empty() {
        "no replica was set; nothing changed\n".to_owned()
    } else {
        format!(
            "{} is no longer the replica and keeps its copy; the group's data is on this server alone now\n",
            printable(&reply.device_name)
        )
    };
    context.out.answer(&text, &json!({ "stopped": reply.device_name }))?;
    Ok(Exit::Ok)
}

async fn release(context: &Context, args: ReleaseArgs) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    let request = ReleaseReplicaRequest { accept_loss_of: args.accept_loss_of };
    let reply = context.sockets.call_patiently(RELEASE_PATIENCE, panel.release_replica(request)).await?;
    let text = if reply.path.is_empty() {
        "this device is no longer the replica\n".to_owned()
    } else {
        format!("this device is no longer the replica; the copy is kept as {}\n", printable(&reply.path))
    };
    context.out.answer(&text, &json!({ "path": reply.path }))?;
    Ok(Exit::Ok)
}

async fn prove(context: &Context) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    let reply = context.sockets.call_patiently(PATIENCE, panel.prove_replica(ProveReplicaRequest {})).await?;
    let proof = reply.proof.unwrap_or_default();
    let json = replication::proof_json(&proof);
    if !proof.wrong.is_empty() {
        context.out.note(&replication::proof_text(&proof, now_unix_millis()))?;
        return Err(Failure::Failed(format!(
            "the copy is not what it should be: {}",
            printable(&proof.wrong)
        )));
    }
    context.out.answer(&replication::proof_text(&proof, now_unix_millis()), &json)?;
    Ok(Exit::Ok)
}
