//! `mfpsync join` and `mfpsync leave`: becoming a client of a group, and ceasing to be one.

use std::net::IpAddr;
use std::time::Duration;

use clap::{Args, Subcommand};
use mfpsync_proto::panel::{
    JoinPlanRequest, JoinReply, JoinRequest, LeaveReply, LeaveRequest, LookForServersReply,
    LookForServersRequest, Role, StatusRequest,
};
use serde_json::json;
use tonic::Code;

use super::joining::{self, AcceptArgs, CancelArgs, PlanArgs, PolicyArgs, UndoArgs};
use super::{Context, discover, status, unsent};
use crate::exit::{Exit, Failure};
use crate::output::printable;
use crate::render::status as render;
use crate::render::units::count;
use crate::render::unsent as unsent_render;
use crate::secret::{self, Echo};
use crate::wait;

/// Pairing is a few round trips and a deliberate effort against guessing on both sides.
const JOIN_PATIENCE: Duration = Duration::from_secs(30);
/// Leaving pushes first what waits.
const LEAVE_PATIENCE: Duration = Duration::from_secs(30);
/// Devices that are switched off keep one waiting.
const LOOK_PATIENCE: Duration = Duration::from_secs(30);
const CODE_DIGITS: usize = 8;

/// Become a client of a group: pair with its server by code, bring what this device has
///
/// Open pairing at the server first (`mfpsync pair open`). What both sides hold, by id or as address
/// entries for one destination, is settled by the policy. With --plan the group is not touched until
/// you have seen what would happen and said `mfpsync join accept`. What gives way is kept for 30 days:
/// `mfpsync join undo` takes the join back.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Policies, for all kinds or with KIND= for one:
  merge        field by field, by the kind's conflict rule, this device being the later one
  server-wins  the group's value; what only this device has is added
  device-wins  this device's value, also against a deletion
  fresh        what the group has; nothing of this device is offered

Examples:
  mfpsync join
  mfpsync join 'Copier, 2nd floor'
  mfpsync join 192.0.2.10:7450 --plan
  mfpsync join accept
  mfpsync join '[2001:db8::1]:7450' --code 12345678 --policy server-wins --policy shortcut=fresh
  mfpsync join 192.0.2.10:7450 --leave
  mfpsync join undo"
)]
pub(crate) struct JoinArgs {
    #[command(subcommand)]
    command: Option<JoinCommand>,
    /// Address and port of the server, an IPv6 address in brackets; or its name or its group's, as
    /// `mfpsync discover` shows it [default: choose from a list]
    #[arg(value_parser = target)]
    server: Option<Target>,
    /// The eight digits the server shows [default: ask]
    #[arg(long, value_parser = code)]
    code: Option<String>,
    #[command(flatten)]
    policies: PolicyArgs,
    /// Only pair and show what the join would do; decide with `mfpsync join accept` or `cancel`
    #[arg(long)]
    plan: bool,
    /// Leave the present group first, whose server is lost; edits it never got come along
    #[arg(long)]
    leave: bool,
    /// Stay until everything of the group has arrived (at most --timeout)
    #[arg(long, conflicts_with = "plan")]
    wait_current: bool,
}

/// What can be done about a join besides beginning it.
#[derive(Debug, Subcommand)]
pub(crate) enum JoinCommand {
    Plan(PlanArgs),
    Accept(AcceptArgs),
    Cancel(CancelArgs),
    Undo(UndoArgs),
}

/// Stop being a client: push what waits, free the slot, keep the data here
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync leave
  mfpsync unsent export unsent.json
  mfpsync leave --accept-unsent 3")]
pub(crate) struct LeaveArgs {
    /// Leave although N edits (the number `mfpsync status` shows) never reach the server
    #[arg(long, value_name = "N")]
    accept_unsent: Option<u64>,
}

/// The server to join, as a person gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Address(String),
    Name(String),
}

/// What has a colon or is an address is meant as one; names with a colon are chosen from the list.
fn target(text: &str) -> Result<Target, String> {
    if text.contains(':') || text.parse::<IpAddr>().is_ok() {
        address(text).map(Target::Address)
    } else if text.trim().is_empty() {
        Err("name a server, or leave it out to choose from a list".to_owned())
    } else {
        Ok(Target::Name(text.to_owned()))
    }
}

/// Catches a forgotten port before anybody types a code.
pub(super) fn address(text: &str) -> Result<String, String> {
    const EXPECTED: &str = "expected HOST:PORT, for example 192.0.2.10:7450 or [2001:db8::1]:7450";
    let (host, port) = text.rsplit_once(':').ok_or(EXPECTED)?;
    let host_ok = !host.is_empty() && (!host.contains(':') || (host.starts_with('[') && host.ends_with(']')));
    match port.parse::<u16>() {
        Ok(port) if port > 0 && host_ok => Ok(text.to_owned()),
        Ok(_) | Err(_) => Err(EXPECTED.to_owned()),
    }
}

/// Accepts the code as people write it: with a space or a dash in the middle.
pub(super) fn code(text: &str) -> Result<String, String> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
    if digits.len() == CODE_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(digits)
    } else {
        Err(format!("the code has {CODE_DIGITS} digits"))
    }
}

/// Joins a group, or sees to a join.
///
/// # Errors
/// A wrong code, an unreachable server, or a wait that failed.
pub(crate) async fn join(context: &Context, args: JoinArgs) -> Result<Exit, Failure> {
    match args.command {
        Some(JoinCommand::Plan(args)) => return joining::plan(context, &args).await,
        Some(JoinCommand::Accept(args)) => return joining::accept(context, &args).await,
        Some(JoinCommand::Cancel(_)) => return joining::cancel(context).await,
        Some(JoinCommand::Undo(args)) => return joining::undo(context, &args).await,
        None => {}
    }
    let addresses = match args.server {
        Some(Target::Address(address)) => vec![address],
        Some(Target::Name(name)) => discover::by_name(context, &name).await?,
        None => discover::by_choice(context).await?,
    };
    let code = given_or_asked(args.code).await?;
    if args.leave {
        leave_lost(context).await?;
    }
    let policies = args.policies.wire();
    let request =
        JoinRequest { code, policies: policies.clone(), review: args.plan, ..JoinRequest::default() };
    let reply = pair(context, addresses, request).await.map_err(|source| stays(args.leave, source))?;
    if args.plan {
        context.out.note(&joined(&reply))?;
        return joining::show_plan(context, JoinPlanRequest { policies, ..JoinPlanRequest::default() }).await;
    }
    if reply.needs_decision {
        // It will not go on by itself, so there is nothing to wait for.
        context.out.answer(&joined(&reply), &joined_json(&reply))?;
        return Ok(Exit::NeedsPerson);
    }
    if !args.wait_current {
        context.out.answer(&joined(&reply), &joined_json(&reply))?;
        return Ok(Exit::Ok);
    }
    context.out.note(&joined(&reply))?;
    let status = wait::until(&context.sockets, "arrival of the group's data", wait::link_reached).await?;
    let mut json = joined_json(&reply);
    json["status"] = render::json(&status);
    context.out.answer("everything of the group is here", &json)?;
    Ok(status::exit_of(&status))
}

/// Leaves a group whose server is lost, if that is so. What waits for it stays as the device's own.
///
/// # Errors
/// Somebody could still serve the group, or the daemon's refusal.
async fn leave_lost(context: &Context) -> Result<(), Failure> {
    let mut panel = context.sockets.panel().await?;
    let status = context.sockets.call(panel.status(StatusRequest {})).await?;
    if status.wanted() == Role::Client {
        found_lost(context).await?;
    }
    leave_at_once(context).await
}

/// Looks for devices that could serve the group; what this one holds besides.
///
/// # Errors
/// One of them answers, or the daemon's refusal.
pub(super) async fn found_lost(context: &Context) -> Result<LookForServersReply, Failure> {
    let mut panel = context.sockets.panel().await?;
    let looking = panel.look_for_servers(LookForServersRequest {});
    let found = context.sockets.call_patiently(LOOK_PATIENCE, looking).await?;
    if found.answering.is_empty() {
        return Ok(found);
    }
    let names: Vec<_> = found.answering.iter().map(|name| printable(name)).collect();
    Err(Failure::Failed(format!(
        "the group is not lost: {} could serve and answers; nothing was changed",
        names.join(", ")
    )))
}

/// Leaves a group that was found to be lost, or goes on with that where an attempt of before was cut short.
///
/// # Errors
/// The daemon's refusal.
pub(super) async fn leave_at_once(context: &Context) -> Result<(), Failure> {
    let mut panel = context.sockets.panel().await?;
    let status = context.sockets.call(panel.status(StatusRequest {})).await?;
    // The role comes first: with it the data may still be the group's.
    if status.wanted() == Role::Idle && status.group.is_none() {
        return Ok(());
    }
    let waiting = status.client.map(|client| client.waiting);
    let request = LeaveRequest { accept_unsent: waiting };
    let reply = context.sockets.call_patiently(LEAVE_PATIENCE, panel.leave(request)).await?;
    let unsent = count(reply.unsent, "edit", "edits");
    context
        .out
        .note(&format!("left the lost group; its data stays here, and {unsent} that its server never got"))
}

/// What the operator has to know of a join that failed behind that.
fn stays(left: bool, source: Failure) -> Failure {
    if !left {
        return source;
    }
    Failure::Halfway {
        stands: "this device has left its group and has its data; run the command again to join",
        source: Box::new(source),
    }
}

async fn given_or_asked(given: Option<String>) -> Result<String, Failure> {
    match given {
        Some(code) => Ok(code),
        None => {
            let typed = secret::ask("Code shown by the server: ", Echo::On).await?;
            code(typed.reveal()).map_err(Failure::Usage)
        }
    }
}

/// Pairs with the server at `address`, by the default policies; the group's name.
///
/// # Errors
/// A wrong code, an unreachable server, or what this device holds needs a decision first.
pub(super) async fn by_address(
    context: &Context,
    address: String,
    code: Option<String>,
) -> Result<String, Failure> {
    let request = JoinRequest { code: given_or_asked(code).await?, ..JoinRequest::default() };
    let reply = pair(context, vec![address], request).await?;
    if reply.needs_decision { Err(Failure::NeedsPerson(joined(&reply))) } else { Ok(reply.group_name) }
}

/// Tries the addresses of one server until one answers: a try with the code is spent only there.
async fn pair(context: &Context, addresses: Vec<String>, request: JoinRequest) -> Result<JoinReply, Failure> {
    let mut panel = context.sockets.panel().await?;
    let mut unreached = Failure::Failed("the server announces no address".to_owned());
    for address in addresses {
        let request = JoinRequest { address, ..request.clone() };
        match context.sockets.call_patiently(JOIN_PATIENCE, panel.join(request)).await {
            Err(Failure::Refused(status)) if status.code() == Code::Unavailable => {
                unreached = Failure::Refused(status);
            }
            answer => return answer,
        }
    }
    Err(unreached)
}

fn joined(reply: &JoinReply) -> String {
    let own = match reply.own_items {
        0 => "this device brings nothing".to_owned(),
        number => format!("this device brings {}", count(number, "item", "items")),
    };
    let paired = format!("paired with {}; {own}", printable(&reply.group_name));
    if reply.unsent_items == 0 {
        return paired;
    }
    format!(
        "{paired}, {} with edits that this group never got when the device was in it before; they are offered \
         only when you have said so: `mfpsync join plan --unsent` names them, `mfpsync join accept` carries \
         the join out, `mfpsync join cancel` gives it up",
        reply.unsent_items
    )
}

fn joined_json(reply: &JoinReply) -> serde_json::Value {
    json!({
        "group_id": reply.group_id,
        "group_name": reply.group_name,
        "own_items": reply.own_items,
        "unsent_items": reply.unsent_items,
        "needs_decision": reply.needs_decision,
    })
}

/// Leaves the group.
///
/// # Errors
/// A refusal while edits wait and their number was not accepted.
pub(crate) async fn leave(context: &Context, args: &LeaveArgs) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    let request = LeaveRequest { accept_unsent: args.accept_unsent };
    if args.accept_unsent.is_none() && !context.out.json {
        name_unsent(context).await?;
    }
    let reply = context.sockets.call_patiently(LEAVE_PATIENCE, panel.leave(request)).await?;
    context.out.answer(&left(&reply), &left_json(&reply))?;
    Ok(Exit::Ok)
}

/// What waits and may stay behind. Scripts have `mfpsync unsent list --json`.
async fn name_unsent(context: &Context) -> Result<(), Failure> {
    let mut panel = context.sockets.panel().await?;
    let status = context.sockets.call(panel.status(StatusRequest {})).await?;
    if status.client.is_none_or(|client| client.waiting == 0) {
        return Ok(());
    }
    context.out.note(&unsent_render::text(&unsent::fetch(context, false).await?))
}

pub(super) fn left_json(reply: &LeaveReply) -> serde_json::Value {
    json!({ "unsent": reply.unsent, "slot_freed": reply.slot_freed })
}

/// How the group was left, in a sentence.
pub(crate) fn left(reply: &LeaveReply) -> String {
    let slot = if reply.slot_freed {
        "the server has freed its slot"
    } else {
        "the server was not reached: release this device there to free its slot"
    };
    let unsent = match reply.unsent {
        0 => "every edit had reached the server".to_owned(),
        number => format!("{} never reached the server and stay here", count(number, "edit", "edits")),
    };
    format!("left the group, the data stays on this device; {unsent}; {slot}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_host_and_port() {
        for good in ["192.0.2.1:7401", "copier.example.com:1", "[2001:db8::1]:7401"] {
            assert_eq!(address(good).unwrap(), good);
        }
        for bad in ["192.0.2.1", ":7401", "host:0", "host:70000", "2001:db8::1:7401", "host:"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_server_is_given_by_address_or_by_name() {
        assert_eq!(target("192.0.2.1:1"), Ok(Target::Address("192.0.2.1:1".to_owned())));
        assert_eq!(target("Copier, 2nd floor"), Ok(Target::Name("Copier, 2nd floor".to_owned())));
        for bad in ["192.0.2.1", "2001:db8::1", "host:", " "] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_code_may_be_typed_in_halves() {
        assert_eq!(code("1234 5678").unwrap(), "12345678");
        assert_eq!(code("1234-5678\n").unwrap(), "12345678");
        assert!(code("1234567").is_err());
        assert!(code("1234567x").is_err());
    }

    #[test]
    fn leaving_says_what_stays_behind() {
        let reply = LeaveReply { unsent: 1, slot_freed: false, ..LeaveReply::default() };
        let text = left(&reply);
        assert!(text.contains("1 edit never reached") && text.contains("release this device"), "{text}");
    }
}
