//! The operator: sets replicas, promotes them, switches machines off and on, and makes mistakes. In the end
//! puts everything right that can be put right.

use std::time::Duration;

use mfpsync_daemon::control_file::Way;
use mfpsync_daemon::role::{Part, Role};
use mfpsync_replication::round::{End, LinkState, Timing};
use mfpsync_storage::Inline;
use mfpsync_storage::master::{Durability, Master, Replication};
use mfpsync_storage::model::{Capabilities, Member, Sequence};
use mfpsync_storage::physical::Position;
use rand::RngExt;

use super::copy::Handover;
use super::house::{certificate, device_id, endpoint, house_at};
use super::network::{Message, Up};
use super::swarm::{MINUTE, SECOND, pick};
use super::world::{Event, World};

/// How long the copy may take to hold what the server said was the last of its reign.
const PATIENCE: u64 = 5 * SECOND;
/// Between two looks of an operator who puts everything right.
const LOOK: u64 = 5 * SECOND;
/// A device that has not found its server by then is paired anew.
const STUCK: u64 = 3 * MINUTE;
/// The same where a connection may take longer than a device waits for it, so that some attempts come to nothing.
const STUCK_WHERE_SLOW: u64 = 9 * MINUTE;

/// What the operator does now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Sets a replica, or chooses again when changes are acknowledged.
    Replicate,
    /// Ends replication.
    StopReplica,
    /// Has the replica take over from a server that stands down.
    Handover,
    /// Has the replica take over from a server that is lost, or is said to be.
    Promote,
    /// The server is lost and the replica takes over; the server comes back some time later.
    Replace,
    /// Starts the server part on a machine whose reign ended, or begins nothing: it never was one.
    StartServer,
    /// Switches a machine off for long.
    Off,
    /// Has the copy proven.
    Prove,
    /// Puts the disk of a machine back to an earlier image, of a client or a server that was replaced.
    PutBack,
    /// Puts an empty disk into a machine that is not the server.
    EmptyDisk,
    /// Has a machine take over that was the replica and has not heard that it is no more.
    PromoteFormer,
    /// Sets another replica while the one before does not hear of it; later the server is lost and both of
    /// them take over.
    Fork,
    /// Has a server stay where two claim a reign, whichever it is.
    Stay,
    /// Switches a replica off, and a bit of its copy changes meanwhile.
    Rot,
}

impl World {
    /// Machines that serve, the highest reign first.
    pub(super) fn servers(&self) -> Vec<usize> {
        let mut serving: Vec<usize> =
            (0..self.houses.len()).filter(|house| self.houses[*house].serving.is_some()).collect();
        serving.sort_by_key(|house| {
            let head = self.houses[*house].read(|read| read.founded_head());
            std::cmp::Reverse((head.epoch.number, head.sequence))
        });
        serving
    }

    /// The machine the operator takes for the server; none while none is on.
    pub(super) fn present_server(&self) -> Option<usize> {
        self.servers().first().copied()
    }

    pub(super) fn operator_acts(&mut self, act: Act) {
        self.note(format_args!("the operator: {act:?}"));
        let lasts = self.rng.random_range(10 * SECOND..2 * MINUTE);
        match act {
            Act::Replicate => self.replicates(None),
            Act::StopReplica => {
                if let Some(server) = self.present_server() {
                    self.stops_replica(server);
                }
            }
            Act::Handover => {
                if let Some(house) = self.some_replica() {
                    self.hands_over(house);
                }
            }
            Act::Promote => {
                if let Some(house) = self.some_replica() {
                    self.promotes(house);
                }
            }
            Act::Replace => {
                let server = self.present_server();
                let set = server.and_then(|server| self.houses[server].serving().set);
                let (Some(server), Some(set)) = (server, set) else { return };
                let replica = usize::from(set.device.0[0]) - 1;
                self.power_cut(server, lasts);
                self.promotes(replica);
            }
            Act::StartServer => {
                let house = self.rng.random_range(0..self.houses.len());
                let own = &self.houses[house];
                let takes = own.serving.is_none() && own.copying.is_none() && own.master_path().exists();
                if takes && !own.off {
                    self.counters.sometimes("server started again after its reign");
                    self.houses[house].control.set_wanted(Role::ServerClient).expect("a role");
                    self.follow_role(house);
                }
            }
            Act::Off => {
                let house = self.rng.random_range(0..self.houses.len());
                if !self.houses[house].off {
                    self.power_cut(house, lasts);
                }
            }
            Act::Prove => {
                if let Some(server) = self.present_server() {
                    self.prove(server);
                }
            }
            Act::PutBack => self.puts_back(),
            Act::EmptyDisk => self.empties(),
            Act::PromoteFormer => {
                let server = self.present_server();
                let set = server.and_then(|server| self.houses[server].serving().set);
                let former = (0..self.houses.len()).find(|house| {
                    self.houses[*house].copying.is_some()
                        && set.is_none_or(|set| set.device != device_id(*house))
                });
                if let Some(former) = former {
                    self.promotes(former);
                }
            }
            Act::Fork => self.begins_a_fork(),
            Act::Stay => {
                let contested = |house: &usize| {
                    self.houses[*house].serving.as_ref().is_some_and(|serving| !serving.rivals.is_empty())
                };
                if let Some(house) = (0..self.houses.len()).rev().find(contested) {
                    self.stays(house);
                }
            }
            Act::Rot => {
                if let Some(house) = self.some_replica() {
                    self.power_cut(house, lasts);
                    self.rots(house);
                }
            }
        }
    }

    fn begins_a_fork(&mut self) {
        let Some(server) = self.present_server() else { return };
        let set = self.houses[server].serving().set.map(|set| usize::from(set.device.0[0]) - 1);
        let Some(former) = set.filter(|replica| self.may_take_over(*replica).is_some()) else { return };
        let fits = |house: &usize| {
            ![server, former].contains(house) && self.houses[server].serving().introduced.contains(house)
        };
        let Some(next) = (0..self.houses.len()).find(fits) else { return };
        let until = self.now + 2 * MINUTE;
        self.cut(former, [until, until]);
        self.replicates(Some(next));
        self.schedule(MINUTE, Event::Fork { server, former, next });
    }

    /// The server is lost, and both that were its replica take over.
    pub(super) fn forks(&mut self, server: usize, former: usize, next: usize) {
        if self.healed || self.houses[server].off {
            return;
        }
        let lasts = self.rng.random_range(10 * SECOND..2 * MINUTE);
        self.power_cut(server, lasts);
        self.promotes(next);
        self.promotes(former);
    }

    fn some_replica(&mut self) -> Option<usize> {
        let replicas: Vec<usize> =
            (0..self.houses.len()).filter(|house| self.houses[*house].copying.is_some()).collect();
        if replicas.is_empty() { None } else { Some(pick(&mut self.rng, &replicas)) }
    }

    /// Sets a replica at the server, with the recovery kit at hand.
    fn replicates(&mut self, wanted: Option<usize>) {
        let Some(server) = self.present_server() else { return };
        let fits = |house: &usize| {
            *house != server
                && !self.houses[*house].off
                && self.houses[server].serving().introduced.contains(house)
                && self.houses[server].member(*house).is_some_and(|row| !row.released)
        };
        let devices: Vec<usize> = (0..self.houses.len()).filter(fits).collect();
        let before = self.houses[server].serving().set;
        let known = before.map(|set| usize::from(set.device.0[0]) - 1);
        let device = match wanted.or(known.filter(|_| self.rng.random_bool(0.5))) {
            Some(device) if devices.contains(&device) => device,
            Some(_) => return,
            None if devices.is_empty() => return,
            None => pick(&mut self.rng, &devices),
        };
        if known.is_some_and(|known| known != device) {
            self.stops_replica(server);
        }
        let durability = self.swarm.durability.unwrap_or_else(|| {
            pick(&mut self.rng, &[Durability::Async, Durability::SyncHold, Durability::SyncContinue])
        });
        let set = Replication { device: device_id(device), durability };
        self.note(format_args!("machine {device} is to be the replica of machine {server}: {durability:?}"));
        let Some(row) = self.houses[server].member(device) else { return };
        let certificate = certificate(device);
        self.commit(server, Vec::new(), |write| {
            write.put_issuer(&certificate)?;
            write.set_replication(Some(&set))
        });
        let capabilities = row.capabilities.with(Capabilities::REPLICATE).with(Capabilities::SERVE);
        let row = Member { capabilities, endpoints: vec![endpoint(device)], version: row.version + 1, ..row };
        self.put_row(server, row);
        self.set_replica_there(server, Some(set), true);
        self.committed(server);
    }

    pub(super) fn stops_replica(&mut self, server: usize) {
        let Some(set) = self.houses[server].serving().set else { return };
        // Whoever waits for the replica is answered.
        self.set_replica_there(server, Some(Replication { durability: Durability::Async, ..set }), true);
        self.commit(server, Vec::new(), |write| write.set_replication(None));
        let device = usize::from(set.device.0[0]) - 1;
        if let Some(row) = self.houses[server].member(device) {
            let capabilities = row.capabilities.without(Capabilities::REPLICATE);
            self.put_row(server, Member { capabilities, version: row.version + 1, ..row });
        }
        self.set_replica_there(server, None, true);
        if !self.healed && self.rng.random_bool(0.4) {
            // It does not hear of it for a while.
            let until = self.now + 2 * MINUTE;
            self.cut(device, [until, until]);
        }
        self.counters.sometimes("replication stopped");
    }

    /// Whether the machine may make its copy the master database; where that stands.
    fn may_take_over(&self, house: usize) -> Option<Position> {
        let own = &self.houses[house];
        let position = own.copying.as_ref()?.standby.position()?;
        let certified = self.devices[house].read(|read| read.issuers());
        let certified = certified.iter().any(|issuer| issuer.record.device == device_id(house));
        (own.epoch_seen() <= position.epoch.number && certified).then_some(position)
    }

    /// The operator says at a replica that the server is lost, whether it is or not.
    fn promotes(&mut self, house: usize) {
        if self.houses[house].off || self.may_take_over(house).is_none() {
            return self.counters.sometimes("promotion refused");
        }
        let alive = self.servers().iter().any(|server| !self.houses[*server].serving().sealed);
        self.counters.sometimes(if alive {
            "promotion beside a living server"
        } else {
            "promotion after a loss"
        });
        self.takes_over(house, Way::Lost);
    }

    fn takes_over(&mut self, house: usize, way: Way) {
        let heard = self.houses[house].copying.as_ref().and_then(|copying| copying.server);
        let known = heard.map_or(Sequence::ZERO, |server| server.sequence);
        self.houses[house].control.begin_takeover("panel", way, known).expect("begin a takeover");
        self.follow_role(house);
    }

    /// The operator has the server stand down first.
    fn hands_over(&mut self, house: usize) {
        if self.may_take_over(house).is_none() {
            return self.counters.sometimes("promotion refused");
        }
        let connected =
            self.houses[house].copying.as_ref().is_some_and(|copying| copying.connection.is_some());
        let Some(server) = self.endpoints(house).first().map(|endpoint| house_at(endpoint)) else { return };
        if connected {
            let connection = self.connect(house, server, None, true);
            self.send(connection, Message::Up(Up::StandDown));
        }
    }

    /// The server stood down, or does not.
    pub(super) fn stood_down(&mut self, house: usize, last: Option<Position>) {
        let Some(last) = last else { return self.counters.sometimes("server did not stand down") };
        if self.houses[house].copying.is_some() {
            let handover = Handover { house, last, until: self.now + PATIENCE };
            self.hand_over_when_all_came(handover);
        }
    }

    pub(super) fn hand_over_when_all_came(&mut self, handover: Handover) {
        let Handover { house, last, until } = handover;
        let Some(copying) = &self.houses[house].copying else { return };
        if copying.standby.position().is_some_and(|position| position.sequence >= last.sequence) {
            self.counters.sometimes("planned handover");
            self.takes_over(house, Way::HandedOver { swaps: false });
        } else if self.now < until {
            self.schedule(SECOND / 10, Event::Handover(handover));
        }
    }

    /// Puts right what a person can put right; true when nothing is left to do.
    pub(super) fn put_right(&mut self) -> bool {
        for house in 0..self.houses.len() {
            self.power_up(house);
            if self.houses[house].control.current().takeover.is_some() {
                self.start_parts(house);
            }
        }
        let Some((house, serves)) = self.best_reign() else {
            self.violate("I-08", format_args!("nobody holds the group's data any more"));
            return true;
        };
        for other in self.servers().into_iter().filter(|other| *other != house) {
            // One reigns; the others go on as clients.
            self.counters.sometimes("operator stopped a second server");
            self.retire(other);
        }
        if self.houses[house].serving.is_none() {
            if serves {
                self.counters.sometimes("operator found nobody serving and started a server");
                self.houses[house].control.set_wanted(Role::ServerClient).expect("a role");
                self.follow_role(house);
            } else {
                self.counters.sometimes("operator found nobody serving and promoted a copy");
                self.promotes(house);
            }
            return false;
        }
        if self.houses[house].serving().sealed {
            return false;
        }
        if !self.houses[house].serving().rivals.is_empty() {
            self.stays(house);
            return false;
        }
        self.rescues(house)
    }

    fn retire(&mut self, house: usize) {
        self.houses[house].control.set_wanted(Role::Client).expect("a role");
        self.follow_role(house);
    }

    /// The machine that has the highest reign there is, and whether as a master database or as a copy only.
    fn best_reign(&self) -> Option<(usize, bool)> {
        let mut best: Option<((u64, bool, u64), usize)> = None;
        for (house, own) in self.houses.iter().enumerate() {
            if let Some(position) = self.may_take_over(house) {
                best = best.max(Some(((position.epoch.number, false, position.sequence.0), house)));
            }
            let head = match &own.serving {
                Some(_) => Some(own.read(|read| read.founded_head())),
                None if own.copying.is_none() && own.master_path().exists() => {
                    let master =
                        Inline::<Master>::open(&own.master_path(), false).expect("a master database");
                    Some(master.read(|read| read.founded_head()).expect("a head"))
                }
                None => None,
            };
            if let Some(head) = head.filter(|head| head.epoch.number >= own.epoch_seen()) {
                best = best.max(Some(((head.epoch.number, true, head.sequence.0), house)));
            }
        }
        best.map(|((_, serves, _), house)| (house, serves))
    }

    /// Pairs devices anew that do not come back by themselves.
    fn rescues(&mut self, server: usize) -> bool {
        let mut done = true;
        let serving = self.houses[server].serving();
        if serving.set.is_some() && serving.ship.is_none() && self.now > self.healed_at + MINUTE {
            // Its replica is none any more.
            self.stops_replica(server);
            done = false;
        }
        for device in 0..self.devices.len() {
            let link = self.devices[device].round.as_ref().map(|round| round.link_state());
            let follows = matches!(link, Some(LinkState::Following { .. }));
            let ended = matches!(link, Some(LinkState::Ended(End::Released | End::Quarantined)));
            let since = self.devices[device].joined_at.max(self.healed_at);
            let stuck = self.now > since + self.patience() && !follows;
            if !self.devices[device].joined {
                self.join(device);
                done = false;
            } else if ended || stuck {
                self.note(format_args!("device {device} is paired anew: {link:?}"));
                self.check_rescue(device, link.as_ref());
                self.pairs_anew(device);
                done = false;
            }
        }
        done
    }

    /// How long a device may look for its server.
    fn patience(&self) -> u64 {
        let (_, longest) = self.swarm.delay;
        let slow = Duration::from_micros(2 * longest) > Timing::default().dial;
        if slow { STUCK_WHERE_SLOW } else { STUCK }
    }

    /// Only what needs a person may need one.
    fn check_rescue(&mut self, device: usize, link: Option<&LinkState>) {
        let put_back = self.devices[device].put_back;
        let (_, known) = self.known_servers(device);
        let server = self.present_server().map(device_id);
        let lost = !known.iter().any(|row| Some(row.device) == server);
        let unknown =
            self.present_server().is_some_and(|server| self.houses[server].member(device).is_none());
        let released = matches!(link, Some(LinkState::Ended(End::Released))) && self.last_line().epoch > 1;
        let excused = put_back || lost || unknown || released || self.reigns.forked || self.reigns.put_back;
        self.counters.sometimes(match () {
            () if released => "device released by a reign that had ended",
            () if put_back => "device that was put back paired anew",
            () if unknown => "device paired anew: the successor does not know it",
            () if lost => "device paired anew: it does not know the successor",
            () => "device paired anew for another reason",
        });
        self.require(excused, "I-06", format_args!("device {device} does not come back by itself: {link:?}"));
    }

    /// Leaves the group and joins it again, as a new life of the device.
    pub(super) fn pairs_anew(&mut self, device: usize) {
        self.leave_group(device);
        self.join(device);
    }

    /// An operator looks again and again until all is right.
    pub(super) fn looks_after(&mut self) {
        let right = self.put_right();
        self.all_right = right;
        self.ends_switch();
        if self.healed {
            self.schedule(LOOK, Event::Look);
        }
    }

    /// A switch that was under way when its server was switched off goes on, as it does by itself.
    fn ends_switch(&mut self) {
        let Some(house) = self.present_server().filter(|house| self.takes_changes(*house).is_ok()) else {
            return;
        };
        while self.houses[house].line.model.moving.is_some() && self.carries_on(house) {}
    }

    /// A device's role follows its row.
    pub(super) fn follow_capabilities(&mut self, device: usize) {
        if device >= self.houses.len() || self.houses[device].off {
            return;
        }
        let members = self.devices[device].read(|read| read.members());
        let row = members.into_iter().map(|signed| signed.record).find(|row| row.device == device_id(device));
        let called = row.map(|row| !row.released && row.capabilities.contains(Capabilities::REPLICATE));
        let wanted = self.houses[device].control.current().wanted;
        let next = match (wanted, called) {
            (Role::Client, Some(true)) => Role::ReplicaClient,
            (Role::ReplicaClient, Some(false)) => Role::Client,
            _ => return,
        };
        debug_assert!(!self.houses[device].runs(Part::Server), "a server is no replica");
        self.houses[device].control.set_wanted(next).expect("a role");
        self.start_parts(device);
    }
}
