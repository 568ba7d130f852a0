//! The debug socket: one command line in, JSON lines out, the last with `"end": true`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Content hashes of one device, each a text that is equal where the content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashes {
    /// Of the data as last agreed with the server.
    pub mirror: Value,
    /// Of what readers see.
    pub visible: Value,
    /// Of the master database; at a server only.
    pub master: Option<Value>,
}

impl Hashes {
    /// Gathers the three parts from the answer's lines.
    pub(crate) fn from_answer(lines: &[Value]) -> Result<Self> {
        let part = |name: &str| lines.iter().find_map(|line| line.get(name).filter(|part| !part.is_null()));
        let needed = |name: &str| part(name).cloned().with_context(|| format!("no {name} in {lines:?}"));
        Ok(Self { mirror: needed("mirror")?, visible: needed("visible")?, master: part("master").cloned() })
    }
}

/// Sends one command and returns the lines of the answer.
pub(crate) async fn ask(socket: &Path, command: &str) -> Result<Vec<Value>> {
    let stream = UnixStream::connect(socket).await.context("connect to the debug socket")?;
    let (read, mut write) = stream.into_split();
    write.write_all(format!("{command}\n").as_bytes()).await?;
    let mut lines = BufReader::new(read).lines();
    let mut answer = Vec::new();
    while let Some(line) = lines.next_line().await? {
        let value: Value = serde_json::from_str(&line).with_context(|| format!("parse {line:?}"))?;
        let last = value["end"] == Value::Bool(true);
        answer.push(value);
        if last {
            return Ok(answer);
        }
    }
    bail!("the answer to {command:?} has no end: {answer:?}")
}
