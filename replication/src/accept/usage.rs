//! What users have of items and bytes: counted once, and followed through what is accepted.
//!
//! Counting reads every item of a user, and one is asked for with nearly every operation. What was counted holds as
//! long as the head's chain is where it was left, since that covers all items that live; whoever else wrote
//! meanwhile, or undid what was accepted, makes it forget.

use std::collections::BTreeMap;

use mfpsync_storage::Result;
use mfpsync_storage::master::{Head, MasterRead};
use mfpsync_storage::model::{Chain, ItemKey, Scope};

/// Counts that are kept from one submission to the next, each about 200 bytes.
const KEPT: usize = 4_096;

/// Items and their encoded bytes.
type Count = (u64, u64);

/// What users have, where one master database stands.
#[derive(Debug, Default)]
pub struct Usage {
    /// Where the history was left; none while a submission is taken.
    at: Option<Chain>,
    /// Of a user and a device's own items, or with an empty name of those that all share.
    known: BTreeMap<(Scope, String), Count>,
}

impl Usage {
    /// A submission is taken from here on.
    pub(super) fn begin(&mut self, head: &Head) {
        if self.at.take() != Some(head.chain) || self.known.len() > KEPT {
            self.known.clear();
        }
    }

    /// The submission was taken, and all of it was counted.
    pub(super) fn end(&mut self, head: &Head) {
        self.at = Some(head.chain);
    }

    /// Items and bytes of a user as one device shows them, or with an empty name those that all share.
    pub(crate) fn of(&mut self, read: &MasterRead<'_>, scope: &Scope, device: &str) -> Result<Count> {
        let shared = self.part(read, scope, "")?;
        if device.is_empty() {
            return Ok(shared);
        }
        let own = self.part(read, scope, device)?;
        Ok((shared.0 + own.0, shared.1 + own.1))
    }

    fn part(&mut self, read: &MasterRead<'_>, scope: &Scope, device: &str) -> Result<Count> {
        let part = (scope.clone(), device.to_owned());
        if let Some(known) = self.known.get(&part) {
            return Ok(*known);
        }
        let counted = read.scope_usage(scope, &part.1)?;
        Ok(*self.known.entry(part).or_insert(counted))
    }

    /// Counts what is about to be written: the item's bytes before and after, if it lives.
    pub(crate) fn count(&mut self, key: &ItemKey, before: Option<u64>, after: Option<u64>) {
        let part = (key.scope.clone(), key.device.clone());
        let Some((items, bytes)) = self.known.get_mut(&part) else { return };
        *items = (*items + u64::from(after.is_some())).saturating_sub(u64::from(before.is_some()));
        *bytes = (*bytes + after.unwrap_or(0)).saturating_sub(before.unwrap_or(0));
    }
}
