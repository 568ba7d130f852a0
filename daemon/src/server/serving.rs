//! What all connections of a running server share: the database, live changes, membership, and who
//! is connected.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mfpsync_proto::sync::{self as wire, Reason};
use mfpsync_replication::accept;
use mfpsync_replication::accept::lineage;
use mfpsync_replication::lineage::Lineage;
use mfpsync_replication::message::{Claim, Hello};
use mfpsync_replication::wire::{claim_to_wire, membership_to_wire};
use mfpsync_storage::codec::DecodeError;
use mfpsync_storage::master::{self, Durability, Head, Master, MasterRead, MasterWrite, Replication};
use mfpsync_storage::model::{
    Capabilities, DeviceId, Epoch, IssuingCertificate, Member, Parent, Promotion, PromotionReason, PublicKey,
    Sequence, Signed,
};
use mfpsync_storage::physical::Position;
use mfpsync_storage::{Error, Priority};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Code, Status};

use super::gate::{Gate, Held};
use super::hub::Hub;
use super::replicating::Replicating;
use crate::authority::{IssuingKey, Root, TrustAnchor};
use crate::clock::unix_millis;
use crate::communication::{Code as EventCode, CommunicationLog, Event};
use crate::db::{Db, READ_DEADLINE};
use crate::fault::{Fault, FaultBoard, FaultCode};
use crate::membership::Roster;
use crate::net::acceptor::Refused;
use crate::net::frames::frame;
use crate::records::switching::Switches;
use crate::refusal::{self, status};
use crate::reign::Reign;
use crate::settings::Settings;
use crate::storage_fault::{self, StorageFaults};
use crate::telemetry::Stats;

/// Devices a group may have.
const DEVICES: usize = 1_000;
/// From this part of it on a person should know.
const DEVICES_NEARLY_PERCENT: usize = 90;

/// How long the replica may take to get what is left when this server stands down.
const DRAINS: Duration = Duration::from_secs(5);

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

/// What a device said of itself at its last hello.
#[derive(Debug, Clone)]
struct Introduction {
    issuing_key: Option<PublicKey>,
    endpoints: Vec<String>,
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serving").finish_non_exhaustive()
    }
}

/// What became of a device that wants to be a member.
enum Enrolled {
    Admitted,
    Taken,
    Full,
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

    /// The frame that carries the membership, now and whenever it changes.
    #[must_use]
    pub fn membership(&self) -> watch::Receiver<Bytes> {
        self.membership.subscribe()
    }

    async fn reload_membership(&self) -> Result<(), Error> {
        let (members, issuers) =
            self.master.read(READ_DEADLINE, |read| Ok((read.members()?, read.issuers()?))).await?;
        self.roster.update(members.iter().map(|signed| signed.record.clone()));
        match frame(&membership_to_wire(&members, &issuers)) {
            Ok(rows) => drop(self.membership.send_replace(rows)),
            // A thousand rows are far from it; the next hello carries them all the same.
            Err(status) => tracing::warn!(%status, "encode the membership"),
        }
        self.watch_devices();
        Ok(())
    }

    /// Tells people before the last slot is taken.
    fn watch_devices(&self) {
        let admitted = self.roster.members().iter().filter(|member| !member.released).count();
        if admitted * 100 >= DEVICES * DEVICES_NEARLY_PERCENT {
            self.faults
                .set(Fault::with_detail(FaultCode::DevicesNearlyFull, format_args!("machines: {admitted}")));
        } else {
            self.faults.clear(FaultCode::DevicesNearlyFull);
        }
    }

    /// Changes one membership row by what all of them are at that moment, and makes it count at once,
    /// on open connections too. Without a row to write nothing changes. As other changes it is not taken
    /// while the server stands down: the copy would lack it.
    async fn change_members<T: Send + 'static>(
        &self,
        mut change: impl FnMut(&MasterWrite<'_>, &[Member]) -> Result<(T, Option<Member>), Error> + Send + 'static,
    ) -> Result<T, Status> {
        let (issuing, pass) = (self.issuing.clone(), self.pass());
        let write = move |write: &MasterWrite<'_>| {
            if let Err(held) = pass() {
                return Ok(Err(held));
            }
            let members: Vec<Member> = write.members()?.into_iter().map(|signed| signed.record).collect();
            let (answer, row) = change(write, &members)?;
            let row = row.map(|row| issuing.sign_member(row));
            row.iter().try_for_each(|row| write.put_member(row))?;
            Ok(Ok((answer, row.map(|row| row.record))))
        };
        let written = self.master.write(Priority::Sync, write).await;
        let (answer, row) = written.map_err(|error| self.storage_failed(&error))??;
        if let Some(row) = row {
            // What was written counts, also if the rows cannot be read just now.
            self.roster.update([row]);
            self.reload_membership().await.map_err(|error| self.storage_failed(&error))?;
        }
        Ok(answer)
    }

    /// Takes a device into the group, or back into it.
    ///
    /// # Errors
    /// The group is full, or the database fails.
    ///
    /// # Cancel safety
    /// The device may be a member although the future was dropped; pairing again is harmless.
    pub async fn enrol(&self, device: DeviceId, public_key: PublicKey, name: String) -> Result<(), Status> {
        let (group, issuer) = (self.head().group, self.issuing.device());
        let enrolled = self.change_members(move |write, members| {
            let known = members.iter().find(|member| member.device == device);
            let mut admitted = members.iter().filter(|member| !member.released);
            if admitted.any(|member| (member.device == device) != (member.public_key == public_key)) {
                return Ok((Enrolled::Taken, None));
            }
            let admitted = members.iter().filter(|member| !member.released).count();
            if known.is_none_or(|known| known.released) && admitted >= DEVICES {
                return Ok((Enrolled::Full, None));
            }
            // A person paired it anew, with a new incarnation: a quarantine is over.
            write.forget_progress(device)?;
            write.report_nothing(device)?;
            let row = Member {
                group,
                device,
                public_key,
                name: name.clone(),
                capabilities: Capabilities::CLIENT,
                released: false,
                version: known.map_or(1, |known| known.version + 1),
                endpoints: Vec::new(),
                issuer,
            };
            Ok((Enrolled::Admitted, Some(row)))
        });
        match enrolled.await? {
            Enrolled::Admitted => {
                self.communication.record(Event::new(EventCode::MemberJoined).peer(device));
                Ok(())
            }
            Enrolled::Taken => {
                let text = "another device of the group has this device's id or key; release that one first";
                Err(status(Code::AlreadyExists, Reason::DevicesFull, text))
            }
            Enrolled::Full => {
                let text = format!("the group has {DEVICES} devices already; release one first");
                Err(status(Code::ResourceExhausted, Reason::DevicesFull, text))
            }
        }
    }

    /// Ends a device's membership: its connections are cut, its slot is free.
    ///
    /// # Errors
    /// The database fails.
    ///
    /// # Cancel safety
    /// As [`Serving::enrol`].
    pub async fn release(&self, device: DeviceId) -> Result<(), Status> {
        if self.replicating.standing().is_some_and(|standing| standing.set.device == device) {
            self.stop_replica().await?;
        }
        let release = move |_: &MasterWrite<'_>, members: &[Member]| {
            let known = members.iter().find(|member| member.device == device && !member.released);
            let row =
                known.map(|known| Member { released: true, version: known.version + 1, ..known.clone() });
            Ok(((), row))
        };
        self.change_members(release).await
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

    /// Hears where a device would be reached as a server, and what key it would sign with. The addresses
    /// of one that may serve become known to all.
    ///
    /// # Errors
    /// The database fails.
    ///
    /// # Cancel safety
    /// As [`Serving::enrol`].
    pub async fn introduce(&self, device: DeviceId, hello: &Hello) -> Result<(), Status> {
        let Hello { issuing_key, endpoints, .. } = hello.clone();
        // Whoever asks on behalf of a reign of its own names none.
        if endpoints.is_empty() && issuing_key.is_none() {
            return Ok(());
        }
        let known = Introduction { issuing_key, endpoints: endpoints.clone() };
        self.introduced.lock().unwrap_or_else(PoisonError::into_inner).insert(device, known);
        let row = self.roster.member(device);
        let serves = row.is_some_and(|row| {
            !row.released && row.capabilities.contains(Capabilities::SERVE) && row.endpoints != endpoints
        });
        if !serves || endpoints.is_empty() || device == self.issuing.device() || self.pass()().is_err() {
            return Ok(());
        }
        self.change_row(device, move |row| Member { endpoints: endpoints.clone(), ..row }).await.map(drop)
    }

    async fn change_row(
        &self,
        device: DeviceId,
        change: impl Fn(Member) -> Member + Send + 'static,
    ) -> Result<bool, Status> {
        let change = move |_: &MasterWrite<'_>, members: &[Member]| {
            let known = members.iter().find(|member| member.device == device && !member.released);
            let row = known.map(|known| change(Member { version: known.version + 1, ..known.clone() }));
            Ok((row.is_some(), row))
        };
        self.change_members(change).await
    }

    /// Has the group's root certify the key of a device, which may serve from then on when the operator
    /// says so there.
    ///
    /// # Errors
    /// The root is another group's, the device did not say hello since this server started, or the
    /// database fails.
    ///
    /// # Cancel safety
    /// As [`Serving::enrol`].
    pub async fn certify(&self, device: DeviceId, root: &Root) -> Result<(), Status> {
        if root.anchor() != self.anchor {
            return Err(Status::invalid_argument(
                "this is the recovery kit of another group; nothing was changed",
            ));
        }
        let key = self.introduced(device).and_then(|known| known.issuing_key).ok_or_else(|| {
            Status::failed_precondition(
                "the device must be connected, so that its key can be certified; try again when it is",
            )
        })?;
        self.admit_issuer(root.certify(device, key)).await
    }

    fn introduced(&self, device: DeviceId) -> Option<Introduction> {
        self.introduced.lock().unwrap_or_else(PoisonError::into_inner).get(&device).cloned()
    }

    /// Lets a device serve when an operator says so there.
    async fn admit_issuer(&self, certificate: Signed<IssuingCertificate>) -> Result<(), Status> {
        let device = certificate.record.device;
        let endpoints = self.introduced(device).map(|known| known.endpoints);
        let change = move |write: &MasterWrite<'_>, members: &[Member]| {
            write.put_issuer(&certificate)?;
            let known = members.iter().find(|member| member.device == device && !member.released);
            let row = known.map(|known| Member {
                capabilities: known.capabilities.with(Capabilities::SERVE),
                endpoints: endpoints.clone().unwrap_or_else(|| known.endpoints.clone()),
                version: known.version + 1,
                ..known.clone()
            });
            Ok(((), row))
        };
        self.change_members(change).await
    }

    /// Makes a device the replica by the root's certificate of its key: only who holds the recovery kit can have
    /// made that.
    ///
    /// # Errors
    /// The certificate is not this group's or not this device's, another device is the replica, or the
    /// database fails.
    ///
    /// # Cancel safety
    /// As [`Serving::set_replica`].
    pub async fn succeed(&self, device: DeviceId, certificate: &[u8]) -> Result<(), Status> {
        let certificate = self.anchor.verify_issuer(certificate);
        let certificate =
            certificate.map_err(|error| refusal::malformed(format_args!("certificate: {error}")))?;
        if certificate.record.device != device {
            return Err(refusal::malformed("the certificate is another device's"));
        }
        let may_serve =
            self.roster.member(device).is_some_and(|row| row.capabilities.contains(Capabilities::SERVE));
        let issuers = self.master.read(READ_DEADLINE, |read| read.issuers()).await;
        let issuers = issuers.map_err(|error| self.storage_failed(&error))?;
        // Everybody knows the certificates that were ever given, also those of devices that were released since.
        if !may_serve && issuers.contains(&certificate) {
            return Err(Status::permission_denied(
                "this certificate is of before the device was released; have it certified at the server \
                 (`mfpsync replication set DEVICE --kit FILE`)",
            ));
        }
        let standing = self.replicating.standing().map(|standing| standing.set);
        let set = standing.filter(|set| set.device == device);
        self.set_replica(set.unwrap_or(Replication { device, durability: Durability::Async })).await?;
        self.admit_issuer(certificate).await
    }

    /// Makes the addresses under which this server can be reached known to all devices.
    ///
    /// # Errors
    /// The database fails.
    ///
    /// # Cancel safety
    /// As [`Serving::enrol`].
    pub async fn advertise(&self, endpoints: Vec<String>) -> Result<(), Status> {
        let own = self.issuing.device();
        if self.roster.member(own).is_none_or(|row| row.endpoints == endpoints) {
            return Ok(());
        }
        self.change_row(own, move |row| Member { endpoints: endpoints.clone(), ..row }).await.map(drop)
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

    /// Whether this server may speak as one.
    ///
    /// # Errors
    /// A higher reign was proven.
    pub fn reigns(&self) -> Result<(), Status> {
        if self.reign.has_ended() { Err(refusal::stopping()) } else { Ok(()) }
    }

    /// Asks on the writing thread whether a change is taken.
    fn pass(&self) -> impl Fn() -> Result<(), Held> + Send + 'static {
        let (gate, reign) = (self.gate.clone(), self.reign.clone());
        move || if reign.has_ended() { Err(Held::Stopping) } else { gate.pass() }
    }

    /// Takes no more changes, and answers when the replica has all there are on stable storage.
    ///
    /// # Errors
    /// The replica is not up to date in time; this server then goes on, as it does when the replica follows
    /// again, or by itself [`STANDS_DOWN`](super::gate::STANDS_DOWN) later.
    ///
    /// # Cancel safety
    /// The server stands down all the same, for so long.
    pub async fn stand_down(&self) -> Result<Position, Status> {
        self.gate.stand_down();
        // What is being written now is behind this write.
        let drained = self.master.write(Priority::Sync, |write| write.founded_head()).await;
        drained.map_err(|error| self.storage_failed(&error))?;
        let durable = tokio::time::timeout(DRAINS, self.replicating.has_all()).await;
        durable.map_err(|_| {
            self.goes_on();
            Status::unavailable("the replica did not get everything in time; this server goes on")
        })
    }

    /// Whether this device can be the replica of a successor: it goes on as a client.
    #[must_use]
    pub fn goes_on_as_client(&self) -> bool {
        self.reign.goes_on_as_client()
    }

    /// The replica follows from now on, so it does not take over: this server goes on.
    pub fn goes_on(&self) {
        self.gate.go_on();
    }

    /// Looks at the highest reign a device has seen. One that proves a higher reign means
    /// that this server was superseded; one beside this reign that two devices claim it. Either way it says
    /// so and takes nothing more from that device.
    ///
    /// # Errors
    /// [`Reason::Superseded`] with the claim that speaks against the caller: that of the successor, or this
    /// server's own.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn check_claim(&self, claim: &Claim, head: &Head) -> Result<(), Status> {
        let epoch = claim.promotion.record.epoch;
        if epoch == head.epoch {
            return Ok(());
        }
        let read =
            |read: &MasterRead<'_>| Ok((read.lineage()?, lineage(read)?, read.issuers()?, read.members()?));
        let read = self.master.read(READ_DEADLINE, read).await;
        let (records, lineage, issuers, members) = read.map_err(|error| self.storage_failed(&error))?;
        let superseded = epoch.number > head.epoch.number;
        let released = self.roster.member(claim.promotion.record.device).is_some_and(|row| row.released);
        // An unproven claim seals nobody: it may come from a device that was deceived. Nor does that of a device
        // which was released: its key still signs.
        if released
            || !(superseded || lineage.is_contested_by(&epoch))
            || self.anchor.verify_claim(claim, &issuers).is_err()
        {
            return Ok(());
        }
        let (claim, text) = if superseded {
            if let Err(fault) = self.reign.seal(claim).await {
                self.faults.set(fault.clone());
                return Err(Status::unavailable(fault.to_string()));
            }
            (Some(claim.clone()), "another device became the group's server")
        } else {
            self.contest(&claim.promotion);
            let own = records.last().map(|own| Claim::of(own.clone(), &issuers, &members));
            (own, "two devices became the group's server; an operator has to decide which one stays")
        };
        let claim = claim.as_ref().map(claim_to_wire);
        let refusal = wire::Refusal { claim, ..refusal::refusal(Reason::Superseded, text) };
        Err(refusal::from_refusal(Code::FailedPrecondition, &refusal))
    }

    /// Notes that another device claims this reign by a verified record: no change is taken until an
    /// operator decides ([`Serving::stay`]).
    pub fn contest(&self, rival: &Signed<Promotion>) {
        let device = rival.record.device;
        if self.gate.contest(rival) {
            self.communication.record(Event::new(EventCode::Contested).peer(device));
        }
        let name =
            self.roster.member(device).map_or_else(|| device.to_string(), |member| member.name.clone());
        self.faults.set(Fault::with_detail(FaultCode::Forked, format_args!("the other one is {name}")));
    }

    /// Which other devices claim this reign.
    #[must_use]
    pub fn rivals(&self) -> Vec<Signed<Promotion>> {
        self.gate.rivals()
    }

    /// Has this server stay where two claim the reign, by a record above both that names the others as
    /// ended. The devices that follow them offer what this one lacks. Returns the new reign's epoch.
    ///
    /// # Errors
    /// Nobody contests this reign, or the database fails.
    ///
    /// # Cancel safety
    /// It may be decided although the future was dropped; deciding again finds nothing to decide.
    pub async fn stay(&self, operator: &str, nonce: [u8; 16]) -> Result<Epoch, Status> {
        let rivals = self.gate.rivals();
        let (own, group) = (self.issuing.device(), self.anchor.group);
        let (Some(highest), Some(row)) =
            (rivals.iter().map(|rival| rival.record.epoch.number).max(), self.roster.member(own))
        else {
            return Err(Status::failed_precondition(
                "no other device is known to claim this group; nothing was changed",
            ));
        };
        let (issuing, operator, pass) = (self.issuing.clone(), operator.to_owned(), self.pass());
        let written: Arc<Mutex<Option<(Epoch, Member)>>> = Arc::default();
        let note = written.clone();
        let write = move |write: &MasterWrite<'_>| {
            if pass() == Err(Held::Stopping) {
                return Ok(());
            }
            let head = write.founded_head()?;
            let lineage = lineage(write)?;
            let issuers = write.issuers()?;
            let issuer = issuers.into_iter().find(|issuer| issuer.record.device == own);
            let issuer = issuer.ok_or(DecodeError::Invalid("no certificate of this server's key"))?;
            let epoch = Epoch { number: head.epoch.number.max(highest) + 1, nonce };
            let promotion = issuing.sign_promotion(Promotion {
                group,
                epoch,
                parent: Some(Parent {
                    epoch: head.epoch,
                    sequence: head.sequence,
                    chain: head.chain,
                    transaction: 0,
                    page_digest: [0; 16],
                }),
                ends: ended(&rivals, &lineage),
                device: own,
                operator: operator.clone(),
                reason: PromotionReason::Chosen,
                made_at: unix_millis(),
            });
            let member = issuing.sign_member(Member { version: row.version + 1, ..Member::clone(&row) });
            let replication = write.replication()?;
            write.begin_reign(&master::Reign {
                promotion,
                issuer,
                member: member.clone(),
                known: head.sequence,
            })?;
            write.set_replication(replication.as_ref())?;
            *note.lock().unwrap_or_else(PoisonError::into_inner) = Some((epoch, member.record));
            Ok(())
        };
        match self.master.write(Priority::Sync, write).await {
            // The replica follows; the decision counts all the same.
            Ok(()) | Err(Error::Unconfirmed) => {}
            Err(error) => return Err(self.storage_failed(&error)),
        }
        let written = written.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((epoch, row)) = written else { return Err(refusal::stopping()) };
        self.gate.settle();
        self.faults.clear(FaultCode::Forked);
        self.roster.update([row]);
        // Also tells all that follow.
        self.reload_membership().await.map_err(|error| self.storage_failed(&error))?;
        Ok(epoch)
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

/// The rivals' reigns, and those before them that are not of this history either: a device may have slept since.
fn ended(rivals: &[Signed<Promotion>], lineage: &Lineage) -> Vec<Epoch> {
    let mut ends: Vec<Epoch> = rivals.iter().map(|rival| rival.record.epoch).collect();
    let before = rivals.iter().filter_map(|rival| rival.record.parent.as_ref()).map(|parent| parent.epoch);
    ends.extend(before.filter(|epoch| lineage.is_contested_by(epoch)));
    let mut seen = Vec::new();
    ends.retain(|epoch| {
        !seen.contains(epoch) && seen.len() < Promotion::MAX_ENDS && {
            seen.push(*epoch);
            true
        }
    });
    ends
}

/// Which devices follow, and how far they are.
#[derive(Debug, Default)]
pub struct Connected(Mutex<HashMap<DeviceId, Followed>>);

#[derive(Debug)]
struct Followed {
    position: watch::Receiver<Sequence>,
    heard: Instant,
}

/// What is known of a device that follows, or did.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// It follows now.
    pub connected: bool,
    /// Up to where changes were handed to its connection.
    pub position: Sequence,
    /// Since its stream began, or since it was last looked at while connected.
    pub heard: Duration,
}

impl Connected {
    /// A new stream of a device; it has ended when the sender is dropped.
    pub fn follow(&self, device: DeviceId) -> watch::Sender<Sequence> {
        let position = watch::Sender::new(Sequence::ZERO);
        let followed = Followed { position: position.subscribe(), heard: Instant::now() };
        self.lock().insert(device, followed);
        position
    }

    /// What is known of a device; none if it has not followed since the server started.
    #[must_use]
    pub fn seen(&self, device: DeviceId) -> Option<Seen> {
        let mut devices = self.lock();
        let followed = devices.get_mut(&device)?;
        let connected = followed.position.has_changed().is_ok();
        if connected {
            followed.heard = Instant::now();
        }
        let position = *followed.position.borrow();
        Some(Seen { connected, position, heard: followed.heard.elapsed() })
    }

    /// How many devices follow now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().values().filter(|followed| followed.position.has_changed().is_ok()).count()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<DeviceId, Followed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
