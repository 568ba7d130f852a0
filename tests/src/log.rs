//! What a daemon wrote to standard error, and whether a person would have been alarmed.

use std::fs;
use std::path::{Path, PathBuf};

/// A daemon's log file and the alarming lines a test expects in it.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    expected: Vec<String>,
}

impl Log {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, expected: Vec::new() }
    }

    /// Where it stands.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everything written so far; nothing when the daemon never started.
    #[must_use]
    pub fn text(&self) -> String {
        fs::read(&self.path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Lets warnings and errors that contain `part` pass.
    pub fn expect(&mut self, part: &str) {
        self.expected.push(part.to_owned());
    }

    /// Warnings and errors that the test did not expect, and panics.
    #[must_use]
    pub fn surprises(&self) -> Vec<String> {
        let text = self.text();
        let alarming = |line: &&str| {
            line.contains(" ERROR ") || line.contains("  WARN ") || line.contains("panicked at")
        };
        let unexpected = |line: &&str| !self.expected.iter().any(|part| line.contains(part.as_str()));
        text.lines().filter(alarming).filter(unexpected).map(str::to_owned).collect()
    }

    /// The last lines, for a failure's report.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        let text = self.text();
        let all: Vec<_> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}
