//! What devices send and store: a record has one encoding, a message is taken or refused.
//!
//! The first byte says which of them the rest is.

use mfpsync_proto::sync;
use mfpsync_replication::wire;
use mfpsync_storage::codec::DecodeError;
use mfpsync_storage::model::{
    ChangeBatch, Cursor, FieldSequences, Fields, IssuingCertificate, Member, Operation, Outcome, Promotion,
    Signed,
};
use prost::Message;

use super::{file, root};

type Take = fn(&[u8]) -> bool;

/// Records, each with the golden file it begins with.
const RECORDS: [(&str, Take); 9] = [
    ("fields", |bytes| same(bytes, Fields::decode(bytes), Fields::encode)),
    ("field-sequences", |bytes| same(bytes, FieldSequences::decode(bytes), FieldSequences::encode)),
    ("operation", |bytes| same(bytes, Operation::decode(bytes), Operation::encode)),
    ("outcome-accepted", |bytes| same(bytes, Outcome::decode(bytes), Outcome::encode)),
    ("cursor", |bytes| same(bytes, Cursor::decode(bytes), Cursor::encode)),
    ("batch", |bytes| ChangeBatch::decode(bytes).is_ok()),
    ("member", |bytes| same(bytes, Member::decode(bytes), Signed::encode)),
    ("promotion", |bytes| same(bytes, Promotion::decode(bytes), Signed::encode)),
    ("issuing-certificate", |bytes| same(bytes, IssuingCertificate::decode(bytes), Signed::encode)),
];

/// Messages from another device, up to the door that checks them.
const MESSAGES: [Take; 7] = [
    |bytes| sync::HelloRequest::decode(bytes).is_ok_and(|message| wire::hello_from_wire(message).is_ok()),
    |bytes| sync::HelloReply::decode(bytes).is_ok_and(|message| wire::greeting_from_wire(message).is_ok()),
    |bytes| sync::FollowRequest::decode(bytes).is_ok_and(|message| wire::follow_from_wire(message).is_ok()),
    |bytes| {
        sync::FollowEvent::decode(bytes).is_ok_and(|message| wire::follow_event_from_wire(message).is_ok())
    },
    |bytes| sync::PushRequest::decode(bytes).is_ok_and(|message| wire::push_from_wire(message).is_ok()),
    |bytes| sync::LeaveRequest::decode(bytes).is_ok_and(|message| wire::leave_from_wire(&message).is_ok()),
    |bytes| sync::Refusal::decode(bytes).is_ok_and(|message| wire::refusal_from_wire(&message).is_ok()),
];

pub(super) fn record(bytes: &[u8]) -> bool {
    let Some((which, bytes)) = bytes.split_first() else { return false };
    RECORDS.get(usize::from(*which)).is_some_and(|(_, take)| take(bytes))
}

pub(super) fn message(bytes: &[u8]) -> bool {
    let Some((which, bytes)) = bytes.split_first() else { return false };
    MESSAGES.get(usize::from(*which)).is_some_and(|take| take(bytes))
}

/// Whatever is taken is what would be written: no value has two encodings.
fn same<T>(bytes: &[u8], decoded: Result<T, DecodeError>, encode: impl Fn(&T) -> Vec<u8>) -> bool {
    decoded.is_ok_and(|value| {
        assert_eq!(encode(&value), bytes);
        true
    })
}

pub(super) fn record_samples() -> Vec<Vec<u8>> {
    let golden = |name: &str| {
        let text = file(&root().join(format!("storage/tests/golden/{name}-v1.hex")));
        let digits: Vec<u8> = text.into_iter().filter(u8::is_ascii_hexdigit).collect();
        data_encoding::HEXLOWER.decode(&digits).unwrap()
    };
    (0..).zip(RECORDS).map(|(which, (name, _))| [vec![which], golden(name)].concat()).collect()
}

pub(super) fn message_samples() -> Vec<Vec<u8>> {
    let cursor = sync::Cursor {
        group_id: vec![7; 16].into(),
        epoch: Some(sync::Epoch { number: 1, nonce: vec![9; 16].into() }),
        sequence: 5,
        chain: vec![6; 32].into(),
        ..sync::Cursor::default()
    };
    let follow = sync::FollowRequest { cursor: Some(cursor), ..sync::FollowRequest::default() };
    let refusal = sync::Refusal { reason: 1, ..sync::Refusal::default() };
    let leave = sync::LeaveRequest::default().encode_to_vec();
    let follow = follow.encode_to_vec();
    // A message in the place of another is a mutation too.
    (0..7)
        .flat_map(|which| {
            [follow.clone(), refusal.encode_to_vec(), leave.clone()].map(|one| [vec![which], one].concat())
        })
        .collect()
}
