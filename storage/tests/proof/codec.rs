//! Properties of the encodings: round trip, no panic on any input, and one value, one byte string.

use mfpsync_storage::codec::{DecodeError, Decoder, Encoder};
use mfpsync_storage::model::{
    Action, Base, ChangeBatch, Cursor, Edit, Fields, IssuingCertificate, ItemKey, Kind, Member, Operation,
    OperationNumber, Outcome, Promotion, Revision, Scope, Sealed, Sequence, Value,
};
use proptest::prelude::*;

use crate::golden;
use crate::support::founding;

/// Decodes and encodes again; `None` when the bytes were refused.
type Recode = fn(&[u8]) -> Option<Vec<u8>>;

fn batch_again(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut to = Encoder::record(*b"MFPB", 1);
    for change in ChangeBatch::decode(bytes).ok()? {
        let key = &change.key;
        to.text(key.scope.as_str()).text(key.kind.as_str()).text(&key.device).text(&key.id);
        to.varint(change.sequence.0).fixed(&[u8::from(change.deleted)]).bytes(&change.fields.encode());
    }
    Some(to.finish())
}

fn samples() -> Vec<(&'static str, Vec<u8>, Recode)> {
    let [accepted, rejected] = golden::outcomes();
    let founding = founding();
    let signature = [5; 64];
    let signed = |body: Vec<u8>| [body.as_slice(), &signature].concat();
    vec![
        ("fields", golden::every_value().encode(), |b| Fields::decode(b).ok().map(|v| v.encode())),
        ("operation", golden::operation().encode(), |b| Operation::decode(b).ok().map(|v| v.encode())),
        ("accepted", accepted.encode(), |b| Outcome::decode(b).ok().map(|v| v.encode())),
        ("rejected", rejected.encode(), |b| Outcome::decode(b).ok().map(|v| v.encode())),
        ("cursor", golden::full_cursor().encode(), |b| Cursor::decode(b).ok().map(|v| v.encode())),
        ("batch", golden::batch(), batch_again),
        ("member", signed(golden::member().body()), |b| {
            Member::decode(b).ok().map(|v| [v.record.body(), v.signature.to_vec()].concat())
        }),
        ("promotion", signed(golden::promotion().body()), |b| {
            Promotion::decode(b).ok().map(|v| [v.record.body(), v.signature.to_vec()].concat())
        }),
        ("issuer", founding.issuer.encode(), |b| {
            IssuingCertificate::decode(b).ok().map(|v| [v.record.body(), v.signature.to_vec()].concat())
        }),
    ]
}

#[test]
fn a_record_cut_anywhere_is_refused() {
    for (name, bytes, recode) in samples() {
        assert_eq!(recode(&bytes).as_ref(), Some(&bytes), "{name}");
        for length in 0..bytes.len() {
            if let Some(again) = recode(&bytes[..length]) {
                // Only a batch may end between two of its changes.
                assert_eq!((name, again.as_slice()), ("batch", &bytes[..length]), "{name} cut at {length}");
            }
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(recode(&longer).is_none() || ["member", "promotion", "issuer"].contains(&name), "{name}");
    }
}

#[test]
fn a_flipped_bit_is_refused_or_another_canonical_record() {
    for (name, mut bytes, recode) in samples() {
        for place in 0..bytes.len() * 8 {
            bytes[place / 8] ^= 1 << (place % 8);
            if let Some(again) = recode(&bytes) {
                assert_eq!(again, bytes, "{name}, bit {place}");
            }
            bytes[place / 8] ^= 1 << (place % 8);
        }
    }
}

#[test]
fn what_is_not_canonical_is_refused() {
    let varint = |bytes: &[u8]| Decoder::new(bytes).varint();
    assert_eq!(varint(&[0x80, 0x00]), Err(DecodeError::Invalid("integer not in its shortest form")));
    assert_eq!(varint(&[0xff; 10]), Err(DecodeError::Invalid("integer over 64 bits")));
    assert_eq!(
        varint(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]),
        Err(DecodeError::Invalid("integer over 64 bits"))
    );
    assert_eq!(varint(&[0x80]), Err(DecodeError::Truncated));
    assert!(Decoder::new(&[2]).flag().is_err());
    assert_eq!(Decoder::new(&[0xff, 0xff, 0xff, 0x7f]).count(), Err(DecodeError::Truncated));

    let field = |to: &mut Encoder, name: &str| {
        to.text(name).varint(3).bytes(&[1]);
    };
    for names in [["b", "a"], ["a", "a"]] {
        let mut to = Encoder::new();
        to.varint(2);
        names.iter().for_each(|name| field(&mut to, name));
        assert_eq!(Fields::decode(to.as_bytes()), Err(DecodeError::Invalid("fields are not in order")));
    }
    for name in ["", "tab\t", &"x".repeat(256)] {
        let mut to = Encoder::new();
        to.varint(1);
        field(&mut to, name);
        assert_eq!(Fields::decode(to.as_bytes()), Err(DecodeError::Invalid("field name")));
    }
    let mut set = Encoder::new();
    set.varint(2).text("b").text("a");
    let mut to = Encoder::new();
    to.varint(1).text("set").varint(5).bytes(set.as_bytes());
    assert_eq!(Fields::decode(to.as_bytes()), Err(DecodeError::Invalid("set is not in order")));
}

#[test]
fn a_number_is_peeked_only_from_an_operation() {
    let bytes = golden::operation().encode();
    assert_eq!(Operation::peek_number(&bytes), Ok(OperationNumber(200)));
    (0..7).for_each(|length| assert!(Operation::peek_number(&bytes[..length]).is_err()));
    assert!(Operation::peek_number(&golden::full_cursor().encode()).is_err());
}

#[test]
fn keys_are_what_they_may_be() {
    for scope in ["shared", "user/1", "usergroup/a b", "device/x/y"] {
        assert_eq!(Scope::parse(scope).unwrap().as_str(), scope);
    }
    for scope in ["", "user", "user/", "shared/1", "User/1", "user/a\n", &format!("user/{}", "x".repeat(255))]
    {
        assert!(Scope::parse(scope).is_err(), "{scope:?}");
    }
    assert!(Kind::parse("").is_err() && Kind::parse("a\u{7f}").is_err());
    assert!(ItemKey::parse("shared", "k", "", "").is_err());
    assert!(!format!("{:?}", ItemKey::parse("user/sato", "k", "", "1").unwrap()).contains("sato"));
}

fn text() -> impl Strategy<Value = String> {
    "[a-z\u{3042}-\u{3050}]{1,12}"
}

fn value() -> impl Strategy<Value = Value> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..20);
    prop_oneof![
        any::<String>().prop_map(Value::Text),
        any::<i64>().prop_map(Value::Integer),
        any::<bool>().prop_map(Value::Flag),
        bytes().prop_map(Value::Bytes),
        proptest::collection::btree_set(any::<String>(), 0..5).prop_map(Value::Set),
        (bytes(), bytes()).prop_map(|(key_id, sealed)| Value::Sealed(Sealed { key_id, sealed })),
        (7..u64::MAX, bytes()).prop_map(|(type_number, payload)| Value::Opaque { type_number, payload }),
    ]
}

fn any_fields() -> impl Strategy<Value = Fields> {
    proptest::collection::btree_map(text(), value(), 0..8).prop_map(|fields| fields.into_iter().collect())
}

fn edit() -> impl Strategy<Value = (String, Edit)> {
    let remove =
        proptest::collection::btree_set("[A-Z]{1,5}", 0..4).prop_map(|names| names.into_iter().collect());
    let action = prop_oneof![
        any_fields().prop_map(Action::Put),
        (any_fields(), remove).prop_map(|(set, remove)| Action::Patch { set, remove }),
        Just(Action::Delete),
    ];
    (text(), any::<(u64, u64)>(), proptest::option::of(1..1_000u64), action).prop_map(
        |(id, (epoch, sequence), after, action)| {
            let key = ItemKey::parse("shared", "button.shared", "", &id).unwrap();
            let revision = Revision { epoch, sequence: Sequence(sequence) };
            (id, Edit { key, base: Base { revision, after: after.map(OperationNumber) }, action })
        },
    )
}

proptest! {
    #[test]
    fn integers_come_back(unsigned: u64, signed: i64) {
        let mut to = Encoder::new();
        to.varint(unsigned).signed(signed).optional(Some(unsigned)).optional(None);
        let mut from = Decoder::new(to.as_bytes());
        prop_assert_eq!(from.varint(), Ok(unsigned));
        prop_assert_eq!(from.signed(), Ok(signed));
        prop_assert_eq!(from.optional(), Ok(Some(unsigned)));
        prop_assert_eq!(from.optional(), Ok(None));
        prop_assert_eq!(from.finish(), Ok(()));
    }

    #[test]
    fn fields_come_back(fields in any_fields()) {
        prop_assert_eq!(Fields::decode(&fields.encode()), Ok(fields));
    }

    #[test]
    fn operations_come_back(
        number in 1_000..i64::MAX as u64,
        made_at: u64,
        edits in proptest::collection::btree_map(text(), edit(), 1..6),
    ) {
        let edits: std::collections::BTreeMap<_, _> = edits.into_values().collect();
        let operation = Operation {
            number: OperationNumber(number),
            made_at,
            actor: "sato".to_owned(),
            yields: number % 2 == 0,
            was: (number % 3 == 0).then_some(Sequence(number)),
            edits: edits.into_values().collect(),
        };
        prop_assert_eq!(Operation::decode(&operation.encode()), Ok(operation));
    }

    #[test]
    fn any_bytes_are_refused_or_canonical(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        place: usize,
        splice in any::<bool>(),
    ) {
        for (name, sample, recode) in samples() {
            let mut input = bytes.clone();
            if splice {
                let at = place % sample.len();
                input = [&sample[..at], &bytes, &sample[at..]].concat();
            }
            if let Some(again) = recode(&input) {
                prop_assert_eq!(again, input, "{}", name);
            }
        }
    }
}
