//! `mfpsync transfer` and `mfpsync recover`: moving the group to another machine. No device is visited.
//!
//! Each step is the daemon's, durable and harmless when repeated; a command that was cut short is run again.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mfpsync_proto::panel::{
    CopyStatus, DevicesRequest, Durability, PromoteRequest, RefoundRequest, ReplicationStatus, Role,
    StatusReply, StatusRequest, SucceedRequest, TransferReply, TransferRequest,
};
use serde_json::json;

use super::anew::{self, AnewArgs};
use super::replication::{named_device, replicate};
use super::{Context, join, role};
use crate::exit::{Exit, Failure};
use crate::kit::Kit;
use crate::output::printable;
use crate::render::status::role_name;
use crate::wait::{self, Verdict};

/// Opening the kit is made slow on purpose, and slower on a small device.
const KIT_PATIENCE: Duration = Duration::from_secs(120);
/// The replica takes over, or the server goes on.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(60);

/// Move the group to another device: it becomes the server, this one its replica
///
/// Run it at the server. The device must be a client of the group; it gets a copy first if it is not the
/// replica. Then this server stands down, the device takes over, and all devices follow by themselves;
/// nothing is lost, and changes wait meanwhile. To put a new machine in the place of this one, pair
/// it first (`mfpsync join` there).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync transfer
  mfpsync transfer printer-2
  mfpsync transfer printer-2 --kit second-floor.age")]
pub(crate) struct TransferArgs {
    /// The device: its id, or its name if only one has it [default: the present replica]
    device: Option<String>,
    #[command(flatten)]
    kit: KitArgs,
}

/// The kit, where a device was not certified before.
#[derive(Debug, Args)]
struct KitArgs {
    /// The group's recovery kit: certifies the device, if it is not yet
    #[arg(long, value_name = "FILE")]
    kit: Option<PathBuf>,
    /// File whose first line is the kit's passphrase [default: ask]
    #[arg(long, value_name = "FILE", requires = "kit")]
    passphrase_file: Option<PathBuf>,
}

/// Make this machine the server in the place of one that is lost, or will be taken away
///
/// Run it at the new machine, or at the old one with a new disk. If the server is lost, promote the replica first
/// (`mfpsync role promote --server-is-lost`, there), and open pairing at it (`mfpsync pair open`). This machine
/// joins, gets a copy, and takes over; the other one becomes its replica. Without the recovery kit use
/// `mfpsync join` here and `mfpsync transfer` there. Where the kit and all that could serve are lost,
/// `--without-kit` makes a new group of what the devices have, and guides from device to device.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync recover --from 192.0.2.11:7450 --kit second-floor.age
  mfpsync recover --from printer-2.example.com:7450 --code 12345678 --kit kit.age --passphrase-file pass.txt
  mfpsync recover --without-copy --kit second-floor.age
  mfpsync recover --without-copy --accept-loss-of 48219 --kit second-floor.age
  mfpsync recover --without-kit --new-kit second-floor-2.age")]
pub(crate) struct RecoverArgs {
    /// Address and port of the device that serves now
    #[arg(long, value_name = "HOST:PORT", value_parser = join::address, required_unless_present_any = ["without_copy", "without_kit"])]
    from: Option<String>,
    /// Every device that could serve is lost with its data: let this client become the server, and every device
    /// offer what it has
    #[arg(long, conflicts_with_all = ["from", "code"])]
    without_copy: bool,
    /// With --without-copy: begin although N changes, as the refusal says, lose their history
    #[arg(long, value_name = "N", requires = "without_copy", default_value_t = 0)]
    accept_loss_of: u64,
    /// The eight digits it shows [default: ask]
    #[arg(long, value_parser = join::code)]
    code: Option<String>,
    /// The group's recovery kit
    #[arg(long, value_name = "FILE", required_unless_present = "without_kit")]
    kit: Option<PathBuf>,
    /// File whose first line is the passphrase of the kit, or of the new one [default: ask]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    anew: AnewArgs,
}

/// Moves the group away from this server.
///
/// # Errors
/// Not the server, no such device, or the daemon's refusal.
pub(crate) async fn transfer(context: &Context, args: TransferArgs) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    if args.device.is_some() || args.kit.kit.is_some() {
        let device_id = match &args.device {
            Some(named) => {
                named_device(&context.sockets.call(panel.devices(DevicesRequest {})).await?.devices, named)?
            }
            None => String::new(),
        };
        let kit = match &args.kit.kit {
            Some(path) => Some(Kit::open(path, args.kit.passphrase_file.as_deref()).await?),
            None => None,
        };
        let set = replicate(&context.sockets, device_id, Durability::Unspecified, kit.as_ref()).await?;
        context.out.note(&format!("{} gets what it lacks of the copy", printable(&set.device_name)))?;
    }
    let reply = hand_over(context).await?;
    let text = format!(
        "{} is the server now, and nothing is missing; this device follows it\n",
        printable(&reply.device_name)
    );
    let json = json!({ "device_id": reply.device_id, "device_name": reply.device_name });
    context.out.answer(&text, &json)?;
    Ok(Exit::Ok)
}

/// Hands over to the replica as soon as its copy is complete.
///
/// # Errors
/// No replica that could take over, or the daemon's refusal.
pub(crate) async fn hand_over(context: &Context) -> Result<TransferReply, Failure> {
    wait::until(&context.sockets, "the copy to be complete", replica_ready).await?;
    let mut panel = context.sockets.panel().await?;
    context.sockets.call_patiently(TRANSFER_PATIENCE, panel.transfer(TransferRequest {})).await
}

/// Moves the group to this machine.
///
/// # Errors
/// A wrong code or kit, an unreachable server, or a wait that failed.
pub(crate) async fn recover(context: &Context, args: RecoverArgs) -> Result<Exit, Failure> {
    let Some(kit) = args.kit else {
        return anew::found(context, args.anew, args.passphrase_file).await;
    };
    let kit = Kit::open(&kit, args.passphrase_file.as_deref()).await?;
    let Some(from) = args.from else { return refound(context, &kit, args.accept_loss_of).await };
    let wanted = take_over(context, from, args.code, &kit).await?;
    let text =
        "this device is the group's server now, and nothing is missing; the other one becomes its replica\n";
    context.out.answer(text, &json!({ "wanted": role_name(wanted) }))?;
    Ok(Exit::Ok)
}

/// Has this client become the server with nothing but what the devices have.
async fn refound(context: &Context, kit: &Kit, accept_loss_of: u64) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    let request = RefoundRequest {
        recovery_kit: kit.text.reveal().to_owned(),
        kit_passphrase: kit.passphrase.reveal().to_owned(),
        accept_loss_of,
    };
    let reply = context.sockets.call_patiently(KIT_PATIENCE, panel.refound(request)).await?;
    role::reach(context, reply.wanted()).await?;
    let text = "this device is the group's server now, and has what it had as a client; what other devices have comes \
                as they follow\n";
    context.out.answer(text, &json!({ "wanted": role_name(reply.wanted()) }))?;
    Ok(Exit::Ok)
}

/// Joins the server at `from`, copies it and takes over; the role that runs then.
///
/// # Errors
/// As `recover`.
pub(crate) async fn take_over(
    context: &Context,
    from: String,
    code: Option<String>,
    kit: &Kit,
) -> Result<Role, Failure> {
    let mut panel = context.sockets.panel().await?;
    let status = context.sockets.call(panel.status(StatusRequest {})).await?;
    match status.wanted() {
        Role::Idle => {
            let name = join::by_address(context, from, code).await?;
            context.out.note(&format!("paired with {}", printable(&name)))?;
        }
        Role::Client | Role::ReplicaClient => {
            context.out.note("this device is in the group already: going on from there")?;
        }
        other @ (Role::Unspecified | Role::Server | Role::ServerClient | Role::Replica) => {
            return Err(Failure::Failed(format!("this device is {} already", role_name(other))));
        }
    }
    wait::until(&context.sockets, "arrival of the group's data", wait::link_reached).await?;
    let request = SucceedRequest {
        recovery_kit: kit.text.reveal().to_owned(),
        kit_passphrase: kit.passphrase.reveal().to_owned(),
    };
    context.sockets.call_patiently(KIT_PATIENCE, panel.succeed(request)).await?;
    context.out.note("certified by the recovery kit; the copy comes")?;
    wait::until(&context.sockets, "the copy to be complete", copy_ready).await?;
    let request = PromoteRequest::default();
    let reply = context.sockets.call_patiently(TRANSFER_PATIENCE, panel.promote(request)).await?;
    role::reach(context, reply.wanted()).await?;
    Ok(reply.wanted())
}

/// Whether the replica follows at every commit, as this server knows.
pub(crate) fn replica_ready(status: &StatusReply) -> Verdict {
    match &status.replica {
        Some(ReplicationStatus { live: true, can_take_over: true, .. }) => Verdict::Reached,
        Some(ReplicationStatus { live: true, .. }) => Verdict::Stuck(
            "the replica cannot become the server: give the recovery kit as well (--kit)".to_owned(),
        ),
        Some(_) => Verdict::NotYet,
        None => Verdict::Stuck("no replica is set: name the device to move to".to_owned()),
    }
}

/// Whether this device's copy has what the server is known to have: by its word, which comes with its heartbeats, or by
/// what this device shows as a client.
fn copy_ready(status: &StatusReply) -> Verdict {
    let Some(CopyStatus { connected: true, position: Some(here), server, .. }) = &status.copy else {
        return Verdict::NotYet;
    };
    let shown = status.client.as_ref().and_then(|client| client.position.as_ref());
    let known = [server.as_ref(), shown].into_iter().flatten().map(|at| (at.epoch, at.sequence)).max();
    if known.is_some_and(|known| (here.epoch, here.sequence) >= known) {
        Verdict::Reached
    } else {
        Verdict::NotYet
    }
}

#[cfg(test)]
mod tests {
    use mfpsync_proto::panel::{ClientStatus, Revision};

    use super::*;

    #[test]
    fn a_copy_is_ready_when_it_has_what_the_server_is_known_to_have() {
        let at = |sequence| Some(Revision { epoch: 2, sequence });
        let status = |connected, position, server| StatusReply {
            copy: Some(CopyStatus { connected, position, server, ..CopyStatus::default() }),
            ..StatusReply::default()
        };
        assert_eq!(copy_ready(&StatusReply::default()), Verdict::NotYet);
        assert_eq!(copy_ready(&status(true, None, at(5))), Verdict::NotYet);
        assert_eq!(copy_ready(&status(true, at(4), at(5))), Verdict::NotYet);
        assert_eq!(copy_ready(&status(true, at(5), at(5))), Verdict::Reached);
        assert_eq!(copy_ready(&status(false, at(5), at(5))), Verdict::NotYet);
        let shown = |position, shown| StatusReply {
            client: Some(ClientStatus { position: shown, ..ClientStatus::default() }),
            ..status(true, position, None)
        };
        assert_eq!(copy_ready(&status(true, at(5), None)), Verdict::NotYet);
        assert_eq!(copy_ready(&shown(at(4), at(5))), Verdict::NotYet);
        assert_eq!(copy_ready(&shown(at(5), at(5))), Verdict::Reached);
    }

    #[test]
    fn a_replica_that_cannot_take_over_is_not_waited_for() {
        let status = |live, can_take_over| StatusReply {
            replica: Some(ReplicationStatus { live, can_take_over, ..ReplicationStatus::default() }),
            ..StatusReply::default()
        };
        assert_eq!(replica_ready(&status(true, true)), Verdict::Reached);
        assert_eq!(replica_ready(&status(false, false)), Verdict::NotYet);
        assert!(matches!(replica_ready(&status(true, false)), Verdict::Stuck(_)));
        assert!(matches!(replica_ready(&StatusReply::default()), Verdict::Stuck(_)));
    }
}
