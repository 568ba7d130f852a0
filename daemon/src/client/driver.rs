//! Carries out the round's effects: one task that owns the round, the connection and the timer.

mod looking;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use mfpsync_replication::merge::is_written_by_devices;
use mfpsync_replication::message::{Claim, Follow, FollowEvent, Hello, Push, Report};
use mfpsync_replication::round::{
    AdoptGreeting, At, Effect, Event, Failure, LinkEvent, LinkId, LinkState, Moment, Outbox, PushOrder,
    Round, Start, Stored, Timing,
};
use mfpsync_replication::wire as convert;
use mfpsync_storage::Result;
use mfpsync_storage::local::{Heard, LocalRead, LocalWrite};
use mfpsync_storage::model::{
    Cursor, ERASED_KIND, Epoch, GroupId, Held, Incarnation, IssuingCertificate, ItemKey, Member, Promotion,
    PublicKey, Signed,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;

use super::link::{self, LinkError, Servers};
use super::report;
use super::seek::Seek;
use crate::authority::{IssuingKey, TrustAnchor};
use crate::clock::unix_millis;
use crate::communication::Tally;
use crate::db::READ_DEADLINE;
use crate::device::Device;
use crate::fault::{Fault, FaultCode};
use crate::net::dial::DialError;
use crate::own_data::draw;
use crate::storage_fault::start_fault;

/// Answers on their way from calls under way: a dial, a hello and a push at the most, each of the
/// present connection and of one that is ending.
const ANSWERS: usize = 16;
/// Events of the follow stream read ahead of the database.
const FOLLOW_AHEAD: usize = 1;
const DIAL: Duration = Duration::from_secs(5);
/// How often the server hears how far this device is while a connection lasts.
const CONFIRM_EVERY: Duration = Duration::from_secs(60 * 60);

/// Owns the round.
pub(super) struct Driver {
    device: Arc<Device>,
    anchor: TrustAnchor,
    group: GroupId,
    incarnation: Incarnation,
    issuers: Vec<Signed<IssuingCertificate>>,
    round: Round,
    effects: VecDeque<Effect>,
    began: Instant,
    wake_at: Option<Instant>,
    tasks: TaskTracker,
    stop: CancellationToken,
    answers: mpsc::Sender<(LinkId, LinkEvent)>,
    answered: mpsc::Receiver<(LinkId, LinkEvent)>,
    connection: Option<Connection>,
    /// Where the members' rows say that the servers are.
    endpoints: Vec<String>,
    seek: Seek,
    /// Ends of looking around; there is one at a time.
    looked: mpsc::Sender<()>,
    looks: mpsc::Receiver<()>,
    /// Something was heard that no sweep has used yet.
    heard: bool,
}

/// A connection, or the attempt at one.
struct Connection {
    link: LinkId,
    channel: Option<Channel>,
    /// The key that the device at the other end has proven to hold.
    peer: Option<PublicKey>,
    /// That device may serve, as far as is known.
    proven: bool,
    follow: Option<mpsc::Receiver<std::result::Result<FollowEvent, Failure>>>,
    /// Ends its calls.
    ended: CancellationToken,
}

impl Driver {
    /// Reads what the round starts from.
    ///
    /// # Errors
    /// A fault for a person: the own database fails, or what it says of the group's history is none.
    pub(super) async fn prepare(
        device: Arc<Device>,
        anchor: TrustAnchor,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> std::result::Result<Self, Fault> {
        let read = device.own.db().read(READ_DEADLINE, |read| {
            Ok((read.device()?, outbox(read)?, read.lineage()?, read.issuers()?))
        });
        let (own, outbox, lineage, issuers) = read.await.map_err(|error| start_fault(&error))?;
        let servers = Servers::of(&device).await.map_err(|error| start_fault(&error))?.endpoints();
        // Whoever may be asked to serve one day needs a key that the recovery kit can certify.
        let issuing_key =
            IssuingKey::load_or_create(&*device.keys, device.identity.device(), &*device.random)
                .map_err(|error| Fault::with_detail(FaultCode::Keys, error))?
                .public_key();
        let timing = Timing { heartbeat: device.config.heartbeat, dial: DIAL, ..Timing::default() };
        let timing = timing.waiting_at_most(device.settings.now().reconnect_max);
        let start = Start {
            group: anchor.group,
            incarnation: own.incarnation,
            lineage,
            followed: own.followed,
            cursor: own.cursor,
            resetting: own.resetting,
            outbox,
            endpoints: servers.clone(),
            own_endpoints: device.endpoints(&device.config.listen),
            issuing_key: Some(issuing_key),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            timing,
        };
        let began = Instant::now();
        let at = At { now: Moment(Duration::ZERO), random: draw(&*device.random) };
        let (round, effects) =
            Round::start(start, at).map_err(|error| Fault::with_detail(FaultCode::DbCorrupt, error))?;
        let (answers, answered) = mpsc::channel(ANSWERS);
        let (looked, looks) = mpsc::channel(1);
        Ok(Self {
            device,
            anchor,
            group: anchor.group,
            incarnation: own.incarnation,
            issuers,
            round,
            effects: effects.into(),
            began,
            wake_at: None,
            tasks,
            stop,
            answers,
            answered,
            connection: None,
            endpoints: servers,
            seek: Seek::default(),
            looked,
            looks,
            heard: false,
        })
    }

    /// Runs until the part is stopped or the round ends.
    pub(super) async fn run(mut self) {
        let device = self.device.clone();
        let mut edits = self.device.own.edits();
        let mut settings = self.device.settings.watch();
        let mut confirmations = tokio::time::interval_at(self.began + CONFIRM_EVERY, CONFIRM_EVERY);
        loop {
            while let Some(effect) = self.effects.pop_front() {
                self.carry_out(effect).await;
            }
            let event = tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    self.step(Event::Stop);
                    while let Some(effect) = self.effects.pop_front() {
                        self.carry_out(effect).await;
                    }
                    return;
                }
                Some((link, event)) = self.answered.recv() => Some(Event::Link(link, event)),
                Some(()) = self.looks.recv() => {
                    self.looked().await;
                    None
                }
                Ok(()) = edits.changed() => Some(Event::LocalEdits(self.read_outbox().await)),
                event = next_event(&mut self.connection, self.round.wants_more()) => Some(event),
                Ok(()) = settings.changed() => {
                    self.renew_endpoints().await;
                    Some(Event::LongestWait(settings.borrow_and_update().reconnect_max))
                }
                () = device.serves.notified() => {
                    self.renew_changed_endpoints().await;
                    None
                }
                _ = confirmations.tick() => {
                    self.confirm_settled().await;
                    None
                }
                () = sleep_until(self.wake_at) => {
                    self.wake_at = None;
                    Some(Event::Tick)
                }
            };
            if let Some(event) = event {
                self.step(event);
            }
        }
    }

    /// A connection may last for months: the server hears now and then how far this device is.
    async fn confirm_settled(&self) {
        let read = self.device.own.db().read(READ_DEADLINE, |read| Ok((read.device()?, read.waiting()?)));
        match read.await {
            Ok((device, waiting)) if waiting.operations == 0 && !device.resetting => {
                if let Some(cursor) = device.cursor {
                    self.confirm(cursor, true);
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "read the position"),
        }
    }

    fn step(&mut self, event: Event) {
        let at = At { now: Moment(self.began.elapsed()), random: draw(&*self.device.random) };
        let (round, effects) = self.round.clone().step(at, event);
        self.round = round;
        self.effects.extend(effects);
    }

    /// How the outbox stands. When it cannot be read something may wait in it, and the push reads again.
    async fn read_outbox(&self) -> Outbox {
        let read = self.device.own.db().read(READ_DEADLINE, outbox).await;
        read.unwrap_or_else(|error| {
            tracing::warn!(%error, "read the outbox");
            Outbox { waiting: true, ..Outbox::default() }
        })
    }

    async fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Dial { link, endpoint } => self.dial(link, endpoint).await,
            Effect::Hello(link, hello) => self.hello(link, *hello),
            Effect::Follow(link, follow) => self.follow(link, follow),
            Effect::Push(link, order) => self.push(link, order).await,
            Effect::Disconnect(link) => self.disconnect(link),
            Effect::WakeAt(moment) => self.wake_at = Some(self.began + moment.0),
            Effect::Report(state) => {
                report::publish(&self.device, &state);
                if matches!(state, LinkState::Offline { .. }) {
                    self.renew_changed_endpoints().await;
                }
                self.look_around(&state).await;
            }
            Effect::AdoptGreeting(greeting) => {
                let stored = self.adopt_greeting(*greeting).await;
                self.stored(stored).await;
            }
            Effect::AdoptMembership { members, issuers } => {
                let stored = self.adopt_membership(members, issuers).await.map(|()| Stored::Noted);
                self.stored(stored).await;
            }
            Effect::NoteClaim(claim) => {
                self.issuers.extend(claim.issuer.clone());
                let stored = self.device.adopt_claim(&claim).await.map(|()| Stored::Noted);
                self.renew_endpoints().await;
                self.stored(stored).await;
            }
            Effect::ApplyBatch { changes, cursor } => {
                let erased = changes.iter().filter(|change| change.key.kind.as_str() == ERASED_KIND).count();
                let received = changes.len() as u64;
                let stored =
                    self.device.own.write(move |db| Ok(((), db.apply_changes(&changes, &cursor)?))).await;
                if stored.is_ok() {
                    report::received(&self.device, received, erased as u64);
                }
                if erased > 0 && stored.is_ok() {
                    // What it purged must not live on in the log.
                    self.device.own.db().store().truncate_log();
                    self.confirm(cursor, false);
                }
                self.stored(stored.map(|()| Stored::Applied(cursor))).await;
            }
            Effect::BeginReset(reason) => {
                tracing::info!(?reason, "everything is read anew from the server");
                report::read_anew(&self.device, reason);
                let stored = self.write(|db| db.begin_reset()).await;
                self.stored(stored.map(|()| Stored::ResetBegun)).await;
            }
            Effect::FinishReset(cursor) => {
                let stored = self.device.own.write(move |db| finish_reset(db, &cursor)).await;
                self.stored(stored.map(|()| Stored::ResetFinished(cursor))).await;
            }
            Effect::Settle(outcomes) => {
                let tally = Tally::of(outcomes.iter().map(|(_, outcome)| outcome));
                let (now, limits) = (unix_millis(), self.device.retained_limits());
                let stored = self.device.own.settle(move |db| {
                    let settlement = db.settle(&outcomes, now, limits)?;
                    Ok((outbox(db)?, settlement.changed))
                });
                let stored = stored.await.map(Stored::Settled);
                if stored.is_ok() {
                    self.device.faults.clear(FaultCode::OutboxFull);
                    report::pushed(&self.device, tally);
                }
                self.stored(stored).await;
            }
            Effect::ForgetSafe(safe) => {
                let stored = self.write(move |db| db.release_retained(safe)).await;
                self.stored(stored.map(|_| Stored::Noted)).await;
            }
        }
    }

    async fn write<T: Send + 'static>(
        &self,
        mut write: impl FnMut(&LocalWrite<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.device.own.write(move |db| Ok((write(db)?, Vec::new()))).await
    }

    /// Answers a storage effect.
    async fn stored(&mut self, stored: Result<Stored>) {
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => {
                tracing::warn!(%error, "store what the server sent");
                Stored::Failed
            }
        };
        self.step(Event::Stored(stored));
    }

    async fn adopt_greeting(&mut self, greeting: AdoptGreeting) -> Result<Stored> {
        let rows: Vec<Member> = greeting.members.iter().map(|signed| signed.record.clone()).collect();
        self.issuers.clone_from(&greeting.issuers);
        let reign = greeting.lineage.last().map(|highest| highest.record.epoch);
        if let Some(highest) = greeting.lineage.last() {
            let Promotion { group, epoch, device, .. } = highest.record;
            self.device.saw_reign(device);
            if let Err(fault) = self.device.saw_epoch(group, epoch).await {
                self.device.faults.set(fault);
                return Ok(Stored::Failed);
            }
        }
        let (now, number) =
            (unix_millis(), greeting.lineage.last().map_or(0, |last| last.record.epoch.number));
        let heard = Heard { known: greeting.known_operation, confirmed: greeting.confirmed_operation };
        let write = move |db: &LocalWrite<'_>| {
            db.adopt_lineage(&greeting.lineage)?;
            db.adopt_roster(&[], &greeting.issuers, &greeting.members)?;
            db.follow_reign(number)?;
            let offered = match greeting.lost_beyond {
                Some(fork) => Some(db.offer_again(fork, heard, now, is_written_by_devices)?),
                None => None,
            };
            Ok((outbox(db)?, offered))
        };
        let (outbox, offered) = self.write(write).await?;
        if let Some(offered) = offered {
            report::offered(&self.device, offered);
        }
        self.take_rows(rows).await;
        if let Some(epoch) = reign {
            self.report_held(epoch);
        }
        Ok(Stored::GreetingAdopted(outbox))
    }

    async fn adopt_membership(
        &mut self,
        members: Vec<Signed<Member>>,
        issuers: Vec<Signed<IssuingCertificate>>,
    ) -> Result<()> {
        let rows: Vec<Member> = members.iter().map(|signed| signed.record.clone()).collect();
        self.issuers.clone_from(&issuers);
        self.write(move |db| db.adopt_roster(&[], &issuers, &members)).await?;
        self.take_rows(rows).await;
        Ok(())
    }

    /// Verified rows count from now on; new addresses of servers are tried.
    async fn take_rows(&mut self, rows: Vec<Member>) {
        self.device.roster.update(rows);
        self.renew_endpoints().await;
    }

    /// This device's own server may have stopped since: then others are dialled.
    async fn renew_changed_endpoints(&mut self) {
        let servers = Servers::of(&self.device).await;
        // Whatever else is tried just now stays.
        if servers.is_ok_and(|servers| servers.endpoints() != self.endpoints) {
            self.renew_endpoints().await;
        }
    }

    async fn renew_endpoints(&mut self) {
        match Servers::of(&self.device).await {
            Ok(servers) => {
                self.endpoints = servers.endpoints();
                self.step(Event::Endpoints(self.endpoints.clone()));
            }
            Err(error) => tracing::warn!(%error, "read where the servers are"),
        }
    }

    async fn dial(&mut self, link: LinkId, endpoint: String) {
        self.seek.dialling();
        let ended = self.stop.child_token();
        self.connection = Some(Connection {
            link,
            channel: None,
            peer: None,
            proven: false,
            follow: None,
            ended: ended.clone(),
        });
        let device = self.device.clone();
        let dialled = async {
            let servers = Servers::of(&device).await.map_err(|error| (error.into(), true))?;
            match servers.meet(&device, &endpoint, DIAL).await {
                Ok((channel, peer)) => Ok((channel, peer, servers.may_serve(&peer))),
                Err(LinkError::Dial(DialError::Refused(refusal, by))) => {
                    let may_serve = servers.may_serve(&by);
                    Err((LinkError::Dial(DialError::Refused(refusal, by)), may_serve))
                }
                Err(error) => Err((error, true)),
            }
        };
        // The round waits for nothing else meanwhile, and a stop ends the attempt.
        let dialled = tokio::select! {
            dialled = dialled => dialled,
            () = ended.cancelled() => return,
        };
        let event = match dialled {
            Ok((channel, peer, may_serve)) => {
                if let Some(connection) = &mut self.connection {
                    connection.channel = Some(channel);
                    (connection.peer, connection.proven) = (Some(peer), may_serve);
                }
                LinkEvent::Dialled
            }
            Err((error, may_serve)) => {
                let failure = link::proven(link::not_dialled(error), self.anchor, &self.issuers);
                let failure = if may_serve { failure } else { link::hearsay(failure) };
                LinkEvent::Failed(if self.seek.is_hint(&endpoint) {
                    looking::misled(failure)
                } else {
                    failure
                })
            }
        };
        self.step(Event::Link(link, event));
    }

    fn hello(&self, link: LinkId, hello: Hello) {
        let (device, anchor, issuers) = (self.device.clone(), self.anchor, self.issuers.clone());
        let Some((peer, proven)) = self.connection.as_ref().and_then(|at| Some((at.peer?, at.proven))) else {
            return;
        };
        self.call(link, move |channel| async move {
            let hello = with_proof(&device, hello).await;
            let greeted = link::greet(channel, peer, anchor, &hello).await;
            let greeted =
                greeted.and_then(|greeting| link::not_released(&device, peer, &greeting).map(|()| greeting));
            match greeted {
                Ok(greeting) => LinkEvent::Greeted(Box::new(greeting)),
                Err(failure) => {
                    let failure = link::proven(failure, anchor, &issuers);
                    LinkEvent::Failed(if proven { failure } else { link::hearsay(failure) })
                }
            }
        });
    }

    /// Makes a call on the connection; its answer comes as an event.
    fn call<F>(&self, link: LinkId, call: impl FnOnce(Channel) -> F)
    where
        F: Future<Output = LinkEvent> + Send + 'static,
    {
        let Some(Connection { channel: Some(channel), ended, .. }) = &self.connection else { return };
        let (call, ended, answers) = (call(channel.clone()), ended.clone(), self.answers.clone());
        self.tasks.spawn(async move {
            let answer = tokio::select! {
                answer = call => answer,
                () = ended.cancelled() => return,
            };
            // The driver is gone when the part was stopped.
            drop(answers.send((link, answer)).await);
        });
    }

    async fn push(&mut self, link: LinkId, order: PushOrder) {
        let read =
            move |read: &LocalRead<'_>| Ok((read.outbox(order.operations, order.bytes)?, outbox(read)?));
        let (records, outbox) = match self.device.own.db().read(READ_DEADLINE, read).await {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(%error, "read the outbox");
                return self.step(Event::Link(link, LinkEvent::Failed(Failure::Transport)));
            }
        };
        if records.is_empty() {
            return self.step(Event::Link(link, LinkEvent::OutboxEmpty(outbox)));
        }
        let (numbers, operations): (Vec<_>, Vec<_>) = records.into_iter().unzip();
        let push = Push {
            group: self.group,
            incarnation: self.incarnation,
            epoch: order.epoch,
            low_water: order.low_water,
            operations,
        };
        let (anchor, issuers) = (self.anchor, self.issuers.clone());
        self.call(link, move |channel| async move {
            let reply = link::client(channel).push(convert::push_to_wire(push)).await;
            match reply.map(|reply| convert::push_answer_from_wire(reply.into_inner(), &numbers)) {
                Ok(Ok(answer)) => LinkEvent::PushAnswered(answer),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "read the answer to a push");
                    LinkEvent::Failed(Failure::Malformed)
                }
                Err(status) => push_failed(link::proven(link::failed(&status), anchor, &issuers)),
            }
        });
    }

    /// Opens the follow stream; its events are read ahead by one, and no further.
    fn follow(&mut self, link: LinkId, follow: Follow) {
        let Some(Connection { channel: Some(channel), ended, follow: slot, .. }) = &mut self.connection
        else {
            return;
        };
        let (to, events) = mpsc::channel(FOLLOW_AHEAD);
        *slot = Some(events);
        let (channel, ended, anchor, issuers) =
            (channel.clone(), ended.clone(), self.anchor, self.issuers.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = read_stream(channel, anchor, issuers, follow, to) => {}
                () = ended.cancelled() => {}
            }
        });
        tracing::debug!(link = link.0, "follow");
    }

    /// Tells a server that reigns anew, once, what this device holds of the reign before.
    fn report_held(&self, epoch: Epoch) {
        let Some(Connection { channel: Some(channel), ended, .. }) = &self.connection else { return };
        let (device, group) = (self.device.clone(), self.group);
        let (channel, ended) = (channel.clone(), ended.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                told = tell_held(&device, channel, group, epoch) => if let Err(error) = told {
                    tracing::info!(%error, "tell what this device holds; the next connection does");
                },
                () = ended.cancelled() => {}
            }
        });
    }

    /// Tells the server how far this device is.
    fn confirm(&self, cursor: Cursor, settled: bool) {
        let Some(Connection { channel: Some(channel), ended, .. }) = &self.connection else { return };
        let (group, incarnation) = (self.group, self.incarnation);
        let held = Follow { group, incarnation, cursor: Some(cursor), settled };
        let (channel, ended) = (channel.clone(), ended.clone());
        self.tasks.spawn(async move {
            let mut client = link::client(channel);
            tokio::select! {
                confirmed = client.confirm(convert::follow_to_wire(&held)) => if let Err(status) = confirmed {
                    // The next follow says the same.
                    tracing::debug!(code = ?status.code(), "confirm a position");
                },
                () = ended.cancelled() => {}
            }
        });
    }

    fn disconnect(&mut self, link: LinkId) {
        if let Some(connection) = self.connection.take_if(|connection| connection.link == link) {
            connection.ended.cancel();
        }
    }
}

async fn tell_held(
    device: &Device,
    channel: Channel,
    group: GroupId,
    epoch: Epoch,
) -> std::result::Result<(), link::LinkError> {
    let report = device.own.db().read(READ_DEADLINE, |read| read.report()).await?;
    let Some(record) = report else { return Ok(()) };
    let held = Held::decode(&record).map_err(mfpsync_storage::Error::from)?;
    let report = Report { group, epoch, held };
    link::client(channel).report(convert::report_to_wire(&report)).await?;
    let told = move |db: &LocalWrite<'_>| {
        // Another reign may have begun meanwhile, with another report.
        if db.report()?.as_ref() == Some(&record) {
            db.reported()?
        }
        Ok(((), Vec::new()))
    };
    Ok(device.own.write(told).await?)
}

/// A push that was refused rests; one that got no answer says that the connection is broken.
fn push_failed(failure: Failure) -> LinkEvent {
    match failure {
        Failure::Refused { .. } => LinkEvent::PushFailed(failure),
        Failure::Transport | Failure::Impostor | Failure::Malformed => LinkEvent::Failed(failure),
    }
}

async fn read_stream(
    channel: Channel,
    anchor: TrustAnchor,
    issuers: Vec<Signed<IssuingCertificate>>,
    follow: Follow,
    to: mpsc::Sender<std::result::Result<FollowEvent, Failure>>,
) {
    let mut stream = match link::client(channel).follow(convert::follow_to_wire(&follow)).await {
        Ok(reply) => reply.into_inner(),
        Err(status) => {
            // The driver is gone when the connection was dropped.
            return drop(to.send(Err(link::proven(link::failed(&status), anchor, &issuers))).await);
        }
    };
    loop {
        let event = match stream.message().await {
            Ok(Some(event)) => link::follow_event(anchor, &issuers, event).transpose(),
            Ok(None) => Some(Err(Failure::Transport)),
            Err(status) => Some(Err(link::proven(link::failed(&status), anchor, &issuers))),
        };
        // What only a newer client knows.
        let Some(event) = event else { continue };
        let ends = event.is_err();
        if to.send(event).await.is_err() || ends {
            return;
        }
    }
}

/// The next event of the follow stream, while one is wanted.
///
/// # Cancel safety
/// Safe: an event is taken from the channel or it is not.
async fn next_event(connection: &mut Option<Connection>, wanted: bool) -> Event {
    let Some(Connection { link, follow: Some(events), .. }) = connection.as_mut().filter(|_| wanted) else {
        return std::future::pending().await;
    };
    let link = *link;
    match events.recv().await {
        Some(Ok(event)) => Event::Link(link, LinkEvent::Follow(event)),
        Some(Err(failure)) => Event::Link(link, LinkEvent::Failed(failure)),
        None => Event::Link(link, LinkEvent::Failed(Failure::Transport)),
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The hello with what proves its claim to whoever has not met the device that reigns.
async fn with_proof(device: &Device, mut hello: Hello) -> Hello {
    let Some(claim) = hello.claim.take() else { return hello };
    let records = device.own.db().read(READ_DEADLINE, |read| Ok((read.issuers()?, read.members()?))).await;
    hello.claim = Some(match records {
        Ok((issuers, members)) => Claim::of(claim.promotion, &issuers, &members),
        Err(error) => {
            tracing::warn!(%error, "read what proves the highest reign");
            claim
        }
    });
    hello
}

fn outbox(read: &LocalRead<'_>) -> Result<Outbox> {
    let device = read.device()?;
    Ok(Outbox {
        waiting: read.waiting()?.operations > 0,
        last_operation: device.last_operation,
        low_water: device.low_water,
    })
}

fn finish_reset(db: &LocalWrite<'_>, cursor: &Cursor) -> Result<((), Vec<ItemKey>)> {
    let mut changed = db.apply_changes(&[], cursor)?;
    changed.extend(db.finish_reset()?);
    Ok(((), changed))
}
