//! Live changes for followers: each commit is read and encoded once, and handed to all of them.
//!
//! The master's writer calls [`Hub::publish`] after each commit that is on stable storage; follow
//! streams subscribe. A follower that is too slow for the ring goes back to reading from disk, so
//! no follower grows the server's memory.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use mfpsync_proto::limit;
use mfpsync_storage::master::{Head, MasterRead};
use mfpsync_storage::model::{Cursor, Sequence};
use tokio::sync::{broadcast, watch};

/// Batches kept for followers that are a moment behind: 256 commits, one megabyte each at the most
/// and a few hundred bytes as a rule.
const RING: usize = 256;

/// One published batch.
#[derive(Debug, Clone)]
pub struct Live {
    /// The follower must have everything up to here.
    pub previous: Sequence,
    /// The change records.
    pub changes: Bytes,
    /// How many.
    pub count: u32,
    /// What the follower has afterwards.
    pub cursor: Cursor,
}

/// Distributes committed changes.
#[derive(Debug)]
pub struct Hub {
    ring: broadcast::Sender<Arc<Live>>,
    head: watch::Sender<Head>,
    published: Mutex<Sequence>,
}

impl Hub {
    /// Starts behind `head`.
    #[must_use]
    pub fn new(head: Head) -> Self {
        let published = Mutex::new(head.sequence);
        Self { ring: broadcast::Sender::new(RING), head: watch::Sender::new(head), published }
    }

    /// The master's position as of the last commit.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    /// Batches from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Live>> {
        self.ring.subscribe()
    }

    /// Reads what was committed since the last call and hands it out.
    pub fn publish(&self, read: &MasterRead<'_>) {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.publish_after(&mut published, read) {
            // Followers find the same changes on disk when their heartbeat shows a higher head.
            tracing::warn!(%error, "read committed changes");
        }
    }

    fn publish_after(&self, published: &mut Sequence, read: &MasterRead<'_>) -> mfpsync_storage::Result<()> {
        let head = read.founded_head()?;
        while *published < head.sequence && self.ring.receiver_count() > 0 {
            let changes = read.changes_after(*published, limit::BATCH_BYTES)?;
            let cursor = cursor_at(&head, changes.through, read)?;
            let live = Live {
                previous: *published,
                count: changes.batch.count(),
                changes: changes.batch.finish().into(),
                cursor,
            };
            *published = changes.through;
            // An error means that the last follower left meanwhile.
            drop(self.ring.send(Arc::new(live)));
        }
        *published = head.sequence;
        self.head.send_replace(head);
        Ok(())
    }
}

/// The cursor of a follower that has everything up to `sequence`.
///
/// # Errors
/// The database's.
pub fn cursor_at(head: &Head, sequence: Sequence, read: &MasterRead<'_>) -> mfpsync_storage::Result<Cursor> {
    if sequence == head.sequence {
        return Ok(head.cursor());
    }
    let chain = read
        .chain_at(sequence)?
        .ok_or(mfpsync_storage::codec::DecodeError::Invalid("a change without its place in the chain"))?;
    Ok(Cursor { chain, sequence, ..head.cursor() })
}
