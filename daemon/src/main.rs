//! `mfpsyncd`: understands the command line, reads the configuration, sets up the log, and hands over
//! to `app`. Anything that people read before the log exists is written here.

use std::io::{Write, stderr, stdout};
use std::path::Path;
use std::process::ExitCode;

use mfpsync_daemon::app;
use mfpsync_daemon::command_line::{self, HELP, Invocation};
use mfpsync_daemon::config::Config;
use mfpsync_daemon::fault::Exit;
use mfpsync_daemon::telemetry;

fn main() -> ExitCode {
    let done = match command_line::parse(lexopt::Parser::from_env()) {
        Ok(Invocation::Help) => say(HELP.trim_end()),
        Ok(Invocation::Version) => say(concat!("mfpsyncd ", env!("CARGO_PKG_VERSION"))),
        Ok(Invocation::CheckConfig(path)) => load(&path).and_then(|_| say("the configuration is valid")),
        Ok(Invocation::SetControlFileAside(path)) => load(&path).and_then(|config| {
            let aside = app::set_control_file_aside(&config).map_err(told)?;
            say(&format!("the control file is now {}", aside.display()))
        }),
        Ok(Invocation::Run(path)) => load(&path).and_then(run),
        Err(error) => Err((Exit::Usage, format!("{error}; try: mfpsyncd --help"))),
    };
    done.unwrap_or_else(|(exit, text)| {
        // Nobody listens on standard error: the exit code says it all the same.
        let _ = writeln!(stderr(), "{text}");
        exit
    })
    .into()
}

/// How the process ends, or also with which words.
type Outcome<T> = Result<T, (Exit, String)>;

fn run(config: Config) -> Outcome<Exit> {
    let log = telemetry::init(config.log_level).map_err(|error| (Exit::Internal, error.to_string()))?;
    app::run(config, log).map_err(told)
}

fn load(path: &Path) -> Outcome<Config> {
    Config::load(path).map_err(|error| (Exit::Config, error.to_string()))
}

fn say(text: &str) -> Outcome<Exit> {
    match writeln!(stdout(), "{text}") {
        Ok(()) => Ok(Exit::Clean),
        Err(error) => Err((Exit::Unavailable, format!("write to standard output: {error}"))),
    }
}

fn told(error: app::AppError) -> (Exit, String) {
    (error.exit(), error.text())
}
