//! Which device reigns: ending this one's reign when a higher one is proven, and taking over from a lost
//! server.
//!
//! A reign ends by one durable write, the epoch of its successor in the control file, before anything else
//! is answered; the role follows. It begins by one as well ([`takeover`]). I-13, I-14.

pub mod others;
pub mod promotion;
pub mod signpost;
pub mod takeover;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use mfpsync_replication::message::Claim;
use mfpsync_storage::master::Head;
use mfpsync_storage::model::{Promotion, Sequence};
use mfpsync_storage::physical::Standby;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::app::Durable;
use crate::communication::{Code, CommunicationLog, Event};
use crate::db::READ_DEADLINE;
use crate::device::Device;
use crate::fault::{Fault, FaultBoard, FaultCode};
use crate::group::{self, MASTER_FILE};
use crate::replica::DIRECTORY;
use crate::role::{Part, Phase, Role, SupervisorHandle};

/// Ends this device's reign.
#[derive(Debug)]
pub struct Reign {
    control: Arc<Durable>,
    faults: FaultBoard,
    communication: CommunicationLog,
    /// The role from then on, and who reigns.
    sealed: watch::Sender<Option<(Role, Claim)>>,
}

impl Reign {
    /// Whatever reigns here, if anything, goes on.
    #[must_use]
    pub fn new(control: Arc<Durable>, faults: FaultBoard, communication: CommunicationLog) -> Self {
        Self { control, faults, communication, sealed: watch::Sender::new(None) }
    }

    /// Whether this device goes on as a client when its reign ends.
    #[must_use]
    pub fn goes_on_as_client(&self) -> bool {
        self.control.current().wanted.parts().contains(Part::Client)
    }

    /// Ends the reign of this device by the verified claim of its successor. On return that is durable, and
    /// nothing more may be acknowledged.
    ///
    /// # Errors
    /// The control file cannot be written, or has seen another epoch of this number.
    ///
    /// # Cancel safety
    /// It may be sealed although the future was dropped; sealing again is harmless.
    pub async fn seal(&self, successor: &Claim) -> Result<(), Fault> {
        let Promotion { epoch, device, .. } = successor.promotion.record;
        let role = self.control.write(move |file| file.seal(epoch)).await?;
        self.faults.set(Fault::now(FaultCode::Superseded));
        if self.sealed.send_replace(Some((role, successor.clone()))).is_none() {
            tracing::warn!(epoch = epoch.number, %device, "another device reigns");
            self.communication.record(Event::new(Code::Superseded).peer(device));
        }
        Ok(())
    }
}

/// Has the supervisor follow what was sealed, and shows at the start what an earlier life has left.
///
/// # Cancel safety
/// Safe.
pub async fn obey(device: Arc<Device>, supervisor: SupervisorHandle, stop: CancellationToken) {
    let (mut sealed, mut states) = (device.reign.sealed.subscribe(), supervisor.watch());
    loop {
        let ended = sealed.borrow_and_update().clone();
        if let Some((role, successor)) = ended {
            if let Err(error) = device.adopt_claim(&successor).await {
                tracing::warn!(%error, "note who reigns");
            }
            match supervisor.switch(role).await {
                Ok(_) => drop(device.reign.sealed.send_if_modified(|sealed| sealed.take().is_some())),
                Err(error) => tracing::warn!(%error, %role, "follow the end of this reign"),
            }
        }
        // Also what an earlier life of the process has left, and after every change of the role.
        states.mark_unchanged();
        match left_behind(&device).await {
            Some(left) => device.faults.set(Fault::with_detail(FaultCode::Superseded, left)),
            None if states.borrow().phase() == Phase::Running => device.faults.clear(FaultCode::Superseded),
            None => {}
        }
        let changed = async {
            tokio::select! {
                changed = sealed.changed() => changed.is_ok(),
                changed = states.changed() => changed.is_ok(),
            }
        };
        if stop.run_until_cancelled(changed).await != Some(true) {
            return;
        }
    }
}

/// What a reign that ended has left on this device.
#[derive(Debug, Clone)]
pub struct Left {
    /// Where it ended here.
    pub head: Head,
    /// What its successor had of it; none while this device has not heard.
    pub taken_over: Option<Sequence>,
}

impl Left {
    /// Changes that only this device's master database has.
    #[must_use]
    pub fn surplus(&self) -> Option<u64> {
        self.taken_over.map(|fork| self.head.sequence.0.saturating_sub(fork.0))
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "its reign, number {}, ended here with change {}",
            self.head.epoch.number, self.head.sequence.0
        )?;
        match self.surplus() {
            Some(surplus) => write!(f, "; its successor had all but the last {surplus} of them"),
            None => Ok(()),
        }
    }
}

/// The master database of a reign that ended, if there is one; none while this device serves.
pub async fn left_behind(device: &Device) -> Option<Left> {
    if device.server.load().is_some() {
        return None;
    }
    let path = device.config.data_dir.join(MASTER_FILE);
    let head = tokio::task::spawn_blocking(move || group::head(&path)).await.ok()?.ok()??;
    let control = device.control.current();
    let ended = control.group == Some(head.group)
        && control.epoch.is_some_and(|epoch| epoch.number > head.epoch.number);
    if !ended || control.takeover.is_some() {
        return None;
    }
    let lineage = device.own.db().read(READ_DEADLINE, |read| read.lineage()).await.ok()?;
    let ends = lineage.iter().filter_map(|signed| signed.record.parent.as_ref());
    let taken_over = ends.into_iter().find(|parent| parent.epoch == head.epoch).map(|parent| parent.sequence);
    Some(Left { head, taken_over })
}

/// Makes the master database of a reign that ended, and whose successor has all of it, what the replica's copy
/// here begins with.
///
/// # Errors
/// The storage's.
pub async fn reuse(device: &Device) -> mfpsync_storage::Result<()> {
    if left_behind(device).await.is_none_or(|left| left.surplus() != Some(0)) {
        return Ok(());
    }
    let (copy, path) = (device.config.data_dir.join(DIRECTORY), device.config.data_dir.join(MASTER_FILE));
    let seeded = tokio::task::spawn_blocking(move || Standby::seed(&copy, &path)).await;
    if seeded.unwrap_or(Err(mfpsync_storage::Error::Closed))? {
        tracing::info!("the database of before became the copy");
    }
    Ok(())
}

/// Moves the master database of a reign that ended aside and returns its new name; it is deleted by nobody.
///
/// # Errors
/// The storage's.
pub async fn retire(device: &Device) -> std::io::Result<PathBuf> {
    let path = device.config.data_dir.join(MASTER_FILE);
    let aside = tokio::task::spawn_blocking(move || mfpsync_storage::retire(&path)).await??;
    device.faults.clear(FaultCode::Superseded);
    Ok(aside)
}
