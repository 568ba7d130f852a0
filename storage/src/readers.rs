//! Two read-only connections, each lent to one closure at a time, with a deadline. One of them is for
//! short reads alone.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::error::{Error, Result};
use crate::open;
use crate::store::Database;

/// The longest deadline of a short read; one that may take longer is a scan. I-30: scans, however many
/// there are, share one connection, and the other stays free for those that somebody waits for.
pub const SHORT_READ: Duration = Duration::from_secs(2);
/// Reads of either length that wait; beyond it new ones are answered [`Error::Busy`] at once.
const QUEUE: usize = 4096;
/// Virtual-machine steps between two looks at the clock: well under a millisecond.
const STEPS: i32 = 10_000;

type Job = Box<dyn FnOnce(Result<&mut Connection>) + Send>;

/// What a connection is lent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Duty {
    /// Short reads alone.
    Short,
    /// Scans, and short reads while there is none.
    Any,
}

struct Waiting {
    short: VecDeque<Job>,
    scans: VecDeque<Job>,
    open: bool,
}

impl Waiting {
    fn next(&mut self, duty: Duty) -> Option<Job> {
        let scan = if duty == Duty::Any { self.scans.pop_front() } else { None };
        scan.or_else(|| self.short.pop_front())
    }
}

struct Shared {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    /// Nobody waits for scans any more.
    closing: AtomicBool,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Readers<D: Database> {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    database: std::marker::PhantomData<fn(D)>,
}

impl<D: Database> Readers<D> {
    pub(crate) fn start(path: &Path) -> Result<Self> {
        let waiting = Waiting { short: VecDeque::new(), scans: VecDeque::new(), open: true };
        let (filled, closing) = Default::default();
        let shared = Arc::new(Shared { waiting: Mutex::new(waiting), filled, closing });
        let readers = Self { shared, threads: Mutex::new(Vec::new()), database: std::marker::PhantomData };
        for duty in [Duty::Short, Duty::Any] {
            let mut connection = open::read_only(path)?;
            let shared = readers.shared.clone();
            let thread = std::thread::Builder::new()
                .name("db-reader".into())
                .stack_size(512 << 10)
                .spawn(move || serve(&mut connection, &shared, duty))
                .map_err(|_| Error::Busy)?;
            readers.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(readers)
    }

    /// Queues a read, which is given up at its deadline, or earlier if `stop` says so; a scan also when the
    /// database is closed.
    pub(crate) fn submit<T: Send + 'static>(
        &self,
        deadline: Duration,
        stop: impl Fn() -> bool + Send + 'static,
        read: impl FnOnce(&D::Read<'_>) -> Result<T> + Send + 'static,
        done: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let (until, shared) = (Instant::now() + deadline, self.shared.clone());
        let closing = move || deadline > SHORT_READ && shared.closing.load(Ordering::Relaxed);
        let over = move || Instant::now() >= until || stop() || closing();
        let job: Job = Box::new(move |connection| {
            done(connection.and_then(|connection| read_until::<D, T>(connection, over, read)));
        });
        let refused = {
            let mut waiting = self.shared.waiting();
            let open = waiting.open;
            let queue = if deadline <= SHORT_READ { &mut waiting.short } else { &mut waiting.scans };
            match open {
                false => Some((job, Error::Closed)),
                true if queue.len() >= QUEUE => Some((job, Error::Busy)),
                true => {
                    queue.push_back(job);
                    None
                }
            }
        };
        match refused {
            Some((job, error)) => job(Err(error)),
            // Both: one of them may not take what came.
            None => self.shared.filled.notify_all(),
        }
    }

    /// Refuses further reads, gives up scans, finishes the others queued, and waits for the threads.
    pub(crate) fn stop(&self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        self.shared.waiting().open = false;
        self.shared.filled.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("reader thread panicked");
            }
        }
    }
}

impl<D: Database> Drop for Readers<D> {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve(connection: &mut Connection, shared: &Shared, duty: Duty) {
    loop {
        let job = {
            let mut waiting = shared.waiting();
            loop {
                if let Some(job) = waiting.next(duty) {
                    break job;
                }
                if !waiting.open {
                    return;
                }
                waiting = shared.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
        };
        job(Ok(connection));
    }
}

/// Reads one consistent state, interrupted when it is over so that no reader holds the log back.
fn read_until<D: Database, T>(
    connection: &mut Connection,
    over: impl Fn() -> bool + Send + 'static,
    read: impl FnOnce(&D::Read<'_>) -> Result<T>,
) -> Result<T> {
    if over() {
        return Err(Error::Deadline);
    }
    connection.progress_handler(STEPS, Some(over))?;
    let transaction = connection.unchecked_transaction()?;
    let result = read(&D::read(&transaction));
    drop(transaction);
    connection.progress_handler(0, None::<fn() -> bool>)?;
    result
}
