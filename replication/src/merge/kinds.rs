//! The conflict table: for every kind, what happens when two people changed the same thing.
//!
//! Only the table and its lookup; `merge` carries the rules out. Kinds this build does not know
//! get the most careful row.

use mfpsync_storage::model::{Action, Kind};

/// Which value stands when a field was changed on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameField {
    /// The one accepted later.
    LaterWins,
    /// The one accepted first; the later author is told the difference.
    FirstWins,
    /// A flag that is on; values of other types as in [`SameField::LaterWins`].
    EnabledWins,
    /// The one accepted later, but two different destinations are both kept, the earlier one
    /// under [`SECOND`](super::SECOND).
    LaterWinsKeepDestinations,
    /// Clients may not write the kind at all.
    ServerOnly,
}

/// What stands when one side edited what the other side deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EditAgainstDelete {
    /// The item lives on, with the edit.
    EditWins,
    /// The item stays, or becomes, deleted.
    DeleteWins,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Both sides changed one field.
    pub same_field: SameField,
    /// One side edited, the other deleted.
    pub edit_against_delete: EditAgainstDelete,
    /// Losing values go to the history, from where they can be taken back.
    pub keep_loser: bool,
    /// Only sealed values are accepted.
    pub sealed_only: bool,
}

use EditAgainstDelete::{DeleteWins, EditWins};
use SameField::{EnabledWins, FirstWins, LaterWins, LaterWinsKeepDestinations, ServerOnly};

const fn row(same_field: SameField, edit_against_delete: EditAgainstDelete) -> Rule {
    Rule { same_field, edit_against_delete, keep_loser: true, sealed_only: false }
}

/// One person's settings and buttons.
const PERSONAL: Rule = row(LaterWins, EditWins);
/// Somebody may depend on it to use the machine at all.
const ACCESSIBILITY: Rule = row(EnabledWins, EditWins);
/// A mistaken destination sends a document to a stranger.
const ADDRESS: Rule = row(LaterWinsKeepDestinations, EditWins);
/// Kept by one person for everybody.
const SHARED: Rule = row(FirstWins, DeleteWins);
/// A deleted or replaced secret must be gone.
const KEYCHAIN: Rule = Rule { keep_loser: false, sealed_only: true, ..row(LaterWins, DeleteWins) };
/// Decided at the server alone; its audit keeps what was replaced.
const SERVER: Rule = Rule { keep_loser: false, ..row(ServerOnly, DeleteWins) };
/// Invented by a newer firmware: nothing accepted is overwritten, nothing edited is deleted.
const UNKNOWN: Rule = row(FirstWins, EditWins);

/// **Source**: the conflict table in `docs/protocol.md`.
pub(crate) const TABLE: &[(&str, Rule)] = &[
    ("address.group", ADDRESS),
    ("address.personal", ADDRESS),
    ("address.shared", SHARED),
    ("button.personal", PERSONAL),
    ("button.shared", SHARED),
    ("group.erased", SERVER),
    ("group.limits", SERVER),
    ("group.settings", SERVER),
    ("group.sharing", SERVER),
    ("job.defaults.access", PERSONAL),
    ("job.defaults.copy", PERSONAL),
    ("job.defaults.fax", PERSONAL),
    ("job.defaults.send", PERSONAL),
    ("job.defaults.store", PERSONAL),
    ("job.recall", PERSONAL),
    ("keychain", KEYCHAIN),
    ("network", SERVER),
    ("print.at-login", PERSONAL),
    ("shortcut", PERSONAL),
    ("ui.accessibility", ACCESSIBILITY),
    ("ui.language", PERSONAL),
    ("ui.start-screen", PERSONAL),
];

/// Whether devices may write items of a kind; of the others the server alone decides.
#[must_use]
pub fn is_written_by_devices(kind: &Kind) -> bool {
    rule(kind).same_field != ServerOnly
}

impl Rule {
    /// The row for an edit that gives way to whatever changed since its base.
    #[must_use]
    pub fn yielding(self, action: &Action) -> Self {
        let same_field = if self.same_field == ServerOnly { ServerOnly } else { FirstWins };
        let edit_against_delete = if *action == Action::Delete { EditWins } else { DeleteWins };
        Self { same_field, edit_against_delete, ..self }
    }
}

/// The row of a kind.
#[must_use]
pub fn rule(kind: &Kind) -> Rule {
    let known = TABLE.iter().find(|(name, _)| *name == kind.as_str());
    known.map_or(UNKNOWN, |(_, rule)| *rule)
}
