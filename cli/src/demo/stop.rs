//! `mfpsync demo --stop DIR`: ends a demo that was kept.
//!
//! Signals only processes that the record in DIR names and that still run with DIR's configuration: an
//! id that was given to another process since then is left alone.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::fleet::RECORD;
use crate::command::Context;
use crate::exit::{Exit, Failure};
use crate::sockets::within;

const POLL: Duration = Duration::from_millis(20);
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// A process of the record.
#[derive(Debug, PartialEq, Eq)]
struct Recorded {
    name: String,
    pid: i32,
    config: String,
}

impl Recorded {
    /// Whether the process with this id is the one that was started.
    fn runs(&self) -> bool {
        let Ok(line) = fs::read(format!("/proc/{}/cmdline", self.pid)) else { return false };
        line.split(|byte| *byte == 0).any(|argument| argument == self.config.as_bytes())
    }
}

/// Ends the recorded daemons, waits for them and removes the directory.
///
/// # Errors
/// No record in the directory, or a daemon that does not end.
pub(crate) async fn run(context: &Context, directory: &Path) -> Result<Exit, Failure> {
    let path = directory.join(RECORD);
    let text = fs::read_to_string(&path).map_err(|source| Failure::File { action: "read", path, source })?;
    let recorded = parse(&text)
        .ok_or_else(|| Failure::BadInput(format!("{} is no directory of a demo", directory.display())))?;
    let running: Vec<_> = recorded.iter().filter(|process| process.runs()).collect();
    for process in &running {
        if let Some(pid) = Pid::from_raw(process.pid) {
            kill_process(pid, Signal::TERM)
                .map_err(|error| Failure::Failed(format!("stop {}: {error}", process.name)))?;
        }
    }
    within(STOP_PATIENCE, "the end of the daemons", async {
        while running.iter().any(|process| process.runs()) {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    })
    .await?;
    fs::remove_dir_all(directory).map_err(|source| Failure::File {
        action: "remove",
        path: directory.to_owned(),
        source,
    })?;
    let text =
        format!("{} of {} daemons were running and have ended; files removed", running.len(), recorded.len());
    context.out.answer(&text, &json!({ "stopped": running.len() }))?;
    Ok(Exit::Ok)
}

fn parse(text: &str) -> Option<Vec<Recorded>> {
    let record: Value = serde_json::from_str(text).ok()?;
    let process = |process: &Value| {
        let text = |name: &str| process[name].as_str().map(str::to_owned);
        let pid = i32::try_from(process["pid"].as_i64()?).ok().filter(|pid| *pid > 1)?;
        Some(Recorded { name: text("name")?, pid, config: text("config")? })
    };
    record["processes"].as_array()?.iter().map(process).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_processes_and_their_configuration() {
        let text = r#"{"processes":[{"name":"copier-1","pid":77,"config":"/t/c.toml"}]}"#;
        let expected = Recorded { name: "copier-1".to_owned(), pid: 77, config: "/t/c.toml".to_owned() };
        assert_eq!(parse(text), Some(vec![expected]));
        assert_eq!(parse("{}"), None);
        assert_eq!(parse(r#"{"processes":[{"name":"x","pid":1,"config":"y"}]}"#), None);
    }

    #[test]
    fn an_id_that_serves_another_process_is_not_ours() {
        let own = i32::try_from(std::process::id()).unwrap();
        let recorded =
            Recorded { name: "x".to_owned(), pid: own, config: "/not/an/argument.toml".to_owned() };
        assert!(!recorded.runs());
    }
}
