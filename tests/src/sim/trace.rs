//! What happened, as a running hash, and printed when asked for.

use std::fmt;
use std::hash::{DefaultHasher, Hasher};

/// Collects one line for each thing that happens.
pub(super) struct Trace {
    hasher: DefaultHasher,
    print: bool,
}

impl Trace {
    pub(super) fn new(print: bool) -> Self {
        Self { hasher: DefaultHasher::new(), print }
    }

    pub(super) fn line(&mut self, now: u64, line: fmt::Arguments<'_>) {
        let text = format!("{:>12.6} {line}", now as f64 / 1e6);
        self.hasher.write(text.as_bytes());
        if self.print {
            eprintln!("{text}");
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hasher.finish()
    }
}
