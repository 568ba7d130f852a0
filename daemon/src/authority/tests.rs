use mfpsync_storage::model::{Capabilities, Epoch, PromotionReason};
use proptest::prelude::*;
use ring::rand::SystemRandom;

use super::*;
use crate::keystore::FileKeyStore;

struct Group {
    root: Root,
    issuing: IssuingKey,
    issuers: Vec<Signed<IssuingCertificate>>,
}

fn group(device: DeviceId) -> Group {
    let random = SystemRandom::new();
    let root = Root::generate(&random).unwrap();
    let issuing = IssuingKey { device, key: KeyPair::generate(&random).unwrap() };
    let issuers = vec![root.certify(issuing.device(), issuing.public_key())];
    Group { root, issuing, issuers }
}

fn member(group: GroupId) -> Member {
    Member {
        group,
        device: DeviceId([2; 16]),
        public_key: PublicKey([3; 32]),
        name: "second floor".to_owned(),
        capabilities: Capabilities::CLIENT,
        released: false,
        version: 1,
        endpoints: vec!["printer.example.com:7443".to_owned()],
        issuer: DeviceId([0; 16]),
    }
}

fn promotion(group: GroupId) -> Promotion {
    Promotion {
        group,
        epoch: Epoch { number: 1, nonce: [7; 16] },
        parent: None,
        ends: Vec::new(),
        device: DeviceId([0; 16]),
        operator: "operator".to_owned(),
        reason: PromotionReason::Founded,
        made_at: 0,
    }
}

#[test]
fn what_the_group_signed_is_believed() {
    let Group { root, issuing, issuers } = group(DeviceId([1; 16]));
    let anchor = root.anchor();
    let issuer = anchor.verify_issuer(&issuers[0].encode()).unwrap();
    assert_eq!(issuer.record.device, DeviceId([1; 16]));
    let row = issuing.sign_member(member(anchor.group));
    assert_eq!(anchor.verify_member(&row.encode(), &issuers).unwrap(), row);
    assert_eq!(row.record.issuer, DeviceId([1; 16]));
    let link = issuing.sign_promotion(promotion(anchor.group));
    assert_eq!(anchor.verify_promotion(&link.encode(), &issuers).unwrap(), link);
}

#[test]
fn each_reason_for_disbelief_is_told_apart() {
    let ours = group(DeviceId([1; 16]));
    let theirs = group(DeviceId([1; 16]));
    let anchor = ours.root.anchor();
    let foreign = theirs.root.anchor().group;

    let row = ours.issuing.sign_member(member(foreign)).encode();
    assert_eq!(anchor.verify_member(&row, &ours.issuers), Err(VerifyError::WrongGroup(foreign)));
    let row = theirs.issuing.sign_member(member(anchor.group)).encode();
    assert_eq!(anchor.verify_member(&row, &ours.issuers), Err(VerifyError::BadSignature));
    assert_eq!(anchor.verify_member(&row, &[]), Err(VerifyError::UnknownIssuer(DeviceId([1; 16]))));
    // A certificate of another group's root does not help, even if somebody passes it in.
    assert!(anchor.verify_member(&row, &theirs.issuers).is_err());
    assert_eq!(anchor.verify_issuer(&theirs.issuers[0].encode()), Err(VerifyError::WrongGroup(foreign)));
    assert!(matches!(anchor.verify_member(b"nonsense", &ours.issuers), Err(VerifyError::Malformed(_))));

    let mut claimed = theirs.issuers[0].record.clone();
    claimed.group = anchor.group;
    let body = claimed.body();
    let forged = Signed { signature: theirs.root.key.sign(&body), record: claimed, body };
    assert_eq!(anchor.verify_issuer(&forged.encode()), Err(VerifyError::BadSignature));
}

#[test]
fn a_device_may_have_had_two_issuing_keys() {
    let device = DeviceId([1; 16]);
    let Group { root, issuing, mut issuers } = group(device);
    let second = IssuingKey { device, key: KeyPair::generate(&SystemRandom::new()).unwrap() };
    issuers.push(root.certify(second.device(), second.public_key()));
    let anchor = root.anchor();
    for key in [&issuing, &second] {
        let row = key.sign_member(member(anchor.group)).encode();
        assert!(anchor.verify_member(&row, &issuers).is_ok());
    }
}

#[test]
fn the_issuing_key_survives_a_restart_and_can_be_erased() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileKeyStore::open(directory.path().join("keys")).unwrap();
    let device = DeviceId([1; 16]);
    assert!(IssuingKey::load(&store, device).unwrap().is_none());
    let first = IssuingKey::load_or_create(&store, device, &SystemRandom::new()).unwrap();
    let second = IssuingKey::load(&store, device).unwrap().unwrap();
    assert_eq!(first.public_key(), second.public_key());
    IssuingKey::erase(&store).unwrap();
    assert!(IssuingKey::load(&store, device).unwrap().is_none());
}

proptest! {
    #[test]
    fn no_changed_bit_goes_unnoticed(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let Group { root, issuing, issuers } = group(DeviceId([1; 16]));
        let anchor = root.anchor();
        let mut bytes = issuing.sign_member(member(anchor.group)).encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(anchor.verify_member(&bytes, &issuers).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let Group { root, issuers, .. } = group(DeviceId([1; 16]));
        let anchor = root.anchor();
        prop_assert!(anchor.verify_issuer(&bytes).is_err());
        prop_assert!(anchor.verify_member(&bytes, &issuers).is_err());
        prop_assert!(anchor.verify_promotion(&bytes, &issuers).is_err());
    }
}
