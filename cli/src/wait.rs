//! Waiting for the status to show what was asked for.
//!
//! `role_reached` and `link_reached` decide (pure); `until` watches. The daemon goes on whether or not
//! anybody waits.

use mfpsync_proto::panel::client_status::Link;
use mfpsync_proto::panel::{JoinPhase, Role, RolePhase, StatusReply, StatusRequest};

use crate::exit::Failure;
use crate::render::status::role_name;
use crate::sockets::{Sockets, within};

/// What one status says about a wait.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Reached,
    NotYet,
    /// Only a person can help: the sentence for them.
    Stuck(String),
}

/// Whether the wanted role runs.
pub(crate) fn role_reached(status: &StatusReply, wanted: Role) -> Verdict {
    if status.phase() == RolePhase::Faulted {
        return Verdict::Stuck(fault_text(status));
    }
    if status.wanted() != wanted {
        // Another press came between; what was asked for here will not be reached by waiting.
        return match status.wanted() {
            Role::Unspecified => Verdict::NotYet,
            other => Verdict::Stuck(format!("the wanted role is now {}", role_name(other))),
        };
    }
    if status.running() == wanted && status.phase() == RolePhase::Running {
        Verdict::Reached
    } else {
        Verdict::NotYet
    }
}

/// Whether the client has everything its server has, and shows it.
pub(crate) fn link_reached(status: &StatusReply) -> Verdict {
    let client = status.client.as_ref();
    if client.is_some_and(|client| client.join_needs_decision) {
        return Verdict::Stuck("the join waits for a decision: `mfpsync join plan`".to_owned());
    }
    match client.map(mfpsync_proto::panel::ClientStatus::link) {
        Some(Link::Current) if client.is_some_and(|client| client.join() == JoinPhase::Joining) => {
            Verdict::NotYet
        }
        Some(Link::Current) => Verdict::Reached,
        Some(Link::Refused) => Verdict::Stuck(fault_text(status)),
        Some(Link::Unspecified | Link::Connecting | Link::CatchingUp | Link::Waiting) | None => {
            if status.phase() == RolePhase::Faulted {
                Verdict::Stuck(fault_text(status))
            } else {
                Verdict::NotYet
            }
        }
    }
}

fn fault_text(status: &StatusReply) -> String {
    match status.faults.first() {
        Some(fault) => format!("{}: {}", fault.code, fault.text),
        None => "the role could not be taken; see `mfpsync status`".to_owned(),
    }
}

/// Watches the status until `verdict` is satisfied; returns the status that satisfied it.
///
/// # Errors
/// `Failure::NeedsPerson` when stuck, `Failure::TimedOut`, or a lost connection.
pub(crate) async fn until(
    sockets: &Sockets,
    what: &str,
    verdict: impl Fn(&StatusReply) -> Verdict,
) -> Result<StatusReply, Failure> {
    within(sockets.timeout, what, async {
        let mut statuses = sockets.panel().await?.watch_status(StatusRequest {}).await?.into_inner();
        while let Some(status) = statuses.message().await? {
            match verdict(&status) {
                Verdict::Reached => return Ok(status),
                Verdict::Stuck(why) => return Err(Failure::NeedsPerson(why)),
                Verdict::NotYet => {}
            }
        }
        Err(Failure::ConnectionLost)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use mfpsync_proto::panel::{ClientStatus, Fault};

    fn status(wanted: Role, running: Role, phase: RolePhase) -> StatusReply {
        StatusReply {
            wanted: wanted.into(),
            running: running.into(),
            phase: phase.into(),
            ..StatusReply::default()
        }
    }

    #[test]
    fn a_role_is_reached_only_when_it_runs() {
        let starting = status(Role::Server, Role::Idle, RolePhase::Starting);
        assert_eq!(role_reached(&starting, Role::Server), Verdict::NotYet);
        let running = status(Role::Server, Role::Server, RolePhase::Running);
        assert_eq!(role_reached(&running, Role::Server), Verdict::Reached);
    }

    #[test]
    fn a_fault_or_another_press_ends_the_wait() {
        let mut faulted = status(Role::Server, Role::Idle, RolePhase::Faulted);
        faulted.faults = vec![Fault { code: "F-X".to_owned(), text: "why".to_owned(), since_unix_millis: 0 }];
        assert_eq!(role_reached(&faulted, Role::Server), Verdict::Stuck("F-X: why".to_owned()));
        let other = status(Role::Idle, Role::Server, RolePhase::Stopping);
        assert!(matches!(role_reached(&other, Role::Server), Verdict::Stuck(_)));
    }

    #[test]
    fn a_client_is_current_or_refused_or_still_on_its_way() {
        let with = |link: Link| StatusReply {
            client: Some(ClientStatus { link: link.into(), ..ClientStatus::default() }),
            ..status(Role::Client, Role::Client, RolePhase::Running)
        };
        assert_eq!(link_reached(&with(Link::Current)), Verdict::Reached);
        assert_eq!(link_reached(&with(Link::Waiting)), Verdict::NotYet);
        assert!(matches!(link_reached(&with(Link::Refused)), Verdict::Stuck(_)));
        assert_eq!(link_reached(&StatusReply::default()), Verdict::NotYet);
    }
}
