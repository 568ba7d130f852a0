//! The gRPC handlers devices reach: hello, follow, push, leave. Thin: decisions are made in
//! `mfpsync_replication`, inside the master's reads and writes.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use mfpsync_proto::sync::sync_server::Sync;
use mfpsync_proto::sync::{self as wire, Reason};
use mfpsync_proto::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};
use mfpsync_replication::accept::{Answer, Submission, accept, is_of_another, lineage};
use mfpsync_replication::follow::{self, Noted, Start};
use mfpsync_replication::message::{Follow, Greeting, PushAnswer};
use mfpsync_replication::wire as convert;
use mfpsync_storage::master::{Head, MasterRead, MasterWrite};
use mfpsync_storage::model::{
    Capabilities, Cursor, DeviceId, Epoch, GroupId, Member, OperationNumber, Outcome, Sequence,
};
use tokio::sync::mpsc;
use tokio_stream::Empty;
use tonic::{Code as GrpcCode, Request, Response, Status};

use super::follow::{Follower, LOOK_AHEAD, Presence};
use super::serving::Serving;
use crate::clock::unix_millis;
use crate::communication::{Code, Event, Tally};
use crate::db::READ_DEADLINE;
use crate::membership::Roster;
use crate::net::frames::streaming;
use crate::net::stream::PeerInfo;
use crate::refusal::{self, status};

/// Serves `mfpsync.sync.v1.Sync`.
#[derive(Debug, Clone)]
pub(super) struct SyncService(pub(super) Arc<Serving>);

impl SyncService {
    /// The client at the other end and its address; asked at every call, since rows change under open connections.
    fn peer<T>(&self, request: &Request<T>) -> Result<(DeviceId, SocketAddr), Status> {
        let member = member_behind(&self.0.roster, request, Capabilities::CLIENT)?;
        Ok((member.device, peer_of(request)?.address))
    }
}

fn peer_of<T>(request: &Request<T>) -> Result<&Arc<PeerInfo>, Status> {
    let unknown =
        || status(GrpcCode::Unauthenticated, Reason::UnknownDevice, "this connection has no device");
    request.extensions().get::<Arc<PeerInfo>>().ok_or_else(unknown)
}

/// The device at the other end of a call, if it may do what `needed` says now.
pub(super) fn member_behind<T>(
    roster: &Roster,
    request: &Request<T>,
    needed: Capabilities,
) -> Result<Arc<Member>, Status> {
    let key = peer_of(request)?.public_key;
    roster
        .authorise(key, needed)
        .map_err(|refused| status(GrpcCode::PermissionDenied, refused.reason(), refused.to_string()))
}

pub(super) fn same_group(group: GroupId, head: &Head) -> Result<(), Status> {
    if group == head.group {
        return Ok(());
    }
    Err(status(GrpcCode::FailedPrecondition, Reason::WrongGroup, "this server serves another group"))
}

pub(super) fn same_epoch(epoch: Epoch, head: &Head) -> Result<(), Status> {
    if epoch == head.epoch {
        return Ok(());
    }
    Err(status(GrpcCode::FailedPrecondition, Reason::WrongEpoch, "the epoch changed: say hello again"))
}

pub(super) fn common_protocol(min: u32, max: u32) -> Result<u32, Status> {
    if max >= PROTOCOL_VERSION_MIN && min <= PROTOCOL_VERSION {
        return Ok(max.min(PROTOCOL_VERSION));
    }
    let text = format!(
        "this server speaks protocol {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION}, the device {min} to {max}; \
         update the older of the two"
    );
    Err(status(GrpcCode::FailedPrecondition, Reason::ProtocolVersion, text))
}

#[tonic::async_trait]
impl Sync for SyncService {
    async fn hello(
        &self,
        request: Request<wire::HelloRequest>,
    ) -> Result<Response<wire::HelloReply>, Status> {
        let (device, _) = self.peer(&request)?;
        let request = request.into_inner();
        // Before anything else is read: a newer device may say the rest in words not known here.
        let protocol = common_protocol(request.protocol_min, request.protocol_max)?;
        let hello = convert::hello_from_wire(request).map_err(refusal::malformed)?;
        let head = self.0.head();
        same_group(hello.group, &head)?;
        if let Some(claim) = &hello.claim {
            self.0.check_claim(claim, &head).await?;
        }
        self.0.reigns()?;
        self.0.introduce(device, &hello).await?;
        let incarnation = hello.incarnation;
        let (known_operation, quarantined, lineage, members, issuers) = self
            .0
            .master
            .read(READ_DEADLINE, move |read| {
                let quarantined = read.progress(device)?.is_some_and(|progress| progress.quarantined);
                // What another device has pushed is not told.
                let other = is_of_another(read, device, incarnation)?;
                let known = (!other).then(|| read.ledger(incarnation)).transpose()?;
                let known = known.map(|ledger| (ledger.last().max(ledger.confirmed()), ledger.confirmed()));
                Ok((known, quarantined, read.lineage()?, read.members()?, read.issuers()?))
            })
            .await
            .map_err(|error| self.0.storage_failed(&error))?;
        if quarantined {
            return Err(self.quarantined(device));
        }
        let Some((known_operation, confirmed_operation)) = known_operation else {
            return Err(self.other_incarnation(device));
        };
        let greeting = Greeting {
            protocol,
            epoch: head.epoch,
            head: head.sequence,
            safe: self.0.hub.safe(),
            limits: self.0.limits().announced(),
            lineage,
            members,
            issuers,
            known_operation,
            confirmed_operation,
            group_name: head.group_name,
        };
        Ok(Response::new(convert::greeting_to_wire(&greeting)))
    }

    type FollowStream = Empty<Result<wire::FollowEvent, Status>>;

    async fn follow(
        &self,
        request: Request<wire::FollowRequest>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let (device, address) = self.peer(&request)?;
        let follow = convert::follow_from_wire(request.into_inner()).map_err(refusal::malformed)?;
        same_group(follow.group, &self.0.head())?;
        let cursor = follow.cursor;
        let start = self
            .0
            .master
            .read(READ_DEADLINE, move |read| where_to_start(read, cursor.as_ref()))
            .await
            .map_err(|error| self.0.storage_failed(&error))?;
        match (start, cursor) {
            (Start::RolledBack, _) => return Err(self.0.rolled_back(device)),
            // Until it says more, it may offer edits of any view.
            (Start::Reset(_), _) => {
                let nothing = Follow { settled: false, ..follow };
                self.note_progress(device, &nothing, Sequence::ZERO).await?;
            }
            (Start::Resume, Some(cursor)) => {
                self.note_progress(device, &follow, cursor.sequence).await?;
            }
            (Start::Resume, None) => {}
        }
        let (to, queue) = mpsc::channel(LOOK_AHEAD);
        let follower = Follower {
            master: self.0.master.clone(),
            hub: self.0.hub.clone(),
            membership: self.0.membership(),
            stop: self.0.stop.clone(),
            progress: self.0.connected.follow(device),
            presence: Presence::begin(self.0.communication.clone(), device, address),
        };
        self.0.stats.follows_begun.increment();
        Ok(streaming(follower.stream(start, cursor, to), queue))
    }

    async fn push(&self, request: Request<wire::PushRequest>) -> Result<Response<wire::PushReply>, Status> {
        let (device, _) = self.peer(&request)?;
        let push = convert::push_from_wire(request.into_inner()).map_err(refusal::malformed)?;
        let head = self.0.head();
        same_group(push.group, &head)?;
        same_epoch(push.epoch, &head)?;
        let submission = Submission {
            device,
            incarnation: push.incarnation,
            low_water: push.low_water,
            operations: push.operations,
            now: unix_millis(),
        };
        let limits = self.0.limits();
        let usage = self.0.usage.clone();
        let take = move |write: &MasterWrite<'_>| {
            let mut usage = usage.lock().unwrap_or_else(PoisonError::into_inner);
            accept(write, &mut usage, &submission, limits)
        };
        match self.0.change(take).await? {
            Answer::Outcomes(outcomes) => {
                self.note_push(device, &outcomes);
                let answer = PushAnswer { outcomes, head: self.0.head().sequence, safe: self.0.hub.safe() };
                Ok(Response::new(convert::push_answer_to_wire(&answer)))
            }
            Answer::Quarantined => Err(self.quarantined(device)),
            Answer::OtherIncarnation => Err(self.other_incarnation(device)),
            Answer::Unconfirmed => Err(status(
                GrpcCode::ResourceExhausted,
                Reason::OverLimit,
                "too many outcomes wait to be confirmed by this device; nothing was taken",
            )),
            Answer::Unreadable(error) => Err(refusal::malformed(error)),
            Answer::OutOfOrder { expected, found } => Err(refusal::malformed(format!(
                "operation {} came where {} was due; nothing was taken",
                found.0, expected.0
            ))),
        }
    }

    async fn confirm(
        &self,
        request: Request<wire::FollowRequest>,
    ) -> Result<Response<wire::ConfirmReply>, Status> {
        let (device, _) = self.peer(&request)?;
        let held = convert::follow_from_wire(request.into_inner()).map_err(refusal::malformed)?;
        same_group(held.group, &self.0.head())?;
        let Some(cursor) = held.cursor else { return Err(refusal::malformed("a position is missing")) };
        let start = self.0.master.read(READ_DEADLINE, move |read| where_to_start(read, Some(&cursor))).await;
        // What is not a place in this history confirms nothing.
        if start.map_err(|error| self.0.storage_failed(&error))? == Start::Resume {
            self.note_progress(device, &held, cursor.sequence).await?;
        }
        Ok(Response::new(wire::ConfirmReply {}))
    }

    async fn report(
        &self,
        request: Request<wire::ReportRequest>,
    ) -> Result<Response<wire::ReportReply>, Status> {
        let (device, _) = self.peer(&request)?;
        let report = convert::report_from_wire(&request.into_inner()).map_err(refusal::malformed)?;
        let head = self.0.head();
        same_group(report.group, &head)?;
        same_epoch(report.epoch, &head)?;
        self.0.note(move |write| write.report(device, report.held.clone())).await?;
        Ok(Response::new(wire::ReportReply {}))
    }

    async fn leave(
        &self,
        request: Request<wire::LeaveRequest>,
    ) -> Result<Response<wire::LeaveReply>, Status> {
        let (device, _) = self.peer(&request)?;
        let leave = convert::leave_from_wire(&request.into_inner()).map_err(refusal::malformed)?;
        same_group(leave.group, &self.0.head())?;
        self.0.release(device).await?;
        self.0.communication.record(Event::new(Code::MemberLeft).peer(device));
        Ok(Response::new(wire::LeaveReply {}))
    }
}

impl SyncService {
    fn note_push(&self, device: DeviceId, outcomes: &[(OperationNumber, Outcome)]) {
        let tally = Tally::of(outcomes.iter().map(|(_, outcome)| outcome));
        let stats = &self.0.stats;
        stats.pushes_answered.increment();
        stats.operations_accepted.add(tally.accepted);
        stats.operations_superseded.add(tally.superseded);
        stats.operations_rejected.add(tally.rejected);
        self.0.communication.record(tally.on(Event::new(Code::DevicePushed).peer(device)));
    }

    fn quarantined(&self, device: DeviceId) -> Status {
        self.0.communication.record(Event::new(Code::DeviceRefused).peer(device).reason("quarantined"));
        refusal::quarantined()
    }

    fn other_incarnation(&self, device: DeviceId) -> Status {
        self.0.communication.record(Event::new(Code::DeviceRefused).peer(device).reason("incarnation"));
        refusal::other_incarnation()
    }

    /// Notes how far a device is, for the device list and for collecting tombstones. A device in
    /// quarantine is refused, and one that names another's incarnation.
    async fn note_progress(
        &self,
        device: DeviceId,
        Follow { incarnation, settled, .. }: &Follow,
        sequence: Sequence,
    ) -> Result<(), Status> {
        let (incarnation, settled) = (*incarnation, *settled);
        match self.0.note(move |write| follow::note(write, device, incarnation, sequence, settled)).await? {
            Noted::Done => Ok(()),
            Noted::Quarantined => Err(self.quarantined(device)),
            Noted::OtherIncarnation => Err(self.other_incarnation(device)),
        }
    }
}

fn where_to_start(read: &MasterRead<'_>, cursor: Option<&Cursor>) -> mfpsync_storage::Result<Start> {
    let head = read.founded_head()?;
    let lineage = lineage(read)?;
    let chain = cursor.map(|cursor| read.chain_at(cursor.sequence)).transpose()?.flatten();
    Ok(follow::start(cursor, &head, &lineage, chain))
}
