//! What a server sends its replica, and what may be acknowledged and shown meanwhile: the product's
//! [`Shipping`] and [`Protection`] behind its own tap, carried as the daemon's `replicating` carries them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mfpsync_replication::protection::{PATIENCE, Protection, State};
use mfpsync_replication::ship::{Logical, Next, Proven, Shipping};
use mfpsync_replication::stream::{FromReplica, ToReplica};
use mfpsync_replication::wire::to_replica_to_wire;
use mfpsync_storage::master::{Durability, Master, MasterRead, Replication};
use mfpsync_storage::model::{ContentHash, Sequence};
use mfpsync_storage::physical::{Changed, LogId, Pages};
use mfpsync_storage::tap::{Tap, Verdict};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::house::EVERYTHING;
use super::network::{Down, Message};
use super::server::HEARTBEAT;
use super::swarm::{Defect, SECOND};
use super::world::{Event, World};

/// How long a server that stood down waits for its successor, and for its replica before that.
const STANDS_DOWN: u64 = 30 * SECOND;
const DRAINS: u64 = 5 * SECOND;

/// So often servers ask each other who reigns, and are told; in seconds.
pub(super) const ASKS: u64 = 30;

pub(super) struct Feeding {
    pub shipping: Shipping,
    pub protection: Protection,
    pub now: Duration,
    names: StdRng,
    /// The run of transactions and the last of them.
    pub at: Option<(LogId, u64)>,
}

struct ServerTap(Arc<Mutex<Feeding>>);

impl Feeding {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            shipping: Shipping::default(),
            protection: Protection::new(Durability::Async, false),
            now: Duration::ZERO,
            names: StdRng::seed_from_u64(seed),
            at: None,
        }
    }
}

impl Tap<Master> for ServerTap {
    fn name(&mut self) -> LogId {
        LogId(self.0.lock().expect("state").names.random())
    }

    fn begin(&mut self, pages: &mut Pages, kept: Option<&[u8]>, read: &MasterRead<'_>) {
        let mut feeding = self.0.lock().expect("state");
        feeding.shipping.begin(kept, logical(read));
        feeding.protection.begin(pages.transaction());
        feeding.at = Some((pages.log(), pages.transaction()));
    }

    fn changed(&mut self, changed: Changed<'_>) {
        self.0.lock().expect("state").shipping.changed(&changed);
    }

    fn committed(&mut self, pages: &mut Pages, read: &MasterRead<'_>) {
        let mut feeding = self.0.lock().expect("state");
        feeding.shipping.committed(logical(read));
        let now = feeding.now;
        feeding.protection.committed(pages.transaction(), now);
        feeding.at = Some((pages.log(), pages.transaction()));
    }

    fn verdict(&self) -> Verdict {
        self.0.lock().expect("state").protection.verdict()
    }

    fn keep(&self) -> Vec<u8> {
        self.0.lock().expect("state").shipping.keep()
    }
}

fn logical(read: &MasterRead<'_>) -> Option<Logical> {
    let head = read.head().expect("read the head")?;
    Some(Logical { group: head.group, epoch: head.epoch, sequence: head.sequence, chain: head.chain })
}

impl World {
    /// A server feeds this replica from now on, or nobody; `chosen`: an operator just said so.
    pub(super) fn set_replica_there(&mut self, house: usize, set: Option<Replication>, chosen: bool) {
        let serving = self.houses[house].server();
        let same = serving.set.map(|set| set.device) == set.map(|set| set.device);
        serving.set = set;
        let durability = set.map_or(Durability::Async, |set| set.durability);
        let mut turn = None;
        if same && set.is_some() {
            turn = serving.feeding.lock().expect("state").protection.choose(durability);
        } else {
            if let Some(connection) = serving.ship.take() {
                self.send(connection, Message::Down(Down::ShipEnded));
            }
            let serving = self.houses[house].server();
            {
                let mut feeding = serving.feeding.lock().expect("state");
                feeding.shipping = Shipping::default();
                feeding.protection = Protection::new(durability, chosen);
                feeding.at = None;
            }
            let tap = set.map(|_| Box::new(ServerTap(serving.feeding.clone())) as Box<dyn Tap<Master>>);
            serving.master.set_tap(tap).expect("set a tap");
        }
        self.turned(house, turn);
        self.remember(house);
        self.feed(house);
    }

    /// Something was committed, or heard: shows and sends what is to be shown and sent, and answers.
    pub(super) fn feed(&mut self, house: usize) {
        if self.options.defect == Some(Defect::AnswersBeforeTheReplica) {
            let all: Vec<u64> = self.houses[house].serving().waiting.keys().copied().collect();
            all.into_iter().for_each(|ticket| self.answer(house, ticket, true));
        }
        self.show(house);
        self.ship(house);
        self.settle_calls(house);
        self.has_drained(house);
    }

    /// Says what may be shown, and what is safe.
    fn show(&mut self, house: usize) {
        let serving = self.houses[house].server();
        let (durable, verdict) = {
            let feeding = serving.feeding.lock().expect("state");
            (feeding.shipping.durable().copied(), feeding.protection.verdict())
        };
        let through = match verdict {
            Verdict::ALL => EVERYTHING,
            Verdict { .. } => durable.map_or(Sequence::ZERO, |durable| durable.sequence),
        };
        serving.hub.confirmed = through;
        serving.hub.safe = serving.set.and(durable).map(|durable| durable.sequence);
        if serving.set.is_none() && self.swarm.houses == 1 {
            // As when most of the group has it: an arbitrary, but lasting mark.
            serving.hub.safe = Some(Sequence(serving.hub.head.sequence.0 / 2));
        }
        if self.options.defect == Some(Defect::CallsEverythingSafe) && serving.set.is_some() {
            serving.hub.safe = Some(serving.hub.head.sequence);
        }
        if let Some(durable) = durable {
            self.check_held(house, &durable);
        }
        self.show_what_is_held(house);
    }

    /// Sends the replica what is to be sent.
    fn ship(&mut self, house: usize) {
        loop {
            let serving = self.houses[house].server();
            let Some(connection) = serving.ship else { return };
            let feeding = serving.feeding.clone();
            let next = {
                let Ok(pages) = serving.master.pages() else { return };
                feeding.lock().expect("state").shipping.next(pages).expect("read pages")
            };
            match next {
                Next::Send(message) => {
                    self.send(connection, Message::Down(Down::Shipped(to_replica_to_wire(message))));
                }
                Next::Again => {}
                Next::Wait => return,
                Next::Close => return self.end_ship(house, "the connection begins anew"),
                Next::Ahead => {
                    self.counters.sometimes("copy ahead of its server");
                    return self.end_ship(house, "the copy is ahead of this server");
                }
            }
        }
    }

    /// The replica said something on its stream.
    pub(super) fn heard(&mut self, house: usize, connection: u64, said: FromReplica) {
        let serving = self.houses[house].server();
        if serving.ship != Some(connection) {
            return;
        }
        let feeding = serving.feeding.clone();
        let Ok(pages) = serving.master.pages() else { return };
        if matches!(said, FromReplica::Differs { .. }) {
            self.counters.sometimes("copy did not become what it should be");
        }
        let heard = {
            let mut feeding = feeding.lock().expect("state");
            feeding.shipping.heard(said, pages).map(|proven| {
                let durable = feeding.shipping.durable().map(|durable| durable.transaction);
                (proven, durable.and_then(|transaction| feeding.protection.confirmed(transaction)))
            })
        };
        let (proven, turn) = heard.expect("read pages");
        if let Some(proven) = proven {
            self.proven(house, &proven);
        }
        self.turned(house, turn);
        self.feed(house);
    }

    /// Asks the replica to prove its copy, if both stand at one moment.
    pub(super) fn prove(&mut self, house: usize) {
        let serving = self.houses[house].server();
        serving.proofs += 1;
        let (proof, feeding) = (serving.proofs, serving.feeding.clone());
        let Ok(pages) = serving.master.pages() else { return };
        let asked = feeding.lock().expect("state").shipping.prove(proof, pages).is_some();
        if asked {
            let content = self.houses[house].read(|read| read.content_hashes());
            let content = content.into_values().fold(ContentHash::EMPTY, ContentHash::and);
            self.reigns.proofs.insert((house, proof), content);
            self.feed(house);
        }
    }

    /// I-11: the copy holds what the server held when it asked.
    fn proven(&mut self, house: usize, proven: &Proven) {
        let Some(expected) = self.reigns.proofs.remove(&(house, proven.proof)) else { return };
        match &proven.content {
            Ok(content) => {
                self.counters.sometimes("copy proven");
                self.require(
                    *content == expected,
                    "I-11",
                    format_args!("the copy's items are not those of {house}"),
                );
            }
            // What comes too late finds the copy somewhere else.
            Err(why) => self.note(format_args!("no proof: {why}")),
        }
    }

    /// Records durably what is not protected.
    fn turned(&mut self, house: usize, turn: Option<State>) {
        let Some(turn) = turn else { return };
        self.note(format_args!("machine {house} turns to {turn:?}"));
        let durable = self.houses[house].serving().feeding.lock().expect("state").shipping.durable().copied();
        let durable = durable.map_or(Sequence::ZERO, |durable| durable.sequence);
        let now = self.wall_clock(self.houses[house].clock_error);
        match turn {
            State::Held => return self.counters.sometimes("changes held for want of the replica"),
            State::Unprotected => {
                self.counters.sometimes("changes acknowledged without the replica");
                self.commit(house, Vec::new(), |write| write.begin_unprotected(durable, now));
            }
            State::Protected => self.commit(house, Vec::new(), |write| write.end_unprotected(durable)),
        }
        self.remember(house);
    }

    /// The replica's stream is no more.
    pub(super) fn end_ship(&mut self, house: usize, why: &str) {
        let serving = self.houses[house].server();
        let Some(connection) = serving.ship.take() else { return };
        serving.feeding.lock().expect("state").shipping.disconnected();
        self.note(format_args!("the replica's stream at machine {house} ended: {why}"));
        self.send(connection, Message::Down(Down::ShipEnded));
    }

    /// Looks whether somebody waits too long, and tells the replica that the server lives.
    pub(super) fn watch(&mut self, house: usize, boot: u64) {
        if self.houses[house].boot != boot || self.houses[house].serving.is_none() {
            return;
        }
        let now = self.now;
        let serving = self.houses[house].server();
        let turn = serving.feeding.lock().expect("state").protection.tick(Duration::from_micros(now));
        debug_assert!(PATIENCE >= Duration::from_secs(1), "the watch comes often enough");
        if let Some((since, asked)) = serving.standing_down {
            if now >= since + DRAINS
                && let Some(connection) = asked
            {
                serving.standing_down = None;
                self.send(connection, Message::Down(Down::Drained(None)));
            } else if now >= since + STANDS_DOWN {
                serving.standing_down = None;
                self.counters.sometimes("nobody took over and the server went on");
            }
        }
        self.turned(house, turn);
        let beats = (self.now / SECOND).is_multiple_of(HEARTBEAT / SECOND);
        let serving = self.houses[house].server();
        if let (true, Some(connection)) = (beats, serving.ship) {
            let feeding = serving.feeding.clone();
            let position = serving
                .master
                .pages()
                .ok()
                .and_then(|pages| feeding.lock().expect("state").shipping.position(pages));
            if let Some(position) = position {
                let head = to_replica_to_wire(ToReplica::Head(position));
                self.send(connection, Message::Down(Down::Shipped(head)));
            }
        }
        self.feed(house);
        if (self.now / SECOND).is_multiple_of(ASKS) && self.houses.len() > 1 && !self.ask_others(house) {
            return;
        }
        self.schedule(SECOND, Event::Watch { house, boot });
    }

    /// The replica asks the server to take no more: answered when the copy has all there is.
    pub(super) fn stands_down(&mut self, house: usize, connection: u64) {
        let now = self.now;
        self.note(format_args!("machine {house} stands down"));
        self.houses[house].server().standing_down = Some((now, Some(connection)));
        self.feed(house);
    }

    fn has_drained(&mut self, house: usize) {
        let serving = self.houses[house].server();
        let Some((since, Some(connection))) = serving.standing_down else { return };
        let head = serving.master.read(|read| read.founded_head()).expect("a head");
        let durable = serving.feeding.lock().expect("state").shipping.durable().copied();
        if let Some(durable) = durable.filter(|durable| durable.sequence >= head.sequence) {
            serving.standing_down = Some((since, None));
            self.send(connection, Message::Down(Down::Drained(Some(durable))));
        }
    }
}
