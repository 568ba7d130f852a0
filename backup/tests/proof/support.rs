//! A group with real keys, its master database, and archives of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use age::secrecy::ExposeSecret;
use age::x25519;
use mfpsync_backup::archive::{self, Key, Lock, Taken};
use mfpsync_backup::manifest::{Inventory, Maker, Manifest};
use mfpsync_backup::restore::{Helper, RestoreError, Restored, Sought};
use mfpsync_storage::Store;
use mfpsync_storage::master::{Author, Founding, ItemWrite, Master};
use mfpsync_storage::model::{
    Capabilities, DeviceId, Epoch, Fields, GroupId, Incarnation, IssuingCertificate, ItemKey, Member,
    OperationNumber, Promotion, PromotionReason, PublicKey, Signed, Value,
};
use ring::signature::{Ed25519KeyPair, KeyPair};

pub(crate) const GROUP: GroupId = GroupId([7; 16]);
pub(crate) const SERVER: DeviceId = DeviceId([1; 16]);
pub(crate) const PASSPHRASE: &str = "correct horse battery";

/// An administrator's identity.
fn administrator() -> &'static x25519::Identity {
    static IDENTITY: OnceLock<x25519::Identity> = OnceLock::new();
    IDENTITY.get_or_init(x25519::Identity::generate)
}

/// As it stands in a file.
pub(crate) fn identity_text() -> String {
    administrator().to_string().expose_secret().to_owned()
}

pub(crate) fn key(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

pub(crate) fn public(key: &Ed25519KeyPair) -> PublicKey {
    PublicKey::from_slice(key.public_key().as_ref()).unwrap()
}

pub(crate) fn sign(key: &Ed25519KeyPair, body: &[u8]) -> [u8; 64] {
    key.sign(body).as_ref().try_into().unwrap()
}

pub(crate) fn signed<T>(by: &Ed25519KeyPair, record: T, body: Vec<u8>) -> Signed<T> {
    Signed { signature: sign(by, &body), record, body }
}

/// The group's root key, and the server's issuing key.
pub(crate) fn root() -> Ed25519KeyPair {
    key(1)
}

pub(crate) fn issuing() -> Ed25519KeyPair {
    key(2)
}

pub(crate) fn issuer() -> Signed<IssuingCertificate> {
    let record = IssuingCertificate { group: GROUP, device: SERVER, public_key: public(&issuing()) };
    let body = record.body();
    signed(&root(), record, body)
}

pub(crate) fn member(device: DeviceId, version: u64, released: bool) -> Signed<Member> {
    let record = Member {
        group: GROUP,
        device,
        public_key: PublicKey([4; 32]),
        name: "third floor".to_owned(),
        capabilities: Capabilities::CLIENT.with(Capabilities::SERVE),
        released,
        version,
        endpoints: vec!["mfp3.example.com:7450".to_owned()],
        issuer: SERVER,
    };
    let body = record.body();
    signed(&issuing(), record, body)
}

pub(crate) fn item(scope: &str, id: &str, text: &str) -> ItemWrite {
    ItemWrite {
        key: ItemKey::parse(scope, "address.personal", "", id).unwrap(),
        deleted: false,
        fields: [("mail", Value::Text(text.to_owned()))].into_iter().collect(),
        touched: vec!["mail".to_owned()],
        sequences: None,
        lost: Fields::new(),
        keep_prior: true,
    }
}

pub(crate) fn author(operation: u64) -> Author {
    Author {
        device: SERVER,
        incarnation: Incarnation(12),
        operation: OperationNumber(operation),
        actor: "sato".to_owned(),
        made_at: 1_000,
        accepted_at: 2_000,
    }
}

/// A founded master with so many items.
pub(crate) fn master(path: &Path, items: u64) -> Store<Master> {
    let store = Store::<Master>::open(path, true, Box::new(|_| {})).unwrap();
    let promotion = Promotion {
        group: GROUP,
        epoch: Epoch { number: 1, nonce: [9; 16] },
        parent: None,
        ends: Vec::new(),
        device: SERVER,
        operator: "tanaka".to_owned(),
        reason: PromotionReason::Founded,
        made_at: 1_000,
    };
    let body = promotion.body();
    let founding = Founding {
        group_name: "Head office".to_owned(),
        root_key: public(&root()),
        promotion: signed(&issuing(), promotion, body),
        issuer: issuer(),
        member: member(SERVER, 1, false),
    };
    store.write_and_wait(move |write| write.found(&founding)).unwrap();
    for from in (0..items).step_by(1_000) {
        store
            .write_and_wait(move |to| {
                (from..(from + 1_000).min(items)).try_for_each(|number| {
                    let (user, mail) = (number / 100, format!("{number}@example.com"));
                    let item = item(&format!("user/u{user}"), &format!("entry-{number}"), &mail);
                    to.accept(&author(number + 1), &[item]).map(drop)
                })
            })
            .unwrap();
    }
    store
}

pub(crate) fn helper() -> Helper {
    Helper::new(PathBuf::from(env!("CARGO_BIN_EXE_mfpsync-restore")))
}

/// An archive of a small master in a directory, with its manifest.
pub(crate) struct Archive {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) bytes: Vec<u8>,
    pub(crate) manifest: Manifest,
}

/// For a recipient: a passphrase takes a second each time.
pub(crate) fn lock() -> Lock {
    Lock::recipients([administrator().to_public().to_string().as_str()]).unwrap()
}

pub(crate) fn identity() -> Key {
    Key::identity(&identity_text()).unwrap()
}

pub(crate) fn manifest(taken: &Taken, held: Inventory) -> Manifest {
    let maker = Maker { program: "0.1.0".to_owned(), made_at: 5_000, issuer: issuer() };
    Manifest::of(taken, held, maker)
}

impl Archive {
    pub(crate) fn of(store: &Store<Master>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("archive.age");
        let taken = archive::take(store, &lock(), &path, |_, _| true).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let proven =
            helper().prove(bytes.as_slice(), &Sought::from(&taken), &taken.key, directory.path(), &|| false);
        let manifest = manifest(&taken, proven.unwrap());
        Self { directory, bytes, manifest }
    }

    pub(crate) fn small() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::of(&master(&directory.path().join("master.db"), 300))
    }

    /// What becomes of these bytes as this archive.
    pub(crate) fn restore(&self, bytes: &[u8], key: &Key) -> Result<Restored, RestoreError> {
        let sought = Sought::from(&self.manifest);
        let restored = helper().restore(bytes, &sought, key, self.directory.path(), &|| false);
        if restored.is_err() {
            let left = std::fs::read_dir(self.directory.path()).unwrap().count();
            assert_eq!(left, 1, "nothing but the archive is left of what was refused");
        }
        restored
    }

    pub(crate) fn refused(&self, bytes: &[u8]) -> RestoreError {
        self.restore(bytes, &identity()).map(drop).unwrap_err()
    }
}

/// What a program prints; it succeeds.
pub(crate) fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Whether a tool that a test is about is here.
pub(crate) fn has(tool: &str) -> bool {
    let has = Command::new("sh").arg("-c").arg(format!("command -v {tool}")).output();
    let has = has.is_ok_and(|output| output.status.success());
    if !has {
        skip(&format!("no {tool}"));
    }
    has
}

/// Ends a test that cannot be made here: quietly, unless `MFPSYNC_NO_SKIP` asks for every proof.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("MFPSYNC_NO_SKIP").is_none_or(|set| set != "1"), "not proven: {why}");
    println!("skipped: {why}");
}
