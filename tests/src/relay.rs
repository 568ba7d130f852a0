//! A cable that can be cut, mended, made slow and made silent: a TCP relay in front of a server. After so many
//! bytes it can also cut itself, go silent or turn a bit over, once.
//!
//! Its address stays the same throughout. Understands nothing of what passes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

#[derive(Debug, Clone, Copy)]
struct State {
    target: SocketAddr,
    whole: bool,
    /// How often it was cut: one that was mended at once was cut all the same.
    cuts: u32,
    silent: bool,
    delay: Duration,
    /// Bytes in a second.
    rate: Option<u32>,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the server.
    There,
    /// From the server.
    Back,
}

/// What happens to the connection that a byte is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// It is reset, that byte and what follows lost.
    Reset,
    /// That byte and what follows this way never arrive, and nothing ends.
    Stall,
    /// One bit of that byte is turned over.
    Flip,
}

/// A mishap to come.
#[derive(Debug, Clone, Copy)]
struct Planned {
    way: Way,
    left: u64,
    mishap: Mishap,
}

#[derive(Debug, Clone, Default)]
struct Plan(Arc<Mutex<Option<Planned>>>);

impl Plan {
    /// Whether a mishap falls among the next `count` bytes, and upon which.
    fn pass(&self, way: Way, count: usize) -> Option<(usize, Mishap)> {
        let mut plan = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let planned = plan.as_mut().filter(|planned| planned.way == way)?;
        if let Some(left) = planned.left.checked_sub(count as u64) {
            planned.left = left;
            return None;
        }
        plan.take().map(|planned| (planned.left as usize, planned.mishap))
    }
}

/// The most that is kept of what went to the server.
const KEPT: usize = 64 << 10;

/// What went by.
#[derive(Debug, Default)]
struct Traffic {
    passed: AtomicU64,
    there: Mutex<Vec<u8>>,
}

impl Traffic {
    fn pass(&self, way: Way, bytes: &[u8]) {
        self.passed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if way == Way::There {
            let mut there = self.there.lock().unwrap_or_else(PoisonError::into_inner);
            let room = KEPT.saturating_sub(there.len()).min(bytes.len());
            there.extend(&bytes[..room]);
        }
    }
}

/// A running relay; dropping it cuts for good.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    state: watch::Sender<State>,
    plan: Plan,
    traffic: Arc<Traffic>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Listens on a free port and passes on to `target`.
    ///
    /// # Errors
    /// No port can be had.
    pub async fn open(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("open a relay")?;
        let address = listener.local_addr().context("open a relay")?;
        let state = State { target, whole: true, cuts: 0, silent: false, delay: Duration::ZERO, rate: None };
        let ((state, seen), plan, traffic) = (watch::channel(state), Plan::default(), Arc::default());
        let task = tokio::spawn(pass_on(listener, seen, plan.clone(), Arc::clone(&traffic)));
        Ok(Self { address, state, plan, traffic, task })
    }

    /// Where to dial instead of the target.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads to another target, as an address that was given to somebody else; for connections made from now on.
    pub fn lead_to(&self, target: SocketAddr) {
        self.state.send_modify(|state| state.target = target);
    }

    /// Ends every connection and lets no new one through.
    pub fn cut(&self) {
        self.state.send_modify(|state| {
            state.whole = false;
            state.cuts += 1;
        });
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.state.send_modify(|state| state.whole = true);
    }

    /// Holds everything back for this long, in each direction; for connections made from now on.
    pub fn delay(&self, delay: Duration) {
        self.slow_down(delay, None);
    }

    /// As [`Relay::delay`], and lets no more than so many bytes through in a second. What is held back is
    /// 64 KiB at the most, as with a small window.
    pub fn slow_down(&self, delay: Duration, rate: Option<u32>) {
        self.state.send_modify(|state| (state.delay, state.rate) = (delay, rate));
    }

    /// Passes nothing on, and ends nothing: to either side the other is silent.
    pub fn hush(&self, silent: bool) {
        self.state.send_modify(|state| state.silent = silent);
    }

    /// Has a mishap befall the byte after so many more that go a way, on whatever connection. It replaces one
    /// that is still to come.
    pub fn mishap(&self, way: Way, after: u64, mishap: Mishap) {
        let planned = Planned { way, left: after, mishap };
        *self.plan.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(planned);
    }

    /// Bytes that were passed on, both ways together.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.traffic.passed.load(Ordering::Relaxed)
    }

    /// The first 64 KiB that went to the server, on all connections together.
    #[must_use]
    pub fn there(&self) -> Vec<u8> {
        self.traffic.there.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(listener: TcpListener, mut seen: watch::Receiver<State>, plan: Plan, traffic: Arc<Traffic>) {
    let (mut connections, mut cuts) = (JoinSet::new(), 0);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let state = *seen.borrow();
                if let Ok((near, _peer)) = accepted && state.whole {
                    connections.spawn(join(near, seen.clone(), plan.clone(), traffic.clone()));
                }
            }
            changed = seen.changed() => {
                if changed.is_err() {
                    return;
                }
                let cut = seen.borrow_and_update().cuts;
                if std::mem::replace(&mut cuts, cut) != cut {
                    connections.abort_all();
                }
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
}

/// Either side may end at any time; the other then sees the end, as over a real cable.
async fn join(near: TcpStream, seen: watch::Receiver<State>, plan: Plan, traffic: Arc<Traffic>) {
    let target = seen.borrow().target;
    let Ok(far) = TcpStream::connect(target).await else { return };
    let _no_matter = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::select! {
        () = copy(near_in, far_out, seen.clone(), (Way::There, &plan), &traffic) => {}
        () = copy(far_in, near_out, seen.clone(), (Way::Back, &plan), &traffic) => {}
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut seen: watch::Receiver<State>,
    (way, plan): (Way, &Plan),
    traffic: &Traffic,
) {
    let State { delay, rate, .. } = *seen.borrow();
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let held = rate.map_or(delay, |rate| delay.max(Duration::from_secs(1) * count as u32 / rate));
        if !held.is_zero() {
            tokio::time::sleep(held).await;
        }
        if seen.wait_for(|state| !state.silent).await.is_err() {
            return;
        }
        match plan.pass(way, count) {
            None => {}
            Some((at, Mishap::Flip)) => buffer[at] ^= 0x10,
            Some((_, Mishap::Stall)) => std::future::pending().await,
            Some((_, Mishap::Reset)) => {
                // With what is not sent thrown away, the end is a reset.
                let _no_matter = (from.as_ref().set_zero_linger(), to.as_ref().set_zero_linger());
                return;
            }
        }
        traffic.pass(way, &buffer[..count]);
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
