//! The debug socket as an engineer meets it, over real sockets.

use std::path::Path;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::*;
use crate::config::Local;
use crate::telemetry::Level;

struct Fixed;

#[tonic::async_trait]
impl Inspect for Fixed {
    async fn state(&self) -> Answer {
        Ok(vec![json!({ "role": "server" })])
    }
    async fn positions(&self) -> Answer {
        Ok(vec![json!({ "copy": "a" }), json!({ "copy": "b" })])
    }
    async fn reigns(&self) -> Answer {
        Ok(vec![json!({ "reigns": [] })])
    }
    async fn stats(&self) -> Answer {
        Ok(Vec::new())
    }
    async fn hashes(&self) -> Answer {
        Ok(vec![json!({ "mirror": [] })])
    }
    async fn faults(&self) -> Answer {
        std::future::pending().await
    }
    async fn explain(&self, item: &str) -> Answer {
        Err(Unanswered(format!("no item with {} characters", item.len())))
    }
}

struct Bench {
    directory: tempfile::TempDir,
    lock: DebugLock,
    log: LogLevel,
    stats: Arc<Stats>,
    tasks: Tasks,
}

fn bench() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let (stats, tasks) = (Arc::new(Stats::default()), Tasks::default());
    let log = LogLevel::new(Level::Info, |_| {});
    let lock = DebugSocket {
        path: directory.path().join(SOCKET_NAME),
        access: Access::of(&Local::default()),
        inspect: Arc::new(Fixed),
        log: log.clone(),
        stats: Arc::clone(&stats),
    }
    .spawn(&tasks);
    Bench { directory, lock, log, stats, tasks }
}

impl Bench {
    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join(SOCKET_NAME)
    }
}

struct Engineer {
    lines: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
}

impl Engineer {
    async fn connect(path: &Path) -> Self {
        let (read, write) = UnixStream::connect(path).await.unwrap().into_split();
        Self { lines: BufReader::new(read).lines(), write }
    }

    async fn ask(&mut self, request: &[u8]) -> Vec<String> {
        self.write.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        loop {
            let line = self.lines.next_line().await.unwrap().expect("an answer");
            let object: Value = serde_json::from_str(&line).unwrap();
            answer.push(line);
            if object["end"] == json!(true) {
                return answer;
            }
        }
    }

    async fn is_closed(&mut self) -> bool {
        matches!(self.lines.next_line().await, Ok(None) | Err(_))
    }
}

#[tokio::test]
async fn every_question_has_one_object_per_line_and_a_last_one() {
    let bench = bench();
    assert_eq!(bench.lock.minutes_left(), None);
    bench.lock.unlock(30).await.unwrap();
    assert_eq!(bench.lock.minutes_left(), Some(30));
    let mut engineer = Engineer::connect(&bench.path()).await;
    assert_eq!(engineer.ask(b"state\n").await, [r#"{"end":true,"role":"server"}"#]);
    assert_eq!(engineer.ask(b"positions\n").await, [r#"{"copy":"a"}"#, r#"{"copy":"b","end":true}"#]);
    assert_eq!(engineer.ask(b"stats\n").await, [r#"{"end":true}"#]);
    assert_eq!(engineer.ask(b"explain a b\n").await, [r#"{"end":true,"error":"no item with 3 characters"}"#]);
    assert_eq!(engineer.ask(b"help\n").await.len(), 10);
    assert!(engineer.ask(b"drop tables\n").await[0].contains("unknown command; try: help"));
    assert!(engineer.ask(b"\xff\n").await[0].contains("line is not UTF-8"));
    assert_eq!(bench.stats.debug_commands.get(), 5);
    engineer.write.write_all(b"quit\n").await.unwrap();
    assert!(engineer.is_closed().await);
}

#[tokio::test]
async fn a_lock_removes_the_socket_ends_sessions_and_puts_the_log_level_back() {
    let bench = bench();
    assert!(!bench.path().exists());
    bench.lock.unlock(1).await.unwrap();
    let mut engineer = Engineer::connect(&bench.path()).await;
    engineer.ask(b"log-filter trace 100\n").await;
    assert_eq!(bench.log.current(), Level::Trace);
    bench.lock.lock().await.unwrap();
    assert!(!bench.path().exists());
    assert_eq!(bench.lock.minutes_left(), None);
    assert_eq!(bench.log.current(), Level::Info);
    assert!(engineer.is_closed().await);
    bench.lock.lock().await.unwrap();
    bench.lock.unlock(1).await.unwrap();
    Engineer::connect(&bench.path()).await.ask(b"state\n").await;
}

#[tokio::test(start_paused = true)]
async fn the_socket_closes_by_itself_after_its_time() {
    let bench = bench();
    bench.lock.unlock(2).await.unwrap();
    bench.lock.unlock(5).await.unwrap();
    let mut engineer = Engineer::connect(&bench.path()).await;
    engineer.ask(b"state\n").await;
    let began = Instant::now();
    assert!(engineer.is_closed().await);
    assert!(began.elapsed() >= Duration::from_secs(299), "{:?}", began.elapsed());
    let mut until = bench.lock.until.clone();
    until.wait_for(Option::is_none).await.unwrap();
    assert!(!bench.path().exists());
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_ends_and_a_question_without_answer_is_told() {
    let bench = bench();
    bench.lock.unlock(240).await.unwrap();
    let mut engineer = Engineer::connect(&bench.path()).await;
    assert!(engineer.ask(b"faults\n").await[0].contains("no answer within 10 s"));
    let began = Instant::now();
    assert!(engineer.is_closed().await);
    assert_eq!(began.elapsed().as_secs(), 600);
    assert!(bench.path().exists());
}

#[tokio::test]
async fn a_line_that_is_too_long_ends_the_session() {
    let bench = bench();
    bench.lock.unlock(1).await.unwrap();
    let mut engineer = Engineer::connect(&bench.path()).await;
    assert!(engineer.ask(&[b'x'; 4096]).await[0].contains("longer than 4096 bytes"));
    assert!(engineer.is_closed().await);
}

#[tokio::test]
async fn a_fifth_session_is_told_that_four_are_open() {
    let bench = bench();
    bench.lock.unlock(1).await.unwrap();
    let mut engineers = Vec::new();
    for _ in 0..4 {
        let mut engineer = Engineer::connect(&bench.path()).await;
        engineer.ask(b"state\n").await;
        engineers.push(engineer);
    }
    let mut fifth = Engineer::connect(&bench.path()).await;
    assert!(fifth.ask(b"").await[0].contains("four sessions are open"));
    assert!(fifth.is_closed().await);
}

#[tokio::test]
async fn minutes_out_of_bounds_and_a_path_that_is_taken_are_refused() {
    let bench = bench();
    assert!(matches!(bench.lock.unlock(0).await, Err(DebugError::Minutes(0))));
    assert!(matches!(bench.lock.unlock(241).await, Err(DebugError::Minutes(241))));
    std::fs::write(bench.path(), "").unwrap();
    assert!(matches!(bench.lock.unlock(1).await, Err(DebugError::Socket(_))));
    assert_eq!(bench.lock.minutes_left(), None);
}

#[tokio::test]
async fn a_stop_of_the_daemon_removes_the_socket() {
    let bench = bench();
    bench.lock.unlock(1).await.unwrap();
    assert!(bench.tasks.stop(Duration::from_secs(5)).await.is_empty());
    assert!(!bench.path().exists());
    assert!(matches!(bench.lock.unlock(1).await, Err(DebugError::Stopped)));
}
