//! The whole table of states and events, and what holds for every sequence of them.

use proptest::prelude::*;

use super::*;
use crate::fault::FaultCode;

fn fault(code: FaultCode) -> Fault {
    Fault { code, text: String::new(), since_unix_millis: 0 }
}

fn parts(parts: &[Part]) -> PartSet {
    parts.iter().fold(PartSet::NONE, |set, part| set.with(*part))
}

fn states() -> [RoleState; 6] {
    [
        RoleState::Off,
        RoleState::Starting {
            wanted: Role::ServerClient,
            running: parts(&[Part::Server]),
            part: Part::Client,
            fault: None,
        },
        RoleState::Running(Role::Server),
        RoleState::Stopping { wanted: Role::Client, running: parts(&[Part::Client]), part: Part::Server },
        RoleState::Faulted {
            wanted: Role::ServerClient,
            running: parts(&[Part::Server]),
            fault: fault(FaultCode::Refused),
        },
        RoleState::Closing {
            wanted: Role::ServerClient,
            running: parts(&[Part::Server]),
            part: Part::Client,
        },
    ]
}

fn events() -> Vec<RoleEvent> {
    vec![
        RoleEvent::Boot(Role::ServerClient),
        RoleEvent::Boot(Role::ReplicaClient),
        RoleEvent::SwitchTo(Role::ServerClient),
        RoleEvent::SwitchTo(Role::Client),
        RoleEvent::SwitchTo(Role::Replica),
        RoleEvent::Started,
        RoleEvent::StartFailed(fault(FaultCode::Listen)),
        RoleEvent::Stopped,
        RoleEvent::Exited(Part::Server, fault(FaultCode::Superseded)),
        RoleEvent::Exited(Part::Client, fault(FaultCode::DiskIo)),
        RoleEvent::RetryDue,
        RoleEvent::Restart(Part::Server),
        RoleEvent::Shutdown,
    ]
}

fn render_set(set: PartSet) -> String {
    set.iter().map(|part| part.to_string()).collect::<Vec<_>>().join("+")
}

fn render_state(state: &RoleState) -> String {
    let running = render_set(state.running());
    let wanted = state.wanted();
    match state {
        RoleState::Off => "off".to_owned(),
        RoleState::Running(role) => format!("running {role}"),
        RoleState::Starting { part, fault, .. } => {
            let fault = fault.as_ref().map(|fault| format!(" {}", fault.code)).unwrap_or_default();
            format!("starting {part} [{running}] for {wanted}{fault}")
        }
        RoleState::Stopping { part, .. } => format!("stopping {part} [{running}] for {wanted}"),
        RoleState::Faulted { fault, .. } => format!("faulted {} [{running}] for {wanted}", fault.code),
        RoleState::Closing { part, .. } => format!("closing {part} [{running}]"),
    }
}

fn render_event(event: &RoleEvent) -> String {
    match event {
        RoleEvent::Boot(role) => format!("boot {role}"),
        RoleEvent::SwitchTo(role) => format!("switch {role}"),
        RoleEvent::StartFailed(fault) => format!("start-failed {}", fault.code),
        RoleEvent::Exited(part, fault) => format!("exited {part} {}", fault.code),
        RoleEvent::Restart(part) => format!("restart {part}"),
        RoleEvent::Started | RoleEvent::Stopped | RoleEvent::RetryDue | RoleEvent::Shutdown => {
            event.name().to_owned()
        }
    }
}

fn render_effect(effect: &RoleEffect) -> String {
    match effect {
        RoleEffect::Persist(role) => format!("persist {role}"),
        RoleEffect::Start(part) => format!("start {part}"),
        RoleEffect::Stop(part) => format!("stop {part}"),
        RoleEffect::ScheduleRetry => "retry".to_owned(),
    }
}

fn render_table() -> String {
    let mut table = String::new();
    for state in states() {
        table += &format!("{}\n", render_state(&state));
        for event in events() {
            let outcome = match step(&state, event.clone()) {
                Ok((next, _)) if next == state => "-".to_owned(),
                Ok((next, effects)) => {
                    let effects: Vec<_> = effects.iter().map(render_effect).collect();
                    format!("{} ({})", render_state(&next), effects.join(", "))
                }
                Err(Rejected::Closing) => "refused: closing".to_owned(),
                Err(Rejected::Unexpected { .. }) => "unexpected".to_owned(),
            };
            table += &format!("  {:<28}{outcome}\n", render_event(&event));
        }
    }
    table
}

#[test]
fn every_pair_of_state_and_event_has_its_line_in_the_table() {
    let table = render_table();
    assert_eq!(table, include_str!("machine_table.txt"), "\n{table}");
}

#[test]
fn a_client_becomes_the_replica_as_well_without_being_touched() {
    let (state, effects) =
        step(&RoleState::Running(Role::Client), RoleEvent::SwitchTo(Role::ReplicaClient)).unwrap();
    assert_eq!(effects, [RoleEffect::Persist(Role::ReplicaClient), RoleEffect::Start(Part::Replica)]);
    assert_eq!(state.running(), parts(&[Part::Client]));
}

#[test]
fn adding_the_client_to_a_server_starts_the_client_only() {
    let (state, effects) =
        step(&RoleState::Running(Role::Server), RoleEvent::SwitchTo(Role::ServerClient)).unwrap();
    assert_eq!(effects, [RoleEffect::Persist(Role::ServerClient), RoleEffect::Start(Part::Client)]);
    assert_eq!(state.running(), parts(&[Part::Server]));
    let (state, effects) = step(&state, RoleEvent::Started).unwrap();
    assert_eq!((state, effects), (RoleState::Running(Role::ServerClient), vec![]));
}

#[test]
fn a_server_that_cannot_start_does_not_keep_the_client_from_starting() {
    let (state, _) = step(&RoleState::Off, RoleEvent::Boot(Role::ServerClient)).unwrap();
    let (state, effects) = step(&state, RoleEvent::StartFailed(fault(FaultCode::Listen))).unwrap();
    assert_eq!(effects, [RoleEffect::Start(Part::Client)]);
    let (state, effects) = step(&state, RoleEvent::Started).unwrap();
    assert_eq!(effects, [RoleEffect::ScheduleRetry]);
    assert_eq!(state.running_role(), Role::Client);
    assert_eq!(state.phase(), Phase::Faulted);
    let (state, effects) = step(&state, RoleEvent::RetryDue).unwrap();
    assert_eq!(effects, [RoleEffect::Start(Part::Server)]);
    assert_eq!(state.running_role(), Role::Client);
}

#[test]
fn a_fault_that_needs_a_person_is_not_retried_until_the_operator_asks_again() {
    let exit = RoleEvent::Exited(Part::Client, fault(FaultCode::Released));
    let (state, effects) = step(&RoleState::Running(Role::Client), exit).unwrap();
    assert_eq!(effects, []);
    let (_, effects) = step(&state, RoleEvent::SwitchTo(Role::Client)).unwrap();
    assert_eq!(effects, [RoleEffect::Start(Part::Client)]);
}

#[test]
fn from_any_parts_to_any_role_every_stop_precedes_every_start() {
    for from in Role::ALL {
        for to in Role::ALL {
            let (mut state, mut effects) = next(to, from.parts());
            let (mut started, mut stopped) = (PartSet::NONE, PartSet::NONE);
            while let Some(effect) = effects.pop() {
                let event = match effect {
                    RoleEffect::Stop(part) => {
                        assert_eq!(started, PartSet::NONE, "{from} to {to}");
                        stopped = stopped.with(part);
                        RoleEvent::Stopped
                    }
                    RoleEffect::Start(part) => {
                        started = started.with(part);
                        RoleEvent::Started
                    }
                    RoleEffect::Persist(_) | RoleEffect::ScheduleRetry => panic!("{effect:?}"),
                };
                (state, effects) = step(&state, event).unwrap();
            }
            assert_eq!(state, RoleState::Running(to));
            assert_eq!(stopped, from.parts().minus(to.parts()), "{from} to {to}");
            assert_eq!(started, to.parts().minus(from.parts()), "{from} to {to}");
        }
    }
}

fn any_event() -> impl Strategy<Value = RoleEvent> {
    let role = prop::sample::select(Role::ALL.to_vec());
    let code = prop::sample::select(FaultCode::ALL.to_vec());
    let part = prop::sample::select(Part::ALL.to_vec());
    prop_oneof![
        1 => role.clone().prop_map(RoleEvent::Boot),
        6 => role.prop_map(RoleEvent::SwitchTo),
        6 => Just(RoleEvent::Started),
        6 => Just(RoleEvent::Stopped),
        2 => code.clone().prop_map(|code| RoleEvent::StartFailed(fault(code))),
        2 => (part, code).prop_map(|(part, code)| RoleEvent::Exited(part, fault(code))),
        2 => Just(RoleEvent::RetryDue),
        1 => Just(RoleEvent::Restart(Part::Server)),
        1 => Just(RoleEvent::Shutdown),
    ]
}

/// What is really alive, kept from the effects and the outside events alone.
#[derive(Debug, Default)]
struct World {
    alive: PartSet,
    persisted: Option<Role>,
    starting: Option<Part>,
    stopping: Option<Part>,
}

impl World {
    fn outside(&mut self, event: &RoleEvent) {
        match event {
            RoleEvent::Started => self.starting = None,
            RoleEvent::StartFailed(_) => {
                if let Some(part) = self.starting.take() {
                    self.alive = self.alive.without(part);
                }
            }
            RoleEvent::Stopped => {
                if let Some(part) = self.stopping.take() {
                    self.alive = self.alive.without(part);
                }
            }
            RoleEvent::Exited(part, _) if self.stopping != Some(*part) => {
                self.alive = self.alive.without(*part);
            }
            RoleEvent::Boot(role) => self.persisted = Some(*role),
            RoleEvent::Exited(..)
            | RoleEvent::SwitchTo(_)
            | RoleEvent::RetryDue
            | RoleEvent::Restart(_)
            | RoleEvent::Shutdown => {}
        }
    }

    fn effect(&mut self, effect: &RoleEffect) {
        match effect {
            RoleEffect::Persist(role) => self.persisted = Some(*role),
            RoleEffect::Start(part) => {
                assert_eq!(self.stopping, None, "a start while a stop is under way");
                assert_eq!(self.starting, None, "two starts at once");
                assert!(!self.alive.contains(*part), "a running part is started again");
                assert!(
                    self.persisted.is_some_and(|role| role.parts().contains(*part)),
                    "a part is started that the durable role does not name"
                );
                self.starting = Some(*part);
                self.alive = self.alive.with(*part);
            }
            RoleEffect::Stop(part) => {
                assert_eq!(self.stopping, None, "two stops at once");
                assert!(self.alive.contains(*part), "a part is stopped that is not alive");
                self.starting = None;
                self.stopping = Some(*part);
            }
            RoleEffect::ScheduleRetry => {}
        }
    }
}

proptest! {
    #[test]
    fn any_sequence_of_events_keeps_the_promises(
        boot in prop::sample::select(Role::ALL.to_vec()),
        events in prop::collection::vec(any_event(), 0..60),
    ) {
        let mut state = RoleState::Off;
        let mut world = World::default();
        for event in std::iter::once(RoleEvent::Boot(boot)).chain(events) {
            let before = state.clone();
            let Ok((after, effects)) = step(&state, event.clone()) else { continue };
            world.outside(&event);
            for (position, effect) in effects.iter().enumerate() {
                prop_assert!(!matches!(effect, RoleEffect::Persist(_)) || position == 0);
                world.effect(effect);
                prop_assert!(
                    !(world.alive.contains(Part::Server) && world.alive.contains(Part::Replica)),
                    "two custodians"
                );
                let client_stays = before.running().contains(Part::Client)
                    && before.wanted().parts().contains(Part::Client)
                    && after.wanted().parts().contains(Part::Client)
                    && event != RoleEvent::Shutdown
                    && !matches!(before, RoleState::Closing { .. });
                prop_assert!(!client_stays || *effect != RoleEffect::Stop(Part::Client));
            }
            if let RoleEvent::SwitchTo(role) = event {
                prop_assert_eq!(after.wanted(), role);
                let again = step(&after, RoleEvent::SwitchTo(role));
                if !matches!(after, RoleState::Faulted { .. }) {
                    prop_assert_eq!(again, Ok((after.clone(), vec![])));
                }
                if before.wanted() == role {
                    prop_assert!(!effects.contains(&RoleEffect::Persist(role)));
                } else {
                    prop_assert_eq!(effects.first(), Some(&RoleEffect::Persist(role)));
                }
            }
            if after != RoleState::Off {
                prop_assert_eq!(world.persisted, Some(after.wanted()));
            }
            state = after;
            let expected = match &state {
                RoleState::Starting { running, part, .. }
                | RoleState::Stopping { running, part, .. }
                | RoleState::Closing { running, part, .. } => running.with(*part),
                RoleState::Off | RoleState::Running(_) | RoleState::Faulted { .. } => state.running(),
            };
            prop_assert_eq!(world.alive, expected);
        }
    }
}
