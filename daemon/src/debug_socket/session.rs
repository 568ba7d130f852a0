//! One debug session: lines in, JSON lines out, every wait bounded.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::command::{Command, help};
use super::{Answer, Inspect, Unanswered};
use crate::tasks::Tasks;
use crate::telemetry::{LogLevel, Stats};

/// The longest request, newline included.
const LINE_BYTES: u64 = 4 << 10;
/// The longest answer.
const ANSWER_BYTES: usize = 1 << 20;
/// A session that asks nothing ends.
const IDLE_LIMIT: Duration = Duration::from_secs(600);
/// A question that takes longer says so instead of holding the session.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// A peer that does not read loses its session.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

pub(super) struct Session {
    pub(super) inspect: Arc<dyn Inspect>,
    pub(super) log: LogLevel,
    pub(super) stats: Arc<Stats>,
    pub(super) levels: Tasks,
    pub(super) stop: CancellationToken,
}

/// A request as it came.
enum Request {
    Line(String),
    NotText,
    TooLong,
    End,
}

impl Session {
    /// Answers until the peer leaves, is too slow, or the socket is locked.
    pub(super) async fn run(self, stream: UnixStream) {
        let peer = stream.peer_cred().ok();
        let (uid, pid) = (peer.map(|peer| peer.uid()), peer.and_then(|peer| peer.pid()));
        tracing::info!(uid, pid, "debug session begins");
        let ended = tokio::select! {
            () = self.stop.cancelled() => "locked",
            ended = self.answer_all(stream) => ended.unwrap_or("peer is gone"),
        };
        tracing::info!(uid, pid, ended, "debug session ends");
    }

    async fn answer_all(&self, mut stream: UnixStream) -> io::Result<&'static str> {
        let (read, mut write) = stream.split();
        let mut read = BufReader::new(read);
        loop {
            let Ok(request) = timeout(IDLE_LIMIT, next_request(&mut read)).await else {
                return Ok("idle");
            };
            let answer = match request? {
                Request::End => return Ok("left"),
                Request::TooLong => {
                    send(&mut write, &error_line("line longer than 4096 bytes")).await?;
                    return Ok("line too long");
                }
                Request::NotText => Err(Unanswered("line is not UTF-8".to_owned())),
                Request::Line(line) => match Command::parse(&line) {
                    Ok(Command::Quit) => return Ok("left"),
                    Ok(command) => self.answer(command).await,
                    Err(what) => Err(Unanswered(what)),
                },
            };
            send(&mut write, &render(answer)).await?;
        }
    }

    async fn answer(&self, command: Command) -> Answer {
        tracing::info!(command = command.name(), "debug command");
        self.stats.debug_commands.increment();
        let answer = async {
            match command {
                Command::Help => Ok(help()),
                Command::State => self.inspect.state().await,
                Command::Positions => self.inspect.positions().await,
                Command::Reigns => self.inspect.reigns().await,
                Command::Stats => self.inspect.stats().await,
                Command::Faults => self.inspect.faults().await,
                Command::Hashes => self.inspect.hashes().await,
                Command::Explain { item } => self.inspect.explain(&item).await,
                Command::LogFilter { level, minutes } => {
                    let duration = Duration::from_secs(u64::from(minutes) * 60);
                    self.log.set_for(level, duration, self.levels.token().clone(), &self.levels);
                    Ok(vec![json!({ "level": level.name(), "minutes": minutes })])
                }
                Command::Quit => Ok(Vec::new()),
            }
        };
        let late = || Err(Unanswered(format!("no answer within {} s", ANSWER_LIMIT.as_secs())));
        timeout(ANSWER_LIMIT, answer).await.unwrap_or_else(|_| late())
    }
}

async fn next_request(read: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Request> {
    let mut line = Vec::new();
    let length = read.take(LINE_BYTES).read_until(b'\n', &mut line).await?;
    let ended = line.pop_if(|last| *last == b'\n').is_some();
    if length == 0 {
        return Ok(Request::End);
    }
    if !ended && length as u64 == LINE_BYTES {
        return Ok(Request::TooLong);
    }
    Ok(String::from_utf8(line).map_or(Request::NotText, Request::Line))
}

async fn send(write: &mut (impl AsyncWrite + Unpin), text: &str) -> io::Result<()> {
    timeout(WRITE_LIMIT, write.write_all(text.as_bytes()))
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
}

fn render(answer: Answer) -> String {
    let mut objects = match answer {
        Ok(objects) => objects,
        Err(Unanswered(why)) => return error_line(&why),
    };
    match objects.last_mut() {
        Some(Value::Object(last)) => {
            last.insert("end".to_owned(), Value::Bool(true));
        }
        Some(_) | None => objects.push(json!({ "end": true })),
    }
    let text: String = objects.iter().map(|object| format!("{object}\n")).collect();
    if text.len() > ANSWER_BYTES { error_line("answer longer than 1 MiB") } else { text }
}

/// An answer that says why there is none.
pub(super) fn error_line(why: &str) -> String {
    format!("{}\n", json!({ "error": why, "end": true }))
}
