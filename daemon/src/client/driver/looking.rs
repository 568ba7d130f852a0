//! Looking around for a server that is at none of its addresses, and following what was heard.
//!
//! When and how much is decided in [`super::super::seek`]; whom a hint led to, by TLS.

use std::time::Duration;

use mfpsync_replication::round::{Event, Failure, LinkState};

use super::{Driver, Servers};
use crate::client::Link;

/// How long a client that has lost its server listens to the network.
const LISTEN: Duration = Duration::from_secs(3);

impl Driver {
    /// A client that found its server at none of its addresses asks the network where it may be.
    pub(super) async fn look_around(&mut self, state: &LinkState) {
        match state {
            LinkState::Offline { .. } | LinkState::Refused { .. } => {}
            LinkState::Following { .. } => {
                self.heard = false;
                return self.seek.arrived();
            }
            LinkState::Connecting { .. } | LinkState::Ended(_) => return,
        }
        if self.seek.swept() {
            self.renew_endpoints().await;
        }
        if std::mem::take(&mut self.heard) {
            self.follow_hints().await;
        }
        if !self.device.discovery.is_enabled() || !self.seek.is_due(self.began.elapsed()) {
            return;
        }
        let (device, looked, stop) = (self.device.clone(), self.looked.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                scanned = device.discovery.scan(LISTEN) => if let Err(error) = scanned {
                    tracing::info!(%error, "look for the server");
                },
                () = stop.cancelled() => return,
            }
            // A full queue says the same already.
            let _ = looked.try_send(());
        });
    }

    /// A sweep under way ends first: hints are for a whole one.
    pub(super) async fn looked(&mut self) {
        let link = self.device.link.borrow().link;
        match link {
            Link::Waiting | Link::Refused => self.follow_hints().await,
            Link::Connecting => self.heard = true,
            // The server is there: nothing is sought any more.
            Link::CatchingUp | Link::Current => {}
        }
    }

    /// Hints come after what the membership says.
    async fn follow_hints(&mut self) {
        let servers = match Servers::of(&self.device).await {
            Ok(servers) if servers.may_be_sought() => servers,
            Ok(_) => return,
            Err(error) => return tracing::warn!(%error, "read where the servers are"),
        };
        let mut endpoints = servers.endpoints();
        let found = self.device.discovery.of_group(self.group);
        let found = found.iter().map(ToString::to_string).collect();
        let hints = self.seek.follow(self.began.elapsed(), &endpoints, found);
        if !hints.is_empty() {
            tracing::info!(hints = hints.len(), "the network says where the server may be");
            endpoints.extend_from_slice(hints);
            self.step(Event::Endpoints(endpoints));
        }
    }
}

/// Somebody else behind a hint is as good as nobody: a hint is anybody's word, and no trouble for a
/// person. A refusal comes from the proven server and stays what it is.
pub(super) fn misled(failure: Failure) -> Failure {
    match failure {
        Failure::Impostor | Failure::Malformed | Failure::Transport => Failure::Transport,
        Failure::Refused { .. } => failure,
    }
}
