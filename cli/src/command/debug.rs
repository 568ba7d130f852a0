//! `mfpsync debug`: the service engineer's socket, opened, used and closed.
//!
//! One text line goes in; JSON objects come out, one a line, the last with `"end": true`. What they
//! mean is documented with the daemon; they are passed on untouched.

use clap::{Args, Subcommand};
use mfpsync_proto::panel::{LockDebugRequest, UnlockDebugRequest};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::Context;
use crate::exit::{Exit, Failure};
use crate::sockets::{Sockets, within};

/// Look inside the daemon, without personal data
#[derive(Debug, Subcommand)]
pub(crate) enum DebugCommand {
    Unlock(UnlockArgs),
    Lock(LockArgs),
    Run(RunArgs),
}

/// Open the debug socket for a while
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync debug unlock --minutes 30")]
pub(crate) struct UnlockArgs {
    /// Minutes until it closes by itself, at most 240
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=240))]
    minutes: u32,
}

/// Close the debug socket
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync debug lock")]
pub(crate) struct LockArgs {}

/// Send one command to the open debug socket and print its JSON lines
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync debug run state
  mfpsync debug run explain shared address.shared s1")]
pub(crate) struct RunArgs {
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    words: Vec<String>,
}

/// Runs one debug command.
///
/// # Errors
/// The daemon's refusal, or a locked socket.
pub(crate) async fn run(context: &Context, command: DebugCommand) -> Result<Exit, Failure> {
    match command {
        DebugCommand::Unlock(args) => {
            let mut panel = context.sockets.panel().await?;
            let request = UnlockDebugRequest { minutes: args.minutes };
            let reply = context.sockets.call(panel.unlock_debug(request)).await?;
            let text = format!("open for {} min: {}", reply.minutes, reply.path);
            context.out.answer(&text, &json!({ "path": reply.path, "minutes": reply.minutes }))?;
        }
        DebugCommand::Lock(_) => {
            let mut panel = context.sockets.panel().await?;
            context.sockets.call(panel.lock_debug(LockDebugRequest {})).await?;
            context.out.answer("the debug socket is closed", &json!({ "locked": true }))?;
        }
        DebugCommand::Run(args) => {
            for line in ask(&context.sockets, &args.words.join(" ")).await? {
                context.out.bytes(format!("{line}\n").as_bytes())?;
            }
        }
    }
    Ok(Exit::Ok)
}

/// Sends one command and collects its answer lines.
///
/// # Errors
/// `Failure::Usage` for a command that is more than one line, a locked socket, or a lost connection.
pub(crate) async fn ask(sockets: &Sockets, command: &str) -> Result<Vec<String>, Failure> {
    if command.contains(['\n', '\r']) {
        return Err(Failure::Usage("a debug command is one line".to_owned()));
    }
    within(sockets.timeout, "the answer to the debug command", async {
        let (read, mut write) = sockets.debug().await?.into_split();
        let lost = |_error| Failure::ConnectionLost;
        write.write_all(format!("{command}\n").as_bytes()).await.map_err(lost)?;
        let mut lines = BufReader::new(read).lines();
        let mut answer = Vec::new();
        while let Some(line) = lines.next_line().await.map_err(lost)? {
            let last = is_last(&line);
            answer.push(line);
            if last {
                return Ok(answer);
            }
        }
        Err(Failure::ConnectionLost)
    })
    .await
}

fn is_last(line: &str) -> bool {
    serde_json::from_str(line).is_ok_and(|answer: Value| answer["end"] == json!(true))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_a_true_end_member_ends_an_answer() {
        assert!(is_last(r#"{"a":1,"end":true}"#));
        assert!(!is_last(r#"{"text":"\"end\":true"}"#));
        assert!(!is_last(r#"{"end":false}"#));
        assert!(!is_last("not json"));
    }

    #[tokio::test]
    async fn an_answer_is_read_up_to_its_end_line() {
        let run = tempfile::tempdir().unwrap();
        let listener = tokio::net::UnixListener::bind(run.path().join("debug.sock")).unwrap();
        let sockets = Sockets::new(run.path(), Duration::from_secs(5));
        let serve = async {
            let (stream, _peer) = listener.accept().await.unwrap();
            let (read, mut write) = stream.into_split();
            let asked = BufReader::new(read).lines().next_line().await.unwrap().unwrap();
            write.write_all(b"{\"n\":1}\n{\"n\":2,\"end\":true}\n{\"n\":3}\n").await.unwrap();
            asked
        };
        let (asked, answer) = tokio::join!(serve, ask(&sockets, "explain shared x"));
        assert_eq!(asked, "explain shared x");
        assert_eq!(answer.unwrap(), [r#"{"n":1}"#, r#"{"n":2,"end":true}"#]);
    }

    #[tokio::test]
    async fn a_command_cannot_smuggle_a_second_line() {
        let sockets = Sockets::new("/nonexistent", Duration::from_secs(1));
        assert_eq!(ask(&sockets, "state\nlock").await.unwrap_err().exit(), Exit::Usage);
    }
}
