//! The only door to `mdns-sd`: announcing a server, and listening to those of others.
//!
//! Each use has a responder of its own, whose thread ends with it: what strangers make it remember
//! goes when the scan is over.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use mdns_sd::{
    IfKind, Receiver, ResolvedService, Result, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo,
};

use super::Settings;
use super::announcement::{Announcement, hex};

/// The service type. **Source**: RFC 6763 section 7.
const SERVICE: &str = "_mfpsync._tcp.local.";
/// How soon a changed address of an interface is announced.
const ADDRESS_CHECK_SECONDS: u32 = 15;
/// How long the goodbye may take when the server stops.
const GOODBYE: Duration = Duration::from_millis(500);

fn responder(settings: &Settings) -> Result<ServiceDaemon> {
    let responder = ServiceDaemon::new()?;
    responder.set_ip_check_interval(ADDRESS_CHECK_SECONDS)?;
    if settings.interfaces.is_empty() {
        responder.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
    } else {
        responder.disable_interface(IfKind::All)?;
        let chosen: Vec<IfKind> = settings.interfaces.iter().cloned().map(IfKind::Name).collect();
        responder.enable_interface(chosen)?;
    }
    Ok(responder)
}

/// Ends the responder's thread; it ends by itself when its queue is full at this moment, later.
fn end(responder: &ServiceDaemon) {
    if let Err(error) = responder.shutdown() {
        tracing::debug!(%error, "end multicast DNS");
    }
}

/// Something that was heard.
#[derive(Debug)]
pub(super) enum Heard {
    /// A server.
    Server {
        /// Tells servers apart.
        instance: String,
        /// What it says.
        announcement: Announcement,
        /// Where it says it is.
        addresses: Vec<SocketAddr>,
    },
    /// A server that ends.
    Goodbye {
        /// Which.
        instance: String,
    },
}

/// Listens until it is dropped.
pub(super) struct Scan {
    responder: ServiceDaemon,
    events: Receiver<ServiceEvent>,
}

impl Scan {
    pub(super) fn start(settings: &Settings) -> Result<Self> {
        let responder = responder(settings)?;
        let events = responder.browse(SERVICE).inspect_err(|_| end(&responder))?;
        Ok(Self { responder, events })
    }

    /// The next thing that makes sense; none when there will be no more.
    ///
    /// # Cancel safety
    /// Safe: an event is taken from the channel or it is not.
    pub(super) async fn next(&self) -> Option<Heard> {
        loop {
            match self.events.recv_async().await.ok()? {
                ServiceEvent::ServiceResolved(service) => {
                    if let Some(heard) = heard(&service) {
                        return Some(heard);
                    }
                }
                ServiceEvent::ServiceRemoved(_, instance) => return Some(Heard::Goodbye { instance }),
                _ => {}
            }
        }
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        end(&self.responder);
    }
}

fn heard(service: &ResolvedService) -> Option<Heard> {
    let announcement = Announcement::from_txt(|key| service.get_property_val(key).flatten())?;
    let addresses = service.addresses.iter().map(|ip| socket_address(ip, service.port)).collect();
    Some(Heard::Server { instance: service.fullname.clone(), announcement, addresses })
}

/// A link-local address is of use only with the interface it was heard on.
fn socket_address(ip: &ScopedIp, port: u16) -> SocketAddr {
    match ip {
        ScopedIp::V6(scoped) if scoped.addr().is_unicast_link_local() => {
            SocketAddrV6::new(*scoped.addr(), port, 0, scoped.scope_id().index).into()
        }
        other => SocketAddr::new(other.to_ip_addr(), port),
    }
}

/// Announces one server until it says goodbye.
pub(super) struct Announced {
    responder: ServiceDaemon,
    name: String,
}

impl Announced {
    /// Announces at `addresses`, or, when there are none, at all addresses of the interfaces, followed
    /// as they change.
    pub(super) fn start(
        settings: &Settings,
        announcement: &Announcement,
        addresses: &[IpAddr],
        port: u16,
    ) -> Result<Self> {
        let responder = responder(settings)?;
        let service = service(announcement, addresses, port).inspect_err(|_| end(&responder))?;
        let name = service.get_fullname().to_owned();
        responder.register(service).inspect_err(|_| end(&responder))?;
        Ok(Self { responder, name })
    }

    /// Says it anew, changed.
    pub(super) fn change(&self, announcement: &Announcement, addresses: &[IpAddr], port: u16) -> Result<()> {
        self.responder.register(service(announcement, addresses, port)?)
    }

    /// Tells listeners that the server ends.
    pub(super) async fn goodbye(self) {
        match self.responder.unregister(&self.name) {
            // Whoever did not hear it forgets the server in two minutes.
            Ok(said) => drop(tokio::time::timeout(GOODBYE, said.recv_async()).await),
            Err(error) => tracing::debug!(%error, "say goodbye"),
        }
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        end(&self.responder);
    }
}

/// Instance and host are named by the nonce: unique, so that nobody is renamed by a conflict, and of
/// no meaning. People see the names in the TXT record.
fn service(announcement: &Announcement, addresses: &[IpAddr], port: u16) -> Result<ServiceInfo> {
    let label = format!("mfpsync-{}", hex(announcement.nonce));
    let txt: HashMap<String, String> =
        announcement.to_txt().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let service = ServiceInfo::new(SERVICE, &label, &format!("{label}.local."), addresses, port, txt)?;
    Ok(if addresses.is_empty() { service.enable_addr_auto() } else { service })
}
