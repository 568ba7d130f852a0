//! Live changes for followers: each commit is read and encoded once, and all of them send the same bytes.
//!
//! The master's writer calls [`Hub::publish`] after each commit that is on stable storage; follow
//! streams subscribe. A follower that is too slow for the ring goes back to reading from disk, so
//! no follower grows the server's memory.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mfpsync_proto::limit;
use mfpsync_replication::wire::{batch_to_wire, heartbeat_to_wire};
use mfpsync_storage::master::{Head, MasterRead};
use mfpsync_storage::model::{Cursor, Sequence};
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::net::frames::frame;

/// Batches kept for followers that are a moment behind: 256 commits, one megabyte each at the most
/// and a few hundred bytes as a rule.
const RING: usize = 256;

/// One published batch.
#[derive(Debug, Clone)]
pub struct Live {
    /// The follower must have everything up to here.
    pub previous: Sequence,
    /// The batch as followers get it.
    pub frame: Bytes,
    /// What the follower has afterwards.
    pub cursor: Cursor,
}

/// Distributes committed changes.
#[derive(Debug)]
pub struct Hub {
    ring: broadcast::Sender<Live>,
    head: watch::Sender<Head>,
    beat: watch::Sender<Bytes>,
    published: Mutex<Sequence>,
}

impl Hub {
    /// Starts behind `head`.
    #[must_use]
    pub fn new(head: Head) -> Self {
        let published = Mutex::new(head.sequence);
        let (ring, beat) = (broadcast::Sender::new(RING), watch::Sender::new(Bytes::new()));
        Self { ring, head: watch::Sender::new(head), beat, published }
    }

    /// The master's position as of the last commit.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    /// Batches from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Live> {
        self.ring.subscribe()
    }

    /// Heartbeats from now on: signs of life with the head of that moment, the same for all.
    #[must_use]
    pub fn beat(&self) -> watch::Receiver<Bytes> {
        self.beat.subscribe()
    }

    /// Breaks the silence of all streams once an interval. One sweep over a thousand streams costs
    /// less than a timer of each, and wakes an idle machine once.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn keep_beating(&self, every: Duration) {
        let mut due = tokio::time::interval_at(Instant::now() + every, every);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            let heartbeat = heartbeat_to_wire(self.head.borrow().sequence, None);
            match frame(&heartbeat) {
                Ok(heartbeat) => drop(self.beat.send_replace(heartbeat)),
                Err(status) => tracing::warn!(%status, "encode a heartbeat"),
            }
        }
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
            let (previous, count) = (*published, changes.batch.count());
            *published = changes.through;
            let batch = batch_to_wire(previous, changes.batch.finish().into(), count, &cursor);
            match frame(&batch) {
                // An error means that the last follower left meanwhile.
                Ok(frame) => drop(self.ring.send(Live { previous, frame, cursor })),
                // Followers fall behind, and hear why when they read it from disk.
                Err(status) => tracing::warn!(%status, "encode a batch"),
            }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mfpsync_proto::sync::FollowEvent;
    use mfpsync_storage::model::{Chain, Epoch, GroupId, PublicKey};
    use prost::Message;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_heartbeat_an_interval_reaches_all_streams() {
        let every = Duration::from_secs(15);
        let hub = Arc::new(Hub::new(Head {
            group: GroupId([1; 16]),
            group_name: "office".to_owned(),
            root_key: PublicKey([2; 32]),
            epoch: Epoch { number: 1, nonce: [3; 16] },
            sequence: Sequence(7),
            chain: Chain::START,
            tombstone_floor: Sequence::ZERO,
        }));
        let (mut one, mut other) = (hub.beat(), hub.beat());
        let began = Instant::now();
        let beating = tokio::spawn(async move { hub.keep_beating(every).await });
        for beats in 1..=3 {
            one.changed().await.unwrap();
            other.changed().await.unwrap();
            assert_eq!(began.elapsed(), every * beats);
            let (one, other) = (one.borrow_and_update(), other.borrow_and_update());
            assert_eq!(one.as_ptr(), other.as_ptr());
            let event = FollowEvent::decode(&one[5..]).unwrap();
            assert_eq!(event, heartbeat_to_wire(Sequence(7), None));
        }
        beating.abort();
    }
}
