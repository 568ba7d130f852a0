//! Time, the queue of what is to happen, and the run from the first event to the last check.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::copy::Handover;
use super::counters::Counters;
use super::driver::Device;
use super::feeding::ASKS;
use super::history::History;
use super::house::{House, somewhere};
use super::images::Image;
use super::network::Network;
use super::reigns::{Line, Reigns};
use super::swarm::{Fault, MINUTE, SECOND, Swarm};
use super::trace::Trace;
use super::{Options, Run};

/// Longest time from the end of all faults until all devices agree.
const AGREE_WITHIN: u64 = 5 * MINUTE;
/// The same where an operator has to put right what operators did.
const PUT_RIGHT_WITHIN: u64 = 30 * MINUTE;
/// 2027-01-15 in Unix milliseconds: what right clocks show at the start.
const START_MILLIS: i64 = 1_800_000_000_000;

#[derive(Debug)]
pub(super) enum Event {
    /// The next message of one lane arrives.
    Net {
        connection: u64,
        lane: usize,
    },
    Broken {
        connection: u64,
    },
    Tick {
        device: usize,
        boot: u64,
    },
    Edit {
        device: usize,
    },
    EditSeen {
        device: usize,
        boot: u64,
    },
    Heartbeat {
        house: usize,
        connection: u64,
    },
    /// A server looks whether somebody waits too long.
    Watch {
        house: usize,
        boot: u64,
    },
    /// A replica looks after its stream.
    Copy {
        house: usize,
        boot: u64,
    },
    PowerUp {
        house: usize,
        boot: u64,
    },
    /// The role follows the end of a reign.
    FollowRole {
        house: usize,
        boot: u64,
    },
    Handover(Handover),
    /// A machine tells others who reigns.
    Tell {
        house: usize,
    },
    /// A server is lost, and two machines take over from it.
    Fork {
        server: usize,
        former: usize,
        next: usize,
    },
    /// The operator does something.
    Act,
    /// The operator looks whether all is right.
    Look,
    ClientUp {
        device: usize,
        boot: u64,
    },
    Join {
        device: usize,
    },
    Fault,
}

pub(super) struct World {
    pub options: Options,
    pub rng: StdRng,
    /// Microseconds since the start.
    pub now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    pub swarm: Swarm,
    pub network: Network,
    pub houses: Vec<House>,
    pub reigns: Reigns,
    /// Of whose disk there is an image.
    pub image: Option<(usize, Image)>,
    _files: tempfile::TempDir,
    pub devices: Vec<Device>,
    pub history: History,
    pub counters: Counters,
    trace: Trace,
    violation: Option<String>,
    /// Edits and faults are over.
    pub healed: bool,
    pub healed_at: u64,
    /// The operator finds nothing to put right.
    pub all_right: bool,
}

impl World {
    pub(super) fn new(options: Options) -> Self {
        let mut rng = StdRng::seed_from_u64(options.seed);
        let swarm = Swarm::draw(&mut rng);
        let devices = (0..swarm.devices).map(|number| Device::new(number, &mut rng)).collect();
        let files = somewhere();
        let line = Rc::new(Line::new(swarm.user_items));
        let houses = (0..swarm.houses)
            .map(|number| House::new(files.path().join(number.to_string()), line.clone()))
            .collect();
        let mut world = Self {
            options,
            rng,
            now: 0,
            queue: BTreeMap::new(),
            queued: 0,
            network: Network::default(),
            houses,
            reigns: Reigns::default(),
            image: None,
            _files: files,
            devices,
            history: History::default(),
            counters: Counters::default(),
            trace: Trace::new(options.trace),
            violation: None,
            healed: false,
            healed_at: 0,
            all_right: true,
            swarm,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        let shown = format!("{:?}", self.swarm);
        self.note(format_args!("{shown}"));
        self.found();
        if self.swarm.houses > 1 {
            self.schedule(self.swarm.act_gap, Event::Act);
            (0..self.swarm.houses).for_each(|house| self.schedule(ASKS * SECOND, Event::Tell { house }));
        }
        for device in 0..self.devices.len() {
            let late = device >= self.devices.len() - self.swarm.late && device >= self.swarm.houses;
            let most = if late { self.swarm.active_for / 2 } else { 5 * SECOND };
            let at = self.rng.random_range(0..most);
            self.schedule(at, Event::Join { device });
            let first = self.rng.random_range(0..self.swarm.edit_gap);
            self.schedule(first, Event::Edit { device });
        }
        if !self.swarm.faults.is_empty() {
            self.schedule(self.swarm.fault_gap, Event::Fault);
        }
    }

    pub(super) fn run(mut self) -> Run {
        self.run_until(self.swarm.active_for);
        self.heal();
        let healed_at = self.now;
        while self.violation.is_none() && !self.agrees() {
            let within = if self.swarm.houses > 1 { PUT_RIGHT_WITHIN } else { AGREE_WITHIN };
            if self.now > healed_at + within {
                let who = self.disagreement();
                self.violate("I-06", format_args!("no agreement long after the last fault: {who}"));
            }
            self.run_until(self.now + SECOND);
        }
        let converged_after = Duration::from_micros(self.now - healed_at);
        if self.violation.is_none() {
            self.final_checks();
        }
        Run {
            violation: self.violation,
            trace_hash: self.trace.hash(),
            counters: self.counters,
            virtual_time: Duration::from_micros(self.now),
            converged_after,
            devices: self.devices.len(),
        }
    }

    fn run_until(&mut self, end: u64) {
        while self.violation.is_none() {
            let Some(next) = self.queue.first_entry().filter(|next| next.key().0 <= end) else { break };
            self.now = next.key().0;
            let event = next.remove();
            self.happens(event);
        }
        self.now = self.now.max(end);
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Net { connection, lane } => self.arrives(connection, lane),
            Event::Broken { connection } => self.client_hears_break(connection),
            Event::Tick { device, boot } => self.tick(device, boot),
            Event::Edit { device } => {
                if !self.healed {
                    self.user_edits(device);
                    let gap = self.rng.random_range(0..self.swarm.edit_gap * 2);
                    self.schedule(gap, Event::Edit { device });
                }
            }
            Event::EditSeen { device, boot } => self.edit_seen(device, boot),
            Event::Heartbeat { house, connection } => self.heartbeat(house, connection),
            Event::Watch { house, boot } => self.watch(house, boot),
            Event::Copy { house, boot } => self.look_after_copy(house, boot),
            Event::PowerUp { house, boot } => {
                if self.houses[house].boot == boot {
                    self.power_up(house);
                }
            }
            Event::FollowRole { house, boot } => {
                if self.houses[house].boot == boot {
                    self.follow_role(house);
                }
            }
            Event::Handover(handover) => self.hand_over_when_all_came(handover),
            Event::Tell { house } => {
                self.tells(house);
                self.schedule(ASKS * SECOND, Event::Tell { house });
            }
            Event::Fork { server, former, next } => self.forks(server, former, next),
            Event::Act => {
                if !self.healed {
                    let act = super::swarm::pick(&mut self.rng, &self.swarm.acts.clone());
                    self.operator_acts(act);
                    let gap = self.rng.random_range(0..self.swarm.act_gap * 2);
                    self.schedule(gap, Event::Act);
                }
            }
            Event::Look => self.looks_after(),
            Event::ClientUp { device, boot } => {
                if self.devices[device].boot == boot {
                    self.start_round(device);
                }
            }
            Event::Join { device } => self.join(device),
            Event::Fault => {
                if !self.healed {
                    let fault: Fault = super::swarm::pick(&mut self.rng, &self.swarm.faults.clone());
                    self.strikes(fault);
                    let gap = self.rng.random_range(0..self.swarm.fault_gap * 2);
                    self.schedule(gap, Event::Fault);
                }
            }
        }
    }

    pub(super) fn schedule(&mut self, wait: u64, event: Event) {
        self.schedule_at(self.now + wait, event);
    }

    pub(super) fn schedule_at(&mut self, at: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((at, self.queued), event);
    }

    /// True in `permille` of a thousand cases.
    pub(super) fn chance(&mut self, permille: u32) -> bool {
        permille > 0 && self.rng.random_ratio(permille, 1000)
    }

    /// What a wall clock with this error shows, Unix milliseconds.
    pub(super) fn wall_clock(&self, error: i64) -> u64 {
        u64::try_from(START_MILLIS + (self.now / 1000) as i64 + error).unwrap_or(0)
    }

    pub(super) fn note(&mut self, line: fmt::Arguments<'_>) {
        self.trace.line(self.now, line);
    }

    /// Notes the first invariant that does not hold; the run ends with it.
    pub(super) fn violate(&mut self, invariant: &str, how: fmt::Arguments<'_>) {
        let text = format!("{invariant}: {how} (at {:.3} s)", self.now as f64 / 1e6);
        self.note(format_args!("VIOLATION {text}"));
        self.violation.get_or_insert(text);
    }

    pub(super) fn require(&mut self, holds: bool, invariant: &str, how: fmt::Arguments<'_>) {
        if !holds {
            self.violate(invariant, how);
        }
    }
}
