//! Live changes for followers: each commit is read and encoded once, and all of them send the same bytes.
//!
//! The master's writer calls [`Hub::publish`] after each commit that is on stable storage; follow
//! streams subscribe. A follower that is too slow for the ring goes back to reading from disk, so
//! no follower grows the server's memory. What may not be acknowledged yet is held here: nobody is shown
//! what a power cut or a promotion could undo.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use mfpsync_proto::limit;
use mfpsync_replication::wire::{batch_to_wire, heartbeat_to_wire};
use mfpsync_storage::master::{Head, MasterRead};
use mfpsync_storage::model::{Cursor, Sequence};
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::net::frames::frame;

/// Batches kept for followers that are a moment behind: 256 commits, a few hundred bytes each as a rule.
const RING: usize = 256;
/// What the kept batches may hold together, since one may be as large as a megabyte.
const RING_BYTES: usize = 16 << 20;

/// Every change is confirmed.
pub const EVERYTHING: Sequence = Sequence(u64::MAX);

/// One published batch.
#[derive(Debug, Clone)]
pub struct Live {
    /// The follower must have everything up to here.
    pub previous: Sequence,
    /// The batch as followers get it; gone when newer ones took its room.
    pub frame: Weak<Bytes>,
    /// What the follower has afterwards.
    pub cursor: Cursor,
}

/// Distributes committed changes.
#[derive(Debug)]
pub struct Hub {
    ring: broadcast::Sender<Live>,
    head: watch::Sender<Head>,
    beat: watch::Sender<Bytes>,
    confirmed: watch::Sender<Sequence>,
    safe: watch::Sender<Option<Sequence>>,
    publishing: Mutex<Publishing>,
}

#[derive(Debug)]
struct Publishing {
    /// Up to where changes were read.
    through: Sequence,
    /// Read and not confirmed, the head after each commit with it.
    held: VecDeque<(Vec<Live>, Head)>,
    kept: Kept,
}

/// The frames of the newest batches: the ring itself only points to them.
#[derive(Debug, Default)]
struct Kept {
    frames: VecDeque<Arc<Bytes>>,
    bytes: usize,
}

impl Kept {
    /// Keeps one more frame; the oldest give way.
    fn keep(&mut self, frame: Bytes) -> Weak<Bytes> {
        let frame = Arc::new(frame);
        let kept = Arc::downgrade(&frame);
        self.bytes += frame.len();
        self.frames.push_back(frame);
        while self.frames.len() > RING || self.bytes > RING_BYTES {
            let Some(oldest) = self.frames.pop_front() else { break };
            self.bytes -= oldest.len();
        }
        kept
    }
}

impl Hub {
    /// Starts behind `head`.
    #[must_use]
    pub fn new(head: Head) -> Self {
        let publishing =
            Mutex::new(Publishing { through: head.sequence, held: VecDeque::new(), kept: Kept::default() });
        let (ring, beat) = (broadcast::Sender::new(RING), watch::Sender::new(Bytes::new()));
        let confirmed = watch::Sender::new(EVERYTHING);
        let (head, safe) = (watch::Sender::new(head), watch::Sender::new(None));
        Self { ring, head, beat, confirmed, safe, publishing }
    }

    /// Up to where another holder has everything on stable storage, from now on.
    pub fn hold_safe(&self, through: Option<Sequence>) {
        self.safe.send_replace(through);
    }

    /// Up to where another holder has everything on stable storage.
    #[must_use]
    pub fn safe(&self) -> Option<Sequence> {
        *self.safe.borrow()
    }

    /// Shows changes up to this one, from now on and until it is said otherwise; [`EVERYTHING`] has each
    /// shown as soon as it is on stable storage here.
    pub fn confirm(&self, through: Sequence) {
        let mut publishing = self.publishing();
        self.confirmed.send_replace(through);
        self.show(&mut publishing);
    }

    /// Waits until changes up to this one may be shown.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn confirmed(&self, sequence: Sequence) {
        // The sender lives as long as this.
        drop(self.confirmed.subscribe().wait_for(|through| *through >= sequence).await);
    }

    /// The master's position as of the last commit that may be shown.
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
            let heartbeat = heartbeat_to_wire(self.head.borrow().sequence, self.safe());
            match frame(&heartbeat) {
                Ok(heartbeat) => drop(self.beat.send_replace(heartbeat)),
                Err(status) => tracing::warn!(%status, "encode a heartbeat"),
            }
        }
    }

    /// Reads what was committed since the last call and hands it out as far as it is confirmed.
    pub fn publish(&self, read: &MasterRead<'_>) {
        let mut publishing = self.publishing();
        let through = publishing.through;
        match self.read_behind(through, &mut publishing.kept, read) {
            Ok((lives, head)) => publishing.hold(lives, head),
            // Followers find the same changes on disk when their heartbeat shows a higher head.
            Err(error) => tracing::warn!(%error, "read committed changes"),
        }
        self.show(&mut publishing);
    }

    fn read_behind(
        &self,
        mut through: Sequence,
        kept: &mut Kept,
        read: &MasterRead<'_>,
    ) -> mfpsync_storage::Result<(Vec<Live>, Head)> {
        let head = read.founded_head()?;
        let mut lives = Vec::new();
        while through < head.sequence && self.ring.receiver_count() > 0 {
            let changes = read.changes_after(through, limit::BATCH_BYTES)?;
            let cursor = cursor_at(&head, changes.through, read)?;
            let (previous, count) = (through, changes.batch.count());
            through = changes.through;
            let batch = batch_to_wire(previous, changes.batch.finish().into(), count, &cursor);
            match frame(&batch) {
                Ok(frame) => lives.push(Live { previous, frame: kept.keep(frame), cursor }),
                // Followers fall behind, and hear why when they read it from disk.
                Err(status) => tracing::warn!(%status, "encode a batch"),
            }
        }
        Ok((lives, head))
    }

    fn show(&self, publishing: &mut Publishing) {
        let confirmed = *self.confirmed.borrow();
        while publishing.held.front().is_some_and(|(_, head)| head.sequence <= confirmed) {
            let Some((lives, head)) = publishing.held.pop_front() else { return };
            // An error means that the last follower left meanwhile.
            lives.into_iter().for_each(|live| drop(self.ring.send(live)));
            self.head.send_replace(head);
        }
    }

    fn publishing(&self) -> MutexGuard<'_, Publishing> {
        self.publishing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Publishing {
    /// Whoever would have to wait for more than the ring holds reads it from disk.
    fn hold(&mut self, lives: Vec<Live>, head: Head) {
        self.through = head.sequence;
        if self.held.len() < RING {
            self.held.push_back((lives, head));
        } else if let Some(last) = self.held.back_mut() {
            *last = (Vec::new(), head);
        }
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

    #[test]
    fn kept_batches_are_bounded_by_number_and_bytes() {
        let mut kept = Kept::default();
        let small: Vec<_> = (0..RING + 3).map(|_| kept.keep(Bytes::from_static(b"x"))).collect();
        let gone = small.iter().filter(|frame| frame.upgrade().is_none()).count();
        assert_eq!((gone, kept.bytes), (3, RING));
        let large = Bytes::from(vec![0; RING_BYTES / 4]);
        let large: Vec<_> = (0..5).map(|_| kept.keep(large.clone())).collect();
        assert!(small.iter().chain(&large[..1]).all(|frame| frame.upgrade().is_none()));
        assert!(large[1..].iter().all(|frame| frame.upgrade().is_some()));
        assert_eq!(kept.bytes, RING_BYTES);
        // A single one that is larger is read from disk by all.
        assert!(kept.keep(vec![0; RING_BYTES + 1].into()).upgrade().is_none());
        assert_eq!((kept.frames.len(), kept.bytes), (0, 0));
    }

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
