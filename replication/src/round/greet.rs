//! Whether to trust a server that has just answered. Pure, and the only place that decides it.

use mfpsync_storage::model::Revision;

use super::facts::Facts;
use super::words::Trouble;
use crate::lineage::{Lineage, LineageError, Relation, Standpoint};
use crate::message::Greeting;

/// A server worth following.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Trusted {
    pub(super) lineage: Lineage,
    /// Its reign is new to us, and has what we had up to here.
    pub(super) lost_beyond: Option<Revision>,
}

/// Checks a greeting whose signatures were verified.
pub(super) fn judge(facts: &Facts, greeting: &Greeting) -> Result<Trusted, Trouble> {
    let versions = mfpsync_proto::PROTOCOL_VERSION_MIN..=mfpsync_proto::PROTOCOL_VERSION;
    if !versions.contains(&greeting.protocol) {
        return Err(Trouble::Protocol);
    }
    let records = greeting.lineage.iter().map(|signed| signed.record.clone());
    let lineage = Lineage::new(facts.start.group, records.collect()).map_err(|error| match error {
        LineageError::ForeignGroup(_) => Trouble::Unrelated,
        LineageError::Fork { parent } => Trouble::Forked { parent },
        LineageError::Empty
        | LineageError::Broken(_)
        | LineageError::NumberFalls(_)
        | LineageError::SequenceFalls(_) => Trouble::Malformed,
    })?;
    if lineage.highest().epoch != greeting.epoch {
        return Err(Trouble::Malformed);
    }
    check_highest(facts, greeting)?;
    let lost_beyond = continues(facts, &lineage)?;
    if greeting.known_operation > facts.outbox.last_operation {
        return Err(Trouble::OwnHistory);
    }
    // Answers of this very reign are stored here that it does not know of any more.
    let same = facts.lineage.as_ref().is_some_and(|ours| ours.highest().epoch == lineage.highest().epoch);
    if same && greeting.known_operation < facts.outbox.low_water {
        return Err(Trouble::ServerRolledBack);
    }
    check_head(facts, greeting, &lineage)?;
    Ok(Trusted { lineage, lost_beyond })
}

/// No server below the highest reign anybody has shown us.
fn check_highest(facts: &Facts, greeting: &Greeting) -> Result<(), Trouble> {
    let Some(highest) = &facts.highest else { return Ok(()) };
    let highest = highest.record.epoch;
    if greeting.epoch.number < highest.number {
        return Err(Trouble::Superseded);
    }
    if greeting.epoch.number == highest.number && greeting.epoch != highest {
        return Err(Trouble::Forked { parent: highest.number.saturating_sub(1) });
    }
    Ok(())
}

fn continues(facts: &Facts, theirs: &Lineage) -> Result<Option<Revision>, Trouble> {
    let Some(ours) = &facts.lineage else { return Ok(None) };
    match ours.relation(theirs) {
        Relation::Same => Ok(None),
        Relation::Extended { fork } | Relation::Replaced { fork } => {
            Ok(Some(Revision { epoch: theirs.epoch_of(fork), sequence: fork }))
        }
        Relation::Behind => Err(Trouble::Superseded),
        Relation::Forked { parent } => Err(Trouble::Forked { parent }),
        Relation::Unrelated => Err(Trouble::Unrelated),
    }
}

/// A server has at least what its reign, or one it continues, gave us before.
fn check_head(facts: &Facts, greeting: &Greeting, lineage: &Lineage) -> Result<(), Trouble> {
    match &facts.floor {
        Some(floor)
            if lineage.standpoint(floor) == Standpoint::Continue && greeting.head < floor.sequence =>
        {
            Err(Trouble::ServerRolledBack)
        }
        _ => Ok(()),
    }
}
