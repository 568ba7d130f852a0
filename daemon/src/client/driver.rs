//! Carries out the round's effects: one task that owns the round, the connection and the timer. `calls` is what is
//! asked of the other side, `looking` how a server is sought that is at none of its addresses.

mod calls;
mod looking;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use mfpsync_replication::merge::is_written_by_devices;
use mfpsync_replication::message::FollowEvent;
use mfpsync_replication::round::{
    AdoptGreeting, At, Effect, Event, Failure, LinkEvent, LinkId, LinkState, Moment, Outbox, Round, Start,
    Stored, Timing,
};
use mfpsync_storage::Result;
use mfpsync_storage::local::{Heard, LocalRead, LocalWrite};
use mfpsync_storage::model::{
    Cursor, ERASED_KIND, GroupId, Incarnation, IssuingCertificate, ItemKey, Member, Promotion, PublicKey,
    Signed,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;

use super::link::Servers;
use super::report;
use super::seek::Seek;
use crate::authority::{IssuingKey, TrustAnchor};
use crate::clock::unix_millis;
use crate::communication::Tally;
use crate::db::READ_DEADLINE;
use crate::device::Device;
use crate::fault::{Fault, FaultCode};
use crate::own_data::draw;
use crate::storage_fault::start_fault;

/// Answers on their way from calls under way: a dial, a hello and a push at the most, each of the
/// present connection and of one that is ending.
const ANSWERS: usize = 16;
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
