//! The tasks of one owner: named, tracked, told to stop by a token, and aborted when they do not.
//!
//! Every task of the daemon is spawned through here; none is detached.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// After this long a stop that is still under way names whoever is still running.
const NAME_AFTER: Duration = Duration::from_secs(1);

/// A group of tasks with one owner; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
    running: Arc<Running>,
}

#[derive(Debug, Default)]
struct Running {
    next: AtomicU64,
    names: Mutex<BTreeMap<u64, (&'static str, Option<AbortHandle>)>>,
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, (&'static str, Option<AbortHandle>)>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a task off the list when it ends in whichever way.
struct Listed(Arc<Running>, u64);

impl Drop for Listed {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

impl Tasks {
    /// A group whose tasks are told to stop when `parent` is cancelled.
    #[must_use]
    pub fn under(parent: &CancellationToken) -> Self {
        Self { token: parent.child_token(), ..Self::default() }
    }

    /// The token that tells these tasks to stop.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Spawns a task; it is to end soon after [`Tasks::token`] is cancelled.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let id = self.running.next.fetch_add(1, Ordering::Relaxed);
        self.running.lock().insert(id, (name, None));
        let listed = Listed(Arc::clone(&self.running), id);
        let handle = self.tracker.spawn(
            async move {
                let _listed = listed;
                task.await;
            }
            .instrument(tracing::info_span!("task", name)),
        );
        if let Some(entry) = self.running.lock().get_mut(&id) {
            entry.1 = Some(handle.abort_handle());
        }
    }

    /// How many tasks have not ended.
    #[must_use]
    pub fn count(&self) -> usize {
        self.running.lock().len()
    }

    /// Tells the tasks to stop and waits; whoever still runs after `drain` is aborted. Returns the
    /// names of those.
    ///
    /// # Cancel safety
    /// The tasks stay told to stop; calling again goes on waiting.
    pub async fn stop(&self, drain: Duration) -> Vec<&'static str> {
        self.token.cancel();
        self.tracker.close();
        let warn_after = NAME_AFTER.min(drain);
        if timeout(warn_after, self.tracker.wait()).await.is_ok() {
            return Vec::new();
        }
        tracing::warn!(tasks = ?self.names(), "still stopping");
        if timeout(drain - warn_after, self.tracker.wait()).await.is_ok() {
            return Vec::new();
        }
        let late = self.names();
        tracing::error!(tasks = ?late, "aborted, did not stop in time");
        for (_, abort) in self.running.lock().values() {
            if let Some(abort) = abort {
                abort.abort();
            }
        }
        late
    }

    fn names(&self) -> Vec<&'static str> {
        self.running.lock().values().map(|(name, _)| *name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_the_willing_and_aborts_the_others_by_name() {
        let tasks = Tasks::default();
        let token = tasks.token().clone();
        tasks.spawn("willing", async move { token.cancelled().await });
        tasks.spawn("stuck", std::future::pending());
        assert_eq!(tasks.count(), 2);
        assert_eq!(tasks.stop(Duration::from_secs(5)).await, ["stuck"]);
        tasks.tracker.wait().await;
        assert_eq!(tasks.count(), 0);
    }

    #[tokio::test]
    async fn a_parent_that_is_cancelled_stops_its_children() {
        let parent = CancellationToken::new();
        let tasks = Tasks::under(&parent);
        let token = tasks.token().clone();
        tasks.spawn("child", async move { token.cancelled().await });
        parent.cancel();
        assert_eq!(tasks.stop(Duration::from_secs(5)).await, Vec::<&str>::new());
    }
}
