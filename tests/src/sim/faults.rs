//! What strikes from outside, and devices that come and go.

use mfpsync_replication::join::{Policies, accept};
use mfpsync_replication::tombstones::horizon_of;
use mfpsync_storage::local::{Membership, Phase};
use mfpsync_storage::model::{Incarnation, OperationNumber, Sequence};
use rand::RngExt;

use super::server::{GROUP, ROOT, member};
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
            Fault::ServerCrash => self.server_crashes(),
            Fault::ClientDisk => self.devices[device].full_until = until,
            Fault::ServerDisk => self.server.full_until = until,
            Fault::Clock => self.clock_jumps(device),
            Fault::Reset => self.cursor_lost(device),
            Fault::Floor => {
                let head = self.server.head().sequence.0;
                let floor = self.rng.random_range(0..=head);
                self.server.floor = self.server.floor.max(Sequence(floor));
            }
            Fault::Collect => self.collect(),
            Fault::Leave => self.leaves(device),
            Fault::Share => self.shares(device),
        }
    }

    /// Devices say how far they are, as they do every hour, and the server forgets what everybody has
    /// seen deleted; nobody must be able to tell.
    fn collect(&mut self) {
        for device in 0..self.devices.len() {
            let own = &self.devices[device];
            let (state, waiting) = own.read(|read| Ok((read.device()?, read.waiting()?)));
            let connected = own.joined && own.client.is_some();
            if let (true, false, 0, Some(cursor)) =
                (connected, state.resetting, waiting.operations, state.cursor)
            {
                // A server whose disk is full hears it another time.
                let _full = self.note_progress(device, state.incarnation, cursor.sequence, true);
            }
        }
        let too_early = self.options.defect == Some(Defect::ForgetsTooEarly);
        let head = self.server.head().sequence;
        let through = if too_early { head } else { self.server.read(horizon_of).through };
        self.check_all_saw(through);
        let collected = self.server.master.write(|write| write.collect_tombstones(through, -1, u32::MAX));
        let rows = collected.expect("collect tombstones").rows;
        self.note(format_args!("{rows} tombstones up to {} are collected", through.0));
        (0..rows).for_each(|_| self.counters.sometimes("tombstone collected"));
        self.model.forget(through.0);
    }

    fn cut(&mut self, device: usize, until: [u64; 2]) {
        let cut = self.network.cuts.entry(device).or_default();
        *cut = [cut[0].max(until[0]), cut[1].max(until[1])];
    }

    fn clock_jumps(&mut self, device: usize) {
        const YEARS_10: i64 = 10 * 365 * 24 * 3_600_000;
        const TO_1970: i64 = i64::MIN / 4;
        self.counters.sometimes("clock jumped");
        let error = pick(&mut self.rng, &[0, YEARS_10, -YEARS_10, TO_1970, -3_600_000]);
        if self.rng.random_bool(0.3) {
            self.server.clock_error = error;
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

    pub(super) fn join(&mut self, device: usize) {
        if self.devices[device].joined {
            return;
        }
        let version = self.server.next_row();
        let own = &mut self.devices[device];
        let incarnation = Incarnation(self.rng.random_range(1..1 << 62));
        let membership = Membership { group: GROUP, group_name: "fleet".to_owned(), root_key: ROOT };
        let row = member(own.id, false, version);
        own.db.write(|write| write.join(&membership, incarnation, None)).expect("join");
        (own.incarnation, own.joined, own.floor) = (incarnation, true, None);
        own.low_water = OperationNumber::default();
        self.server.master.write(|write| write.put_member(&row)).expect("enrol");
        self.note(format_args!("device {device} joins"));
        self.publish_membership();
        self.start_round(device);
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
        if !self.devices[device].joined || device == 0 {
            return;
        }
        self.counters.sometimes("device left");
        let version = self.server.next_row();
        let row = member(self.devices[device].id, true, version);
        self.server.master.write(|write| write.put_member(&row)).expect("release");
        self.stop_round(device);
        self.break_all(device, "released");
        let own = &mut self.devices[device];
        let unsent = own.db.write(|write| write.leave()).expect("leave");
        own.joined = false;
        own.pushed.clear();
        self.history.withdraw(own.incarnation);
        self.note(format_args!("device {device} leaves with {unsent} operations unsent"));
        self.publish_membership();
        let wait = self.rng.random_range(SECOND..2 * MINUTE);
        self.schedule(wait, Event::Join { device });
    }

    fn break_all(&mut self, device: usize, why: &str) {
        let theirs = self.network.connections.iter().filter(|(_, known)| known.device == device);
        let theirs: Vec<u64> = theirs.map(|(connection, _)| *connection).collect();
        theirs.into_iter().for_each(|connection| self.break_connection(connection, why));
    }

    /// All faults end, everybody comes back.
    pub(super) fn heal(&mut self) {
        self.note(format_args!("everything heals"));
        self.healed = true;
        self.server.down_until = self.now;
        self.server.full_until = 0;
        while self.carries_on() {}
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
    }
}
