//! A server: deciding what is pushed, being told of another reign, starting. After `replication::accept`,
//! `daemon::server::serving`, `daemon::reign` and `daemon::reign::others`.

use mfpsync_replication::lineage::Relation;
use mfpsync_replication::merge::{Merge, Seen, Standing, merge, rule};
use mfpsync_storage::model::{Action, FieldSequences, Fields, Kind, Revision, Sequence, Value};

use super::guard::Guard;
use super::scope::Model;
use super::state::{Breach, Db, Op, Push, Reign, Reigns, Role, State, Step, Takeover, Who};

const FIELD: &str = "value";

/// What a claim comes to at a server that it is shown to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// It reigns on.
    Nothing,
    /// Its reign has ended.
    Superseded,
    /// Two claim the group.
    Contested,
}

impl Model {
    pub(super) fn admit(&self, state: &mut State, client: u8) -> bool {
        let Some(push) = state.client(client).push.filter(|push| push.step == Step::Sent) else {
            return false;
        };
        let taken = self.reaches(state, &push) && self.takes_changes(state, push.to);
        state.client_mut(client).push = taken.then_some(Push { step: Step::Admitted, ..push });
        true
    }

    fn reaches(&self, state: &State, push: &Push) -> bool {
        state.served_by(push.to).is_some_and(|db| db.reign == push.reign)
    }

    pub(super) fn takes_changes(&self, state: &State, who: Who) -> bool {
        let base = state.base(who);
        let told = base.told && self.keeps(Guard::RolledBackTakesNothing);
        let sealed = base.sealed && self.keeps(Guard::SealedTakesNothing);
        let contested = !base.rivals.is_empty() && self.keeps(Guard::ContestedTakesNothing);
        !sealed && !base.standing_down && !told && !contested
    }

    pub(super) fn write(&self, state: &mut State, client: u8) -> bool {
        let Some(push) = state.client(client).push else { return false };
        let taken = match push.step {
            Step::Sent if self.keeps(Guard::DecidedInTheWriter) => self.takes_changes(state, push.to),
            Step::Admitted => true,
            Step::Sent | Step::Written { .. } | Step::Answered { .. } => return false,
        };
        if !taken || !self.reaches(state, &push) {
            state.client_mut(client).push = None;
            return true;
        }
        let base = *state.base(push.to);
        let Some(mut db) = base.disk.master else { return false };
        let remembered = db.ledger.has(push.op);
        if !remembered || !self.keeps(Guard::OperationsAreRemembered) {
            let pushed = *state.client(client);
            let has_more = !push.stale && pushed.at == db.reign && pushed.mirror.len() > db.log.len();
            state.breaches.note_if(base.told || has_more, Breach::ReusedKnowingly);
            state.breaches.note_if(!base.rivals.is_empty(), Breach::TookWhileContested);
            state.breaches.note_if(base.standing_down && base.drained, Breach::PlannedLoss);
            self.accept(state, &mut db, push.op);
            state.base_mut(push.to).disk.master = Some(db);
        }
        let place = db.log.entries().position(|(_, op)| op == push.op);
        let sequence = place.map_or(db.log.len(), |at| at as u8 + 1);
        let waits = self.holds_back(&db) && self.keeps(Guard::SyncWaits);
        let waits = waits && (!remembered || self.keeps(Guard::RepeatedWaitsAsWell));
        state.breaches.note_if(base.answered, Breach::TookAfterItsEnd);
        let step =
            if waits { Step::Written { sequence } } else { Step::Answered { sequence, safe: base.durable } };
        let heard = !push.stale || !(waits || self.keeps(Guard::AnswersBelongToAConnection));
        state.client_mut(client).push = heard.then_some(Push { step, ..push });
        true
    }

    /// Whether what a server decides waits for its replica.
    pub fn holds_back(&self, db: &Db) -> bool {
        self.scope.sync && db.replica.is_some()
    }

    pub(super) fn acknowledge(&self, state: &mut State, client: u8) -> bool {
        let Some(push) = state.client(client).push else { return false };
        let Step::Written { sequence } = push.step else { return false };
        let base = *state.base(push.to);
        if base.durable < sequence {
            return false;
        }
        let step = Step::Answered { sequence, safe: base.durable };
        state.client_mut(client).push = Some(Push { step, ..push });
        true
    }

    /// Decides an operation by the product's own merge, as a person's setting.
    fn accept(&self, state: &mut State, db: &mut Db, op: Op) {
        let one_item = self.scope.one_item;
        let last = db.log.entries().zip(1u64..).filter(|((_, other), _)| one_item || other.edit == op.edit);
        let last = last.last().map(|((_, other), sequence)| (other.edit, Sequence(sequence)));
        let standing = last.map(|(edit, sequence)| {
            let mut sequences = FieldSequences::default();
            sequences.set(FIELD, sequence);
            Standing { fields: value(edit), sequences, deleted: false, sequence }
        });
        let made = state.edits[usize::from(op.edit)];
        let (epoch, sequence) = op.mirrored_by.map_or(made.base, |client| state.client(client).fork);
        let base = Revision { epoch: epoch.into(), sequence: Sequence(sequence.into()) };
        let base = self.lineage(state, db.reign).base(base);
        let unseen = last.is_some_and(|(edit, at)| at <= base && edit != op.edit && !made.seen.has(edit));
        state.breaches.note_if(unseen && op.mirrored_by.is_none(), Breach::OverUnseen);
        let action = Action::Put(value(op.edit));
        let of_a_person = rule(&Kind::parse("ui.language").expect("a kind"));
        let rule = if op.mirrored_by.is_some() { of_a_person.yielding(&action) } else { of_a_person };
        db.ledger.insert(op);
        if let Merge::Write { .. } = merge(&rule, standing.as_ref(), &action, &Seen::up_to(base)) {
            let replaced = last.map(|(edit, _)| state.edits[usize::from(edit)].seen);
            let knew = replaced.is_some_and(|seen| seen.has(op.edit));
            state.breaches.note_if(knew, Breach::PutBack);
            db.log.push(db.reign, op);
        }
    }

    /// A hello shows a server the record of a reign above its own.
    pub(super) fn show(&self, state: &mut State, who: Who, higher: Reign) -> bool {
        let durable = self.keeps(Guard::SealIsDurable);
        let base = state.base_mut(who);
        if !base.serving {
            base.rivals = Reigns::default();
        }
        if durable {
            (base.disk.seen, base.disk.role, base.disk.takeover) = (higher, Role::None, Takeover::None);
        }
        (base.sealed, base.answered) = (base.serving, base.answered || base.serving);
        true
    }

    /// A device shows that the reign was longer than it is here. That device goes.
    pub(super) fn is_told(&self, state: &mut State, who: Who) -> bool {
        state.base_mut(who).told = true;
        for client in 0..2 {
            let Some(link) = state.client(client).link.filter(|link| *link == who) else { continue };
            let Some(db) = state.served_by(link).copied() else { continue };
            let mirror = state.client(client).mirror;
            if state.client(client).at == db.reign && !db.log.starts_with(mirror) {
                self.unlink(state, client);
            }
        }
        true
    }

    /// Somebody says without proof that another device reigns.
    pub(super) fn claim(&self, state: &mut State, who: Who) -> bool {
        if self.keeps(Guard::ClaimsAreVerified) || !state.base(who).serving {
            return false;
        }
        state.base_mut(who).disk.role = Role::None;
        state.base_mut(who).sealed = true;
        true
    }

    /// A server that starts, or one that reigns, says hello to another one: that hears of a higher reign, or this
    /// one does.
    pub(super) fn ask(&self, state: &mut State, who: Who, other: Who) -> bool {
        let goes_on = self.scope.moves() || self.scope.stay;
        let serves = || state.served_by(who).copied().filter(|_| goes_on && !state.base(who).sealed);
        let Some(db) = self.starting(state, who).or_else(serves) else { return false };
        let Some(theirs) = state.served_by(other).copied().filter(|_| who != other) else { return false };
        let superseded = match self.claims(state, other, db.reign) {
            Claimed::Superseded => return true,
            // It is refused by the other one's claim alone.
            Claimed::Contested => state.number(theirs.reign) > state.number(db.reign),
            Claimed::Nothing => {
                match self.lineage(state, db.reign).relation(&self.lineage(state, theirs.reign)) {
                    Relation::Extended { .. } | Relation::Replaced { .. } => true,
                    Relation::Same | Relation::Behind | Relation::Forked { .. } | Relation::Unrelated => {
                        false
                    }
                }
            }
        };
        if superseded {
            return self.show(state, who, theirs.reign);
        }
        if self.is_contested(state, db.reign, theirs.reign) {
            let base = state.base_mut(who);
            base.rivals = base.rivals.with(theirs.reign);
        }
        true
    }

    fn starting(&self, state: &State, who: Who) -> Option<Db> {
        let base = state.base(who);
        let starts = base.disk.role == Role::Server && base.disk.takeover == Takeover::None && !base.serving;
        if starts { base.disk.master } else { None }
    }

    pub(super) fn open(&self, state: &mut State, who: Who) -> bool {
        let Some(db) = self.starting(state, who) else { return false };
        let seen = state.base(who).disk.seen;
        let below = state.number(seen) > state.number(db.reign)
            || (state.number(seen) == state.number(db.reign) && seen != db.reign);
        if below && self.keeps(Guard::StartsNotBelowWhatWasSeen) {
            return false;
        }
        let record = &mut state.reigns[usize::from(db.reign)];
        (record.opened, record.stands) = (true, true);
        let base = state.base_mut(who);
        if !below {
            base.disk.seen = db.reign;
        }
        base.serving = true;
        true
    }

    pub(super) fn stop(&self, state: &mut State, who: Who) -> bool {
        state.base(who).sealed && self.end(state, who)
    }

    pub(super) fn crash(&self, state: &mut State, who: Who) -> bool {
        let base = state.base_mut(who);
        if base.asked {
            base.end();
            return true;
        }
        self.end(state, who)
    }

    pub(super) fn end(&self, state: &mut State, who: Who) -> bool {
        if !state.base(who).serving {
            return false;
        }
        state.base_mut(who).end();
        self.silence(state, who);
        true
    }

    /// Connections to a machine are gone.
    pub(super) fn silence(&self, state: &mut State, who: Who) {
        for client in 0..2 {
            if state.client(client).link == Some(who) {
                self.unlink(state, client);
            }
            // What it had not taken dies with it.
            let push = &mut state.client_mut(client).push;
            let dies = |push: &Push| push.to == who && matches!(push.step, Step::Sent | Step::Admitted);
            *push = push.take().filter(|push| !dies(push));
        }
        state.leave_streams(who);
    }

    pub(super) fn start_server(&self, state: &mut State, who: Who) -> bool {
        let base = state.base_mut(who);
        if base.disk.role != Role::None || base.disk.master.is_none() || base.serving {
            return false;
        }
        base.disk.role = Role::Server;
        true
    }
}

fn value(edit: u8) -> Fields {
    let mut fields = Fields::new();
    fields.insert(FIELD, Value::Integer(edit.into()));
    fields
}
