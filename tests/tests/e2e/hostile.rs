//! A member that does not keep to the protocol: its real key, and everything else wrong.

use std::time::Duration;

use mfpsync_daemon::identity::Identity;
use mfpsync_daemon::keystore::FileKeyStore;
use mfpsync_daemon::net::dial::dial;
use mfpsync_daemon::refusal::reason_of;
use mfpsync_daemon::tls::ClientTls;
use mfpsync_proto::limit;
use mfpsync_proto::sync::follow_event::Event as Happened;
use mfpsync_proto::sync::sync_client::SyncClient;
use mfpsync_proto::sync::{
    Cursor, Epoch, FollowRequest, HelloReply, HelloRequest, PushReply, PushRequest, Reason, ResetReason,
};
use mfpsync_storage::Inline;
use mfpsync_storage::local::Local;
use mfpsync_storage::model::{
    Action, Base, Edit, EditOutcome, Fields, ItemKey, Operation, OperationNumber, Outcome, RejectReason,
    Value,
};
use mfpsync_tests::{Fleet, PATIENCE, current, item};
use ring::rand::SystemRandom;
use tonic::transport::Channel;
use tonic::{Code, Status};

const DEADLINE: Duration = Duration::from_secs(10);

/// A stopped client's identity in the hands of a test.
struct Member {
    fleet: Fleet,
    wire: SyncClient<Channel>,
    group: Vec<u8>,
    incarnation: u64,
    epoch: Epoch,
    last: u64,
}

impl Member {
    async fn connected() -> Self {
        let mut fleet = Fleet::start(2).await.unwrap();
        fleet.clients[0].stop().await.unwrap();
        let own = Inline::<Local>::open(&fleet.clients[0].own_database(), false).unwrap();
        let (device, membership) = own.read(|read| Ok((read.device()?, read.membership()?))).unwrap();
        drop(own);
        let identity = |device: &mfpsync_tests::TestDevice| {
            let store = FileKeyStore::open(device.data_dir().join("keys")).unwrap();
            Identity::load_or_create(&store, &SystemRandom::new()).unwrap()
        };
        let tls =
            ClientTls::sync(&identity(&fleet.clients[0]), identity(&fleet.server).public_key()).unwrap();
        let channel = dial(&fleet.server.address().to_string(), &tls, DEADLINE).await.unwrap();
        let mut member = Self {
            wire: SyncClient::new(channel).max_encoding_message_size(64 << 20),
            group: membership.unwrap().group.0.to_vec(),
            incarnation: device.incarnation.0,
            epoch: Epoch::default(),
            last: 0,
            fleet,
        };
        let greeting = member.hello(1, 1).await.unwrap();
        member.epoch = greeting.epoch.unwrap();
        member.last = greeting.known_operation.max(device.last_operation.0);
        member
    }

    async fn hello(&mut self, protocol_min: u32, protocol_max: u32) -> Result<HelloReply, Status> {
        let request = HelloRequest {
            protocol_min,
            protocol_max,
            group_id: self.group.clone().into(),
            incarnation: self.incarnation,
            last_operation: self.last,
            version: "hostile".to_owned(),
            ..HelloRequest::default()
        };
        Ok(self.wire.hello(request).await?.into_inner())
    }

    async fn push(&mut self, operations: Vec<Vec<u8>>) -> Result<PushReply, Status> {
        let request = PushRequest {
            group_id: self.group.clone().into(),
            incarnation: self.incarnation,
            epoch: Some(self.epoch.clone()),
            low_water: 0,
            operations: operations.into_iter().map(Into::into).collect(),
        };
        Ok(self.wire.push(request).await?.into_inner())
    }

    async fn head(&mut self) -> u64 {
        self.hello(1, 1).await.unwrap().head_sequence
    }

    /// The server still serves others, and nothing unexpected is in its data.
    async fn nothing_happened(mut self, head: u64, items: usize) {
        assert_eq!(self.head().await, head);
        current(&self.fleet.clients[1]).await.unwrap();
        let entry = item::key("shared", "shortcut", "afterwards");
        self.fleet.clients[1].write(vec![item::put(entry, vec![item::text("value", "x")])]).await.unwrap();
        self.fleet.clients.remove(0);
        let contents = self.fleet.converged(&["shared"], PATIENCE).await.unwrap();
        assert_eq!(contents.len(), items + 1);
    }
}

fn operation(number: u64, id: &str) -> Vec<u8> {
    let mut fields = Fields::new();
    fields.insert("value", Value::Text(id.to_owned()));
    let edit = Edit {
        key: ItemKey::parse("shared", "shortcut", "", id).unwrap(),
        base: Base::default(),
        action: Action::Put(fields),
    };
    let number = OperationNumber(number);
    Operation { number, made_at: 0, actor: "alice".to_owned(), yields: false, was: None, edits: vec![edit] }
        .encode()
}

fn outcomes(reply: &PushReply) -> Vec<Outcome> {
    reply.outcomes.iter().map(|outcome| Outcome::decode(&outcome.record).unwrap()).collect()
}

fn reason(status: &Status) -> Option<Reason> {
    reason_of(status).map(|refusal| refusal.reason())
}

#[tokio::test]
async fn a_newer_protocol_is_refused_with_both_ranges() {
    let mut member = Member::connected().await;
    let head = member.head().await;
    let refused = member.hello(7, 9).await.unwrap_err();
    assert_eq!(reason(&refused), Some(Reason::ProtocolVersion), "{refused}");
    assert!(refused.message().contains("7 to 9"), "{}", refused.message());
    assert_eq!(member.hello(1, 9).await.unwrap().protocol, 1, "a common version is chosen");
    member.nothing_happened(head, 0).await;
}

#[tokio::test]
async fn another_group_or_epoch_is_refused() {
    let mut member = Member::connected().await;
    let head = member.head().await;
    let (group, epoch) = (member.group.clone(), member.epoch.clone());
    member.group = vec![7; 16];
    assert_eq!(reason(&member.hello(1, 1).await.unwrap_err()), Some(Reason::WrongGroup));
    let refused = member.push(vec![operation(member.last + 1, "x")]).await.unwrap_err();
    assert_eq!(reason(&refused), Some(Reason::WrongGroup));
    member.group = group;
    member.epoch.number += 1;
    let refused = member.push(vec![operation(member.last + 1, "x")]).await.unwrap_err();
    assert_eq!(reason(&refused), Some(Reason::WrongEpoch));
    member.epoch = epoch;
    member.nothing_happened(head, 0).await;
}

/// Proves I-03.
#[tokio::test]
async fn a_repeated_operation_gets_its_first_answer_and_happens_once() {
    let mut member = Member::connected().await;
    let record = operation(member.last + 1, "once");
    let first = member.push(vec![record.clone()]).await.unwrap();
    assert!(
        matches!(&outcomes(&first)[..], [Outcome::Accepted { edits, .. }] if edits == &[EditOutcome::Applied])
    );
    let head = member.head().await;
    for _ in 0..3 {
        let again = member.push(vec![record.clone()]).await.unwrap();
        assert_eq!(again.outcomes, first.outcomes);
    }
    // The same again, together with one that is new.
    let both = member.push(vec![record, operation(member.last + 2, "twice")]).await.unwrap();
    assert_eq!(both.outcomes[0], first.outcomes[0]);
    member.nothing_happened(head + 1, 2).await;
}

#[tokio::test]
async fn a_number_used_again_for_something_else_is_not_taken() {
    let mut member = Member::connected().await;
    member.fleet.server.log.expect("quarantine");
    let number = member.last + 1;
    member.push(vec![operation(number, "first")]).await.unwrap();
    let refused = member.push(vec![operation(number, "other")]).await.unwrap_err();
    assert_eq!(reason(&refused), Some(Reason::Quarantined), "{refused}");
    let refused = member.hello(1, 1).await.unwrap_err();
    assert_eq!(reason(&refused), Some(Reason::Quarantined), "until a person decides: {refused}");
    let contents = member.fleet.server.contents(&["shared"]).await.unwrap();
    assert!(contents.item(&item::key("shared", "shortcut", "other")).is_none());
    current(&member.fleet.clients[1]).await.unwrap();
}

#[tokio::test]
async fn operations_out_of_order_are_refused_as_a_whole() {
    let mut member = Member::connected().await;
    let (head, next) = (member.head().await, member.last + 1);
    for numbers in [vec![next + 5], vec![next, next + 2], vec![next + 1, next], vec![next, next]] {
        let records = numbers.iter().map(|number| operation(*number, &format!("n{number}"))).collect();
        let refused = member.push(records).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{numbers:?}: {refused}");
        assert_eq!(reason(&refused), Some(Reason::Malformed), "{numbers:?}: {refused}");
    }
    member.nothing_happened(head, 0).await;
}

#[tokio::test]
async fn malformed_operations_are_refused_or_set_aside_and_block_nothing() {
    let mut member = Member::connected().await;
    let next = member.last + 1;
    for garbage in [vec![], b"garbage".to_vec(), vec![0xff; 4_096], b"MFPO".to_vec()] {
        let refused = member.push(vec![garbage]).await.unwrap_err();
        assert_eq!(reason(&refused), Some(Reason::Malformed), "{refused}");
    }
    // Its number can be read and the rest cannot: it is set aside and the next one is taken.
    let whole = operation(next, "cut");
    let cut = whole[..whole.len() - 3].to_vec();
    let reply = member.push(vec![cut, operation(next + 1, "whole")]).await.unwrap();
    let [Outcome::Rejected { reason: why, .. }, Outcome::Accepted { .. }] = &outcomes(&reply)[..] else {
        panic!("{:?}", outcomes(&reply));
    };
    assert_eq!(*why, RejectReason::Malformed);
    let head = member.head().await;
    member.nothing_happened(head, 1).await;
}

/// Proves I-29.
#[tokio::test]
async fn what_is_too_large_or_too_much_is_refused() {
    let mut member = Member::connected().await;
    let (head, next) = (member.head().await, member.last + 1);
    let refused = member.push(vec![vec![0; limit::MESSAGE_BYTES + 1]]).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    let many = limit::PUSH_OPERATIONS as u64 + 1;
    let records = (next..next + many).map(|number| operation(number, "many")).collect();
    let refused = member.push(records).await.unwrap_err();
    assert_eq!(reason(&refused), Some(Reason::Malformed), "{refused}");
    assert!(refused.message().contains("push"), "{refused}");
    member.nothing_happened(head, 0).await;
}

#[tokio::test]
async fn an_item_over_its_limits_is_set_aside() {
    let mut member = Member::connected().await;
    let first = member.last + 1;
    let with = |number: u64, name: &str, length: usize| {
        let fields: Fields = [(name.to_owned(), Value::Text("x".repeat(length)))].into_iter().collect();
        let key = ItemKey::parse("shared", "shortcut", "", "large").unwrap();
        let edit =
            Edit { key, base: Base::default(), action: Action::Patch { set: fields, remove: Vec::new() } };
        let number = OperationNumber(first + number);
        Operation {
            number,
            made_at: 0,
            actor: "alice".to_owned(),
            yields: false,
            was: None,
            edits: vec![edit],
        }
        .encode()
    };
    // No item may be as large as this edit, and none as large as the two that follow are together.
    let reply =
        member.push(vec![with(0, "a", 70_000), with(1, "b", 40_000), with(2, "c", 40_000)]).await.unwrap();
    let rejected = |reason| Outcome::Rejected { reason, edit: 0 };
    let [whole, Outcome::Accepted { .. }, together] = &outcomes(&reply)[..] else {
        panic!("{:?}", outcomes(&reply));
    };
    assert_eq!(whole, &rejected(RejectReason::Malformed));
    assert_eq!(together, &rejected(RejectReason::OverLimit));
    let head = member.head().await;
    member.nothing_happened(head, 1).await;
}

#[tokio::test]
async fn a_cursor_nobody_gave_out_is_answered_with_everything_or_refused_for_what_it_is() {
    let mut member = Member::connected().await;
    // A cursor beyond the head, or another chain at one before it, is what a server sees whose own disk was put back.
    member.fleet.server.log.expect("F-ROLLED-BACK");
    let head = member.head().await;
    let cursor = |sequence, chain: Vec<u8>| Cursor {
        group_id: member.group.clone().into(),
        epoch: Some(member.epoch.clone()),
        sequence,
        chain: chain.into(),
        filter: Vec::new().into(),
    };
    let follow = |cursor| FollowRequest {
        group_id: member.group.clone().into(),
        incarnation: member.incarnation,
        cursor: Some(cursor),
        settled: true,
    };
    let nobodys = Epoch { nonce: vec![9; 16].into(), ..member.epoch.clone() };
    let unknown = follow(Cursor { epoch: Some(nobodys), ..cursor(head, vec![9; 32]) });
    let other = follow(cursor(head, vec![9; 32]));
    let garbled = follow(cursor(head, vec![9; 3]));
    let beyond = follow(cursor(head + 1_000, vec![9; 32]));
    let first = member.wire.follow(unknown).await.unwrap().into_inner().message().await.unwrap().unwrap();
    let Some(Happened::Reset(reset)) = first.event else { panic!("{first:?}") };
    assert_eq!(reset.reason(), ResetReason::UnknownHistory);
    let refused =
        [(garbled, Reason::Malformed), (beyond, Reason::StorageFault), (other, Reason::StorageFault)];
    for (request, expected) in refused {
        let refused = member.wire.follow(request).await.unwrap_err();
        assert_eq!(reason(&refused), Some(expected), "{refused}");
    }
    member.nothing_happened(head, 0).await;
}
