//! Speaks for a running server: announces it, follows its pairing window, and keeps the addresses in
//! its membership row true while interfaces and settings change.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::Settings;
use super::announcement::{Announcement, TAG_BYTES};
use super::network::Announced;
use crate::device::Device;
use crate::enroll::PairingDesk;
use crate::pairing::State;
use crate::server::serving::Serving;

/// How soon a pairing window that opened or closed is announced.
const LOOK: Duration = Duration::from_secs(1);
/// Looks between two readings of the interfaces' addresses: leases change seldom.
const LOOKS_PER_READING: u32 = 15;

/// What it speaks for.
pub(crate) struct Announcer {
    /// The device, for its settings.
    pub(crate) device: Arc<Device>,
    /// The group, and who signs the addresses.
    pub(crate) serving: Arc<Serving>,
    /// Whether pairing is open.
    pub(crate) desk: Arc<PairingDesk>,
    /// Where the server listens.
    pub(crate) listening: Vec<SocketAddr>,
}

impl Announcer {
    /// Runs until the server stops.
    pub(crate) async fn run(self) {
        let stop = self.serving.stop.clone();
        let (announced, mut said) = match self.announce() {
            Some((announced, said)) => (Some(announced), Some(said)),
            None => (None, None),
        };
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 0_u32;
        let mut settings = self.device.settings.watch();
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                Ok(()) = settings.changed() => {
                    self.sign_addresses().await;
                    continue;
                }
                () = stop.cancelled() => break,
            }
            if let (Some(announced), Some(said)) = (&announced, &mut said) {
                self.follow_pairing(announced, said);
            }
            number = number.wrapping_add(1);
            if number.is_multiple_of(LOOKS_PER_READING) {
                self.sign_addresses().await;
            }
        }
        if let Some(announced) = announced {
            announced.goodbye().await;
        }
    }

    fn settings(&self) -> &Settings {
        &self.device.config.discovery
    }

    fn announce(&self) -> Option<(Announced, Announcement)> {
        if !self.settings().enabled {
            return None;
        }
        let (addresses, port) = place(&self.listening)?;
        let mut nonce = [0; TAG_BYTES];
        self.device.random.fill(&mut nonce).ok()?;
        let head = self.serving.head();
        let said = Announcement::new(&self.device.config.name, &head.group_name, head.group, nonce);
        match Announced::start(self.settings(), &said, &addresses, port) {
            Ok(announced) => Some((announced, said)),
            Err(error) => {
                tracing::warn!(%error, "announce the server; others need its address");
                None
            }
        }
    }

    fn follow_pairing(&self, announced: &Announced, said: &mut Announcement) {
        let open = matches!(self.desk.state(), State::Open { .. });
        if said.pairing_open == open {
            return;
        }
        let Some((addresses, port)) = place(&self.listening) else { return };
        let changed = Announcement { pairing_open: open, ..said.clone() };
        match announced.change(&changed, &addresses, port) {
            Ok(()) => *said = changed,
            // Said again at the next look.
            Err(error) => tracing::debug!(%error, "announce the pairing window"),
        }
    }

    /// Members learn changed addresses from the server's own signed row. Nothing is written when they
    /// are what they were.
    async fn sign_addresses(&self) {
        let endpoints = self.device.endpoints(&self.listening);
        if let Err(status) = self.serving.advertise(endpoints).await {
            tracing::warn!(error = status.message(), "store changed addresses of this server");
        }
    }
}

/// What is announced of the places listened at: all addresses (none named) or certain ones, and the
/// port; nothing when only this machine can reach them.
fn place(listening: &[SocketAddr]) -> Option<(Vec<IpAddr>, u16)> {
    if let Some(everywhere) = listening.iter().find(|address| address.ip().is_unspecified()) {
        return Some((Vec::new(), everywhere.port()));
    }
    let first = listening.iter().find(|address| !address.ip().is_loopback())?;
    let same_port = listening.iter().filter(|other| other.port() == first.port());
    let addresses = same_port.map(SocketAddr::ip).filter(|ip| !ip.is_loopback()).collect();
    Some((addresses, first.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_follows_from_what_is_listened_at() {
        let placed = |texts: &[&str]| {
            let listening: Vec<SocketAddr> = texts.iter().map(|text| text.parse().unwrap()).collect();
            place(&listening)
        };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(placed(&["127.0.0.1:5", "[::]:7"]), Some((Vec::new(), 7)));
        assert_eq!(
            placed(&["127.0.0.1:5", "192.0.2.1:6", "[2001:db8::1]:6", "192.0.2.2:9"]),
            Some((vec![ip("192.0.2.1"), ip("2001:db8::1")], 6))
        );
        assert_eq!(placed(&["127.0.0.1:5", "[::1]:5"]), None);
    }
}
