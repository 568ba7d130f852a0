//! Frozen bytes: every record and both schemas are what released devices hold. A difference here is
//! a change of format: raise the version, keep the old file, amend `docs/formats.md`.
//!
//! `MFPSYNC_GOLDEN=write` writes files that are missing; existing ones are never replaced.

use mfpsync_storage::codec::{DecodeError, Encoder};
use mfpsync_storage::local::Local;
use mfpsync_storage::master::Master;
use mfpsync_storage::model::{
    Action, Base, Capabilities, Chain, ChangeBatch, Cursor, DeviceId, Edit, EditOutcome, Epoch,
    FieldSequences, Fields, IssuingCertificate, ItemKey, Member, Operation, OperationNumber, Outcome, Parent,
    Promotion, PromotionReason, PublicKey, RejectReason, Revision, Sealed, Sequence, Value,
};
use mfpsync_storage::physical::{LogId, PageDigest, Position};
use mfpsync_storage::{Database, Inline};

use crate::frozen::{frozen, hex, record};
use crate::support::{EPOCH, GROUP, Server, founding, key, removal, signed, write};

/// A value of every type, the unknown one included.
pub(crate) fn every_value() -> Fields {
    [
        ("bytes", Value::Bytes(vec![0, 1, 0xff])),
        ("flag", Value::Flag(true)),
        ("integer-large", Value::Integer(i64::MAX)),
        ("integer-negative", Value::Integer(-3)),
        ("integer-small", Value::Integer(i64::MIN)),
        ("opaque", Value::Opaque { type_number: 300, payload: vec![1, 2, 3] }),
        ("sealed", Value::Sealed(Sealed { key_id: vec![1, 2], sealed: vec![9; 12] })),
        ("set", Value::Set(["fax", "mail"].map(str::to_owned).into())),
        ("text", Value::Text("\u{8a00}\u{8a9e}".to_owned())),
    ]
    .into_iter()
    .collect()
}

pub(crate) fn operation() -> Operation {
    let edit = |id: &str, after, action| Edit {
        key: ItemKey::parse("user/sato", "address.personal", "mfp3", id).unwrap(),
        base: Base { revision: Revision { epoch: 2, sequence: Sequence(300) }, after },
        action,
    };
    let remove = vec!["fax".to_owned(), "mail".to_owned()];
    Operation {
        number: OperationNumber(200),
        made_at: 1_700_000_000_000,
        actor: "sato".to_owned(),
        yields: true,
        was: Some(Sequence(300)),
        edits: vec![
            edit("1", None, Action::Put(every_value())),
            edit(
                "2",
                Some(OperationNumber(199)),
                Action::Patch { set: crate::support::fields(&[("x", "1")]), remove },
            ),
            edit("3", None, Action::Delete),
        ],
    }
}

pub(crate) fn outcomes() -> [Outcome; 2] {
    let by = Revision { epoch: 2, sequence: Sequence(129) };
    let names = vec!["mail".to_owned()];
    let edits = vec![
        EditOutcome::Applied,
        EditOutcome::Merged { fields: names.clone() },
        EditOutcome::Superseded { by, fields: names },
        EditOutcome::Unchanged,
    ];
    [
        Outcome::Accepted { revision: Revision { epoch: 3, sequence: Sequence(130) }, edits },
        Outcome::Rejected { reason: RejectReason::NotSealed, edit: 2 },
    ]
}

pub(crate) fn full_cursor() -> Cursor {
    Cursor { group: GROUP, epoch: EPOCH, sequence: Sequence(1_000_000), chain: Chain([6; 32]) }
}

pub(crate) fn promotion() -> Promotion {
    let parent = Parent {
        epoch: EPOCH,
        sequence: Sequence(1_000),
        chain: Chain([6; 32]),
        transaction: 77,
        page_digest: [8; 16],
    };
    Promotion {
        group: GROUP,
        epoch: Epoch { number: 2, nonce: [10; 16] },
        parent: Some(parent),
        ends: vec![Epoch { number: 1, nonce: [11; 16] }],
        device: DeviceId([2; 16]),
        operator: "admin".to_owned(),
        reason: PromotionReason::Transferred,
        made_at: 1_700_000_000_000,
    }
}

pub(crate) fn member() -> Member {
    Member {
        group: GROUP,
        device: DeviceId([2; 16]),
        public_key: PublicKey([4; 32]),
        name: "\u{4e09}\u{968e}".to_owned(),
        capabilities: Capabilities::CLIENT.with(Capabilities::ADMINISTER),
        released: true,
        version: 3,
        endpoints: vec!["mfp3.example.com:7420".to_owned(), "[2001:db8::3]:7420".to_owned()],
        issuer: DeviceId([1; 16]),
    }
}

pub(crate) fn batch() -> Vec<u8> {
    let mut server = Server::founded();
    let mut all = write("every", &[]);
    all.fields = every_value();
    server.accept(1, &[all, write("a", &[("x", "1")])]);
    server.accept(2, &[removal("gone")]);
    server.0.read(|read| read.changes_after(Sequence::ZERO, 1 << 20)).unwrap().batch.finish()
}

#[test]
fn fields_are_frozen() {
    record("fields-v1.hex", &every_value(), &every_value().encode(), Fields::decode);
    record("fields-empty-v1.hex", &Fields::new(), &Fields::new().encode(), Fields::decode);
    let mut sequences = FieldSequences::default();
    sequences.set("mail", Sequence(300));
    sequences.set("fax", Sequence(1));
    record("field-sequences-v1.hex", &sequences, &sequences.encode(), FieldSequences::decode);
}

#[test]
fn operations_and_outcomes_are_frozen() {
    record("operation-v1.hex", &operation(), &operation().encode(), Operation::decode);
    let [accepted, rejected] = outcomes();
    record("outcome-accepted-v1.hex", &accepted, &accepted.encode(), Outcome::decode);
    record("outcome-rejected-v1.hex", &rejected, &rejected.encode(), Outcome::decode);
    frozen("operation-digest-v1.hex", &hex(&Operation::digest(&operation().encode())));
}

#[test]
fn the_numbers_of_reasons_are_frozen() {
    use RejectReason::*;
    let reasons =
        [Malformed, NumberReused, OverLimit, ReadOnlyKind, NotSealed, BuildsOnRejected, Erased, OtherDevice];
    for (number, reason) in (0..).zip(reasons) {
        assert_eq!(Outcome::Rejected { reason, edit: 0 }.encode()[6], number, "{reason}");
    }
    use PromotionReason::*;
    for (number, reason) in (0..).zip([Founded, Promoted, Restored, Recovered, Transferred, Chosen]) {
        let body = Promotion { reason, made_at: 0, ..promotion() }.body();
        assert_eq!(body[body.len() - 2], number);
    }
}

#[test]
fn a_reason_of_a_newer_build_is_kept_with_its_number() {
    for number in [8, 200, 255] {
        let mut record = outcomes()[1].encode();
        record[6] = number;
        let outcome = Outcome::decode(&record).unwrap();
        let reason = RejectReason::Unknown(number);
        assert_eq!(outcome, Outcome::Rejected { reason, edit: 2 });
        assert_eq!((outcome.encode(), reason.to_string()), (record, format!("reason-{number}")));

        let mut body = promotion().body();
        let place = body.iter().rposition(|byte| *byte == 4).unwrap();
        body[place] = number;
        let signed = Promotion::decode(&signed(promotion(), body.clone()).encode()).unwrap();
        assert_eq!(signed.record.reason, PromotionReason::Unknown(number));
        assert_eq!((signed.record.body(), &signed.body), (body.clone(), &body));
    }
}

#[test]
fn cursors_and_batches_are_frozen() {
    record("cursor-v1.hex", &full_cursor(), &full_cursor().encode(), Cursor::decode);
    let unfiltered = full_cursor().encode();
    for filter in [vec![1, 7], [&[0x80, 0x02][..], &[7; 256]].concat()] {
        let filtered = [&unfiltered[..unfiltered.len() - 1], &filter].concat();
        assert!(Cursor::decode(&filtered).is_err());
    }
    let bytes = batch();
    record("batch-v1.hex", &ChangeBatch::decode(&bytes).unwrap(), &bytes, ChangeBatch::decode);
}

#[test]
fn signed_records_are_frozen() {
    let member = signed(member(), member().body());
    record("member-v1.hex", &member, &member.encode(), Member::decode);
    let promoted = signed(promotion(), promotion().body());
    record("promotion-v1.hex", &promoted, &promoted.encode(), Promotion::decode);
    let founding = founding();
    record("promotion-founded-v1.hex", &founding.promotion, &founding.promotion.encode(), Promotion::decode);
    let issuer: &mfpsync_storage::model::Signed<IssuingCertificate> = &founding.issuer;
    record("issuing-certificate-v1.hex", issuer, &issuer.encode(), IssuingCertificate::decode);
}

#[test]
fn the_running_hash_and_content_hashes_are_frozen() {
    let mut server = Server::founded();
    server.accept(1, &[write("a", &[("x", "1")]), removal("b")]);
    let chain = server.0.read(|read| read.founded_head()).unwrap().chain;
    frozen("chain-v1.hex", &hex(&chain.0));
    let hashes = server.0.read(|read| read.content_hashes()).unwrap();
    frozen("content-hash-v1.hex", &hex(&hashes.values().next().unwrap().hash));
    frozen("item-pseudonym-v1.txt", &format!("{}\n", key("a").pseudonym()));
}

#[test]
fn a_newer_record_is_told_apart_from_a_damaged_one() {
    let mut bytes = operation().encode();
    bytes[4] = 2;
    assert!(matches!(Operation::decode(&bytes), Err(DecodeError::Newer { found: 2, known: 1, .. })));
    assert_eq!(Operation::peek_number(&bytes), Ok(OperationNumber(200)));
    bytes[4] = 0;
    assert!(matches!(Operation::decode(&bytes), Err(DecodeError::Invalid(_))));
    assert!(matches!(Outcome::decode(&bytes), Err(DecodeError::Magic("outcome"))));
    assert!(matches!(Cursor::decode(Encoder::record(*b"MFPC", 1).as_bytes()), Err(DecodeError::Truncated)));
}

/// Where a copy of the master stands, as its log and `standby.pos` hold it.
pub(crate) fn position() -> Position {
    Position {
        group: GROUP,
        log: LogId([2; 16]),
        transaction: 300,
        pages: 70_000,
        digest: PageDigest::from_bytes([3; 16]),
        epoch: EPOCH,
        sequence: Sequence(1 << 40),
        chain: Chain([5; 32]),
    }
}

#[test]
fn a_position_is_frozen() {
    record("position-v1.hex", &position(), &position().encode(), Position::decode);
}

fn schema<D: Database>() -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("empty.db");
    drop(Inline::<D>::open(&path, true).unwrap());
    let connection = rusqlite::Connection::open(&path).unwrap();
    let mut dump = String::new();
    for pragma in ["application_id", "user_version", "page_size", "encoding"] {
        let value: rusqlite::types::Value =
            connection.pragma_query_value(None, pragma, |row| row.get(0)).unwrap();
        dump += &format!("{pragma}: {value:?}\n");
    }
    let sql = "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema ORDER BY type, name";
    let mut statement = connection.prepare(sql).unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let text = |column| row.get::<_, String>(column).unwrap();
        dump += &format!("{} {} on {}: {}\n", text(0), text(1), text(2), text(3));
    }
    dump
}

#[test]
fn the_schemas_are_frozen() {
    frozen("master-1.schema", &schema::<Master>());
    frozen("local-1.schema", &schema::<Local>());
}
