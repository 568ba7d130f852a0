//! What a server and its replica say to each other. No logic; [`crate::wire`] turns it into protocol
//! messages and back.

use mfpsync_storage::model::ContentHash;
use mfpsync_storage::physical::{PageDigest, PageNumber, Position};

/// Pages whose hashes are compared by one digest.
pub const RANGE_PAGES: u32 = 64;
/// Ranges in one question.
pub const RANGES: u32 = 16;

/// From the server.
#[derive(Debug, Clone, PartialEq)]
pub enum ToReplica {
    /// What do these pages hash to? [`RANGES`] ranges of [`RANGE_PAGES`] pages, from `first` on.
    Compare {
        /// The first page.
        first: PageNumber,
    },
    /// And these, page by page: the ranges that begin here.
    CompareEach {
        /// First pages of ranges.
        ranges: Vec<PageNumber>,
    },
    /// A part of a transaction.
    Part {
        /// Which try this belongs to: after a replica refused something, it takes nothing of the same try.
        attempt: u32,
        /// Rising by one.
        number: u64,
        /// A transaction begins: what was staged before is void.
        begins: bool,
        /// It makes a copy beside the one that is there.
        beside: bool,
        /// A packed [`crate::batch::Part`].
        packed: Vec<u8>,
    },
    /// Is the copy what it should be?
    Prove {
        /// Names the question.
        proof: u64,
        /// Where it stands when it hears this.
        position: Position,
    },
    /// A sign of life, and where the server stands.
    Head(Position),
    /// The server's operator hands over to this replica.
    TakeOver,
}

/// Where a copy stands that took a part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reached {
    /// At the end of the transaction that the part ended.
    End,
    /// Where it stood before; none if it was never whole.
    Elsewhere(Option<Position>),
}

/// From the replica.
#[derive(Debug, Clone, PartialEq)]
pub enum FromReplica {
    /// First of all: where its copy stands.
    Stands {
        /// None if it has no whole copy.
        position: Option<Position>,
        /// Pages it has, of a copy that may not be whole.
        pages: u32,
    },
    /// Digests of ranges, as asked for by [`ToReplica::Compare`].
    Ranges(Vec<PageDigest>),
    /// Short hashes of pages, range by range, as asked for by [`ToReplica::CompareEach`].
    Each(Vec<Vec<u64>>),
    /// All up to this part is taken; what is committed of it is on stable storage.
    Taken {
        /// The part.
        number: u64,
        /// Where the copy stands.
        reached: Reached,
    },
    /// Something does not fit: these pages are not what was meant, or none of them is to blame alone.
    Differs {
        /// The pages.
        pages: Vec<PageNumber>,
    },
    /// What became of a proof.
    Proven {
        /// Which.
        proof: u64,
        /// What all items in the copy hash to; else what is wrong, in words for an engineer.
        content: Result<ContentHash, String>,
    },
}
