//! The gRPC handlers of the monitor API, thin over the device.

use std::sync::Arc;

use mfpsync_proto::monitor as wire;
use mfpsync_proto::monitor::monitor_server::Monitor;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{communications, metrics};
use crate::communication::{Entry, Filter};
use crate::device::Device;
use crate::panel::Session;
use crate::refusal;

/// Entries prepared ahead of a slow caller.
const LOOK_AHEAD: usize = 2;

/// Serves `mfpsync.monitor.v1.Monitor`.
#[derive(Debug, Clone)]
pub struct MonitorService(pub Arc<Session>);

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Monitor for MonitorService {
    async fn communications(
        &self,
        request: Request<wire::CommunicationsRequest>,
    ) -> Reply<wire::CommunicationsReply> {
        let (device, request) = (&self.0.device, request.into_inner());
        let filter = communications::filter(device, &request)?;
        let before = Some(request.before_number).filter(|number| *number > 0);
        let page = device.communication.page(&filter, before, communications::limit(request.limit)?);
        let entries = page.entries.into_iter().map(|entry| communications::entry(device, entry)).collect();
        Ok(Response::new(wire::CommunicationsReply { entries, next: page.next.unwrap_or_default() }))
    }

    type FollowCommunicationsStream = ReceiverStream<Result<wire::Communication, Status>>;

    async fn follow_communications(
        &self,
        request: Request<wire::CommunicationsRequest>,
    ) -> Reply<Self::FollowCommunicationsStream> {
        let filter = communications::filter(&self.0.device, &request.into_inner())?;
        let (to, entries) = mpsc::channel(LOOK_AHEAD);
        let (device, stop) = (self.0.device.clone(), self.0.stop.clone());
        let recorded = device.communication.follow();
        self.0.tasks.spawn(async move {
            tokio::select! {
                () = follow(&device, &filter, recorded, &to) => {}
                // The caller may be gone already.
                () = stop.cancelled() => drop(to.try_send(Err(refusal::stopping()))),
            }
        });
        Ok(Response::new(ReceiverStream::new(entries)))
    }

    async fn metrics(&self, _: Request<wire::MetricsRequest>) -> Reply<wire::MetricsReply> {
        Ok(Response::new(wire::MetricsReply { text: metrics(&self.0).await }))
    }

    async fn reload(&self, _: Request<wire::ReloadRequest>) -> Reply<wire::ReloadReply> {
        let settings = self.0.device.settings.clone();
        let reloaded = tokio::task::spawn_blocking(move || settings.reload())
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| {
                Status::invalid_argument(format!("{error}\nnothing was changed; the former settings hold"))
            })?;
        let owned = |keys: Vec<&str>| keys.into_iter().map(str::to_owned).collect();
        Ok(Response::new(wire::ReloadReply {
            applied: owned(reloaded.applied),
            after_restart: owned(reloaded.after_restart),
        }))
    }
}

async fn follow(
    device: &Device,
    filter: &Filter,
    mut recorded: broadcast::Receiver<Entry>,
    to: &mpsc::Sender<Result<wire::Communication, Status>>,
) {
    loop {
        let entry = tokio::select! {
            entry = recorded.recv() => entry,
            () = to.closed() => return,
        };
        match entry {
            Ok(entry) if filter.admits(&entry) => {
                if to.send(Ok(communications::entry(device, entry))).await.is_err() {
                    return;
                }
            }
            // What a slow caller missed is in the list.
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}
