//! Feeding the replica: what [`mfpsync_replication::ship`] decides, between the master's writer thread
//! and the replica's stream.
//!
//! The state is asked on the writer thread at each commit, and where the replica said something; both
//! have the pages at rest. Nothing here waits for the network: what does not fit into the stream's queue
//! ends the stream, and catching up goes on with the next.

mod lag;
mod proof;
mod tap;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mfpsync_proto::replica as wire;
use mfpsync_replication::protection::{self, Protection};
use mfpsync_replication::ship::{Next, Shipping};
use mfpsync_replication::stream::{FromReplica, ToReplica};
use mfpsync_replication::wire::to_replica_to_wire;
use mfpsync_storage::figures::Histogram;
use mfpsync_storage::master::{Durability, Master, MasterWrite, Replication};
use mfpsync_storage::model::{DeviceId, Sequence};
use mfpsync_storage::physical::{Pages, Position};
use mfpsync_storage::tap::{Tap, Verdict};
use mfpsync_storage::{Error, Priority};
use prost::Message as _;
use ring::rand::SecureRandom;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tonic::Status;

pub use self::proof::Proved;

use self::lag::Lag;
use self::proof::Proof;
use self::tap::ServerTap;
use super::hub::{EVERYTHING, Hub};
use crate::clock::unix_millis;
use crate::communication::{Code, CommunicationLog, Event};
use crate::db::Db;
use crate::fault::{Fault, FaultBoard, FaultCode};
use crate::telemetry::Stats;

/// Messages for the replica that its connection did not take yet: two transactions of a few parts each.
const QUEUE: usize = 32;
/// How often is looked whether somebody waits too long.
const TICK: Duration = Duration::from_millis(250);
/// What feeding the replica needs.
pub struct Replicating {
    master: Db<Master>,
    hub: Arc<Hub>,
    faults: FaultBoard,
    communication: CommunicationLog,
    random: Arc<dyn SecureRandom + Send + Sync>,
    stats: Arc<Stats>,
    /// Microseconds from a commit here to the replica's word that it has it.
    lag: Histogram,
    began: Instant,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl std::fmt::Debug for Replicating {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replicating").finish_non_exhaustive()
    }
}

struct State {
    /// None while no replica is set.
    set: Option<Replication>,
    shipping: Shipping,
    protection: Protection,
    stream: Option<Stream>,
    streams: u64,
    /// Commits that the replica has not yet.
    recent: Lag,
    position: Option<Position>,
    proof: Proof,
    /// Up to where everything is in an archive.
    archived: Option<Sequence>,
}

struct Stream {
    number: u64,
    to: mpsc::Sender<Result<wire::ToReplica, Status>>,
}

/// How the replica is doing, as the server knows.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The replica, and when changes are acknowledged.
    pub set: Replication,
    /// It is connected.
    pub connected: bool,
    /// It gets each commit as it happens.
    pub live: bool,
    /// Where its copy stands on stable storage.
    pub durable: Option<Position>,
    /// Where the server stands.
    pub position: Option<Position>,
    /// Pages it lacks.
    pub lacks: u32,
    /// How long ago the server committed what the replica has not yet; none if it has everything.
    pub behind: Option<Duration>,
    /// Changes are acknowledged without it.
    pub unprotected: bool,
    /// The last proof.
    pub proved: Option<Proved>,
}

impl Replicating {
    /// Feeds nobody yet.
    #[must_use]
    pub fn new(
        master: Db<Master>,
        hub: Arc<Hub>,
        faults: FaultBoard,
        communication: CommunicationLog,
        random: Arc<dyn SecureRandom + Send + Sync>,
        stats: Arc<Stats>,
    ) -> Arc<Self> {
        let state = State {
            set: None,
            shipping: Shipping::default(),
            protection: Protection::new(Durability::Async, false),
            stream: None,
            streams: 0,
            recent: Lag::default(),
            position: None,
            proof: Proof::default(),
            archived: None,
        };
        Arc::new(Self {
            master,
            hub,
            faults,
            communication,
            random,
            stats,
            lag: lag::histogram(),
            began: Instant::now(),
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
        })
    }

    /// Feeds this replica from now on, or nobody. `chosen`: an operator just said so; otherwise the
    /// server comes up with what was said before.
    pub fn set(self: &Arc<Self>, set: Option<Replication>, chosen: bool) {
        {
            let mut state = self.state();
            let same = state.set.map(|set| set.device) == set.map(|set| set.device);
            state.set = set;
            let durability = set.map_or(Durability::Async, |set| set.durability);
            if same && set.is_some() {
                let turn = state.protection.choose(durability);
                self.turned(&state, turn);
            } else {
                state.stream = None;
                state.shipping = Shipping::default();
                state.protection = Protection::new(durability, chosen);
                state.proof.give_up();
                state.proof.last = None;
                let tap = set.map(|_| Box::new(ServerTap(self.clone())) as Box<dyn Tap<Master>>);
                self.master.store().set_tap(tap);
            }
            self.show(&state);
        }
        self.go_on();
    }

    /// How the replica is doing; none if there is none.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        let state = self.state();
        let durable = state.shipping.durable().copied();
        let has = durable.map(|durable| durable.transaction);
        Some(Standing {
            set: state.set?,
            connected: state.stream.is_some(),
            live: state.shipping.is_live(),
            durable,
            position: state.position,
            lacks: state.shipping.lacks(),
            behind: state.recent.behind(has),
            unprotected: state.protection.state() == protection::State::Unprotected,
            proved: state.proof.last.clone(),
        })
    }

    /// Microseconds from each commit to the replica's word that it is on its stable storage, since the
    /// server part started.
    #[must_use]
    pub fn lag(&self) -> &Histogram {
        &self.lag
    }

    /// A replica's new stream, which replaces one that may still be there; its number, and what is to be
    /// sent on it.
    ///
    /// # Errors
    /// The device is not the replica.
    pub fn connect(
        &self,
        device: DeviceId,
    ) -> Result<(u64, mpsc::Receiver<Result<wire::ToReplica, Status>>), NotTheReplica> {
        let mut state = self.state();
        if state.set.is_none_or(|set| set.device != device) {
            return Err(NotTheReplica);
        }
        let (to, queue) = mpsc::channel(QUEUE);
        state.streams += 1;
        let number = state.streams;
        state.stream = Some(Stream { number, to });
        state.shipping.disconnected();
        state.proof.give_up();
        Ok((number, queue))
    }

    /// The replica said something on a stream.
    pub fn heard(self: &Arc<Self>, stream: u64, message: FromReplica) {
        let this = self.clone();
        self.master.store().with_pages(move |pages| {
            let mut state = this.state();
            if state.stream.as_ref().is_none_or(|current| current.number != stream) {
                return;
            }
            let Ok((pages, _)) = pages else { return this.end(&mut state, "the pages cannot be read") };
            match state.shipping.heard(message, pages) {
                Ok(Some(proven)) => this.proven(&mut state, proven),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "read pages for the replica");
                    return this.end(&mut state, "pages cannot be read");
                }
            }
            if let Some(transaction) = state.shipping.durable().map(|durable| durable.transaction) {
                let turn = state.protection.confirmed(transaction);
                this.turned(&state, turn);
                state.recent.confirmed(transaction, &this.lag);
            }
            this.show(&state);
            this.pump(&mut state, pages);
        });
    }

    /// A stream ended.
    pub fn disconnect(&self, stream: u64) {
        let mut state = self.state();
        if state.stream.as_ref().is_some_and(|current| current.number == stream) {
            self.end(&mut state, "the replica is gone");
        }
    }

    /// Waits until the replica has everything up to here on stable storage; where its copy stands then.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn has_all(&self) -> Position {
        let mut changed = self.changed.subscribe();
        let through = self.state().position;
        loop {
            changed.mark_unchanged();
            let durable = self.state().shipping.durable().copied();
            // By transactions: not each of them has a change that counts.
            let reached = |durable: &Position| {
                through.is_none_or(|through| {
                    durable.epoch == through.epoch && durable.transaction >= through.transaction
                })
            };
            if let Some(durable) = durable.filter(reached) {
                return durable;
            }
            // The sender lives as long as this.
            let _closed = changed.changed().await;
        }
    }

    /// Tells the replica where the server stands: a sign of life.
    pub fn beat(&self) {
        let state = self.state();
        if let (Some(stream), Some(position)) = (&state.stream, state.position) {
            // A full queue is a sign of life by itself.
            let _said = self.say(stream, ToReplica::Head(position));
        }
    }

    /// Has the replica take over. False if it does not follow, or has not caught up.
    #[must_use]
    pub fn hand_over(&self) -> bool {
        let state = self.state();
        let stream = state.stream.as_ref().filter(|_| state.shipping.is_live());
        stream.is_some_and(|stream| self.say(stream, ToReplica::TakeOver))
    }

    /// Looks whether somebody waits too long, as long as the server runs.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn watch_over(self: Arc<Self>) {
        let mut due = tokio::time::interval(TICK);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            let waited_for = {
                let mut state = self.state();
                let waited_for = state.protection.is_waited_for();
                let turn = state.protection.tick(self.began.elapsed());
                self.turned(&state, turn);
                self.show(&state);
                waited_for
            };
            if waited_for {
                // Whoever is given up is answered by the writer.
                self.go_on();
            }
        }
    }

    /// Has the writer send what is to be sent, and answer who is to be answered.
    fn go_on(self: &Arc<Self>) {
        let this = self.clone();
        self.master.store().with_pages(move |pages| {
            if let Ok((pages, _)) = pages {
                this.pump(&mut this.state(), pages);
            }
        });
    }

    /// Sends what is to be sent.
    fn pump(self: &Arc<Self>, state: &mut State, pages: &mut Pages) {
        self.send(state, pages);
        state.position = state.shipping.position(pages);
        self.changed.send_replace(());
    }

    fn send(self: &Arc<Self>, state: &mut State, pages: &mut Pages) {
        while let Some(stream) = &state.stream {
            match state.shipping.next(pages) {
                Ok(Next::Send(message)) => {
                    if !self.say(stream, message) {
                        return self.end(state, "the replica does not take what is sent");
                    }
                }
                Ok(Next::Again) => return self.go_on(),
                Ok(Next::Wait) => return,
                Ok(Next::Close) => return self.end(state, "the connection begins anew"),
                Ok(Next::Ahead) => {
                    let device = state.set.map(|set| set.device.to_string()).unwrap_or_default();
                    self.faults.set(Fault::with_detail(
                        FaultCode::RolledBack,
                        format_args!("the replica, device {device}, holds more"),
                    ));
                    return self.end(state, "the copy is ahead of this server");
                }
                Err(error) => {
                    tracing::warn!(%error, "read pages for the replica");
                    return self.end(state, "pages cannot be read");
                }
            }
        }
    }

    /// Queues a message for the replica; whether there was room.
    fn say(&self, stream: &Stream, message: ToReplica) -> bool {
        let parts = u64::from(matches!(message, ToReplica::Part { .. }));
        let message = to_replica_to_wire(message);
        let bytes = message.encoded_len() as u64;
        let said = stream.to.try_send(Ok(message)).is_ok();
        if said {
            self.stats.replica_parts_sent.add(parts);
            self.stats.replica_bytes_sent.add(bytes);
        }
        said
    }

    fn end(&self, state: &mut State, why: &str) {
        if state.stream.take().is_some() {
            tracing::info!(why, "the replica's stream ended");
            self.record(state, Code::ReplicaLost);
        }
        state.shipping.disconnected();
        state.proof.give_up();
        self.changed.send_replace(());
    }

    /// Up to where everything is in a good archive of this history; none while none is made.
    #[must_use]
    pub fn archived(&self) -> Option<Sequence> {
        self.state().archived
    }

    /// Up to where everything is in a good archive of this history, from now on.
    pub fn set_archived(&self, through: Option<Sequence>) {
        let mut state = self.state();
        state.archived = through;
        self.show(&state);
    }

    /// Shows followers what may be shown, and says what is safe.
    fn show(&self, state: &State) {
        let through = match state.protection.verdict() {
            Verdict::ALL => EVERYTHING,
            Verdict { .. } => state.shipping.durable().map_or(Sequence::ZERO, |durable| durable.sequence),
        };
        self.hub.confirm(through);
        // A replica that is behind may be what takes over, whatever an archive has.
        self.hub.hold_safe(match state.set {
            Some(_) => state.shipping.durable().map(|durable| durable.sequence),
            None => state.archived,
        });
        self.changed.send_replace(());
    }

    /// Tells people of another state, and records durably what is not protected.
    fn turned(&self, state: &State, turn: Option<protection::State>) {
        use protection::State::{Held, Protected, Unprotected};
        let Some(turn) = turn else { return };
        for (state, fault) in [(Held, FaultCode::ChangesHeld), (Unprotected, FaultCode::Unprotected)] {
            if turn == state {
                self.faults.set(Fault::now(fault));
            } else {
                self.faults.clear(fault);
            }
        }
        self.record(
            state,
            match turn {
                Held => Code::ChangesHeld,
                Unprotected => Code::Unprotected,
                Protected => Code::Protected,
            },
        );
        let durable = state.shipping.durable().map_or(Sequence::ZERO, |durable| durable.sequence);
        let begins = match turn {
            Held => return,
            Unprotected => true,
            Protected => false,
        };
        let write = move |write: &MasterWrite<'_>| {
            if begins {
                write.begin_unprotected(durable, unix_millis())
            } else {
                write.end_unprotected(durable)
            }
        };
        self.master.store().write(Priority::Sync, write, |written| match written {
            // Written is all it has to be.
            Ok(()) | Err(Error::Unconfirmed) => {}
            Err(error) => tracing::error!(%error, "record what is not protected"),
        });
    }

    fn record(&self, state: &State, code: Code) {
        if let Some(set) = state.set {
            self.communication.record(Event::new(code).peer(set.device));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Another device is the replica, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotTheReplica;
