//! The domain types: what an item is, in which order changes were accepted, who made them.
//!
//! Everything that crosses the wire or the disk is parsed into one of these once, at the door, and
//! is known to be well-formed from then on. No I/O and no clock here.

mod change;
mod erased;
mod held;
mod ids;
mod key;
mod membership;
mod operation;
mod outcome;
mod promotion;
mod revision;
mod sharing;
mod switch;
mod value;

pub(crate) use change::sha256;
pub use change::{Change, ChangeBatch, ContentHash};
pub use erased::{ERASED_KIND, ErasedMark, Erasure, erasure_key};
pub use held::Held;
pub use ids::{Chain, DeviceId, GroupId, Incarnation, OperationNumber, PublicKey, Sequence};
pub use key::{ItemKey, KeyError, Kind, Scope};
pub use membership::{Capabilities, IssuingCertificate, Member, SIGNATURE_BYTES, Signed};
pub use operation::{Action, Base, Digest, Edit, Operation};
pub use outcome::{EditOutcome, Outcome, RejectReason};
pub use promotion::{Parent, Promotion, PromotionReason};
pub use revision::{Cursor, Epoch, Revision};
pub use sharing::{SHARING_KIND, Sharing, sharing_key};
pub use switch::{Choice, Place, Start, Tally, Target};
pub use value::{FieldSequences, Fields, Sealed, Value};

/// Limits of one item and one operation (I-29). **Source**: blueprint of limits in `docs/protocol.md`.
pub mod limit {
    /// Encoded fields of one item, in bytes.
    pub const ITEM_BYTES: usize = 64 << 10;
    /// Fields of one item.
    pub const ITEM_FIELDS: usize = 128;
    /// A scope's, kind's, item's or field's name, in bytes.
    pub const NAME_BYTES: usize = 255;
    /// The filter of a cursor.
    pub const FILTER_BYTES: usize = 255;
    /// Users of one group.
    pub const USERS: u64 = 50_000;
    /// Items of one user.
    pub const USER_ITEMS: u64 = 2_000;
    /// Encoded fields of one user's items, in bytes.
    pub const USER_BYTES: u64 = 1 << 20;
    /// Edits in one operation.
    pub const OPERATION_EDITS: usize = 100;
    /// One encoded operation, in bytes.
    pub const OPERATION_BYTES: usize = 1 << 20;
}
