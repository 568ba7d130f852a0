//! Tasks that a part cannot do without: one that ends before it was told to takes the part with it.
//!
//! The server and the client part spawn theirs here; [`crate::parts`] waits for one to be lost.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks of one part, and whether all of them do what they are for; cheap to clone.
#[derive(Debug, Clone)]
pub struct Vital {
    tasks: TaskTracker,
    stop: CancellationToken,
    lost: watch::Sender<Option<&'static str>>,
}

/// Notes the end of a task, however it comes.
struct End {
    name: &'static str,
    vital: Vital,
}

impl Drop for End {
    fn drop(&mut self) {
        if !self.vital.stop.is_cancelled() {
            self.vital.lost.send_if_modified(|lost| lost.is_none() && lost.replace(self.name).is_none());
        }
    }
}

impl Vital {
    /// No task yet; they run on `tasks` until `stop`.
    #[must_use]
    pub fn new(tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        Self { tasks: tasks.clone(), stop: stop.clone(), lost: watch::Sender::new(None) }
    }

    /// Where the part's other tasks run.
    #[must_use]
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Tells the part's tasks to end.
    #[must_use]
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Spawns a task that is to run until the part is told to stop.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let end = End { name, vital: self.clone() };
        self.tasks.spawn(async move {
            let _end = end;
            task.await;
        });
    }

    /// Waits for the first task that ends, or panics, of itself, and names it; none when the part was told
    /// to stop.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn lost(&self) -> Option<&'static str> {
        let mut lost = self.lost.subscribe();
        tokio::select! {
            biased;
            name = lost.wait_for(Option::is_some) => name.ok().and_then(|name| *name),
            () = self.stop.cancelled() => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vital() -> Vital {
        Vital::new(&TaskTracker::new(), &CancellationToken::new())
    }

    #[tokio::test]
    async fn a_task_that_returns_or_panics_is_lost() {
        let vital_one = vital();
        vital_one.spawn("steady", std::future::pending());
        vital_one.spawn("returns", async {});
        assert_eq!(vital_one.lost().await, Some("returns"));
        let other = vital();
        other.spawn("panics", async { panic!("as a defect would") });
        assert_eq!(other.lost().await, Some("panics"));
    }

    #[tokio::test]
    async fn a_task_that_ends_when_told_to_is_not_lost() {
        let vital = vital();
        let stop = vital.stop().clone();
        vital.spawn("obeys", async move { stop.cancelled().await });
        vital.stop().cancel();
        vital.tasks().close();
        vital.tasks().wait().await;
        assert_eq!(vital.lost().await, None);
    }
}
