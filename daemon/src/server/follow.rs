//! One follow stream: snapshot and catch-up from disk in bounded batches, then live from the hub.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use mfpsync_proto::limit;
use mfpsync_replication::follow::Start;
use mfpsync_replication::wire::{batch_to_wire, caught_up_to_wire, reset_to_wire};
use mfpsync_storage::master::Master;
use mfpsync_storage::model::{Cursor, DeviceId, Sequence};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::hub::{Hub, Live, cursor_at};
use super::sync_service::same_epoch;
use crate::communication::{Code, CommunicationLog, Event};
use crate::db::{Db, READ_DEADLINE};
use crate::net::frames::{Source, frame};
use crate::refusal;
use crate::storage_fault;

/// Batches read ahead of a slow follower.
pub const LOOK_AHEAD: usize = 2;
/// One batch from disk, in bytes; well below what a batch may be. A newcomer holds a few of them, decoded
/// to several times that, and takes each in a commit of its own: larger ones cost it memory and gain
/// nothing.
const CATCH_UP_BYTES: usize = 128 << 10;
const _: () = assert!(CATCH_UP_BYTES <= limit::BATCH_BYTES);

type Sender = mpsc::Sender<Bytes>;

/// What a stream needs.
#[derive(Debug)]
pub struct Follower {
    /// The master database.
    pub master: Db<Master>,
    /// Live changes.
    pub hub: Arc<Hub>,
    /// Membership rows and issuers as they change, as the frame that carries them.
    pub membership: watch::Receiver<Bytes>,
    /// Cancelled when the server stops.
    pub stop: CancellationToken,
    /// Told how far the stream is, for the device list.
    pub progress: watch::Sender<Sequence>,
    /// Until when the device counts as connected.
    pub presence: Presence,
}

/// A device at the other end of a stream, in the communication log.
#[derive(Debug)]
pub struct Presence {
    communication: CommunicationLog,
    device: DeviceId,
    address: SocketAddr,
}

impl Presence {
    /// The device is here, until this is dropped.
    #[must_use]
    pub fn begin(communication: CommunicationLog, device: DeviceId, address: SocketAddr) -> Self {
        let presence = Self { communication, device, address };
        presence.tell(Code::DeviceConnected);
        presence
    }

    fn tell(&self, code: Code) {
        self.communication.record(Event::new(code).peer(self.device).address(self.address.ip()));
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.tell(Code::DeviceLost);
    }
}

impl Follower {
    /// The stream, as what is sent while it is polled; it ends when the server stops.
    #[must_use]
    pub fn stream(mut self, start: Start, cursor: Option<Cursor>, to: Sender) -> Source {
        Box::pin(async move {
            let stop = self.stop.clone();
            let sent = tokio::select! {
                sent = self.send_all(start, cursor, &to) => sent,
                () = stop.cancelled() => return refusal::stopping(),
            };
            match sent {
                Ok(never) => match never {},
                Err(status) => status,
            }
        })
    }

    async fn send_all(
        &mut self,
        start: Start,
        cursor: Option<Cursor>,
        to: &Sender,
    ) -> Result<Infallible, Status> {
        let (mut live, mut beat) = (self.hub.subscribe(), self.hub.beat());
        let mut at = match (start, cursor) {
            (Start::Resume, Some(cursor)) => Some(cursor),
            (Start::Reset(reason), _) => {
                send(to, frame(&reset_to_wire(reason))?).await?;
                None
            }
            (Start::Resume | Start::RolledBack, _) => return Err(refusal::rolled_back()),
        };
        self.send_membership(to).await?;
        loop {
            let mut here = self.catch_up(at, to).await?;
            while let Next::At(next) = self.next_live(&mut live, &mut beat, here, to).await? {
                self.same_reign(&next)?;
                here = next;
                self.progress.send_replace(here.sequence);
            }
            at = Some(here);
        }
    }

    /// What follows is of a reign that the follower has not met.
    fn same_reign(&self, at: &Cursor) -> Result<(), Status> {
        same_epoch(at.epoch, &self.hub.head().borrow())
    }

    async fn send_membership(&mut self, to: &Sender) -> Result<(), Status> {
        let rows = self.membership.borrow_and_update().clone();
        send(to, rows).await
    }

    /// Sends everything behind `at` from disk, then `caught-up`.
    async fn catch_up(&self, mut at: Option<Cursor>, to: &Sender) -> Result<Cursor, Status> {
        loop {
            let previous = at.map_or(Sequence::ZERO, |at| at.sequence);
            let (batch, cursor, complete, head) = self
                .master
                .read(READ_DEADLINE, move |read| {
                    let changes = read.changes_after(previous, CATCH_UP_BYTES)?;
                    let head = read.founded_head()?;
                    let cursor = cursor_at(&head, changes.through, read)?;
                    Ok((changes.batch, cursor, changes.complete, head.sequence))
                })
                .await
                .map_err(|error| storage_fault::refusal(&error))?;
            // An item that was changed again since is missing here, and comes behind that head.
            self.confirmed(head, to).await?;
            // Also without a change: a new reign has a cursor of its own.
            if at != Some(cursor) {
                let count = batch.count();
                let batch = batch_to_wire(previous, batch.finish().into(), count, &cursor);
                send(to, frame(&batch)?).await?;
            }
            at = Some(cursor);
            self.progress.send_replace(cursor.sequence);
            if complete {
                send(to, frame(&caught_up_to_wire(&cursor, self.hub.safe()))?).await?;
                return Ok(cursor);
            }
        }
    }

    /// Waits until changes up to this one may be shown, with a sign of life now and then.
    async fn confirmed(&self, head: Sequence, to: &Sender) -> Result<(), Status> {
        let mut beat = self.hub.beat();
        loop {
            tokio::select! {
                () = self.hub.confirmed(head) => return Ok(()),
                beaten = beat.changed() => {
                    beaten.map_err(|_| refusal::stopping())?;
                    let heartbeat = beat.borrow_and_update().clone();
                    send(to, heartbeat).await?;
                }
            }
        }
    }

    async fn next_live(
        &mut self,
        live: &mut broadcast::Receiver<Live>,
        beat: &mut watch::Receiver<Bytes>,
        at: Cursor,
        to: &Sender,
    ) -> Result<Next, Status> {
        tokio::select! {
            received = live.recv() => match received {
                Ok(batch) if batch.cursor.sequence <= at.sequence => Ok(Next::At(at)),
                Ok(batch) if batch.previous == at.sequence => {
                    let Some(frame) = batch.frame.upgrade() else { return Ok(Next::Behind) };
                    send(to, Bytes::clone(&frame)).await?;
                    Ok(Next::At(batch.cursor))
                }
                Ok(_) | Err(RecvError::Lagged(_)) => Ok(Next::Behind),
                Err(RecvError::Closed) => Err(refusal::stopping()),
            },
            changed = self.membership.changed() => {
                changed.map_err(|_| refusal::stopping())?;
                self.send_membership(to).await?;
                Ok(Next::At(at))
            }
            beaten = beat.changed() => {
                beaten.map_err(|_| refusal::stopping())?;
                let heartbeat = beat.borrow_and_update().clone();
                send(to, heartbeat).await?;
                let head = self.hub.head().borrow().sequence;
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
async fn send(to: &Sender, frame: Bytes) -> Result<(), Status> {
    to.send(frame).await.map_err(|_| Status::cancelled("the follower left"))
}
