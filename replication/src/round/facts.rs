//! What the client knows about itself and its server, across connections.

use std::collections::VecDeque;
use std::time::Duration;

use mfpsync_storage::model::{Cursor, GroupId, Incarnation, Promotion, PublicKey, Sequence, Signed};

use super::words::{Effect, LinkId, LinkState, Moment, Outbox, Trouble};
use crate::backoff::Backoff;
use crate::lineage::{Lineage, LineageError};
use crate::message::{Claim, Hello};

/// Times the round keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// The first dial comes within this after the start, so that devices switched on together do
    /// not dial together.
    pub start_spread: Duration,
    /// Longest wait for a connection.
    pub dial: Duration,
    /// Longest wait for an answer.
    pub answer: Duration,
    /// How often the server gives a sign of life; after three times that it counts as gone.
    pub heartbeat: Duration,
    /// The first ceiling between attempts.
    pub first_wait: Duration,
    /// The highest ceiling between attempts.
    pub longest_wait: Duration,
    /// Shortest wait after a refusal that needs a person; the longest is twice this.
    pub seldom: Duration,
}

impl Timing {
    /// The same with other pauses between attempts; what needs a person is tried at half the pace.
    #[must_use]
    pub fn waiting_at_most(self, longest: Duration) -> Self {
        Self { longest_wait: longest, seldom: longest * 2, ..self }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            start_spread: Duration::from_millis(200),
            dial: Duration::from_secs(5),
            answer: Duration::from_secs(15),
            heartbeat: Duration::from_secs(10),
            first_wait: Duration::from_millis(200),
            longest_wait: Duration::from_secs(30),
            seldom: Duration::from_secs(60),
        }
    }
}

/// What a round starts from, read from the device's own database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The group.
    pub group: GroupId,
    /// This life of the local state.
    pub incarnation: Incarnation,
    /// Verified promotion records, oldest first, as far as known.
    pub lineage: Vec<Signed<Promotion>>,
    /// The number of the reign followed last; records above it were only shown to us.
    pub followed: u64,
    /// Up to where the mirror has everything.
    pub cursor: Option<Cursor>,
    /// Whether a reset was under way.
    pub resetting: bool,
    /// The outbox.
    pub outbox: Outbox,
    /// Where the server may be, best first.
    pub endpoints: Vec<String>,
    /// Where this device is reached when it serves.
    pub own_endpoints: Vec<String>,
    /// The key with which this device would sign as a server.
    pub issuing_key: Option<PublicKey>,
    /// The program's version, for people.
    pub version: String,
    /// The times to keep.
    pub timing: Timing,
}

/// Everything that outlives a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) start: Start,
    /// Our own history; none before the first greeting.
    pub(super) lineage: Option<Lineage>,
    /// That of the greeting which is being stored.
    pub(super) adopting: Option<Lineage>,
    /// The highest promotion record seen, whoever showed it.
    pub(super) highest: Option<Signed<Promotion>>,
    pub(super) cursor: Option<Cursor>,
    pub(super) resetting: bool,
    /// The highest cursor the mirror ever had: within its epoch no server may have less.
    pub(super) floor: Option<Cursor>,
    pub(super) outbox: Outbox,
    pub(super) last_link: LinkId,
    /// Endpoints still to try before the next wait.
    pub(super) sweep: VecDeque<String>,
    /// A refusal met in this sweep that needs a person.
    pub(super) seldom: Option<Trouble>,
    pub(super) endpoint: String,
    pub(super) last_good: Option<String>,
    pub(super) backoff: Backoff,
    pub(super) trouble: Option<Trouble>,
    /// Storage effects not yet answered.
    pub(super) storing: usize,
    /// The safe sequence told to storage.
    pub(super) forgotten: Sequence,
    pub(super) woken_at: Option<Moment>,
    pub(super) reported: Option<LinkState>,
}

impl Facts {
    pub(super) fn new(start: Start) -> Result<Self, LineageError> {
        Ok(Self {
            lineage: followed(start.group, start.followed, &start.lineage)?,
            adopting: None,
            highest: start.lineage.iter().max_by_key(|signed| signed.record.epoch.number).cloned(),
            cursor: start.cursor,
            resetting: start.resetting,
            floor: start.cursor.filter(|_| !start.resetting),
            outbox: start.outbox,
            last_link: LinkId::default(),
            sweep: VecDeque::new(),
            seldom: None,
            endpoint: String::new(),
            last_good: None,
            backoff: Backoff::new(start.timing.first_wait, start.timing.longest_wait),
            trouble: None,
            storing: 0,
            forgotten: Sequence::ZERO,
            woken_at: None,
            reported: None,
            start,
        })
    }

    pub(super) fn limit_waits(&mut self, longest: Duration) {
        self.start.timing = self.start.timing.waiting_at_most(longest);
        self.backoff.limit_to(longest);
    }

    pub(super) fn hello(&self) -> Hello {
        Hello {
            protocol_min: mfpsync_proto::PROTOCOL_VERSION_MIN,
            protocol_max: mfpsync_proto::PROTOCOL_VERSION,
            group: self.start.group,
            incarnation: self.start.incarnation,
            claim: self.highest.clone().map(|highest| Claim::of(highest, &[], &[])),
            last_operation: self.outbox.last_operation,
            endpoints: self.start.own_endpoints.clone(),
            issuing_key: self.start.issuing_key,
            version: self.start.version.clone(),
        }
    }

    /// Lines the endpoints up, the last good one first.
    pub(super) fn begin_sweep(&mut self) {
        let mut all = self.start.endpoints.clone();
        if let Some(good) = &self.last_good {
            all.retain(|endpoint| endpoint != good);
            all.insert(0, good.clone());
        }
        self.sweep = all.into();
        self.seldom = None;
    }

    /// Takes a reading of the outbox, unless edits known already are not in it.
    pub(super) fn take_outbox(&mut self, read: Outbox) {
        let newer_known = self.outbox.last_operation > read.last_operation;
        self.outbox = Outbox {
            waiting: read.waiting || newer_known,
            last_operation: self.outbox.last_operation.max(read.last_operation),
            // A new reign may have taken it back.
            low_water: read.low_water,
        };
    }

    pub(super) fn moved_to(&mut self, cursor: Cursor) {
        self.cursor = Some(cursor);
        let higher = |floor: &Cursor| floor.epoch != cursor.epoch || floor.sequence < cursor.sequence;
        if !self.resetting && self.floor.as_ref().is_none_or(higher) {
            self.floor = Some(cursor);
        }
    }

    /// Notes a reign shown by somebody; the effect when it is above all known ones.
    pub(super) fn note_claim(&mut self, claim: &Claim) -> Option<Effect> {
        let known = self.highest.as_ref().map_or(0, |known| known.record.epoch.number);
        let record = &claim.promotion.record;
        if record.group != self.start.group || record.epoch.number <= known {
            return None;
        }
        self.highest = Some(claim.promotion.clone());
        Some(Effect::NoteClaim(Box::new(claim.clone())))
    }
}

/// Our own history: the records we know, up to the reign followed last. Higher ones were only shown to us: a
/// server below them is not believed, but they are no part of our history.
fn followed(
    group: GroupId,
    last: u64,
    records: &[Signed<Promotion>],
) -> Result<Option<Lineage>, LineageError> {
    let followed = records.iter().map(|signed| &signed.record).filter(|record| record.epoch.number <= last);
    let followed: Vec<Promotion> = followed.cloned().collect();
    if followed.is_empty() { Ok(None) } else { Lineage::new(group, followed).map(Some) }
}
