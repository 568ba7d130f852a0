//! The closed list of debug commands and how a line becomes one. Pure.

use serde_json::{Value, json};

use super::MAX_MINUTES;
use crate::telemetry::Level;

/// How long `log-filter` holds unless told otherwise, in minutes.
const DEFAULT_LOG_MINUTES: u32 = 15;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The list of commands.
    Help,
    /// Role, group, epoch and connection.
    State,
    /// Where copies and cursors stand.
    Positions,
    /// Who reigned, and who claims to.
    Reigns,
    /// Counters.
    Stats,
    /// What needs a person.
    Faults,
    /// Content hashes.
    Hashes,
    /// What is known about an item.
    Explain {
        /// Its key, as it was typed.
        item: String,
    },
    /// Another log level, for a time.
    LogFilter {
        /// The level.
        level: Level,
        /// How long it holds.
        minutes: u32,
    },
    /// The end of the session.
    Quit,
}

/// Name, arguments and purpose of each command, in the order of `help`.
const HELP: [(&str, &str, &str); 10] = [
    ("help", "", "this list"),
    ("state", "", "role, group, epoch and connection of this device"),
    ("positions", "", "where every copy and cursor stands"),
    ("reigns", "", "who reigned, who claims to, and what a change of reign has left here"),
    ("stats", "", "counters since the start"),
    ("faults", "", "conditions that need a person"),
    ("hashes", "", "content hashes of the mirror, of what readers see, and of the master"),
    ("explain", "ITEM", "what is known about one item, without its contents"),
    (
        "log-filter",
        "LEVEL [MINUTES]",
        "log level error, warn, info, debug or trace; goes back by itself after 15 minutes or those given, \
         and when the socket is locked",
    ),
    ("quit", "", "end this session"),
];

impl Command {
    /// Parses a line without its newline.
    ///
    /// # Errors
    /// A line for whoever typed it, saying what is wrong.
    pub fn parse(line: &str) -> Result<Self, String> {
        let line = line.trim();
        let (name, arguments) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let arguments = arguments.trim();
        let alone = |command: Self| {
            if arguments.is_empty() { Ok(command) } else { Err(format!("`{name}` takes no arguments")) }
        };
        match name {
            "help" => alone(Self::Help),
            "state" => alone(Self::State),
            "positions" => alone(Self::Positions),
            "reigns" => alone(Self::Reigns),
            "stats" => alone(Self::Stats),
            "faults" => alone(Self::Faults),
            "hashes" => alone(Self::Hashes),
            "quit" => alone(Self::Quit),
            "explain" if arguments.is_empty() => Err("usage: explain ITEM".to_owned()),
            "explain" => Ok(Self::Explain { item: arguments.to_owned() }),
            "log-filter" => log_filter(arguments),
            _ => Err("unknown command; try: help".to_owned()),
        }
    }

    /// The command's name, for the log and the count.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Help => "help",
            Self::State => "state",
            Self::Positions => "positions",
            Self::Reigns => "reigns",
            Self::Stats => "stats",
            Self::Faults => "faults",
            Self::Hashes => "hashes",
            Self::Explain { .. } => "explain",
            Self::LogFilter { .. } => "log-filter",
            Self::Quit => "quit",
        }
    }
}

/// The answer to `help`.
pub(super) fn help() -> Vec<Value> {
    let entry = |(command, arguments, about): &(&str, &str, &str)| json!({ "command": command, "arguments": arguments, "about": about });
    HELP.iter().map(entry).collect()
}

fn log_filter(arguments: &str) -> Result<Command, String> {
    let usage = || format!("usage: log-filter {} [1..{MAX_MINUTES}]", Level::NAMES.join("|"));
    let mut words = arguments.split_whitespace();
    let level = words.next().and_then(Level::from_name).ok_or_else(usage)?;
    let minutes = match words.next() {
        None => DEFAULT_LOG_MINUTES,
        Some(word) => {
            word.parse().ok().filter(|minutes| (1..=MAX_MINUTES).contains(minutes)).ok_or_else(usage)?
        }
    };
    if words.next().is_some() { Err(usage()) } else { Ok(Command::LogFilter { level, minutes }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_command_in_the_help_is_one() {
        for (name, arguments, _) in HELP {
            let line = match arguments {
                "" => name.to_owned(),
                "ITEM" => format!("{name} user/7/ui.language//language"),
                _ => format!("{name} debug 3"),
            };
            assert_eq!(Command::parse(&line).map(|command| command.name()), Ok(name));
        }
    }

    #[test]
    fn lines_are_parsed_with_their_arguments_or_told_why_not() {
        let explain = |item: &str| Ok(Command::Explain { item: item.to_owned() });
        let log = |level, minutes| Ok(Command::LogFilter { level, minutes });
        let usage = "usage: log-filter error|warn|info|debug|trace [1..240]";
        for (line, parsed) in [
            (" state \r", Ok(Command::State)),
            ("explain  a b ", explain("a b")),
            ("log-filter trace", log(Level::Trace, 15)),
            ("log-filter warn 240", log(Level::Warn, 240)),
            ("log-filter warn 241", Err(usage.to_owned())),
            ("log-filter warn 0", Err(usage.to_owned())),
            ("log-filter warn 1 2", Err(usage.to_owned())),
            ("log-filter", Err(usage.to_owned())),
            ("explain", Err("usage: explain ITEM".to_owned())),
            ("stats all", Err("`stats` takes no arguments".to_owned())),
            ("STATE", Err("unknown command; try: help".to_owned())),
            ("", Err("unknown command; try: help".to_owned())),
        ] {
            assert_eq!(Command::parse(line), parsed, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_a_command_or_an_error_that_does_not_repeat_it(line in "\\PC{0,80}") {
            if let Err(error) = Command::parse(&line) {
                let is_ours = ["usage: ", "unknown command", "`"].iter().any(|begin| error.starts_with(begin));
                prop_assert!(is_ours, "{}", error);
            }
        }
    }
}
