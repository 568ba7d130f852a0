//! `mfpsync`: the operator's and integrator's command, thin over the local sockets of `mfpsyncd`.
//!
//! Start at [`args`], the whole command line; [`command`] holds one file per group of commands,
//! [`render`] turns answers into text and JSON, [`book`] carries address books in and out, [`demo`]
//! starts real daemons. Nothing here opens a database or speaks the network protocol.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::exit::{Exit, Failure};

mod args;
mod book;
mod command;
mod confirm;
mod demo;
mod exit;
#[cfg(test)]
mod fake;
mod kit;
mod output;
mod render;
mod secret;
mod secret_file;
mod since;
mod sockets;
mod value;
mod wait;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.global.json;
    let exit = match run(cli) {
        Ok(exit) => exit,
        Err(failure) => {
            report(&failure, json);
            failure.exit()
        }
    };
    ExitCode::from(exit as u8)
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("start the runtime: {error}")))?;
    let result = runtime.block_on(command::run(cli));
    // A prompt nobody answers must not hold the process after Ctrl-C.
    runtime.shutdown_background();
    result
}

/// Standard error is the last resort: when it is closed as well, the exit code alone must do.
fn report(failure: &Failure, json: bool) {
    if failure.exit() == Exit::Ok {
        return;
    }
    let text = if json {
        serde_json::json!({ "error": failure.to_string(), "exit": failure.exit() as u8 }).to_string()
    } else {
        format!("mfpsync: {failure}")
    };
    let _closed = writeln!(std::io::stderr(), "{text}");
}
