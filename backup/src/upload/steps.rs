//! How one file gets to its place: what to do next, after each thing that went well or wrong. Pure.
//!
//! ```text
//! Create ── Send ── (new connection) ── ReadBack ── Rename ── placed
//!   ▲        │ lost                       │ lost       │ lost, or a name is not as expected
//!   │        ▼                            ▼            ▼
//!   └─ no ─ Look ─ Resume ─► Send      ReadBack      Compare both names ─► Rename, placed, or Create
//!            ▲
//!           Find, for what was begun in an earlier life ─► placed, if it has its place and is what it should be
//! ```
//!
//! A part that is missing, shorter than what the server took, or held for too long by somebody is left behind for a
//! new one in the next turn; the sweep finds it. A rename is never repeated blindly: its answer may have been lost.
//! What is tried again is tried so often between two steps forward, and no oftener.

use crate::store::{Class, Kind};

/// Parts that are begun for one file at the most: each is all of the archive once more.
const MOST_TURNS: u32 = 3;

/// Where a file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Whether it has its place already; and how far a part of it is, if one was begun.
    Find {
        taken: Option<u64>,
    },
    Create,
    Look {
        taken: u64,
    },
    Resume {
        taken: u64,
    },
    Send {
        taken: u64,
    },
    ReadBack {
        size: u64,
    },
    Rename {
        size: u64,
    },
    Compare {
        size: u64,
    },
    Discard {
        why: Kind,
    },
    Ended(Result<(), Kind>),
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Make a new connection, after the wait that belongs to so many failures in a row.
    Connect { failures: u32 },
    /// See whether it is at its place, and read it back there.
    Find,
    /// Make the part of this turn.
    Create,
    /// Ask for the part's size.
    Look,
    /// Open the part for writing from here on.
    Resume(u64),
    /// Send what the archive holds from here on, and finish the part.
    Send(u64),
    /// Read all of the part and compare.
    ReadBack,
    /// Give the part its name.
    Rename,
    /// Ask for the sizes of part and place.
    Compare,
    /// Remove the part, if that can be done.
    Discard,
    /// Nothing more.
    End(Result<(), Kind>),
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Connected,
    /// There is nothing at its place, or something that is what it should be, or is not.
    Found {
        equal: Option<bool>,
    },
    Created,
    Looked(Option<u64>),
    Resumed,
    /// All was sent and the part finished.
    Sent {
        size: u64,
    },
    /// Sending broke off after the server had taken so much.
    Interrupted {
        taken: u64,
        kind: Kind,
    },
    ReadBack {
        equal: bool,
    },
    Renamed,
    Compared {
        part: Option<u64>,
        place: Option<u64>,
    },
    Discarded,
    /// Anything else failed.
    Failed(Kind),
}

/// A file on its way.
#[derive(Debug)]
pub(super) struct Steps {
    stage: Stage,
    turn: u32,
    turns: u32,
    /// Whether sending can go on in the middle.
    repeats: bool,
    connected: bool,
    failures: u32,
    most_failures: u32,
}

impl Steps {
    /// A file of which nothing is on the share; its first part is that of `turn`.
    pub(super) fn new(most_failures: u32, turn: u32) -> Self {
        Self {
            stage: Stage::Create,
            turn,
            turns: 1,
            repeats: true,
            connected: false,
            failures: 0,
            most_failures,
        }
    }

    /// A file of which the server took so much in an earlier life of this process, or all.
    pub(super) fn resumed(most_failures: u32, turn: u32, taken: u64) -> Self {
        Self { stage: Stage::Find { taken: Some(taken) }, ..Self::new(most_failures, turn) }
    }

    /// A file that an earlier life of this process may have begun or placed, nobody knows in which turn.
    pub(super) fn sought(most_failures: u32, turn: u32) -> Self {
        Self { stage: Stage::Find { taken: None }, ..Self::new(most_failures, turn) }
    }

    /// The same, of bytes that are other ones each time.
    pub(super) fn unrepeatable(self) -> Self {
        Self { repeats: false, ..self }
    }

    /// The same, over a connection that is there already.
    pub(super) fn connected(self) -> Self {
        Self { connected: true, ..self }
    }

    /// Which part is in use.
    pub(super) fn turn(&self) -> u32 {
        self.turn
    }

    /// What is to be done next.
    pub(super) fn act(&self) -> Act {
        match self.stage {
            Stage::Ended(result) => Act::End(result),
            _ if !self.connected => Act::Connect { failures: self.failures },
            Stage::Find { .. } => Act::Find,
            Stage::Create => Act::Create,
            Stage::Look { .. } => Act::Look,
            Stage::Resume { taken } => Act::Resume(taken),
            Stage::Send { taken } => Act::Send(taken),
            Stage::ReadBack { .. } => Act::ReadBack,
            Stage::Rename { .. } => Act::Rename,
            Stage::Compare { .. } => Act::Compare,
            Stage::Discard { .. } => Act::Discard,
        }
    }

    /// Takes what became of it.
    pub(super) fn on(&mut self, event: Event) {
        match event {
            Event::Connected => self.connected = true,
            Event::Found { equal } => self.found(equal),
            Event::Created => self.stage = Stage::Send { taken: 0 },
            Event::Looked(size) => self.looked(size),
            Event::Resumed => {
                if let Stage::Resume { taken } = self.stage {
                    self.stage = Stage::Send { taken };
                }
            }
            // Read back over another connection, which knows nothing of what was sent.
            Event::Sent { size } => self.forward(Stage::ReadBack { size }, false),
            Event::Interrupted { taken, kind } => self.interrupted(taken, kind),
            Event::ReadBack { equal } => match self.stage {
                Stage::ReadBack { size } if equal => self.forward(Stage::Rename { size }, true),
                _ => self.stage = Stage::Discard { why: Kind::Altered },
            },
            Event::Renamed => self.stage = Stage::Ended(Ok(())),
            Event::Compared { part, place } => self.compared(part, place),
            Event::Discarded => self.discarded(),
            Event::Failed(kind) => self.failed(kind),
        }
    }

    fn forward(&mut self, stage: Stage, connected: bool) {
        (self.stage, self.connected, self.failures) = (stage, connected, 0);
    }

    fn found(&mut self, equal: Option<bool>) {
        let Stage::Find { taken } = self.stage else { return };
        self.stage = match (equal, taken) {
            (Some(true), _) => Stage::Ended(Ok(())),
            (Some(false), _) => Stage::Ended(Err(Kind::Altered)),
            (None, Some(taken)) => Stage::Look { taken },
            (None, None) => Stage::Create,
        };
    }

    fn looked(&mut self, size: Option<u64>) {
        match (self.stage, size) {
            (Stage::Look { taken: 0 }, None) => self.stage = Stage::Create,
            (Stage::Look { taken }, Some(size)) if size >= taken => self.stage = Stage::Resume { taken },
            _ => self.start_over(Kind::NotFound),
        }
    }

    fn interrupted(&mut self, taken: u64, kind: Kind) {
        if let Stage::Send { taken: before } = self.stage {
            if taken > before {
                self.failures = 0;
            }
            self.stage = Stage::Send { taken };
        }
        self.failed(kind);
    }

    fn compared(&mut self, part: Option<u64>, place: Option<u64>) {
        let Stage::Compare { size } = self.stage else { return };
        self.stage = match (part, place) {
            // The rename happened and its answer was lost.
            (None, Some(found)) if found == size => Stage::Ended(Ok(())),
            (Some(_), None) => Stage::Rename { size },
            // Names carry luck, so this is nobody's doing but ours or a broken server's.
            (_, Some(_)) => Stage::Discard { why: Kind::Exists },
            (None, None) => return self.start_over(Kind::NotFound),
        };
    }

    fn discarded(&mut self) {
        if let Stage::Discard { why } = self.stage {
            self.stage = Stage::Ended(Err(why));
        }
    }

    /// Leaves the part behind; counts, so that a share on which nothing stays ends the job.
    fn start_over(&mut self, why: Kind) {
        self.turn += 1;
        self.turns += 1;
        self.stage = if self.turns > MOST_TURNS { Stage::Ended(Err(why)) } else { Stage::Create };
        self.count(why);
    }

    fn count(&mut self, kind: Kind) {
        self.failures += 1;
        if self.failures > self.most_failures {
            self.stage = Stage::Ended(Err(kind));
        }
    }

    fn failed(&mut self, kind: Kind) {
        match kind.class() {
            Class::Stopped => self.stage = Stage::Ended(Err(kind)),
            Class::Retry => self.again(kind),
            Class::Fault => self.refused(kind),
        }
    }

    fn again(&mut self, kind: Kind) {
        let reached = std::mem::replace(&mut self.connected, false);
        // A server that has not noticed yet that a connection broke may hold the part for hours.
        let held = kind == Kind::Busy && self.failures >= self.most_failures / 2;
        match self.stage {
            Stage::Discard { why } => return self.stage = Stage::Ended(Err(why)),
            _ if !reached => {}
            // It may be there all the same, and be held.
            Stage::Create => self.turn += 1,
            Stage::Look { .. } | Stage::Resume { .. } | Stage::Rename { .. } if held => {
                return self.start_over(kind);
            }
            Stage::Send { .. } if !self.repeats => return self.start_over(kind),
            // That is an answer, and it says that nothing happened.
            Stage::Rename { .. } if kind == Kind::Busy => {}
            Stage::Look { taken } | Stage::Resume { taken } | Stage::Send { taken } => {
                self.stage = Stage::Look { taken };
            }
            Stage::Rename { size } => self.stage = Stage::Compare { size },
            Stage::Find { .. } | Stage::ReadBack { .. } | Stage::Compare { .. } | Stage::Ended(_) => {}
        }
        self.count(kind);
    }

    fn refused(&mut self, kind: Kind) {
        match (self.stage, kind) {
            _ if !self.connected => self.stage = Stage::Ended(Err(kind)),
            // A folder has its name, so that it can never be there.
            (Stage::Find { .. }, Kind::WrongType) => self.stage = Stage::Ended(Err(Kind::Exists)),
            // Begun in an earlier life: nothing was sent to this one, so it is no turn.
            (Stage::Create, Kind::Exists) => {
                self.turn += 1;
                self.count(kind);
            }
            (Stage::Look { .. } | Stage::Resume { .. }, Kind::NotFound) => self.start_over(kind),
            (Stage::Rename { size }, Kind::NotFound | Kind::Exists) => {
                self.stage = Stage::Compare { size };
                self.count(kind);
            }
            (Stage::Discard { why }, _) => self.stage = Stage::Ended(Err(why)),
            // Nothing of ours is there yet, or nobody knows what is.
            (Stage::Find { .. } | Stage::Create | Stage::Compare { .. } | Stage::Ended(_), _) => {
                self.stage = Stage::Ended(Err(kind))
            }
            (
                Stage::Look { .. }
                | Stage::Resume { .. }
                | Stage::Send { .. }
                | Stage::ReadBack { .. }
                | Stage::Rename { .. },
                _,
            ) => self.stage = Stage::Discard { why: kind },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs through events, each with the act that asked for it, and returns the next act.
    fn run(steps: &mut Steps, story: &[(Act, Event)]) -> Act {
        for &(act, event) in story {
            assert_eq!(steps.act(), act, "before {event:?}");
            steps.on(event);
        }
        steps.act()
    }

    const CONNECT: (Act, Event) = (Act::Connect { failures: 0 }, Event::Connected);
    const AGAIN: (Act, Event) = (Act::Connect { failures: 1 }, Event::Connected);
    const SENT: [(Act, Event); 4] =
        [CONNECT, (Act::Create, Event::Created), (Act::Send(0), Event::Sent { size: 9 }), CONNECT];
    const EQUAL: (Act, Event) = (Act::ReadBack, Event::ReadBack { equal: true });
    const NOT_PLACED: (Act, Event) = (Act::Find, Event::Found { equal: None });

    #[test]
    fn a_file_is_read_back_over_a_new_connection_before_it_gets_its_name() {
        let steps = &mut Steps::new(3, 0);
        run(steps, &SENT);
        assert_eq!(run(steps, &[EQUAL, (Act::Rename, Event::Renamed)]), Act::End(Ok(())));
    }

    #[test]
    fn what_comes_back_otherwise_never_gets_its_name() {
        let steps = &mut Steps::new(3, 0);
        run(steps, &SENT);
        let story = [(Act::ReadBack, Event::ReadBack { equal: false }), (Act::Discard, Event::Discarded)];
        assert_eq!(run(steps, &story), Act::End(Err(Kind::Altered)));
    }

    #[test]
    fn sending_goes_on_where_the_server_had_it() {
        let steps = &mut Steps::new(3, 0);
        let cut = Event::Interrupted { taken: 5, kind: Kind::Lost };
        let story = [CONNECT, (Act::Create, Event::Created), (Act::Send(0), cut), AGAIN];
        assert_eq!(run(steps, &story), Act::Look);
        let story = [(Act::Look, Event::Looked(Some(7))), (Act::Resume(5), Event::Resumed)];
        assert_eq!(run(steps, &story), Act::Send(5));
        assert_eq!(steps.turn(), 0);
    }

    #[test]
    fn a_part_that_is_gone_or_short_is_left_for_a_new_one() {
        for event in [Event::Looked(None), Event::Looked(Some(4))] {
            let steps = &mut Steps::resumed(3, 0, 5);
            assert_eq!(run(steps, &[CONNECT, NOT_PLACED, (Act::Look, event)]), Act::Create);
            assert_eq!(steps.turn(), 1);
        }
    }

    #[test]
    fn what_an_earlier_life_placed_stays_if_it_is_what_it_should_be() {
        for (equal, end) in [(true, Ok(())), (false, Err(Kind::Altered))] {
            for steps in [&mut Steps::resumed(3, 0, 5), &mut Steps::sought(3, 1)] {
                let found = (Act::Find, Event::Found { equal: Some(equal) });
                assert_eq!(run(steps, &[CONNECT, found]), Act::End(end));
            }
        }
    }

    #[test]
    fn what_an_earlier_life_did_not_come_to_is_begun() {
        let steps = &mut Steps::resumed(3, 0, 0);
        assert_eq!(run(steps, &[CONNECT, NOT_PLACED, (Act::Look, Event::Looked(None))]), Act::Create);
        assert_eq!(steps.turn(), 0);
        let steps = &mut Steps::sought(3, 1);
        assert_eq!(run(steps, &[CONNECT, NOT_PLACED]), Act::Create);
    }

    #[test]
    fn parts_that_earlier_lives_left_are_passed_by() {
        let steps = &mut Steps::new(4, 0);
        run(steps, &[CONNECT]);
        for turn in 0..4 {
            assert_eq!((steps.act(), steps.turn()), (Act::Create, turn));
            steps.on(Event::Failed(Kind::Exists));
        }
        assert_eq!(run(steps, &[(Act::Create, Event::Created)]), Act::Send(0));
        // But not for ever.
        let steps = &mut Steps::new(1, 0);
        let exists = (Act::Create, Event::Failed(Kind::Exists));
        assert_eq!(run(steps, &[CONNECT, exists, exists]), Act::End(Err(Kind::Exists)));
    }

    #[test]
    fn bytes_that_do_not_repeat_are_sent_anew() {
        let steps = &mut Steps::new(3, 0).unrepeatable();
        let cut = Event::Interrupted { taken: 5, kind: Kind::Lost };
        run(steps, &[CONNECT, (Act::Create, Event::Created), (Act::Send(0), cut), AGAIN]);
        assert_eq!((run(steps, &[(Act::Create, Event::Created)]), steps.turn()), (Act::Send(0), 1));
    }

    #[test]
    fn a_part_that_stays_held_is_left_for_a_new_one_but_not_for_ever() {
        let busy = Event::Failed(Kind::Busy);
        let connect = |failures| (Act::Connect { failures }, Event::Connected);
        let steps = &mut Steps::resumed(4, 0, 5);
        run(
            steps,
            &[
                connect(0),
                NOT_PLACED,
                (Act::Look, busy),
                connect(1),
                (Act::Look, busy),
                connect(2),
                (Act::Look, busy),
            ],
        );
        for turn in 1..3 {
            assert_eq!((steps.act(), steps.turn()), (Act::Connect { failures: 3 }, turn));
            run(
                steps,
                &[
                    connect(3),
                    (Act::Create, Event::Created),
                    (Act::Send(0), Event::Sent { size: 9 }),
                    connect(0),
                ],
            );
            run(
                steps,
                &[
                    EQUAL,
                    (Act::Rename, busy),
                    connect(1),
                    (Act::Rename, busy),
                    connect(2),
                    (Act::Rename, busy),
                ],
            );
        }
        assert_eq!(steps.act(), Act::End(Err(Kind::Busy)));
    }

    #[test]
    fn a_rename_whose_answer_was_lost_is_decided_by_looking() {
        let lost = (Act::Rename, Event::Failed(Kind::Lost));
        for (part, place, next) in [
            (None, Some(9), Act::End(Ok(()))),
            (Some(9), None, Act::Rename),
            (None, None, Act::Create),
            (Some(9), Some(9), Act::Discard),
            (None, Some(8), Act::Discard),
        ] {
            let steps = &mut Steps::new(3, 0);
            run(steps, &SENT);
            let compared = (Act::Compare, Event::Compared { part, place });
            assert_eq!(run(steps, &[EQUAL, lost, AGAIN, compared]), next, "{part:?} {place:?}");
        }
    }

    #[test]
    fn what_a_person_must_mend_is_not_tried_again() {
        for kind in [Kind::Auth, Kind::Guest, Kind::NoSuchShare, Kind::Denied] {
            let steps = &mut Steps::new(3, 0);
            let story = [(Act::Connect { failures: 0 }, Event::Failed(kind))];
            assert_eq!(run(steps, &story), Act::End(Err(kind)));
        }
        let full = Event::Interrupted { taken: 5, kind: Kind::Full };
        let steps = &mut Steps::new(3, 0);
        let story =
            [CONNECT, (Act::Create, Event::Created), (Act::Send(0), full), (Act::Discard, Event::Discarded)];
        assert_eq!(run(steps, &story), Act::End(Err(Kind::Full)));
    }

    #[test]
    fn trying_again_ends_unless_something_moves() {
        let steps = &mut Steps::new(2, 0);
        for failures in 0..3 {
            run(steps, &[(Act::Connect { failures }, Event::Failed(Kind::Unreachable))]);
        }
        assert_eq!(steps.act(), Act::End(Err(Kind::Unreachable)));

        let steps = &mut Steps::new(2, 0);
        run(steps, &[CONNECT, (Act::Create, Event::Created)]);
        for taken in 1..50 {
            steps.on(Event::Interrupted { taken, kind: Kind::Timeout });
            let story =
                [AGAIN, (Act::Look, Event::Looked(Some(taken))), (Act::Resume(taken), Event::Resumed)];
            assert_eq!(run(steps, &story), Act::Send(taken));
        }
    }

    #[test]
    fn being_told_to_end_ends_it_at_once() {
        let steps = &mut Steps::new(3, 0);
        run(steps, &[CONNECT, (Act::Create, Event::Created)]);
        let story = [(Act::Send(0), Event::Interrupted { taken: 5, kind: Kind::Cancelled })];
        assert_eq!(run(steps, &story), Act::End(Err(Kind::Cancelled)));
    }
}
