//! `mfpsync discover`, and the choice of a server by name for `mfpsync join`.
//!
//! A server is chosen by the person, never guessed: what the network says is a hint.

use std::time::Duration;

use clap::Args;
use mfpsync_proto::panel::{DiscoverReply, DiscoverRequest, DiscoveredServer};

use super::Context;
use crate::exit::{Exit, Failure};
use crate::output::printable;
use crate::render::discover as render;
use crate::secret::{self, Echo};

/// How long a name is looked for.
const SECONDS: u32 = 3;
/// Another scan may be under way; the daemon makes one at a time.
const PATIENCE: Duration = Duration::from_secs(35);

/// Show the servers that announce themselves on the local network
///
/// Anybody on the network can announce anything: what is shown is where to look. Pairing proves who is
/// there. Servers behind a router are not seen; join those by address.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync discover
  mfpsync discover --seconds 10
  mfpsync discover --json | jq -r '.servers[] | select(.pairing_open) | .name'")]
pub(crate) struct DiscoverArgs {
    /// How long to listen
    #[arg(long, default_value_t = SECONDS, value_parser = clap::value_parser!(u32).range(1..=30))]
    seconds: u32,
}

/// Lists the servers.
///
/// # Errors
/// Discovery is switched off, or an unreachable daemon.
pub(crate) async fn run(context: &Context, args: &DiscoverArgs) -> Result<Exit, Failure> {
    let reply = listen(context, args.seconds).await?;
    context.out.answer(&render::text(&reply), &render::json(&reply))?;
    Ok(Exit::Ok)
}

async fn listen(context: &Context, seconds: u32) -> Result<DiscoverReply, Failure> {
    let mut panel = context.sockets.panel().await?;
    context.out.note(&format!("listening for {seconds} s"))?;
    let patience = PATIENCE + Duration::from_secs(seconds.into());
    context.sockets.call_patiently(patience, panel.discover(DiscoverRequest { seconds })).await
}

/// The addresses of the one server of this name.
///
/// # Errors
/// None or several have it.
pub(crate) async fn by_name(context: &Context, name: &str) -> Result<Vec<String>, Failure> {
    let reply = listen(context, SECONDS).await?;
    named(&reply, name).map(|server| server.addresses.clone())
}

/// The addresses of the server that a person chooses from the list.
///
/// # Errors
/// None is there, or the answer is none of the list.
pub(crate) async fn by_choice(context: &Context) -> Result<Vec<String>, Failure> {
    let reply = listen(context, SECONDS).await?;
    if reply.servers.is_empty() {
        return Err(nothing_heard());
    }
    context.out.note(&render::numbered(&reply))?;
    let typed = secret::ask("Number of the server to join: ", Echo::On).await?;
    let number = typed.reveal().trim().parse::<usize>().ok();
    let chosen = number.and_then(|number| number.checked_sub(1)).and_then(|place| reply.servers.get(place));
    let chosen = chosen.ok_or_else(|| Failure::Usage("that is no number of the list".to_owned()))?;
    Ok(chosen.addresses.clone())
}

fn nothing_heard() -> Failure {
    Failure::Failed(
        "no server announces itself on this network; join by the address that `mfpsync pair open` shows at \
         the server"
            .to_owned(),
    )
}

fn named<'a>(reply: &'a DiscoverReply, name: &str) -> Result<&'a DiscoveredServer, Failure> {
    let called = |server: &&DiscoveredServer| server.name == name || server.group_name == name;
    let matching: Vec<_> = reply.servers.iter().filter(called).collect();
    match matching.as_slice() {
        [one] => Ok(one),
        [] if reply.servers.is_empty() => Err(nothing_heard()),
        [] => Err(Failure::Failed(format!(
            "no server or group on this network is called {:?}; there are:\n{}",
            printable(name),
            render::text(reply)
        ))),
        several => {
            let several = DiscoverReply { servers: several.iter().map(|one| (*one).clone()).collect() };
            Err(Failure::Failed(format!(
                "several servers are called {:?}; join the right one by its address:\n{}",
                printable(name),
                render::text(&several)
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str, group: &str, address: &str) -> DiscoveredServer {
        DiscoveredServer {
            name: name.to_owned(),
            group_name: group.to_owned(),
            addresses: vec![address.to_owned()],
            ..DiscoveredServer::default()
        }
    }

    #[test]
    fn a_name_finds_the_one_server_or_group_that_has_it() {
        let servers = vec![server("copier", "Office", "192.0.2.1:1"), server("mfp", "Branch", "192.0.2.2:1")];
        let reply = DiscoverReply { servers };
        assert_eq!(named(&reply, "mfp").unwrap().addresses, ["192.0.2.2:1"]);
        assert_eq!(named(&reply, "Office").unwrap().addresses, ["192.0.2.1:1"]);
        let told = named(&reply, "printer").unwrap_err().to_string();
        assert!(told.contains("copier") && told.contains("192.0.2.2:1"), "{told}");
    }

    #[test]
    fn of_two_with_one_name_none_is_guessed() {
        let servers = vec![
            server("copier", "Office", "192.0.2.1:1"),
            server("copier", "Branch", "192.0.2.2:1"),
            server("other", "Third", "192.0.2.3:1"),
        ];
        let told = named(&DiscoverReply { servers }, "copier").unwrap_err().to_string();
        assert!(told.contains("192.0.2.1:1") && told.contains("192.0.2.2:1"), "{told}");
        assert!(!told.contains("192.0.2.3:1"), "{told}");
    }
}
