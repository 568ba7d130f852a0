//! `mfpsync demo`: real daemons on this machine, from an empty disk to a merged edit, or to another server.
//!
//! `fleet` owns the processes and their files, `file_server` a Samba, `relay` the cable that can be cut, `story` what happens,
//! `procedure` what happens to whole machines, `steps` what all of it begins and ends with, `arrival` how long
//! things take, `stop` the end of a demo that was kept. Everything is done over the same sockets and by the same
//! functions as the other commands.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::command::Context;
use crate::exit::{Exit, Failure};
use crate::sockets::Sockets;
use fleet::Fleet;
use narrator::Narrator;
use procedure::Procedure;

mod arrival;
mod file_server;
mod fleet;
mod narrator;
mod procedure;
mod relay;
mod steps;
mod stop;
mod story;

/// No step of the story takes longer on a healthy machine.
const STEP_PATIENCE: Duration = Duration::from_secs(30);

/// Show the product at work with a few daemons on this machine
///
/// Starts a server and two clients in a temporary directory, pairs them by code, imports an address
/// list, cuts one client off, lets both edit the same entry, reconnects, and shows what was merged and
/// what was set aside. With --procedure it tells instead how a machine goes and another one comes: what is
/// safe, what would be lost, what to do next. Ends every process it started and removes its files.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync demo
  mfpsync demo --procedure P3
  mfpsync demo --procedure P4 --keep
  mfpsync demo --procedure backup
  mfpsync demo --stop /tmp/mfpsync-demo-1a2b3c")]
pub(crate) struct DemoArgs {
    /// Tell this procedure
    #[arg(long, value_name = "P", value_enum, ignore_case = true)]
    procedure: Option<Procedure>,
    /// Leave the daemons running and say how to try and how to stop them
    #[arg(long)]
    keep: bool,
    /// The daemon to start [default: mfpsyncd beside this command, or on the PATH]
    #[arg(long, value_name = "PATH")]
    daemon: Option<PathBuf>,
    /// End a demo that was kept, and remove its files
    #[arg(long, value_name = "DIR", conflicts_with_all = ["procedure", "keep", "daemon"])]
    stop: Option<PathBuf>,
}

/// Tells the story, or ends a kept one.
///
/// # Errors
/// The step that failed; the daemons are stopped and their logs kept.
pub(crate) async fn run(context: &Context, args: DemoArgs) -> Result<Exit, Failure> {
    if let Some(directory) = args.stop {
        return stop::run(context, &directory).await;
    }
    let narrator = Narrator::new(context.out);
    let patience = context.sockets.timeout.max(STEP_PATIENCE);
    let mut fleet = Fleet::new(fleet::daemon(args.daemon)?, patience)?;
    let telling = async {
        match args.procedure {
            Some(procedure) => procedure::tell(&narrator, &mut fleet, procedure, args.keep).await,
            None => story::tell(&narrator, &mut fleet, args.keep).await,
        }
    };
    let told = tokio::select! {
        told = telling => told,
        interrupted = interruption() => Err(interrupted),
    };
    match told {
        Ok(ending) if args.keep => {
            narrator.aside(&how_to_go_on(&fleet, ending)?)?;
            fleet.let_go();
        }
        Ok(_) => {}
        Err(Failure::Interrupted) => {
            fleet.stop_all().await;
            return Err(Failure::Interrupted);
        }
        Err(failure) => {
            fleet.stop_all().await;
            let logs = fleet.keep_files();
            narrator.aside(&format!("the daemons are stopped; their logs are kept in {}", logs.display()))?;
            return Err(failure);
        }
    }
    Ok(Exit::Ok)
}

/// Ends when the operator presses Ctrl-C or the system asks the demo to end.
async fn interruption() -> Failure {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return Failure::Failed("watch for signals".to_owned());
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => Failure::Interrupted,
        _ = terminate.recv() => Failure::Interrupted,
    }
}

/// Who is what when the story is over.
#[derive(Debug, Clone, Copy)]
struct Ending {
    server: usize,
    client: usize,
}

fn how_to_go_on(fleet: &Fleet, ending: Ending) -> Result<String, Failure> {
    let run = |at: usize| fleet.device(at).map(|device| device.run_dir().display().to_string());
    let (server, client) = (run(ending.server)?, run(ending.client)?);
    Ok(format!(
        "
Still running. To try:
  mfpsync --run {server} status
  mfpsync --run {server} devices
  mfpsync --run {client} watch --scope shared
  mfpsync --run {server} item put shared address.shared mine class=email name=Mine mail=mine@example.com
To stop:
  mfpsync demo --stop {}",
        fleet.directory().display()
    ))
}

/// What one of the demo's devices is asked with.
fn context_of(narrator: &Narrator, sockets: Sockets) -> Context {
    Context { sockets, out: narrator.quiet() }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use crate::args::Cli;

    #[test]
    fn a_procedure_that_does_not_exist_is_answered_with_those_that_do() {
        let refused = Cli::try_parse_from(["mfpsync", "demo", "--procedure", "P6"]).unwrap_err().to_string();
        assert!(refused.contains("P1, P2, P3, P4, P5, backup"), "{refused}");
        assert!(Cli::try_parse_from(["mfpsync", "demo", "--procedure", "p4", "--keep"]).is_ok());
    }

    #[test]
    fn the_help_says_what_each_procedure_is() {
        let mut command = Cli::command();
        let help = command.find_subcommand_mut("demo").unwrap().render_long_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.contains("P3: The server is lost, and its replica takes over"), "{help}");
        assert!(help.contains("mfpsync demo --procedure P4"), "{help}");
    }
}
