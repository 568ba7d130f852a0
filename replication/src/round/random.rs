//! Any order of events: what must hold whatever happens.

use std::collections::{BTreeSet, VecDeque};

use mfpsync_storage::model::{Cursor, OperationNumber, Outcome, RejectReason, Sequence};
use proptest::prelude::*;

use super::tests::{cursor, greeting, outbox, refused, start};
use super::*;
use crate::message::{FollowEvent, PushAnswer, RefusalReason, ResetReason};

/// What the driver, the disk and the peer know; holds every effect against it.
struct World {
    round: Round,
    now: Moment,
    alarm: Option<Moment>,
    /// The connection that stands or is being made.
    link: Option<LinkId>,
    used: BTreeSet<LinkId>,
    following: bool,
    pushing: bool,
    /// Storage effects in their order, and whether the first is yet to be answered.
    disk: VecDeque<Effect>,
    mirror: Option<Cursor>,
    resetting: bool,
    operations: u64,
}

impl World {
    fn new() -> Self {
        let start = start();
        let mirror = start.cursor;
        let (round, effects) = Round::start(start, At { now: Moment::default(), random: 7 }).unwrap();
        let mut world = Self {
            round,
            now: Moment::default(),
            alarm: None,
            link: None,
            used: BTreeSet::new(),
            following: false,
            pushing: false,
            disk: VecDeque::new(),
            mirror,
            resetting: false,
            operations: 10,
        };
        world.carry_out(effects);
        world
    }

    fn give(&mut self, event: Event, random: u64) {
        let at = At { now: self.now, random };
        let (round, effects) = self.round.clone().step(at, event);
        self.round = round;
        self.carry_out(effects);
        let ended = matches!(self.round.link_state(), LinkState::Ended(_));
        assert!(ended || self.alarm.is_some() || !self.disk.is_empty(), "nothing will ever happen again");
        assert!(!ended || self.link.is_none(), "ended with a connection");
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            self.check(&effect);
            if effect.is_stored() {
                self.disk.push_back(effect);
            }
        }
        if self.round.state.deadline().is_none() {
            self.alarm = None;
        }
    }

    fn check(&mut self, effect: &Effect) {
        match effect {
            Effect::Dial { link, .. } => {
                assert!(self.link.is_none(), "two connections");
                assert!(self.used.insert(*link), "a connection's name is used twice");
                self.link = Some(*link);
            }
            Effect::Hello(link, _) => assert_eq!(self.link, Some(*link)),
            Effect::Follow(link, follow) => {
                assert_eq!(self.link, Some(*link));
                assert!(self.disk.is_empty(), "followed with something still to be stored");
                assert_eq!(follow.cursor, self.mirror, "followed from elsewhere than the mirror");
                self.following = true;
            }
            Effect::Push(link, _) => {
                assert_eq!(self.link, Some(*link));
                assert!(self.following && !self.pushing, "pushed before following, or twice");
                self.pushing = true;
            }
            Effect::Disconnect(link) => {
                assert_eq!(self.link, Some(*link), "dropped a connection that is not there");
                (self.link, self.following, self.pushing) = (None, false, false);
            }
            Effect::ApplyBatch { .. }
            | Effect::BeginReset(_)
            | Effect::FinishReset(_)
            | Effect::Settle(_) => {
                assert!(self.following, "stored something of a server not followed");
            }
            Effect::WakeAt(moment) => {
                assert!(*moment >= self.now, "the alarm is in the past");
                self.alarm = Some(*moment);
            }
            Effect::AdoptGreeting(_)
            | Effect::AdoptMembership { .. }
            | Effect::NoteClaim(_)
            | Effect::ForgetSafe(_)
            | Effect::Report(_) => {}
        }
    }

    /// The disk answers the oldest effect.
    fn store(&mut self, works: bool, random: u64) {
        let Some(effect) = self.disk.pop_front() else { return };
        if !works {
            return self.give(Event::Stored(Stored::Failed), random);
        }
        let outbox = outbox(random.is_multiple_of(2), self.operations);
        let stored = match effect {
            Effect::ApplyBatch { cursor, .. } => {
                self.move_mirror(cursor);
                Stored::Applied(cursor)
            }
            Effect::BeginReset(_) => {
                (self.mirror, self.resetting) = (None, true);
                Stored::ResetBegun
            }
            Effect::FinishReset(cursor) => {
                self.move_mirror(cursor);
                self.resetting = false;
                Stored::ResetFinished(cursor)
            }
            Effect::Settle(_) => {
                if self.following {
                    self.pushing = false;
                }
                Stored::Settled(outbox)
            }
            Effect::AdoptGreeting(_) => Stored::GreetingAdopted(outbox),
            _ => Stored::Noted,
        };
        self.give(Event::Stored(stored), random);
    }

    /// I-04.
    fn move_mirror(&mut self, to: Cursor) {
        if let Some(from) = self.mirror {
            assert!(from.epoch.number <= to.epoch.number && from.sequence <= to.sequence, "cursor went back");
        }
        self.mirror = Some(to);
    }

    fn link_event(&mut self, event: LinkEvent, random: u64) {
        if let Some(link) = self.link {
            self.give(Event::Link(link, event), random);
        }
    }

    fn act(&mut self, choice: u8, number: u64, random: u64) {
        let near = self.mirror.map_or(0, |mirror| mirror.sequence.0) + number / 8;
        // Often the present reign, now and then before what came already.
        let reign = self.mirror.map_or(1, |mirror| mirror.epoch.number).max(1 + random % 3);
        let here = cursor(reign, near.saturating_sub(if (random / 64).is_multiple_of(4) { 5 } else { 0 }));
        match choice {
            0..=5 => {
                self.now = if random.is_multiple_of(4) { self.now } else { self.alarm.unwrap_or(self.now) };
                self.give(Event::Tick, random);
            }
            6..=12 => self.store(!random.is_multiple_of(16), random),
            13..=17 => self.link_event(LinkEvent::Dialled, random),
            18..=22 => {
                let mut greeting = greeting(1 + random % 3, near + 10);
                greeting.known_operation = OperationNumber(number.min(12));
                self.link_event(LinkEvent::Greeted(Box::new(greeting)), random);
            }
            23..=30 => self.follow_event(number, here, random),
            31..=33 if self.pushing => {
                let outcome = Outcome::Rejected { reason: RejectReason::OverLimit, edit: 0 };
                let outcomes = vec![(OperationNumber(number), outcome)];
                let answer = PushAnswer { outcomes, head: Sequence(near), safe: Some(Sequence(number)) };
                self.link_event(LinkEvent::PushAnswered(answer), random);
            }
            34 if self.pushing => {
                let reasons = [RefusalReason::Busy, RefusalReason::OverLimit, RefusalReason::WrongEpoch];
                self.end_push(LinkEvent::PushFailed(refused(reasons[(random % 3) as usize])), random);
            }
            35 if self.pushing => {
                self.end_push(LinkEvent::OutboxEmpty(outbox(false, self.operations)), random)
            }
            36 => self.link_event(LinkEvent::Failed(Failure::Transport), random),
            37 => {
                let reasons = [RefusalReason::Busy, RefusalReason::UnknownDevice, RefusalReason::Superseded];
                let refused = refused(reasons[(random % 3) as usize]);
                self.link_event(LinkEvent::Failed(refused), random);
            }
            38 => self.give(Event::Endpoints(vec![format!("e{number}:1"), "a:1".to_owned()]), random),
            39 if random.is_multiple_of(32) => self.give(Event::Stop, random),
            39 => self.give(Event::LongestWait(Duration::from_millis(number)), random),
            40 => self.give(Event::Link(LinkId(number), LinkEvent::Dialled), random),
            _ => {
                self.operations += 1;
                self.give(Event::LocalEdits(outbox(true, self.operations)), random);
            }
        }
    }

    /// The push is over before its answer is handed in: the next may follow in the same step.
    fn end_push(&mut self, event: LinkEvent, random: u64) {
        let settling = self.disk.iter().any(|effect| matches!(effect, Effect::Settle(_)));
        self.pushing = settling;
        self.link_event(event, random);
    }

    fn follow_event(&mut self, number: u64, here: Cursor, random: u64) {
        // A driver that keeps to the contract does not read on meanwhile; now and then one does not.
        if !self.round.wants_more() && !random.is_multiple_of(8) {
            return;
        }
        let safe = Some(here.sequence);
        let stored = self.mirror.map_or(Sequence::ZERO, |mirror| mirror.sequence);
        let previous = if random.is_multiple_of(16) { here.sequence } else { stored };
        let event = match number % 6 {
            0 => FollowEvent::Reset(ResetReason::TooOld),
            1 | 2 => FollowEvent::Batch { previous, changes: vec![], cursor: here },
            3 => FollowEvent::CaughtUp { cursor: here, safe },
            4 => FollowEvent::Heartbeat { head: here.sequence, safe },
            _ => FollowEvent::Membership { members: vec![], issuers: vec![] },
        };
        self.link_event(LinkEvent::Follow(event), random);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_happens_the_round_keeps_its_promises(
        script in prop::collection::vec((0_u8..44, 0_u64..40, any::<u64>()), 1..300),
    ) {
        let mut world = World::new();
        for (choice, number, random) in script {
            world.act(choice, number, random);
        }
    }

    #[test]
    fn the_same_script_takes_the_same_way(
        script in prop::collection::vec((0_u8..44, 0_u64..40, any::<u64>()), 1..60),
    ) {
        let run = || {
            let mut world = World::new();
            script.iter().for_each(|&(choice, number, random)| world.act(choice, number, random));
            (world.round, world.now)
        };
        prop_assert_eq!(run(), run());
    }
}
