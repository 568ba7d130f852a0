//! What was promised and what was answered, as seen from outside: every edit a device acknowledged,
//! every outcome the server decided, every outcome a device was told.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use mfpsync_replication::accept::{Submission, Usage, accept};
use mfpsync_storage::local::SetAside;
use mfpsync_storage::master::MasterWrite;
use mfpsync_storage::model::{
    Action, Edit, EditOutcome, Fields, Incarnation, Operation, OperationNumber, Outcome, Sequence,
};

use super::model::{Key, Refused};
use super::reigns::{Line, wrote_nothing};
use super::swarm::Defect;
use super::translate;
use super::world::World;

/// One life of a device, and its count of operations.
pub(super) type OperationId = (u64, u64);

/// An edit the device took from its user.
pub(super) struct Acknowledged {
    pub device: usize,
    pub record: Vec<u8>,
    /// What it was while it stood on something else: requests made then may come late.
    pub earlier: Vec<Vec<u8>>,
    /// Its device left the group before it knew the outcome, or nobody has to keep it any more.
    pub withdrawn: bool,
    /// The life of its device is over.
    pub ended: bool,
    /// The disk that knew what became of it is gone.
    pub forgotten: bool,
    /// Offered for what the mirror has, and gives way to anybody.
    pub yields: bool,
    /// Stands in the place of one that came to nothing, and asks for nothing.
    pub void: bool,
}

/// What the server made of an operation.
pub(super) struct Decision {
    pub record: Vec<u8>,
    pub outcome: Outcome,
    /// Where its edits went; none for those that were kept for their author.
    pub places: Vec<Option<Key>>,
}

/// What the server did, in order.
pub(super) enum Done {
    Decided(OperationId),
    /// The sharing of this kind was switched.
    Switched(String),
}

#[derive(Default)]
pub(super) struct History {
    pub acknowledged: BTreeMap<OperationId, Acknowledged>,
    /// Every outcome a device was told, the latest last: two reigns may have decided one operation.
    pub told: BTreeMap<OperationId, Vec<Outcome>>,
}

impl History {
    pub(super) fn acknowledged(
        &mut self,
        device: usize,
        incarnation: Incarnation,
        number: OperationNumber,
        record: Vec<u8>,
    ) {
        let new = Acknowledged {
            device,
            record,
            earlier: Vec::new(),
            withdrawn: false,
            ended: false,
            forgotten: false,
            yields: false,
            void: false,
        };
        self.acknowledged.insert((incarnation.0, number.0), new);
    }

    /// A disk has forgotten the operations behind this one.
    pub(super) fn forget_behind(&mut self, incarnation: Incarnation, last: OperationNumber) {
        for (id, edit) in &mut self.acknowledged {
            if id.0 == incarnation.0 && id.1 > last.0 {
                (edit.withdrawn, edit.ended) = (true, true);
                self.told.remove(id);
            }
        }
    }

    pub(super) fn settled(&mut self, incarnation: Incarnation, outcomes: &[(OperationNumber, Outcome)]) {
        for (number, outcome) in outcomes {
            self.told.entry((incarnation.0, number.0)).or_default().push(outcome.clone());
        }
    }

    /// The disk of a device is gone, or a person separated it from its past.
    pub(super) fn forget_all(&mut self, device: usize) {
        self.acknowledged
            .values_mut()
            .filter(|edit| edit.device == device)
            .for_each(|edit| edit.forgotten = true);
    }

    /// A life of a device is over. What one of these histories does not have, or the device was not told the
    /// outcome of, nobody keeps any more.
    pub(super) fn withdraw(&mut self, incarnation: Incarnation, present: &[Rc<Line>]) {
        for (id, edit) in &mut self.acknowledged {
            if id.0 == incarnation.0 {
                let told = self.told.get(id).map_or(&[][..], Vec::as_slice);
                let holds = |line: &Rc<Line>| {
                    line.decisions.get(id).is_some_and(|decision| told.contains(&decision.outcome))
                };
                let held = !present.is_empty() && present.iter().all(holds);
                (edit.ended, edit.withdrawn) = (true, edit.withdrawn || !held);
            }
        }
    }
}

impl World {
    /// The server has answered a push; holds each answer against the past and against the model.
    pub(super) fn decided(
        &mut self,
        house: usize,
        device: usize,
        submission: &Submission,
        outcomes: &[(OperationNumber, Outcome)],
    ) {
        for ((number, outcome), record) in outcomes.iter().zip(&submission.operations) {
            let id = (submission.incarnation.0, number.0);
            if let Some(known) = self.houses[house].line.decisions.get(&id) {
                let same = (asks_the_same(&known.record, record) || is_withdrawn(record))
                    && known.outcome == *outcome;
                self.counters.sometimes("push answered from the ledger");
                self.require(
                    same,
                    "I-03",
                    format_args!("operation {} of {device} got a second answer", number.0),
                );
                if self.options.defect == Some(Defect::AppliesTwice) {
                    self.decide_again(house, submission, record);
                }
                continue;
            }
            let made = self.history.acknowledged.get(&id);
            let promised =
                made.is_some_and(|edit| edit.earlier.iter().chain([&edit.record]).any(|form| form == record));
            // Old requests arrive late, also such as were made before a disk was put back.
            self.require(
                promised || self.devices[device].put_back,
                "I-03",
                format_args!("{device} pushed what nobody made: {}", number.0),
            );
            let places = self.places(house, device, record);
            let line = self.houses[house].line();
            line.order.push(Rc::new(Done::Decided(id)));
            let decision = Decision { record: record.clone(), outcome: outcome.clone(), places };
            line.decisions.insert(id, Rc::new(decision));
            self.ask_model(house, device, id, record, outcome);
        }
    }

    /// [`Defect::AppliesTwice`].
    fn decide_again(&mut self, house: usize, submission: &Submission, record: &[u8]) {
        let mut operation = Operation::decode(record).expect("a decided operation");
        operation.number = OperationNumber(1);
        operation.edits.iter_mut().for_each(|edit| edit.base = Default::default());
        let again = Submission {
            incarnation: Incarnation(submission.incarnation.0 ^ 1 << 40 ^ self.now),
            low_water: OperationNumber::default(),
            operations: vec![operation.encode()],
            ..submission.clone()
        };
        let limits = mfpsync_replication::accept::Limits::default();
        let accept = |write: &MasterWrite<'_>| accept(write, &mut Usage::default(), &again, limits);
        drop(self.commit(house, Vec::new(), accept));
    }

    fn ask_model(&mut self, house: usize, device: usize, id: OperationId, record: &[u8], outcome: &Outcome) {
        let operation = Operation::decode(record).expect("an acknowledged operation");
        self.count(house, &operation, outcome);
        let of = self.devices[device].id.to_string();
        let line = self.houses[house].line();
        let before = line.model.head;
        let changes = translate::changes(&operation, line);
        let expected = line.model.apply(id.0, &of, id.1, &changes);
        let rises = line.model.head == before || line.model.head == before + 1;
        self.require(rises, "I-04", format_args!("sequences do not rise by one"));
        let answered = translate::outcome(outcome);
        self.require(
            answered.as_ref() == Some(&expected),
            "I-05",
            format_args!("operation {} of {device} is answered {answered:?}, expected {expected:?}", id.1),
        );
    }

    fn count(&mut self, house: usize, operation: &Operation, outcome: &Outcome) {
        match outcome {
            Outcome::Rejected { .. } => {
                self.counters.sometimes("operation rejected");
                if translate::outcome(outcome) == Some(Err(Refused::BuildsOnRejected)) {
                    self.counters.sometimes("operation built on a rejected one");
                }
            }
            Outcome::Accepted { edits, .. } => {
                for (edit, outcome) in operation.edits.iter().zip(edits) {
                    match outcome {
                        EditOutcome::Superseded { .. } => self.counters.sometimes("edit superseded"),
                        EditOutcome::Merged { .. } => self.counters.sometimes("edit merged"),
                        EditOutcome::Applied | EditOutcome::Unchanged => {}
                    }
                    let line = &self.houses[house].line;
                    let stood = line.model.items.get(&translate::key(&edit.key));
                    if edit.action != Action::Delete && stood.is_some_and(|item| item.deleted) {
                        self.counters.sometimes("deleted item made anew");
                    }
                }
            }
        }
    }

    /// I-02, I-05, I-07: each acknowledged edit is in effect, or it is recorded that it is not.
    pub(super) fn check_history(&mut self) {
        let mut faults = Vec::new();
        let mut expected = Expected::default();
        let line = self.last_line();
        for done in &line.order {
            let id = match &**done {
                Done::Decided(id) => id,
                Done::Switched(kind) => {
                    // What its items hold now the model knows, and `check_kept` where the rest is.
                    expected.forget(kind);
                    continue;
                }
            };
            let Decision { record, outcome, places } = &*line.decisions[id];
            if let Outcome::Accepted { edits, .. } = outcome {
                let operation = Operation::decode(record).expect("an acknowledged operation");
                for ((edit, outcome), place) in operation.edits.iter().zip(edits).zip(places) {
                    if let Some(key) = place {
                        expected.take(key, edit, outcome);
                    }
                }
            }
        }
        faults.extend(expected.compare(self));
        faults.extend(self.check_kept());
        let aside: Vec<Vec<SetAside>> =
            self.devices.iter().map(|device| device.read(|read| read.set_aside(u32::MAX))).collect();
        for (id, edit) in &self.history.acknowledged {
            faults.extend(self.check_edit(*id, edit, &aside[edit.device]));
        }
        for (invariant, how) in faults {
            self.violate(invariant, format_args!("{how}"));
        }
    }

    fn check_edit(
        &self,
        id: OperationId,
        edit: &Acknowledged,
        aside: &[SetAside],
    ) -> Option<(&'static str, String)> {
        let who = format!("operation {} of device {}", id.1, edit.device);
        let line = self.last_line();
        let Some(decision) = line.decisions.get(&id) else {
            let excused = edit.withdrawn || (edit.ended && self.reigns.forked) || self.reigns.counted_on(id);
            return (!excused).then(|| ("I-02", format!("{who} never reached the server")));
        };
        // What another reign told a life that is over does not count.
        let elsewhere = (edit.withdrawn && self.swarm.houses > 1) || (edit.ended && self.reigns.forked);
        if edit.void || elsewhere {
            return None;
        }
        let told = self.history.told.get(&id).is_some_and(|told| told.contains(&decision.outcome));
        if !edit.withdrawn && !told {
            return Some(("I-02", format!("the device was not told what became of {who}")));
        }
        let operation = Operation::decode(&edit.record).expect("an acknowledged operation");
        let lost = match &decision.outcome {
            Outcome::Rejected { .. } => true,
            Outcome::Accepted { edits, .. } => {
                for ((edit, outcome), place) in operation.edits.iter().zip(edits).zip(&decision.places) {
                    let key = place.as_ref().map_or_else(|| edit.key.clone(), super::sharing::parsed);
                    // A deletion that is set aside for its author holds nothing to be kept.
                    let nothing = place.is_none() && edit.action == Action::Delete;
                    if let EditOutcome::Superseded { fields, by } = outcome
                        && !nothing
                        && !self.loss_is_kept(id, &Edit { key, ..edit.clone() }, fields, by.sequence)
                    {
                        return Some(("I-05", format!("what {who} lost is not in the history")));
                    }
                }
                edits.iter().any(|edit| matches!(edit, EditOutcome::Superseded { .. }))
            }
        };
        let kept = aside.iter().any(|one| {
            standing_on_nothing(&one.operation) == standing_on_nothing(&operation)
                && one.outcome == decision.outcome
        });
        (lost && !edit.withdrawn && !edit.forgotten && !edit.yields && !kept)
            .then(|| ("I-05", format!("{who} lost and was not set aside for a person")))
    }

    /// Whether the master can show the values that were not taken.
    fn loss_is_kept(&self, id: OperationId, edit: &Edit, refused: &[String], by: Sequence) -> bool {
        let given = match &edit.action {
            Action::Put(fields) | Action::Patch { set: fields, .. } => fields,
            Action::Delete => return by > Sequence::ZERO,
        };
        let whole = refused.is_empty();
        let due: Fields = given
            .iter()
            .filter(|(name, _)| whole || refused.iter().any(|one| one == name))
            .map(own)
            .collect();
        if due.is_empty() || edit.key.kind.as_str() == "keychain" {
            return true;
        }
        let (superseded, history) = self.last_server().read(|read| {
            Ok((read.superseded_operations(Incarnation(id.0))?, read.history(&edit.key, u32::MAX)?))
        });
        // The history of what was deleted and forgotten is out of the undo window.
        self.last_line().model.forgotten.contains(&translate::key(&edit.key))
            || superseded.contains(&OperationNumber(id.1))
            || history.iter().any(|entry| {
                entry.operation.0 == id.1
                    && entry
                        .lost
                        .as_ref()
                        .is_some_and(|lost| due.iter().all(|(name, value)| lost.get(name) == Some(value)))
            })
    }
}

fn own<'a>(
    (name, value): (&'a str, &mfpsync_storage::model::Value),
) -> (&'a str, mfpsync_storage::model::Value) {
    (name, value.clone())
}

/// An operation without what it was seen to stand on, which is another thing in each reign.
fn standing_on_nothing(operation: &Operation) -> Operation {
    let mut operation = Operation { was: None, ..operation.clone() };
    operation.edits.iter_mut().for_each(|edit| edit.base = Default::default());
    operation
}

/// A repeated operation asks for the same, whatever it stands on by then.
fn asks_the_same(one: &[u8], other: &[u8]) -> bool {
    let decoded = |record| Operation::decode(record).map(|operation| standing_on_nothing(&operation)).ok();
    decoded(one).is_some_and(|one| Some(one) == decoded(other))
}

fn is_withdrawn(record: &[u8]) -> bool {
    Operation::decode(record).is_ok_and(|operation| operation.is_withdrawn())
}

impl World {
    /// A device met another reign: what waits now is promised to reach that.
    pub(super) fn offered_again(&mut self, device: usize, fork: Sequence) {
        let own = &self.devices[device];
        let (incarnation, put_back) = (own.incarnation, own.put_back);
        for (number, record) in own.read(|read| read.outbox(usize::MAX >> 1, usize::MAX)) {
            let id = (incarnation.0, number.0);
            let told = self.history.told.get(&id).and_then(|told| told.last()).cloned();
            match self.history.acknowledged.get_mut(&id) {
                None => {
                    self.counters.sometimes("edit of a mirror offered to a new reign");
                    self.history.acknowledged(device, incarnation, number, record);
                    if let Some(edit) = self.history.acknowledged.get_mut(&id) {
                        edit.yields = true;
                    }
                }
                Some(edit) if edit.record == record => {
                    if told.is_some() {
                        self.counters.sometimes("retained edit offered to a new reign");
                    }
                }
                Some(edit) if !is_withdrawn(&record) => {
                    // Made to what the new reign does not have, it counts as made to what both have.
                    self.counters.sometimes("waiting edit rebased on a fork");
                    edit.earlier.push(std::mem::replace(&mut edit.record, record));
                }
                Some(edit) => {
                    // Taken at the very change the copy ends with, it wrote nothing: what it lost to stands.
                    let at_fork = |told: &Outcome| told.revision().is_some_and(|at| at.sequence <= fork);
                    let nothing = told.as_ref().is_none_or(|told| wrote_nothing(told) || at_fork(told));
                    let excused = nothing || edit.withdrawn || put_back || self.reigns.counted_on(id);
                    edit.earlier.push(std::mem::replace(&mut edit.record, record));
                    edit.void = true;
                    self.counters.sometimes("operation that came to nothing filled in");
                    self.require(
                        excused,
                        "I-17",
                        format_args!("operation {} of device {device} was given up: {told:?}", number.0),
                    );
                }
            }
        }
    }
}

/// What the answers alone say about the end, without knowing any rule.
#[derive(Default)]
struct Expected {
    /// Fields whose value is known for certain; none: the field was removed.
    items: BTreeMap<Key, BTreeMap<String, Option<super::model::Val>>>,
    living: BTreeMap<Key, bool>,
}

impl Expected {
    fn forget(&mut self, kind: &str) {
        self.items.retain(|key, _| key[1] != kind);
        self.living.retain(|key, _| key[1] != kind);
    }

    fn take(&mut self, key: &Key, edit: &Edit, outcome: &EditOutcome) {
        let refused: BTreeSet<&str> = match outcome {
            EditOutcome::Applied | EditOutcome::Merged { .. } => BTreeSet::new(),
            EditOutcome::Superseded { fields, .. } if fields.is_empty() => return,
            EditOutcome::Superseded { fields, .. } => fields.iter().map(String::as_str).collect(),
            EditOutcome::Unchanged => return,
        };
        let key = key.clone();
        let known = self.items.entry(key.clone()).or_default();
        let (set, remove) = match &edit.action {
            Action::Put(fields) => {
                // What a put does not name may stay: its author had perhaps not seen it.
                known.retain(|name, _| fields.get(name).is_some());
                (fields, &[][..])
            }
            Action::Patch { set, remove } => (set, remove.as_slice()),
            Action::Delete => {
                known.clear();
                self.living.insert(key, false);
                return;
            }
        };
        let taken = |name: &&str| !refused.contains(name);
        let mut any = false;
        for (name, value) in translate::fields(set) {
            if taken(&name.as_str()) {
                known.insert(name, Some(value));
                any = true;
            }
        }
        for name in remove.iter().map(String::as_str).filter(taken) {
            known.insert(name.to_owned(), None);
        }
        if any || outcome == &EditOutcome::Applied {
            self.living.insert(key, true);
        }
    }

    fn compare(&self, world: &World) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        for (key, living) in &self.living {
            let [scope, kind, device, id] = key;
            let parsed = mfpsync_storage::model::ItemKey::parse(scope, kind, device, id).expect("a key");
            let item = world.last_server().read(|read| read.item(&parsed)).filter(|item| !item.deleted);
            if item.is_some() != *living {
                let how = if *living { "is gone without a deletion" } else { "came back without an edit" };
                faults.push(("I-07", format!("item {parsed:?} {how}")));
                continue;
            }
            let fields = item.map(|item| translate::fields(&item.fields)).unwrap_or_default();
            for (name, value) in &self.items[key] {
                let by_merge = name.starts_with("second.");
                if *living && !by_merge && fields.get(name) != value.as_ref() {
                    faults
                        .push(("I-02", format!("field {name} of {parsed:?} is not what was accepted last")));
                }
            }
        }
        faults
    }
}
