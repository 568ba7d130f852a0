//! What to pull, push and merge: the decisions of replication, without input or output.
//!
//! Start with [`merge`], what becomes of an edit.

pub mod backoff;
pub mod lineage;
pub mod merge;
