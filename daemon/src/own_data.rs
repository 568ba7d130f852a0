//! The device's own data in every role: reads and edits of its database, and news of what changed.
//!
//! The local API, the panel and the client role share one [`OwnData`]; nobody else writes the file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mfpsync_storage::local::{
    EditContext, Edited, Local, LocalEdit, LocalItem, LocalWrite, OutboxLimits, Phase,
};
use mfpsync_storage::model::{DeviceId, Incarnation, ItemKey, Kind, Scope};
use mfpsync_storage::{Priority, Result};
use ring::rand::SecureRandom;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use crate::clock::unix_millis;
use crate::db::{Db, READ_DEADLINE};
use crate::fault::FaultBoard;
use crate::quota::QuotaWatch;
use crate::settings::Settings;
use crate::storage_fault::StorageFaults;

/// Changed keys kept for a watcher that is a moment behind; then it is told to list again.
const EVENTS: usize = 1024;
/// Items read from the database at a time.
const LIST_CHUNK: u32 = 500;

/// How current the device's data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freshness {
    /// Connected, and everything is here.
    pub current: bool,
    /// When everything was here last; none if never since the daemon started.
    pub last_current: Option<Instant>,
}

impl Freshness {
    /// How long ago everything was here.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        if self.current { Some(Duration::ZERO) } else { self.last_current.map(|at| at.elapsed()) }
    }
}

/// News for watchers.
#[derive(Debug, Clone)]
pub enum News {
    /// The visible state of these items changed.
    Changed(Arc<[ItemKey]>),
    /// That of any item may have: list again.
    Anything,
}

/// The device's own data.
#[derive(Debug)]
pub struct OwnData {
    id: DeviceId,
    db: Db<Local>,
    events: broadcast::Sender<News>,
    edits: watch::Sender<u64>,
    settlements: watch::Sender<u64>,
    freshness: watch::Sender<Freshness>,
    phase: watch::Sender<Option<Phase>>,
    /// The client role says that everything of the group is here.
    caught_up: AtomicBool,
    settings: Settings,
    faults: StorageFaults,
    quota: QuotaWatch,
}

impl OwnData {
    /// Wraps the open database of the device `id`, in which a join stands at `phase`.
    #[must_use]
    pub fn new(
        id: DeviceId,
        db: Db<Local>,
        phase: Option<Phase>,
        settings: Settings,
        faults: FaultBoard,
    ) -> Self {
        Self {
            id,
            db,
            phase: watch::Sender::new(phase),
            caught_up: AtomicBool::new(false),
            events: broadcast::Sender::new(EVENTS),
            edits: watch::Sender::new(0),
            settlements: watch::Sender::new(0),
            freshness: watch::Sender::new(Freshness::default()),
            settings,
            quota: QuotaWatch::new(faults.clone()),
            faults: StorageFaults::new(faults),
        }
    }

    /// Whose it is.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        self.id
    }

    fn limits(&self) -> OutboxLimits {
        let limits = self.settings.now().limits;
        OutboxLimits { operations: limits.outbox_operations, bytes: limits.outbox_bytes }
    }

    /// The database, for reads.
    #[must_use]
    pub fn db(&self) -> &Db<Local> {
        &self.db
    }

    /// Stores edits that belong together, and tells watchers and the client role.
    ///
    /// # Errors
    /// The outbox is full, an item or a user would be too large, the user was erased, or the database
    /// fails; nothing is stored.
    ///
    /// # Cancel safety
    /// The edits may be stored although the future was dropped.
    pub async fn edit(&self, edits: Vec<LocalEdit>, actor: String) -> Result<Edited> {
        let context = EditContext { actor, now: unix_millis(), limits: Some(self.limits()) };
        let keys: Arc<[ItemKey]> = edits.iter().map(|edit| edit.key.clone()).collect();
        let edited =
            self.db.write(Priority::Panel, move |write| write.edit_counted(edits.clone(), &context)).await;
        let edited = self.faults.written(edited)?;
        self.announce(keys);
        if edited.operation.is_some() {
            self.edits.send_modify(|count| *count += 1);
        }
        self.quota.note(&edited.users);
        Ok(edited)
    }

    /// Offers an operation that was set aside again. False when there is none in this place.
    ///
    /// # Errors
    /// As [`OwnData::edit`]; it stays set aside then.
    ///
    /// # Cancel safety
    /// As [`OwnData::edit`].
    pub async fn retry_set_aside(&self, entry: i64) -> Result<bool> {
        let context = EditContext { actor: String::new(), now: unix_millis(), limits: Some(self.limits()) };
        let retried =
            self.db.write(Priority::Panel, move |write| write.retry_set_aside(entry, &context)).await;
        let Some(keys) = self.faults.written(retried)? else { return Ok(false) };
        self.announce(keys.into());
        self.edits.send_modify(|count| *count += 1);
        Ok(true)
    }

    /// Forgets an operation that was set aside. False when there is none in this place.
    ///
    /// # Errors
    /// The database's.
    ///
    /// # Cancel safety
    /// It may be forgotten although the future was dropped.
    pub async fn drop_set_aside(&self, entry: i64) -> Result<bool> {
        let dropped = self.db.write(Priority::Panel, move |write| write.drop_set_aside(entry)).await;
        self.faults.written(dropped)
    }

    /// Runs a write of a person at this device that changes no item.
    ///
    /// # Errors
    /// As the closure, or the commit.
    ///
    /// # Cancel safety
    /// As [`OwnData::edit`].
    pub async fn note(&self, note: impl FnMut(&LocalWrite<'_>) -> Result<()> + Send + 'static) -> Result<()> {
        self.faults.written(self.db.write(Priority::Panel, note).await)
    }

    /// Runs a write of the client role and tells watchers which keys it changed.
    ///
    /// # Errors
    /// As the closure, or the commit.
    ///
    /// # Cancel safety
    /// As [`OwnData::edit`].
    pub async fn write<T: Send + 'static>(
        &self,
        mut write: impl FnMut(&LocalWrite<'_>) -> Result<(T, Vec<ItemKey>)> + Send + 'static,
    ) -> Result<T> {
        let written = self.db.write(Priority::Sync, move |db| write(db)).await;
        let (value, changed) = self.faults.written(written)?;
        self.announce(changed.into());
        Ok(value)
    }

    /// As [`OwnData::write`], of a write that takes answered operations out of the outbox.
    ///
    /// # Errors
    /// As the closure, or the commit.
    ///
    /// # Cancel safety
    /// As [`OwnData::edit`].
    pub async fn settle<T: Send + 'static>(
        &self,
        settle: impl FnMut(&LocalWrite<'_>) -> Result<(T, Vec<ItemKey>)> + Send + 'static,
    ) -> Result<T> {
        let value = self.write(settle).await?;
        self.settlements.send_modify(|count| *count += 1);
        Ok(value)
    }

    /// Changes how own items and group stand to each other: after that any item may show otherwise,
    /// and edits may wait.
    ///
    /// # Errors
    /// As the closure, or the commit.
    ///
    /// # Cancel safety
    /// As [`OwnData::edit`].
    pub async fn change_membership<T: Send + 'static>(
        &self,
        mut change: impl FnMut(&LocalWrite<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let write = move |db: &LocalWrite<'_>| {
            let value = change(db)?;
            Ok((value, db.phase()?))
        };
        let (value, phase) = self.faults.written(self.db.write(Priority::Panel, write).await)?;
        self.phase.send_replace(phase);
        self.show_freshness();
        // An error means that nobody watches.
        drop(self.events.send(News::Anything));
        self.edits.send_modify(|count| *count += 1);
        Ok(value)
    }

    /// Where a join stands; none outside of a group.
    #[must_use]
    pub fn phase(&self) -> watch::Receiver<Option<Phase>> {
        self.phase.subscribe()
    }

    fn announce(&self, keys: Arc<[ItemKey]>) {
        if !keys.is_empty() {
            // An error means that nobody watches.
            drop(self.events.send(News::Changed(keys)));
        }
    }

    /// Whether the writer answers; an empty write touches no disk.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn is_alive(&self) -> bool {
        self.db.write(Priority::Panel, |_| Ok(())).await.is_ok()
    }

    /// Keys whose visible state changed, from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<News> {
        self.events.subscribe()
    }

    /// Rises whenever an edit entered the outbox.
    #[must_use]
    pub fn edits(&self) -> watch::Receiver<u64> {
        self.edits.subscribe()
    }

    /// Rises whenever operations have left the outbox.
    #[must_use]
    pub fn settlements(&self) -> watch::Receiver<u64> {
        self.settlements.subscribe()
    }

    /// How current the data is, as the client role last said.
    #[must_use]
    pub fn freshness(&self) -> watch::Receiver<Freshness> {
        self.freshness.subscribe()
    }

    /// Notes whether everything of the group is here.
    pub fn set_current(&self, caught_up: bool) {
        self.caught_up.store(caught_up, Ordering::Relaxed);
        self.show_freshness();
    }

    /// While joining, what is here does not show yet.
    fn show_freshness(&self) {
        let shows = *self.phase.borrow() != Some(Phase::Joining);
        let current = shows && self.caught_up.load(Ordering::Relaxed);
        self.freshness.send_if_modified(|freshness| {
            let changed = freshness.current != current;
            if current || freshness.current {
                freshness.last_current = Some(Instant::now());
            }
            freshness.current = current;
            changed
        });
    }

    /// One item as readers see it.
    ///
    /// # Errors
    /// The database's.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn item(&self, key: ItemKey) -> Result<Option<LocalItem>> {
        self.db.read(READ_DEADLINE, move |read| read.item(&key)).await
    }

    /// The next items of a scope in key order, behind `after`; fewer than a chunk means the end.
    ///
    /// # Errors
    /// The database's.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn chunk(
        &self,
        scope: Scope,
        kind: Option<Kind>,
        after: Option<ItemKey>,
    ) -> Result<(Vec<LocalItem>, bool)> {
        let items = self
            .db
            .read(READ_DEADLINE, move |read| read.items(&scope, kind.as_ref(), after.as_ref(), LIST_CHUNK))
            .await?;
        let more = items.len() == LIST_CHUNK as usize;
        Ok((items, more))
    }

    /// All items of a scope.
    ///
    /// # Errors
    /// The database's.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn all(&self, scope: Scope) -> Result<Vec<LocalItem>> {
        let mut items: Vec<LocalItem> = Vec::new();
        loop {
            let after = items.last().map(|item| item.key.clone());
            let (chunk, more) = self.chunk(scope.clone(), None, after).await?;
            items.extend(chunk);
            if !more {
                return Ok(items);
            }
        }
    }
}

/// A new life's number for the own data; none when there are no random numbers.
#[must_use]
pub fn draw_incarnation(random: &dyn SecureRandom) -> Option<Incarnation> {
    let mut bytes = [0; 8];
    random.fill(&mut bytes).ok()?;
    // Databases keep it as a signed integer; zero means none on the wire.
    Some(Incarnation((u64::from_be_bytes(bytes) >> 1).max(1)))
}

/// Luck for waits. Without random numbers devices wait alike, which is harmless.
#[must_use]
pub fn draw(random: &dyn SecureRandom) -> u64 {
    let mut bytes = [0; 8];
    if random.fill(&mut bytes).is_err() {
        return u64::MAX / 2;
    }
    u64::from_be_bytes(bytes)
}
