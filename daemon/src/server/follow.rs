//! One follow stream: snapshot and catch-up from disk in bounded batches, then live from the hub.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use mfpsync_proto::{limit, sync as wire};
use mfpsync_replication::follow::Start;
use mfpsync_replication::wire::{batch_to_wire, caught_up_to_wire, heartbeat_to_wire, reset_to_wire};
use mfpsync_storage::master::Master;
use mfpsync_storage::model::{Cursor, Sequence};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::hub::{Hub, Live, cursor_at};
use crate::db::{Db, READ_DEADLINE};
use crate::refusal;
use crate::storage_fault;

/// Batches read ahead of a slow follower.
pub const LOOK_AHEAD: usize = 2;

type Sender = mpsc::Sender<Result<wire::FollowEvent, Status>>;

/// What a stream needs.
#[derive(Debug)]
pub struct Follower {
    /// The master database.
    pub master: Db<Master>,
    /// Live changes.
    pub hub: Arc<Hub>,
    /// Membership rows and issuers as they change, as the event that carries them.
    pub membership: watch::Receiver<Arc<wire::FollowEvent>>,
    /// Silence is broken at least this often.
    pub heartbeat: Duration,
    /// Cancelled when the connection ends, as when the device is released.
    pub released: CancellationToken,
    /// Cancelled when the server stops.
    pub stop: CancellationToken,
    /// Told how far the stream is, for the device list.
    pub progress: watch::Sender<Sequence>,
}

impl Follower {
    /// Runs the stream until the follower leaves or the stream is cancelled.
    pub async fn run(mut self, start: Start, cursor: Option<Cursor>, to: Sender) {
        let (released, stop) = (self.released.clone(), self.stop.clone());
        let status = tokio::select! {
            status = self.stream(start, cursor, &to) => status,
            () = stop.cancelled() => refusal::stopping(),
            () = released.cancelled() => return,
        };
        // The follower may be gone already; a slow one need not hear why.
        drop(to.try_send(Err(status)));
    }

    /// Sends until something ends the stream, and says what.
    async fn stream(&mut self, start: Start, cursor: Option<Cursor>, to: &Sender) -> Status {
        match self.send_all(start, cursor, to).await {
            Ok(never) => match never {},
            Err(status) => status,
        }
    }

    async fn send_all(
        &mut self,
        start: Start,
        cursor: Option<Cursor>,
        to: &Sender,
    ) -> Result<Infallible, Status> {
        let mut live = self.hub.subscribe();
        let mut at = match (start, cursor) {
            (Start::Resume, Some(cursor)) => Some(cursor),
            (Start::Reset(reason), _) => {
                send(to, reset_to_wire(reason)).await?;
                None
            }
            (Start::Resume | Start::RolledBack, _) => return Err(refusal::rolled_back()),
        };
        self.send_membership(to).await?;
        loop {
            let mut here = self.catch_up(at, to).await?;
            while let Next::At(next) = self.next_live(&mut live, here, to).await? {
                here = next;
                self.progress.send_replace(here.sequence);
            }
            at = Some(here);
        }
    }

    async fn send_membership(&mut self, to: &Sender) -> Result<(), Status> {
        let rows = self.membership.borrow_and_update().clone();
        send(to, (*rows).clone()).await
    }

    /// Sends everything behind `at` from disk, then `caught-up`.
    async fn catch_up(&self, mut at: Option<Cursor>, to: &Sender) -> Result<Cursor, Status> {
        loop {
            let previous = at.map_or(Sequence::ZERO, |at| at.sequence);
            let (batch, cursor, complete) = self
                .master
                .read(READ_DEADLINE, move |read| {
                    let changes = read.changes_after(previous, limit::BATCH_BYTES)?;
                    let head = read.founded_head()?;
                    let cursor = cursor_at(&head, changes.through, read)?;
                    Ok((changes.batch, cursor, changes.complete))
                })
                .await
                .map_err(|error| storage_fault::refusal(&error))?;
            // Also without a change: a new reign has a cursor of its own.
            if at != Some(cursor) {
                let count = batch.count();
                send(to, batch_to_wire(previous, batch.finish().into(), count, &cursor)).await?;
            }
            at = Some(cursor);
            self.progress.send_replace(cursor.sequence);
            if complete {
                send(to, caught_up_to_wire(&cursor, None)).await?;
                return Ok(cursor);
            }
        }
    }

    async fn next_live(
        &mut self,
        live: &mut broadcast::Receiver<Arc<Live>>,
        at: Cursor,
        to: &Sender,
    ) -> Result<Next, Status> {
        tokio::select! {
            received = live.recv() => match received {
                Ok(batch) if batch.cursor.sequence <= at.sequence => Ok(Next::At(at)),
                Ok(batch) if batch.previous == at.sequence => {
                    let Live { previous, changes, count, cursor } = &*batch;
                    send(to, batch_to_wire(*previous, changes.clone(), *count, cursor)).await?;
                    Ok(Next::At(*cursor))
                }
                Ok(_) | Err(RecvError::Lagged(_)) => Ok(Next::Behind),
                Err(RecvError::Closed) => Err(refusal::stopping()),
            },
            changed = self.membership.changed() => {
                changed.map_err(|_| refusal::stopping())?;
                self.send_membership(to).await?;
                Ok(Next::At(at))
            }
            () = tokio::time::sleep(self.heartbeat) => {
                let head = self.hub.head().borrow().sequence;
                send(to, heartbeat_to_wire(head, None)).await?;
                Ok(if head > at.sequence { Next::Behind } else { Next::At(at) })
            }
        }
    }
}

enum Next {
    At(Cursor),
    /// Batches were missed: read them from disk.
    Behind,
}

/// Hands an event to the connection; waits while the follower is slow.
async fn send(to: &Sender, event: wire::FollowEvent) -> Result<(), Status> {
    to.send(Ok(event)).await.map_err(|_| Status::cancelled("the follower left"))
}
