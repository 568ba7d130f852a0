//! Every message survives the way there and back, and nothing malformed comes through the door.

use mfpsync_proto::sync::follow_event::Event;
use mfpsync_storage::model::{
    Capabilities, ChangeBatch, DeviceId, EditOutcome, OperationNumber, Outcome, Promotion, PromotionReason,
    PublicKey, RejectReason, Revision,
};

use super::*;
use crate::message::*;

const GROUP: GroupId = GroupId([7; 16]);
const EPOCH: Epoch = Epoch { number: 3, nonce: [3; 16] };

/// What is done to a message, and what the door says then.
type Spoilt<T> = (fn(&mut T), WireError);

fn signed<T>(record: T, body: Vec<u8>) -> Signed<T> {
    Signed { record, body, signature: [9; 64] }
}

fn promotion() -> Signed<Promotion> {
    let record = Promotion {
        group: GROUP,
        epoch: EPOCH,
        parent: None,
        ends: Vec::new(),
        device: DeviceId([1; 16]),
        operator: "admin".to_owned(),
        reason: PromotionReason::Founded,
        made_at: 1,
    };
    let body = record.body();
    signed(record, body)
}

fn member() -> Signed<Member> {
    let record = Member {
        group: GROUP,
        device: DeviceId([1; 16]),
        public_key: PublicKey([2; 32]),
        name: "copier".to_owned(),
        capabilities: Capabilities::CLIENT,
        released: false,
        version: 1,
        endpoints: vec!["mfp.example.com:7400".to_owned()],
        issuer: DeviceId([1; 16]),
    };
    let body = record.body();
    signed(record, body)
}

fn issuer() -> Signed<IssuingCertificate> {
    let record =
        IssuingCertificate { group: GROUP, device: DeviceId([1; 16]), public_key: PublicKey([2; 32]) };
    let body = record.body();
    signed(record, body)
}

fn hello() -> Hello {
    Hello {
        protocol_min: 1,
        protocol_max: 2,
        group: GROUP,
        incarnation: Incarnation(5),
        claim: Some(Claim::of(promotion(), &[issuer()], &[])),
        last_operation: OperationNumber(8),
        endpoints: vec!["mfp.example.com:7400".to_owned()],
        issuing_key: Some(PublicKey([4; 32])),
        version: "0.1.0".to_owned(),
    }
}

fn greeting() -> Greeting {
    Greeting {
        protocol: 1,
        epoch: EPOCH,
        head: Sequence(100),
        safe: Some(Sequence(90)),
        limits: Limits { push_operations: 10, ..Limits::default() },
        lineage: vec![promotion()],
        members: vec![member()],
        issuers: vec![issuer()],
        known_operation: OperationNumber(7),
        confirmed_operation: OperationNumber(5),
        group_name: "office".to_owned(),
    }
}

fn here(sequence: u64) -> Cursor {
    Cursor { group: GROUP, epoch: EPOCH, sequence: Sequence(sequence), chain: Chain([4; 32]) }
}

fn push() -> Push {
    Push {
        group: GROUP,
        incarnation: Incarnation(5),
        epoch: EPOCH,
        low_water: OperationNumber(2),
        operations: vec![vec![1, 2], vec![3]],
    }
}

fn batch(changes: Vec<u8>, count: u32, cursor: Cursor) -> Result<Option<FollowEvent>, WireError> {
    follow_event_from_wire(batch_to_wire(Sequence(4), changes.into(), count, &cursor))
}

#[test]
fn hello_and_greeting_come_back_as_they_were() {
    assert_eq!(hello_from_wire(hello_to_wire(&hello())), Ok(hello()));
    let bare = Hello { claim: None, ..hello() };
    assert_eq!(hello_from_wire(hello_to_wire(&bare)), Ok(bare));
    assert_eq!(greeting_from_wire(greeting_to_wire(&greeting())), Ok(greeting()));
}

#[test]
fn follow_messages_come_back_as_they_were() {
    for cursor in [None, Some(here(5))] {
        let follow = Follow { group: GROUP, incarnation: Incarnation(5), cursor, settled: true };
        assert_eq!(follow_from_wire(follow_to_wire(&follow)), Ok(follow));
    }
    let reasons =
        [ResetReason::NoCursor, ResetReason::UnknownHistory, ResetReason::PastFork, ResetReason::TooOld];
    for reason in reasons {
        assert_eq!(follow_event_from_wire(reset_to_wire(reason)), Ok(Some(FollowEvent::Reset(reason))));
    }
    let caught_up = FollowEvent::CaughtUp { cursor: here(5), safe: None };
    assert_eq!(follow_event_from_wire(caught_up_to_wire(&here(5), None)), Ok(Some(caught_up)));
    let heartbeat = FollowEvent::Heartbeat { head: Sequence(6), safe: Some(Sequence(5)) };
    assert_eq!(
        follow_event_from_wire(heartbeat_to_wire(Sequence(6), Some(Sequence(5)))),
        Ok(Some(heartbeat))
    );
    let membership = FollowEvent::Membership { members: vec![member()], issuers: vec![issuer()] };
    assert_eq!(follow_event_from_wire(membership_to_wire(&[member()], &[issuer()])), Ok(Some(membership)));
    let empty = FollowEvent::Batch { previous: Sequence(4), changes: vec![], cursor: here(9) };
    assert_eq!(batch(ChangeBatch::default().finish(), 0, here(9)), Ok(Some(empty)));
}

#[test]
fn pushes_and_answers_come_back_as_they_were() {
    assert_eq!(push_from_wire(push_to_wire(push())), Ok(push()));
    let leave = Leave { group: GROUP, incarnation: Incarnation(5) };
    assert_eq!(leave_from_wire(&leave_to_wire(&leave)), Ok(leave));
    let revision = Revision { epoch: 3, sequence: Sequence(8) };
    let answer = PushAnswer {
        outcomes: vec![
            (OperationNumber(3), Outcome::Accepted { revision, edits: vec![EditOutcome::Applied] }),
            (OperationNumber(4), Outcome::Rejected { reason: RejectReason::OverLimit, edit: 0 }),
        ],
        head: Sequence(8),
        safe: None,
    };
    let sent = [OperationNumber(3), OperationNumber(4)];
    assert_eq!(push_answer_from_wire(push_answer_to_wire(&answer), &sent), Ok(answer.clone()));
    for sent in [&sent[..1], &[OperationNumber(4), OperationNumber(3)]] {
        let other = push_answer_from_wire(push_answer_to_wire(&answer), sent);
        assert!(matches!(other, Err(WireError::Contradiction(_))));
    }
}

#[test]
fn every_refusal_comes_back_as_it_was() {
    for number in 0..=19 {
        let wire = sync::Refusal { reason: number, text: "no".to_owned(), claim: None };
        let refusal = refusal_from_wire(&wire).unwrap();
        assert_eq!(refusal_to_wire(&refusal), wire);
        assert_eq!(number == 0, refusal.reason == RefusalReason::Unspecified);
    }
    let claim = Some(Claim::of(promotion(), &[], &[member()]));
    let proof = Refusal { reason: RefusalReason::Superseded, text: String::new(), claim };
    assert_eq!(refusal_from_wire(&refusal_to_wire(&proof)), Ok(proof));
    let newer = sync::Refusal { reason: 999, text: "a\nb".repeat(100), claim: None };
    let newer = refusal_from_wire(&newer).unwrap();
    assert_eq!((newer.reason, newer.text), (RefusalReason::Unspecified, "ab".repeat(100)));
}

#[test]
fn a_malformed_hello_is_refused() {
    let table: [Spoilt<sync::HelloRequest>; 7] = [
        (|hello| hello.protocol_min = 0, WireError::Invalid("protocol range")),
        (|hello| hello.protocol_min = 3, WireError::Invalid("protocol range")),
        (|hello| hello.group_id = Bytes::new(), WireError::Invalid("group id")),
        (|hello| hello.incarnation = 0, WireError::Missing("incarnation")),
        (|hello| hello.last_operation = u64::MAX, WireError::Invalid("last operation")),
        (|hello| hello.endpoints = vec![String::new(); 17], WireError::OverLimit("endpoints")),
        (|hello| hello.version = "a\n".to_owned(), WireError::Invalid("version")),
    ];
    for (spoil, error) in table {
        let mut wire = hello_to_wire(&hello());
        spoil(&mut wire);
        assert_eq!(hello_from_wire(wire), Err(error));
    }
    let mut wire = hello_to_wire(&hello());
    wire.claim = Some(sync::Claim { promotion: Bytes::from_static(b"MFPP"), ..sync::Claim::default() });
    assert!(matches!(hello_from_wire(wire), Err(WireError::Record { what: "promotion", .. })));
}

#[test]
fn a_malformed_greeting_is_refused() {
    let table: [Spoilt<sync::HelloReply>; 5] = [
        (|reply| reply.protocol = 0, WireError::Missing("protocol")),
        (|reply| reply.epoch = None, WireError::Missing("epoch")),
        (|reply| reply.epoch.as_mut().unwrap().number = 0, WireError::Invalid("epoch number")),
        (|reply| reply.epoch.as_mut().unwrap().nonce.truncate(3), WireError::Invalid("epoch nonce")),
        (|reply| reply.head_sequence = u64::MAX, WireError::Invalid("sequence")),
    ];
    for (spoil, error) in table {
        let mut wire = greeting_to_wire(&greeting());
        spoil(&mut wire);
        assert_eq!(greeting_from_wire(wire), Err(error));
    }
}

#[test]
fn absent_limits_mean_the_defaults() {
    let mut wire = greeting_to_wire(&greeting());
    wire.limits = None;
    assert_eq!(greeting_from_wire(wire).unwrap().limits, Limits::default());
    let mut wire = greeting_to_wire(&greeting());
    wire.limits = Some(sync::Limits { push_bytes: 5, ..Default::default() });
    assert_eq!(greeting_from_wire(wire).unwrap().limits, Limits { push_bytes: 5, ..Limits::default() });
}

#[test]
fn an_event_of_a_newer_server_is_skipped() {
    // A field no event has today is dropped in decoding, which leaves none.
    assert_eq!(follow_event_from_wire(sync::FollowEvent { event: None }), Ok(None));
}

#[test]
fn an_answer_with_a_reason_of_a_newer_server_is_taken() {
    let reason = RejectReason::Unknown(200);
    let outcomes = vec![(OperationNumber(4), Outcome::Rejected { reason, edit: 0 })];
    let answer = PushAnswer { outcomes, head: Sequence(8), safe: None };
    let read = push_answer_from_wire(push_answer_to_wire(&answer), &[OperationNumber(4)]);
    assert_eq!(read, Ok(answer));
}

#[test]
fn a_cursor_with_a_filter_is_refused() {
    let of = |length: usize| {
        let mut wire = cursor_to_wire(&here(5));
        wire.filter = vec![1; length].into();
        cursor(Some(wire))
    };
    assert_eq!(of(0), Ok(here(5)));
    for length in [1, 255] {
        assert_eq!(of(length), Err(WireError::Invalid("filter of cursor")));
    }
    assert_eq!(of(256), Err(WireError::OverLimit("filter of cursor")));
}

#[test]
fn a_malformed_stream_is_refused() {
    let miscounted = batch(ChangeBatch::default().finish(), 1, here(9));
    assert!(matches!(miscounted, Err(WireError::Contradiction(_))));
    assert!(matches!(batch(b"nonsense".to_vec(), 0, here(9)), Err(WireError::Record { what: "batch", .. })));
    let caught_up = sync::CaughtUp { cursor: None, safe_sequence: None };
    let caught_up = sync::FollowEvent { event: Some(Event::CaughtUp(caught_up)) };
    assert_eq!(follow_event_from_wire(caught_up), Err(WireError::Missing("cursor")));
    let foreign = Follow {
        group: GroupId([8; 16]),
        incarnation: Incarnation(5),
        cursor: Some(here(1)),
        settled: false,
    };
    assert!(matches!(follow_from_wire(follow_to_wire(&foreign)), Err(WireError::Contradiction(_))));
}

#[test]
fn a_push_over_the_limits_is_refused() {
    let of = |operations| push_from_wire(push_to_wire(Push { operations, ..push() }));
    assert_eq!(of(vec![]), Err(WireError::Missing("operations")));
    assert_eq!(of(vec![vec![0]; 201]), Err(WireError::OverLimit("push")));
    assert_eq!(of(vec![vec![0; 1 << 19]; 3]), Err(WireError::OverLimit("push")));
    assert!(of(vec![vec![0; 1 << 20]]).is_ok());
}
