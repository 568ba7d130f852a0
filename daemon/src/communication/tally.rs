//! How a push went, counted once for log and figures.

use mfpsync_storage::model::{EditOutcome, Outcome};

use super::ledger::Event;

/// Operations by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Taken whole.
    pub accepted: u64,
    /// Taken, but an edit lost against a change accepted earlier.
    pub superseded: u64,
    /// Set aside.
    pub rejected: u64,
}

impl Tally {
    /// Counts outcomes.
    pub fn of<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Self {
        let mut tally = Self::default();
        for outcome in outcomes {
            let count = match outcome {
                Outcome::Rejected { .. } => &mut tally.rejected,
                Outcome::Accepted { edits, .. } if edits.iter().any(lost) => &mut tally.superseded,
                Outcome::Accepted { .. } => &mut tally.accepted,
            };
            *count += 1;
        }
        tally
    }

    /// The event with these counts.
    #[must_use]
    pub fn on(self, event: Event) -> Event {
        event
            .count("accepted", self.accepted)
            .count("superseded", self.superseded)
            .count("rejected", self.rejected)
    }
}

fn lost(outcome: &EditOutcome) -> bool {
    match outcome {
        EditOutcome::Superseded { .. } => true,
        EditOutcome::Applied | EditOutcome::Merged { .. } | EditOutcome::Unchanged => false,
    }
}
