//! Puts role changes and faults into the communication log.

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;

use crate::communication::{Code, CommunicationLog, Event};
use crate::fault::{FaultBoard, FaultCode};
use crate::role::{Phase, SupervisorHandle};

/// Notes faults as they begin and end, until `stop`.
pub async fn watch_faults(faults: FaultBoard, log: CommunicationLog, stop: CancellationToken) {
    let (mut board, mut stood) = (faults.watch(), BTreeSet::<FaultCode>::new());
    loop {
        let stand: BTreeSet<FaultCode> = board.borrow_and_update().iter().map(|fault| fault.code).collect();
        for code in stand.difference(&stood) {
            log.record(Event::new(Code::Fault).reason(code.as_str()));
        }
        for code in stood.difference(&stand) {
            log.record(Event::new(Code::FaultOver).reason(code.as_str()));
        }
        stood = stand;
        match stop.run_until_cancelled(board.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return,
        }
    }
}

/// Notes each role that came to run, until `stop`.
pub async fn watch_roles(supervisor: SupervisorHandle, log: CommunicationLog, stop: CancellationToken) {
    let (mut roles, mut ran) = (supervisor.watch(), None);
    loop {
        let running = {
            let state = roles.borrow_and_update();
            (state.phase() == Phase::Running).then(|| state.running_role())
        };
        if running.is_some() && running != ran {
            log.record(
                Event::new(Code::Role).reason(running.map(|role| role.to_string()).unwrap_or_default()),
            );
            ran = running;
        }
        match stop.run_until_cancelled(roles.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return,
        }
    }
}
