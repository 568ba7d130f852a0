//! The client's side of sync as a state machine: no clock, no network, no database.
//!
//! ```text
//!            wait over             connected        trusted           stored
//!  Waiting ------------> Dialling ---------> Greeting -----> Adopting ------> Following
//!     ^                    |  ^ |               |               |                 |
//!     |                    |  +-+ next endpoint |               |                 |
//!     +--------------------+--------------------+---------------+-----------------+
//!                        any doubt: disconnect, wait, dial again
//!
//!  Refused: like Waiting, but seldom, for what a person must remove first.
//!  Ended: stopped, released by the group, or quarantined; takes nothing any more.
//! ```
//!
//! [`Round::step`] takes one [`Event`] and answers with [`Effect`]s to carry out in order. The one
//! who drives it keeps to this:
//!
//! - storage effects are carried out one after another, each answered by one [`Event::Stored`],
//!   also after a disconnect;
//! - the follow stream is read only while [`Round::wants_more`]: what is not stored yet is never
//!   piled up in memory;
//! - what comes from a connection carries its [`LinkId`], signatures in it are verified before.
//!
//! The follow stream is opened only when nothing of an earlier connection is still being stored,
//! so the mirror never takes a batch out of order.

mod facts;
mod following;
mod greet;
#[cfg(test)]
mod random;
#[cfg(test)]
mod tests;
mod words;

pub use facts::{Start, Timing};
pub use words::{
    AdoptGreeting, At, Effect, End, Event, Failure, LinkEvent, LinkId, LinkState, Moment, Outbox, PushOrder,
    Stored, Trouble,
};

use std::time::Duration;

use facts::Facts;
use following::{Following, Session};

use mfpsync_storage::model::Sequence;

use crate::backoff::jitter;
use crate::lineage::LineageError;
use crate::message::{Greeting, RefusalClass};

/// The client's side of sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    facts: Facts,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Waiting {
        until: Moment,
    },
    Refused {
        until: Moment,
        trouble: Trouble,
    },
    Dialling {
        link: LinkId,
        until: Moment,
    },
    Greeting {
        link: LinkId,
        until: Moment,
    },
    /// Until the greeting, and whatever an earlier connection left, is stored.
    Adopting(Session),
    Following(Following),
    Ended(End),
}

/// One step under way.
struct Step {
    facts: Facts,
    at: At,
    effects: Vec<Effect>,
}

impl Round {
    /// Begins; the first dial follows shortly.
    ///
    /// # Errors
    /// The known records are no history: whatever a server showed would be believed.
    pub fn start(start: Start, at: At) -> Result<(Self, Vec<Effect>), LineageError> {
        let until = at.now.after(jitter(start.timing.start_spread, at.random));
        let step = Step { facts: Facts::new(start)?, at, effects: Vec::new() };
        Ok(step.finish(State::Waiting { until }))
    }

    /// Takes what happened and says what to do.
    #[must_use]
    pub fn step(self, at: At, event: Event) -> (Self, Vec<Effect>) {
        let mut step = Step { facts: self.facts, at, effects: Vec::new() };
        let state = match (self.state, event) {
            (state, Event::Stop) => step.end(state.link(), End::Stopped),
            (State::Ended(end), _) => State::Ended(end),
            (state, Event::Tick) => step.tick(state),
            (state, Event::Stored(stored)) => step.stored(state, stored),
            (state, Event::LocalEdits(outbox)) => step.local_edits(state, outbox),
            (state, Event::Endpoints(endpoints)) => step.endpoints(state, endpoints),
            (state, Event::LongestWait(longest)) => {
                step.facts.limit_waits(longest);
                state
            }
            (state, Event::Link(link, event)) if state.link() == Some(link) => step.link(state, event),
            (state, Event::Link(..)) => state,
        };
        step.finish(state)
    }

    /// Whether the next event of the follow stream may be handed in.
    #[must_use]
    pub fn wants_more(&self) -> bool {
        matches!(&self.state, State::Following(following) if following.wants_more())
    }

    /// How the client stands to its server.
    #[must_use]
    pub fn link_state(&self) -> LinkState {
        link_state(&self.facts, &self.state)
    }
}

impl State {
    fn link(&self) -> Option<LinkId> {
        match self {
            Self::Waiting { .. } | Self::Refused { .. } | Self::Ended(_) => None,
            Self::Dialling { link, .. } | Self::Greeting { link, .. } => Some(*link),
            Self::Adopting(session) => Some(session.link),
            Self::Following(following) => Some(following.session.link),
        }
    }

    /// When to look again; none while an answer of our own storage is awaited, and at the end.
    fn deadline(&self) -> Option<Moment> {
        match self {
            Self::Waiting { until }
            | Self::Refused { until, .. }
            | Self::Dialling { until, .. }
            | Self::Greeting { until, .. } => Some(*until),
            Self::Following(following) => Some(following.deadline()),
            Self::Adopting(..) | Self::Ended(_) => None,
        }
    }
}

impl Step {
    fn finish(mut self, state: State) -> (Round, Vec<Effect>) {
        let deadline = state.deadline();
        if self.facts.woken_at != deadline {
            self.facts.woken_at = deadline;
            self.effects.extend(deadline.map(Effect::WakeAt));
        }
        let now = link_state(&self.facts, &state);
        if self.facts.reported.as_ref() != Some(&now) {
            self.facts.reported = Some(now.clone());
            self.effects.push(Effect::Report(now));
        }
        (Round { facts: self.facts, state }, self.effects)
    }

    fn store(&mut self, effect: Effect) {
        self.facts.storing += 1;
        self.effects.push(effect);
    }

    fn tick(&mut self, state: State) -> State {
        let now = self.at.now;
        self.facts.woken_at = None;
        match state {
            State::Waiting { until } | State::Refused { until, .. } if until <= now => {
                self.facts.begin_sweep();
                self.dial()
            }
            State::Dialling { link, until } | State::Greeting { link, until } if until <= now => {
                self.lose(Some(link), Trouble::TimedOut, None)
            }
            State::Following(mut following) => {
                let kept = following.tick(self);
                self.keep(following, kept)
            }
            State::Waiting { .. }
            | State::Refused { .. }
            | State::Dialling { .. }
            | State::Greeting { .. }
            | State::Adopting(..)
            | State::Ended(_) => state,
        }
    }

    /// Dials the next endpoint of the sweep.
    fn dial(&mut self) -> State {
        let Some(endpoint) = self.facts.sweep.pop_front() else {
            return self.wait(self.facts.trouble.unwrap_or(Trouble::NoEndpoint), None);
        };
        self.facts.last_link.0 += 1;
        self.facts.endpoint.clone_from(&endpoint);
        let link = self.facts.last_link;
        self.effects.push(Effect::Dial { link, endpoint });
        State::Dialling { link, until: self.at.now.after(self.facts.start.timing.dial) }
    }

    fn link(&mut self, state: State, event: LinkEvent) -> State {
        let link = state.link();
        match (state, event) {
            (State::Dialling { link, .. }, LinkEvent::Dialled) => {
                self.effects.push(Effect::Hello(link, Box::new(self.facts.hello())));
                State::Greeting { link, until: self.at.now.after(self.facts.start.timing.answer) }
            }
            (State::Greeting { link, .. }, LinkEvent::Greeted(greeting)) => self.greeted(link, *greeting),
            (State::Following(following), LinkEvent::Failed(failure)) => {
                self.heed_claim(&failure);
                self.lose_server(following.session.link, failure.trouble(), failure.push_back())
            }
            (_, LinkEvent::Failed(failure)) => {
                self.heed_claim(&failure);
                self.lose(link, failure.trouble(), failure.push_back())
            }
            (State::Following(mut following), event) => {
                let kept = match event {
                    LinkEvent::Follow(event) => following.took(event, self),
                    LinkEvent::PushAnswered(answer) => following.answered(answer, self),
                    LinkEvent::OutboxEmpty(outbox) => following.nothing_to_push(outbox, self),
                    LinkEvent::PushFailed(failure) => {
                        self.heed_claim(&failure);
                        following.push_failed(&failure, self)
                    }
                    LinkEvent::Dialled | LinkEvent::Greeted(_) | LinkEvent::Failed(_) => {
                        Err(Trouble::Malformed)
                    }
                };
                self.keep(following, kept)
            }
            _ => self.lose(link, Trouble::Malformed, None),
        }
    }

    fn greeted(&mut self, link: LinkId, greeting: Greeting) -> State {
        let trusted = match greet::judge(&self.facts, &greeting) {
            Ok(trusted) => trusted,
            Err(trouble) => return self.lose(Some(link), trouble, None),
        };
        let session = Session::new(link, &greeting);
        let highest = greeting.lineage.last().cloned();
        if trusted.lost_beyond.is_some() {
            // What was safe in the old reign may not be in this one.
            self.facts.forgotten = Sequence::ZERO;
        }
        let known = self.facts.highest.as_ref().map_or(0, |known| known.record.epoch.number);
        if highest.as_ref().is_some_and(|highest| highest.record.epoch.number > known) {
            self.facts.highest = highest;
        }
        self.store(Effect::AdoptGreeting(Box::new(AdoptGreeting {
            lineage: greeting.lineage,
            members: greeting.members,
            issuers: greeting.issuers,
            group_name: greeting.group_name,
            lost_beyond: trusted.lost_beyond,
            known_operation: greeting.known_operation,
            confirmed_operation: greeting.confirmed_operation,
        })));
        self.facts.adopting = Some(trusted.lineage);
        State::Adopting(session)
    }

    fn stored(&mut self, state: State, stored: Stored) -> State {
        self.facts.storing = self.facts.storing.saturating_sub(1);
        match stored {
            Stored::Applied(cursor) => self.facts.moved_to(cursor),
            Stored::ResetBegun => (self.facts.resetting, self.facts.cursor) = (true, None),
            Stored::ResetFinished(cursor) => {
                self.facts.resetting = false;
                self.facts.moved_to(cursor);
            }
            Stored::Settled(outbox) => self.facts.take_outbox(outbox),
            Stored::GreetingAdopted(outbox) => {
                self.facts.take_outbox(outbox);
                // Also if its connection is gone by now.
                self.facts.lineage = self.facts.adopting.take().or_else(|| self.facts.lineage.take());
            }
            Stored::Failed => self.facts.forgotten = Sequence::ZERO,
            Stored::Noted => {}
        }
        match state {
            State::Adopting(session) if stored == Stored::Failed => {
                self.lose(Some(session.link), Trouble::StorageFailed, None)
            }
            State::Adopting(session) if self.facts.storing == 0 => self.follow(session),
            State::Following(mut following) => {
                let kept = following.stored(stored, self);
                self.keep(following, kept)
            }
            state => state,
        }
    }

    fn follow(&mut self, session: Session) -> State {
        self.facts.last_good = Some(self.facts.endpoint.clone());
        self.facts.sweep.clear();
        self.facts.seldom = None;
        State::Following(Following::open(session, self))
    }

    fn local_edits(&mut self, state: State, outbox: Outbox) -> State {
        self.facts.take_outbox(outbox);
        match state {
            State::Following(mut following) => {
                following.push(self);
                State::Following(following)
            }
            state => state,
        }
    }

    /// A new place to look shortens a wait.
    fn endpoints(&mut self, state: State, endpoints: Vec<String>) -> State {
        let news = endpoints.iter().any(|endpoint| !self.facts.start.endpoints.contains(endpoint));
        self.facts.start.endpoints = endpoints;
        let soon = self.at.now.after(jitter(self.facts.start.timing.start_spread, self.at.random));
        match state {
            State::Waiting { until } if news => State::Waiting { until: until.min(soon) },
            State::Refused { until, trouble } if news => State::Refused { until: until.min(soon), trouble },
            state => state,
        }
    }

    fn keep(&mut self, following: Following, kept: Result<(), Trouble>) -> State {
        match kept {
            Ok(()) => State::Following(following),
            Err(trouble) => self.lose_server(following.session.link, trouble, None),
        }
    }

    fn heed_claim(&mut self, failure: &Failure) {
        if let Failure::Refused { refusal, .. } = failure
            && let Some(claim) = &refusal.claim
            && let Some(effect) = self.facts.note_claim(claim)
        {
            self.store(effect);
        }
    }

    /// A server that was followed is in doubt: everything is looked at anew, after a wait.
    fn lose_server(&mut self, link: LinkId, trouble: Trouble, push_back: Option<Duration>) -> State {
        if trouble.class() != RefusalClass::Retry && trouble != Trouble::Unreachable {
            self.facts.last_good = None;
        }
        self.lose(Some(link), trouble, push_back)
    }

    /// Drops the connection; the next endpoint is tried at once, or, when there is none left, the
    /// first again after a wait.
    fn lose(&mut self, link: Option<LinkId>, trouble: Trouble, push_back: Option<Duration>) -> State {
        match trouble.class() {
            RefusalClass::Released => return self.end(link, End::Released),
            RefusalClass::Quarantined => return self.end(link, End::Quarantined),
            RefusalClass::Seldom => self.facts.seldom = self.facts.seldom.or(Some(trouble)),
            RefusalClass::Retry | RefusalClass::Elsewhere => {}
        }
        self.facts.trouble = Some(trouble);
        self.effects.extend(link.map(Effect::Disconnect));
        if self.facts.sweep.is_empty() { self.wait(trouble, push_back) } else { self.dial() }
    }

    fn wait(&mut self, trouble: Trouble, push_back: Option<Duration>) -> State {
        self.facts.trouble = Some(trouble);
        if let Some(trouble) = self.facts.seldom {
            let seldom = self.facts.start.timing.seldom;
            let until = self.at.now.after(seldom + jitter(seldom, self.at.random));
            return State::Refused { until, trouble };
        }
        State::Waiting { until: self.at.now.after(self.facts.backoff.wait(self.at.random, push_back)) }
    }

    fn end(&mut self, link: Option<LinkId>, end: End) -> State {
        self.effects.extend(link.map(Effect::Disconnect));
        State::Ended(end)
    }
}

fn link_state(facts: &Facts, state: &State) -> LinkState {
    match state {
        State::Waiting { until } => {
            LinkState::Offline { attempt: facts.backoff.attempt(), trouble: facts.trouble, until: *until }
        }
        State::Refused { until, trouble } => LinkState::Refused { trouble: *trouble, until: *until },
        State::Dialling { .. } | State::Greeting { .. } | State::Adopting(..) => {
            LinkState::Connecting { endpoint: facts.endpoint.clone() }
        }
        State::Following(following) => LinkState::Following {
            endpoint: facts.endpoint.clone(),
            epoch: following.session.epoch,
            caught_up: following.caught_up(),
            head: following.session.head,
            safe: following.session.safe,
            push_trouble: following.push_trouble(),
        },
        State::Ended(end) => LinkState::Ended(*end),
    }
}
