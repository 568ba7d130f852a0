//! What a server answers: real `accept` and `follow` on a real database, behind handlers that do what the
//! daemon's do, and follow streams with the daemon's window and live ring.

use std::collections::VecDeque;
use std::rc::Rc;

use mfpsync_proto::sync;
use mfpsync_replication::accept::{self, Answer, Submission, accept, lineage};
use mfpsync_replication::follow::{self, Noted, Start};
use mfpsync_replication::message::{
    Claim, Follow, Greeting, PushAnswer, Refusal, RefusalReason, ResetReason,
};
use mfpsync_replication::wire;
use mfpsync_storage::master::{Durability, Head, MasterRead};
use mfpsync_storage::model::{
    Capabilities, Cursor, IssuingCertificate, Member, OperationNumber, Outcome, Sequence, Signed,
};
use mfpsync_storage::tap::Verdict;
use rand::RngExt;

use super::history::OperationId;
use super::house::{Live, device_id, endpoint, records};
use super::network::{Down, Message, Up};
use super::swarm::{Defect, SECOND};
use super::world::{Event, World};

/// Events on their way to a follower and not yet taken: the daemon's look-ahead at both ends.
const WINDOW: usize = 3;
pub(super) const HEARTBEAT: u64 = 10 * SECOND;
/// As the daemon's hub.
const LIVE_BYTES: usize = mfpsync_proto::limit::BATCH_BYTES;

/// One follow stream.
pub(super) struct Stream {
    at: Option<Cursor>,
    under_way: usize,
    waiting: VecDeque<sync::FollowEvent>,
    live: VecDeque<Rc<Live>>,
    behind: bool,
    last_sent: u64,
}

impl Stream {
    /// Up to where everything was sent or waits.
    fn sequence(&self) -> Sequence {
        self.at.map_or(Sequence::ZERO, |at| at.sequence)
    }
}

/// A call whose commit is not confirmed yet.
pub(super) enum Waiting {
    Push {
        connection: u64,
        numbers: Vec<OperationNumber>,
        outcomes: Vec<(OperationNumber, Outcome)>,
        ids: Vec<OperationId>,
    },
    Follow {
        connection: u64,
        device: usize,
        stream: Box<Stream>,
    },
}

/// How the server refuses; with a claim that speaks against the caller, or against the server.
pub(super) type Refused = (RefusalReason, Option<Box<Claim>>);

pub(super) fn refusal((reason, claim): Refused) -> sync::Refusal {
    let claim = claim.map(|claim| *claim);
    wire::refusal_to_wire(&Refusal { reason, text: "no".to_owned(), claim })
}

/// Whether a claim is signed by a key that is known, or brings its certificate along.
pub(super) fn is_proven(claim: &Claim, known: &[Signed<IssuingCertificate>]) -> bool {
    let by = claim.promotion.record.device;
    known.iter().chain(&claim.issuer).any(|issuer| issuer.record.device == by)
}

fn plainly(reason: RefusalReason) -> Refused {
    (reason, None)
}

fn cursor_at(head: &Head, sequence: Sequence, read: &MasterRead<'_>) -> mfpsync_storage::Result<Cursor> {
    if sequence == head.sequence {
        return Ok(head.cursor());
    }
    let chain = read.chain_at(sequence)?.expect("every change has its place in the chain");
    Ok(Cursor { chain, sequence, ..head.cursor() })
}

impl World {
    pub(super) fn server_takes(&mut self, connection: u64, house: usize, up: Up) {
        let Some(known) = self.network.connections.get(&connection) else { return };
        let device = known.device;
        let allowed = self.authorise(house, device);
        match up {
            Up::Dial => self.send(connection, Message::Down(Down::Dialled)),
            Up::Close => {
                self.server_loses(house, connection);
                self.network.connections.remove(&connection);
            }
            Up::Hello(request) => {
                let reply = allowed.map_err(plainly).and_then(|_| self.hello(house, device, request));
                self.send(connection, Message::Down(Down::Greeted(reply.map_err(refusal))));
            }
            Up::Follow(request) => {
                let opened = allowed.and_then(|_| self.follow(house, connection, device, request));
                match opened {
                    Ok(()) => self.committed(house),
                    Err(reason) => {
                        let refusal = refusal(plainly(reason));
                        self.send(connection, Message::Down(Down::FollowEnded(refusal)));
                    }
                }
            }
            Up::Push(request, numbers) => {
                let taken =
                    allowed.and_then(|_| self.push(house, connection, device, request, numbers.clone()));
                if let Err(reason) = taken {
                    let pushed = Down::Pushed(numbers, Err(refusal(plainly(reason))));
                    self.send(connection, Message::Down(pushed));
                }
            }
            Up::Said(said) => self.replica_says(house, connection, device, allowed, said),
            Up::StandDown => {
                let may = Capabilities::REPLICATE.with(Capabilities::SERVE);
                if allowed.is_ok_and(|row| row.capabilities.contains(may)) {
                    self.stands_down(house, connection);
                } else {
                    self.send(connection, Message::Down(Down::Drained(None)));
                }
            }
        }
    }

    /// Another reign begins here: whoever follows has to meet it.
    pub(super) fn end_streams(&mut self, house: usize) {
        let streams = std::mem::take(&mut self.houses[house].server().streams);
        for connection in streams.into_keys() {
            let ended = Down::FollowEnded(refusal(plainly(RefusalReason::WrongEpoch)));
            self.send(connection, Message::Down(ended));
        }
    }

    /// A machine that does not serve, but could, says who does. False if nobody answers there.
    pub(super) fn signpost_takes(&mut self, connection: u64, house: usize, up: &Up) -> bool {
        let Some(claim) = self.directions(house) else { return false };
        match up {
            Up::Dial => self.send(connection, Message::Down(Down::Dialled)),
            Up::Hello(_) => {
                self.counters.sometimes("device told by a former server who reigns");
                let elsewhere = refusal((RefusalReason::Superseded, Some(Box::new(claim))));
                self.send(connection, Message::Down(Down::Greeted(Err(elsewhere))));
            }
            _ => return false,
        }
        true
    }

    /// A connection is no more, at its server's end.
    pub(super) fn server_loses(&mut self, house: usize, connection: u64) {
        let Some(serving) = &mut self.houses[house].serving else { return };
        serving.streams.remove(&connection);
        if serving.ship == Some(connection) {
            self.end_ship(house, "the replica is gone");
        }
    }

    fn replica_says(
        &mut self,
        house: usize,
        connection: u64,
        device: usize,
        allowed: Result<Member, RefusalReason>,
        said: mfpsync_proto::replica::FromReplica,
    ) {
        let begins = wire::replica_of(&said).is_ok();
        let may = allowed.is_ok_and(|row| row.capabilities.contains(Capabilities::REPLICATE));
        let serving = self.houses[house].server();
        if begins {
            let is_set = serving.set.is_some_and(|set| set.device == device_id(device));
            if !may || !is_set {
                return self.send(connection, Message::Down(Down::ShipEnded));
            }
            if serving.ship != Some(connection) {
                self.end_ship(house, "another stream replaces it");
                let serving = self.houses[house].server();
                serving.ship = Some(connection);
                serving.feeding.lock().expect("state").shipping.disconnected();
                serving.standing_down = None;
                self.counters.sometimes("replica connected");
            }
        }
        match wire::from_replica_from_wire(said) {
            Ok(Some(said)) => self.heard(house, connection, said),
            Ok(None) => {}
            Err(error) => self.violate("I-11", format_args!("the server cannot read its replica: {error}")),
        }
    }

    fn limits(&self) -> accept::Limits {
        accept::Limits { user_items: self.swarm.user_items, ..Default::default() }
    }

    pub(super) fn authorise(&mut self, house: usize, device: usize) -> Result<Member, RefusalReason> {
        match self.houses[house].member(device) {
            None => Err(RefusalReason::UnknownDevice),
            Some(member) if member.released => Err(RefusalReason::Released),
            Some(member) => Ok(member),
        }
    }

    /// Looks at the highest reign a device has seen: whoever is proven to be superseded is sealed before
    /// anything is answered, and of two that claim one reign neither goes on. I-14.
    pub(super) fn check_claim(&mut self, house: usize, claim: &Claim) -> Result<(), Refused> {
        let own = &self.houses[house];
        let (epoch, shown) = (own.serving().hub.head.epoch, claim.promotion.record.epoch);
        if shown == epoch || self.options.defect == Some(Defect::IgnoresSuccessors) {
            return Ok(());
        }
        let (lineage, issuers, members) =
            own.read(|read| Ok((read.lineage()?, read.issuers()?, read.members()?)));
        let superseded = shown.number > epoch.number;
        if !superseded && !records(&lineage).is_contested_by(&shown) {
            return Ok(());
        }
        if !is_proven(claim, &issuers) {
            // An unproven claim seals nobody.
            self.counters.sometimes("record of a reign that cannot be verified");
            return Ok(());
        }
        if !superseded {
            self.contest(house, &claim.promotion);
            let own = lineage.last().map(|own| Box::new(Claim::of(own.clone(), &issuers, &members)));
            return Err((RefusalReason::Superseded, own));
        }
        if !own.serving().sealed {
            self.seal(house, claim);
            let (boot, wait) = (self.houses[house].boot, self.rng.random_range(0..SECOND));
            self.schedule(wait, Event::FollowRole { house, boot });
        }
        Err((RefusalReason::Superseded, Some(Box::new(claim.clone()))))
    }

    fn hello(
        &mut self,
        house: usize,
        device: usize,
        request: sync::HelloRequest,
    ) -> Result<sync::HelloReply, Refused> {
        let hello = wire::hello_from_wire(request).map_err(|_| plainly(RefusalReason::Malformed))?;
        let head = self.houses[house].serving().hub.head.clone();
        if hello.group != head.group {
            return Err(plainly(RefusalReason::WrongGroup));
        }
        if let Some(claim) = &hello.claim {
            self.check_claim(house, claim)?;
            self.check_sealed(house, claim);
        }
        self.houses[house].server().introduced.insert(device);
        let id = device_id(device);
        let greeting = self.houses[house].read(|read| {
            if read.progress(id)?.is_some_and(|progress| progress.quarantined) {
                return Ok(Err(RefusalReason::Quarantined));
            }
            if accept::is_of_another(read, id, hello.incarnation)? {
                return Ok(Err(RefusalReason::Incarnation));
            }
            let ledger = read.ledger(hello.incarnation)?;
            Ok(Ok(Greeting {
                protocol: 1,
                epoch: head.epoch,
                head: head.sequence,
                safe: None,
                limits: self.limits().announced(),
                lineage: read.lineage()?,
                members: read.members()?,
                issuers: read.issuers()?,
                known_operation: ledger.last().max(ledger.confirmed()),
                confirmed_operation: ledger.confirmed(),
                group_name: head.group_name.clone(),
            }))
        });
        let mut greeting = greeting.map_err(plainly)?;
        greeting.limits.push_operations = self.swarm.push_operations;
        greeting.safe = self.safe(house);
        Ok(wire::greeting_to_wire(&greeting))
    }

    /// The safe revision, as it is told.
    fn safe(&mut self, house: usize) -> Option<Sequence> {
        let safe = self.houses[house].serving().hub.safe;
        self.reigns.told_safe(&self.houses[house], safe);
        self.check_safe(house, safe);
        safe
    }

    fn follow(
        &mut self,
        house: usize,
        connection: u64,
        device: usize,
        request: sync::FollowRequest,
    ) -> Result<(), RefusalReason> {
        let follow = wire::follow_from_wire(request).map_err(|_| RefusalReason::Malformed)?;
        let (head, cursor) = (self.houses[house].head(), follow.cursor);
        let start = self.houses[house].read(|read| {
            let chain = cursor.map(|cursor| read.chain_at(cursor.sequence)).transpose()?.flatten();
            Ok(follow::start(cursor.as_ref(), &head, &lineage(read)?, chain))
        });
        let mut waiting = VecDeque::new();
        let (at, held, settled) = match (start, cursor) {
            (Start::Resume, Some(cursor)) => (Some(cursor), cursor.sequence, follow.settled),
            (Start::Reset(reason), _) => {
                self.count_reset(house, device, reason);
                waiting.push_back(wire::reset_to_wire(reason));
                (None, Sequence::ZERO, false)
            }
            (start, _) => {
                let expected = self.reigns.put_back || self.devices[device].put_back;
                self.require(
                    expected,
                    "I-04",
                    format_args!("device {device} is ahead of the server: {start:?}"),
                );
                return Err(RefusalReason::StorageFault);
            }
        };
        waiting.push_back(self.houses[house].membership());
        let stream = Box::new(Stream {
            at,
            under_way: 0,
            waiting,
            live: VecDeque::new(),
            behind: true,
            last_sent: self.now,
        });
        let ticket = self.ticket(house, Waiting::Follow { connection, device, stream });
        let noted = self.note_progress(house, vec![ticket], device, &Follow { settled, ..follow }, held);
        if noted.is_err() {
            self.houses[house].server().waiting.remove(&ticket);
        }
        noted
    }

    fn ticket(&mut self, house: usize, waiting: Waiting) -> u64 {
        let serving = self.houses[house].server();
        serving.tickets += 1;
        serving.waiting.insert(serving.tickets, waiting);
        serving.tickets
    }

    fn count_reset(&mut self, house: usize, device: usize, reason: ResetReason) {
        match reason {
            ResetReason::NoCursor => self.counters.sometimes("reset for want of a cursor"),
            ResetReason::TooOld => self.counters.sometimes("reset behind the tombstone floor"),
            ResetReason::PastFork if self.houses[house].line.epoch > 1 => {
                self.counters.sometimes("reset past a fork");
            }
            ResetReason::UnknownHistory | ResetReason::PastFork => {
                let expected = self.reigns.forked || self.reigns.put_back || self.devices[device].put_back;
                self.counters.sometimes("reset of an unknown history");
                self.require(
                    expected,
                    "I-04",
                    format_args!("device {device} has an unknown history: {reason:?}"),
                );
            }
        }
    }

    pub(super) fn note_progress(
        &mut self,
        house: usize,
        waits: Vec<u64>,
        device: usize,
        follow: &Follow,
        sequence: Sequence,
    ) -> Result<(), RefusalReason> {
        if self.houses[house].full_until > self.now {
            return Err(RefusalReason::StorageFull);
        }
        let (device, incarnation, settled) = (device_id(device), follow.incarnation, follow.settled);
        let noted =
            self.commit(house, waits, |write| follow::note(write, device, incarnation, sequence, settled));
        match noted {
            Noted::Done => Ok(()),
            Noted::Quarantined => Err(RefusalReason::Quarantined),
            Noted::OtherIncarnation => Err(RefusalReason::Incarnation),
        }
    }

    /// Whether changes are taken: not when another device reigns, or is about to.
    pub(super) fn takes_changes(&self, house: usize) -> Result<(), RefusalReason> {
        let serving = self.houses[house].serving();
        let takes = serving.standing_down.is_none() && !serving.sealed && serving.rivals.is_empty();
        if takes { Ok(()) } else { Err(RefusalReason::Stopping) }
    }

    /// Takes a push; it is answered when that is confirmed, unless the server goes down before.
    fn push(
        &mut self,
        house: usize,
        connection: u64,
        device: usize,
        request: sync::PushRequest,
        numbers: Vec<OperationNumber>,
    ) -> Result<(), RefusalReason> {
        let push = wire::push_from_wire(request).map_err(|_| RefusalReason::Malformed)?;
        if push.epoch != self.houses[house].serving().hub.head.epoch {
            return Err(RefusalReason::WrongEpoch);
        }
        self.takes_changes(house)?;
        if self.houses[house].full_until > self.now {
            self.counters.sometimes("disk full at the server");
            return Err(RefusalReason::StorageFull);
        }
        if !self.healed && self.chance(self.swarm.crash_commit) {
            self.counters.sometimes("server crash before commit");
            self.server_crashes(house);
            return Ok(());
        }
        let submission = Submission {
            device: device_id(device),
            incarnation: push.incarnation,
            low_water: push.low_water,
            operations: push.operations,
            now: self.wall_clock(self.houses[house].clock_error),
        };
        let limits = self.limits();
        let ids = numbers.iter().map(|number| (submission.incarnation.0, number.0)).collect();
        let ticket = self.ticket(house, Waiting::Push { connection, numbers, outcomes: Vec::new(), ids });
        let usage = self.houses[house].server().usage.clone();
        let mut usage = usage.lock().expect("usage");
        let answer = self.commit(house, vec![ticket], |write| accept(write, &mut usage, &submission, limits));
        let outcomes = match answer {
            Answer::Outcomes(outcomes) => outcomes,
            other => {
                self.houses[house].server().waiting.remove(&ticket);
                self.check_refusal(house, connection, device, &other);
                self.committed(house);
                return Err(RefusalReason::Quarantined);
            }
        };
        self.decided(house, device, &submission, &outcomes);
        if let Some(Waiting::Push { outcomes: told, .. }) =
            self.houses[house].server().waiting.get_mut(&ticket)
        {
            *told = outcomes;
        }
        if !self.healed && self.chance(self.swarm.crash_commit) {
            self.remember(house);
            self.counters.sometimes("server crash after commit before reply");
            self.server_crashes(house);
            return Ok(());
        }
        self.committed(house);
        Ok(())
    }

    /// Of honest devices only a request that nobody waits for is refused, and it leaves no mark.
    fn check_refusal(&mut self, house: usize, connection: u64, device: usize, answer: &Answer) {
        if self.devices[device].put_back {
            return self.counters.sometimes("device that was put back is refused");
        }
        let listens = self.network.connections.get(&connection).is_some_and(|known| known.client);
        let id = device_id(device);
        let marked =
            self.houses[house].read(|read| read.progress(id)).is_some_and(|progress| progress.quarantined);
        match answer {
            Answer::Quarantined if !listens && !marked => {
                self.counters.sometimes("push refused because it came too late");
            }
            Answer::OutOfOrder { .. } if !listens => {
                self.counters.sometimes("push refused because it came too late");
            }
            Answer::OutOfOrder { .. } => {
                self.violate("I-02", format_args!("operations of device {device} are missing: {answer:?}"));
            }
            _ => self.violate("I-03", format_args!("an honest push of {device} is answered {answer:?}")),
        }
    }

    /// Something was committed at a server: it is remembered, handed out, shipped and answered.
    pub(super) fn committed(&mut self, house: usize) {
        self.remember(house);
        self.hold(house);
        self.feed(house);
    }

    /// Reads what was committed, for all streams.
    fn hold(&mut self, house: usize) {
        let head = self.houses[house].head();
        let mut lives = Vec::new();
        let mut through = self.houses[house].serving().hub.through;
        while through < head.sequence {
            let previous = through;
            let (event, cursor) = self.houses[house].read(|read| {
                let changes = read.changes_after(previous, LIVE_BYTES)?;
                let cursor = cursor_at(&head, changes.through, read)?;
                let count = changes.batch.count();
                Ok((wire::batch_to_wire(previous, changes.batch.finish().into(), count, &cursor), cursor))
            });
            through = cursor.sequence;
            lives.push(Rc::new(Live { previous, event, cursor }));
        }
        let hub = &mut self.houses[house].server().hub;
        hub.through = through;
        hub.held.push_back((lives, head));
    }

    /// Hands out what may be shown.
    pub(super) fn show_what_is_held(&mut self, house: usize) {
        let ring = self.swarm.ring;
        let serving = self.houses[house].server();
        let protected = serving.feeding.lock().expect("state").protection.verdict() != Verdict::ALL;
        let mut overrun = 0;
        let mut shown = None;
        while let Some((lives, head)) =
            serving.hub.held.pop_front_if(|(_, head)| head.sequence <= serving.hub.confirmed)
        {
            for live in lives {
                for stream in serving.streams.values_mut() {
                    stream.live.push_back(live.clone());
                    if stream.live.len() > ring {
                        stream.live.clear();
                        stream.behind = true;
                        overrun += 1;
                    }
                }
            }
            shown = Some(head.sequence);
            serving.hub.head = head;
        }
        (0..overrun).for_each(|_| self.counters.sometimes("follower fell behind the live ring"));
        if let (true, Some(shown)) = (protected, shown) {
            self.reigns.promise_shown(&self.houses[house], shown);
        }
        self.pump_all(house);
    }

    fn pump_all(&mut self, house: usize) {
        let all: Vec<u64> = self.houses[house].serving().streams.keys().copied().collect();
        all.into_iter().for_each(|connection| self.pump(house, connection));
    }

    pub(super) fn publish_membership(&mut self, house: usize) {
        let event = self.houses[house].membership();
        for stream in self.houses[house].server().streams.values_mut() {
            stream.waiting.push_back(event.clone());
        }
        self.pump_all(house);
    }

    /// Answers calls whose commit is confirmed by now, or given up.
    pub(super) fn settle_calls(&mut self, house: usize) {
        let due = self.houses[house].server().master.due();
        due.into_iter().for_each(|(ticket, confirmed)| self.answer(house, ticket, confirmed));
    }

    /// Answers one call.
    pub(super) fn answer(&mut self, house: usize, ticket: u64, confirmed: bool) {
        let serving = self.houses[house].server();
        let Some(waiting) = serving.waiting.remove(&ticket) else { return };
        match waiting {
            Waiting::Push { connection, numbers, outcomes, ids } => {
                let reply = if confirmed {
                    self.confirms(house, ids);
                    let head = self.houses[house].serving().hub.head.sequence;
                    let safe = self.safe(house);
                    Ok(wire::push_answer_to_wire(&PushAnswer { outcomes, head, safe }))
                } else {
                    self.counters.sometimes("push answered that it is not confirmed");
                    Err(refusal(plainly(RefusalReason::Busy)))
                };
                self.send(connection, Message::Down(Down::Pushed(numbers, reply)));
            }
            Waiting::Follow { connection, device, stream } if confirmed => {
                let there = self.network.connections.get(&connection).is_some_and(|known| !known.broken);
                if there {
                    self.note(format_args!("device {device} follows machine {house}"));
                    self.houses[house].server().streams.insert(connection, *stream);
                    self.schedule(HEARTBEAT, Event::Heartbeat { house, connection });
                    self.pump(house, connection);
                }
            }
            Waiting::Follow { connection, .. } => {
                let busy = refusal(plainly(RefusalReason::Busy));
                self.send(connection, Message::Down(Down::FollowEnded(busy)));
            }
        }
    }

    /// Operations are answered as taken. I-16: with the replica they are there as well, and what is
    /// acknowledged without it is on record.
    fn confirms(&mut self, house: usize, ids: Vec<OperationId>) {
        let own = &self.houses[house];
        let Some(set) = own.serving().set else { return };
        let protected = own.serving().feeding.lock().expect("state").protection.verdict() != Verdict::ALL;
        let open = own.read(|read| read.unprotected()).iter().any(|range| range.through.is_none());
        let as_chosen = match set.durability {
            Durability::Async => true,
            Durability::SyncHold => protected,
            Durability::SyncContinue => protected || open,
        };
        if protected {
            self.reigns.promise(&self.houses[house], ids);
        }
        self.require(
            as_chosen,
            "I-16",
            format_args!("machine {house} acknowledges what nobody chose: {set:?}"),
        );
    }

    /// Sends what the stream's window allows.
    fn pump(&mut self, house: usize, connection: u64) {
        loop {
            let Some(serving) = &mut self.houses[house].serving else { return };
            let Some(stream) = serving.streams.get_mut(&connection) else { return };
            if stream.under_way >= WINDOW {
                return;
            }
            if let Some(event) = stream.waiting.pop_front() {
                stream.under_way += 1;
                stream.last_sent = self.now;
                self.send(connection, Message::Down(Down::Followed(event)));
            } else if stream.behind {
                if !self.catch_up(house, connection) {
                    return;
                }
            } else {
                match stream.live.pop_front() {
                    None => return,
                    Some(live) if live.cursor.sequence <= stream.sequence() => {}
                    Some(live) if live.previous == stream.sequence() => {
                        stream.at = Some(live.cursor);
                        stream.waiting.push_back(live.event.clone());
                    }
                    Some(_) => stream.behind = true,
                }
            }
        }
    }

    /// One batch from disk, and the end of catching up behind the last; false while that may not be shown.
    fn catch_up(&mut self, house: usize, connection: u64) -> bool {
        let Some(stream) = self.houses[house].serving().streams.get(&connection) else { return false };
        let previous = stream.sequence();
        let head = self.houses[house].head();
        if head.sequence > self.houses[house].serving().hub.confirmed {
            return false;
        }
        let (bytes, count, cursor, complete) = self.houses[house].read(|read| {
            let changes = read.changes_after(previous, self.swarm.batch_bytes)?;
            let (count, complete) = (changes.batch.count(), changes.complete);
            Ok((changes.batch.finish(), count, cursor_at(&head, changes.through, read)?, complete))
        });
        let safe = self.safe(house);
        let Some(stream) = self.houses[house].server().streams.get_mut(&connection) else { return false };
        if stream.at != Some(cursor) {
            stream.at = Some(cursor);
            stream.waiting.push_back(wire::batch_to_wire(previous, bytes.into(), count, &cursor));
        }
        if complete {
            stream.waiting.push_back(wire::caught_up_to_wire(&cursor, safe));
            stream.behind = false;
        }
        true
    }

    /// The follower took an event.
    pub(super) fn event_taken(&mut self, connection: u64) {
        let Some(house) = self.network.connections.get(&connection).map(|known| known.house) else { return };
        let Some(serving) = &mut self.houses[house].serving else { return };
        if let Some(stream) = serving.streams.get_mut(&connection) {
            stream.under_way = stream.under_way.saturating_sub(1);
            self.pump(house, connection);
        }
    }

    pub(super) fn heartbeat(&mut self, house: usize, connection: u64) {
        let (now, safe) = match &self.houses[house].serving {
            Some(serving) if serving.streams.contains_key(&connection) => (self.now, self.safe(house)),
            _ => return,
        };
        let serving = self.houses[house].server();
        let head = serving.hub.head.sequence;
        let Some(stream) = serving.streams.get_mut(&connection) else { return };
        if stream.last_sent + HEARTBEAT <= now && stream.under_way < WINDOW && stream.waiting.is_empty() {
            stream.waiting.push_back(wire::heartbeat_to_wire(head, safe));
            stream.behind |= head > stream.sequence();
        }
        self.schedule(HEARTBEAT, Event::Heartbeat { house, connection });
        self.pump(house, connection);
    }

    /// The process ends and is started again some time later.
    pub(super) fn server_crashes(&mut self, house: usize) {
        let lasts = self.rng.random_range(0..20 * SECOND);
        self.power_cut(house, lasts);
    }

    /// Where a device may look for its server: as its membership rows say, the present server first.
    pub(super) fn endpoints(&self, device: usize) -> Vec<String> {
        if self.houses.get(device).is_some_and(|own| own.serving.is_some()) {
            return vec![endpoint(device)];
        }
        let (present, servers) = self.known_servers(device);
        let (first, others): (Vec<_>, Vec<_>) = servers.iter().partition(|row| Some(row.device) == present);
        first.into_iter().chain(others).flat_map(|row| row.endpoints.clone()).collect()
    }

    pub(super) fn known_servers(
        &self,
        device: usize,
    ) -> (Option<mfpsync_storage::model::DeviceId>, Vec<Member>) {
        let (lineage, members) = self.devices[device].read(|read| Ok((read.lineage()?, read.members()?)));
        let present = lineage.last().map(|signed| signed.record.device);
        let serves = |row: &Member| {
            !row.released && row.capabilities.contains(Capabilities::SERVE) && row.device != device_id(device)
        };
        (present, members.into_iter().map(|signed| signed.record).filter(serves).collect())
    }
}
