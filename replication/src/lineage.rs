//! The chain of reigns of a group, and where a cursor, a base or another chain stands to it.
//!
//! Pure. Signatures are verified before: what comes in here is believed to be what it says, but
//! not that it fits together. The server asks where a client's cursor stands, the client whether
//! a server's history continues its own.

#[cfg(test)]
mod tests;

use mfpsync_storage::model::{Cursor, Epoch, GroupId, Parent, Promotion, Revision, Sequence};
use thiserror::Error;

/// Why promotion records do not form a chain.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LineageError {
    /// There is none.
    #[error("lineage is empty")]
    Empty,
    /// A record is of another group.
    #[error("promotion {0} is of another group")]
    ForeignGroup(u64),
    /// Two records name the same parent: both reigns claim to follow it.
    #[error("two promotions follow epoch {parent}")]
    Fork {
        /// The parent's number.
        parent: u64,
    },
    /// A record does not follow the one before it.
    #[error("promotion {0} does not follow the one before")]
    Broken(u64),
    /// An epoch's number is not above its parent's.
    #[error("number of promotion {0} does not rise")]
    NumberFalls(u64),
    /// A reign began before its parent did.
    #[error("sequence of promotion {0} falls")]
    SequenceFalls(u64),
}

/// Where a cursor stands to a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standpoint {
    /// The history contains everything up to the cursor.
    Continue,
    /// Of a reign of this history, but beyond what its successor took over.
    PastFork {
        /// The last sequence both have.
        fork: Sequence,
    },
    /// Of no history this one knows.
    Unknown,
}

/// How another chain of reigns stands to ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// Both end in the same reign.
    Same,
    /// Theirs goes on where ours ends.
    Extended {
        /// The last sequence of ours that theirs has.
        fork: Sequence,
    },
    /// Theirs branches off before the end of ours and goes on all the same: by a reign numbered above all
    /// of ours, so whoever began it knew of ours and left it behind, as in a restore; or because an
    /// operator chose theirs and ended ours by name.
    Replaced {
        /// The last sequence of ours that theirs has.
        fork: Sequence,
    },
    /// Theirs ends before ours: a superseded server.
    Behind,
    /// Both branch off from one reign, ignorant of each other: a person must choose.
    Forked {
        /// The number of the last common reign.
        parent: u64,
    },
    /// They have no reign in common.
    Unrelated,
}

/// Promotion records of one group, oldest first, each following the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    earlier: Vec<Promotion>,
    highest: Promotion,
}

impl Lineage {
    /// Links verified records, oldest first; they may begin after the group was founded.
    ///
    /// # Errors
    /// Empty, of another group, or not a chain.
    pub fn new(group: GroupId, promotions: Vec<Promotion>) -> Result<Self, LineageError> {
        let mut promotions = promotions.into_iter();
        let first = promotions.next().ok_or(LineageError::Empty)?;
        check_alone(group, &first)?;
        let mut lineage = Self { earlier: Vec::new(), highest: first };
        for promotion in promotions {
            lineage.append(promotion)?;
        }
        Ok(lineage)
    }

    /// Adds the record of the reign that follows. I-13: a parent has one successor, told from a pretender
    /// by the nonce in its epoch.
    ///
    /// # Errors
    /// Of another group, or not following the highest.
    pub fn append(&mut self, promotion: Promotion) -> Result<(), LineageError> {
        check_alone(self.highest.group, &promotion)?;
        let number = promotion.epoch.number;
        let parent = promotion.parent.as_ref().ok_or(LineageError::Broken(number))?;
        if parent.epoch != self.highest.epoch {
            let forks = self.reigns().any(|reign| parent_epoch(reign) == Some(&parent.epoch));
            let parent = parent.epoch.number;
            return Err(if forks { LineageError::Fork { parent } } else { LineageError::Broken(number) });
        }
        if let Some(before) = &self.highest.parent {
            if before.sequence > parent.sequence {
                return Err(LineageError::SequenceFalls(number));
            }
            if before.sequence == parent.sequence && before.chain != parent.chain {
                return Err(LineageError::Broken(number));
            }
        }
        self.earlier.push(std::mem::replace(&mut self.highest, promotion));
        Ok(())
    }

    /// The record of the present reign.
    #[must_use]
    pub fn highest(&self) -> &Promotion {
        &self.highest
    }

    /// All records, oldest first.
    pub fn reigns(&self) -> impl DoubleEndedIterator<Item = &Promotion> {
        self.earlier.iter().chain([&self.highest])
    }

    /// Where a cursor stands. In the present reign it may still be beyond the head, which only
    /// the database knows.
    #[must_use]
    pub fn standpoint(&self, cursor: &Cursor) -> Standpoint {
        if cursor.group != self.highest.group {
            return Standpoint::Unknown;
        }
        if cursor.epoch == self.highest.epoch {
            return Standpoint::Continue;
        }
        let Some(end) = self.end_of(&cursor.epoch) else { return Standpoint::Unknown };
        if cursor.sequence > end.sequence {
            return Standpoint::PastFork { fork: end.sequence };
        }
        if cursor.sequence == end.sequence && cursor.chain != end.chain {
            return Standpoint::Unknown;
        }
        Standpoint::Continue
    }

    /// The part of an edit's base that this history contains: nothing of an unknown reign, and of
    /// a known one what its successor took over.
    #[must_use]
    pub fn base(&self, base: Revision) -> Sequence {
        if base.epoch == self.highest.epoch.number {
            return base.sequence;
        }
        let ends = self.reigns().filter_map(|reign| reign.parent.as_ref());
        let end = ends.rev().find(|end| end.epoch.number == base.epoch);
        end.map_or(Sequence::ZERO, |end| end.sequence.min(base.sequence))
    }

    /// The number of the reign that gave a sequence.
    #[must_use]
    pub fn epoch_of(&self, sequence: Sequence) -> u64 {
        let began =
            |reign: &Promotion| reign.parent.as_ref().map_or(Sequence::ZERO, |parent| parent.sequence);
        if let Some(reign) = self.reigns().rev().find(|reign| began(reign) < sequence) {
            return reign.epoch.number;
        }
        let mut all = self.reigns();
        all.next().map_or(0, |first| parent_epoch(first).unwrap_or(&first.epoch).number)
    }

    /// How another lineage of the group stands to this one.
    #[must_use]
    pub fn relation(&self, theirs: &Self) -> Relation {
        let (mine, other) = (&self.highest, &theirs.highest);
        if mine.group != other.group {
            return Relation::Unrelated;
        }
        if mine.epoch == other.epoch {
            return Relation::Same;
        }
        if let Some(end) = theirs.end_of(&mine.epoch) {
            return Relation::Extended { fork: end.sequence };
        }
        if self.end_of(&other.epoch).is_some() {
            return Relation::Behind;
        }
        let branch = theirs.reigns().filter_map(|reign| Some((reign, reign.parent.as_ref()?)));
        let mut branch = branch.rev().filter(|(_, parent)| self.knows(&parent.epoch));
        match branch.next() {
            None => Relation::Unrelated,
            Some((reign, parent)) if reign.epoch.number > mine.epoch.number || theirs.ends(&mine.epoch) => {
                let ours = self.end_of(&parent.epoch).map_or(parent.sequence, |end| end.sequence);
                Relation::Replaced { fork: parent.sequence.min(ours) }
            }
            Some((_, parent)) => Relation::Forked { parent: parent.epoch.number },
        }
    }

    /// Whether the device of another reign believes that it goes on where this history does: both have a
    /// reign of that number, and nobody chose between them. A number that was passed over was passed
    /// over knowingly.
    #[must_use]
    pub fn is_contested_by(&self, epoch: &Epoch) -> bool {
        let has_number = self.reigns().any(|reign| reign.epoch.number == epoch.number);
        has_number && !self.knows(epoch) && !self.ends(epoch)
    }

    fn ends(&self, epoch: &Epoch) -> bool {
        self.reigns().any(|reign| reign.ends.contains(epoch))
    }

    /// Where a reign ended that has a successor here.
    fn end_of(&self, epoch: &Epoch) -> Option<&Parent> {
        let ends = self.reigns().filter_map(|reign| reign.parent.as_ref());
        ends.rev().find(|end| end.epoch == *epoch)
    }

    fn knows(&self, epoch: &Epoch) -> bool {
        self.highest.epoch == *epoch || self.end_of(epoch).is_some()
    }
}

fn parent_epoch(promotion: &Promotion) -> Option<&Epoch> {
    promotion.parent.as_ref().map(|parent| &parent.epoch)
}

fn check_alone(group: GroupId, promotion: &Promotion) -> Result<(), LineageError> {
    let number = promotion.epoch.number;
    if promotion.group != group {
        return Err(LineageError::ForeignGroup(number));
    }
    if number <= parent_epoch(promotion).map_or(0, |parent| parent.number) {
        return Err(LineageError::NumberFalls(number));
    }
    Ok(())
}
