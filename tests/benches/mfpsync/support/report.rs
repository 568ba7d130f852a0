//! What was measured, as rows: printed as a table, written as JSON. Judges nothing but "aim met".

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::stats::Spread;

/// What a figure should be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Aim {
    AtMost(f64),
    AtLeast(f64),
}

impl Aim {
    fn met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }
}

/// One figure.
#[derive(Debug)]
pub(crate) struct Row {
    section: &'static str,
    what: String,
    value: f64,
    unit: &'static str,
    rounds: Option<Spread>,
    aim: Option<Aim>,
    note: String,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { section: "", what: what.into(), value, unit, rounds: None, aim: None, note: String::new() }
    }

    /// The median of rounds, with its extremes.
    pub(crate) fn spread(what: impl Into<String>, rounds: Spread, unit: &'static str) -> Self {
        Self { rounds: Some(rounds), ..Self::new(what, rounds.median, unit) }
    }

    pub(crate) fn aim(self, aim: Aim) -> Self {
        Self { aim: Some(aim), ..self }
    }

    pub(crate) fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    fn json(&self) -> Value {
        let (at_most, at_least) = match self.aim {
            Some(Aim::AtMost(limit)) => (Some(limit), None),
            Some(Aim::AtLeast(limit)) => (None, Some(limit)),
            None => (None, None),
        };
        json!({
            "section": self.section,
            "what": self.what,
            "value": self.value,
            "unit": self.unit,
            "min": self.rounds.map(|rounds| rounds.min),
            "max": self.rounds.map(|rounds| rounds.max),
            "aim_at_most": at_most,
            "aim_at_least": at_least,
            "aim_met": self.aim.map(|aim| aim.met(self.value)),
            "note": self.note,
        })
    }
}

/// Three significant figures are more than these measurements carry.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds = self
            .rounds
            .map_or_else(String::new, |rounds| format!("{}..{}", figure(rounds.min), figure(rounds.max)));
        let aim = match self.aim {
            Some(Aim::AtMost(limit)) => format!("<= {limit}"),
            Some(Aim::AtLeast(limit)) => format!(">= {limit}"),
            None => String::new(),
        };
        let verdict = match self.aim.map(|aim| aim.met(self.value)) {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        let value = format!("{} {}", figure(self.value), self.unit);
        let line =
            format!("  {:<46} {value:>16}  {rounds:<15} {aim:<9} {verdict:<6} {}", self.what, self.note);
        f.write_str(line.trim_end())
    }
}

/// All figures of one run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    section: &'static str,
}

impl Report {
    /// What is added next belongs to this section; its heading is printed at once.
    ///
    /// # Errors
    /// The terminal went away.
    pub(crate) fn section(&mut self, title: &'static str) -> Result<()> {
        self.section = title;
        say(format_args!("\n{title}"))
    }

    /// Adds a figure and prints it, so that a long run is followed as it goes.
    ///
    /// # Errors
    /// The terminal went away.
    pub(crate) fn add(&mut self, row: Row) -> Result<()> {
        let row = Row { section: self.section, ..row };
        say(format_args!("{row}"))?;
        self.rows.push(row);
        Ok(())
    }

    /// Writes everything to `path`.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn write(&self, path: &Path, machine: Value) -> Result<()> {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let text = serde_json::to_string_pretty(&json!({ "machine": machine, "rows": rows }))?;
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
    }
}

/// Prints one line.
///
/// # Errors
/// The terminal went away.
pub(crate) fn say(line: fmt::Arguments<'_>) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
