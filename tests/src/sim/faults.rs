//! What strikes from outside, and devices that come and go.

use mfpsync_daemon::role::Role;
use mfpsync_replication::accept::lineage;
use mfpsync_replication::follow::{Start, start};
use mfpsync_replication::join::{Policies, accept};
use mfpsync_replication::message::Follow;
use mfpsync_replication::tombstones::horizon_of;
use mfpsync_storage::local::{Membership, Phase};
use mfpsync_storage::model::{Capabilities, Cursor, Incarnation, Member, OperationNumber, Sequence};
use rand::RngExt;

use super::driver::Client;
use super::house::{GROUP, ROOT, device_id, endpoint, member};
use super::swarm::{Defect, Fault, MINUTE, SECOND, pick};
use super::world::{Event, World};

impl World {
    pub(super) fn strikes(&mut self, fault: Fault) {
        let device = self.rng.random_range(0..self.devices.len());
        let lasts = self.rng.random_range(SECOND..2 * MINUTE);
        let until = self.now + lasts;
        self.note(format_args!("{fault:?} strikes, device {device}, {} s", lasts / SECOND));
        match fault {
            Fault::CutUp => self.cut(device, [until, 0]),
            Fault::CutDown => self.cut(device, [0, until]),
            Fault::Partition => {
                for device in 0..self.devices.len() {
                    if self.rng.random_bool(0.5) {
                        self.cut(device, [until, until]);
                    }
                }
            }
            Fault::ClientCrash => {
                if self.devices[device].round.is_some() {
                    self.crash(device);
                }
            }
            Fault::ServerCrash => {
                if let Some(house) = self.present_server() {
                    self.server_crashes(house);
                }
            }
            Fault::ClientDisk => self.devices[device].full_until = until,
            Fault::ServerDisk => {
                if let Some(house) = self.present_server() {
                    self.houses[house].full_until = until;
                }
            }
            Fault::Clock => self.clock_jumps(device),
            Fault::Reset => self.cursor_lost(device),
            Fault::Floor => {
                let Some(house) = self.present_server() else { return };
                let own = &mut self.houses[house];
                let floor = self.rng.random_range(0..=own.head().sequence.0);
                own.floor = own.floor.max(Sequence(floor));
            }
            Fault::Collect => self.collect(),
            Fault::Leave => self.leaves(device),
            Fault::Share => self.shares(device),
        }
    }

    /// Devices say how far they are, as they do every hour, and the server forgets what everybody has
    /// seen deleted; nobody must be able to tell.
    fn collect(&mut self) {
        let Some(house) = self.present_server() else { return };
        for device in 0..self.devices.len() {
            let own = &self.devices[device];
            let (state, waiting) = own.read(|read| Ok((read.device()?, read.waiting()?)));
            let there = |client: &Client| self.network.connections.get(&client.connection);
            let connection = own.client.as_ref().and_then(there).filter(|known| known.house == house);
            let connected =
                own.joined && connection.is_some() && self.stands_in(house, state.cursor.as_ref());
            if let (true, false, 0, Some(cursor)) =
                (connected, state.resetting, waiting.operations, state.cursor)
            {
                // A server whose disk is full hears it another time.
                let (group, incarnation) = (GROUP, state.incarnation);
                let held = Follow { group, incarnation, cursor: Some(cursor), settled: true };
                let _full = self.note_progress(house, Vec::new(), device, &held, cursor.sequence);
            }
        }
        let too_early = self.options.defect == Some(Defect::ForgetsTooEarly);
        let head = self.houses[house].head().sequence;
        let through =
            if too_early { head } else { self.houses[house].read(|read| horizon_of(read, None)).through };
        self.check_all_saw(house, through);
        let collected =
            self.commit(house, Vec::new(), |write| write.collect_tombstones(through, -1, u32::MAX));
        let rows = collected.rows;
        self.note(format_args!("{rows} tombstones up to {} are collected", through.0));
        (0..rows).for_each(|_| self.counters.sometimes("tombstone collected"));
        self.houses[house].line().model.forget(through.0);
        self.committed(house);
    }

    /// Whether a cursor is a place in a server's history: what is not confirms nothing.
    fn stands_in(&self, house: usize, cursor: Option<&Cursor>) -> bool {
        let own = &self.houses[house];
        let start = cursor.map(|cursor| {
            own.read(|read| {
                let chain = read.chain_at(cursor.sequence)?;
                Ok(start(Some(cursor), &read.founded_head()?, &lineage(read)?, chain))
            })
        });
        start == Some(Start::Resume)
    }

    pub(super) fn cut(&mut self, device: usize, until: [u64; 2]) {
        let cut = self.network.cuts.entry(device).or_default();
        *cut = [cut[0].max(until[0]), cut[1].max(until[1])];
    }

    fn clock_jumps(&mut self, device: usize) {
        const YEARS_10: i64 = 10 * 365 * 24 * 3_600_000;
        const TO_1970: i64 = i64::MIN / 4;
        self.counters.sometimes("clock jumped");
        let error = pick(&mut self.rng, &[0, YEARS_10, -YEARS_10, TO_1970, -3_600_000]);
        if self.rng.random_bool(0.3) {
            let house = self.rng.random_range(0..self.houses.len());
            self.houses[house].clock_error = error;
        } else {
            self.devices[device].clock_error = error;
        }
    }

    /// The device starts anew without a cursor: it must read everything again.
    fn cursor_lost(&mut self, device: usize) {
        if self.devices[device].round.is_some() {
            self.crash(device);
            self.devices[device].db.write(|write| write.begin_reset()).expect("begin a reset");
        }
    }

    /// Pairs with the server there is, or tries again later.
    pub(super) fn join(&mut self, device: usize) {
        let off = self.houses.get(device).is_some_and(|own| own.off);
        if self.devices[device].joined {
            return;
        }
        let server = self.present_server().filter(|server| !off && !self.houses[*server].serving().sealed);
        let Some(server) = server else {
            return self.schedule(MINUTE / 2, Event::Join { device });
        };
        let incarnation = Incarnation(self.rng.random_range(1..1 << 62));
        self.enrols(server, device);
        let (lineage, issuers, members) =
            self.houses[server].read(|read| Ok((read.lineage()?, read.issuers()?, read.members()?)));
        if let (Some(own), Some(highest)) = (self.houses.get(device), lineage.last())
            && device != server
        {
            own.control.enter_group(GROUP, highest.record.epoch).expect("a group");
            own.control.set_wanted(Role::Client).expect("a role");
        }
        let membership = Membership { group: GROUP, group_name: "fleet".to_owned(), root_key: ROOT };
        let own = &mut self.devices[device];
        own.db
            .write(|write| {
                write.join(&membership, incarnation, None)?;
                write.adopt_roster(&lineage, &issuers, &members)
            })
            .expect("join");
        (own.incarnation, own.joined, own.floor, own.put_back) = (incarnation, true, None, false);
        (own.low_water, own.joined_at) = (OperationNumber::default(), self.now);
        self.note(format_args!("device {device} joins at machine {server}"));
        self.start_round(device);
    }

    /// A server takes a device into the group, or back into it.
    fn enrols(&mut self, server: usize, device: usize) {
        let known = self.houses[server].member(device);
        let version = known.as_ref().map_or(1, |row| row.version + 1);
        // The founder's own client keeps what the machine may do.
        let capabilities =
            known.filter(|_| device == server).map_or(Capabilities::CLIENT, |row| row.capabilities);
        let mut row = member(server, device, capabilities, version).record;
        row.endpoints = if device == server { vec![endpoint(device)] } else { Vec::new() };
        self.commit(server, Vec::new(), |write| write.forget_progress(device_id(device)));
        self.put_row(server, row);
    }

    /// Everything of the group has arrived: a device that is still joining brings in what it has.
    pub(super) fn enter(&mut self, device: usize) {
        let now = self.wall_clock(self.devices[device].clock_error);
        let own = &mut self.devices[device];
        if own.read(|read| read.phase()) != Some(Phase::Joining) {
            return;
        }
        let policies = Policies::default();
        let plan = own.db.write(|write| accept(write, &policies, None, now)).expect("enter the group");
        let items = plan.expect("no plan was expected").steps.len();
        self.note(format_args!("device {device} enters the group with {items} items of its own"));
        let offered = self.devices[device].read(|read| read.waiting()).operations;
        if offered > 0 {
            self.counters.sometimes("own items offered at join");
            self.acknowledge_new(device, offered);
            let boot = self.devices[device].boot;
            self.schedule(0, Event::EditSeen { device, boot });
        }
    }

    /// Leaves properly, and comes back some time later as a new life of the same device.
    fn leaves(&mut self, device: usize) {
        if !self.devices[device].joined || device < self.houses.len() || self.servers().len() != 1 {
            return;
        }
        self.counters.sometimes("device left");
        self.leave_group(device);
        let wait = self.rng.random_range(SECOND..2 * MINUTE);
        self.schedule(wait, Event::Join { device });
    }

    /// Leaves the group the server there is stands for.
    pub(super) fn leave_group(&mut self, device: usize) {
        self.stop_round(device);
        self.break_all(device, "released");
        let server = self.present_server();
        let is_server = server == Some(device);
        if let Some(server) = server
            && self.houses[server].serving().set.is_some_and(|set| set.device == device_id(device))
        {
            self.stops_replica(server);
        }
        if let Some(server) = server.filter(|_| !is_server)
            && let Some(row) = self.houses[server].member(device)
        {
            let released = Member { released: true, version: row.version + 1, ..row };
            self.put_row(server, released);
        }
        let own = &mut self.devices[device];
        let unsent = own.db.write(|write| write.leave()).expect("leave");
        own.joined = false;
        own.pushed.clear();
        let (incarnation, put_back) = (own.incarnation, own.put_back);
        self.ends_life(incarnation);
        if put_back {
            self.history.forget_all(device);
        }
        // A server goes on; it is its own client part that begins anew.
        if let Some(own) = self.houses.get(device).filter(|_| !is_server) {
            own.control.set_wanted(Role::Idle).expect("a role");
            own.control.leave_group().expect("no group");
            self.start_parts(device);
        }
        self.note(format_args!("device {device} leaves with {unsent} operations unsent"));
    }

    pub(super) fn break_all(&mut self, device: usize, why: &str) {
        let theirs = self.network.connections.iter().filter(|(_, known)| known.device == device);
        let theirs: Vec<u64> = theirs.map(|(connection, _)| *connection).collect();
        theirs.into_iter().for_each(|connection| self.break_connection(connection, why));
    }

    /// All faults end, everybody comes back.
    pub(super) fn heal(&mut self) {
        self.note(format_args!("everything heals"));
        (self.healed, self.healed_at) = (true, self.now);
        self.houses.iter_mut().for_each(|own| own.full_until = 0);
        if self.houses.len() == 1 {
            self.power_up(0);
        }
        if let Some(house) = self.present_server() {
            while self.carries_on(house) {}
        }
        // What a cut holds back does not arrive behind what comes after it: those connections end.
        for (device, until) in std::mem::take(&mut self.network.cuts) {
            if until.into_iter().any(|until| until > self.now) {
                self.break_all(device, "healed");
            }
        }
        for device in 0..self.devices.len() {
            self.devices[device].full_until = 0;
            self.join(device);
            self.start_round(device);
        }
        self.looks_after();
    }
}
