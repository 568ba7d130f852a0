//! The master database as pages: what a replica is fed from, and the copy it keeps.
//!
//! [`page`], [`position`], [`wal`] and [`page_set`] are pure. What they stand for is decided in
//! `mfpsync_replication`.

pub(crate) mod anchor;
pub(crate) mod held;
pub(crate) mod moment;
pub mod page;
pub mod page_set;
pub mod pages;
pub mod position;
pub mod standby;
pub mod wal;

pub use page::{PAGE_BYTES, Page, PageDigest, PageHash, PageNumber};
pub use page_set::PageSet;
pub use pages::{Changed, Pages};
pub use position::{LogId, Position};
pub use standby::{Prover, Standby};
