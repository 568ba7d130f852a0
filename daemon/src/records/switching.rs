//! Carrying on a switch of sharing that was begun, step by step, also after the server started again.
//!
//! A task of the server part. Each step is a transaction of its own, and waits behind the pushes that came
//! meanwhile. How far it is, [`Switches`] tells.

use std::sync::Arc;
use std::time::Duration;

use mfpsync_replication::sharing::{STEP, Step, step};
use mfpsync_storage::master::MasterWrite;
use tokio::sync::{Notify, watch};

use super::place;
use crate::communication::{Code, CommunicationLog, Event};
use crate::device::Device;
use crate::server::serving::Serving;

/// Before a step that failed is tried again: storage that is full or away takes a person.
const PAUSE: Duration = Duration::from_secs(5);

/// How far the latest switch is, as long as the server runs.
#[derive(Debug, Default)]
pub struct Switches {
    begun: Notify,
    latest: watch::Sender<Option<Arc<Step>>>,
}

impl Switches {
    /// The latest step of the latest switch; none before there was one.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Arc<Step>>> {
        self.latest.subscribe()
    }

    /// A switch may have been begun: it is carried on.
    pub(super) fn carry_on(&self) {
        self.begun.notify_one();
    }

    /// Tells those who watch. Whoever began a switch may come behind what carried it on.
    pub(super) fn stepped(&self, step: Step, communication: &CommunicationLog) {
        if step.ended {
            communication.record(Event::new(Code::SharingSwitched));
        }
        self.latest.send_if_modified(|latest| {
            let place = |step: &Step| (step.switching.began, step.ended, step.switching.tally.items);
            let newer = latest.as_ref().is_none_or(|latest| place(latest) < place(&step));
            if newer {
                *latest = Some(Arc::new(step));
            }
            newer
        });
    }
}

/// Carries on what is under way, until the server stops.
///
/// # Cancel safety
/// Dropping the future leaves the rest to the next start.
pub(crate) async fn run(device: Arc<Device>, serving: Arc<Serving>) {
    let always = async {
        loop {
            match carry_on(&device, &serving).await {
                Ok(true) => {}
                Ok(false) => serving.switches.begun.notified().await,
                // Shown as the storage's fault already, where it is one.
                Err(_shown) => tokio::time::sleep(PAUSE).await,
            }
        }
    };
    tokio::select! {
        () = always => {}
        () = serving.stop.cancelled() => {}
    }
}

/// One step; false when nothing is under way.
async fn carry_on(device: &Device, serving: &Serving) -> Result<bool, tonic::Status> {
    let operator = place::operator(device, String::new())?;
    let write = move |write: &MasterWrite<'_>| step(write, &operator, STEP);
    let stepped = serving.change(write).await?;
    let goes_on = stepped.is_some();
    stepped.into_iter().for_each(|step| serving.switches.stepped(step, &serving.communication));
    Ok(goes_on)
}
