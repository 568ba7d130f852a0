//! One file per group of commands: its arguments, its calls, its output.
//!
//! A command asks the sockets, hands the answer to `render` and prints it; it decides nothing the
//! daemon can decide.

use crate::args::{Cli, Command};
use crate::exit::{Exit, Failure};
use crate::output::Out;
use crate::sockets::Sockets;

pub(crate) mod address_book;
pub(crate) mod anew;
pub(crate) mod backup;
pub(crate) mod debug;
pub(crate) mod devices;
pub(crate) mod discover;
pub(crate) mod history;
pub(crate) mod item;
pub(crate) mod join;
pub(crate) mod joining;
pub(crate) mod log;
pub(crate) mod pair;
pub(crate) mod replication;
pub(crate) mod role;
pub(crate) mod service;
pub(crate) mod set_aside;
pub(crate) mod sharing;
pub(crate) mod shell;
pub(crate) mod status;
pub(crate) mod transfer;
pub(crate) mod unsent;
pub(crate) mod users;
pub(crate) mod watch;

/// What each command needs of its surroundings.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) sockets: Sockets,
    pub(crate) out: Out,
}

/// Runs the command that was asked for.
///
/// # Errors
/// Whatever kept it from being done.
pub(crate) async fn run(cli: Cli) -> Result<Exit, Failure> {
    let context = Context { sockets: cli.global.sockets(), out: cli.global.out() };
    match cli.command {
        Command::Status(args) => status::run(&context, &args).await,
        Command::Role(command) => role::run(&context, command).await,
        Command::Pair(command) => pair::run(&context, command).await,
        Command::Join(args) => join::join(&context, args).await,
        Command::Leave(args) => join::leave(&context, &args).await,
        Command::Devices(_) => devices::run(&context).await,
        Command::Discover(args) => discover::run(&context, &args).await,
        Command::Release(args) => devices::release(&context, args).await,
        Command::Users(command) => users::run(&context, command).await,
        Command::Item(command) => item::run(&context, command).await,
        Command::Watch(args) => watch::run(&context, args).await,
        Command::Import(args) => address_book::import(&context, args).await,
        Command::Export(args) => address_book::export(&context, args).await,
        Command::History(args) => history::history(&context, args).await,
        Command::Undo(args) => history::undo(&context, args).await,
        Command::SetAside(args) => set_aside::run(&context, args).await,
        Command::Sharing(command) => sharing::run(&context, command).await,
        Command::Replication(command) => replication::run(&context, command).await,
        Command::Transfer(args) => transfer::transfer(&context, args).await,
        Command::Recover(args) => transfer::recover(&context, args).await,
        Command::Unsent(args) => unsent::run(&context, args).await,
        Command::Backup(command) => backup::run(&context, *command).await,
        Command::Log(args) => log::run(&context, args).await,
        Command::Metrics(_) => service::metrics(&context).await,
        Command::Reload(_) => service::reload(&context).await,
        Command::Debug(command) => debug::run(&context, command).await,
        Command::Demo(args) => crate::demo::run(&context, args).await,
        Command::Completion(args) => shell::completion(&context, &args),
        Command::Man(_) => shell::man(&context),
    }
}

/// This device's clock, for ages only.
pub(crate) fn now_unix_millis() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
