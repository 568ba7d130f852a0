//! The round, journey by journey.

use mfpsync_storage::model::{
    Chain, Cursor, DeviceId, Epoch, GroupId, Incarnation, OperationNumber, Outcome, Parent, Promotion,
    PromotionReason, RejectReason, Revision, Sequence, Signed,
};

use super::*;
use crate::message::{Claim, FollowEvent, Limits, PushAnswer, Refusal, RefusalReason, ResetReason};

pub(super) const GROUP: GroupId = GroupId([7; 16]);

pub(super) fn epoch(number: u64) -> Epoch {
    Epoch { number, nonce: [u8::try_from(number).unwrap(); 16] }
}

fn chain_at(sequence: u64) -> Chain {
    Chain([u8::try_from(sequence % 251).unwrap(); 32])
}

pub(super) fn cursor(number: u64, sequence: u64) -> Cursor {
    Cursor { group: GROUP, epoch: epoch(number), sequence: Sequence(sequence), chain: chain_at(sequence) }
}

pub(super) fn record(epoch: Epoch, parent: Option<(Epoch, u64)>) -> Signed<Promotion> {
    let parent = parent.map(|(epoch, sequence)| Parent {
        epoch,
        sequence: Sequence(sequence),
        chain: chain_at(sequence),
        transaction: 0,
        page_digest: [0; 16],
    });
    let record = Promotion {
        group: GROUP,
        epoch,
        parent,
        ends: Vec::new(),
        device: DeviceId([1; 16]),
        operator: "admin".to_owned(),
        reason: PromotionReason::Promoted,
        made_at: 0,
    };
    Signed { body: record.body(), record, signature: [0; 64] }
}

/// Reigns 1 to `last`, each taking over at a hundred times its parent's number.
pub(super) fn lineage(last: u64) -> Vec<Signed<Promotion>> {
    let parent = |number: u64| (number > 1).then(|| (epoch(number - 1), (number - 1) * 100));
    (1..=last).map(|number| record(epoch(number), parent(number))).collect()
}

pub(super) fn greeting(number: u64, head: u64) -> Greeting {
    Greeting {
        protocol: 1,
        epoch: epoch(number),
        head: Sequence(head),
        safe: None,
        limits: Limits::default(),
        lineage: lineage(number),
        members: vec![],
        issuers: vec![],
        known_operation: OperationNumber(0),
        confirmed_operation: OperationNumber(0),
        group_name: "office".to_owned(),
    }
}

pub(super) fn outbox(waiting: bool, last: u64) -> Outbox {
    Outbox { waiting, last_operation: OperationNumber(last), low_water: OperationNumber(0) }
}

pub(super) fn refused(reason: RefusalReason) -> Failure {
    let refusal = Refusal { reason, text: String::new(), claim: None };
    Failure::Refused { refusal: Box::new(refusal), push_back: None }
}

pub(super) fn start() -> Start {
    Start {
        group: GROUP,
        incarnation: Incarnation(5),
        lineage: lineage(1),
        followed: 1,
        cursor: Some(cursor(1, 50)),
        resetting: false,
        outbox: outbox(false, 10),
        endpoints: vec!["a:1".to_owned(), "b:1".to_owned()],
        own_endpoints: vec![],
        issuing_key: None,
        version: "0.1.0".to_owned(),
        timing: Timing::default(),
    }
}

/// A round and the clock beside it.
pub(super) struct Bench {
    round: Option<Round>,
    pub(super) now: Moment,
    wake: Option<Moment>,
}

impl Bench {
    fn new(start: Start) -> Self {
        let (round, effects) = Round::start(start, At { now: Moment::default(), random: 0 }).unwrap();
        let mut bench = Self { round: Some(round), now: Moment::default(), wake: None };
        bench.note(&effects);
        bench
    }

    fn note(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::WakeAt(moment) = effect {
                self.wake = Some(*moment);
            }
        }
    }

    /// Hands an event in; returns the effects but for reports and alarms.
    fn give(&mut self, event: Event) -> Vec<Effect> {
        let (round, mut effects) =
            self.round.take().unwrap().step(At { now: self.now, random: 1 << 63 }, event);
        self.round = Some(round);
        self.note(&effects);
        effects.retain(|effect| !matches!(effect, Effect::WakeAt(_) | Effect::Report(_)));
        effects
    }

    fn link(&mut self, link: u64, event: LinkEvent) -> Vec<Effect> {
        self.give(Event::Link(LinkId(link), event))
    }

    fn stored(&mut self, stored: Stored) -> Vec<Effect> {
        self.give(Event::Stored(stored))
    }

    /// Waits until the alarm rings.
    fn tick(&mut self) -> Vec<Effect> {
        self.now = self.wake.unwrap().max(self.now);
        self.give(Event::Tick)
    }

    fn state(&self) -> LinkState {
        self.round.as_ref().unwrap().link_state()
    }

    /// Dials with the next link and is greeted.
    fn greeted(&mut self, greeting: Greeting) -> Vec<Effect> {
        let dialled = self.tick();
        let Some(Effect::Dial { link, .. }) = dialled.last() else { panic!("no dial: {dialled:?}") };
        let link = link.0;
        assert!(matches!(self.link(link, LinkEvent::Dialled)[..], [Effect::Hello(..)]));
        self.link(link, LinkEvent::Greeted(Box::new(greeting)))
    }

    /// Follows as link 1.
    fn following(start: Start) -> Self {
        let (waiting, head) = (start.outbox, start.cursor.map_or(0, |cursor| cursor.sequence.0));
        let mut bench = Self::new(start);
        assert!(matches!(bench.greeted(greeting(1, head))[..], [Effect::AdoptGreeting(_)]));
        let opened = bench.stored(Stored::GreetingAdopted(waiting));
        assert!(matches!(opened[0], Effect::Follow(..)), "{opened:?}");
        bench
    }
}

fn dial(link: u64, endpoint: &str) -> Effect {
    Effect::Dial { link: LinkId(link), endpoint: endpoint.to_owned() }
}

fn offline(state: LinkState) -> Option<Trouble> {
    match state {
        LinkState::Offline { trouble, .. } => trouble,
        other => panic!("not offline: {other:?}"),
    }
}

fn batch(number: u64, previous: u64, sequence: u64) -> LinkEvent {
    let (previous, cursor) = (Sequence(previous), cursor(number, sequence));
    LinkEvent::Follow(FollowEvent::Batch { previous, changes: vec![], cursor })
}

fn all_came(number: u64, sequence: u64) -> LinkEvent {
    LinkEvent::Follow(FollowEvent::CaughtUp { cursor: cursor(number, sequence), safe: None })
}

fn answer(number: u64) -> LinkEvent {
    let outcome = Outcome::Rejected { reason: RejectReason::OverLimit, edit: 0 };
    LinkEvent::PushAnswered(PushAnswer {
        outcomes: vec![(OperationNumber(number), outcome)],
        head: Sequence(60),
        safe: None,
    })
}

#[test]
fn a_client_dials_greets_and_follows_from_its_cursor() {
    let mut bench = Bench::new(start());
    assert_eq!(bench.tick(), [dial(1, "a:1")]);
    let hello = bench.link(1, LinkEvent::Dialled);
    let [Effect::Hello(LinkId(1), hello)] = &hello[..] else { panic!("{hello:?}") };
    let claim = lineage(1).pop().map(|promotion| Claim::of(promotion, &[], &[]));
    assert_eq!((hello.last_operation, hello.claim.clone()), (OperationNumber(10), claim));
    let adopted = bench.link(1, LinkEvent::Greeted(Box::new(greeting(1, 60))));
    let [Effect::AdoptGreeting(adopt)] = &adopted[..] else { panic!("{adopted:?}") };
    assert_eq!(adopt.lost_beyond, None);
    let opened = bench.stored(Stored::GreetingAdopted(outbox(false, 10)));
    let [Effect::Follow(LinkId(1), follow)] = opened[..] else { panic!("{opened:?}") };
    assert_eq!(follow.cursor, Some(cursor(1, 50)));
    assert!(matches!(bench.state(), LinkState::Following { caught_up: false, .. }));
}

#[test]
fn batches_are_stored_one_by_one_until_everything_came() {
    let mut bench = Bench::following(start());
    let stored = bench.link(1, batch(1, 50, 55));
    assert_eq!(stored, [Effect::ApplyBatch { changes: vec![], cursor: cursor(1, 55) }]);
    assert!(!bench.round.as_ref().unwrap().wants_more());
    assert_eq!(bench.stored(Stored::Applied(cursor(1, 55))), []);
    assert!(bench.round.as_ref().unwrap().wants_more());
    assert_eq!(bench.link(1, all_came(1, 55)), []);
    assert!(matches!(bench.state(), LinkState::Following { caught_up: true, .. }));
}

#[test]
fn nothing_is_piled_up_while_something_is_being_stored() {
    let mut bench = Bench::following(start());
    bench.link(1, batch(1, 50, 55));
    assert_eq!(bench.link(1, batch(1, 55, 56)), [Effect::Disconnect(LinkId(1))]);
}

#[test]
fn a_reset_is_finished_only_when_everything_came_and_survives_a_cut() {
    let mut bench = Bench::following(start());
    let reset = LinkEvent::Follow(FollowEvent::Reset(ResetReason::TooOld));
    assert_eq!(bench.link(1, reset), [Effect::BeginReset(ResetReason::TooOld)]);
    bench.stored(Stored::ResetBegun);
    bench.link(1, batch(1, 0, 20));
    bench.stored(Stored::Applied(cursor(1, 20)));
    assert_eq!(bench.link(1, LinkEvent::Failed(Failure::Transport)), [Effect::Disconnect(LinkId(1))]);
    bench.greeted(greeting(1, 60));
    let opened = bench.stored(Stored::GreetingAdopted(outbox(false, 10)));
    assert!(matches!(opened[..], [Effect::Follow(_, follow)] if follow.cursor == Some(cursor(1, 20))));
    bench.link(2, batch(1, 20, 60));
    bench.stored(Stored::Applied(cursor(1, 60)));
    assert_eq!(bench.link(2, all_came(1, 60)), [Effect::FinishReset(cursor(1, 60))]);
    assert!(matches!(bench.state(), LinkState::Following { caught_up: false, .. }));
    bench.stored(Stored::ResetFinished(cursor(1, 60)));
    assert!(matches!(bench.state(), LinkState::Following { caught_up: true, .. }));
}

/// Proves I-04.
#[test]
fn i04_a_cursor_never_goes_back_within_an_epoch() {
    let other_chain = Cursor { chain: Chain::START, ..cursor(1, 50) };
    let cursors =
        [cursor(1, 49), cursor(2, 60), other_chain, Cursor { group: GroupId([8; 16]), ..cursor(1, 60) }];
    for cursor in cursors {
        let batch = FollowEvent::Batch { previous: Sequence(50), changes: vec![], cursor };
        for event in [batch, FollowEvent::CaughtUp { cursor, safe: None }] {
            let mut bench = Bench::following(start());
            assert_eq!(
                bench.link(1, LinkEvent::Follow(event)),
                [Effect::Disconnect(LinkId(1))],
                "{cursor:?}"
            );
            assert_eq!(offline(bench.state()), Some(Trouble::Malformed));
        }
    }
    let mut bench = Bench::following(start());
    bench.link(1, LinkEvent::Follow(FollowEvent::Reset(ResetReason::TooOld)));
    bench.stored(Stored::ResetBegun);
    bench.link(1, batch(1, 0, 49));
    bench.stored(Stored::Applied(cursor(1, 49)));
    assert_eq!(bench.link(1, all_came(1, 49)), [Effect::Disconnect(LinkId(1))]);
    assert!(matches!(bench.state(), LinkState::Refused { trouble: Trouble::ServerRolledBack, .. }));
}

#[test]
fn a_batch_that_does_not_build_on_the_one_before_is_refused() {
    for event in [batch(1, 51, 55), batch(1, 49, 55), batch(1, 0, 55), all_came(1, 55)] {
        let mut bench = Bench::following(start());
        assert_eq!(bench.link(1, event.clone()), [Effect::Disconnect(LinkId(1))], "{event:?}");
        assert_eq!(offline(bench.state()), Some(Trouble::Malformed));
    }
    let mut bench = Bench::following(start());
    bench.link(1, LinkEvent::Follow(FollowEvent::Reset(ResetReason::TooOld)));
    bench.stored(Stored::ResetBegun);
    assert_eq!(bench.link(1, batch(1, 50, 55)), [Effect::Disconnect(LinkId(1))]);
}

#[test]
fn endpoints_are_tried_in_turn_and_then_after_a_wait_the_last_good_one_first() {
    let mut bench = Bench::new(start());
    assert_eq!(bench.tick(), [dial(1, "a:1")]);
    let failed = LinkEvent::Failed(Failure::Transport);
    assert_eq!(bench.link(1, failed.clone()), [Effect::Disconnect(LinkId(1)), dial(2, "b:1")]);
    bench.link(2, LinkEvent::Dialled);
    bench.link(2, LinkEvent::Greeted(Box::new(greeting(1, 60))));
    bench.stored(Stored::GreetingAdopted(outbox(false, 10)));
    assert_eq!(bench.link(2, failed.clone()), [Effect::Disconnect(LinkId(2))]);
    assert_eq!(bench.tick(), [dial(3, "b:1")]);
    assert_eq!(bench.link(3, failed.clone()), [Effect::Disconnect(LinkId(3)), dial(4, "a:1")]);
    assert_eq!(bench.link(4, failed), [Effect::Disconnect(LinkId(4))]);
    assert_eq!(offline(bench.state()), Some(Trouble::Unreachable));
}

#[test]
fn a_new_endpoint_shortens_a_wait() {
    let mut bench = Bench::new(Start { endpoints: vec![], ..start() });
    assert_eq!(bench.tick(), []);
    assert_eq!(offline(bench.state()), Some(Trouble::NoEndpoint));
    for _ in 0..8 {
        bench.tick();
    }
    let before = bench.wake.unwrap();
    bench.give(Event::Endpoints(vec!["c:1".to_owned()]));
    assert!(bench.wake.unwrap() < before);
    assert_eq!(bench.tick(), [dial(1, "c:1")]);
}

#[test]
fn nothing_waits_forever() {
    let mut bench = Bench::new(Start { endpoints: vec!["a:1".to_owned()], ..start() });
    bench.tick();
    assert_eq!(bench.tick(), [Effect::Disconnect(LinkId(1))]);
    assert_eq!(offline(bench.state()), Some(Trouble::TimedOut));
    bench.tick();
    bench.link(2, LinkEvent::Dialled);
    assert_eq!(bench.tick(), [Effect::Disconnect(LinkId(2))]);
    let mut bench = Bench::following(Start { endpoints: vec!["a:1".to_owned()], ..start() });
    let heard = bench.now;
    assert_eq!(bench.tick(), [Effect::Disconnect(LinkId(1))]);
    assert_eq!(bench.now, heard.after(Timing::default().heartbeat * 3));
    assert_eq!(offline(bench.state()), Some(Trouble::Silent));
}

#[test]
fn heartbeats_keep_the_stream_and_a_slow_disk_is_not_silence() {
    let mut bench = Bench::following(start());
    let heartbeat =
        || LinkEvent::Follow(FollowEvent::Heartbeat { head: Sequence(70), safe: Some(Sequence(60)) });
    let first = bench.link(1, heartbeat());
    assert!(matches!(first[..], [Effect::ForgetSafe(safe)] if safe == Sequence(60)));
    bench.stored(Stored::Noted);
    for _ in 0..10 {
        bench.now = bench.now.after(Timing::default().heartbeat);
        assert_eq!(bench.link(1, heartbeat()), []);
    }
    bench.link(1, batch(1, 50, 71));
    assert_eq!(bench.tick(), []);
    bench.stored(Stored::Applied(cursor(1, 71)));
    assert_eq!(bench.tick(), [Effect::Disconnect(LinkId(1))]);
}

#[test]
fn no_more_is_pushed_at_once_than_the_server_takes() {
    let most = Limits::default();
    for (operations, bytes) in [(3, 900), (most.push_operations + 1, most.push_bytes + 1)] {
        let mut bench = Bench::new(start());
        let limits = Limits { push_operations: operations, push_bytes: bytes, ..most };
        bench.greeted(Greeting { limits, ..greeting(1, 50) });
        let opened = bench.stored(Stored::GreetingAdopted(outbox(true, 11)));
        let Some(Effect::Push(_, order)) = opened.last() else { panic!("no push: {opened:?}") };
        let own = (most.push_operations, most.push_bytes);
        assert_eq!((order.operations, order.bytes), (operations.min(own.0), bytes.min(own.1)));
    }
}

#[test]
fn one_push_is_under_way_and_its_outcomes_are_stored_before_the_next() {
    let mut bench = Bench::following(start());
    let pushed = bench.give(Event::LocalEdits(outbox(true, 11)));
    assert!(matches!(pushed[..], [Effect::Push(LinkId(1), _)]));
    assert_eq!(bench.give(Event::LocalEdits(outbox(true, 12))), []);
    // The pull side goes on meanwhile.
    assert_eq!(bench.link(1, batch(1, 50, 60)).len(), 1);
    bench.stored(Stored::Applied(cursor(1, 60)));
    assert!(matches!(bench.link(1, answer(11))[..], [Effect::Settle(_)]));
    assert_eq!(bench.give(Event::LocalEdits(outbox(true, 13))), []);
    // Read before the last edit: what is known of it counts.
    let next = bench.stored(Stored::Settled(outbox(false, 12)));
    assert!(matches!(next[..], [Effect::Push(..)]));
    assert_eq!(bench.link(1, LinkEvent::OutboxEmpty(outbox(false, 13))), []);
}

#[test]
fn a_refused_push_rests_while_the_stream_goes_on() {
    let mut bench = Bench::following(start());
    bench.give(Event::LocalEdits(outbox(true, 11)));
    assert_eq!(bench.link(1, LinkEvent::PushFailed(refused(RefusalReason::StorageFull))), []);
    let LinkState::Following { push_trouble, .. } = bench.state() else { panic!("lost") };
    assert_eq!(push_trouble, Some(Trouble::Refused(RefusalReason::StorageFull)));
    assert_eq!(bench.link(1, batch(1, 50, 60)).len(), 1);
    bench.stored(Stored::Applied(cursor(1, 60)));
    assert!(matches!(bench.tick()[..], [Effect::Push(..)]));
    assert_eq!(
        bench.link(1, LinkEvent::PushFailed(refused(RefusalReason::WrongEpoch))),
        [Effect::Disconnect(LinkId(1))]
    );
}

#[test]
fn a_push_without_an_answer_ends_the_connection() {
    let mut bench = Bench::following(start());
    bench.give(Event::LocalEdits(outbox(true, 11)));
    assert_eq!(bench.tick(), [Effect::Disconnect(LinkId(1))]);
    assert_eq!(offline(bench.state()), Some(Trouble::TimedOut));
    let mut bench = Bench::following(start());
    assert_eq!(bench.link(1, answer(11)), [Effect::Disconnect(LinkId(1))]);
}

#[test]
fn every_greeting_is_judged() {
    let spoil = |spoil: fn(&mut Greeting)| {
        let mut greeting = greeting(1, 60);
        spoil(&mut greeting);
        greeting
    };
    let sibling = Epoch { number: 1, nonce: [99; 16] };
    let table = [
        (spoil(|greeting| greeting.protocol = 9), Err(Trouble::Protocol)),
        (spoil(|greeting| greeting.lineage.clear()), Err(Trouble::Malformed)),
        (spoil(|greeting| greeting.epoch = epoch(2)), Err(Trouble::Malformed)),
        (spoil(|greeting| greeting.lineage[0].record.group = GroupId([8; 16])), Err(Trouble::Unrelated)),
        (spoil(|greeting| greeting.head = Sequence(49)), Err(Trouble::ServerRolledBack)),
        (
            Greeting { epoch: sibling, lineage: vec![record(sibling, None)], ..greeting(1, 60) },
            Err(Trouble::Forked { parent: 0 }),
        ),
        (greeting(1, 50), Ok(None)),
        (greeting(3, 300), Ok(Some(Revision { epoch: 1, sequence: Sequence(100) }))),
    ];
    for (greeting, verdict) in table {
        let facts = Facts::new(start()).unwrap();
        let judged = greet::judge(&facts, &greeting).map(|trusted| trusted.lost_beyond);
        assert_eq!(judged, verdict, "{greeting:?}");
    }
}

#[test]
fn a_new_reign_is_told_what_it_lacks() {
    let mut bench = Bench::new(start());
    let adopted = bench.greeted(greeting(2, 150));
    let [Effect::AdoptGreeting(adopt)] = &adopted[..] else { panic!("{adopted:?}") };
    let fork = Revision { epoch: 1, sequence: Sequence(100) };
    assert_eq!((adopt.lost_beyond, adopt.lineage.len()), (Some(fork), 2));
    let opened = bench.stored(Stored::GreetingAdopted(outbox(true, 10)));
    assert!(matches!(opened[..], [Effect::Follow(..), Effect::Push(..)]));
}

#[test]
fn a_superseded_server_is_left_for_another() {
    let mut bench = Bench::new(Start { lineage: lineage(2), followed: 2, ..start() });
    let refused = bench.greeted(greeting(1, 90));
    assert_eq!(refused, [Effect::Disconnect(LinkId(1)), dial(2, "b:1")]);
}

#[test]
fn what_is_known_of_the_groups_history_must_be_one() {
    let begin = |lineage| {
        Round::start(Start { lineage, followed: 9, ..start() }, At { now: Moment::default(), random: 0 })
    };
    let first = record(epoch(1), None);
    let second = record(epoch(2), Some((epoch(1), 100)));
    let pretender = record(epoch(3), Some((epoch(1), 100)));
    let fork = LineageError::Fork { parent: 1 };
    assert_eq!(begin(vec![first.clone(), second.clone(), pretender]).unwrap_err(), fork);
    let founded_twice = record(epoch(2), None);
    assert_eq!(begin(vec![first.clone(), founded_twice]).unwrap_err(), LineageError::Broken(2));
    let falling = record(epoch(3), Some((epoch(2), 90)));
    assert_eq!(begin(vec![first.clone(), second, falling]).unwrap_err(), LineageError::SequenceFalls(3));
    // A reign that was only shown: its server is waited for, and no other history is believed for that.
    let shown = record(epoch(5), Some((epoch(4), 400)));
    let mut bench = Bench::new(Start { lineage: vec![first, shown], ..start() });
    let foreign = Greeting { lineage: vec![record(epoch(5), None)], ..greeting(5, 500) };
    assert_eq!(bench.greeted(foreign), [Effect::Disconnect(LinkId(1)), dial(2, "b:1")]);
    bench.link(2, LinkEvent::Dialled);
    let whole = bench.link(2, LinkEvent::Greeted(Box::new(greeting(5, 500))));
    assert!(matches!(whole[..], [Effect::AdoptGreeting(_)]), "{whole:?}");
}

#[test]
fn the_proof_of_a_higher_reign_is_kept_and_shown() {
    let mut bench = Bench::new(start());
    bench.tick();
    bench.link(1, LinkEvent::Dialled);
    let refusal = Refusal {
        reason: RefusalReason::Superseded,
        text: String::new(),
        claim: Some(Claim::of(record(epoch(2), Some((epoch(1), 100))), &[], &[])),
    };
    let refused = Failure::Refused { refusal: Box::new(refusal), push_back: None };
    let noted = bench.link(1, LinkEvent::Failed(refused));
    assert!(matches!(noted[..], [Effect::NoteClaim(_), Effect::Disconnect(_), Effect::Dial { .. }]));
    let hello = bench.link(2, LinkEvent::Dialled);
    assert!(matches!(&hello[..], [Effect::Hello(_, hello)]
        if hello.claim.as_ref().is_some_and(|claim| claim.promotion.record.epoch == epoch(2))));
    let old = bench.link(2, LinkEvent::Greeted(Box::new(greeting(1, 60))));
    assert_eq!(old, [Effect::Disconnect(LinkId(2))]);
    assert_eq!(offline(bench.state()), Some(Trouble::Superseded));
}

#[test]
fn a_server_that_knows_operations_we_never_made_means_our_disk_went_back() {
    let mut bench = Bench::new(start());
    let ended = bench.greeted(Greeting { known_operation: OperationNumber(11), ..greeting(1, 60) });
    assert_eq!(ended, [Effect::Disconnect(LinkId(1))]);
    assert_eq!(bench.state(), LinkState::Ended(End::Quarantined));
    assert_eq!(bench.give(Event::LocalEdits(outbox(true, 12))), []);
}

#[test]
fn what_a_person_must_remove_is_tried_again_seldom() {
    for reason in [RefusalReason::UnknownDevice, RefusalReason::ProtocolVersion, RefusalReason::Capability] {
        let mut bench = Bench::new(start());
        bench.tick();
        let next = bench.link(1, LinkEvent::Failed(refused(reason)));
        assert_eq!(next.last(), Some(&dial(2, "b:1")));
        bench.link(2, LinkEvent::Failed(Failure::Transport));
        let LinkState::Refused { trouble, until } = bench.state() else { panic!("not refused") };
        assert_eq!(trouble, Trouble::Refused(reason));
        assert!(until >= bench.now.after(Timing::default().seldom));
        assert_eq!(bench.tick(), [dial(3, "a:1")]);
    }
}

#[test]
fn another_longest_wait_holds_for_the_pauses_that_come() {
    let (longest, mut bench) = (Duration::from_secs(600), Bench::new(start()));
    assert_eq!(bench.give(Event::LongestWait(longest)), []);
    bench.tick();
    bench.link(1, LinkEvent::Failed(refused(RefusalReason::Capability)));
    bench.link(2, LinkEvent::Failed(Failure::Transport));
    let LinkState::Refused { until, .. } = bench.state() else { panic!("not refused") };
    assert!(until >= bench.now.after(longest * 2));
    let shortest = Duration::from_millis(1);
    let mut bench = Bench::new(start());
    bench.give(Event::LongestWait(shortest));
    bench.tick();
    bench.link(1, LinkEvent::Failed(Failure::Transport));
    bench.link(2, LinkEvent::Failed(Failure::Transport));
    assert!(bench.wake.unwrap() <= bench.now.after(shortest));
}

#[test]
fn release_and_stop_are_final() {
    let mut bench = Bench::following(start());
    let released = bench.link(1, LinkEvent::Failed(refused(RefusalReason::Released)));
    assert_eq!(
        (released, bench.state()),
        (vec![Effect::Disconnect(LinkId(1))], LinkState::Ended(End::Released))
    );
    let mut bench = Bench::following(start());
    assert_eq!(bench.give(Event::Stop), [Effect::Disconnect(LinkId(1))]);
    assert_eq!(bench.state(), LinkState::Ended(End::Stopped));
    assert_eq!(bench.give(Event::Tick), []);
}

#[test]
fn the_stream_is_opened_only_when_nothing_earlier_is_being_stored() {
    let mut bench = Bench::following(start());
    bench.link(1, batch(1, 50, 60));
    bench.link(1, LinkEvent::Failed(Failure::Transport));
    bench.greeted(greeting(1, 60));
    assert_eq!(bench.stored(Stored::Applied(cursor(1, 60))), []);
    let opened = bench.stored(Stored::GreetingAdopted(outbox(false, 10)));
    assert!(matches!(opened[..], [Effect::Follow(_, follow)] if follow.cursor == Some(cursor(1, 60))));
}

#[test]
fn a_failing_disk_ends_the_connection_and_keeps_the_cursor() {
    let mut bench = Bench::following(start());
    bench.link(1, batch(1, 50, 60));
    assert_eq!(bench.stored(Stored::Failed), [Effect::Disconnect(LinkId(1))]);
    assert_eq!(offline(bench.state()), Some(Trouble::StorageFailed));
    bench.greeted(greeting(1, 60));
    let opened = bench.stored(Stored::GreetingAdopted(outbox(false, 10)));
    assert!(matches!(opened[..], [Effect::Follow(_, follow)] if follow.cursor == Some(cursor(1, 50))));
}

#[test]
fn what_comes_late_from_an_earlier_connection_is_ignored() {
    let mut bench = Bench::new(start());
    bench.tick();
    bench.link(1, LinkEvent::Failed(Failure::Transport));
    assert_eq!(bench.link(1, LinkEvent::Dialled), []);
    assert_eq!(bench.link(2, LinkEvent::Dialled).len(), 1);
}
