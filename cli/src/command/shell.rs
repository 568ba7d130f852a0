//! `mfpsync completion` and `mfpsync man`: generated from the command line itself.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Context;
use crate::args::Cli;
use crate::exit::{Exit, Failure};

/// Print the completion script of a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync completion bash > /etc/bash_completion.d/mfpsync")]
pub(crate) struct CompletionArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Print the manual page
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync man > mfpsync.1")]
pub(crate) struct ManArgs {}

/// Prints the completion script.
///
/// # Errors
/// A closed standard output.
pub(crate) fn completion(context: &Context, args: &CompletionArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "mfpsync", &mut script);
    context.out.bytes(&script)?;
    Ok(Exit::Ok)
}

/// Prints the manual page: the command, then each subcommand.
///
/// # Errors
/// A closed standard output.
pub(crate) fn man(context: &Context) -> Result<Exit, Failure> {
    context.out.bytes(&page()?)?;
    Ok(Exit::Ok)
}

fn page() -> Result<Vec<u8>, Failure> {
    let mut command = Cli::command();
    command.build();
    let mut roff = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut roff).map_err(Failure::Output)?;
    for sub in leaves(&command, "mfpsync") {
        let page = clap_mangen::Man::new(sub);
        page.render_name_section(&mut roff).map_err(Failure::Output)?;
        page.render_synopsis_section(&mut roff).map_err(Failure::Output)?;
        page.render_description_section(&mut roff).map_err(Failure::Output)?;
        page.render_options_section(&mut roff).map_err(Failure::Output)?;
        page.render_extra_section(&mut roff).map_err(Failure::Output)?;
    }
    Ok(roff)
}

/// Commands that do something, each under its full name.
fn leaves(command: &clap::Command, path: &str) -> Vec<clap::Command> {
    let mut found = Vec::new();
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let path = format!("{path} {}", sub.get_name());
        if sub.has_subcommands() {
            found.extend(leaves(sub, &path));
        } else {
            found.push(sub.clone().display_name(path.clone()).bin_name(path));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_covers_nested_commands_and_exit_codes() {
        let text = String::from_utf8(page().unwrap()).unwrap();
        assert!(text.contains("start\\-server") && text.contains("Exit codes"), "manual is incomplete");
    }
}
