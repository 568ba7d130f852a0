//! `mfpsync join` and `mfpsync leave`: becoming a client of a group, and ceasing to be one.

use std::time::Duration;

use clap::{Args, ValueEnum};
use mfpsync_proto::panel::{JoinPolicy, JoinReply, JoinRequest, LeaveReply, LeaveRequest};
use serde_json::json;

use super::{Context, status};
use crate::exit::{Exit, Failure};
use crate::output::printable;
use crate::render::status as render;
use crate::render::units::count;
use crate::secret::{self, Echo};
use crate::wait;

/// Pairing is a few round trips and a deliberate effort against guessing on both sides.
const JOIN_PATIENCE: Duration = Duration::from_secs(30);
/// Leaving pushes first what waits.
const LEAVE_PATIENCE: Duration = Duration::from_secs(30);
const CODE_DIGITS: usize = 8;

/// Pair with a server by its code and become a client of its group
///
/// Open pairing at the server first (`mfpsync pair open`). What both sides hold already is settled by
/// the policy; what is replaced stays in the history for 30 days.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync join 192.0.2.10:7450
  mfpsync join '[2001:db8::1]:7450' --code 12345678 --policy server-wins --wait-current")]
pub(crate) struct JoinArgs {
    /// Address and port of the server, an IPv6 address in brackets
    #[arg(value_parser = address)]
    address: String,
    /// The eight digits the server shows [default: ask]
    #[arg(long, value_parser = code)]
    code: Option<String>,
    /// Which side's entries win where both hold the same
    #[arg(long, value_enum, default_value_t = Policy::Merge)]
    policy: Policy,
    /// Stay until everything of the group has arrived (at most --timeout)
    #[arg(long)]
    wait_current: bool,
}

/// Whose entries win in a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// Field by field, as if both had been edited
    Merge,
    /// The group's entries win
    ServerWins,
    /// This device's entries win
    DeviceWins,
    /// Start empty; this device's entries are only kept in the history
    Fresh,
}

impl From<Policy> for JoinPolicy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Merge => Self::Merge,
            Policy::ServerWins => Self::ServerWins,
            Policy::DeviceWins => Self::DeviceWins,
            Policy::Fresh => Self::Fresh,
        }
    }
}

/// Stop being a client: push what waits, free the slot, keep the data here
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync leave
  mfpsync leave --accept-unsent 3")]
pub(crate) struct LeaveArgs {
    /// Leave although N edits (the number `mfpsync status` shows) never reach the server
    #[arg(long, value_name = "N")]
    accept_unsent: Option<u64>,
}

/// Catches a forgotten port before anybody types a code.
fn address(text: &str) -> Result<String, String> {
    const EXPECTED: &str = "expected HOST:PORT, for example 192.0.2.10:7450 or [2001:db8::1]:7450";
    let (host, port) = text.rsplit_once(':').ok_or(EXPECTED)?;
    let host_ok = !host.is_empty() && (!host.contains(':') || (host.starts_with('[') && host.ends_with(']')));
    match port.parse::<u16>() {
        Ok(port) if port > 0 && host_ok => Ok(text.to_owned()),
        Ok(_) | Err(_) => Err(EXPECTED.to_owned()),
    }
}

/// Accepts the code as people write it: with a space or a dash in the middle.
fn code(text: &str) -> Result<String, String> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
    if digits.len() == CODE_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(digits)
    } else {
        Err(format!("the code has {CODE_DIGITS} digits"))
    }
}

/// Joins a group.
///
/// # Errors
/// A wrong code, an unreachable server, or a wait that failed.
pub(crate) async fn join(context: &Context, args: JoinArgs) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    let code = match args.code {
        Some(code) => code,
        None => {
            let typed = secret::ask("Code shown by the server: ", Echo::On).await?;
            code(typed.reveal()).map_err(Failure::Usage)?
        }
    };
    let policy = JoinPolicy::from(args.policy).into();
    let request = JoinRequest { address: args.address, code, policy };
    let reply = context.sockets.call_patiently(JOIN_PATIENCE, panel.join(request)).await?;
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

fn joined(reply: &JoinReply) -> String {
    let offered = match reply.offered {
        0 => "nothing of this device was offered".to_owned(),
        number => format!("{} of this device offered", count(number, "entry", "entries")),
    };
    format!("joined {}; {offered}", printable(&reply.group_name))
}

fn joined_json(reply: &JoinReply) -> serde_json::Value {
    json!({ "group_id": reply.group_id, "group_name": reply.group_name, "offered": reply.offered })
}

/// Leaves the group.
///
/// # Errors
/// A refusal while edits wait and their number was not accepted.
pub(crate) async fn leave(context: &Context, args: &LeaveArgs) -> Result<Exit, Failure> {
    let mut panel = context.sockets.panel().await?;
    let request = LeaveRequest { accept_unsent: args.accept_unsent };
    let reply = context.sockets.call_patiently(LEAVE_PATIENCE, panel.leave(request)).await?;
    let json = json!({ "unsent": reply.unsent, "slot_freed": reply.slot_freed });
    context.out.answer(&left(&reply), &json)?;
    Ok(Exit::Ok)
}

fn left(reply: &LeaveReply) -> String {
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
