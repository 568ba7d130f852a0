//! The command line of `mfpsyncd`: what it means and the help text. Reads no file and starts nothing.

use std::path::PathBuf;

use lexopt::{Arg, ValueExt};

/// Where the configuration is looked for unless told otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/mfpsync/mfpsyncd.toml";

/// The text of `--help`.
pub const HELP: &str = "\
mfpsyncd keeps the personal data of a group of multifunction printers in sync.

Usage: mfpsyncd [--config FILE] [--check-config | --set-control-file-aside]

  -c, --config FILE           configuration (default /etc/mfpsync/mfpsyncd.toml)
      --check-config          say what is wrong with the configuration, and end
      --set-control-file-aside
                              rename a damaged control file to control.damaged-<n>, and end;
                              the role of this device has to be chosen again afterwards
  -V, --version               print the version
  -h, --help                  print this

Examples:
  mfpsyncd --check-config --config ./mfpsyncd.toml
  mfpsyncd --config /etc/mfpsync/mfpsyncd.toml

Signals: TERM and INT stop, HUP reads the log level of the configuration again.

Exit codes:
   0  stopped when asked, or the check passed
  64  the command line was not understood
  65  data on disk is damaged or from a newer release
  69  something needed is not available at the moment
  70  a part did not stop in time, or the system refused something basic
  74  the storage cannot be used
  75  another mfpsyncd uses the same data directory
  78  the configuration is wrong
";

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Run the daemon.
    Run(PathBuf),
    /// Check a configuration.
    CheckConfig(PathBuf),
    /// Set a control file that cannot be used aside.
    SetControlFileAside(PathBuf),
    /// Print the version.
    Version,
    /// Print [`HELP`].
    Help,
}

/// Understands the arguments.
///
/// # Errors
/// What was not understood.
pub fn parse(mut arguments: lexopt::Parser) -> Result<Invocation, lexopt::Error> {
    let mut config = PathBuf::from(DEFAULT_CONFIG);
    let mut action: fn(PathBuf) -> Invocation = Invocation::Run;
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Short('c') | Arg::Long("config") => config = arguments.value()?.parse()?,
            Arg::Long("check-config") => action = Invocation::CheckConfig,
            Arg::Long("set-control-file-aside") => action = Invocation::SetControlFileAside,
            Arg::Short('V') | Arg::Long("version") => return Ok(Invocation::Version),
            Arg::Short('h') | Arg::Long("help") => return Ok(Invocation::Help),
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => return Err(argument.unexpected()),
        }
    }
    Ok(action(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Invocation, String> {
        parse(lexopt::Parser::from_args(arguments)).map_err(|error| error.to_string())
    }

    #[test]
    fn each_option_means_what_the_help_says() {
        let path = |path: &str| PathBuf::from(path);
        for (arguments, invocation) in [
            (&[][..], Invocation::Run(path(DEFAULT_CONFIG))),
            (&["--config", "a"], Invocation::Run(path("a"))),
            (&["-ca", "--check-config"], Invocation::CheckConfig(path("a"))),
            (&["--check-config", "--config=a"], Invocation::CheckConfig(path("a"))),
            (&["--set-control-file-aside"], Invocation::SetControlFileAside(path(DEFAULT_CONFIG))),
            (&["-V"], Invocation::Version),
            (&["--config", "a", "--help"], Invocation::Help),
        ] {
            assert_eq!(parsed(arguments), Ok(invocation), "{arguments:?}");
        }
        for arguments in [&["--confg"][..], &["file"], &["--config"], &["--check-config=yes"]] {
            assert!(parsed(arguments).is_err(), "{arguments:?}");
        }
    }
}
