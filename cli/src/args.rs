//! The whole command line: global options and the list of commands.
//!
//! Each command's own arguments stand beside its code in `command/`; this file only lists them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::command::{
    address_book, backup, debug, devices, discover, history, item, join, log, pair, replication, role,
    service, set_aside, sharing, shell, status, transfer, unsent, users, watch,
};
use crate::demo;
use crate::exit::EXIT_HELP;
use crate::output::Out;
use crate::sockets::Sockets;

/// Keeps personal data of office printers in sync: the operator's command.
///
/// Talks to the mfpsyncd of this device over its Unix sockets. Everything the operator's page can do
/// this command can do; with --json for scripts.
#[derive(Debug, Parser)]
#[command(name = "mfpsync", version, after_help = EXIT_HELP, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Answer in JSON: one value, or one object a line for streams
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Directory of the daemon's sockets
    #[arg(long, global = true, value_name = "DIR", env = "MFPSYNC_RUN", default_value = "/run/mfpsync")]
    run: PathBuf,
    /// How long to wait for an answer, or for what --wait names
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

impl Global {
    pub(crate) fn sockets(&self) -> Sockets {
        Sockets::new(&self.run, Duration::from_secs(self.timeout))
    }

    pub(crate) fn out(&self) -> Out {
        Out { json: self.json }
    }
}

/// All commands, in the order of the help.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Status(status::StatusArgs),
    #[command(subcommand)]
    Role(role::RoleCommand),
    #[command(subcommand)]
    Pair(pair::PairCommand),
    Discover(discover::DiscoverArgs),
    Join(join::JoinArgs),
    Leave(join::LeaveArgs),
    Devices(devices::DevicesArgs),
    Release(devices::ReleaseArgs),
    #[command(subcommand, alias = "user")]
    Users(users::UsersCommand),
    #[command(subcommand)]
    Item(item::ItemCommand),
    Watch(watch::WatchArgs),
    Import(address_book::ImportArgs),
    Export(address_book::ExportArgs),
    History(history::HistoryArgs),
    Undo(history::UndoArgs),
    SetAside(set_aside::SetAsideArgs),
    Unsent(unsent::UnsentArgs),
    #[command(subcommand)]
    Sharing(sharing::SharingCommand),
    #[command(subcommand)]
    Replication(replication::ReplicationCommand),
    Transfer(transfer::TransferArgs),
    Recover(transfer::RecoverArgs),
    #[command(subcommand)]
    Backup(Box<backup::BackupCommand>),
    Log(log::LogArgs),
    Metrics(service::MetricsArgs),
    Reload(service::ReloadArgs),
    #[command(subcommand)]
    Debug(debug::DebugCommand),
    Demo(demo::DemoArgs),
    Completion(shell::CompletionArgs),
    Man(shell::ManArgs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_may_stand_after_the_command() {
        let cli = Cli::try_parse_from(["mfpsync", "status", "--json", "--run", "/tmp/x", "--timeout", "3"])
            .unwrap();
        assert!(cli.global.json);
        assert_eq!(cli.global.sockets().timeout, Duration::from_secs(3));
    }

    #[test]
    fn every_command_explains_itself_and_gives_an_example() {
        fn check(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands() {
                let path = format!("{path} {}", sub.get_name());
                assert!(sub.get_about().is_some(), "{path} has no help");
                if sub.has_subcommands() {
                    check(sub, &path);
                } else {
                    let examples = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                    assert!(examples.contains(&path), "{path} has no example");
                }
            }
        }
        check(&Cli::command(), "mfpsync");
    }
}
