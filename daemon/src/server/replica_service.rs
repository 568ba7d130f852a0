//! The gRPC handler that the replica reaches. Thin over [`super::replicating`].

use std::sync::Arc;
use std::time::Duration;

use mfpsync_proto::replica as wire;
use mfpsync_proto::replica::replica_server::Replica;
use mfpsync_proto::sync::Reason;
use mfpsync_replication::wire::{from_replica_from_wire, replica_of};
use mfpsync_storage::model::Capabilities;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::serving::Serving;
use super::sync_service::{common_protocol, member_behind, same_group};
use crate::communication::{Code as EventCode, Event};
use crate::refusal::{self, status};

/// How long a replica may take to say where its copy stands.
const FIRST_WORD: Duration = Duration::from_secs(10);

/// Serves `mfpsync.replica.v1.Replica`.
#[derive(Debug, Clone)]
pub(super) struct ReplicaService(pub(super) Arc<Serving>);

#[tonic::async_trait]
impl Replica for ReplicaService {
    async fn stand_down(
        &self,
        request: Request<wire::StandDownRequest>,
    ) -> Result<Response<wire::StandDownReply>, Status> {
        let needed = Capabilities::REPLICATE.with(Capabilities::SERVE);
        let member = member_behind(&self.0.roster, &request, needed)?;
        let standing = self.0.replicating.standing();
        if standing.is_none_or(|standing| standing.set.device != member.device) {
            let text = "this device is not the group's replica";
            return Err(status(Code::PermissionDenied, Reason::Capability, text));
        }
        let group = request.into_inner().group_id;
        if group[..] != self.0.head().group.0 {
            return Err(refusal::malformed("another group"));
        }
        let position = self.0.stand_down().await?;
        let goes_on = self.0.goes_on_as_client();
        Ok(Response::new(wire::StandDownReply { position: position.encode().into(), goes_on }))
    }

    async fn succeed(
        &self,
        request: Request<wire::SucceedRequest>,
    ) -> Result<Response<wire::SucceedReply>, Status> {
        let member = member_behind(&self.0.roster, &request, Capabilities::CLIENT)?;
        let wire::SucceedRequest { group_id, certificate } = request.into_inner();
        if group_id[..] != self.0.head().group.0 {
            return Err(refusal::malformed("another group"));
        }
        self.0.succeed(member.device, &certificate).await?;
        Ok(Response::new(wire::SucceedReply {}))
    }

    type ShipStream = ReceiverStream<Result<wire::ToReplica, Status>>;

    async fn ship(
        &self,
        request: Request<Streaming<wire::FromReplica>>,
    ) -> Result<Response<Self::ShipStream>, Status> {
        let member = member_behind(&self.0.roster, &request, Capabilities::REPLICATE)?;
        let mut messages = request.into_inner();
        let first = tokio::time::timeout(FIRST_WORD, messages.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("the replica said nothing"))??;
        let first = first.ok_or_else(|| refusal::malformed("the replica said nothing"))?;
        let (group, min, max) = replica_of(&first).map_err(refusal::malformed)?;
        common_protocol(min, max)?;
        same_group(group, &self.0.head())?;
        let replicating = self.0.replicating.clone();
        let (number, queue) = replicating.connect(member.device).map_err(|_| {
            status(Code::PermissionDenied, Reason::Capability, "this device is not the group's replica")
        })?;
        self.0.goes_on();
        self.0.communication.record(Event::new(EventCode::ReplicaConnected).peer(member.device));
        let (stop, beat) = (self.0.stop.clone(), self.0.beat_every);
        self.0.tasks.spawn(async move {
            let listen = async {
                let mut due = tokio::time::interval(beat);
                let mut next = Some(first);
                while let Some(message) = next.take() {
                    match from_replica_from_wire(message) {
                        Ok(message) => message.into_iter().for_each(|said| replicating.heard(number, said)),
                        Err(error) => return tracing::warn!(%error, "read what the replica says"),
                    }
                    while next.is_none() {
                        tokio::select! {
                            message = messages.message() => match message {
                                Ok(Some(message)) => next = Some(message),
                                Ok(None) | Err(_) => return,
                            },
                            _ = due.tick() => replicating.beat(),
                        }
                    }
                }
            };
            stop.run_until_cancelled(listen).await;
            replicating.disconnect(number);
        });
        Ok(Response::new(ReceiverStream::new(queue)))
    }
}
