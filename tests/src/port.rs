//! TCP ports that no other test takes, in this process or in another.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};

use anyhow::{Context, Result};

/// Below the ports the system gives to outgoing connections.
const RANGE: std::ops::Range<u16> = 20_000..32_000;
const TRIES: u64 = 1_000;

/// A reserved port of one of this machine's loopback addresses; freed when dropped.
#[derive(Debug)]
pub struct Port {
    host: Ipv4Addr,
    number: u16,
    /// An abstract socket name that only one process can hold.
    _reservation: UnixListener,
}

impl Port {
    /// Reserves a port that nobody listens on.
    ///
    /// # Errors
    /// None is free.
    pub fn reserve() -> Result<Self> {
        Self::reserve_at(Ipv4Addr::LOCALHOST)
    }

    /// [`Port::reserve`] at another loopback address, such as 127.0.0.2.
    ///
    /// # Errors
    /// None is free.
    pub fn reserve_at(host: Ipv4Addr) -> Result<Self> {
        let ports = u64::from(RANGE.end - RANGE.start);
        // Begins anywhere, so that tests running side by side do not all ask for the same ones.
        let begin = RandomState::new().hash_one(std::process::id()) % ports;
        let mut numbers = (begin..begin + TRIES).map(|at| RANGE.start + (at % ports) as u16);
        numbers.find_map(|number| Self::try_reserve(host, number)).context("no free port found")
    }

    fn try_reserve(host: Ipv4Addr, number: u16) -> Option<Self> {
        let name = UnixAddr::from_abstract_name(format!("mfpsync-test-port-{number}")).ok()?;
        let reservation = UnixListener::bind_addr(&name).ok()?;
        TcpListener::bind((host, number)).ok()?;
        Some(Self { host, number, _reservation: reservation })
    }

    /// The address to listen on or to dial.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (self.host, self.number).into()
    }
}
