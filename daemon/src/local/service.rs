//! The gRPC handlers of the local API, thin over the device's own data.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mfpsync_proto::local as wire;
use mfpsync_proto::{limit, local::local_server::Local};
use mfpsync_storage::local::{LocalItem, LocalRead};
use mfpsync_storage::model::{ItemKey, Kind, Scope};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use super::{convert, notices};
use crate::db::READ_DEADLINE;
use crate::own_data::{Freshness, News, OwnData};
use crate::quota;
use crate::refusal;
use crate::storage_fault;

/// How long a login waits for fresher data unless it says otherwise, and at most.
const LOGIN_WAIT: Duration = Duration::from_millis(300);
const LOGIN_WAIT_MAX: Duration = Duration::from_secs(2);
/// Answers prepared ahead of a slow caller.
const LOOK_AHEAD: usize = 4;
const ACTOR_BYTES: usize = 255;

/// Serves `mfpsync.local.v1.Local`.
#[derive(Debug, Clone)]
pub struct LocalService {
    own: Arc<OwnData>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl LocalService {
    /// Serves `own`; streams run as tasks of `tasks` until `stop`.
    #[must_use]
    pub fn new(own: Arc<OwnData>, tasks: TaskTracker, stop: CancellationToken) -> Self {
        Self { own, tasks, stop }
    }

    /// Waits until everything is here, at most `wait`, and says how current the data is.
    async fn fresh_within(&self, wait: Duration) -> Freshness {
        let mut freshness = self.own.freshness();
        let belongs = self.own.db().read(crate::db::READ_DEADLINE, |read| read.membership()).await;
        if matches!(belongs, Ok(Some(_))) {
            // Elapsed: the answer is what is here, with its age.
            drop(tokio::time::timeout(wait, freshness.wait_for(|now| now.current)).await);
        }
        *self.own.freshness().borrow()
    }
}

fn scope(text: &str) -> Result<Scope, Status> {
    Scope::parse(text).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn kind(text: &str) -> Result<Option<Kind>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    Kind::parse(text).map(Some).map_err(|error| Status::invalid_argument(error.to_string()))
}

#[tonic::async_trait]
impl Local for LocalService {
    async fn login(
        &self,
        request: Request<wire::LoginRequest>,
    ) -> Result<Response<wire::LoginReply>, Status> {
        let request = request.into_inner();
        let scope =
            Scope::user(&request.user).map_err(|error| Status::invalid_argument(format!("user: {error}")))?;
        let wait = request.wait_millis.map_or(LOGIN_WAIT, |wait| Duration::from_millis(wait.into()));
        let freshness = self.fresh_within(wait.min(LOGIN_WAIT_MAX)).await;
        let items = self.own.all(scope.clone()).await.map_err(|error| storage_fault::refusal(&error))?;
        let read = move |read: &LocalRead<'_>| {
            let notices = notices::gather(read, &scope, &items)?;
            Ok((items, notices))
        };
        let gathered = self.own.db().read(READ_DEADLINE, read).await;
        let (items, (notices, more_notices)) = gathered.map_err(|error| storage_fault::refusal(&error))?;
        Ok(Response::new(wire::LoginReply {
            items: items.into_iter().map(convert::item).collect(),
            freshness: Some(convert::freshness(freshness)),
            notices,
            more_notices,
        }))
    }

    async fn acknowledge_notices(
        &self,
        request: Request<wire::AcknowledgeNoticesRequest>,
    ) -> Result<Response<wire::AcknowledgeNoticesReply>, Status> {
        let request = request.into_inner();
        let scope =
            Scope::user(&request.user).map_err(|error| Status::invalid_argument(format!("user: {error}")))?;
        if request.ids.len() > notices::ACKNOWLEDGED {
            return Err(Status::invalid_argument("at most 200 notices are acknowledged at once"));
        }
        let ids: Vec<Vec<u8>> = request.ids.iter().map(|id| id.to_vec()).collect();
        let items = self.own.all(scope.clone()).await.map_err(|error| storage_fault::refusal(&error))?;
        let noted = self.own.note(move |write| notices::acknowledge(write, &scope, &items, &ids)).await;
        noted.map_err(|error| storage_fault::refusal(&error))?;
        Ok(Response::new(wire::AcknowledgeNoticesReply {}))
    }

    async fn logout(
        &self,
        request: Request<wire::LogoutRequest>,
    ) -> Result<Response<wire::LogoutReply>, Status> {
        // Nothing of a login is held in memory yet; the name is checked so that a wrong call shows.
        Scope::user(&request.into_inner().user)
            .map_err(|error| Status::invalid_argument(format!("user: {error}")))?;
        Ok(Response::new(wire::LogoutReply {}))
    }

    async fn get(&self, request: Request<wire::GetRequest>) -> Result<Response<wire::GetReply>, Status> {
        let key = convert::key(request.into_inner().key)?;
        let item = self.own.item(key).await.map_err(|error| storage_fault::refusal(&error))?;
        let item = item.ok_or_else(|| Status::not_found("there is no such item on this device"))?;
        let freshness = *self.own.freshness().borrow();
        Ok(Response::new(wire::GetReply {
            item: Some(convert::item(item)),
            freshness: Some(convert::freshness(freshness)),
        }))
    }

    type ListStream = Answers<wire::ListReply>;

    async fn list(&self, request: Request<wire::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let request = request.into_inner();
        let (scope, kind) = (scope(&request.scope)?, kind(&request.kind)?);
        let (to, answers) = mpsc::channel(LOOK_AHEAD);
        let own = self.own.clone();
        self.tasks.spawn(async move {
            if let Err(status) = list(&own, scope, kind, &to).await {
                // The caller may be gone already.
                drop(to.send(Err(status)).await);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn write(
        &self,
        request: Request<wire::WriteRequest>,
    ) -> Result<Response<wire::WriteReply>, Status> {
        let request = request.into_inner();
        if request.edits.is_empty() || request.edits.len() > limit::WRITE_EDITS {
            return Err(Status::invalid_argument("a write holds 1 to 100 edits"));
        }
        if request.actor.len() > ACTOR_BYTES {
            return Err(Status::invalid_argument("actor is longer than 255 bytes"));
        }
        let own_id = self.own.id();
        let edit = |edit| convert::edit(edit, own_id);
        let edits = request.edits.into_iter().map(edit).collect::<Result<Vec<_>, _>>()?;
        // Without a device and with this one's id a key names the same item.
        let distinct: BTreeSet<ItemKey> = edits.iter().map(|edit| edit.key.shared()).collect();
        if distinct.len() < edits.len() {
            return Err(Status::invalid_argument("two edits of one item in one write"));
        }
        let edited =
            self.own.edit(edits, request.actor).await.map_err(|error| storage_fault::refusal(&error))?;
        Ok(Response::new(wire::WriteReply {
            operation: edited.operation.map(|number| number.0),
            warning: quota::warning(&edited.users),
        }))
    }

    type WatchStream = Answers<wire::WatchEvent>;

    async fn watch(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let watched = Watched {
            scopes: request.scopes.iter().map(|text| scope(text)).collect::<Result<_, _>>()?,
            kinds: request
                .kinds
                .iter()
                .filter_map(|text| kind(text).transpose())
                .collect::<Result<_, _>>()?,
            own_id: self.own.id().to_string(),
        };
        let (to, answers) = mpsc::channel(LOOK_AHEAD);
        let own = self.own.clone();
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let end = tokio::select! {
                end = watch(&own, &watched, &to) => end,
                () = stop.cancelled() => Err(refusal::stopping()),
            };
            if let Err(status) = end {
                drop(to.send(Err(status)).await);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

type To<T> = mpsc::Sender<Result<T, Status>>;

/// Sends items in answers well under the message limit.
async fn list(
    own: &OwnData,
    scope: Scope,
    kind: Option<Kind>,
    to: &To<wire::ListReply>,
) -> Result<(), Status> {
    let mut after: Option<ItemKey> = None;
    loop {
        let (items, more) = own
            .chunk(scope.clone(), kind.clone(), after.take())
            .await
            .map_err(|error| storage_fault::refusal(&error))?;
        after = items.last().map(|item| item.key.clone());
        for items in bounded(items) {
            let reply = wire::ListReply { items: items.into_iter().map(convert::item).collect() };
            if to.send(Ok(reply)).await.is_err() {
                return Ok(());
            }
        }
        if !more {
            return Ok(());
        }
    }
}

/// Splits items so that no answer comes near the largest message.
fn bounded(items: Vec<LocalItem>) -> Vec<Vec<LocalItem>> {
    let mut answers = Vec::new();
    let mut bytes = 0;
    let mut answer = Vec::new();
    for item in items {
        bytes += item.fields.encode().len() + 4 * 256;
        if bytes > limit::MESSAGE_BYTES / 2 && !answer.is_empty() {
            answers.push(std::mem::take(&mut answer));
            bytes = 0;
        }
        answer.push(item);
    }
    if !answer.is_empty() {
        answers.push(answer);
    }
    answers
}

struct Watched {
    scopes: BTreeSet<Scope>,
    kinds: BTreeSet<Kind>,
    own_id: String,
}

impl Watched {
    fn wants(&self, key: &ItemKey) -> bool {
        (key.device.is_empty() || key.device == self.own_id)
            && (self.scopes.is_empty() || self.scopes.contains(&key.scope))
            && (self.kinds.is_empty() || self.kinds.contains(&key.kind))
    }
}

async fn watch(own: &OwnData, watched: &Watched, to: &To<wire::WatchEvent>) -> Result<(), Status> {
    use wire::watch_event::Event;
    let mut changes = own.subscribe();
    tell(to, Event::Started(wire::Started {})).await?;
    loop {
        match changes.recv().await {
            Ok(News::Changed(keys)) => {
                for key in keys.iter().filter(|key| watched.wants(key)) {
                    let item = own.item(key.clone()).await.map_err(|error| storage_fault::refusal(&error))?;
                    let event = match item {
                        Some(item) => Event::Changed(convert::item(item)),
                        None => Event::Deleted(convert::shown_key(key)),
                    };
                    tell(to, event).await?;
                }
            }
            Ok(News::Anything) | Err(RecvError::Lagged(_)) => {
                tell(to, Event::Missed(wire::Missed {})).await?;
            }
            Err(RecvError::Closed) => return Err(refusal::stopping()),
        }
    }
}

async fn tell(to: &To<wire::WatchEvent>, event: wire::watch_event::Event) -> Result<(), Status> {
    to.send(Ok(wire::WatchEvent { event: Some(event) }))
        .await
        .map_err(|_| Status::cancelled("the watcher left"))
}
