//! The replica part: keeps the standby copy by [`mfpsync_replication::apply`], from start to stop.
//!
//! One task dials the server, hands each message to the copy on a thread that may block, and sends the
//! answer. A proof runs beside it. No user ever reads the copy; the device's own data is another database.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mfpsync_proto::limit;
use mfpsync_proto::replica as wire;
use mfpsync_proto::replica::replica_client::ReplicaClient;
use mfpsync_replication::apply::{Applied, Applying, prove};
use mfpsync_replication::backoff::Backoff;
use mfpsync_replication::stream::{FromReplica, ToReplica};
use mfpsync_replication::wire::{from_replica_to_wire, to_replica_from_wire};
use mfpsync_storage::model::{Capabilities, GroupId};
use mfpsync_storage::physical::{Position, Prover, Standby};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::client::{LinkError, Servers};
use crate::clock::unix_millis;
use crate::communication::{Code, Event};
use crate::control_file::ControlFile;
use crate::device::Device;
use crate::fault::{Fault, FaultCode};
use crate::own_data::draw;
use crate::reign;
use crate::role::{Role, SupervisorHandle};
use crate::storage_fault::{StorageFaults, start_fault};
use crate::vital::Vital;

/// The copy's directory within the data directory.
pub const DIRECTORY: &str = "standby";
/// How long dialling may take.
const DIAL: Duration = Duration::from_secs(5);
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// How long a step under way may take when the part stops.
const DRAIN: Duration = Duration::from_secs(5);
/// Answers on their way: one for each message, and the server waits for each second one.
const ANSWERS: usize = 8;
/// Heartbeats that may be missing before the connection is given up.
const SILENT_BEATS: u32 = 3;

/// How the copy is doing.
#[derive(Debug, Clone, Default)]
pub struct CopyReport {
    /// The server is connected.
    pub connected: bool,
    /// Where the copy stands on stable storage; none before it was whole once.
    pub position: Option<Position>,
    /// Where the server stood when it last said so.
    pub server: Option<Position>,
    /// The last proof, and what was wrong; the wall clock, Unix milliseconds.
    pub proof: Option<(u64, Option<String>)>,
    /// What the last connection ended with; empty while connected.
    pub last_error: String,
}

/// A running replica.
#[derive(Debug)]
pub struct ReplicaPart {
    /// The tasks it cannot do without.
    pub vital: Vital,
}

impl ReplicaPart {
    /// Opens the copy, if there is one, and starts following the server.
    ///
    /// # Errors
    /// A fault for a person: the copy cannot be opened, or the device knows no group.
    ///
    /// # Cancel safety
    /// Nothing runs when the future is dropped.
    pub async fn start(device: &Arc<Device>) -> Result<Self, Fault> {
        let membership = device.membership().await.map_err(|error| start_fault(&error))?;
        let membership = membership.ok_or_else(|| {
            Fault::with_detail(FaultCode::ControlFile, "the role is replica, but this device has no group")
        })?;
        device.load_roster().await.map_err(|error| start_fault(&error))?;
        // Without it a whole copy comes.
        if let Err(error) = reign::reuse(device).await {
            tracing::warn!(%error, "begin the copy with the database of before");
        }
        let (directory, group) = (device.config.data_dir.join(DIRECTORY), membership.group);
        let copy = blocking(move || open(&directory, group)).await.map_err(|error| start_fault(&error))?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let vital = Vital::new(&tasks, &stop);
        let keeper = Keeper {
            device: device.clone(),
            group: membership.group,
            directory: device.config.data_dir.join(DIRECTORY),
            faults: StorageFaults::new(device.faults.clone()),
            stop,
            tasks,
        };
        vital.spawn("copy", keeper.run(copy));
        Ok(Self { vital })
    }

    /// Lets the step under way finish and closes the copy.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the rest to the end of the process; the copy stays whole.
    pub async fn stop(&self) {
        self.vital.stop().cancel();
        self.vital.tasks().close();
        if tokio::time::timeout(DRAIN, self.vital.tasks().wait()).await.is_err() {
            tracing::warn!("the replica did not end in time");
        }
    }
}

/// The end of a reign that was handed over.
pub(crate) struct StoodDown {
    /// Its last position.
    pub(crate) last: Position,
    /// The device that reigned goes on as a client.
    pub(crate) goes_on: bool,
}

/// Has the server stand down for this device.
///
/// # Errors
/// Why it does not.
///
/// # Cancel safety
/// The server may stand down all the same; it goes on by itself after a while.
pub(crate) async fn stand_down(device: &Device) -> Result<StoodDown, Ended> {
    let (mut client, group) = server(device).await?;
    let request = wire::StandDownRequest { group_id: group.0.to_vec().into() };
    let reply = client.stand_down(request).await?.into_inner();
    let last = Position::decode(&reply.position).map_err(mfpsync_storage::Error::from)?;
    Ok(StoodDown { last, goes_on: reply.goes_on })
}

/// Has the server make this device the replica, by the root's certificate of its key.
///
/// # Errors
/// Why it does not.
///
/// # Cancel safety
/// It may be the replica all the same; asking again is harmless.
pub(crate) async fn succeed(device: &Device, certificate: Vec<u8>) -> Result<(), Ended> {
    let (mut client, group) = server(device).await?;
    let request = wire::SucceedRequest { group_id: group.0.to_vec().into(), certificate: certificate.into() };
    client.succeed(request).await?;
    Ok(())
}

/// Renames the copy, so that a person can decide about it, and returns the new name; none if there is no copy.
///
/// # Errors
/// The file system's.
pub(crate) fn move_aside(data_dir: &Path) -> std::io::Result<Option<PathBuf>> {
    let directory = data_dir.join(DIRECTORY);
    if !directory.exists() {
        return Ok(None);
    }
    let free = (1..).map(|n| data_dir.join(format!("{DIRECTORY}.released-{n}"))).find(|path| !path.exists());
    let Some(aside) = free else { return Ok(None) };
    std::fs::rename(&directory, &aside)?;
    std::fs::File::open(data_dir)?.sync_all()?;
    Ok(Some(aside))
}

/// The server, as the replica's service.
async fn server(device: &Device) -> Result<(ReplicaClient<Channel>, GroupId), Ended> {
    let membership = device.membership().await.map_err(LinkError::from)?;
    let group = membership.ok_or(LinkError::NoServer)?.group;
    let servers = Servers::of(device).await.map_err(LinkError::from)?;
    let mut last = Ended::from(LinkError::NoServer);
    for endpoint in servers.endpoints() {
        let channel = match servers.dial(device, &endpoint, DIAL).await {
            Ok(channel) => channel,
            Err(error) => {
                last = error.into();
                continue;
            }
        };
        return Ok((ReplicaClient::new(channel), group));
    }
    Err(last)
}

/// Has the device become the replica, or stop being it, as its row in the membership says: the server's
/// operator decides, and the row comes with the follow stream.
///
/// # Cancel safety
/// Safe.
pub async fn follow_capabilities(device: Arc<Device>, supervisor: SupervisorHandle, stop: CancellationToken) {
    finish_release(&device).await;
    let (mut rows, mut states) = (device.roster.watch(), supervisor.watch());
    loop {
        let wanted = states.borrow_and_update().wanted();
        // No row: the membership is not read yet.
        let row = device.roster.member(device.identity.device());
        let called = row.map(|row| !row.released && row.capabilities.contains(Capabilities::REPLICATE));
        let released = device.control.current().released;
        if released && called == Some(false) {
            // The server has heard by now.
            if let Err(fault) = device.control.write(ControlFile::forget_release).await {
                device.faults.set(fault);
            }
        }
        let next = match (wanted, called) {
            (Role::Client, Some(true)) if !released => Some(Role::ReplicaClient),
            (Role::ReplicaClient, Some(false)) => Some(Role::Client),
            _ => None,
        };
        if let Some(next) = next
            && let Err(error) = supervisor.switch(next).await
        {
            tracing::warn!(%error, role = %next, "follow the membership");
        }
        let changed = async {
            tokio::select! {
                changed = rows.changed() => changed.is_ok(),
                changed = states.changed() => changed.is_ok(),
            }
        };
        if stop.run_until_cancelled(changed).await != Some(true) {
            return;
        }
    }
}

/// Moves the copy of a release aside that was cut short: the decision is durable, and nobody uses the copy yet.
async fn finish_release(device: &Device) {
    let control = device.control.current();
    if !control.released || matches!(control.wanted, Role::Replica | Role::ReplicaClient) {
        return;
    }
    let data_dir = device.config.data_dir.clone();
    match tokio::task::spawn_blocking(move || move_aside(&data_dir)).await {
        Ok(Ok(None)) => {}
        Ok(Ok(Some(_))) => tracing::info!("a release that was cut short is carried on"),
        Ok(Err(error)) => tracing::warn!(%error, "move the released copy aside"),
        Err(error) => tracing::warn!(%error, "move the released copy aside"),
    }
}

/// Follows the server for as long as the part runs.
struct Keeper {
    device: Arc<Device>,
    group: GroupId,
    directory: PathBuf,
    faults: StorageFaults,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the server ended the stream: {}", .0.message())]
    Server(#[from] tonic::Status),
    #[error("the server is silent")]
    Silent,
    #[error("what the server sent is not well-formed: {0}")]
    Malformed(mfpsync_replication::WireError),
    #[error("copy: {0}")]
    Copy(#[from] mfpsync_storage::Error),
    #[error("the part stops")]
    Stopped,
}

impl Keeper {
    async fn run(self, copy: Standby) {
        let mut backoff = Backoff::new(FIRST_WAIT, self.device.settings.now().reconnect_max);
        let (mut copy, mut verified) = (Some(copy), false);
        while !self.stop.is_cancelled() {
            let ended = match copy.take() {
                Some(found) if verified => {
                    let (kept, ended) = self.follow(found, &mut backoff).await;
                    copy = kept;
                    ended
                }
                found => match self.verified(found).await {
                    Ok(found) => {
                        (copy, verified) = (Some(found), true);
                        continue;
                    }
                    Err(ended) => ended,
                },
            };
            // Whatever failed, it is opened and read again.
            verified = copy.is_some();
            if matches!(ended, Ended::Stopped) {
                break;
            }
            tracing::info!(%ended, "the replica lost its server");
            self.report(|report| (report.connected, report.last_error) = (false, ended.to_string()));
            backoff.limit_to(self.device.settings.now().reconnect_max);
            let wait = backoff.wait(draw(&*self.device.random), None);
            self.stop.run_until_cancelled(tokio::time::sleep(wait)).await;
        }
        if let Some(copy) = copy
            && let Err(error) = blocking(move || copy.close()).await
        {
            tracing::error!(%error, "close the copy");
        }
        self.device.copy.send_replace(CopyReport::default());
    }

    /// The copy, opened if need be, with every page read.
    async fn verified(&self, copy: Option<Standby>) -> Result<Standby, Ended> {
        let (directory, group, stop) = (self.directory.clone(), self.group, self.stop.clone());
        let verified = blocking(move || {
            let mut copy = copy.map_or_else(|| open(&directory, group), Ok)?;
            let whole = copy.verify(&|| stop.is_cancelled())?;
            Ok((copy, whole))
        });
        let verified = verified.await;
        if self.stop.is_cancelled() {
            return Err(Ended::Stopped);
        }
        let (copy, whole) = self.faults.written(verified)?;
        if !whole {
            tracing::warn!("the copy is not what was written; it is compared with the server's");
        }
        let position = copy.position();
        self.report(|report| report.position = position);
        Ok(copy)
    }

    /// Connects and follows until something ends that. The copy comes back unless its device failed.
    async fn follow(&self, copy: Standby, backoff: &mut Backoff) -> (Option<Standby>, Ended) {
        let connected = tokio::select! {
            connected = self.connect(&copy) => connected,
            () = self.stop.cancelled() => return (Some(copy), Ended::Stopped),
        };
        match connected {
            Ok((to, from)) => {
                backoff.reset();
                self.report(|report| (report.connected, report.last_error) = (true, String::new()));
                self.device.communication.record(Event::new(Code::ReplicaConnected));
                self.take_all(copy, to, from).await
            }
            Err(error) => (Some(copy), error),
        }
    }

    async fn connect(
        &self,
        copy: &Standby,
    ) -> Result<(mpsc::Sender<wire::FromReplica>, Streaming<wire::ToReplica>), Ended> {
        let servers = Servers::of(&self.device).await.map_err(LinkError::from)?;
        let mut last = Ended::from(LinkError::NoServer);
        for endpoint in servers.endpoints() {
            match servers.dial(&self.device, &endpoint, DIAL).await {
                Ok(channel) => match self.ship(channel, copy).await {
                    Ok(streams) => return Ok(streams),
                    Err(status) => last = status.into(),
                },
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }

    async fn ship(
        &self,
        channel: Channel,
        copy: &Standby,
    ) -> Result<(mpsc::Sender<wire::FromReplica>, Streaming<wire::ToReplica>), tonic::Status> {
        let (to, answers) = mpsc::channel(ANSWERS);
        // The queue is empty, so this fits.
        drop(to.try_send(from_replica_to_wire(self.group, Applying::stands(copy))));
        let mut client = ReplicaClient::new(channel)
            .max_decoding_message_size(limit::MESSAGE_BYTES)
            .max_encoding_message_size(limit::MESSAGE_BYTES);
        let stream = client.ship(ReceiverStream::new(answers)).await?;
        Ok((to, stream.into_inner()))
    }

    async fn take_all(
        &self,
        mut copy: Standby,
        to: mpsc::Sender<wire::FromReplica>,
        mut from: Streaming<wire::ToReplica>,
    ) -> (Option<Standby>, Ended) {
        // A proof holds the copy's log; nobody waits for one when the stream has ended.
        let proving = self.stop.child_token();
        let _ends_proofs = proving.clone().drop_guard();
        let floor = self.device.control.current().epoch.map_or(0, |epoch| epoch.number);
        let mut applying = Applying::above(floor);
        let silence = self.device.config.heartbeat * SILENT_BEATS;
        let mut silent_at = Instant::now() + silence;
        loop {
            let message = tokio::select! {
                message = from.message() => message,
                () = tokio::time::sleep_until(silent_at) => return (Some(copy), Ended::Silent),
                () = self.stop.cancelled() => return (Some(copy), Ended::Stopped),
            };
            silent_at = Instant::now() + silence;
            // I-15: also of a reign that ended while this stream lasted.
            if self.device.control.current().epoch.is_some_and(|epoch| epoch.number > floor) {
                return (Some(copy), tonic::Status::unavailable("another reign began").into());
            }
            let message = match message {
                Ok(Some(message)) => message,
                Ok(None) => return (Some(copy), tonic::Status::unavailable("no more comes").into()),
                Err(status) => return (Some(copy), status.into()),
            };
            self.device.stats.copy_bytes_taken.add(message.encoded_len() as u64);
            let message = match to_replica_from_wire(message) {
                Ok(Some(message)) => message,
                Ok(None) => continue,
                Err(error) => return (Some(copy), Ended::Malformed(error)),
            };
            let (part, before) = (matches!(message, ToReplica::Part { .. }), copy.position());
            let (back, applied) = match take(copy, applying, message).await {
                Ok(taken) => taken,
                Err(error) => {
                    self.faults.failed(&error);
                    return (None, error.into());
                }
            };
            (copy, applying) = back;
            let position = copy.position();
            self.device.stats.copy_parts_taken.add(part.into());
            self.device.stats.copy_transactions.add((position != before).into());
            self.report(|report| report.position = position);
            let answer = match applied {
                Applied::Nothing => continue,
                Applied::Head(head) => {
                    self.report(|report| report.server = Some(head));
                    let rested = blocking(move || copy.rest().map(|()| copy)).await;
                    match self.faults.written(rested) {
                        Ok(rested) => copy = rested,
                        Err(error) => return (None, error.into()),
                    }
                    continue;
                }
                Applied::TakeOver => {
                    self.device.invited.notify_one();
                    continue;
                }
                Applied::Answer(answer) => answer,
                Applied::Prove { proof, position } => {
                    let prover = if copy.position() == Some(position) {
                        let stop = proving.clone();
                        blocking(move || Ok((copy.prover(move || stop.is_cancelled()), copy))).await
                    } else {
                        Ok((Err(mfpsync_storage::Error::Diverged), copy))
                    };
                    match prover {
                        Ok((prover, kept)) => {
                            copy = kept;
                            self.prove(proof, position, prover, to.clone(), proving.clone());
                        }
                        Err(error) => return (None, error.into()),
                    }
                    continue;
                }
            };
            let answering = to.send(from_replica_to_wire(self.group, answer));
            match self.stop.run_until_cancelled(answering).await {
                Some(Ok(())) => {}
                Some(Err(_)) => {
                    return (Some(copy), tonic::Status::unavailable("nothing more is taken").into());
                }
                None => return (Some(copy), Ended::Stopped),
            }
        }
    }

    /// Proves the copy beside what else is done with it, and answers.
    fn prove(
        &self,
        proof: u64,
        position: Position,
        prover: mfpsync_storage::Result<Prover>,
        to: mpsc::Sender<wire::FromReplica>,
        proving: CancellationToken,
    ) {
        let (device, group) = (self.device.clone(), self.group);
        self.tasks.spawn(async move {
            let content = match prover {
                Ok(prover) => {
                    let proven = tokio::task::spawn_blocking(move || prove(&prover, &position)).await;
                    proven.unwrap_or_else(|_| Err("the proof was interrupted".to_owned()))
                }
                Err(error) => Err(format!("the copy cannot be opened: {error}")),
            };
            if proving.is_cancelled() {
                return;
            }
            let outcome = (unix_millis(), content.as_ref().err().cloned());
            device.copy.send_modify(|report| report.proof = Some(outcome));
            // The server may be gone meanwhile.
            drop(to.send(from_replica_to_wire(group, FromReplica::Proven { proof, content })).await);
        });
    }

    fn report(&self, change: impl FnOnce(&mut CopyReport)) {
        self.device.copy.send_modify(change);
    }
}

/// The copy of this group's data. One of another group, which may be the last that group has, is moved
/// aside: a person decides about it.
fn open(directory: &Path, group: GroupId) -> mfpsync_storage::Result<Standby> {
    let copy = Standby::open(directory)?;
    let Some(other) = copy.group().filter(|other| *other != group) else { return Ok(copy) };
    copy.close()?;
    let aside = directory.with_file_name(format!("{DIRECTORY}-of-{other}"));
    std::fs::rename(directory, &aside)?;
    tracing::warn!(path = %aside.display(), "a copy of another group's data was moved aside");
    Standby::open(directory)
}

/// Has the copy take a message, on a thread that may block.
async fn take(
    mut copy: Standby,
    mut applying: Applying,
    message: ToReplica,
) -> mfpsync_storage::Result<((Standby, Applying), Applied)> {
    blocking(move || {
        let applied = applying.take(&mut copy, message)?;
        Ok(((copy, applying), applied))
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> mfpsync_storage::Result<T> + Send + 'static,
) -> mfpsync_storage::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(mfpsync_storage::Error::Closed))
}
