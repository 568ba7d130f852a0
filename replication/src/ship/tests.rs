//! A server's real database and a replica's real copy, with everything between them that can go wrong: in the
//! end the copy is the database, and on the way it never is anything the database was not.

mod mishaps;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};

use mfpsync_storage::Store;
use mfpsync_storage::master::{Author, Founding, ItemWrite, Master, MasterRead};
use mfpsync_storage::model::{
    Capabilities, DeviceId, Fields, Incarnation, IssuingCertificate, ItemKey, Member, OperationNumber,
    Promotion, PromotionReason, PublicKey, Signed, Value,
};
use mfpsync_storage::physical::{LogId, Standby};
use mfpsync_storage::tap::{Tap, Verdict};
use proptest::prelude::*;

use super::*;
use crate::apply::{Applied, Applying};

const GROUP: GroupId = GroupId([7; 16]);
const EPOCH: Epoch = Epoch { number: 1, nonce: [9; 16] };
const SERVER: DeviceId = DeviceId([1; 16]);

fn signed<T>(record: T, body: Vec<u8>) -> Signed<T> {
    Signed { record, body, signature: [0; 64] }
}

fn founding() -> Founding {
    let promotion = Promotion {
        group: GROUP,
        epoch: EPOCH,
        parent: None,
        ends: Vec::new(),
        device: SERVER,
        operator: "admin".to_owned(),
        reason: PromotionReason::Founded,
        made_at: 0,
    };
    let issuer = IssuingCertificate { group: GROUP, device: SERVER, public_key: PublicKey([2; 32]) };
    let member = Member {
        group: GROUP,
        device: SERVER,
        public_key: PublicKey([1; 32]),
        name: "copier".to_owned(),
        capabilities: Capabilities::CLIENT,
        released: false,
        version: 1,
        endpoints: Vec::new(),
        issuer: SERVER,
    };
    Founding {
        group_name: "third floor".to_owned(),
        root_key: PublicKey([3; 32]),
        promotion: signed(promotion.clone(), promotion.body()),
        issuer: signed(issuer.clone(), issuer.body()),
        member: signed(member.clone(), member.body()),
    }
}

struct Shipper {
    shipping: Arc<Mutex<Shipping>>,
    names: Arc<Mutex<u8>>,
}

fn logical(read: &MasterRead<'_>) -> Option<Logical> {
    let head = read.head().unwrap()?;
    Some(Logical { group: head.group, epoch: head.epoch, sequence: head.sequence, chain: head.chain })
}

impl Tap<Master> for Shipper {
    fn name(&mut self) -> LogId {
        let mut names = self.names.lock().unwrap();
        *names += 1;
        LogId([*names; 16])
    }

    fn begin(&mut self, _: &mut Pages, kept: Option<&[u8]>, read: &MasterRead<'_>) {
        self.shipping.lock().unwrap().begin(kept, logical(read));
    }

    fn changed(&mut self, changed: Changed<'_>) {
        self.shipping.lock().unwrap().changed(&changed);
    }

    fn committed(&mut self, _: &mut Pages, read: &MasterRead<'_>) {
        self.shipping.lock().unwrap().committed(logical(read));
    }

    fn verdict(&self) -> Verdict {
        Verdict::ALL
    }

    fn keep(&self) -> Vec<u8> {
        self.shipping.lock().unwrap().keep()
    }
}

struct World {
    directory: tempfile::TempDir,
    lives: u32,
    store: Store<Master>,
    shipping: Arc<Mutex<Shipping>>,
    names: Arc<Mutex<u8>>,
    /// None while it is opened anew.
    copy: Option<Standby>,
    applying: Option<Applying>,
    to_replica: VecDeque<ToReplica>,
    to_server: VecDeque<FromReplica>,
    operations: u64,
    bytes: usize,
}

fn file(directory: &Path, life: u32) -> PathBuf {
    directory.join(format!("master-{life}.db"))
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::<Master>::open(&file(directory.path(), 0), true, Box::new(|_| {})).unwrap();
        store.write_and_wait(|write| write.found(&founding())).unwrap();
        let (shipping, names) = Default::default();
        let copy = Some(Standby::open(&directory.path().join("copy")).unwrap());
        let world = Self {
            directory,
            lives: 0,
            store,
            shipping,
            names,
            copy,
            applying: None,
            to_replica: VecDeque::new(),
            to_server: VecDeque::new(),
            operations: 0,
            bytes: 0,
        };
        world.tap();
        world
    }

    fn tap(&self) {
        let tap = Shipper { shipping: self.shipping.clone(), names: self.names.clone() };
        self.store.set_tap(Some(Box::new(tap)));
    }

    /// Runs work with the server's pages at rest.
    fn at_rest<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Shipping, &mut Pages) -> T + Send + 'static,
    ) -> T {
        let (tell, told) = mpsc::channel();
        let shipping = self.shipping.clone();
        self.store.with_pages(move |pages| {
            let (pages, _) = pages.unwrap();
            tell.send(work(&mut shipping.lock().unwrap(), pages)).unwrap();
        });
        told.recv().unwrap()
    }

    fn write(&mut self, items: std::ops::Range<u32>, bytes: usize, deleted: bool) {
        self.operations += 1;
        let author = Author {
            device: SERVER,
            incarnation: Incarnation(1),
            operation: OperationNumber(self.operations),
            actor: "sato".to_owned(),
            made_at: 0,
            accepted_at: 0,
        };
        let text = format!("{:0>1$}", self.operations, bytes);
        let writes: Vec<ItemWrite> = items
            .map(|item| ItemWrite {
                key: ItemKey::parse("user/sato", "ui.language", "", &item.to_string()).unwrap(),
                deleted,
                fields: [("tag", Value::Text(text.clone()))].into_iter().collect::<Fields>(),
                touched: vec!["tag".to_owned()],
                sequences: None,
                lost: Fields::new(),
                keep_prior: false,
            })
            .collect();
        self.store
            .write_and_wait(move |write| {
                writes.iter().try_for_each(|one| write.accept(&author, std::slice::from_ref(one)).map(drop))
            })
            .unwrap();
    }

    fn pump(&mut self) {
        if self.applying.is_none() {
            return;
        }
        loop {
            match self.at_rest(|shipping, pages| shipping.next(pages).unwrap()) {
                Next::Send(message) => {
                    if let ToReplica::Part { packed, .. } = &message {
                        self.bytes += packed.len();
                    }
                    self.to_replica.push_back(message);
                }
                Next::Again => {}
                Next::Wait => break,
                Next::Close => return self.cut(),
                Next::Ahead => panic!("the copy holds what the database never had"),
            }
        }
    }

    fn connect(&mut self) {
        self.cut();
        let mut copy = self.copy.take().unwrap();
        copy.verify(&|| false).unwrap();
        self.to_server.push_back(Applying::stands(&copy));
        self.copy = Some(copy);
        self.applying = Some(Applying::default());
    }

    fn cut(&mut self) {
        self.to_replica.clear();
        self.to_server.clear();
        if self.applying.take().is_some() {
            self.shipping.lock().unwrap().disconnected();
        }
    }

    fn replica_hears(&mut self) -> bool {
        let Some(message) = self.to_replica.pop_front() else { return false };
        let Some(applying) = &mut self.applying else { return false };
        if let Applied::Answer(answer) = applying.take(self.copy.as_mut().unwrap(), message).unwrap() {
            self.to_server.push_back(answer);
        }
        true
    }

    fn server_hears(&mut self) -> bool {
        let Some(message) = self.to_server.pop_front() else { return false };
        self.at_rest(move |shipping, pages| shipping.heard(message, pages).unwrap());
        self.pump();
        true
    }

    fn settle(&mut self) {
        for _ in 0..4 {
            if self.applying.is_none() {
                self.connect();
            }
            self.pump();
            let mut steps = 0;
            while self.replica_hears() | self.server_hears() {
                steps += 1;
                assert!(steps < 100_000, "they never come to rest: {:?}", self.shipping.lock().unwrap().mode);
            }
        }
    }

    fn restart(&mut self, killed: bool) {
        self.restart_between(killed, |_, _| {});
    }

    /// `change` is what happens to the files of which life before it starts again.
    fn restart_between(&mut self, killed: bool, change: impl FnOnce(&Path, u32)) {
        self.cut();
        if killed {
            let (before, after) =
                [self.lives, self.lives + 1].map(|life| file(self.directory.path(), life)).into();
            self.lives += 1;
            // At rest, or a fold would move between two files.
            self.at_rest(move |_, _| {
                for suffix in ["", "-wal", "-anchor"] {
                    let [from, to] = [&before, &after].map(|file| format!("{}{suffix}", file.display()));
                    if Path::new(&from).exists() {
                        std::fs::copy(from, to).unwrap();
                    }
                }
            });
        }
        self.store.close().unwrap();
        change(self.directory.path(), self.lives);
        let path = file(self.directory.path(), self.lives);
        self.store = Store::open(&path, false, Box::new(|_| {})).unwrap();
        self.shipping = Arc::default();
        self.tap();
    }

    fn is_copied(&mut self) {
        self.settle();
        let position = self.at_rest(|shipping, pages| shipping.position(pages).unwrap());
        let mut copy = self.copy.take().unwrap();
        assert_eq!(copy.position(), Some(position));
        assert_eq!(position.sequence, Sequence(self.operations_accepted()));
        let prover = copy.prover(|| false).unwrap();
        assert_eq!(prover.check().unwrap(), Vec::<String>::new());
        assert_eq!(prover.read(|read| Ok(read.founded_head()?.chain)).unwrap(), position.chain);
        drop(prover);
        self.copy = Some(self.at_rest(move |_, pages| {
            for page in PageNumber::all(pages.count()) {
                assert!(copy.page(page).unwrap() == pages.page(page).unwrap(), "{page:?} differs");
            }
            copy
        }));
    }

    /// The replica's process was killed, or ended; `change` is what happens meanwhile.
    fn restart_replica(&mut self, killed: bool, change: impl FnOnce(&Path)) {
        self.cut();
        let copy = self.copy.take().unwrap();
        if !killed {
            copy.close().unwrap();
        }
        let directory = self.directory.path().join("copy");
        change(&directory);
        self.copy = Some(Standby::open(&directory).unwrap());
    }

    fn operations_accepted(&self) -> u64 {
        self.store
            .read_and_wait(mfpsync_storage::SHORT_READ, |read| Ok(read.founded_head()?.sequence.0))
            .unwrap()
    }
}

#[test]
fn a_change_of_one_item_is_small_on_its_way() {
    let mut world = World::new();
    world.write(0..2_000, 40, false);
    world.is_copied();
    let before = world.bytes;
    for item in 0..100 {
        world.write(item * 7..item * 7 + 1, 40, false);
        world.settle();
    }
    let each = (world.bytes - before) / 100;
    println!("{each} bytes for each change");
    assert!(each < 1_000, "{each} bytes for each change");
}

#[test]
fn changes_wait_for_two_on_their_way_and_are_merged() {
    let mut world = World::new();
    world.is_copied();
    for item in 0..20 {
        world.write(item..item + 1, 40, false);
        world.pump();
    }
    assert_eq!(world.to_replica.len(), 2);
    world.replica_hears();
    world.server_hears();
    assert_eq!(world.to_replica.len(), 2);
    world.is_copied();
}

#[test]
fn a_kill_costs_the_changed_pages_and_no_comparison() {
    let mut world = World::new();
    world.write(0..3_000, 300, false);
    world.is_copied();
    // A fold notes what the replica has.
    world.store.truncate_log();
    world.write(0..1, 40, false);
    world.is_copied();
    world.write(5..6, 40, false);
    world.restart(true);
    let before = world.bytes;
    world.is_copied();
    assert!(world.bytes - before < 64 << 10, "{} bytes", world.bytes - before);
}

#[test]
fn a_replica_that_is_away_for_long_costs_the_server_a_bit_for_each_page() {
    let mut world = World::new();
    world.write(0..2_000, 100, false);
    world.is_copied();
    world.cut();
    for _ in 0..50 {
        world.write(0..2_000, 100, false);
    }
    let (kept, pages, lacks) =
        world.at_rest(|shipping, pages| (shipping.keep().len(), pages.count(), shipping.lacks()));
    assert!(kept < 256 + pages as usize / 8, "{kept} bytes for {pages} pages");
    let before = world.bytes;
    world.is_copied();
    assert!(world.bytes - before <= lacks as usize * 4_096, "{} bytes", world.bytes - before);
    assert_eq!(world.operations_accepted(), 102_000);
}

/// A transaction far larger than anything that is kept of it, beyond the lock page in a campaign.
#[test]
fn a_transaction_larger_than_all_that_is_kept_arrives_in_parts() {
    let campaign = std::env::var_os("MFPSYNC_CAMPAIGN").is_some_and(|set| set == "1");
    let items = if campaign { 20_000 } else { 400 };
    let mut world = World::new();
    world.is_copied();
    world.write(0..items, 60_000, false);
    world.pump();
    for _ in 0..3 {
        world.replica_hears();
        world.server_hears();
    }
    // Cut between two parts, and once more.
    world.cut();
    world.is_copied();
    let pages = world.at_rest(|_, pages| pages.count());
    assert!(!campaign || pages > PageNumber::LOCK.0, "{pages} pages");
    world.write(0..5, 60_000, false);
    world.is_copied();
}

#[test]
fn a_copy_of_another_history_is_compared() {
    let mut world = World::new();
    world.write(0..3_000, 300, false);
    world.is_copied();
    let first = world.bytes;
    world.write(40..60, 300, false);
    world.restart(true);
    std::fs::remove_file(format!("{}-anchor", file(world.directory.path(), world.lives).display()))
        .unwrap_err();
    let before = world.bytes;
    world.is_copied();
    assert!(world.bytes - before < first / 4, "{} of {first} bytes", world.bytes - before);
}

/// Flips a bit of a page, in whatever file is the copy.
/// I-15.
#[test]
fn i_15_what_a_reign_sends_that_ended_is_not_taken() {
    let mut world = World::new();
    world.write(0..50, 60, false);
    world.is_copied();
    let before = world.copy.as_ref().unwrap().position();
    world.write(50..60, 60, false);
    world.connect();
    world.applying = Some(Applying::above(EPOCH.number + 1));
    let refused = (0..100).any(|_| {
        world.server_hears();
        world.pump();
        let Some(message) = world.to_replica.pop_front() else { return false };
        match world.applying.as_mut().unwrap().take(world.copy.as_mut().unwrap(), message) {
            Ok(Applied::Answer(answer)) => world.to_server.push_back(answer),
            Ok(_) => {}
            Err(_) => return true,
        }
        false
    });
    assert!(refused);
    assert_eq!(world.copy.as_ref().unwrap().position(), before);
    world.cut();
    world.is_copied();
}

fn rot(directory: &Path, page: u32) {
    for generation in 1..9 {
        let path = directory.join(format!("standby-{generation}.db"));
        let Ok(mut bytes) = std::fs::read(&path) else { continue };
        if let Some(byte) = bytes.get_mut(PageNumber(page).offset() as usize + 100) {
            *byte ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
}

fn damage_place(directory: &Path) {
    let place = directory.join("standby.pos");
    if let Ok(mut bytes) = std::fs::read(&place) {
        bytes[20] ^= 1;
        std::fs::write(place, bytes).unwrap();
    }
}

#[derive(Debug, Clone)]
enum Event {
    Write { item: u32, count: u32, bytes: usize, deleted: bool },
    Pump,
    ReplicaHears(u8),
    ServerHears(u8),
    Cut,
    Connect,
    Restart { killed: bool },
    Fold,
    RestartReplica { killed: bool },
    Rot { page: u32 },
    LoseCopy,
    DamagePlace,
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0u32..400, 1u32..6, 10usize..400, any::<bool>())
            .prop_map(|(item, count, bytes, deleted)| Event::Write { item, count, bytes, deleted }),
        1 => (0u32..100, 200usize..40_000).prop_map(|(item, bytes)| Event::Write {
            item,
            count: 150,
            bytes,
            deleted: false
        }),
        8 => Just(Event::Pump),
        8 => (1u8..8).prop_map(Event::ReplicaHears),
        8 => (1u8..8).prop_map(Event::ServerHears),
        2 => Just(Event::Cut),
        4 => Just(Event::Connect),
        1 => any::<bool>().prop_map(|killed| Event::Restart { killed }),
        1 => Just(Event::Fold),
        1 => (1u32..50).prop_map(|page| Event::Rot { page }),
        1 => any::<bool>().prop_map(|killed| Event::RestartReplica { killed }),
        1 => Just(Event::LoseCopy),
        1 => Just(Event::DamagePlace),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_copy_becomes_the_database(events in proptest::collection::vec(events(), 1..60)) {
        let mut world = World::new();
        for event in events {
            match event {
                Event::Write { item, count, bytes, deleted } => world.write(item..item + count, bytes, deleted),
                Event::Pump => world.pump(),
                Event::ReplicaHears(times) => for _ in 0..times { world.replica_hears(); },
                Event::ServerHears(times) => for _ in 0..times { world.server_hears(); },
                Event::Cut => world.cut(),
                Event::Connect => world.connect(),
                Event::Restart { killed } => world.restart(killed),
                Event::Fold => world.store.truncate_log(),
                Event::RestartReplica { killed } => world.restart_replica(killed, |_| {}),
                Event::Rot { page } => world.restart_replica(true, |directory| rot(directory, page)),
                Event::DamagePlace => world.restart_replica(true, damage_place),
                Event::LoseCopy => world.restart_replica(true, |directory| std::fs::remove_dir_all(directory).unwrap()),
            }
        }
        // A page that rotted shows when something else is committed.
        world.write(1..2, 50, false);
        world.is_copied();
    }
}
