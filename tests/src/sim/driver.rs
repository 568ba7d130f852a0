//! A device: its database, its round, and what carries the round's effects out. Does the same as the
//! daemon's driver, synchronously, with crashes and full disks where a storage effect is due.

use std::collections::VecDeque;
use std::time::Duration;

use mfpsync_proto::sync;
use mfpsync_replication::merge::is_written_by_devices;
use mfpsync_replication::message::{Claim, Push};
use mfpsync_replication::round::{
    AdoptGreeting, At, Effect, Event as RoundEvent, Failure, LinkEvent, LinkId, LinkState, Moment, Outbox,
    PushOrder, Round, Start, Stored, Timing,
};
use mfpsync_replication::wire;
use mfpsync_storage::local::{Heard, Local, LocalRead, LocalWrite, RetainedLimits};
use mfpsync_storage::model::{
    Cursor, DeviceId, EditOutcome, Incarnation, OperationNumber, Outcome, Revision,
};
use mfpsync_storage::{Inline, Result};
use rand::RngExt;
use rand::rngs::StdRng;

use super::house::{GROUP, endpoint, house_at, issuing_key};
use super::network::{Down, Message, Up};
use super::swarm::{Defect, SECOND};
use super::world::{Event, World};

/// Push requests remembered to be sent again.
const REMEMBERED: usize = 3;

/// A connection as its client sees it.
pub(super) struct Client {
    link: LinkId,
    pub connection: u64,
    inbox: VecDeque<std::result::Result<sync::FollowEvent, sync::Refusal>>,
}

pub(super) struct Device {
    pub id: DeviceId,
    pub db: Inline<Local>,
    pub incarnation: Incarnation,
    pub joined: bool,
    pub joined_at: u64,
    pub round: Option<Round>,
    /// Rises whenever the program starts or ends.
    pub boot: u64,
    effects: VecDeque<Effect>,
    wake_at: Option<u64>,
    pub(super) client: Option<Client>,
    /// To which machine.
    pub pushed: VecDeque<(usize, sync::PushRequest, Vec<OperationNumber>)>,
    /// Where it looks for its server.
    endpoints: Vec<String>,
    /// Its disk was put back to an earlier image in this life.
    pub put_back: bool,
    pub full_until: u64,
    pub clock_error: i64,
    /// The highest cursor outside a reset, for I-04.
    pub floor: Option<Cursor>,
    pub low_water: OperationNumber,
}

impl Device {
    pub(super) fn new(number: usize, rng: &mut StdRng) -> Self {
        let incarnation = Incarnation(rng.random_range(1..1 << 62));
        let id = DeviceId([number as u8 + 1; 16]);
        let mut db = Inline::in_memory().expect("memory database");
        db.write(|write: &LocalWrite<'_>| write.initialise(incarnation, id)).expect("initialise");
        Self {
            id,
            db,
            incarnation,
            joined: false,
            joined_at: 0,
            round: None,
            boot: 0,
            effects: VecDeque::new(),
            wake_at: None,
            client: None,
            pushed: VecDeque::new(),
            endpoints: Vec::new(),
            put_back: false,
            full_until: 0,
            clock_error: 0,
            floor: None,
            low_water: OperationNumber::default(),
        }
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&LocalRead<'_>) -> Result<T>) -> T {
        self.db.read(read).expect("read a device's database")
    }
}

fn outbox(read: &LocalRead<'_>) -> Result<Outbox> {
    let device = read.device()?;
    Ok(Outbox {
        waiting: read.waiting()?.operations > 0,
        last_operation: device.last_operation,
        low_water: device.low_water,
    })
}

impl World {
    /// The program starts: everything it knows is in its database.
    pub(super) fn start_round(&mut self, device: usize) {
        let at = self.at();
        let (endpoints, off) = (self.endpoints(device), self.houses.get(device).is_some_and(|own| own.off));
        let machine = device < self.houses.len();
        let own = &mut self.devices[device];
        if !own.joined || own.round.is_some() || off {
            return;
        }
        own.endpoints.clone_from(&endpoints);
        let (state, outbox, lineage) = own.read(|read| Ok((read.device()?, outbox(read)?, read.lineage()?)));
        let start = Start {
            group: GROUP,
            incarnation: state.incarnation,
            lineage,
            followed: state.followed,
            cursor: state.cursor,
            resetting: state.resetting,
            outbox,
            endpoints,
            own_endpoints: if machine { vec![endpoint(device)] } else { Vec::new() },
            issuing_key: machine.then(|| issuing_key(device)),
            version: "1".to_owned(),
            timing: Timing::default(),
        };
        let (round, effects) = Round::start(start, at).expect("a device's own history");
        own.boot += 1;
        own.round = Some(round);
        own.effects = effects.into();
        self.note(format_args!("device {device} starts"));
        self.carry_on(device);
    }

    /// The program ends at once. Its peer hears of it, or not.
    pub(super) fn stop_round(&mut self, device: usize) {
        let own = &mut self.devices[device];
        own.boot += 1;
        own.round = None;
        own.wake_at = None;
        own.effects.clear();
        if let Some(client) = own.client.take() {
            let says_so = self.rng.random_bool(0.5);
            self.hang_up(client.connection, says_so);
        }
    }

    pub(super) fn crash(&mut self, device: usize) {
        self.note(format_args!("device {device} crashes"));
        self.stop_round(device);
        let wait = self.rng.random_range(0..40 * SECOND);
        let boot = self.devices[device].boot;
        self.schedule(wait, Event::ClientUp { device, boot });
    }

    fn at(&mut self) -> At {
        At { now: Moment(Duration::from_micros(self.now)), random: self.rng.random() }
    }

    pub(super) fn give(&mut self, device: usize, event: RoundEvent) {
        self.step(device, event);
        self.carry_on(device);
    }

    fn step(&mut self, device: usize, event: RoundEvent) {
        let at = self.at();
        let own = &mut self.devices[device];
        let Some(round) = own.round.take() else { return };
        let (round, effects) = round.step(at, event);
        own.round = Some(round);
        own.effects.extend(effects);
    }

    fn carry_on(&mut self, device: usize) {
        loop {
            while let Some(effect) = self.devices[device].effects.pop_front() {
                self.carry_out(device, effect);
            }
            let own = &mut self.devices[device];
            let (Some(round), Some(client)) = (&own.round, &mut own.client) else { return };
            if !round.wants_more() {
                return;
            }
            let Some(event) = client.inbox.pop_front() else { return };
            let (link, connection) = (client.link, client.connection);
            let event = match event.map(wire::follow_event_from_wire) {
                Ok(Ok(Some(event))) => LinkEvent::Follow(event),
                Ok(Ok(None)) => {
                    self.event_taken(connection);
                    continue;
                }
                Ok(Err(error)) => {
                    self.violate("I-06", format_args!("device {device} cannot read an event: {error}"));
                    LinkEvent::Failed(Failure::Malformed)
                }
                Err(refusal) => LinkEvent::Failed(refused(&refusal)),
            };
            self.event_taken(connection);
            self.step(device, RoundEvent::Link(link, event));
        }
    }

    fn carry_out(&mut self, device: usize, effect: Effect) {
        if effect.is_stored() {
            return self.store(device, effect);
        }
        match effect {
            Effect::Dial { link, endpoint } => {
                let connection = self.connect(device, house_at(&endpoint), Some(link), true);
                self.devices[device].client = Some(Client { link, connection, inbox: VecDeque::new() });
                self.send(connection, Message::Up(Up::Dial));
            }
            Effect::Hello(link, mut hello) => {
                // With what proves its claim to whoever has not met the device that reigns.
                let own = &self.devices[device];
                let (issuers, members) = own.read(|read| Ok((read.issuers()?, read.members()?)));
                hello.claim = hello.claim.map(|claim| Claim::of(claim.promotion, &issuers, &members));
                self.call(device, link, Up::Hello(wire::hello_to_wire(&hello)));
            }
            Effect::Follow(link, follow) => {
                self.call(device, link, Up::Follow(wire::follow_to_wire(&follow)));
                self.maybe_replay(device);
            }
            Effect::Push(link, order) => self.push_waiting(device, link, order),
            Effect::Disconnect(link) => {
                if let Some(client) = self.devices[device].client.take_if(|client| client.link == link) {
                    self.hang_up(client.connection, true);
                }
            }
            Effect::WakeAt(moment) => {
                let at = u64::try_from(moment.0.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX).max(self.now);
                let own = &mut self.devices[device];
                own.wake_at = Some(at);
                let boot = own.boot;
                self.schedule_at(at, Event::Tick { device, boot });
            }
            Effect::Report(state) => {
                self.note(format_args!("device {device} {state:?}"));
                if matches!(state, LinkState::Offline { .. }) {
                    let endpoints = self.endpoints(device);
                    if self.devices[device].endpoints != endpoints {
                        self.dial_these(device, endpoints);
                    }
                }
                if matches!(state, LinkState::Following { caught_up: true, .. }) {
                    self.enter(device);
                }
            }
            _ => {}
        }
    }

    /// Where a device looks for its server from now on.
    pub(super) fn dial_these(&mut self, device: usize, endpoints: Vec<String>) {
        self.devices[device].endpoints.clone_from(&endpoints);
        self.step(device, RoundEvent::Endpoints(endpoints));
    }

    fn call(&mut self, device: usize, link: LinkId, up: Up) {
        let client = self.devices[device].client.as_ref().filter(|client| client.link == link);
        if let Some(connection) = client.map(|client| client.connection) {
            self.send(connection, Message::Up(up));
        }
    }

    fn push_waiting(&mut self, device: usize, link: LinkId, order: PushOrder) {
        let own = &mut self.devices[device];
        let (records, outbox) =
            own.read(|read| Ok((read.outbox(order.operations, order.bytes)?, outbox(read)?)));
        if records.is_empty() {
            return self.step(device, RoundEvent::Link(link, LinkEvent::OutboxEmpty(outbox)));
        }
        let (numbers, operations): (Vec<_>, Vec<_>) = records.into_iter().unzip();
        let push = Push {
            group: GROUP,
            incarnation: own.incarnation,
            epoch: order.epoch,
            low_water: order.low_water,
            operations,
        };
        let request = wire::push_to_wire(push);
        if let Some(client) = &own.client {
            let house = self.network.connections.get(&client.connection).map_or(0, |known| known.house);
            own.pushed.push_back((house, request.clone(), numbers.clone()));
        }
        if own.pushed.len() > REMEMBERED {
            own.pushed.pop_front();
        }
        self.call(device, link, Up::Push(request, numbers));
    }

    pub(super) fn tick(&mut self, device: usize, boot: u64) {
        let own = &mut self.devices[device];
        if own.boot == boot && own.wake_at.is_some_and(|at| at <= self.now) {
            own.wake_at = None;
            self.give(device, RoundEvent::Tick);
        }
    }

    pub(super) fn edit_seen(&mut self, device: usize, boot: u64) {
        if self.devices[device].boot == boot && self.devices[device].round.is_some() {
            let outbox = self.devices[device].read(outbox);
            self.give(device, RoundEvent::LocalEdits(outbox));
        }
    }

    pub(super) fn client_takes(&mut self, connection: u64, down: Down) {
        let Some(device) = self.network.connections.get(&connection).map(|known| known.device) else {
            return;
        };
        let down = match down {
            Down::Shipped(message) => return self.copy_takes(device, connection, message),
            Down::ShipEnded => return self.copy_ends(device, connection),
            Down::Drained(last) => {
                self.hang_up(connection, true);
                return self.stood_down(device, last);
            }
            down => down,
        };
        let Some(client) = self.devices[device].client.as_mut().filter(|one| one.connection == connection)
        else {
            return;
        };
        let link = client.link;
        let event = match down {
            Down::Followed(event) => {
                client.inbox.push_back(Ok(event));
                return self.carry_on(device);
            }
            Down::FollowEnded(refusal) => {
                client.inbox.push_back(Err(refusal));
                return self.carry_on(device);
            }
            Down::Dialled => LinkEvent::Dialled,
            Down::Greeted(Ok(reply)) => match wire::greeting_from_wire(reply) {
                Ok(greeting) => LinkEvent::Greeted(Box::new(greeting)),
                Err(_) => LinkEvent::Failed(Failure::Malformed),
            },
            Down::Greeted(Err(refusal)) => LinkEvent::Failed(refused(&refusal)),
            Down::Pushed(numbers, Ok(reply)) => match wire::push_answer_from_wire(reply, &numbers) {
                Ok(answer) => LinkEvent::PushAnswered(answer),
                Err(_) => LinkEvent::Failed(Failure::Malformed),
            },
            Down::Pushed(_, Err(refusal)) => LinkEvent::PushFailed(refused(&refusal)),
            Down::Shipped(_) | Down::ShipEnded | Down::Drained(_) => return,
        };
        self.give(device, RoundEvent::Link(link, event));
    }

    pub(super) fn client_hears_break(&mut self, connection: u64) {
        let Some(known) = self.network.connections.remove(&connection) else { return };
        let Some(link) = known.link else { return self.copy_ends(known.device, connection) };
        let current = self.devices[known.device].client.as_ref().map(|client| client.connection);
        if current == Some(connection) {
            let event = LinkEvent::Failed(Failure::Transport);
            self.give(known.device, RoundEvent::Link(link, event));
        }
    }

    /// Carries out a storage effect and answers it, unless the device goes down before or after.
    fn store(&mut self, device: usize, effect: Effect) {
        if self.devices[device].full_until > self.now {
            self.counters.sometimes("disk full at a client");
            return self.step(device, RoundEvent::Stored(Stored::Failed));
        }
        let falls = !self.healed && self.chance(self.swarm.crash_store);
        if falls && self.rng.random_bool(0.5) {
            self.counters.sometimes("client crash before a commit");
            return self.crash(device);
        }
        let adopts = matches!(
            effect,
            Effect::AdoptGreeting(_) | Effect::AdoptMembership { .. } | Effect::NoteClaim(_)
        );
        let stored = self.carry_into(device, effect);
        self.check_device(device);
        if falls {
            self.counters.sometimes("client crash between commit and its event");
            return self.crash(device);
        }
        self.step(device, RoundEvent::Stored(stored));
        if adopts {
            let endpoints = self.endpoints(device);
            self.dial_these(device, endpoints);
            self.follow_capabilities(device);
        }
    }

    /// A device hears who reigns, and where.
    pub(super) fn adopt_claim(&mut self, device: usize, claim: &Claim) {
        let Claim { promotion, issuer, member } = claim.clone();
        let own = &mut self.devices[device];
        if own.joined {
            own.db
                .write(|write| write.adopt_roster(&[promotion], issuer.as_slice(), member.as_slice()))
                .expect("adopt a claim");
        }
    }

    /// Takes what a greeting brought, as the daemon's driver does, and offers again what a new reign lacks.
    fn adopt_greeting(&mut self, device: usize, greeting: &AdoptGreeting, now: u64) -> Stored {
        let highest = greeting.lineage.last().map(|signed| signed.record.epoch);
        if let (Some(own), Some(epoch)) = (self.houses.get(device), highest)
            && own.control.see_epoch(epoch).is_err()
        {
            self.counters.sometimes("epoch refused by a device's control file");
            return Stored::Failed;
        }
        let number = highest.map_or(0, |epoch| epoch.number);
        let lost_beyond = greeting.lost_beyond.filter(|_| self.options.defect != Some(Defect::OffersNothing));
        let heard = Heard { known: greeting.known_operation, confirmed: greeting.confirmed_operation };
        let stored = self.devices[device].db.write(|write| {
            write.adopt_lineage(&greeting.lineage)?;
            write.adopt_roster(&[], &greeting.issuers, &greeting.members)?;
            write.follow_reign(number)?;
            let offered = match lost_beyond {
                Some(fork) => Some(write.offer_again(fork, heard, now, is_written_by_devices)?),
                None => None,
            };
            Ok((outbox(write)?, offered))
        });
        let (outbox, offered) = stored.expect("adopt a greeting");
        if let (Some(offered), Some(fork)) = (offered, lost_beyond) {
            self.note(format_args!("device {device} meets reign {number} and offers {offered:?}"));
            self.offered_again(device, fork.sequence);
            self.check_offers(device, fork);
        }
        Stored::GreetingAdopted(outbox)
    }

    fn carry_into(&mut self, device: usize, effect: Effect) -> Stored {
        let now = self.wall_clock(self.devices[device].clock_error);
        let effect = match effect {
            Effect::Settle(outcomes) => return self.settle(device, outcomes, now),
            Effect::AdoptGreeting(greeting) => return self.adopt_greeting(device, &greeting, now),
            effect => effect,
        };
        let begins = matches!(effect, Effect::BeginReset(_));
        let shown = |world: &Self| world.devices[device].read(|read| read.visible_hashes());
        let before = begins.then(|| shown(self));
        let defect = self.options.defect;
        let stored = self.devices[device].db.write(|write| match effect {
            Effect::AdoptMembership { members, issuers } => {
                write.adopt_roster(&[], &issuers, &members)?;
                Ok(Stored::Noted)
            }
            Effect::NoteClaim(claim) => {
                let Claim { promotion, issuer, member } = *claim;
                write.adopt_roster(&[promotion], issuer.as_slice(), member.as_slice())?;
                Ok(Stored::Noted)
            }
            Effect::ApplyBatch { mut changes, cursor } => {
                if defect == Some(Defect::SkipsAChange) && changes.len() > 1 {
                    changes.pop();
                }
                let takes_absence = defect == Some(Defect::TakesAbsenceForDeletion);
                if takes_absence {
                    write.begin_reset()?;
                }
                write.apply_changes(&changes, &cursor)?;
                if takes_absence {
                    write.finish_reset()?;
                }
                Ok(Stored::Applied(cursor))
            }
            Effect::BeginReset(_) => write.begin_reset().map(|()| Stored::ResetBegun),
            Effect::FinishReset(cursor) => {
                write.apply_changes(&[], &cursor)?;
                write.finish_reset()?;
                Ok(Stored::ResetFinished(cursor))
            }
            Effect::ForgetSafe(safe) => write.release_retained(safe).map(|_| Stored::Noted),
            _ => Ok(Stored::Noted),
        });
        if let Some(before) = before {
            let same = before == shown(self);
            self.require(same, "I-07", format_args!("a reset began and items of {device} vanished"));
        }
        stored.expect("store at a device")
    }

    fn settle(&mut self, device: usize, mut outcomes: Vec<(OperationNumber, Outcome)>, now: u64) -> Stored {
        if self.options.defect == Some(Defect::HidesAConflict) {
            for (_, outcome) in &mut outcomes {
                if let Outcome::Accepted { edits, .. } = outcome {
                    edits.iter_mut().for_each(|edit| *edit = EditOutcome::Applied);
                }
            }
        }
        let waiting = self.devices[device].read(|read| read.outbox(usize::MAX >> 1, usize::MAX));
        let waits = |number: &OperationNumber| waiting.iter().any(|(waiting, _)| waiting == number);
        let news: Vec<_> = outcomes.iter().filter(|(number, _)| waits(number)).cloned().collect();
        self.history.settled(self.devices[device].incarnation, &news);
        let settled = self.devices[device].db.write(|write| {
            write.settle(&outcomes, now, RetainedLimits::default())?;
            outbox(write)
        });
        Stored::Settled(settled.expect("settle"))
    }

    /// [`Defect::LosesAnEdit`]: what was just acknowledged is settled unseen by the server.
    pub(super) fn lose_edit(&mut self, device: usize, number: OperationNumber) {
        let outcome = Outcome::Accepted { revision: Revision::default(), edits: vec![EditOutcome::Applied] };
        let settled = self.devices[device]
            .db
            .write(|write| write.settle(&[(number, outcome)], 0, RetainedLimits::default()));
        settled.expect("settle");
    }
}

fn refused(refusal: &sync::Refusal) -> Failure {
    match wire::refusal_from_wire(refusal) {
        Ok(refusal) => Failure::Refused { refusal: Box::new(refusal), push_back: None },
        Err(_) => Failure::Malformed,
    }
}
