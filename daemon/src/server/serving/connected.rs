//! Who follows, and up to where.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mfpsync_storage::model::{DeviceId, Sequence};
use tokio::sync::watch;
use tokio::time::Instant;

/// Which devices follow, and how far they are.
#[derive(Debug, Default)]
pub struct Connected(Mutex<HashMap<DeviceId, Followed>>);

#[derive(Debug)]
struct Followed {
    position: watch::Receiver<Sequence>,
    heard: Instant,
}

/// What is known of a device that follows, or did.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// It follows now.
    pub connected: bool,
    /// Up to where changes were handed to its connection.
    pub position: Sequence,
    /// Since its stream began, or since it was last looked at while connected.
    pub heard: Duration,
}

impl Connected {
    /// A new stream of a device; it has ended when the sender is dropped.
    pub fn follow(&self, device: DeviceId) -> watch::Sender<Sequence> {
        let position = watch::Sender::new(Sequence::ZERO);
        let followed = Followed { position: position.subscribe(), heard: Instant::now() };
        self.lock().insert(device, followed);
        position
    }

    /// What is known of a device; none if it has not followed since the server started.
    #[must_use]
    pub fn seen(&self, device: DeviceId) -> Option<Seen> {
        let mut devices = self.lock();
        let followed = devices.get_mut(&device)?;
        let connected = followed.position.has_changed().is_ok();
        if connected {
            followed.heard = Instant::now();
        }
        let position = *followed.position.borrow();
        Some(Seen { connected, position, heard: followed.heard.elapsed() })
    }

    /// How many devices follow now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().values().filter(|followed| followed.position.has_changed().is_ok()).count()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<DeviceId, Followed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
