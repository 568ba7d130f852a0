//! The server: real `accept` and `follow` on a real database, behind handlers that do what the
//! daemon's do, and follow streams with the daemon's window and live ring.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use mfpsync_proto::sync;
use mfpsync_replication::accept::{self, Answer, Submission, accept, lineage};
use mfpsync_replication::follow::{self, Noted, Start};
use mfpsync_replication::message::{Greeting, PushAnswer, Refusal, RefusalReason, ResetReason};
use mfpsync_replication::wire;
use mfpsync_storage::Inline;
use mfpsync_storage::master::{Founding, Head, Master, MasterRead};
use mfpsync_storage::model::{
    Capabilities, Cursor, DeviceId, Epoch, GroupId, Incarnation, IssuingCertificate, Member, Promotion,
    PromotionReason, PublicKey, Sequence, Signed,
};
use rand::RngExt;
use rand::rngs::StdRng;

use super::network::{Down, Message, Up};
use super::swarm::SECOND;
use super::world::{Event, World};

/// Events on their way to a follower and not yet taken: the daemon's look-ahead at both ends.
const WINDOW: usize = 3;
const HEARTBEAT: u64 = 10 * SECOND;
/// As the daemon's hub.
const LIVE_BYTES: usize = mfpsync_proto::limit::BATCH_BYTES;

pub(super) const GROUP: GroupId = GroupId([7; 16]);
pub(super) const ROOT: PublicKey = PublicKey([9; 32]);

/// A commit as it goes out to all followers.
struct Live {
    previous: Sequence,
    event: sync::FollowEvent,
    cursor: Cursor,
}

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

pub(super) struct Server {
    pub master: Inline<Master>,
    pub streams: BTreeMap<u64, Stream>,
    published: Sequence,
    /// The version of the last membership row.
    row: u64,
    /// Who is behind this reads everything anew, whatever was collected.
    pub floor: Sequence,
    pub down_until: u64,
    pub full_until: u64,
    pub clock_error: i64,
}

/// Whose group it is, and who signs membership rows.
const FOUNDER: DeviceId = DeviceId([200; 16]);

/// A record with a signature in form only.
pub(super) fn signed<T>(record: T, body: Vec<u8>) -> Signed<T> {
    Signed { record, body, signature: [0; 64] }
}

pub(super) fn member(device: DeviceId, released: bool, version: u64) -> Signed<Member> {
    let member = Member {
        group: GROUP,
        device,
        public_key: PublicKey([device.0[0]; 32]),
        name: format!("printer {}", device.0[0]),
        capabilities: Capabilities::CLIENT,
        released,
        version,
        endpoints: Vec::new(),
        issuer: FOUNDER,
    };
    let body = member.body();
    signed(member, body)
}

impl Server {
    pub(super) fn found(rng: &mut StdRng) -> Self {
        let promotion = Promotion {
            group: GROUP,
            epoch: Epoch { number: 1, nonce: rng.random() },
            parent: None,
            ends: Vec::new(),
            device: FOUNDER,
            operator: "operator".to_owned(),
            reason: PromotionReason::Founded,
            made_at: 0,
        };
        let issuer = IssuingCertificate { group: GROUP, device: FOUNDER, public_key: ROOT };
        let founding = Founding {
            group_name: "fleet".to_owned(),
            root_key: ROOT,
            promotion: signed(promotion.clone(), promotion.body()),
            issuer: signed(issuer.clone(), issuer.body()),
            member: member(FOUNDER, false, 1),
        };
        let mut master: Inline<Master> = Inline::in_memory().expect("memory database");
        master.write(|write| write.found(&founding)).expect("found a group");
        Self {
            master,
            streams: BTreeMap::new(),
            published: Sequence::ZERO,
            row: 1,
            floor: Sequence::ZERO,
            down_until: 0,
            full_until: 0,
            clock_error: 0,
        }
    }

    /// The version for a membership row that counts from now on.
    pub(super) fn next_row(&mut self) -> u64 {
        self.row += 1;
        self.row
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&MasterRead<'_>) -> mfpsync_storage::Result<T>) -> T {
        self.master.read(read).expect("read the master")
    }

    pub(super) fn head(&self) -> Head {
        let mut head = self.read(|read| read.founded_head());
        head.tombstone_floor = head.tombstone_floor.max(self.floor);
        head
    }

    fn membership(&self) -> sync::FollowEvent {
        self.read(|read| Ok(wire::membership_to_wire(&read.members()?, &read.issuers()?)))
    }
}

fn refusal(reason: RefusalReason) -> sync::Refusal {
    wire::refusal_to_wire(&Refusal { reason, text: "no".to_owned(), claim: None })
}

fn cursor_at(head: &Head, sequence: Sequence, read: &MasterRead<'_>) -> mfpsync_storage::Result<Cursor> {
    if sequence == head.sequence {
        return Ok(head.cursor());
    }
    let chain = read.chain_at(sequence)?.expect("every change has its place in the chain");
    Ok(Cursor { chain, sequence, ..head.cursor() })
}

impl World {
    pub(super) fn server_takes(&mut self, connection: u64, up: Up) {
        let Some(known) = self.network.connections.get(&connection) else { return };
        let device = known.device;
        let allowed = self.authorise(device);
        match up {
            Up::Dial => self.send(connection, Message::Down(Down::Dialled)),
            Up::Close => {
                self.server.streams.remove(&connection);
                self.network.connections.remove(&connection);
            }
            Up::Hello(request) => {
                let reply = allowed.and_then(|()| self.hello(device, request));
                self.send(connection, Message::Down(Down::Greeted(reply.map_err(refusal))));
            }
            Up::Follow(request) => {
                let opened = allowed.and_then(|()| self.follow(connection, device, request));
                match opened {
                    Ok(()) => self.pump(connection),
                    Err(reason) => self.send(connection, Message::Down(Down::FollowEnded(refusal(reason)))),
                }
            }
            Up::Push(request, numbers) => {
                let reply = match allowed {
                    Ok(()) => self.push(connection, device, request),
                    Err(reason) => Some(Err(reason)),
                };
                // None: the server went down over it.
                if let Some(reply) = reply {
                    let pushed = Down::Pushed(numbers, reply.map_err(refusal));
                    self.send(connection, Message::Down(pushed));
                }
            }
        }
    }

    fn limits(&self) -> accept::Limits {
        accept::Limits { user_items: self.swarm.user_items, ..Default::default() }
    }

    fn authorise(&mut self, device: usize) -> Result<(), RefusalReason> {
        let id = self.devices[device].id;
        let members = self.server.read(|read| read.members());
        match members.iter().find(|member| member.record.device == id) {
            None => Err(RefusalReason::UnknownDevice),
            Some(member) if member.record.released => Err(RefusalReason::Released),
            Some(_) => Ok(()),
        }
    }

    fn hello(
        &mut self,
        device: usize,
        request: sync::HelloRequest,
    ) -> Result<sync::HelloReply, RefusalReason> {
        let hello = wire::hello_from_wire(request).map_err(|_| RefusalReason::Malformed)?;
        let id = self.devices[device].id;
        let head = self.server.head();
        if hello.group != head.group {
            return Err(RefusalReason::WrongGroup);
        }
        let greeting = self.server.read(|read| {
            let quarantined = read.progress(id)?.is_some_and(|progress| progress.quarantined);
            Ok((!quarantined).then_some(Greeting {
                protocol: 1,
                epoch: head.epoch,
                head: head.sequence,
                safe: None,
                limits: self.limits().announced(),
                lineage: read.lineage()?,
                members: read.members()?,
                issuers: read.issuers()?,
                known_operation: read.ledger(hello.incarnation)?.last(),
                group_name: head.group_name.clone(),
            }))
        });
        let mut greeting = greeting.ok_or(RefusalReason::Quarantined)?;
        greeting.limits.push_operations = self.swarm.push_operations;
        // As when most of the group has it: an arbitrary, but lasting mark.
        greeting.safe = Some(Sequence(head.sequence.0 / 2));
        Ok(wire::greeting_to_wire(&greeting))
    }

    fn follow(
        &mut self,
        connection: u64,
        device: usize,
        request: sync::FollowRequest,
    ) -> Result<(), RefusalReason> {
        let follow = wire::follow_from_wire(request).map_err(|_| RefusalReason::Malformed)?;
        let (head, cursor) = (self.server.head(), follow.cursor);
        let start = self.server.read(|read| {
            let chain = cursor.map(|cursor| read.chain_at(cursor.sequence)).transpose()?.flatten();
            Ok(follow::start(cursor.as_ref(), &head, &lineage(read)?, chain))
        });
        let mut waiting = VecDeque::new();
        let at = match (start, cursor) {
            (Start::Resume, Some(cursor)) => {
                self.note_progress(device, follow.incarnation, cursor.sequence, follow.settled)?;
                Some(cursor)
            }
            (Start::Reset(reason), _) => {
                self.count_reset(device, reason);
                self.note_progress(device, follow.incarnation, Sequence::ZERO, false)?;
                waiting.push_back(wire::reset_to_wire(reason));
                None
            }
            (start, _) => {
                self.violate("I-04", format_args!("device {device} is ahead of the server: {start:?}"));
                return Err(RefusalReason::StorageFault);
            }
        };
        waiting.push_back(self.server.membership());
        let stream =
            Stream { at, under_way: 0, waiting, live: VecDeque::new(), behind: true, last_sent: self.now };
        self.server.streams.insert(connection, stream);
        self.schedule(HEARTBEAT, Event::Heartbeat { connection });
        Ok(())
    }

    fn count_reset(&mut self, device: usize, reason: ResetReason) {
        match reason {
            ResetReason::NoCursor => self.counters.sometimes("reset for want of a cursor"),
            ResetReason::TooOld => self.counters.sometimes("reset behind the tombstone floor"),
            ResetReason::UnknownHistory | ResetReason::PastFork => {
                self.violate("I-04", format_args!("device {device} has an unknown history: {reason:?}"));
            }
        }
    }

    pub(super) fn note_progress(
        &mut self,
        device: usize,
        incarnation: Incarnation,
        sequence: Sequence,
        settled: bool,
    ) -> Result<(), RefusalReason> {
        if self.server.full_until > self.now {
            return Err(RefusalReason::StorageFull);
        }
        let device = self.devices[device].id;
        let noted =
            self.server.master.write(|write| follow::note(write, device, incarnation, sequence, settled));
        match noted.expect("note progress") {
            Noted::Done => Ok(()),
            Noted::Quarantined => Err(RefusalReason::Quarantined),
            Noted::OtherIncarnation => Err(RefusalReason::Incarnation),
        }
    }

    /// None when the server goes down before it can answer.
    fn push(
        &mut self,
        connection: u64,
        device: usize,
        request: sync::PushRequest,
    ) -> Option<Result<sync::PushReply, RefusalReason>> {
        let Ok(push) = wire::push_from_wire(request) else { return Some(Err(RefusalReason::Malformed)) };
        let head = self.server.head();
        if push.epoch != head.epoch {
            return Some(Err(RefusalReason::WrongEpoch));
        }
        if self.server.full_until > self.now {
            self.counters.sometimes("disk full at the server");
            return Some(Err(RefusalReason::StorageFull));
        }
        if !self.healed && self.chance(self.swarm.crash_commit) {
            self.counters.sometimes("server crash before commit");
            self.server_crashes();
            return None;
        }
        let submission = Submission {
            device: self.devices[device].id,
            incarnation: push.incarnation,
            low_water: push.low_water,
            operations: push.operations,
            now: self.wall_clock(self.server.clock_error),
        };
        let limits = self.limits();
        let answer = self.server.master.write(|write| accept(write, &submission, limits)).expect("accept");
        let outcomes = match answer {
            Answer::Outcomes(outcomes) => outcomes,
            other => {
                self.check_refusal(connection, device, &other);
                return Some(Err(RefusalReason::Quarantined));
            }
        };
        self.decided(device, &submission, &outcomes);
        self.publish();
        if !self.healed && self.chance(self.swarm.crash_commit) {
            self.counters.sometimes("server crash after commit before reply");
            self.server_crashes();
            return None;
        }
        let head = self.server.head().sequence;
        Some(Ok(wire::push_answer_to_wire(&PushAnswer { outcomes, head, safe: None })))
    }

    /// Of honest devices only a request that nobody waits for is refused, and it leaves no mark.
    fn check_refusal(&mut self, connection: u64, device: usize, answer: &Answer) {
        let listens = self.network.connections.get(&connection).is_some_and(|known| known.client);
        let id = self.devices[device].id;
        let marked = self.server.read(|read| read.progress(id)).is_some_and(|progress| progress.quarantined);
        match answer {
            Answer::Quarantined if !listens && !marked => {
                self.counters.sometimes("push refused because it came too late");
            }
            Answer::OutOfOrder { .. } => {
                self.violate("I-02", format_args!("operations of device {device} are missing: {answer:?}"));
            }
            _ => self.violate("I-03", format_args!("an honest push of {device} is answered {answer:?}")),
        }
    }

    /// Hands what was committed to all streams.
    pub(super) fn publish(&mut self) {
        let head = self.server.head();
        while self.server.published < head.sequence {
            let previous = self.server.published;
            let (event, cursor) = self.server.read(|read| {
                let changes = read.changes_after(previous, LIVE_BYTES)?;
                let cursor = cursor_at(&head, changes.through, read)?;
                let count = changes.batch.count();
                Ok((wire::batch_to_wire(previous, changes.batch.finish().into(), count, &cursor), cursor))
            });
            self.server.published = cursor.sequence;
            let live = Rc::new(Live { previous, event, cursor });
            let mut overrun = 0;
            for stream in self.server.streams.values_mut() {
                stream.live.push_back(live.clone());
                if stream.live.len() > self.swarm.ring {
                    stream.live.clear();
                    stream.behind = true;
                    overrun += 1;
                }
            }
            (0..overrun).for_each(|_| self.counters.sometimes("follower fell behind the live ring"));
        }
        let all: Vec<u64> = self.server.streams.keys().copied().collect();
        all.into_iter().for_each(|connection| self.pump(connection));
    }

    pub(super) fn publish_membership(&mut self) {
        let event = self.server.membership();
        let all: Vec<u64> = self.server.streams.keys().copied().collect();
        for connection in all {
            if let Some(stream) = self.server.streams.get_mut(&connection) {
                stream.waiting.push_back(event.clone());
            }
            self.pump(connection);
        }
    }

    /// Sends what the stream's window allows.
    fn pump(&mut self, connection: u64) {
        while let Some(stream) = self.server.streams.get_mut(&connection) {
            if stream.under_way >= WINDOW {
                return;
            }
            if let Some(event) = stream.waiting.pop_front() {
                stream.under_way += 1;
                stream.last_sent = self.now;
                self.send(connection, Message::Down(Down::Followed(event)));
            } else if stream.behind {
                self.catch_up(connection);
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

    /// One batch from disk, and the end of catching up behind the last.
    fn catch_up(&mut self, connection: u64) {
        let Some(stream) = self.server.streams.get(&connection) else { return };
        let previous = stream.sequence();
        let head = self.server.head();
        let (bytes, count, cursor, complete) = self.server.read(|read| {
            let changes = read.changes_after(previous, self.swarm.batch_bytes)?;
            let (count, complete) = (changes.batch.count(), changes.complete);
            Ok((changes.batch.finish(), count, cursor_at(&head, changes.through, read)?, complete))
        });
        let Some(stream) = self.server.streams.get_mut(&connection) else { return };
        if stream.at != Some(cursor) {
            stream.at = Some(cursor);
            stream.waiting.push_back(wire::batch_to_wire(previous, bytes.into(), count, &cursor));
        }
        if complete {
            stream.waiting.push_back(wire::caught_up_to_wire(&cursor, None));
            stream.behind = false;
        }
    }

    /// The follower took an event.
    pub(super) fn event_taken(&mut self, connection: u64) {
        if let Some(stream) = self.server.streams.get_mut(&connection) {
            stream.under_way = stream.under_way.saturating_sub(1);
            self.pump(connection);
        }
    }

    pub(super) fn heartbeat(&mut self, connection: u64) {
        let head = self.server.head().sequence;
        let now = self.now;
        let Some(stream) = self.server.streams.get_mut(&connection) else { return };
        if stream.last_sent + HEARTBEAT <= now && stream.under_way < WINDOW && stream.waiting.is_empty() {
            stream.waiting.push_back(wire::heartbeat_to_wire(head, None));
            stream.behind |= head > stream.sequence();
        }
        self.schedule(HEARTBEAT, Event::Heartbeat { connection });
        self.pump(connection);
    }

    /// Connections are gone, the database stays.
    pub(super) fn server_crashes(&mut self) {
        let down_for = self.rng.random_range(0..20 * SECOND);
        self.server.down_until = self.now + down_for;
        self.server.streams.clear();
        self.server.published = self.server.head().sequence;
        let all: Vec<u64> = self.network.connections.keys().copied().collect();
        all.into_iter().for_each(|connection| self.break_connection(connection, "server crashed"));
    }
}
