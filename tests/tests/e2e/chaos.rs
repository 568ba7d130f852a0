//! A thousand edits while cables are cut and all three daemons are killed again and again.
//!
//! Every operation leaves a mark of its own, so that a lost one and a doubled one show. The seed is
//! printed; `MFPSYNC_SEED` replays its decisions (not the timing of the machine).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mfpsync_proto::local::{Edit, ItemKey, WriteRequest};
use mfpsync_storage::Inline;
use mfpsync_storage::master::Master;
use mfpsync_storage::model::ItemKey as StoredKey;
use mfpsync_tests::item::{key, patch, put, text};
use mfpsync_tests::{Contents, Fleet, TestDevice, seed};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

const OPERATIONS: usize = 1_000;
const BURST: usize = 12;
/// Each holds a mark of every operation that patched it, and an item holds 128 fields.
const POOL: usize = 40;
const SCOPES: [&str; 2] = ["shared", "user/alice"];
/// Values two devices fight for; by kind the first or the later one stands.
const CONTESTED: [&str; 2] = ["address.shared", "ui.start-screen"];
const HEALING: Duration = Duration::from_secs(60);

fn pool(number: usize) -> ItemKey {
    key("shared", "button.shared", &format!("pool-{}", number % POOL))
}

fn mark(number: usize) -> String {
    format!("op.{number}")
}

/// What an operation writes besides its mark.
#[derive(Debug, Clone, Copy)]
enum Plan {
    /// The mark alone.
    Mark,
    /// An item of its own.
    Item,
    /// Several items that belong together.
    Together,
    /// A field that others write too.
    Contested(usize),
}

impl Plan {
    fn draw(random: &mut StdRng) -> Self {
        match random.random_range(0..10) {
            0..5 => Self::Mark,
            5..7 => Self::Item,
            7..8 => Self::Together,
            _ => Self::Contested(random.random_range(0..CONTESTED.len())),
        }
    }

    fn edits(self, number: usize) -> Vec<Edit> {
        let value = number.to_string();
        let marked = patch(pool(number), vec![text(&mark(number), &value)]);
        let own = |name: &str| put(own_item(number, name), vec![text("value", &value)]);
        match self {
            Self::Mark => vec![marked],
            Self::Item => vec![marked, own("own")],
            Self::Together => vec![own("left"), marked, own("right")],
            Self::Contested(which) => vec![marked, patch(contested(which), vec![text("value", &value)])],
        }
    }
}

fn own_item(number: usize, name: &str) -> ItemKey {
    key("user/alice", "shortcut", &format!("{name}-{number}"))
}

fn contested(which: usize) -> ItemKey {
    let scope = if which == 0 { "shared" } else { "user/alice" };
    key(scope, CONTESTED[which], "contested")
}

/// What became of an operation as far as its writer knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Acknowledged {
        /// Which device: 0 is the server.
        at: usize,
        /// That device's number for it.
        operation: u64,
    },
    /// The daemon died with the answer, or before it.
    Unknown,
}

struct Chaos {
    fleet: Fleet,
    random: StdRng,
    next: usize,
    plans: Vec<Plan>,
    fates: BTreeMap<usize, Fate>,
    down: [bool; 3],
    whole: [bool; 2],
    kills: [usize; 3],
    cuts: usize,
}

impl Chaos {
    fn device(&mut self, at: usize) -> &mut TestDevice {
        match at {
            0 => &mut self.fleet.server,
            _ => &mut self.fleet.clients[at - 1],
        }
    }

    /// Cuts, mends and restarts.
    async fn disturb(&mut self) {
        let cable = self.random.random_range(0..2);
        match self.random.random_range(0..4) {
            0 if self.whole[cable] => {
                self.fleet.relays[cable].cut();
                self.whole[cable] = false;
                self.cuts += 1;
            }
            1 | 2 if !self.whole[cable] => {
                self.fleet.relays[cable].mend();
                self.whole[cable] = true;
            }
            _ => {}
        }
        for at in 0..3 {
            if self.down[at] && self.random.random_bool(0.6) {
                self.start(at).await;
            }
        }
    }

    async fn start(&mut self, at: usize) {
        self.device(at).start().await.unwrap();
        self.down[at] = false;
    }

    /// Some writes at once at one device, which may be killed after any number of answers.
    async fn burst(&mut self) {
        let running: Vec<usize> = (0..3).filter(|at| !self.down[*at]).collect();
        if running.is_empty() {
            let at = self.random.random_range(0..3);
            return self.start(at).await;
        }
        // Luck may spare a device; in the second half it does not.
        let spared = (self.next >= OPERATIONS / 2)
            .then(|| running.iter().copied().find(|at| self.kills[*at] == 0))
            .flatten();
        let at = spared.unwrap_or_else(|| running[self.random.random_range(0..running.len())]);
        let count = self.random.random_range(1..=BURST).min(OPERATIONS - self.next);
        let kill = spared.is_some() || self.random.random_bool(0.25);
        let killed_after = kill.then(|| self.random.random_range(0..count));
        let mut answers = JoinSet::new();
        for number in self.next..self.next + count {
            let plan = Plan::draw(&mut self.random);
            self.plans.push(plan);
            self.fates.insert(number, Fate::Unknown);
            let mut local = self.device(at).local().unwrap();
            let request = WriteRequest { edits: plan.edits(number), actor: "alice".to_owned() };
            answers.spawn(async move { (number, local.write(request).await) });
        }
        self.next += count;
        let mut answered = 0;
        loop {
            if killed_after == Some(answered) && !self.down[at] {
                self.device(at).kill().unwrap();
                self.down[at] = true;
                self.kills[at] += 1;
            }
            let Some(answer) = answers.join_next().await else { return };
            answered += 1;
            match answer.unwrap() {
                (number, Ok(reply)) => {
                    let operation = reply.into_inner().operation.expect("in a group each write has a number");
                    self.fates.insert(number, Fate::Acknowledged { at, operation });
                }
                (number, Err(status)) => assert!(self.down[at], "operation {number} was refused: {status}"),
            }
        }
    }

    async fn heal(&mut self) {
        self.fleet.relays.iter().for_each(mfpsync_tests::Relay::mend);
        for at in 0..3 {
            if self.down[at] {
                self.start(at).await;
            }
        }
    }

    /// What was acknowledged, with the device and its number for it.
    fn acknowledged(&self) -> impl Iterator<Item = (usize, usize, u64)> {
        self.fates.iter().filter_map(|(number, fate)| match fate {
            Fate::Acknowledged { at, operation } => Some((*number, *at, *operation)),
            Fate::Unknown => None,
        })
    }

    /// Every acknowledged edit of a contested field is in the item's history, or was set aside at
    /// the device it was made at.
    async fn losers_are_told(&mut self) {
        let mut told: BTreeSet<(String, u64, &str)> = BTreeSet::new();
        let mut devices = Vec::new();
        for device in self.fleet.devices() {
            let id = device.status().await.unwrap().device_id;
            for edit in device.set_aside().await.unwrap() {
                assert_eq!(edit.outcome, "superseded", "{}: {edit:?}", device.name);
                let kind =
                    CONTESTED.iter().find(|kind| **kind == edit.kind).expect("only these are contested");
                told.insert((id.clone(), edit.operation, kind));
            }
            devices.push(id);
        }
        self.fleet.server.stop().await.unwrap();
        let master = Inline::<Master>::open(&self.fleet.server.master_database(), false).unwrap();
        for (which, kind) in CONTESTED.into_iter().enumerate() {
            let item = contested(which);
            let item = StoredKey::parse(&item.scope, &item.kind, &item.device, &item.id).unwrap();
            for entry in master.read(|read| read.history(&item, u32::MAX)).unwrap() {
                told.insert((entry.device.to_string(), entry.operation.0, kind));
            }
        }
        for (number, at, operation) in self.acknowledged() {
            if let Plan::Contested(which) = self.plans[number] {
                let found = told.contains(&(devices[at].clone(), operation, CONTESTED[which]));
                assert!(found, "nobody knows what became of operation {number}");
            }
        }
    }

    /// Which operations are in the group's data; each must be there whole or not at all.
    fn landed(&self, contents: &Contents) -> BTreeSet<usize> {
        let mut landed = BTreeSet::new();
        for (number, plan) in self.plans.iter().enumerate() {
            let value = number.to_string();
            let marked = contents.text(&pool(number), &mark(number));
            assert!(marked.is_none_or(|found| found == value), "operation {number} is garbled");
            let names: &[&str] = match plan {
                Plan::Item => &["own"],
                Plan::Together => &["left", "right"],
                Plan::Mark | Plan::Contested(_) => &[],
            };
            for name in names {
                let own = contents.text(&own_item(number, name), "value");
                assert_eq!(own.is_some(), marked.is_some(), "operation {number} is there by halves");
            }
            if marked.is_some() {
                landed.insert(number);
            }
        }
        landed
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_or_doubled_whatever_is_killed_or_cut() {
    let seed = seed();
    println!("seed {seed} (MFPSYNC_SEED={seed} replays it)");
    let begun = std::time::Instant::now();
    let mut fleet = Fleet::start(2).await.unwrap();
    for device in std::iter::once(&mut fleet.server).chain(&mut fleet.clients) {
        // Connections that break are what this test is about; an error is still one too many.
        device.log.expect(" WARN ");
    }
    let head = fleet.server.status().await.unwrap().server.unwrap().head.unwrap().sequence;
    let mut chaos = Chaos {
        fleet,
        random: StdRng::seed_from_u64(seed),
        next: 0,
        plans: Vec::new(),
        fates: BTreeMap::new(),
        down: [false; 3],
        whole: [true; 2],
        kills: [0; 3],
        cuts: 0,
    };
    while chaos.next < OPERATIONS {
        chaos.disturb().await;
        chaos.burst().await;
    }
    assert!(chaos.kills.iter().all(|kills| *kills > 0), "somebody was spared: {:?}", chaos.kills);
    assert!(chaos.cuts > 0, "no cable was cut");
    chaos.heal().await;
    let contents = chaos.fleet.converged(&SCOPES, HEALING).await.unwrap();

    let landed = chaos.landed(&contents);
    let acknowledged: BTreeSet<usize> = chaos.acknowledged().map(|(number, _, _)| number).collect();
    println!(
        "{} operations, {} acknowledged, {} landed; {:?} kills, {} cuts; {:.1} s",
        chaos.next,
        acknowledged.len(),
        landed.len(),
        chaos.kills,
        chaos.cuts,
        begun.elapsed().as_secs_f32()
    );
    let lost: Vec<_> = acknowledged.difference(&landed).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    // Each operation changes something, so each takes exactly one place in the order.
    let end = chaos.fleet.server.status().await.unwrap().server.unwrap().head.unwrap().sequence;
    assert_eq!(end - head, landed.len() as u64, "operations in the order against operations in the data");

    for which in 0..CONTESTED.len() {
        let Some(value) = contents.text(&contested(which), "value") else { continue };
        let winner: usize = value.parse().unwrap();
        assert!(landed.contains(&winner), "a value of an operation that is not there: {winner}");
        assert!(matches!(chaos.plans[winner], Plan::Contested(written) if written == which));
    }
    chaos.losers_are_told().await;
}
