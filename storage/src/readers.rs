//! A few read-only connections, each lent to one closure at a time, with a deadline.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::error::{Error, Result};
use crate::open;
use crate::store::Database;

/// Connections of one database: one for a long scan, one that stays free for a person at the panel.
const READERS: usize = 2;
/// Reads waiting; beyond it new ones are answered [`Error::Busy`] at once.
const QUEUE: usize = 4096;
/// Virtual-machine steps between two looks at the clock: well under a millisecond.
const STEPS: i32 = 10_000;

type Job = Box<dyn FnOnce(Result<&mut Connection>) + Send>;

struct Shared {
    queue: Mutex<(VecDeque<Job>, bool)>,
    filled: Condvar,
}

pub(crate) struct Readers<D: Database> {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    database: std::marker::PhantomData<fn(D)>,
}

impl<D: Database> Readers<D> {
    pub(crate) fn start(path: &Path) -> Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::new((VecDeque::new(), true)), filled: Condvar::new() });
        let readers = Self { shared, threads: Mutex::new(Vec::new()), database: std::marker::PhantomData };
        for _ in 0..READERS {
            let mut connection = open::read_only(path)?;
            let shared = readers.shared.clone();
            let thread = std::thread::Builder::new()
                .name("db-reader".into())
                .stack_size(512 << 10)
                .spawn(move || serve(&mut connection, &shared))
                .map_err(|_| Error::Busy)?;
            readers.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(readers)
    }

    pub(crate) fn submit<T: Send + 'static>(
        &self,
        deadline: Duration,
        read: impl FnOnce(&D::Read<'_>) -> Result<T> + Send + 'static,
        done: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let until = Instant::now() + deadline;
        let job: Job = Box::new(move |connection| {
            done(connection.and_then(|connection| read_until::<D, T>(connection, until, read)));
        });
        let refused = {
            let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            match queue.1 {
                false => Some((job, Error::Closed)),
                true if queue.0.len() >= QUEUE => Some((job, Error::Busy)),
                true => {
                    queue.0.push_back(job);
                    None
                }
            }
        };
        match refused {
            Some((job, error)) => job(Err(error)),
            None => self.shared.filled.notify_one(),
        }
    }

    /// Refuses further reads, finishes those queued, and waits for the threads.
    pub(crate) fn stop(&self) {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).1 = false;
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

fn serve(connection: &mut Connection, shared: &Shared) {
    loop {
        let job = {
            let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                if let Some(job) = queue.0.pop_front() {
                    break job;
                }
                if !queue.1 {
                    return;
                }
                queue = shared.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        };
        job(Ok(connection));
    }
}

/// Reads one consistent state, interrupted at the deadline so that no reader holds the log back.
fn read_until<D: Database, T>(
    connection: &mut Connection,
    until: Instant,
    read: impl FnOnce(&D::Read<'_>) -> Result<T>,
) -> Result<T> {
    if Instant::now() >= until {
        return Err(Error::Deadline);
    }
    connection.progress_handler(STEPS, Some(move || Instant::now() >= until))?;
    let transaction = connection.unchecked_transaction()?;
    let result = read(&D::read(&transaction));
    drop(transaction);
    connection.progress_handler(0, None::<fn() -> bool>)?;
    result
}
