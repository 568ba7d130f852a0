//! How the client stands to its server, in the words of status and faults.

use mfpsync_replication::message::{RefusalReason, ResetReason};
use mfpsync_replication::round::{End, LinkState, Trouble};
use mfpsync_storage::local::Offered;
use mfpsync_storage::model::{Revision, Sequence};

use crate::communication::{Code, Event, Tally};
use crate::device::Device;
use crate::fault::{Fault, FaultCode};

/// How the client stands to its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Link {
    /// Dialling, or saying hello.
    Connecting,
    /// Following, not everything is here yet.
    CatchingUp,
    /// Everything is here.
    Current,
    /// The server answered, but something must be seen to first.
    Refused,
    /// Waiting for the next attempt, or not a client.
    #[default]
    Waiting,
}

impl Link {
    /// Whether a server is at the other end.
    #[must_use]
    pub fn is_online(self) -> bool {
        match self {
            Self::CatchingUp | Self::Current => true,
            Self::Connecting | Self::Refused | Self::Waiting => false,
        }
    }
}

/// For the status.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkReport {
    /// How it stands.
    pub link: Link,
    /// The address in use or last tried.
    pub address: String,
    /// The server's epoch, as last heard.
    pub epoch: u64,
    /// The server's last accepted operation, as last heard.
    pub head: Option<Sequence>,
    /// Up to where another holder has everything too.
    pub safe: Option<Revision>,
    /// Why it is not connected; empty while it is.
    pub last_error: String,
    /// Rises with every report.
    pub number: u64,
}

impl LinkReport {
    /// What was known before, with what is known now.
    pub(super) fn take(&mut self, state: &LinkState) {
        self.number += 1;
        match state {
            LinkState::Offline { trouble, .. } => {
                self.link = Link::Waiting;
                self.last_error = trouble.map_or_else(String::new, |trouble| trouble.as_str().to_owned());
            }
            LinkState::Connecting { endpoint } => {
                self.link = Link::Connecting;
                self.address.clone_from(endpoint);
            }
            LinkState::Following { endpoint, epoch, caught_up, head, safe, push_trouble } => {
                self.link = if *caught_up { Link::Current } else { Link::CatchingUp };
                self.address.clone_from(endpoint);
                self.epoch = epoch.number;
                self.head = Some(*head);
                self.safe = safe.map(|sequence| Revision { epoch: epoch.number, sequence });
                self.last_error =
                    push_trouble.map_or_else(String::new, |trouble| trouble.as_str().to_owned());
            }
            LinkState::Refused { trouble, .. } => {
                self.link = Link::Refused;
                trouble.as_str().clone_into(&mut self.last_error);
            }
            LinkState::Ended(end) => {
                self.link = if *end == End::Stopped { Link::Waiting } else { Link::Refused };
                self.last_error = match end {
                    End::Stopped => String::new(),
                    End::Released => RefusalReason::Released.as_str().to_owned(),
                    End::Quarantined => RefusalReason::Quarantined.as_str().to_owned(),
                };
            }
        }
    }
}

/// Faults that the client part sets and clears.
const FAULTS: [FaultCode; 5] = [
    FaultCode::Refused,
    FaultCode::Released,
    FaultCode::WrongGroup,
    FaultCode::Quarantine,
    FaultCode::Protocol,
];

/// Publishes how the client stands.
pub(super) fn publish(device: &Device, state: &LinkState) {
    let was_online = device.link.borrow().link.is_online();
    let was_current = device.link.borrow().link == Link::Current;
    device.link.send_modify(|report| report.take(state));
    if let Some(event) = event(state, was_online, was_current) {
        match state {
            LinkState::Following { .. } if !was_online => device.stats.connections_made.increment(),
            LinkState::Offline { .. } | LinkState::Refused { .. } => {
                device.stats.connections_failed.increment();
            }
            LinkState::Following { .. } | LinkState::Connecting { .. } | LinkState::Ended(_) => {}
        }
        device.communication.record(match device.group_server().map(|member| member.device) {
            Some(peer) => event.peer(peer),
            None => event,
        });
    }
    device.own.set_current(matches!(state, LinkState::Following { caught_up: true, .. }));
    let fault = fault(state);
    let over = matches!(state, LinkState::Following { .. } | LinkState::Ended(End::Stopped));
    for code in FAULTS {
        match &fault {
            Some(fault) if fault.code == code => device.faults.set(fault.clone()),
            Some(_) => device.faults.clear(code),
            None if over => device.faults.clear(code),
            None => {}
        }
    }
}

/// What the communication log says of a state, after one in which a server was at the other end or
/// everything was here.
fn event(state: &LinkState, was_online: bool, was_current: bool) -> Option<Event> {
    match state {
        LinkState::Following { endpoint, caught_up, .. } => match (was_online, was_current, caught_up) {
            (false, _, false) => Some(Event::new(Code::Connected).address(endpoint)),
            (_, false, true) => Some(Event::new(Code::CaughtUp).address(endpoint)),
            _ => None,
        },
        LinkState::Offline { trouble: Some(trouble), .. } => {
            let code = if was_online { Code::Lost } else { Code::Unreachable };
            Some(Event::new(code).reason(trouble.as_str()))
        }
        LinkState::Refused { trouble, .. } => Some(Event::new(Code::Refused).reason(trouble.as_str())),
        LinkState::Ended(End::Released) => {
            Some(Event::new(Code::Refused).reason(RefusalReason::Released.as_str()))
        }
        LinkState::Ended(End::Quarantined) => {
            Some(Event::new(Code::Refused).reason(RefusalReason::Quarantined.as_str()))
        }
        LinkState::Offline { trouble: None, .. }
        | LinkState::Connecting { .. }
        | LinkState::Ended(End::Stopped) => None,
    }
}

/// Notes what a batch brought.
pub(super) fn received(device: &Device, changes: u64, erased: u64) {
    device.stats.batches_applied.increment();
    device.stats.changes_applied.add(changes);
    if changes > 0 {
        device.communication.record(Event::new(Code::Received).count("changes", changes));
    }
    if erased > 0 {
        device.communication.record(Event::new(Code::Erased).count("users", erased));
    }
}

/// Notes that the mirror is built anew.
pub(super) fn read_anew(device: &Device, reason: ResetReason) {
    let reason = match reason {
        ResetReason::NoCursor => "no-cursor",
        ResetReason::UnknownHistory => "unknown-history",
        ResetReason::PastFork => "past-fork",
        ResetReason::TooOld => "too-old",
    };
    device.communication.record(Event::new(Code::ReadAnew).reason(reason));
}

/// Notes what a new reign was offered of the one before.
pub(super) fn offered(device: &Device, offered: Offered) {
    let event = Event::new(Code::OfferedAgain).count("own", offered.own).count("mirrored", offered.mirrored);
    device.communication.record(event);
}

/// Notes how own operations went.
pub(super) fn pushed(device: &Device, tally: Tally) {
    device.stats.own_operations_accepted.add(tally.accepted);
    device.stats.own_operations_superseded.add(tally.superseded);
    device.stats.own_operations_rejected.add(tally.rejected);
    device.communication.record(tally.on(Event::new(Code::Pushed)));
}

fn fault(state: &LinkState) -> Option<Fault> {
    let trouble = match state {
        LinkState::Ended(End::Released) => return Some(Fault::now(FaultCode::Released)),
        LinkState::Ended(End::Quarantined) => return Some(Fault::now(FaultCode::Quarantine)),
        LinkState::Refused { trouble, .. } => *trouble,
        LinkState::Following { push_trouble: Some(trouble), .. } if is_lasting(*trouble) => *trouble,
        LinkState::Ended(End::Stopped)
        | LinkState::Offline { .. }
        | LinkState::Connecting { .. }
        | LinkState::Following { .. } => return None,
    };
    let code = match trouble {
        Trouble::Protocol | Trouble::Refused(RefusalReason::ProtocolVersion) => FaultCode::Protocol,
        Trouble::Unrelated | Trouble::Refused(RefusalReason::WrongGroup) => FaultCode::WrongGroup,
        _ => FaultCode::Refused,
    };
    Some(Fault::with_detail(code, trouble.as_str()))
}

/// Whether a push rests for a reason that waiting does not remove.
fn is_lasting(trouble: Trouble) -> bool {
    matches!(
        trouble,
        Trouble::Refused(
            RefusalReason::Malformed
                | RefusalReason::OverLimit
                | RefusalReason::Capability
                | RefusalReason::Incarnation
        )
    )
}
