//! Where answers go: text or JSON on standard output, notes on standard error.
//!
//! Decides nothing about content. `printable` keeps foreign text from steering the terminal.

use std::borrow::Cow;
use std::io::{self, Write};

use serde_json::Value;

use crate::exit::Failure;

/// The operator's choice of form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    pub(crate) json: bool,
}

impl Out {
    /// Prints one answer: `text` to people, `json` to scripts.
    ///
    /// # Errors
    /// `Failure::Output` when standard output is closed.
    pub(crate) fn answer(self, text: &str, json: &Value) -> Result<(), Failure> {
        if self.json { self.raw(&format!("{json:#}\n")) } else { self.raw(&line_ended(text)) }
    }

    /// Prints one event of a stream: a line, or a JSON object on one line.
    ///
    /// # Errors
    /// `Failure::Output` when standard output is closed.
    pub(crate) fn event(self, text: &str, json: &Value) -> Result<(), Failure> {
        if self.json { self.raw(&format!("{json}\n")) } else { self.raw(&line_ended(text)) }
    }

    /// Prints bytes for people to keep, whatever the form.
    ///
    /// # Errors
    /// `Failure::Output` when standard output is closed.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Failure::Output)
    }

    /// Tells people what goes on; scripts that asked for JSON are not bothered.
    ///
    /// # Errors
    /// `Failure::Output` when standard error is closed.
    pub(crate) fn note(self, text: &str) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        io::stderr().lock().write_all(line_ended(text).as_bytes()).map_err(Failure::Output)
    }

    fn raw(self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }
}

fn line_ended(text: &str) -> String {
    if text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

/// Text from elsewhere with control and direction characters written out, so that a name on an
/// address list cannot clear the screen or turn the line around.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(steers) {
        return Cow::Borrowed(text);
    }
    let spelled = |c: char| if steers(c) { c.escape_unicode().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(spelled).collect())
}

fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(printable("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(printable("太田 真綾"), "太田 真綾");
    }
}
