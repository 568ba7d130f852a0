//! `mfpsync demo`: three real daemons on this machine, from an empty disk to a merged edit.
//!
//! `fleet` owns the processes and their files, `relay` the cable that can be cut, `story` what happens,
//! `arrival` how long things take, `stop` the end of a demo that was kept. Everything is done over the
//! same sockets and by the same functions as the other commands.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::command::Context;
use crate::exit::{Exit, Failure};
use crate::sockets::Sockets;
use fleet::Fleet;
use narrator::Narrator;

mod arrival;
mod fleet;
mod narrator;
mod relay;
mod stop;
mod story;

/// No step of the story takes longer on a healthy machine.
const STEP_PATIENCE: Duration = Duration::from_secs(30);

/// Show the product at work with three daemons on this machine
///
/// Starts a server and two clients in a temporary directory, pairs them by code, imports an address
/// list, cuts one client off, lets both edit the same entry, reconnects, and shows what was merged and
/// what was set aside. Ends every process it started and removes its files.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync demo
  mfpsync demo --keep
  mfpsync demo --stop /tmp/mfpsync-demo-1a2b3c")]
pub(crate) struct DemoArgs {
    /// Leave the daemons running and say how to try and how to stop them
    #[arg(long)]
    keep: bool,
    /// The daemon to start [default: mfpsyncd beside this command, or on the PATH]
    #[arg(long, value_name = "PATH")]
    daemon: Option<PathBuf>,
    /// End a demo that was kept, and remove its files
    #[arg(long, value_name = "DIR", conflicts_with_all = ["keep", "daemon"])]
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
    let told = tokio::select! {
        told = story::tell(&narrator, &mut fleet, args.keep) => told,
        interrupted = interruption() => Err(interrupted),
    };
    match told {
        Ok(()) if args.keep => {
            narrator.aside(&how_to_go_on(&fleet)?)?;
            fleet.let_go();
        }
        Ok(()) => {}
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

fn how_to_go_on(fleet: &Fleet) -> Result<String, Failure> {
    let run = |at: usize| fleet.device(at).map(|device| device.run_dir().display().to_string());
    let (server, printer) = (run(fleet::COPIER)?, run(fleet::PRINTER)?);
    Ok(format!(
        "
Still running. To try:
  mfpsync --run {server} status
  mfpsync --run {server} devices
  mfpsync --run {printer} watch --scope shared
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
