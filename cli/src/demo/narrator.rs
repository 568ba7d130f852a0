//! The demo's voice: each sentence with the time since the beginning.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::exit::Failure;
use crate::output::Out;

/// Prints the story as it happens.
#[derive(Debug)]
pub(crate) struct Narrator {
    out: Out,
    began: Instant,
}

impl Narrator {
    pub(crate) fn new(out: Out) -> Self {
        Self { out, began: Instant::now() }
    }

    /// Time since the demo began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Opens a chapter.
    ///
    /// # Errors
    /// `Failure::Output`.
    pub(crate) fn chapter(&self, title: &str) -> Result<(), Failure> {
        self.out.event(&format!("\n{title}"), &json!({ "at_millis": self.millis(), "chapter": title }))
    }

    /// Tells one thing that happened.
    ///
    /// # Errors
    /// `Failure::Output`.
    pub(crate) fn say(&self, text: &str) -> Result<(), Failure> {
        let line = format!("{:>8} ms  {text}", self.millis());
        self.out.event(&line, &json!({ "at_millis": self.millis(), "text": text }))
    }

    /// Shows lines that belong to what was said last.
    ///
    /// # Errors
    /// `Failure::Output`.
    pub(crate) fn show(&self, lines: &str) -> Result<(), Failure> {
        let indented: Vec<String> = lines.lines().map(|line| format!("             {line}")).collect();
        self.out.event(&indented.join("\n"), &json!({ "at_millis": self.millis(), "shown": lines }))
    }

    /// Tells people what to do next, outside the story.
    ///
    /// # Errors
    /// `Failure::Output`.
    pub(crate) fn aside(&self, text: &str) -> Result<(), Failure> {
        self.out.note(text)
    }

    /// For functions that would otherwise print their own notes.
    pub(crate) fn quiet(&self) -> Out {
        Out { json: true }
    }

    fn millis(&self) -> u128 {
        self.elapsed().as_millis()
    }
}

/// A measured time: milliseconds with one decimal below a second.
pub(crate) fn took(duration: Duration) -> String {
    let micros = duration.as_micros();
    if micros < 1_000_000 {
        format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
    } else {
        format!("{}.{:02} s", micros / 1_000_000, micros % 1_000_000 / 10_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_times_have_the_digits_that_matter() {
        assert_eq!(took(Duration::from_micros(12_340)), "12.3 ms");
        assert_eq!(took(Duration::from_millis(1_234)), "1.23 s");
    }
}
