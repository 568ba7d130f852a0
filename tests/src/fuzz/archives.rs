//! What comes back from a share: manifests, and databases inside of archives.

use mfpsync_backup::manifest::Manifest;
use mfpsync_storage::master::archived::Archived;
use mfpsync_storage::master::{Founding, Master};
use mfpsync_storage::model::{
    Capabilities, DeviceId, Epoch, GroupId, IssuingCertificate, Member, Promotion, PromotionReason,
    PublicKey, Signed,
};
use mfpsync_storage::{Inline, Store};

use super::{file, root};

/// What is believed is what was signed.
pub(super) fn manifest(bytes: &[u8]) -> bool {
    Manifest::decode(bytes).is_ok_and(|manifest| {
        assert_eq!(manifest.record.body(), manifest.body);
        assert_eq!(manifest.encode(), bytes);
        true
    })
}

pub(super) fn manifest_samples() -> Vec<Vec<u8>> {
    let text = String::from_utf8(file(&root().join("backup/tests/golden/manifest-v1.hex"))).unwrap();
    let digits: String = text.split_whitespace().collect();
    vec![data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap()]
}

/// What is taken becomes a database that opens, and holds what it was taken for.
pub(super) fn archived(bytes: &[u8]) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let (path, fresh) = (directory.path().join("archived.db"), directory.path().join("master.db"));
    std::fs::write(&path, bytes).unwrap();
    let taken = Archived::open(&path, || false).and_then(|archived| {
        archived.check()?;
        archived.copy_to(&fresh)
    });
    let Ok(contents) = taken else {
        assert!(!fresh.exists(), "something is there of what was refused");
        return false;
    };
    let head = Inline::<Master>::open(&fresh, false).unwrap().read(|read| read.founded_head()).unwrap();
    assert_eq!(head, contents.head);
    true
}

pub(super) fn archived_samples() -> Vec<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::<Master>::open(&directory.path().join("master.db"), true, Box::new(|_| {})).unwrap();
    let founding = founding();
    store.write_and_wait(move |write| write.found(&founding)).unwrap();
    let (snapshot, ()) = store.snapshot(|_| Ok(())).unwrap();
    vec![snapshot.map(Result::unwrap).collect::<Vec<_>>().concat()]
}

fn founding() -> Founding {
    let (group, device) = (GroupId([7; 16]), DeviceId([1; 16]));
    let promotion = Promotion {
        group,
        epoch: Epoch { number: 1, nonce: [9; 16] },
        parent: None,
        ends: Vec::new(),
        device,
        operator: "admin".to_owned(),
        reason: PromotionReason::Founded,
        made_at: 1_000,
    };
    let issuer = IssuingCertificate { group, device, public_key: PublicKey([2; 32]) };
    let member = Member {
        group,
        device,
        public_key: PublicKey([4; 32]),
        name: "copier".to_owned(),
        capabilities: Capabilities::SERVE,
        released: false,
        version: 1,
        endpoints: Vec::new(),
        issuer: device,
    };
    Founding {
        group_name: "Head office".to_owned(),
        root_key: PublicKey([3; 32]),
        promotion: unsigned(promotion.clone(), promotion.body()),
        issuer: unsigned(issuer.clone(), issuer.body()),
        member: unsigned(member.clone(), member.body()),
    }
}

fn unsigned<T>(record: T, body: Vec<u8>) -> Signed<T> {
    Signed { record, body, signature: [5; 64] }
}
