use std::collections::BTreeMap;

use mfpsync_storage::codec::DecodeError;
use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::*;
use crate::frozen::record;

fn key(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn public(key: &Ed25519KeyPair) -> PublicKey {
    PublicKey::from_slice(key.public_key().as_ref()).unwrap()
}

fn signature(key: &Ed25519KeyPair, body: &[u8]) -> [u8; SIGNATURE_BYTES] {
    key.sign(body).as_ref().try_into().unwrap()
}

const GROUP: GroupId = GroupId([7; 16]);

fn certificate(
    root: &Ed25519KeyPair,
    issuing: &Ed25519KeyPair,
    group: GroupId,
) -> Signed<IssuingCertificate> {
    let record = IssuingCertificate { group, device: DeviceId([1; 16]), public_key: public(issuing) };
    let body = record.body();
    Signed { signature: signature(root, &body), record, body }
}

fn manifest() -> Manifest {
    let epoch = Epoch { number: 3, nonce: [9; 16] };
    let at = Cursor { group: GROUP, epoch, sequence: Sequence(300), chain: Chain([5; 32]) };
    let counts = Counts {
        items: BTreeMap::from([(Class::Other, 1), (Class::Address, 500), (Class::Ui, 20)]),
        tombstones: 3,
        changes: 700,
        members: 2,
    };
    let content = ContentHash { hash: [6; 32], items: 521 };
    Manifest {
        held: Inventory { at, root_key: public(&key(1)), content, counts },
        reigns: vec![
            Began { epoch: Epoch { number: 1, nonce: [8; 16] }, sequence: Sequence(0), chain: Chain::START },
            Began { epoch, sequence: Sequence(200), chain: Chain([4; 32]) },
        ],
        schema: 1,
        database: File { bytes: 409_600, sha256: [2; 32] },
        archive: File { bytes: 100_000, sha256: [3; 32] },
        program: "0.1.0".to_owned(),
        made_at: 1_700_000_000_000,
        issuer: certificate(&key(1), &key(2), GROUP),
    }
}

fn signed(manifest: Manifest) -> Signed<Manifest> {
    manifest.sign(|body| signature(&key(2), body))
}

#[test]
fn a_manifest_comes_back_as_it_was_signed() {
    let signed = signed(manifest());
    assert_eq!(Manifest::decode(&signed.encode()), Ok(signed));
}

#[test]
fn a_manifest_is_written_as_released_devices_read_it() {
    let manifest = signed(manifest());
    record("manifest-v1.hex", &manifest, &manifest.encode(), Manifest::decode);
}

#[test]
fn nothing_that_people_call_themselves_is_in_it() {
    let text = format!("{:?}", manifest());
    for word in ["operator", "name:", "endpoints", "scope", "actor"] {
        assert!(!text.contains(word), "{word}");
    }
}

#[test]
fn a_manifest_that_ends_early_is_truncated() {
    let bytes = signed(manifest()).encode();
    for end in 5..bytes.len() {
        assert_eq!(Manifest::decode(&bytes[..end]), Err(ManifestError::Truncated), "cut at {end}");
    }
    assert_eq!(Manifest::decode(&bytes[..3]), Err(ManifestError::NotAManifest));
}

#[test]
fn what_is_no_manifest_or_a_newer_one_is_called_so() {
    let mut bytes = signed(manifest()).encode();
    bytes[4] = 2;
    assert_eq!(Manifest::decode(&bytes), Err(ManifestError::Newer { found: 2, known: 1 }));
    bytes[0] = b'X';
    assert_eq!(Manifest::decode(&bytes), Err(ManifestError::NotAManifest));
    assert_eq!(Manifest::decode(b""), Err(ManifestError::NotAManifest));
    let long = vec![0; MANIFEST_BYTES + 1];
    assert!(matches!(Manifest::decode(&long), Err(ManifestError::Malformed(_))));
}

#[test]
fn a_signer_whom_the_root_did_not_certify_is_not_believed() {
    let by_itself = Manifest { issuer: certificate(&key(2), &key(2), GROUP), ..manifest() };
    let of_another = Manifest { issuer: certificate(&key(1), &key(2), GroupId([1; 16])), ..manifest() };
    for manifest in [by_itself, of_another] {
        assert_eq!(Manifest::decode(&signed(manifest).encode()), Err(ManifestError::Tampered));
    }
    let by_another = manifest().sign(|body| signature(&key(3), body));
    assert_eq!(Manifest::decode(&by_another.encode()), Err(ManifestError::Tampered));
}

#[test]
fn another_group_is_foreign_also_under_our_name() {
    let manifest = manifest();
    assert_eq!(manifest.check_group(GROUP, &public(&key(1))), Ok(()));
    let foreign = Err(ManifestError::ForeignGroup(GROUP));
    assert_eq!(manifest.check_group(GroupId([8; 16]), &public(&key(1))), foreign);
    assert_eq!(manifest.check_group(GROUP, &public(&key(9))), foreign);
}

#[test]
fn a_newer_schema_is_named() {
    assert_eq!(manifest().check_schema(), Ok(()));
    let newer = Manifest { schema: SCHEMA + 1, ..manifest() };
    let error = ManifestError::NewerSchema { found: SCHEMA + 1, known: SCHEMA };
    assert_eq!(Manifest::decode(&signed(newer).encode()).unwrap().record.check_schema(), Err(error));
}

#[test]
fn every_class_has_its_number_and_word() {
    for (number, (class, name)) in Class::NAMED.into_iter().enumerate() {
        assert_eq!((class as usize, class.as_str()), (number, name));
    }
    let class = |kind| Class::of(&mfpsync_storage::model::Kind::parse(kind).unwrap());
    assert_eq!(class("address.personal"), Class::Address);
    assert_eq!(class("keychain"), Class::Keychain);
    assert_eq!(class("tanaka.notes"), Class::Other);
}

proptest! {
    #[test]
    fn a_changed_byte_is_never_believed(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = signed(manifest()).encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Manifest::decode(&bytes).is_err());
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Manifest::decode(&bytes).is_err());
        let headed = [&b"MFPV\x01"[..], &bytes].concat();
        prop_assert!(!matches!(Manifest::decode(&headed), Ok(_) | Err(ManifestError::NotAManifest)));
    }

    #[test]
    fn what_decodes_encodes_to_the_same(
        sequence in any::<u64>(), schema in any::<u32>(), bytes in 0u64..1 << 38, made_at in any::<u64>(),
        counts in prop::collection::btree_map(0usize..10, 1u64.., 0..10), reigns in 0usize..4,
        program in "[ -~]{0,64}",
    ) {
        let mut some = manifest();
        some.held.at.sequence = Sequence(sequence);
        some.held.counts.items = counts.into_iter().map(|(at, count)| (Class::NAMED[at].0, count)).collect();
        some.reigns = vec![some.reigns[0]; reigns];
        some.database.bytes = bytes;
        let some = signed(Manifest { schema, made_at, program, ..some });
        let decoded = Manifest::decode(&some.encode());
        prop_assert_eq!(decoded, Ok(some));
    }
}

#[test]
fn a_text_that_is_no_version_is_malformed() {
    let long = signed(Manifest { program: "x".repeat(65), ..manifest() });
    let error = ManifestError::Malformed(DecodeError::Invalid("version of the program"));
    assert_eq!(Manifest::decode(&long.encode()), Err(error));
}
