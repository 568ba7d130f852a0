//! What all connections of a running server share: the database, live changes, membership, and who is connected.
//! `members` is who is in the group, `reigning` whether this server may speak as one, `connected` who follows.

mod connected;
mod members;
mod reigning;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mfpsync_replication::accept::{self, Usage};
use mfpsync_storage::master::{Durability, Head, Master, MasterWrite, Replication};
use mfpsync_storage::model::{Capabilities, DeviceId, Member};
use mfpsync_storage::{Error, Priority};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

use self::connected::Connected;
use self::members::Introduction;
use super::gate::{Gate, Held};
use super::hub::Hub;
use super::replicating::Replicating;
use crate::authority::{IssuingKey, TrustAnchor};
use crate::communication::{Code as EventCode, CommunicationLog, Event};
use crate::db::Db;
use crate::fault::{Fault, FaultBoard, FaultCode};
use crate::membership::Roster;
use crate::net::acceptor::Refused;
use crate::records::switching::Switches;
use crate::refusal;
use crate::reign::Reign;
use crate::settings::Settings;
use crate::storage_fault::{self, StorageFaults};
use crate::telemetry::Stats;

/// A running server's shared state.
pub struct Serving {
    /// The master database.
    pub master: Db<Master>,
    /// Live changes.
    pub hub: Arc<Hub>,
    /// Feeds the replica.
    pub replicating: Arc<Replicating>,
    /// How often a silent stream is broken by a sign of life.
    pub beat_every: Duration,
    /// Who may do what.
    pub roster: Arc<Roster>,
    /// What users have, as far as it was counted; locked on the writer's thread alone.
    pub usage: Arc<Mutex<Usage>>,
    /// Who follows.
    pub connected: Connected,
    /// What happened with other devices.
    pub communication: CommunicationLog,
    /// What is counted.
    pub stats: Arc<Stats>,
    /// How far a switch of sharing is.
    pub switches: Switches,
    settings: Settings,
    /// The server's tasks.
    pub tasks: TaskTracker,
    /// Cancelled when the server stops.
    pub stop: CancellationToken,
    /// Cancelled when it has stopped: a peer that does not read would keep its connection.
    pub cut: CancellationToken,
    faults: FaultBoard,
    issuing: Arc<IssuingKey>,
    refused: Mutex<Vec<Arc<Refused>>>,
    /// The faults of the master database.
    pub storage: StorageFaults,
    anchor: TrustAnchor,
    membership: watch::Sender<Bytes>,
    reign: Arc<Reign>,
    introduced: Mutex<HashMap<DeviceId, Introduction>>,
    /// Whether changes are taken.
    gate: Arc<Gate>,
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serving").finish_non_exhaustive()
    }
}

/// What a server is made of.
pub struct Made {
    /// The master database.
    pub master: Db<Master>,
    /// Live changes.
    pub hub: Arc<Hub>,
    /// Feeds the replica.
    pub replicating: Arc<Replicating>,
    /// How often a silent stream is broken by a sign of life.
    pub beat_every: Duration,
    /// Who may do what.
    pub roster: Arc<Roster>,
    /// The faults people see.
    pub faults: FaultBoard,
    /// Signs membership rows.
    pub issuing: IssuingKey,
    /// The configuration in force.
    pub settings: Settings,
    /// What happened with other devices.
    pub communication: CommunicationLog,
    /// What is counted.
    pub stats: Arc<Stats>,
    /// Ends this reign.
    pub reign: Arc<Reign>,
}

impl Serving {
    /// Puts a server's parts together and fills the roster.
    ///
    /// # Errors
    /// The database's, or a membership row that does not verify.
    pub async fn new(made: Made) -> Result<Self, Error> {
        let head = made.hub.head().borrow().clone();
        let serving = Self {
            master: made.master,
            hub: made.hub,
            replicating: made.replicating,
            beat_every: made.beat_every,
            roster: made.roster,
            usage: Arc::default(),
            connected: Connected::default(),
            communication: made.communication,
            stats: made.stats,
            switches: Switches::default(),
            settings: made.settings,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
            issuing: Arc::new(made.issuing),
            refused: Mutex::default(),
            storage: StorageFaults::new(made.faults.clone()),
            faults: made.faults,
            anchor: TrustAnchor { group: head.group, root: head.root_key },
            membership: watch::Sender::new(Bytes::new()),
            reign: made.reign,
            introduced: Mutex::default(),
            gate: Arc::default(),
        };
        serving.reload_membership().await?;
        Ok(serving)
    }

    /// Bounds of what is accepted.
    #[must_use]
    pub fn limits(&self) -> accept::Limits {
        accept::Limits { keep_values: self.settings.now().history_days > 0, ..accept::Limits::default() }
    }

    /// Adds a port's counters of refused connections.
    pub fn count_refused(&self, refused: Arc<Refused>) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).push(refused);
    }

    /// Refused connections by reason, over all ports.
    #[must_use]
    pub fn refused(&self) -> BTreeMap<&'static str, u64> {
        let mut sums = BTreeMap::new();
        for port in self.refused.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            for (reason, count) in port.snapshot() {
                *sums.entry(reason).or_default() += count;
            }
        }
        sums
    }

    /// The master's position as of the last commit.
    #[must_use]
    pub fn head(&self) -> Head {
        self.hub.head().borrow().clone()
    }

    /// Makes a device the group's replica, or says when changes are acknowledged from now on.
    ///
    /// # Errors
    /// Not a device that can be it, another one is, or the database fails.
    ///
    /// # Cancel safety
    /// It may be the replica although the future was dropped; setting it again is harmless.
    pub async fn set_replica(&self, set: Replication) -> Result<(), Status> {
        let own = self.issuing.device();
        let change = move |write: &MasterWrite<'_>, members: &[Member]| {
            let known = members.iter().find(|member| member.device == set.device && !member.released);
            let Some(known) = known else { return Ok((Some("no device of the group has this id"), None)) };
            if set.device == own {
                return Ok((Some("the server cannot be its own replica; name another device"), None));
            }
            if write.replication()?.is_some_and(|other| other.device != set.device) {
                return Ok((Some("another device is the replica; stop replication first"), None));
            }
            write.set_replication(Some(&set))?;
            let row = Member {
                capabilities: known.capabilities.with(Capabilities::REPLICATE),
                version: known.version + 1,
                ..known.clone()
            };
            Ok((None, (known.capabilities != row.capabilities).then_some(row)))
        };
        // What was chosen before must not keep this from being stored.
        let before = self.replicating.standing().map(|standing| standing.set);
        if before.is_some_and(|before| before.device == set.device) {
            self.replicating.set(Some(set), true);
        }
        let changed = self.change_members(change).await.and_then(|refused| match refused {
            Some(refused) => Err(Status::failed_precondition(refused)),
            None => Ok(()),
        });
        self.replicating.set(if changed.is_ok() { Some(set) } else { before }, true);
        changed?;
        self.communication.record(Event::new(EventCode::ReplicaSet).peer(set.device));
        Ok(())
    }

    /// Ends replication: the device keeps its copy, and stops being the replica. The device, if there
    /// was one.
    ///
    /// # Errors
    /// The database fails.
    ///
    /// # Cancel safety
    /// As [`Serving::set_replica`].
    pub async fn stop_replica(&self) -> Result<Option<DeviceId>, Status> {
        let change = move |write: &MasterWrite<'_>, members: &[Member]| {
            let Some(set) = write.replication()? else { return Ok((None, None)) };
            write.set_replication(None)?;
            let known = members.iter().find(|member| member.device == set.device && !member.released);
            let row = known.map(|known| Member {
                capabilities: known.capabilities.without(Capabilities::REPLICATE),
                version: known.version + 1,
                ..known.clone()
            });
            Ok((Some(set.device), row))
        };
        // Whoever waits for the replica is answered, and this must not wait for it either.
        let before = self.replicating.standing().map(|standing| standing.set);
        self.replicating.set(before.map(|set| Replication { durability: Durability::Async, ..set }), true);
        let stopped = self.change_members(change).await;
        self.replicating.set(if stopped.is_ok() { None } else { before }, true);
        let device = stopped?;
        if let Some(device) = device {
            self.communication.record(Event::new(EventCode::ReplicaStopped).peer(device));
        }
        Ok(device)
    }

    /// Writes a change of the group's data, if any is taken now.
    ///
    /// # Errors
    /// None is taken, or the database fails.
    ///
    /// # Cancel safety
    /// It may be written although the future was dropped.
    pub async fn change<T: Send + 'static>(
        &self,
        mut write: impl FnMut(&MasterWrite<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Status> {
        let pass = self.pass();
        let write = move |db: &MasterWrite<'_>| match pass() {
            Ok(()) => write(db).map(Ok),
            Err(held) => Ok(Err(held)),
        };
        let written = self.storage.written(self.master.write(Priority::Sync, write).await);
        Ok(written.map_err(|error| storage_fault::refusal(&error))??)
    }

    /// Writes what a device says of itself, unless this server stands down: the copy would lack it, and whoever takes
    /// over wants all of it.
    ///
    /// # Errors
    /// The server stands down, or the database fails.
    ///
    /// # Cancel safety
    /// As [`Serving::change`].
    pub async fn note<T: Send + 'static>(
        &self,
        mut write: impl FnMut(&MasterWrite<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Status> {
        let pass = self.pass();
        let write = move |db: &MasterWrite<'_>| match pass() {
            Ok(()) | Err(Held::Contested) => write(db).map(Ok),
            Err(Held::Stopping) => Ok(Err(Held::Stopping)),
        };
        let noted = self.master.write(Priority::Sync, write).await;
        Ok(noted.map_err(|error| self.storage_failed(&error))??)
    }

    /// Notes that a device claims more of this reign than this server has, and the answer to it. The
    /// claim proves nothing, so the fault names the device.
    #[must_use]
    pub fn rolled_back(&self, claims: DeviceId) -> Status {
        self.communication
            .record(Event::new(EventCode::DeviceRefused).peer(claims).reason("server-rolled-back"));
        self.faults
            .set(Fault::with_detail(FaultCode::RolledBack, format_args!("claimed by device {claims}")));
        refusal::rolled_back()
    }

    /// Notes a fault of the master database, and the answer to the device.
    #[must_use]
    pub fn storage_failed(&self, error: &Error) -> Status {
        self.storage.failed(error);
        storage_fault::refusal(error)
    }
}
