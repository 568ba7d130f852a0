//! What to pull, push and merge: the decisions of replication, without clock, network or threads.
//!
//! Start with [`merge`], what becomes of an edit. [`lineage`] tells histories apart, [`message`]
//! holds what the two sides say, [`wire`] is the door to the protocol's own messages, [`round`] is
//! the client as a state machine, [`accept`] and [`follow`] the server's answers, [`undo`] what goes
//! back to how it was, [`operator`] what is changed at the server itself, [`bring_back`] what comes out of an archive, [`join`] what becomes of a
//! device's own items when it enters a group, [`sharing`] what devices have together and what each
//! for itself,
//! [`ship`] what a replica is sent of the database page by page, [`apply`] what it does with that, [`protection`] when a change may be acknowledged,
//! [`tombstones`] which deletions may be forgotten, [`window`] how far back old values are kept.

pub mod accept;
pub mod apply;
pub mod backoff;
pub mod batch;
pub mod bring_back;
mod error;
pub mod follow;
#[cfg(test)]
#[path = "../../storage/tests/proof/frozen.rs"]
mod frozen;
pub mod join;
pub mod lineage;
pub mod merge;
pub mod message;
pub mod operator;
pub mod protection;
pub mod round;
pub mod sharing;
pub mod ship;
pub mod stream;
pub mod tombstones;
pub mod undo;
pub mod window;
pub mod wire;

pub use error::WireError;
