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
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mfpsync_replication::message::Claim;
use mfpsync_storage::master::Head;
use mfpsync_storage::model::{Parent, Promotion, PromotionReason, Sequence};
use mfpsync_storage::physical::Standby;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::app::Durable;
use crate::communication::{Code, CommunicationLog, Event};
use crate::db::READ_DEADLINE;
use crate::device::Device;
use crate::fault::{Fault, FaultBoard, FaultCode};
use crate::group;
use crate::replica::DIRECTORY;
use crate::role::{Part, Phase, Role, SupervisorHandle};

/// When to try again what could not be followed.
const AGAIN: Duration = Duration::from_secs(1);

/// A role that follows from what this device learned, not from an operator.
#[derive(Debug, Clone, PartialEq)]
struct Turn {
    role: Role,
    successor: Option<Box<Claim>>,
}

/// Ends this device's reign.
#[derive(Debug)]
pub struct Reign {
    control: Arc<Durable>,
    faults: FaultBoard,
    communication: CommunicationLog,
    /// Nothing may be acknowledged any more, whatever became of writing that down.
    ended: AtomicBool,
    /// The role from then on, and who reigns if that is why.
    turned: watch::Sender<Option<Turn>>,
}

impl Reign {
    /// Whatever reigns here, if anything, goes on.
    #[must_use]
    pub fn new(control: Arc<Durable>, faults: FaultBoard, communication: CommunicationLog) -> Self {
        Self {
            control,
            faults,
            communication,
            ended: AtomicBool::new(false),
            turned: watch::Sender::new(None),
        }
    }

    /// Has the role become what the control file says already.
    pub fn turn_to(&self, role: Role) {
        self.turned.send_replace(Some(Turn { role, successor: None }));
    }

    /// A reign of this device begins, or goes on after a start.
    pub fn begin(&self) {
        self.ended.store(false, Ordering::Release);
    }

    /// Whether a higher reign was proven to this device since it began to serve.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
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
        // I-14: before anything can fail.
        self.ended.store(true, Ordering::Release);
        let Promotion { epoch, device, .. } = successor.promotion.record;
        let role = self.control.write(move |file| file.seal(epoch)).await?;
        self.faults.set(Fault::now(FaultCode::Superseded));
        self.faults.clear(FaultCode::Forked);
        let turn = Turn { role, successor: Some(Box::new(successor.clone())) };
        if self.turned.send_replace(Some(turn)).is_none() {
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
    let (mut turned, mut states) = (device.reign.turned.subscribe(), supervisor.watch());
    let mut link = device.link.subscribe();
    loop {
        let turn = turned.borrow_and_update().clone();
        let mut again = false;
        if let Some(turn) = turn {
            match follow(&device, &supervisor, &turn).await {
                // Another may have come meanwhile.
                Ok(()) => {
                    let handled = |now: &mut Option<Turn>| now.take_if(|now| *now == turn).is_some();
                    device.reign.turned.send_if_modified(handled);
                }
                Err(error) => {
                    tracing::warn!(%error, role = %turn.role, "follow a change of reign");
                    again = true;
                }
            }
        }
        // Also what an earlier life of the process has left, after every change of the role, and once this device knows
        // what its successor began with.
        states.mark_unchanged();
        let followed = link.borrow().epoch;
        match left_behind(&device).await {
            Some(left) => device.faults.set(Fault::with_detail(FaultCode::Superseded, left)),
            None if states.borrow().phase() == Phase::Running => device.faults.clear(FaultCode::Superseded),
            None => {}
        }
        let changed = async {
            tokio::select! {
                changed = turned.changed() => changed.is_ok(),
                changed = states.changed() => changed.is_ok(),
                changed = link.wait_for(|link| link.epoch != followed) => changed.is_ok(),
                () = tokio::time::sleep(AGAIN), if again => true,
            }
        };
        if stop.run_until_cancelled(changed).await != Some(true) {
            return;
        }
    }
}

/// Notes who reigns, and has the role follow.
async fn follow(device: &Device, supervisor: &SupervisorHandle, turn: &Turn) -> Result<(), String> {
    if let Some(successor) = &turn.successor {
        device.adopt_claim(successor).await.map_err(|error| error.to_string())?;
    }
    supervisor.switch(turn.role).await.map(drop).map_err(|error| error.to_string())
}

/// What a reign that ended has left on this device.
#[derive(Debug, Clone)]
pub struct Left {
    /// Where it ended here.
    pub head: Head,
    /// What its successor had of it; none while this device has not heard, or where that began with another change
    /// of this number: the disk here was put back since.
    pub taken_over: Option<Sequence>,
    /// This device handed over, so that was all of it.
    pub handed_over: bool,
}

impl Left {
    /// By the record of the reign that followed, if it is known.
    fn of(head: Head, next: Option<&Promotion>) -> Self {
        let parent = next.and_then(|next| next.parent.as_ref());
        let same = |parent: &&Parent| parent.sequence != head.sequence || parent.chain == head.chain;
        let taken_over = parent.filter(same).map(|parent| parent.sequence);
        let handed_over = next.is_some_and(|next| next.reason == PromotionReason::Transferred);
        Self { head, taken_over, handed_over }
    }

    /// Whether the successor began right where it ended here. One that ended before that is of an earlier moment, or
    /// of another history: that shows only where both are at one change.
    fn is_handed_over_whole(&self) -> bool {
        self.handed_over && self.taken_over == Some(self.head.sequence)
    }

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
            Some(0) => write!(f, "; its successor had all of them"),
            Some(surplus) => write!(f, "; its successor had all but the last {surplus} of them"),
            None => Ok(()),
        }
    }
}

/// The master database of a reign that ended, if there is one; none while this device serves.
pub async fn left_behind(device: &Device) -> Option<Left> {
    let turn = device.master_at_rest.turn().await;
    // Whoever takes over moves the database away, and whoever is to serve writes it: they have noted that by now.
    let control = device.control.current();
    let serves = matches!(control.wanted, Role::Server | Role::ServerClient);
    if serves || device.server.load().is_some() || control.takeover.is_some() {
        return None;
    }
    let head = turn.run(group::head).await.ok()?.ok()??;
    drop(turn);
    let control = device.control.current();
    let ended = control.group == Some(head.group)
        && control.epoch.is_some_and(|epoch| epoch.number > head.epoch.number);
    if !ended || control.takeover.is_some() {
        return None;
    }
    let lineage = device.own.db().read(READ_DEADLINE, |read| read.lineage()).await.ok()?;
    let follows = |parent: &Parent| parent.epoch == head.epoch;
    let next = lineage.iter().find(|signed| signed.record.parent.as_ref().is_some_and(follows));
    Some(Left::of(head, next.map(|next| &next.record)))
}

/// Makes the master database of a reign that was handed over, and whose successor has all of it, what the replica's copy
/// here begins with.
///
/// # Errors
/// The storage's.
pub async fn reuse(device: &Device) -> mfpsync_storage::Result<()> {
    // I-11: whatever a copy has otherwise than its server is overwritten.
    if left_behind(device).await.is_none_or(|left| !left.is_handed_over_whole()) {
        return Ok(());
    }
    let copy = device.config.data_dir.join(DIRECTORY);
    let seeded = device.master_at_rest.turn().await.run(move |path| Standby::seed(&copy, path)).await;
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
    let aside = device.master_at_rest.turn().await.run(mfpsync_storage::retire).await??;
    device.faults.clear(FaultCode::Superseded);
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use mfpsync_storage::model::{Chain, DeviceId, Epoch, GroupId, PublicKey};

    use super::*;

    fn head(sequence: u64, chain: u8) -> Head {
        Head {
            group: GroupId([1; 16]),
            group_name: String::new(),
            root_key: PublicKey([0; 32]),
            epoch: Epoch { number: 1, nonce: [1; 16] },
            sequence: Sequence(sequence),
            chain: Chain([chain; 32]),
            tombstone_floor: Sequence::ZERO,
        }
    }

    fn successor(reason: PromotionReason) -> Promotion {
        let head = head(2, 2);
        Promotion {
            group: head.group,
            epoch: Epoch { number: 2, nonce: [2; 16] },
            parent: Some(Parent {
                epoch: head.epoch,
                sequence: head.sequence,
                chain: head.chain,
                transaction: 9,
                page_digest: [9; 16],
            }),
            ends: Vec::new(),
            device: DeviceId([2; 16]),
            operator: String::new(),
            reason,
            made_at: 0,
        }
    }

    /// I-11.
    #[test]
    fn i_11_only_a_database_that_was_handed_over_as_it_is_becomes_the_copy() {
        use PromotionReason::{Promoted, Transferred};
        let cases = [
            (head(2, 2), Transferred, true, Some(0)),
            (head(2, 2), Promoted, false, Some(0)),
            // It went on, and was sealed then.
            (head(3, 3), Transferred, false, Some(1)),
            // Its disk was put back, and it went on from there.
            (head(2, 7), Transferred, false, None),
            (head(1, 7), Transferred, false, Some(0)),
        ];
        for (head, reason, whole, surplus) in cases {
            let left = Left::of(head.clone(), Some(&successor(reason)));
            assert_eq!(
                (left.is_handed_over_whole(), left.surplus()),
                (whole, surplus),
                "{head:?} {reason:?}"
            );
        }
        assert!(!Left::of(head(2, 2), None).is_handed_over_whole());
    }
}
