//! Following a server: pulling what it sends, pushing what waits. Neither waits for the other.

use mfpsync_storage::model::{Cursor, Epoch, Sequence};

use super::Step;
use super::words::{Effect, Failure, LinkId, Moment, Outbox, PushOrder, Stored, Trouble};
use crate::backoff::{Backoff, jitter};
use crate::message::{Follow, FollowEvent, Greeting, Limits, PushAnswer, RefusalClass, ResetReason};

/// What a connection goes by once the server is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) link: LinkId,
    pub(super) epoch: Epoch,
    pub(super) head: Sequence,
    pub(super) safe: Option<Sequence>,
    limits: Limits,
}

/// How far the stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Behind,
    /// Caught up when what came last is stored.
    Storing,
    CaughtUp,
}

/// What the push side is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pushing {
    Idle,
    /// One push is under way.
    InFlight {
        until: Moment,
    },
    /// Its outcomes are being stored.
    Settling,
    /// The server wants no pushes for now.
    Paused {
        until: Moment,
        trouble: Trouble,
    },
}

/// The follow stream is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Following {
    pub(super) session: Session,
    /// The cursor behind what came last.
    received: Option<Cursor>,
    /// What came last is not stored yet; nothing more is taken until it is.
    storing: bool,
    progress: Progress,
    silent_at: Moment,
    pushing: Pushing,
    push_backoff: Backoff,
}

impl Session {
    pub(super) fn new(link: LinkId, greeting: &Greeting) -> Self {
        let Greeting { epoch, head, safe, limits, .. } = greeting;
        Self { link, epoch: *epoch, head: *head, safe: *safe, limits: *limits }
    }
}

impl Following {
    /// Opens the stream behind what the mirror has.
    pub(super) fn open(session: Session, step: &mut Step) -> Self {
        let facts = &step.facts;
        let follow = Follow {
            group: facts.start.group,
            incarnation: facts.start.incarnation,
            cursor: facts.cursor,
            settled: !facts.outbox.waiting,
        };
        let timing = &facts.start.timing;
        let mut following = Self {
            received: facts.cursor,
            storing: false,
            progress: Progress::Behind,
            silent_at: step.at.now.after(timing.heartbeat * 3),
            pushing: Pushing::Idle,
            push_backoff: Backoff::new(timing.first_wait, timing.longest_wait),
            session,
        };
        step.effects.push(Effect::Follow(following.session.link, follow));
        following.note_safe(following.session.safe, step);
        following.push(step);
        following
    }

    pub(super) fn caught_up(&self) -> bool {
        self.progress == Progress::CaughtUp
    }

    pub(super) fn push_trouble(&self) -> Option<Trouble> {
        match self.pushing {
            Pushing::Paused { trouble, .. } => Some(trouble),
            Pushing::Idle | Pushing::InFlight { .. } | Pushing::Settling => None,
        }
    }

    /// Whether the next event of the stream may be handed in.
    pub(super) fn wants_more(&self) -> bool {
        !self.storing
    }

    pub(super) fn deadline(&self) -> Moment {
        match self.pushing {
            Pushing::InFlight { until } | Pushing::Paused { until, .. } => until.min(self.silent_at),
            Pushing::Idle | Pushing::Settling => self.silent_at,
        }
    }

    pub(super) fn tick(&mut self, step: &mut Step) -> Result<(), Trouble> {
        let now = step.at.now;
        match self.pushing {
            Pushing::InFlight { until } if until <= now => return Err(Trouble::TimedOut),
            Pushing::Paused { until, .. } if until <= now => {
                self.pushing = Pushing::Idle;
                self.push(step);
            }
            _ => {}
        }
        if self.silent_at <= now {
            if !self.storing {
                return Err(Trouble::Silent);
            }
            // It is we who do not listen.
            self.heard(step);
        }
        Ok(())
    }

    fn heard(&mut self, step: &Step) {
        self.silent_at = step.at.now.after(step.facts.start.timing.heartbeat * 3);
    }

    pub(super) fn took(&mut self, event: FollowEvent, step: &mut Step) -> Result<(), Trouble> {
        if self.storing {
            return Err(Trouble::Malformed);
        }
        self.heard(step);
        match event {
            FollowEvent::Reset(reason) => self.reset(reason, step),
            FollowEvent::Batch { previous, changes, cursor } => {
                self.advance(previous, cursor, step)?;
                self.store(Effect::ApplyBatch { changes, cursor }, step);
            }
            FollowEvent::CaughtUp { cursor, safe } => return self.all_came(cursor, safe, step),
            FollowEvent::Heartbeat { head, safe } => {
                if self.received.is_some_and(|received| received.sequence > head) {
                    return Err(Trouble::Malformed);
                }
                self.session.head = head;
                self.note_safe(safe, step);
            }
            FollowEvent::Membership { members, issuers } => {
                step.store(Effect::AdoptMembership { members, issuers });
            }
        }
        Ok(())
    }

    fn reset(&mut self, reason: ResetReason, step: &mut Step) {
        self.received = None;
        self.progress = Progress::Behind;
        self.store(Effect::BeginReset(reason), step);
    }

    fn all_came(&mut self, cursor: Cursor, safe: Option<Sequence>, step: &mut Step) -> Result<(), Trouble> {
        if self.received != Some(cursor) {
            return Err(Trouble::Malformed);
        }
        self.progress = Progress::Storing;
        if step.facts.resetting {
            // I-04: a reset may take a mirror back to the beginning, but never end before where the
            // same reign had brought it already.
            let floor = step.facts.floor.filter(|floor| floor.epoch == cursor.epoch);
            if floor.is_some_and(|floor| floor.sequence > cursor.sequence) {
                return Err(Trouble::ServerRolledBack);
            }
            self.store(Effect::FinishReset(cursor), step);
        } else {
            self.arrived(step);
        }
        self.note_safe(safe, step);
        Ok(())
    }

    /// I-04, I-06: the cursor stays in this reign, leaves nothing out and never goes back.
    fn advance(&mut self, previous: Sequence, cursor: Cursor, step: &Step) -> Result<(), Trouble> {
        if cursor.group != step.facts.start.group || cursor.epoch != self.session.epoch {
            return Err(Trouble::Malformed);
        }
        let received = self.received;
        if received.map_or(Sequence::ZERO, |received| received.sequence) != previous
            || cursor.sequence < previous
            || received.is_some_and(|at| at.sequence == cursor.sequence && at.chain != cursor.chain)
        {
            return Err(Trouble::Malformed);
        }
        self.received = Some(cursor);
        self.session.head = self.session.head.max(cursor.sequence);
        Ok(())
    }

    fn store(&mut self, effect: Effect, step: &mut Step) {
        self.storing = true;
        step.store(effect);
    }

    /// A storage effect was carried out.
    pub(super) fn stored(&mut self, stored: Stored, step: &mut Step) -> Result<(), Trouble> {
        match stored {
            Stored::Applied(_) | Stored::ResetBegun | Stored::ResetFinished(_) => {
                self.storing = false;
                self.heard(step);
                if self.progress == Progress::Storing {
                    self.arrived(step);
                }
            }
            Stored::Settled(_) => {
                self.pushing = Pushing::Idle;
                self.push(step);
            }
            Stored::GreetingAdopted(_) | Stored::Noted => {}
            Stored::Failed => return Err(Trouble::StorageFailed),
        }
        Ok(())
    }

    /// Everything is there: only now was the connection a success.
    fn arrived(&mut self, step: &mut Step) {
        self.progress = Progress::CaughtUp;
        step.facts.backoff.reset();
        step.facts.trouble = None;
    }

    fn note_safe(&mut self, safe: Option<Sequence>, step: &mut Step) {
        self.session.safe = safe.filter(|safe| *safe <= self.session.head);
        let Some(safe) = self.session.safe else { return };
        if safe > step.facts.forgotten {
            step.facts.forgotten = safe;
            step.store(Effect::ForgetSafe(safe));
        }
    }

    /// Pushes what waits, if nothing is under way.
    pub(super) fn push(&mut self, step: &mut Step) {
        if self.pushing != Pushing::Idle || !step.facts.outbox.waiting {
            return;
        }
        let most = Limits::default();
        let order = PushOrder {
            epoch: self.session.epoch,
            low_water: step.facts.outbox.low_water,
            operations: self.session.limits.push_operations.min(most.push_operations),
            bytes: self.session.limits.push_bytes.min(most.push_bytes),
        };
        step.effects.push(Effect::Push(self.session.link, order));
        self.pushing = Pushing::InFlight { until: step.at.now.after(step.facts.start.timing.answer) };
    }

    pub(super) fn answered(&mut self, answer: PushAnswer, step: &mut Step) -> Result<(), Trouble> {
        let Pushing::InFlight { .. } = self.pushing else { return Err(Trouble::Malformed) };
        self.push_backoff.reset();
        self.session.head = self.session.head.max(answer.head);
        self.pushing = Pushing::Settling;
        step.store(Effect::Settle(answer.outcomes));
        self.note_safe(answer.safe, step);
        Ok(())
    }

    pub(super) fn nothing_to_push(&mut self, outbox: Outbox, step: &mut Step) -> Result<(), Trouble> {
        let Pushing::InFlight { .. } = self.pushing else { return Err(Trouble::Malformed) };
        step.facts.take_outbox(outbox);
        self.pushing = Pushing::Idle;
        self.push(step);
        Ok(())
    }

    /// A refused push rests for a while; any other failure is one of the connection.
    pub(super) fn push_failed(&mut self, failure: &Failure, step: &mut Step) -> Result<(), Trouble> {
        let Pushing::InFlight { .. } = self.pushing else { return Err(Trouble::Malformed) };
        let trouble = failure.trouble();
        let wait = match trouble.class() {
            RefusalClass::Retry => self.push_backoff.wait(step.at.random, failure.push_back()),
            RefusalClass::Seldom => {
                let seldom = step.facts.start.timing.seldom;
                seldom + jitter(seldom, step.at.random)
            }
            RefusalClass::Elsewhere | RefusalClass::Released | RefusalClass::Quarantined => {
                return Err(trouble);
            }
        };
        self.pushing = Pushing::Paused { until: step.at.now.after(wait), trouble };
        Ok(())
    }
}
