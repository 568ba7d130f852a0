//! Archives of the group on a share, made while it is served, and coming back from one.
//!
//! One job at a time, owned by the task [`run`]: it takes orders, minds the schedule, and goes on with an upload that a
//! former life of the process began. What a job does is blocking work of `mfpsync-backup`; here is what it works on, when,
//! and what becomes known of it. See ADR 29 to 32.

mod comparing;
mod fetching;
mod job;
mod ledger;
mod making;
mod restoring;
mod schedule;
mod settings;
mod tools;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mfpsync_backup::archive::{Key, Lock};
use mfpsync_backup::layout::ArchiveId;
use mfpsync_backup::store::Cancel;
use mfpsync_proto::backup as wire;
use mfpsync_replication::accept::lineage;
use mfpsync_replication::lineage::Standpoint;
use mfpsync_replication::operator::Operator;
use mfpsync_storage::model::{GroupId, Kind, Scope};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::fetching::{Listed, Whose, list, shown as shown_archive};
pub use self::job::{JobError, Shown, protection_text};
pub use self::ledger::{Drilled, Failure, Ledger};
pub use self::schedule::Schedule;
pub use self::settings::{Change, Keep, Settings, SettingsError, Share};
pub use self::tools::Tools;
use crate::authority::Root;
use crate::clock::unix_millis;
use crate::communication::{Code, Event};
use crate::db::READ_DEADLINE;
use crate::device::Device;
use crate::fault::{Fault, FaultBoard, FaultCode};
use crate::keystore::KeyStore;
use crate::role::SupervisorHandle;
use crate::server::serving::Serving;

/// How long the schedule may be looked at late: the wall clock may be set meanwhile.
const LOOK: Duration = Duration::from_secs(20);
/// How soon a drill that could not be done is tried again.
const DRILL_AGAIN: Duration = Duration::from_secs(60 * 60);
/// Failures in a row that pass by themselves, before a person is asked.
const PASSING: u32 = 4;

/// Which archive.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// None for the newest.
    pub id: Option<ArchiveId>,
    /// None for this device's group.
    pub group: Option<GroupId>,
}

/// What is to be done.
pub enum Order {
    /// An archive.
    Backup(Making),
    /// A look at an archive: opened with a key, or compared with what was opened when it was made.
    Drill(Wanted, Option<Key>),
    /// An archive beside what is here.
    Preview(Restoring),
    /// The group goes on with what an archive holds.
    Restore(Restoring),
    /// Single items come back.
    BringBack(BringingBack),
}

/// An archive that is to be made.
#[derive(Default)]
pub struct Making {
    /// How it is sealed; without one for the recipients that are set.
    pub lock: Option<Lock>,
    /// Good archives that are on the share no more are no reason to remove none.
    pub accept_missing: bool,
}

/// An archive for a restore.
pub struct Restoring {
    /// Which.
    pub wanted: Wanted,
    /// What opens it.
    pub key: Key,
    /// The group's root key, where this device is not certified.
    pub root: Option<Root>,
    /// Changes that may be lost from the group's data.
    pub accept_loss_of: u64,
}

/// Items that are to come back.
pub struct BringingBack {
    /// From which archive.
    pub wanted: Wanted,
    /// What opens it.
    pub key: Key,
    /// Whose; none for all.
    pub scope: Option<Scope>,
    /// What; none for all.
    pub kind: Option<Kind>,
    /// Which: id, and device or nothing.
    pub item: Option<(String, String)>,
    /// Also those that live here and differ.
    pub replace: bool,
    /// Who acts.
    pub operator: Operator,
    /// Only say what would be done.
    pub dry_run: bool,
}

impl Order {
    fn kind(&self) -> wire::JobKind {
        match self {
            Self::Backup(_) => wire::JobKind::Backup,
            Self::Drill(..) => wire::JobKind::Drill,
            Self::Preview(_) => wire::JobKind::Preview,
            Self::Restore(_) => wire::JobKind::Restore,
            Self::BringBack(_) => wire::JobKind::BringBack,
        }
    }
}

/// What is set, what is remembered, and the job under way, of one device.
pub struct Archiving {
    keys: Arc<dyn KeyStore>,
    settings: Mutex<Settings>,
    /// Held while they are changed, so that whoever reads them does not wait for the disk.
    setting: Mutex<()>,
    ledger: Mutex<Ledger>,
    job: watch::Sender<wire::Job>,
    cancel: Mutex<Option<Cancel>>,
    to: mpsc::Sender<(Order, Cancel)>,
    orders: Mutex<Option<mpsc::Receiver<(Order, Cancel)>>>,
    changed: Notify,
}

impl std::fmt::Debug for Archiving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archiving").finish_non_exhaustive()
    }
}

impl Archiving {
    /// Reads what is set and remembered. Settings that cannot be read are shown as a fault and count as none.
    ///
    /// # Errors
    /// The fault: the data directory cannot be read.
    pub fn open(
        data_dir: &std::path::Path,
        keys: Arc<dyn KeyStore>,
        faults: &FaultBoard,
    ) -> Result<Self, Fault> {
        let settings = Settings::load(&*keys).unwrap_or_else(|error| {
            faults.set(Fault::with_detail(FaultCode::Backup, error));
            Settings::default()
        });
        let ledger = Ledger::open(data_dir).map_err(|error| Fault::with_detail(FaultCode::DiskIo, error))?;
        // One order on its way: whoever gives it has begun the job before.
        let (to, orders) = mpsc::channel(1);
        let job = watch::Sender::new(wire::Job { ended: true, ..wire::Job::default() });
        Ok(Self {
            keys,
            settings: Mutex::new(settings),
            setting: Mutex::default(),
            ledger: Mutex::new(ledger),
            job,
            cancel: Mutex::default(),
            to,
            orders: Mutex::new(Some(orders)),
            changed: Notify::new(),
        })
    }

    /// What is set.
    #[must_use]
    pub fn settings(&self) -> Settings {
        lock(&self.settings).clone()
    }

    /// Changes what is set; what is set then, and whether the password was forgotten by it. Blocks.
    ///
    /// # Errors
    /// Why it was not taken; nothing was changed.
    pub fn set(
        &self,
        change: Change,
        allowed: &crate::config::Backup,
    ) -> Result<(Settings, bool), SettingsError> {
        let _one_at_a_time = lock(&self.setting);
        let (next, forgotten) = self.settings().changed(change, allowed)?;
        // Share and password are one write.
        next.store(&*self.keys)?;
        *lock(&self.settings) = next.clone();
        if let Err(error) = self.note(Ledger::set_anew) {
            tracing::warn!(%error, "try archives anew");
        }
        self.changed.notify_one();
        Ok((next, forgotten))
    }

    /// Forgets what is set; whether anything was. Blocks.
    ///
    /// # Errors
    /// The key store.
    pub fn forget(&self) -> Result<bool, SettingsError> {
        let _one_at_a_time = lock(&self.setting);
        let was_set = self.settings() != Settings::default();
        Settings::forget(&*self.keys)?;
        *lock(&self.settings) = Settings::default();
        self.changed.notify_one();
        Ok(was_set)
    }

    /// Looks at what is remembered.
    pub fn remembered<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&lock(&self.ledger))
    }

    fn note(&self, change: impl FnOnce(&mut Ledger) -> std::io::Result<()>) -> Result<(), JobError> {
        change(&mut lock(&self.ledger)).map_err(|source| JobError::Io { action: "remember archives", source })
    }

    /// Follows the job under way, or the last one.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<wire::Job> {
        self.job.subscribe()
    }

    /// Begins a job; what is known of it then.
    ///
    /// # Errors
    /// Another one is under way, of this kind: nothing happens.
    pub fn begin(&self, order: Order, scheduled: bool) -> Result<wire::Job, wire::JobKind> {
        let kind = order.kind();
        // Before anybody can see the job, so that it can be stopped from then on.
        let Ok(cancel) = Cancel::new() else { return Err(self.job.borrow().kind()) };
        let mut begun = None;
        self.job.send_if_modified(|job| {
            let free = job.ended;
            if free {
                *job = wire::Job {
                    number: job.number + 1,
                    kind: kind.into(),
                    scheduled,
                    since_unix_millis: unix_millis(),
                    ..wire::Job::default()
                };
                *lock(&self.cancel) = Some(cancel.clone());
                begun = Some(job.clone());
            }
            free
        });
        let begun = begun.ok_or_else(|| self.job.borrow().kind())?;
        if self.to.try_send((order, cancel)).is_err() {
            self.end(|job| job.failure = JobError::Stopped.to_string());
        }
        Ok(begun)
    }

    fn end(&self, with: impl FnOnce(&mut wire::Job)) {
        self.job.send_modify(|job| {
            with(job);
            job.retrying.clear();
            job.ended = true;
        });
    }

    /// Tells the job under way to end; whether there is one.
    pub fn cancel(&self) -> bool {
        let under_way = !self.job.borrow().ended;
        if let Some(cancel) = lock(&self.cancel).as_ref() {
            cancel.cancel();
        }
        under_way
    }

    /// When the next archive is made by itself, Unix seconds.
    #[must_use]
    pub fn next(&self, now: u64) -> Option<u64> {
        self.settings().schedule.next(self.remembered(|ledger| ledger.past(now)), now)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Values are replaced as a whole, so a panic elsewhere leaves them valid.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does the jobs of one device, those of its schedule too, until `stop`.
///
/// # Cancel safety
/// It ends by `stop` alone: the job under way is told to end, and waited for.
pub async fn run(device: Arc<Device>, supervisor: SupervisorHandle, stop: CancellationToken) {
    let Some(mut orders) = lock(&device.archiving.orders).take() else { return };
    restoring::tidy(&device).await;
    let mut drill_after = Instant::now();
    loop {
        let order = tokio::select! {
            () = stop.cancelled() => return,
            order = orders.recv() => order,
            () = device.archiving.changed.notified() => None,
            () = tokio::time::sleep(LOOK) => None,
        };
        match order {
            Some((order, cancel)) => carry_out(&device, &supervisor, order, cancel, &stop).await,
            None => mind_the_schedule(&device, &mut drill_after).await,
        }
    }
}

/// Begins what is due, where this device serves; a drill not before `drill_after`.
async fn mind_the_schedule(device: &Arc<Device>, drill_after: &mut Instant) {
    let Some(server) = device.server.load_full() else { return };
    let group = server.serving.head().group;
    remember(device, move |ledger| ledger.of_group(group)).await;
    hold_safe(device, &server.serving).await;
    let now = unix_millis() / 1_000;
    let due = device.archiving.next(now).is_some_and(|due| due <= now);
    // An upload that a former life of the process began goes on, also without a schedule.
    let past = device.archiving.remembered(|ledger| ledger.past(now));
    let goes_on = device.archiving.remembered(|ledger| ledger.pending().is_some())
        && !past.stuck
        && past.after_failure(now, now) <= now
        && device.archiving.settings().password.is_some();
    if due || goes_on {
        // Somebody else's job comes first; the next look is soon.
        drop(device.archiving.begin(Order::Backup(Making::default()), true));
        return;
    }
    let looked_at = device.archiving.remembered(Ledger::looked_at);
    if *drill_after <= Instant::now() && device.archiving.settings().schedule.drill_is_due(looked_at, now) {
        *drill_after = Instant::now() + DRILL_AGAIN;
        drop(device.archiving.begin(Order::Drill(Wanted::default(), None), true));
    }
}

async fn carry_out(
    device: &Arc<Device>,
    supervisor: &SupervisorHandle,
    order: Order,
    cancel: Cancel,
    stop: &CancellationToken,
) {
    let archiving = &device.archiving;
    let scheduled = archiving.job.borrow().scheduled;
    let makes = matches!(order, Order::Backup(_));
    let shown = Shown::new(archiving.job.clone(), cancel.clone());
    let work = carry(device, supervisor, order, shown);
    tokio::pin!(work);
    let done = tokio::select! {
        done = &mut work => done,
        () = stop.cancelled() => {
            cancel.cancel();
            work.await
        }
    };
    *lock(&archiving.cancel) = None;
    // However it shows that it was told to end.
    let done = done.map_err(|error| if error.was_told_to_end() { JobError::Stopped } else { error });
    if makes && !stop.is_cancelled() {
        conclude(device, &done, scheduled).await;
        if let Some(server) = device.server.load_full() {
            hold_safe(device, &server.serving).await;
        }
    }
    if let Err(error) = &done {
        tracing::warn!(error = error.told(), "a job with archives came to nothing");
    }
    archiving.end(|job| job.failure = done.err().map_or_else(String::new, |error| error.explained()));
}

async fn carry(
    device: &Arc<Device>,
    supervisor: &SupervisorHandle,
    order: Order,
    shown: Shown,
) -> Result<(), JobError> {
    match order {
        Order::Backup(order) => making::make(device, order, shown).await,
        Order::Drill(wanted, key) => fetching::drill(device, wanted, key, shown).await,
        Order::Preview(order) => restoring::preview(device, order, shown).await,
        Order::Restore(order) => restoring::restore(device, supervisor, order, shown).await,
        Order::BringBack(order) => restoring::bring_back(device, order, shown).await,
    }
}

/// What becomes known of an attempt to make an archive.
async fn conclude(device: &Arc<Device>, done: &Result<(), JobError>, scheduled: bool) {
    match done {
        Ok(()) => {
            device.faults.clear(FaultCode::Backup);
            device.communication.record(Event::new(Code::ArchiveMade));
        }
        Err(error) => {
            let gives_up = error.gives_up();
            // What a person stopped is not begun again at once.
            let times = if matches!(error, JobError::Stopped) { PASSING } else { 1 };
            let (at, why, stuck) = (unix_millis(), error.explained(), error.locks_accounts());
            remember(device, move |ledger| ledger.failed(Failure { at, times, why, stuck }, gives_up)).await;
            if matches!(error, JobError::Stopped) {
                return;
            }
            let times =
                device.archiving.remembered(|ledger| ledger.failure().map_or(0, |failure| failure.times));
            // Whoever asked for it was told.
            if scheduled && (!error.passes() || times >= PASSING) {
                device.faults.set(Fault::with_detail(FaultCode::Backup, error.told()));
            }
            device.communication.record(Event::new(Code::ArchiveNotMade).reason(error.word()));
        }
    }
}

/// Says up to where everything is also in a good archive: what devices need not keep, and beyond which deletions are
/// remembered. Nothing while no share is set, as no further one comes.
pub(crate) async fn hold_safe(device: &Device, serving: &Serving) {
    let head = serving.head();
    let places = if device.archiving.settings().share.is_some() {
        device.archiving.remembered(Ledger::places)
    } else {
        Vec::new()
    };
    let lineage = match serving.master.read(READ_DEADLINE, lineage).await {
        Ok(lineage) => lineage,
        Err(error) => return tracing::warn!(%error, "read who reigned"),
    };
    let here = places
        .into_iter()
        .filter(|at| lineage.standpoint(at) == Standpoint::Continue && at.sequence <= head.sequence);
    serving.replicating.set_archived(here.map(|at| at.sequence).max());
}

/// Notes something where nobody waits for it.
async fn remember(
    device: &Arc<Device>,
    change: impl FnOnce(&mut Ledger) -> std::io::Result<()> + Send + 'static,
) {
    let noting = device.clone();
    match tokio::task::spawn_blocking(move || noting.archiving.note(change)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "remember archives"),
        Err(error) => tracing::warn!(%error, "remember archives"),
    }
}
