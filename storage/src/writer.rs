//! The one writer thread of a database and its bounded queue.
//!
//! Whatever waits in the queue goes into one transaction, so that a hundred devices share one sync of
//! the disk. When one of them fails, which is rare, all run once more with a savepoint each, so that
//! its failure does not touch its neighbours.
//! I-01: requesters are answered after the commit is on stable storage, never before.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use rusqlite::Connection;

use crate::checkpoint::{self, Checkpointer};
use crate::error::{Error, Result};
use crate::figures::Figures;
use crate::open;
use crate::physical::{Pages, held};
use crate::store::{Database, Priority};
use crate::tap::{self, Tap, Tapped};

/// Runs after each commit that is on stable storage, on the writer thread.
pub type Published<D> = Box<dyn FnMut(&<D as Database>::Read<'_>) + Send>;

/// Requests in one commit: enough to share a disk sync, few enough to bound the wait of the first.
const GROUP: usize = 256;
/// Requests waiting; beyond it new ones are answered [`Error::Busy`] at once.
const QUEUE: usize = 4096;

/// What the group does after one of its requests ran.
enum Verdict {
    /// Keep what it wrote.
    Keep,
    /// Undo what it wrote; the others go on.
    Undo,
    /// The device failed: nothing of the group can be trusted.
    Abandon,
}

/// A request: run inside the transaction, then answered once.
trait Job<D: Database>: Send {
    fn run(&mut self, write: &D::Write<'_>) -> Verdict;
    /// Gives the requester its own result if the group was committed, or if it failed by itself.
    fn answer(self: Box<Self>, committed: Result<()>);
}

struct Request<T, W, A> {
    write: W,
    done: A,
    result: Option<Result<T>>,
}

impl<D, T, W, A> Job<D> for Request<T, W, A>
where
    D: Database,
    T: Send,
    W: FnMut(&D::Write<'_>) -> Result<T> + Send,
    A: FnOnce(Result<T>) + Send,
{
    fn run(&mut self, write: &D::Write<'_>) -> Verdict {
        let result = (self.write)(write);
        let verdict = match &result {
            Ok(_) => Verdict::Keep,
            Err(error) if error.poisons() => Verdict::Abandon,
            Err(_) => Verdict::Undo,
        };
        self.result = Some(result);
        verdict
    }

    fn answer(self: Box<Self>, committed: Result<()>) {
        let result = match (committed, self.result) {
            (_, Some(Err(error))) | (Err(error), _) => Err(error),
            (Ok(()), Some(value)) => value,
            (Ok(()), None) => Err(Error::Closed),
        };
        (self.done)(result);
    }
}

/// Work with the pages of a database at rest; an error if there is no tap, or they cannot be read.
type PagesJob<D> = Box<dyn FnOnce(Result<(&mut Pages, <D as Database>::Read<'_>)>) + Send>;

/// Work with the pages.
pub(crate) struct PagesWork<D: Database> {
    pub(crate) job: PagesJob<D>,
    /// It is done although nobody set a tap.
    pub(crate) anyway: bool,
}

struct Queue<D: Database> {
    panel: VecDeque<Box<dyn Job<D>>>,
    sync: VecDeque<Box<dyn Job<D>>>,
    pages: VecDeque<PagesWork<D>>,
    /// A tap to be set, or to be taken off.
    tap: Option<Option<Box<dyn Tap<D>>>>,
    /// Work with the pages was done last: a commit comes before more of it.
    rested: bool,
    open: bool,
}

/// What the writer does next.
enum Work<D: Database> {
    Tap(Option<Box<dyn Tap<D>>>),
    Pages(PagesWork<D>),
    Commit(Vec<Box<dyn Job<D>>>),
}

impl<D: Database> Queue<D> {
    /// What comes next: commits and work with the pages take turns.
    fn next(&mut self) -> Option<Work<D>> {
        if let Some(tap) = self.tap.take() {
            return Some(Work::Tap(tap));
        }
        let nothing_to_commit = self.panel.is_empty() && self.sync.is_empty();
        self.rested = !self.rested || nothing_to_commit;
        if self.rested
            && let Some(work) = self.pages.pop_front()
        {
            return Some(Work::Pages(work));
        }
        self.rested = false;
        let from_panel = self.panel.len().min(GROUP);
        let from_sync = self.sync.len().min(GROUP - from_panel);
        let mut jobs: Vec<_> = self.panel.drain(..from_panel).collect();
        jobs.extend(self.sync.drain(..from_sync));
        (!jobs.is_empty()).then_some(Work::Commit(jobs))
    }
}

struct Shared<D: Database> {
    queue: Mutex<Queue<D>>,
    filled: Condvar,
}

impl<D: Database> Shared<D> {
    fn queue(&self) -> MutexGuard<'_, Queue<D>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Writer<D: Database> {
    shared: Arc<Shared<D>>,
    /// Tells the checkpointer to empty the log.
    truncate: Arc<AtomicBool>,
    figures: Arc<Figures>,
    thread: Mutex<Option<JoinHandle<Result<()>>>>,
}

impl<D: Database> Writer<D> {
    pub(crate) fn start(path: &Path, create: bool, published: Published<D>) -> Result<Self> {
        let truncate: Arc<AtomicBool> = Arc::default();
        let figures: Arc<Figures> = Arc::default();
        let checkpointer = Checkpointer::truncate_on(truncate.clone(), figures.clone());
        let mut connection = open::writable(path, D::KIND, create)?;
        checkpointer.watch(&mut connection)?;
        let queue = Queue {
            panel: VecDeque::new(),
            sync: VecDeque::new(),
            pages: VecDeque::new(),
            tap: None,
            rested: false,
            open: true,
        };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), filled: Condvar::new() });
        let worker = Worker {
            path: path.to_owned(),
            connection: Some(connection),
            checkpointer,
            tapped: None,
            held: None,
            shared: shared.clone(),
            figures: figures.clone(),
            published,
        };
        let thread = std::thread::Builder::new()
            .name("db-writer".into())
            .stack_size(512 << 10)
            .spawn(move || worker.run())
            .map_err(|_| Error::Busy)?;
        Ok(Self { shared, truncate, figures, thread: Mutex::new(Some(thread)) })
    }

    pub(crate) fn submit<T: Send + 'static>(
        &self,
        priority: Priority,
        write: impl FnMut(&D::Write<'_>) -> Result<T> + Send + 'static,
        done: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let request = Request { write, done, result: None };
        let refused = {
            let mut queue = self.shared.queue();
            if !queue.open {
                Some((request, Error::Closed))
            } else if queue.panel.len() + queue.sync.len() >= QUEUE {
                Some((request, Error::Busy))
            } else {
                match priority {
                    Priority::Panel => queue.panel.push_back(Box::new(request)),
                    Priority::Sync => queue.sync.push_back(Box::new(request)),
                }
                None
            }
        };
        match refused {
            Some((request, error)) => (request.done)(Err(error)),
            None => self.shared.filled.notify_one(),
        }
    }

    /// Sets a tap, or takes it off: then whoever waits is answered.
    pub(crate) fn set_tap(&self, tap: Option<Box<dyn Tap<D>>>) {
        self.shared.queue().tap = Some(tap);
        self.shared.filled.notify_one();
    }

    /// Queues work with the pages at rest.
    pub(crate) fn with_pages(&self, work: PagesWork<D>) {
        let refused = {
            let mut queue = self.shared.queue();
            if queue.open && queue.pages.len() < QUEUE {
                queue.pages.push_back(work);
                None
            } else {
                Some((work, if queue.open { Error::Busy } else { Error::Closed }))
            }
        };
        match refused {
            Some((work, error)) => (work.job)(Err(error)),
            None => self.shared.filled.notify_one(),
        }
    }

    /// What it counts.
    pub(crate) fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Has the log emptied after the next commit, or as soon as its readers allow.
    pub(crate) fn truncate_log(&self) {
        self.truncate.store(true, Ordering::Relaxed);
    }

    /// Refuses further requests, finishes those queued, folds the log back; waits for the thread.
    pub(crate) fn stop(&self) -> Result<()> {
        self.shared.queue().open = false;
        self.shared.filled.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread.map_or(Ok(()), |thread| thread.join().unwrap_or(Err(Error::Closed)))
    }
}

impl<D: Database> Drop for Writer<D> {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(%error, "close database");
        }
    }
}

struct Worker<D: Database> {
    path: PathBuf,
    /// None after the device failed, until opening it again succeeds.
    connection: Option<Connection>,
    checkpointer: Checkpointer,
    tapped: Option<Tapped<D, Box<dyn Job<D>>>>,
    /// The file, once there was a tap. Dropped after the connection.
    held: Option<Arc<File>>,
    shared: Arc<Shared<D>>,
    figures: Arc<Figures>,
    published: Published<D>,
}

impl<D: Database> Worker<D> {
    fn run(mut self) -> Result<()> {
        while let Some(work) = self.next_work() {
            match work {
                Work::Tap(tap) => self.tap(tap),
                Work::Pages(work) => self.with_pages(work),
                Work::Commit(jobs) => self.commit(jobs),
            }
        }
        let folded = self.fold_at_close();
        if let Some(tapped) = self.tapped.take() {
            tapped.end().into_iter().for_each(|job| job.answer(Err(Error::Unconfirmed)));
        }
        folded
    }

    /// Waits for work; None when the store was closed and nothing is left.
    fn next_work(&self) -> Option<Work<D>> {
        let mut queue = self.shared.queue();
        loop {
            let next = queue.next();
            if next.is_some() || !queue.open {
                return next;
            }
            queue = self.shared.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn tap(&mut self, tap: Option<Box<dyn Tap<D>>>) {
        self.hold_file();
        let tapped = tap.map(|tap| Tapped::new(&self.path, tap));
        if let Some(before) = std::mem::replace(&mut self.tapped, tapped) {
            before.end().into_iter().for_each(|job| job.answer(Ok(())));
        }
        if self.tapped.is_none()
            && let Err(error) = tap::forget_anchor(&self.path)
        {
            tracing::warn!(%error, "forget where the database stands");
        }
        // Finds out where the database stands.
        self.with_pages(PagesWork { job: Box::new(|_| {}), anyway: false });
    }

    /// How that ends is seen when the pages are asked for.
    fn hold_file(&mut self) {
        self.held = self.held.take().or_else(|| held::open(&self.path).ok());
    }

    fn with_pages(&mut self, PagesWork { job, anyway }: PagesWork<D>) {
        if anyway && self.tapped.is_none() {
            self.hold_file();
            self.tapped = Some(Tapped::for_a_moment(&self.path));
        }
        let opened = self.open_connection();
        let tapped = self.tapped.as_mut().filter(|tapped| anyway || !tapped.is_for_a_moment());
        match (opened, tapped) {
            (Ok(()), Some(tapped)) => {
                let Some(connection) = &self.connection else { return job(Err(Error::Closed)) };
                job(tapped.pages(connection).map(|pages| (pages, D::read(connection))));
                self.settle();
            }
            (Ok(()), None) => job(Err(Error::Closed)),
            (Err(error), _) => job(Err(error)),
        }
        self.end_moment();
    }

    /// Takes off the tap that was there for a snapshot alone, when that is read or lost.
    fn end_moment(&mut self) {
        if let Some(tapped) = self.tapped.take_if(|tapped| tapped.is_moment_over()) {
            tapped.end().into_iter().for_each(|job| job.answer(Ok(())));
        }
    }

    fn commit(&mut self, mut jobs: Vec<Box<dyn Job<D>>>) {
        let began = Instant::now();
        let result = self.open_connection().and_then(|()| self.transact(&mut jobs));
        match result {
            Ok(Group::Committed) => {
                self.figures.committed(jobs.len(), began.elapsed());
                self.publish(jobs);
            }
            // One request too large for the room left must not fail its neighbours: each alone.
            Err(Error::Full) if jobs.len() > 1 => jobs.into_iter().for_each(|job| self.commit(vec![job])),
            Ok(Group::Undone | Group::Abandoned) => self.fail(jobs, &Error::Busy, true),
            Err(error) => {
                let poisoned = error.poisons();
                self.fail(jobs, &error, poisoned);
            }
        }
    }

    fn transact(&mut self, jobs: &mut [Box<dyn Job<D>>]) -> Result<Group> {
        let connection = self.connection.as_ref().ok_or(Error::Closed)?;
        let mut begun = || self.tapped.as_mut().map_or(Ok(()), |tapped| tapped.look_for_others(connection));
        transact::<D>(connection, jobs, &mut begun)
    }

    /// Answers everybody with the group's failure, except those that failed by themselves.
    fn fail(&mut self, jobs: Vec<Box<dyn Job<D>>>, error: &Error, poisoned: bool) {
        if poisoned {
            tracing::error!(%error, "database failed; it is opened anew");
            self.connection = None;
        }
        for job in jobs {
            job.answer(Err(error.for_neighbour()));
        }
    }

    fn publish(&mut self, jobs: Vec<Box<dyn Job<D>>>) {
        let Some(connection) = &self.connection else { return };
        match &mut self.tapped {
            Some(tapped) => {
                if let Err(error) = tapped.committed(self.checkpointer.frames(), connection, jobs) {
                    tracing::warn!(%error, "read what was committed for the replica");
                }
                (self.published)(&D::read(connection));
                self.settle();
            }
            None => {
                (self.published)(&D::read(connection));
                jobs.into_iter().for_each(|job| job.answer(Ok(())));
            }
        }
        self.end_moment();
        let before_folding = || anchor(&self.path, self.tapped.as_ref());
        if let Some(connection) = &self.connection
            && let Err(error) = self.checkpointer.after_commit(connection, before_folding)
        {
            tracing::warn!(%error, "fold the write-ahead log back");
        }
    }

    /// Answers those whose commit is confirmed by now, or given up.
    fn settle(&mut self) {
        for (job, confirmed) in self.tapped.as_mut().map(Tapped::due).unwrap_or_default() {
            job.answer(if confirmed { Ok(()) } else { Err(Error::Unconfirmed) });
        }
    }

    fn fold_at_close(&mut self) -> Result<()> {
        let Some(connection) = &self.connection else { return Ok(()) };
        if let Some(tapped) = &mut self.tapped {
            tapped.look_for_others(connection)?;
        }
        anchor(&self.path, self.tapped.as_ref())?;
        match (checkpoint::at_close(connection)?, &mut self.tapped) {
            (true, Some(tapped)) => {
                // Whoever wrote meanwhile was folded as well.
                tapped.look_for_others(connection)?;
                tapped.anchor_closed()
            }
            _ => Ok(()),
        }
    }

    fn open_connection(&mut self) -> Result<()> {
        if self.connection.is_none() {
            let mut connection = open::writable(&self.path, D::KIND, false)?;
            self.checkpointer.watch(&mut connection)?;
            self.connection = Some(connection);
            if let Some(tapped) = &mut self.tapped {
                tapped.reconnected();
            }
        }
        Ok(())
    }
}

/// Notes where the database stands, before its log is folded back. What nobody follows is not known.
fn anchor<D: Database, J>(path: &Path, tapped: Option<&Tapped<D, J>>) -> Result<()> {
    tapped.map_or_else(|| tap::forget_anchor(path), Tapped::anchor)
}

enum Group {
    Committed,
    /// A job failed, and for want of savepoints all were undone.
    Undone,
    /// The device failed.
    Abandoned,
}

/// Runs every job in one transaction. Unless it answers [`Group::Committed`], nothing of the group was
/// stored. `begun` runs when nobody else can write any more.
fn transact<D: Database>(
    connection: &Connection,
    jobs: &mut [Box<dyn Job<D>>],
    begun: &mut dyn FnMut() -> Result<()>,
) -> Result<Group> {
    // A savepoint has SQLite keep a copy of each page that a job touches behind another one: for
    // nothing, unless a job fails.
    match attempt(connection, jobs, begun, false)? {
        Group::Undone => attempt(connection, jobs, begun, true),
        done => Ok(done),
    }
}

fn attempt<D: Database>(
    connection: &Connection,
    jobs: &mut [Box<dyn Job<D>>],
    begun: &mut dyn FnMut() -> Result<()>,
    savepoints: bool,
) -> Result<Group> {
    let transaction = Transaction::begin(connection)?;
    begun()?;
    for job in jobs {
        if savepoints {
            transaction.run("SAVEPOINT job")?;
        }
        match job.run(&D::write(connection)) {
            Verdict::Keep => {}
            Verdict::Undo if !savepoints => return Ok(Group::Undone),
            Verdict::Undo if connection.is_autocommit() => return Err(Error::Full),
            Verdict::Undo => transaction.run("ROLLBACK TO job")?,
            Verdict::Abandon => return Ok(Group::Abandoned),
        }
        if savepoints {
            transaction.run("RELEASE job")?;
        }
    }
    transaction.run("COMMIT")?;
    Ok(Group::Committed)
}

/// Undone when it is dropped without having been committed. That of `rusqlite` would have its
/// statements parsed anew each time.
struct Transaction<'c>(&'c Connection);

impl<'c> Transaction<'c> {
    fn begin(connection: &'c Connection) -> Result<Self> {
        let transaction = Self(connection);
        transaction.run("BEGIN IMMEDIATE")?;
        Ok(transaction)
    }

    fn run(&self, sql: &str) -> Result<()> {
        self.0.prepare_cached(sql)?.execute([])?;
        Ok(())
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // SQLite may have undone it by itself. Should this fail, the next one cannot begin, and says so.
        if !self.0.is_autocommit() {
            drop(self.run("ROLLBACK"));
        }
    }
}
