//! A reign over restored data begins where the archive ends, with all that must not come undone.

use std::collections::BTreeMap;

use mfpsync_storage::master::{Loss, Master, MasterWrite, Reign, Since};
use mfpsync_storage::model::{
    Capabilities, DeviceId, Epoch, ErasedMark, IssuingCertificate, ItemKey, Member, Promotion,
    PromotionReason, PublicKey, Scope, Sequence, Signed, erasure_key,
};
use mfpsync_storage::{Error, Inline};

use crate::support::{GROUP, Server, author, fields, signed, write};

const SERVER: DeviceId = DeviceId([8; 16]);
const CANARY: &str = "yamada-secret-value";

fn reign(master: &Inline<Master>, number: u64) -> Reign {
    let parent = Some(master.read(|read| read.founded_head()).unwrap().parent());
    let promotion = Promotion {
        group: GROUP,
        epoch: Epoch { number, nonce: [number as u8; 16] },
        parent,
        ends: Vec::new(),
        device: SERVER,
        operator: "admin".to_owned(),
        reason: PromotionReason::Restored,
        made_at: 9_000,
    };
    let issuer = IssuingCertificate { group: GROUP, device: SERVER, public_key: PublicKey([6; 32]) };
    let member = row(SERVER, 1, false);
    Reign {
        promotion: signed(promotion.clone(), promotion.body()),
        issuer: signed(issuer.clone(), issuer.body()),
        member,
        known: Sequence(0),
    }
}

fn row(device: DeviceId, version: u64, released: bool) -> Signed<Member> {
    let member = Member {
        group: GROUP,
        device,
        public_key: PublicKey([4; 32]),
        name: "copier".to_owned(),
        capabilities: Capabilities::CLIENT,
        released,
        version,
        endpoints: Vec::new(),
        issuer: SERVER,
    };
    signed(member.clone(), member.body())
}

fn mark(scope: &Scope, generation: u64, readmitted: bool) -> (String, ErasedMark) {
    (erasure_key(GROUP, scope).unwrap().id, ErasedMark { readmitted, at: 5, generation })
}

fn yamada() -> Scope {
    Scope::user("yamada").unwrap()
}

/// An item of a user who is to be erased, twice changed, with a lost edit; and one of another user that the
/// same person changed.
fn fill(to: &MasterWrite<'_>) -> mfpsync_storage::Result<()> {
    let mut own = write("own", &[]);
    own.key = ItemKey::parse("user/yamada", "address.personal", "", "1").unwrap();
    let by = mfpsync_storage::master::Author { actor: "yamada".to_owned(), ..author(1) };
    own.fields = fields(&[("mail", CANARY)]);
    to.accept(&by, &[own.clone()])?;
    own.fields = fields(&[("mail", "yamada-second-value")]);
    to.accept(&by, &[own.clone(), write("other", &[("x", "1")])])?;
    to.keep_loss(&by, &Loss { key: own.key, by: Sequence(2), fields: fields(&[("mail", "yamada-lost")]) })
}

fn filled() -> Server {
    let mut server = Server::founded();
    server.0.write(fill).unwrap();
    server
}

#[test]
fn i_18_a_restored_reign_goes_on_with_numbers_nobody_had() {
    let mut server = filled();
    let head = server.0.read(|read| read.founded_head()).unwrap();
    // The archive is of reign 1; reign 2 was heard of and is left behind.
    let reign = reign(&server.0, 3);
    server.0.write(|to| to.begin_restored_reign(&reign, &Since::default(), 1)).unwrap();
    let revision = server.0.write(|to| to.accept(&author(9), &[write("a", &[("x", "1")])])).unwrap();
    assert_eq!((revision.epoch, revision.sequence), (3, head.sequence.next()));
    let lineage = server.0.read(|read| read.lineage()).unwrap();
    let numbers: Vec<u64> = lineage.iter().map(|promotion| promotion.record.epoch.number).collect();
    assert_eq!(numbers, [1, 3]);
    assert_eq!(server.0.read(|read| read.replication()).unwrap(), None);
}

#[test]
fn a_reign_that_does_not_follow_what_was_restored_changes_nothing() {
    let server = filled();
    let good = reign(&server.0, 2);
    let other = |change: fn(&mut Promotion)| {
        let mut reign = good.clone();
        change(&mut reign.promotion.record);
        reign
    };
    for reign in [
        other(|record| record.epoch.number = 1),
        other(|record| record.parent = None),
        other(|record| record.parent.as_mut().unwrap().sequence = Sequence(1)),
        other(|record| record.reason = PromotionReason::Promoted),
        other(|record| record.group.0 = [1; 16]),
    ] {
        let mut server = filled();
        let begun = server.0.write(|to| to.begin_restored_reign(&reign, &Since::default(), 1));
        assert!(matches!(begun, Err(Error::Record(_))));
        assert_eq!(server.0.read(|read| read.founded_head()).unwrap().epoch.number, 1);
    }
}

#[test]
fn i_19_a_device_released_since_the_archive_stays_released() {
    let mut server = filled();
    let (two, three, four) = (DeviceId([2; 16]), DeviceId([3; 16]), DeviceId([4; 16]));
    server
        .0
        .write(|to| {
            to.put_member(&row(two, 1, false))?;
            // Released before the archive, and paired again.
            to.put_member(&row(three, 3, false))
        })
        .unwrap();
    let reign = reign(&server.0, 2);
    let replaced = IssuingCertificate { group: GROUP, device: SERVER, public_key: PublicKey([5; 32]) };
    let since = Since {
        members: vec![row(two, 2, true), row(three, 2, true), row(four, 1, false)],
        issuers: vec![signed(replaced.clone(), replaced.body())],
        ..Since::default()
    };
    let reapplied = server.0.write(|to| to.begin_restored_reign(&reign, &since, 1)).unwrap();
    assert_eq!(reapplied.releases, 1);
    let members = server.0.read(|read| read.members()).unwrap();
    let released = |device| members.iter().find(|row| row.record.device == device).unwrap().record.released;
    assert_eq!([two, three, four].map(released), [true, false, false]);
    let issuers = server.0.read(|read| read.issuers()).unwrap();
    assert!(issuers.contains(&reign.issuer), "the key that signs now is certified");
}

#[test]
fn i_19_a_user_erased_since_the_archive_is_in_no_page_of_what_serves() {
    for readmitted in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("restored.db");
        let mut master = Inline::<Master>::open(&path, true).unwrap();
        master.write(|to| to.found(&crate::support::founding())).unwrap();
        master.write(fill).unwrap();
        let reign = reign(&master, 2);
        let since = Since {
            erasures: BTreeMap::from([
                mark(&yamada(), 2, readmitted),
                mark(&Scope::user("x").unwrap(), 1, false),
            ]),
            ..Since::default()
        };
        let reapplied = master.write(|to| to.begin_restored_reign(&reign, &since, 1)).unwrap();
        assert_eq!((reapplied.erasures, reapplied.items), (2, 1));
        let erasure = master.read(|read| read.erasure(GROUP, &yamada())).unwrap().unwrap();
        assert_eq!((erasure.mark.readmitted, erasure.mark.generation), (readmitted, 2));
        let left = master.read(|read| read.has_items(&yamada())).unwrap();
        assert!(!left);
        master.close().unwrap();
        assert!(!directory.path().join("restored.db-wal").exists(), "the file stands alone");
        let bytes = std::fs::read(&path).unwrap();
        for name in [CANARY, "yamada-second-value", "yamada-lost"] {
            assert!(!bytes.windows(name.len()).any(|window| window == name.as_bytes()), "{name} is there");
        }
        assert!(bytes.windows(5).any(|window| window == b"other"), "others' data is");
    }
}

#[test]
fn what_two_know_together_is_the_later_of_each() {
    let of = |generation, readmitted| Since {
        erasures: BTreeMap::from([mark(&yamada(), generation, readmitted)]),
        members: vec![row(SERVER, generation, false)],
        ..Since::default()
    };
    for (one, other) in [(of(1, false), of(2, true)), (of(2, true), of(1, false))] {
        let both = one.and(other);
        let mark = both.erasures.values().next().unwrap();
        assert_eq!((mark.generation, mark.readmitted, both.members.len()), (2, true, 2));
    }
    let mut server = filled();
    let reign = reign(&server.0, 2);
    server.0.write(|to| to.begin_restored_reign(&reign, &of(3, false), 1)).unwrap();
    let known = server.0.read(Since::of).unwrap();
    assert_eq!(known.erasures, of(3, false).erasures);
    assert_eq!((known.issuers.len(), known.members.len()), (2, 2));
}

#[test]
fn i_19_a_mark_the_archive_has_as_new_does_nothing() {
    let mut server = filled();
    let now = reign(&server.0, 2);
    let readmitted = Since { erasures: BTreeMap::from([mark(&yamada(), 2, true)]), ..Since::default() };
    server.0.write(|to| to.begin_restored_reign(&now, &readmitted, 1)).unwrap();
    server.0.write(fill).unwrap();

    let again = reign(&server.0, 3);
    let older = Since { erasures: BTreeMap::from([mark(&yamada(), 1, false)]), ..Since::default() };
    let reapplied = server.0.write(|to| to.begin_restored_reign(&again, &older, 1)).unwrap();
    assert_eq!((reapplied.erasures, reapplied.items), (0, 0));
    assert!(server.0.read(|read| read.has_items(&yamada())).unwrap());
}
