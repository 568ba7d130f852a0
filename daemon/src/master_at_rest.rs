//! The master database while no server has it: whoever looks at it, moves it or begins a reign over it is alone with it.
//!
//! A second look would leave files of its own beside it, fold its log, or keep the other out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinError;

/// Where it is, and whose turn it is.
#[derive(Debug)]
pub struct MasterAtRest {
    path: Arc<PathBuf>,
    turn: Arc<Mutex<()>>,
}

impl MasterAtRest {
    /// That at `path`.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path: Arc::new(path), turn: Arc::default() }
    }

    /// Where it is, also while a server has it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until nobody else uses it.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn turn(&self) -> Turn {
        Turn { path: self.path.clone(), turn: Arc::new(self.turn.clone().lock_owned().await) }
    }
}

/// The right to use it.
#[derive(Debug)]
pub struct Turn {
    path: Arc<PathBuf>,
    turn: Arc<OwnedMutexGuard<()>>,
}

impl Turn {
    /// Runs `work` with its path on a thread that may block.
    ///
    /// # Errors
    /// It panicked.
    ///
    /// # Cancel safety
    /// It goes on to its end, and keeps the turn until then.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let (path, turn) = (self.path.clone(), self.turn.clone());
        tokio::task::spawn_blocking(move || {
            let done = work(&path);
            drop(turn);
            done
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn work_that_nobody_waits_for_keeps_its_turn() {
        let master = MasterAtRest::new("master.db".into());
        let (end, ended) = mpsc::channel::<()>();
        let turn = master.turn().await;
        let work = tokio::spawn(async move { turn.run(move |_| ended.recv()).await });
        tokio::task::yield_now().await;
        work.abort();
        let waits = tokio::time::timeout(Duration::from_millis(50), master.turn()).await;
        assert!(waits.is_err());
        end.send(()).unwrap();
        let path = master.turn().await.run(Path::to_owned).await.unwrap();
        assert_eq!(path, Path::new("master.db"));
    }
}
