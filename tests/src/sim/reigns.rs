//! What each master database should hold, reign by reign, and what was promised of it.
//!
//! A line is the history that leads to one state of a master: the model's state, and every decision on the
//! way there. Each transaction a replica may stand at has its line, so a promotion goes on from just that,
//! and what it lacks is known to the last operation.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use mfpsync_replication::merge::is_written_by_devices;
use mfpsync_replication::message::Claim;
use mfpsync_storage::local::Phase;
use mfpsync_storage::model::{
    Chain, ContentHash, EditOutcome, Epoch, Operation, Outcome, Revision, Sequence,
};
use mfpsync_storage::physical::{LogId, Position};

use super::history::{Decision, Done, OperationId};
use super::house::House;
use super::model::{Key, Model};
use super::server::is_proven;
use super::sharing::parsed;
use super::world::World;

/// A history and what it comes to.
#[derive(Clone)]
pub(super) struct Line {
    pub model: Model,
    pub decisions: BTreeMap<OperationId, Rc<Decision>>,
    pub order: Vec<Rc<Done>>,
    /// Sequences that switches took.
    pub switches: BTreeSet<u64>,
    /// The number of its reign.
    pub epoch: u64,
    /// The last sequence of each reign before.
    pub ends: BTreeMap<u64, u64>,
}

impl Line {
    pub(super) fn new(user_items: u64) -> Self {
        Self {
            model: Model::new(user_items),
            decisions: BTreeMap::new(),
            order: Vec::new(),
            switches: BTreeSet::new(),
            epoch: 1,
            ends: BTreeMap::new(),
        }
    }

    /// What of an edit's base this history contains.
    pub(super) fn base(&self, base: Revision) -> u64 {
        match self.ends.get(&base.epoch) {
            _ if base.epoch == self.epoch => base.sequence.0,
            Some(end) => base.sequence.0.min(*end),
            None => 0,
        }
    }
}

/// A reign by its nonce.
type Nonce = [u8; 16];

/// All reigns there were, and what they said.
#[derive(Default)]
pub(super) struct Reigns {
    /// What a master held after each transaction that a replica may stand at.
    lines: BTreeMap<([u8; 16], u64), Rc<Line>>,
    /// Where each reign's server came to.
    latest: BTreeMap<Nonce, Rc<Line>>,
    /// Operations answered as being on a replica's storage, by reign and replica.
    promised: BTreeMap<(Nonce, [u8; 16]), BTreeSet<OperationId>>,
    /// Up to where followers were shown changes as being there.
    shown: BTreeMap<(Nonce, [u8; 16]), Sequence>,
    /// Up to where a reign said that everything is safe.
    safe: BTreeMap<Nonce, Sequence>,
    /// The chain at each sequence that was given.
    given: BTreeMap<(Nonce, u64), Chain>,
    /// Reigns that another one went on from.
    parents: BTreeSet<Nonce>,
    /// What is expected of the answer to a question for a proof.
    pub proofs: BTreeMap<(usize, u64), ContentHash>,
    /// A server's disk was put back to an earlier image.
    pub put_back: bool,
    /// Two reigns went on from one parent.
    pub forked: bool,
}

fn nonce_of(house: &House) -> Nonce {
    house.read(|read| read.founded_head()).epoch.nonce
}

fn replica_of(house: &House) -> Option<[u8; 16]> {
    house.serving().set.map(|set| set.device.0)
}

impl Reigns {
    /// These operations were answered as being on the replica's storage as well.
    pub(super) fn promise(&mut self, house: &House, ids: Vec<OperationId>) {
        if let Some(replica) = replica_of(house) {
            self.promised.entry((nonce_of(house), replica)).or_default().extend(ids);
        }
    }

    /// Followers were shown changes up to this one as being there.
    pub(super) fn promise_shown(&mut self, house: &House, through: Sequence) {
        if let Some(replica) = replica_of(house) {
            let shown = self.shown.entry((nonce_of(house), replica)).or_default();
            *shown = through.max(*shown);
        }
    }

    /// Whether a server said once that an operation is safe, so that its device need not keep it.
    pub(super) fn counted_on(&self, id: OperationId) -> bool {
        self.latest.iter().any(|(nonce, line)| {
            let safe = self.safe.get(nonce).copied().unwrap_or_default();
            let revision = line.decisions.get(&id).and_then(|decision| decision.outcome.revision());
            revision.is_some_and(|revision| revision.sequence <= safe)
        })
    }

    pub(super) fn told_safe(&mut self, house: &House, safe: Option<Sequence>) {
        if house.serving().set.is_some() {
            let told = self.safe.entry(nonce_of(house)).or_default();
            *told = safe.unwrap_or_default().max(*told);
        }
    }
}

impl World {
    /// A master stands somewhere else now: notes what it should hold there. I-13: no sequence of a
    /// reign is ever given twice.
    pub(super) fn remember(&mut self, house: usize) {
        let own = &self.houses[house];
        let (head, line) = (own.read(|read| read.founded_head()), own.line.clone());
        let at = own.serving().feeding.lock().expect("state").at.filter(|_| own.serving().set.is_some());
        if let Some((LogId(log), transaction)) = at {
            self.reigns.lines.insert((log, transaction), line.clone());
        }
        if own.serving().set.is_some() || self.swarm.houses > 1 {
            self.reigns.latest.insert(head.epoch.nonce, line);
            let key = (head.epoch.nonce, head.sequence.0);
            let before = *self.reigns.given.entry(key).or_insert(head.chain);
            self.require(
                before == head.chain,
                "I-13",
                format_args!("sequence {} of reign {} was given twice", head.sequence.0, head.epoch.number),
            );
        }
    }

    /// I-11: a copy stands where its server stood once, and never goes back.
    pub(super) fn check_copy(&mut self, house: usize, before: Option<&Position>) {
        let Some(copying) = &self.houses[house].copying else { return };
        let Some(position) = copying.standby.position() else { return };
        let known = self.reigns.lines.contains_key(&(position.log.0, position.transaction));
        self.require(known, "I-11", format_args!("the copy of machine {house} stands where no server stood"));
        let own = &mut self.houses[house];
        own.rotten = false;
        let seen = own.epoch_seen();
        self.require(
            position.epoch.number >= seen,
            "I-15",
            format_args!("the copy of machine {house} takes from a reign that it knows to have ended"),
        );
        let back = before.is_some_and(|before| before.place() > position.place());
        self.require(!back, "I-11", format_args!("the copy of machine {house} went back"));
    }

    /// Nothing is said to be safe that the replica does not have on its disk.
    pub(super) fn check_held(&mut self, house: usize, durable: &Position) {
        let Some(set) = self.houses[house].serving().set else { return };
        let replica = usize::from(set.device.0[0]) - 1;
        let Some(own) = self.houses.get(replica).filter(|own| !own.copy_put_back) else { return };
        let Some(held) = own.copying.as_ref().and_then(|copying| copying.standby.position()) else { return };
        let has = held.log != durable.log || held.transaction >= durable.transaction;
        self.require(
            has,
            "I-16",
            format_args!(
                "the server counts on transaction {}, the copy has {}",
                durable.transaction, held.transaction
            ),
        );
    }

    /// Nothing is told to be safe that the replica's copy lacks.
    pub(super) fn check_safe(&mut self, house: usize, safe: Option<Sequence>) {
        let Some(set) = self.houses[house].serving().set else { return };
        let replica = usize::from(set.device.0[0]) - 1;
        let Some(own) = self.houses.get(replica).filter(|own| !own.copy_put_back) else { return };
        let Some(held) = own.copying.as_ref().and_then(|copying| copying.standby.position()) else { return };
        let same = held.epoch == self.houses[house].read(|read| read.founded_head()).epoch;
        self.require(
            !same || safe.unwrap_or_default() <= held.sequence,
            "I-16",
            format_args!("changes up to {safe:?} are called safe, the copy has {}", held.sequence.0),
        );
    }

    /// I-14: whoever was shown a proven record above its own reign answers nobody as a server.
    pub(super) fn check_sealed(&mut self, house: usize, shown: &Claim) {
        let own = &self.houses[house];
        let (head, issuers) = own.read(|read| Ok((read.founded_head()?, read.issuers()?)));
        let proven = is_proven(shown, &issuers);
        self.require(
            !proven || shown.promotion.record.epoch.number <= head.epoch.number,
            "I-14",
            format_args!("machine {house} answers although it was shown that another one reigns"),
        );
    }

    /// I-17: whatever a device has mirrored from beyond a fork waits for the new reign, once it has joined.
    pub(super) fn check_offers(&mut self, device: usize, fork: Revision) {
        let all: BTreeSet<Key> =
            self.reigns.latest.values().flat_map(|line| line.model.items.keys().cloned()).collect();
        let own = &self.devices[device];
        // What the group has is not this device's yet.
        if own.read(|read| read.phase()) == Some(Phase::Joining) {
            return;
        }
        let mut offered = BTreeSet::new();
        for (_, record) in own.read(|read| read.outbox(usize::MAX >> 1, usize::MAX)) {
            let operation = Operation::decode(&record).expect("a waiting operation");
            offered.extend(operation.edits.into_iter().map(|edit| edit.key));
        }
        let of = own.id.to_string();
        for key in all.iter().map(parsed).filter(|key| key.device.is_empty() || key.device == of) {
            let beyond = self.devices[device]
                .read(|read| read.mirrored(&key))
                .is_some_and(|mirrored| mirrored.sequence > fork.sequence);
            self.require(
                !beyond || !is_written_by_devices(&key.kind) || offered.contains(&key),
                "I-17",
                format_args!(
                    "device {device} has seen a change of {key:?} that the new reign lacks, and keeps it"
                ),
            );
        }
    }

    /// A replica takes over from here. I-17: what was promised to be there is there.
    pub(super) fn check_takeover(&mut self, house: usize, position: &Position, epoch: Epoch) {
        let key = (position.log.0, position.transaction);
        let Some(line) = self.reigns.lines.get(&key).cloned() else {
            return self.violate("I-11", format_args!("machine {house} takes over where no server stood"));
        };
        let parent = position.epoch.nonce;
        let promise = (parent, super::house::device_id(house).0);
        let old = self.houses[house].copy_put_back;
        let promised = self.reigns.promised.get(&promise);
        let missing = promised.and_then(|ids| ids.iter().find(|id| !line.decisions.contains_key(*id)));
        if let (Some(id), false) = (missing.copied(), old) {
            self.violate("I-17", format_args!("operation {} was confirmed and is not in the copy", id.1));
        }
        let shown = self.reigns.shown.get(&promise).copied().unwrap_or_default();
        self.require(
            old || shown <= position.sequence,
            "I-17",
            format_args!("changes up to {} were shown, the copy ends at {}", shown.0, position.sequence.0),
        );
        self.count_takeover(&line, position);
        if !self.reigns.parents.insert(parent) {
            self.reigns.forked = true;
            self.counters.sometimes("two promotions from one parent");
        }
        let mut next = (*line).clone();
        next.ends.insert(next.epoch, position.sequence.0);
        next.epoch = epoch.number;
        next.model.offered.clear();
        self.houses[house].line = Rc::new(next);
    }

    /// What a successor lacks that nobody keeps any more, because it was said to be safe or its device left.
    fn count_takeover(&mut self, line: &Line, position: &Position) {
        let Some(latest) = self.reigns.latest.get(&position.epoch.nonce).cloned() else { return };
        let safe = self.reigns.safe.get(&position.epoch.nonce).copied().unwrap_or_default();
        let mut lacking = 0;
        for (id, decision) in &latest.decisions {
            if line.decisions.contains_key(id) {
                continue;
            }
            lacking += 1;
            let counted_on = decision.outcome.revision().is_some_and(|revision| revision.sequence <= safe);
            if let Some(edit) = self.history.acknowledged.get_mut(id)
                && (counted_on || edit.ended)
            {
                edit.withdrawn = true;
            }
        }
        if lacking > 0 {
            self.counters.sometimes("promotion with a tail that was not copied");
        }
        if safe > position.sequence {
            self.counters.sometimes("promotion of a copy older than what was safe");
        }
    }
}

/// Whether an accepted operation changed nothing.
pub(super) fn wrote_nothing(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Rejected { .. } => true,
        Outcome::Accepted { edits, .. } => edits.iter().all(|edit| match edit {
            EditOutcome::Unchanged => true,
            EditOutcome::Superseded { fields, .. } => fields.is_empty(),
            EditOutcome::Applied | EditOutcome::Merged { .. } => false,
        }),
    }
}
