//! `mfpsync demo` as a user runs it: it ends well, and nothing of it is left.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::ensure;
use mfpsync_tests::{PATIENCE, command_path, daemon_path, eventually};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process_group};

/// A demo in a process group and a temporary directory of its own.
struct Demo {
    child: Child,
    story: BufReader<ChildStdout>,
    told: Vec<String>,
    home: tempfile::TempDir,
}

impl Demo {
    fn begin(options: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut child = Command::new(command_path().unwrap())
            .args(["demo", "--daemon"])
            .arg(daemon_path().unwrap())
            .args(options)
            .env("TMPDIR", home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let story = BufReader::new(child.stdout.take().unwrap());
        Self { child, story, told: Vec::new(), home }
    }

    fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Reads on until a line holds `words`, or to the end.
    fn listen(&mut self, words: Option<&str>) {
        loop {
            let mut line = String::new();
            if self.story.read_line(&mut line).unwrap() == 0 {
                return;
            }
            self.told.push(line);
            if words.is_some_and(|words| self.told.last().is_some_and(|line| line.contains(words))) {
                return;
            }
        }
    }

    /// The daemons it said it started.
    fn daemons(&self) -> Vec<Pid> {
        let numbers = self.told.iter().filter_map(|line| line.split_once("(process ")?.1.split_once(')'));
        numbers.map(|(number, _)| Pid::from_raw(number.parse().unwrap()).unwrap()).collect()
    }

    /// Waits for the end and returns the exit code; nothing that it started is left then.
    async fn end(mut self) -> (i32, String) {
        self.listen(None);
        let status = self.child.wait().unwrap();
        let told = self.told.concat();
        let groups: Vec<Pid> = self.daemons().into_iter().chain([self.id()]).collect();
        eventually(PATIENCE, "every process to be gone", async || {
            for group in &groups {
                let gone = test_kill_process_group(*group) == Err(Errno::SRCH);
                ensure!(gone || !runs_ours(*group), "{group:?} is left:\n{told}");
            }
            Ok(())
        })
        .await
        .unwrap();
        let left: Vec<PathBuf> =
            std::fs::read_dir(self.home.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?} is left:\n{told}");
        (status.code().expect("an exit code"), told)
    }
}

/// Whether the id still stands for a program of ours: it may have been given to another process.
fn runs_ours(process: Pid) -> bool {
    let program = std::fs::read_link(format!("/proc/{}/exe", process.as_raw_nonzero()));
    program
        .is_ok_and(|program| program.file_name().is_some_and(|name| Path::new(name).starts_with("mfpsyncd")))
}

#[tokio::test]
async fn the_demo_tells_its_story_to_the_end_and_leaves_nothing() {
    let words = ["recovery kit written", "the same merged entry is on all three", "the whole story took"];
    tells(&[], 3, &words).await;
}

/// A demo that is told to its end, of so many daemons' starts, and says all this.
async fn tells(options: &[&str], starts: usize, words: &[&str]) {
    let mut demo = Demo::begin(options);
    demo.listen(None);
    assert_eq!(demo.daemons().len(), starts, "{}", demo.told.concat());
    let (code, told) = demo.end().await;
    assert_eq!(code, 0, "{told}");
    for words in words {
        assert!(told.contains(words), "{words:?} in:\n{told}");
    }
}

#[tokio::test]
async fn procedure_p1_swaps_the_server_with_a_client() {
    let words = [
        "printer-2 is the server",
        "scanner-3 follows, with no command",
        "16 entries on copier-1, printer-2, scanner-3",
        "Replica copier-1 follows every change",
    ];
    tells(&["--procedure", "P1"], 3, &words).await;
}

#[tokio::test]
async fn procedure_p2_puts_a_machine_from_outside_in_the_servers_place() {
    let words = [
        "copier-5 is the server",
        "printer-2 follows, with no command",
        "16 entries on copier-1, printer-2, scanner-3, copier-5",
        "Replica copier-1 follows every change",
    ];
    tells(&["--procedure", "P2"], 4, &words).await;
}

#[tokio::test]
async fn procedure_p3_has_the_replica_take_over_and_the_old_server_come_back() {
    let words = [
        "if the server is lost: `mfpsync role promote --server-is-lost`",
        "known to be missing, at the most:",
        "the first change is accepted, at printer-2",
        "fax-4 follows, with no command",
        "31 entries on printer-2, scanner-3, fax-4",
        "it does not serve again",
        "F-SUPERSEDED",
        "31 entries on copier-1, printer-2, scanner-3, fax-4",
        "Replica copier-1 follows every change",
    ];
    tells(&["--procedure", "p3"], 5, &words).await;
}

#[tokio::test]
async fn procedure_p4_rebuilds_the_server_on_another_machine() {
    let words = [
        "known to be missing, at the most:",
        "31 entries on printer-2, scanner-3, fax-4",
        "copier-5 serves",
        "printer-2 goes on as the replica, with the copy it has",
        "32 entries on copier-5, printer-2, scanner-3, fax-4",
        "Replica printer-2 follows every change",
    ];
    tells(&["--procedure", "P4"], 5, &words).await;
}

#[tokio::test]
async fn procedure_p5_replaces_clients() {
    let words = [
        "left the group, the data stays on this device",
        "fax-4 is released",
        "15 entries on copier-1, printer-2, copier-5",
        "F-RELEASED",
    ];
    tells(&["--procedure", "P5"], 6, &words).await;
}

#[tokio::test]
async fn the_server_comes_back_from_an_archive_on_a_file_server() {
    let words = [
        "made and proven:",
        "copier-1 is lost, with its disk",
        "restored:",
        "scanner-3 follows, with no command",
        "16 entries on copier-5, printer-2, scanner-3",
    ];
    tells(&["--procedure", "backup"], 4, &words).await;
}

#[tokio::test]
async fn a_demo_that_is_told_to_end_while_a_daemon_hangs_takes_it_along() {
    let mut demo = Demo::begin(&["--procedure", "P3"]);
    demo.listen(Some("printer-2 hangs"));
    demo.listen(Some("written at the panel"));
    assert_eq!(demo.daemons().len(), 4, "{}", demo.told.concat());
    kill_process(demo.id(), Signal::TERM).unwrap();
    let (code, told) = demo.end().await;
    assert_eq!(code, 1, "{told}");
}

#[tokio::test]
async fn a_demo_that_is_told_to_end_takes_its_daemons_along() {
    let mut demo = Demo::begin(&[]);
    demo.listen(Some("scanner-3 is ready"));
    assert_eq!(demo.daemons().len(), 3, "{}", demo.told.concat());
    kill_process(demo.id(), Signal::TERM).unwrap();
    let (code, told) = demo.end().await;
    assert_eq!(code, 1, "{told}");
}
