//! The gRPC handlers of the records API, thin over the device.

use std::pin::Pin;
use std::sync::Arc;

use mfpsync_proto::local::ListReply;
use mfpsync_proto::records as wire;
use mfpsync_proto::records::records_server::Records;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{history, place, set_aside, sharing, undo, unsent, users};
use crate::panel::Session;

/// Answers prepared ahead of a slow caller.
const LOOK_AHEAD: usize = 2;

/// Serves `mfpsync.records.v1.Records`.
#[derive(Debug, Clone)]
pub struct RecordsService(pub Arc<Session>);

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Records for RecordsService {
    async fn history(&self, request: Request<wire::HistoryRequest>) -> Reply<wire::HistoryReply> {
        history::history(&self.0.device, request.into_inner()).await.map(Response::new)
    }

    async fn item_history(
        &self,
        request: Request<wire::ItemHistoryRequest>,
    ) -> Reply<wire::ItemHistoryReply> {
        history::item_history(&self.0.device, request.into_inner()).await.map(Response::new)
    }

    async fn preview_undo(&self, request: Request<wire::UndoRequest>) -> Reply<wire::UndoReply> {
        undo::preview(&self.0.device, request.into_inner()).await.map(Response::new)
    }

    async fn undo(&self, request: Request<wire::UndoRequest>) -> Reply<wire::UndoReply> {
        undo::undo(&self.0.device, request.into_inner()).await.map(Response::new)
    }

    async fn retry_set_aside(&self, request: Request<wire::SetAsideChoice>) -> Reply<wire::SetAsideDone> {
        set_aside::retry(&self.0.device, request.into_inner()).await.map(Response::new)
    }

    async fn drop_set_aside(&self, request: Request<wire::SetAsideChoice>) -> Reply<wire::SetAsideDone> {
        set_aside::discard(&self.0.device, request.into_inner()).await.map(Response::new)
    }

    type UnsentStream = Pin<Box<dyn Stream<Item = Result<wire::UnsentReply, Status>> + Send>>;

    async fn unsent(&self, request: Request<wire::UnsentRequest>) -> Reply<Self::UnsentStream> {
        let with_values = request.into_inner().with_values;
        let (to, answers) = mpsc::channel(LOOK_AHEAD);
        let session = self.0.clone();
        self.0.tasks.spawn(async move {
            if let Err(status) = unsent::unsent(&session.device, with_values, &to).await {
                // The caller may be gone already.
                drop(to.send(Err(status)).await);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn users(&self, request: Request<wire::UsersRequest>) -> Reply<wire::UsersReply> {
        users::users(&self.0.device, request.into_inner()).await.map(Response::new)
    }

    type ExportUserStream = Pin<Box<dyn Stream<Item = Result<ListReply, Status>> + Send>>;

    async fn export_user(&self, request: Request<wire::UserRequest>) -> Reply<Self::ExportUserStream> {
        let scope = place::user(&request.into_inner().user)?;
        let (to, answers) = mpsc::channel(LOOK_AHEAD);
        let session = self.0.clone();
        self.0.tasks.spawn(async move {
            if let Err(status) = users::export(&session.device, scope, &to).await {
                // The caller may be gone already.
                drop(to.send(Err(status)).await);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn delete_user(&self, request: Request<wire::UserRequest>) -> Reply<wire::DeleteUserReply> {
        users::delete(&self.0.device, request.into_inner()).await.map(Response::new)
    }

    async fn erase_user(&self, request: Request<wire::UserRequest>) -> Reply<wire::EraseUserReply> {
        users::erase(&self.0.device, request.into_inner()).await.map(Response::new)
    }

    async fn readmit_user(&self, request: Request<wire::UserRequest>) -> Reply<wire::ReadmitUserReply> {
        users::readmit(&self.0.device, request.into_inner()).await.map(Response::new)
    }

    async fn erasures(&self, request: Request<wire::ErasuresRequest>) -> Reply<wire::ErasuresReply> {
        users::erasures(&self.0.device, request.into_inner()).await.map(Response::new)
    }

    async fn sharing(&self, _request: Request<wire::SharingRequest>) -> Reply<wire::SharingReply> {
        sharing::list(&self.0.device).await.map(Response::new)
    }

    async fn preview_sharing(&self, request: Request<wire::SharingOrder>) -> Reply<wire::SharingPlan> {
        sharing::preview(&self.0.device, request.into_inner()).await.map(Response::new)
    }

    type SetSharingStream = Pin<Box<dyn Stream<Item = Result<wire::SharingProgress, Status>> + Send>>;

    async fn set_sharing(&self, request: Request<wire::SharingOrder>) -> Reply<Self::SetSharingStream> {
        let begun = sharing::set(&self.0.device, request.into_inner()).await?;
        let (to, answers) = mpsc::channel(LOOK_AHEAD);
        let session = self.0.clone();
        self.0.tasks.spawn(async move {
            if let Err(status) = sharing::follow(&session.device, begun, &to).await {
                // The caller may be gone already.
                drop(to.send(Err(status)).await);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}
