//! Connections between devices and the machines that may serve them: streams keep their order, connections
//! break as a whole, cuts hold back what is on its way, and what was sent may arrive after its sender left.

use std::collections::{BTreeMap, VecDeque};

use mfpsync_proto::{replica, sync};
use mfpsync_replication::round::LinkId;
use mfpsync_storage::model::OperationNumber;
use mfpsync_storage::physical::Position;
use rand::RngExt;

use super::swarm::SECOND;
use super::world::{Event, World};

/// From a client to the server.
#[derive(Debug, Clone)]
pub(super) enum Up {
    Dial,
    Hello(sync::HelloRequest),
    Follow(sync::FollowRequest),
    Push(sync::PushRequest, Vec<OperationNumber>),
    /// What the replica says on its stream.
    Said(replica::FromReplica),
    /// The replica asks its server to stand down.
    StandDown,
    Close,
}

/// From the server to a client.
#[derive(Debug, Clone)]
pub(super) enum Down {
    Dialled,
    Greeted(Result<sync::HelloReply, sync::Refusal>),
    Followed(sync::FollowEvent),
    FollowEnded(sync::Refusal),
    Pushed(Vec<OperationNumber>, Result<sync::PushReply, sync::Refusal>),
    /// For the replica.
    Shipped(replica::ToReplica),
    /// The replica's stream ended.
    ShipEnded,
    /// Where the server stood when it stood down; none if it goes on.
    Drained(Option<Position>),
}

#[derive(Debug, Clone)]
pub(super) enum Message {
    Up(Up),
    Down(Down),
}

impl Message {
    /// Messages of one lane arrive in order; calls on one connection overtake each other.
    fn lane(&self) -> usize {
        match self {
            Self::Up(Up::Push(..)) => 1,
            Self::Up(_) => 0,
            Self::Down(Down::Followed(_) | Down::FollowEnded(_) | Down::Shipped(_) | Down::ShipEnded) => 2,
            Self::Down(_) => 3,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Up(Up::Dial) => "dial",
            Self::Up(Up::Hello(_)) => "hello",
            Self::Up(Up::Follow(_)) => "follow",
            Self::Up(Up::Push(..)) => "push",
            Self::Up(Up::Said(_)) => "word of the replica",
            Self::Up(Up::StandDown) => "stand down",
            Self::Up(Up::Close) => "close",
            Self::Down(Down::Dialled) => "dialled",
            Self::Down(Down::Greeted(_)) => "greeting",
            Self::Down(Down::Followed(_)) => "event",
            Self::Down(Down::FollowEnded(_)) => "stream ends",
            Self::Down(Down::Pushed(..)) => "outcomes",
            Self::Down(Down::Shipped(_)) => "pages",
            Self::Down(Down::ShipEnded) => "pages end",
            Self::Down(Down::Drained(_)) => "stood down",
        }
    }
}

/// One attempt to connect and what became of it.
#[derive(Debug)]
pub(super) struct Connection {
    pub device: usize,
    /// The machine it leads to.
    pub house: usize,
    /// Of the device's round; none of its replica part.
    pub link: Option<LinkId>,
    /// The client still listens.
    pub client: bool,
    /// Nothing arrives any more.
    pub broken: bool,
    lanes: [Lane; 4],
}

/// What is under way in one order.
#[derive(Debug, Default)]
struct Lane {
    messages: VecDeque<Message>,
    /// Nothing arrives before what was sent earlier.
    until: u64,
}

#[derive(Debug, Default)]
pub(super) struct Network {
    pub connections: BTreeMap<u64, Connection>,
    last: u64,
    /// Until when each device's packets are held back: to the server, from the server.
    pub cuts: BTreeMap<usize, [u64; 2]>,
}

impl Network {
    /// Until when nothing arrives between a device and a machine, in one direction.
    pub(super) fn held_until(&self, device: usize, house: usize, down: bool) -> u64 {
        let cut = |of: usize, down: bool| self.cuts.get(&of).map_or(0, |cut| cut[usize::from(down)]);
        // What comes down to the device goes up from the machine.
        if device == house { 0 } else { cut(device, down).max(cut(house, !down)) }
    }
}

impl World {
    pub(super) fn connect(&mut self, device: usize, house: usize, link: Option<LinkId>, client: bool) -> u64 {
        self.network.last += 1;
        let connection = Connection { device, house, link, client, broken: false, lanes: Default::default() };
        self.network.connections.insert(self.network.last, connection);
        self.network.last
    }

    pub(super) fn delay(&mut self) -> u64 {
        let (least, most) = self.swarm.delay;
        self.rng.random_range(least..=most)
    }

    pub(super) fn send(&mut self, connection: u64, message: Message) {
        let delay = self.delay();
        let within =
            self.network.connections.get(&connection).is_some_and(|known| known.device == known.house);
        if !self.healed && !within && self.chance(self.swarm.lose) {
            return self.break_connection(connection, "lost");
        }
        let now = self.now;
        let Some(known) = self.network.connections.get_mut(&connection) else { return };
        let lane = message.lane();
        let mut at = (now + delay).max(known.lanes[lane].until);
        if matches!(message, Message::Up(Up::Close)) {
            // Closing comes behind all that was sent before.
            at = at.max(known.lanes[1].until);
        }
        known.lanes[lane].until = at;
        known.lanes[lane].messages.push_back(message);
        self.schedule_at(at, Event::Net { connection, lane });
    }

    /// Nothing of it arrives any more; the client may or may not hear of it.
    pub(super) fn break_connection(&mut self, connection: u64, why: &str) {
        let heard = self.rng.random_bool(0.7);
        let delay = self.delay();
        let Some(known) = self.network.connections.get_mut(&connection).filter(|known| !known.broken) else {
            return;
        };
        known.broken = true;
        let (device, house) = (known.device, known.house);
        self.server_loses(house, connection);
        self.note(format_args!("connection {connection} of device {device} breaks: {why}"));
        if heard {
            self.schedule(delay, Event::Broken { connection });
        } else {
            self.network.connections.remove(&connection);
        }
    }

    /// The oldest message of a lane has come as far as it can.
    pub(super) fn arrives(&mut self, connection: u64, lane: usize) {
        let Some(known) = self.network.connections.get(&connection).filter(|known| !known.broken) else {
            return;
        };
        let (device, house, listens) = (known.device, known.house, known.client);
        let until = self.network.held_until(device, house, lane >= 2);
        if until > self.now {
            // A cut holds packets back until it heals, or the connection breaks over it.
            return match self.rng.random_bool(0.15) {
                true => self.break_connection(connection, "cut"),
                false => self.schedule_at(until, Event::Net { connection, lane }),
            };
        }
        let known = self.network.connections.get_mut(&connection);
        let Some(message) = known.and_then(|known| known.lanes[lane].messages.pop_front()) else { return };
        self.note(format_args!("{} on connection {connection} of device {device}", message.name()));
        match message {
            Message::Up(up) if self.houses[house].serving.is_none() => {
                if !self.signpost_takes(connection, house, &up) {
                    self.break_connection(connection, "nobody serves there");
                }
            }
            Message::Up(up) => {
                if !listens && matches!(up, Up::Push(..)) {
                    self.counters.sometimes("old push delivered late or again");
                }
                self.server_takes(connection, house, up);
            }
            Message::Down(_) if !listens => self.server_loses(house, connection),
            Message::Down(down) => self.client_takes(connection, down),
        }
    }

    /// The client lets go; what it sent before still arrives.
    pub(super) fn hang_up(&mut self, connection: u64, says_so: bool) {
        let Some(known) = self.network.connections.get_mut(&connection) else { return };
        known.client = false;
        if says_so {
            self.send(connection, Message::Up(Up::Close));
        }
    }

    /// A request sent before comes again, on a path of its own.
    pub(super) fn maybe_replay(&mut self, device: usize) {
        if self.healed || !self.chance(self.swarm.replay) || self.devices[device].pushed.is_empty() {
            return;
        }
        let choice = self.rng.random_range(0..self.devices[device].pushed.len());
        let (house, request, numbers) = self.devices[device].pushed[choice].clone();
        let wait = self.rng.random_range(0..20 * SECOND);
        let connection = self.connect(device, house, Some(LinkId(0)), false);
        if let Some(known) = self.network.connections.get_mut(&connection) {
            // Sent on behind the wait.
            known.lanes[1].until = self.now + wait;
        }
        self.send(connection, Message::Up(Up::Push(request, numbers)));
    }
}
