//! The role machine: which part is started or stopped next. Pure: no I/O, no await, no clock.
//!
//! A role is made of at most two parts, a *custodian* (server or replica, never both) and a client.
//! One part is started or stopped at a time, and whatever is not wanted stops before anything
//! starts, so a change of the custodian leaves a running client alone and the reverse.
//!
//! ```text
//!                 Boot                                    StartFailed, Exited
//!   Off ───────────────────┐               ┌────────────────────────────────────► Faulted
//!    ▲                     ▼               │                                        │
//!    │        ┌────────► next? ──► Starting ── Started ──► next?                    │
//!    │        │           │ │                                ▲                      │
//!    │     Stopped        │ └──► Running ── SwitchTo ────────┤◄── RetryDue, SwitchTo ┘
//!    │        │           ▼                                  │
//!    │        └───────  Stopping ◄── SwitchTo while the part being started is not wanted
//!    │
//!    └── Stopped (last part) ── Closing ◄── Shutdown, from every state
//!
//!   next?  a part that runs but is not wanted → Stopping; else one that is wanted but does not
//!          run → Starting; else Running, or Faulted if a part did not come up on the way
//! ```
//!
//! The supervisor is the only caller. Raising the epoch is no business of this machine: it belongs
//! to the promotion record and is written by the procedure that makes one.

use std::fmt;

use thiserror::Error;

use crate::fault::Fault;

/// What a device does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Role {
    /// Nothing for a group; local data is served all the same.
    #[default]
    Idle,
    /// Accepts changes and orders them.
    Server,
    /// Keeps a working copy.
    Client,
    /// Both.
    ServerClient,
    /// Keeps a standby copy of the server's database.
    Replica,
    /// A replica whose panel is a client as well.
    ReplicaClient,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] =
        [Self::Idle, Self::Server, Self::Client, Self::ServerClient, Self::Replica, Self::ReplicaClient];

    /// This role with the server for its custodian.
    #[must_use]
    pub fn serving(self) -> Self {
        if self.parts().contains(Part::Client) { Self::ServerClient } else { Self::Server }
    }

    /// This role with the replica for its custodian.
    #[must_use]
    pub fn following(self) -> Self {
        if self.parts().contains(Part::Client) { Self::ReplicaClient } else { Self::Replica }
    }

    /// This role without a custodian.
    #[must_use]
    pub fn not_serving(self) -> Self {
        if self.parts().contains(Part::Client) { Self::Client } else { Self::Idle }
    }

    /// The parts that run in this role.
    #[must_use]
    pub fn parts(self) -> PartSet {
        match self {
            Self::Idle => PartSet::NONE,
            Self::Server => PartSet::NONE.with(Part::Server),
            Self::Client => PartSet::NONE.with(Part::Client),
            Self::ServerClient => PartSet::NONE.with(Part::Server).with(Part::Client),
            Self::Replica => PartSet::NONE.with(Part::Replica),
            Self::ReplicaClient => PartSet::NONE.with(Part::Replica).with(Part::Client),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Server => "server",
            Self::Client => "client",
            Self::ServerClient => "server+client",
            Self::Replica => "replica",
            Self::ReplicaClient => "replica+client",
        })
    }
}

/// One thing that is started and stopped as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The custodian that writes the master database.
    Server,
    /// The custodian that keeps a standby copy.
    Replica,
    /// What pulls and pushes.
    Client,
}

impl Part {
    /// In the order of starting; stopping goes the other way, so that a client leaves before the
    /// server it talks to.
    pub const ALL: [Self; 3] = [Self::Server, Self::Replica, Self::Client];
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Replica => "replica",
            Self::Client => "client",
        })
    }
}

/// A set of parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PartSet(u8);

impl PartSet {
    /// No part.
    pub const NONE: Self = Self(0);

    /// This set and `part`.
    #[must_use]
    pub fn with(self, part: Part) -> Self {
        Self(self.0 | 1 << part as u8)
    }

    /// This set without `part`.
    #[must_use]
    pub fn without(self, part: Part) -> Self {
        Self(self.0 & !(1 << part as u8))
    }

    /// Whether `part` is in it.
    #[must_use]
    pub fn contains(self, part: Part) -> bool {
        self.0 & 1 << part as u8 != 0
    }

    /// The parts in the order of starting.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Part> {
        Part::ALL.into_iter().filter(move |part| self.contains(*part))
    }

    fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// What the device is doing about its role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleState {
    /// Before the first event and after the last.
    Off,
    /// `part` is coming up.
    Starting {
        /// Where this leads.
        wanted: Role,
        /// The parts that run.
        running: PartSet,
        /// The part that does not yet.
        part: Part,
        /// Why an earlier part of the same role did not come up.
        fault: Option<Fault>,
    },
    /// Every part of the role runs.
    Running(Role),
    /// `part` is on its way out.
    Stopping {
        /// Where this leads.
        wanted: Role,
        /// The parts that go on running.
        running: PartSet,
        /// The part that ends.
        part: Part,
    },
    /// Something of the role does not run.
    Faulted {
        /// What the operator asked for.
        wanted: Role,
        /// The parts that run all the same.
        running: PartSet,
        /// Why.
        fault: Fault,
    },
    /// The process is stopping and `part` is on its way out.
    Closing {
        /// What the operator asked for, resumed at the next start.
        wanted: Role,
        /// The parts that still run.
        running: PartSet,
        /// The part that ends.
        part: Part,
    },
}

/// The state without its details, as the panel shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing runs and nothing is wanted yet.
    Off,
    /// On the way up.
    Starting,
    /// As wanted.
    Running,
    /// On the way down, or to another role.
    Stopping,
    /// Something does not run that should.
    Faulted,
}

impl RoleState {
    /// What the operator asked for.
    #[must_use]
    pub fn wanted(&self) -> Role {
        match self {
            Self::Off => Role::Idle,
            Self::Running(wanted)
            | Self::Starting { wanted, .. }
            | Self::Stopping { wanted, .. }
            | Self::Faulted { wanted, .. }
            | Self::Closing { wanted, .. } => *wanted,
        }
    }

    /// The parts that run.
    #[must_use]
    pub fn running(&self) -> PartSet {
        match self {
            Self::Off => PartSet::NONE,
            Self::Running(role) => role.parts(),
            Self::Starting { running, .. }
            | Self::Stopping { running, .. }
            | Self::Faulted { running, .. }
            | Self::Closing { running, .. } => *running,
        }
    }

    /// The role that the running parts amount to.
    #[must_use]
    pub fn running_role(&self) -> Role {
        let running = self.running();
        Role::ALL.into_iter().find(|role| role.parts() == running).unwrap_or_default()
    }

    /// The state without its details.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self {
            Self::Off => Phase::Off,
            Self::Starting { .. } => Phase::Starting,
            Self::Running(_) => Phase::Running,
            Self::Stopping { .. } | Self::Closing { .. } => Phase::Stopping,
            Self::Faulted { .. } => Phase::Faulted,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Starting { .. } => "starting",
            Self::Running(_) => "running",
            Self::Stopping { .. } => "stopping",
            Self::Faulted { .. } => "faulted",
            Self::Closing { .. } => "closing",
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleEvent {
    /// The process started, and this is the role that was wanted last.
    Boot(Role),
    /// An operator asked for a role.
    SwitchTo(Role),
    /// The part that was being started runs.
    Started,
    /// The part that was being started does not run, and has cleaned up after itself.
    StartFailed(Fault),
    /// The part that was being stopped has ended.
    Stopped,
    /// A running part ended by itself.
    Exited(Part, Fault),
    /// The pause after a fault is over.
    RetryDue,
    /// What a part works on is to be another: it ends and begins anew, and the others go on.
    Restart(Part),
    /// The process is to end.
    Shutdown,
}

impl RoleEvent {
    fn name(&self) -> &'static str {
        match self {
            Self::Boot(_) => "boot",
            Self::SwitchTo(_) => "switch",
            Self::Started => "started",
            Self::StartFailed(_) => "start-failed",
            Self::Stopped => "stopped",
            Self::Exited(..) => "exited",
            Self::RetryDue => "retry-due",
            Self::Restart(_) => "restart",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleEffect {
    /// Write the wanted role durably; the new state holds only if this succeeds.
    Persist(Role),
    /// Start this part, and report `Started` or `StartFailed`.
    Start(Part),
    /// Stop this part, also if it is still being started, and report `Stopped`.
    Stop(Part),
    /// Report `RetryDue` after a pause, unless the state changes before.
    ScheduleRetry,
}

/// Why an event changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Rejected {
    /// The process is stopping.
    #[error("mfpsyncd is stopping; ask again when it runs")]
    Closing,
    /// The event does not belong to the state.
    #[error("event {event} does not belong to state {state}")]
    Unexpected {
        /// The state's name.
        state: &'static str,
        /// The event's name.
        event: &'static str,
    },
}

/// A new state and what is to be done about it.
pub type Step = (RoleState, Vec<RoleEffect>);

/// Decides what follows from an event.
///
/// # Errors
/// [`Rejected`]; the state stays as it was.
pub fn step(state: &RoleState, event: RoleEvent) -> Result<Step, Rejected> {
    let unexpected = Rejected::Unexpected { state: state.name(), event: event.name() };
    match event {
        RoleEvent::Boot(role) => match state {
            RoleState::Off => Ok(next(role, PartSet::NONE)),
            RoleState::Starting { .. }
            | RoleState::Running(_)
            | RoleState::Stopping { .. }
            | RoleState::Faulted { .. }
            | RoleState::Closing { .. } => Err(unexpected),
        },
        RoleEvent::SwitchTo(role) => switch(state, role, unexpected),
        RoleEvent::Started => match state {
            RoleState::Starting { wanted, running, part, fault } => {
                Ok(next_after(*wanted, running.with(*part), *part, fault.clone()))
            }
            RoleState::Off
            | RoleState::Running(_)
            | RoleState::Stopping { .. }
            | RoleState::Faulted { .. }
            | RoleState::Closing { .. } => Err(unexpected),
        },
        RoleEvent::StartFailed(why) => match state {
            RoleState::Starting { wanted, running, part, fault } => {
                Ok(next_after(*wanted, *running, *part, Some(graver(fault.clone(), why))))
            }
            RoleState::Off
            | RoleState::Running(_)
            | RoleState::Stopping { .. }
            | RoleState::Faulted { .. }
            | RoleState::Closing { .. } => Err(unexpected),
        },
        RoleEvent::Stopped => match state {
            RoleState::Stopping { wanted, running, .. } => Ok(next(*wanted, *running)),
            RoleState::Closing { wanted, running, .. } => Ok(close(*wanted, *running)),
            RoleState::Off
            | RoleState::Starting { .. }
            | RoleState::Running(_)
            | RoleState::Faulted { .. } => Err(unexpected),
        },
        RoleEvent::Exited(part, fault) => exited(state, part, fault, unexpected),
        RoleEvent::RetryDue => match state {
            RoleState::Faulted { wanted, running, .. } => Ok(next(*wanted, *running)),
            RoleState::Off
            | RoleState::Starting { .. }
            | RoleState::Running(_)
            | RoleState::Stopping { .. }
            | RoleState::Closing { .. } => Err(unexpected),
        },
        RoleEvent::Restart(part) => restart(state, part, unexpected),
        RoleEvent::Shutdown => Ok(shutdown(state)),
    }
}

fn switch(state: &RoleState, role: Role, unexpected: Rejected) -> Result<Step, Rejected> {
    match state {
        RoleState::Off => Err(unexpected),
        RoleState::Closing { .. } => Err(Rejected::Closing),
        // Asking again while something is wrong means: try now. It is written already.
        RoleState::Faulted { wanted, running, .. } if *wanted == role => Ok(next(role, *running)),
        RoleState::Starting { wanted, .. }
        | RoleState::Running(wanted)
        | RoleState::Stopping { wanted, .. }
            if *wanted == role =>
        {
            Ok((state.clone(), Vec::new()))
        }
        RoleState::Starting { running, part, .. } if role.parts().contains(*part) => {
            let state = RoleState::Starting { wanted: role, running: *running, part: *part, fault: None };
            Ok((state, vec![RoleEffect::Persist(role)]))
        }
        RoleState::Starting { running, part, .. } => {
            let state = RoleState::Stopping { wanted: role, running: *running, part: *part };
            Ok((state, vec![RoleEffect::Persist(role), RoleEffect::Stop(*part)]))
        }
        RoleState::Stopping { running, part, .. } => {
            let state = RoleState::Stopping { wanted: role, running: *running, part: *part };
            Ok((state, vec![RoleEffect::Persist(role)]))
        }
        RoleState::Running(_) | RoleState::Faulted { .. } => {
            let (state, mut effects) = next(role, state.running());
            effects.insert(0, RoleEffect::Persist(role));
            Ok((state, effects))
        }
    }
}

fn exited(state: &RoleState, part: Part, fault: Fault, unexpected: Rejected) -> Result<Step, Rejected> {
    let ends_anyway = match state {
        RoleState::Stopping { part: ending, .. } | RoleState::Closing { part: ending, .. } => *ending == part,
        RoleState::Off | RoleState::Starting { .. } | RoleState::Running(_) | RoleState::Faulted { .. } => {
            false
        }
    };
    if ends_anyway {
        return Ok((state.clone(), Vec::new()));
    }
    if !state.running().contains(part) {
        return Err(unexpected);
    }
    let left = state.running().without(part);
    let mut after = state.clone();
    match &mut after {
        RoleState::Off => return Err(unexpected),
        RoleState::Running(wanted) => return Ok(faulted(*wanted, left, fault)),
        RoleState::Starting { running, fault: earlier, .. } => {
            *running = left;
            *earlier = Some(graver(earlier.take(), fault));
        }
        RoleState::Faulted { wanted, fault: earlier, .. } => {
            return Ok(faulted(*wanted, left, graver(Some(earlier.clone()), fault)));
        }
        // Whatever is still wanted is started again when the stop is over.
        RoleState::Stopping { running, .. } | RoleState::Closing { running, .. } => *running = left,
    }
    Ok((after, Vec::new()))
}

fn restart(state: &RoleState, part: Part, unexpected: Rejected) -> Result<Step, Rejected> {
    let stop = |wanted: &Role, running: PartSet| {
        let state = RoleState::Stopping { wanted: *wanted, running, part };
        Ok((state, vec![RoleEffect::Stop(part)]))
    };
    match state {
        RoleState::Closing { .. } => Err(Rejected::Closing),
        RoleState::Running(wanted) if wanted.parts().contains(part) => {
            stop(wanted, wanted.parts().without(part))
        }
        RoleState::Starting { wanted, running, part: starting, .. } if *starting == part => {
            stop(wanted, *running)
        }
        RoleState::Stopping { wanted, part: stopping, .. }
            if *stopping == part && wanted.parts().contains(part) =>
        {
            Ok((state.clone(), Vec::new()))
        }
        RoleState::Faulted { wanted, running, .. } if running.contains(part) => {
            stop(wanted, running.without(part))
        }
        RoleState::Faulted { wanted, running, .. } if wanted.parts().contains(part) => {
            Ok(next(*wanted, *running))
        }
        // Something else is on its way, or the part is not wanted.
        RoleState::Off
        | RoleState::Starting { .. }
        | RoleState::Running(_)
        | RoleState::Stopping { .. }
        | RoleState::Faulted { .. } => Err(unexpected),
    }
}

fn shutdown(state: &RoleState) -> Step {
    match state {
        RoleState::Off | RoleState::Closing { .. } => (state.clone(), Vec::new()),
        RoleState::Running(_) | RoleState::Faulted { .. } => close(state.wanted(), state.running()),
        RoleState::Starting { wanted, running, part, .. } => {
            let state = RoleState::Closing { wanted: *wanted, running: *running, part: *part };
            (state, vec![RoleEffect::Stop(*part)])
        }
        RoleState::Stopping { wanted, running, part } => {
            (RoleState::Closing { wanted: *wanted, running: *running, part: *part }, Vec::new())
        }
    }
}

/// Whatever leads from these running parts towards the wanted role.
fn next(wanted: Role, running: PartSet) -> Step {
    if let Some(part) = running.minus(wanted.parts()).iter().next_back() {
        let state = RoleState::Stopping { wanted, running: running.without(part), part };
        return (state, vec![RoleEffect::Stop(part)]);
    }
    match wanted.parts().minus(running).iter().next() {
        Some(part) => start(wanted, running, part, None),
        None => (RoleState::Running(wanted), Vec::new()),
    }
}

/// As [`next`], but parts up to `tried` that did not come up wait for the retry, so that a server
/// that cannot start does not keep the client from starting.
fn next_after(wanted: Role, running: PartSet, tried: Part, fault: Option<Fault>) -> Step {
    let Some(fault) = fault else { return next(wanted, running) };
    if running.minus(wanted.parts()) != PartSet::NONE {
        return next(wanted, running);
    }
    match wanted.parts().minus(running).iter().find(|part| *part > tried) {
        Some(part) => start(wanted, running, part, Some(fault)),
        None => faulted(wanted, running, fault),
    }
}

/// The earlier of two faults, unless only the later one needs a person.
fn graver(earlier: Option<Fault>, later: Fault) -> Fault {
    match earlier {
        Some(earlier) if later.code.retries() || !earlier.code.retries() => earlier,
        Some(_) | None => later,
    }
}

fn start(wanted: Role, running: PartSet, part: Part, fault: Option<Fault>) -> Step {
    (RoleState::Starting { wanted, running, part, fault }, vec![RoleEffect::Start(part)])
}

fn faulted(wanted: Role, running: PartSet, fault: Fault) -> Step {
    let effects = if fault.code.retries() { vec![RoleEffect::ScheduleRetry] } else { Vec::new() };
    (RoleState::Faulted { wanted, running, fault }, effects)
}

fn close(wanted: Role, running: PartSet) -> Step {
    match running.iter().next_back() {
        Some(part) => {
            let state = RoleState::Closing { wanted, running: running.without(part), part };
            (state, vec![RoleEffect::Stop(part)])
        }
        None => (RoleState::Off, Vec::new()),
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
