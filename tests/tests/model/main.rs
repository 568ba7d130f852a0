//! Who reigns, exhaustively: one server, its replica, a spare machine and two clients, with every order of
//! their steps, messages that are lost or late, crashes between any two durable steps, machines that are
//! lost and disks that are put back. In each [scope](scope) all states are visited. With every
//! [guard](guard) in force nothing [falls](property); without any one of them something does.
//!
//! What is modelled and what is not, and the numbers of a run: `docs/model.md`. `MFPSYNC_CAMPAIGN=1` makes
//! the scopes larger.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    unreachable_pub,
    missing_docs,
    reason = "a test"
)]

mod act;
mod client;
mod fault;
mod guard;
mod property;
mod replica;
mod scope;
mod server;
mod state;
mod without;

use std::collections::BTreeSet;
use std::time::Instant;

use mfpsync_tests::rounds;
use stateright::{Checker, Expectation, HasDiscoveries, Model as _};

use self::property::{
    COMMITTED_UNHEARD, FORK_REFUSED, OFFERED, PUT_BACK, RECOVERED, ROLLED_BACK, SEALED, SURPLUS, TAKEN_AGAIN,
};
use self::scope::{
    COMPETING, HEARD, Model, RECOVERY, RECOVERY_SYNC, REPLICA_PUT_BACK, RIVALS, SERVER_PUT_BACK, Scope,
    TAKEOVER, TAKEOVER_SYNC, larger,
};

/// Visits every state of a scope: nothing falls, and these are among what can be seen.
fn holds(scope: Scope, seen: &[&'static str]) {
    let scope = if rounds(0, 1) == 1 { larger(scope) } else { scope };
    let began = Instant::now();
    let checker = Model::new(scope, None).checker().threads(2).finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    println!(
        "{}: {} states, {} steps, longest path {}, {:.0?}",
        scope.name,
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth() - 1,
        began.elapsed()
    );
    let mut met = BTreeSet::new();
    for (name, path) in checker.discoveries() {
        let property = checker.model().properties().into_iter().find(|property| property.name == name);
        match property.unwrap().expectation {
            Expectation::Sometimes => drop(met.insert(name)),
            Expectation::Always | Expectation::Eventually => {
                panic!("{name} falls in {}: {:?}", scope.name, path.into_actions())
            }
        }
    }
    for seen in seen {
        assert!(met.contains(seen), "never in {}: {seen}", scope.name);
    }
}

#[test]
fn i_17_what_is_acknowledged_outlasts_a_takeover() {
    holds(TAKEOVER, &[SURPLUS, SEALED, OFFERED]);
}

#[test]
fn i_16_with_sync_a_takeover_loses_nothing() {
    holds(TAKEOVER_SYNC, &[SURPLUS, SEALED, OFFERED]);
}

#[test]
fn i_17_to_have_heard_of_a_reign_loses_nothing() {
    holds(HEARD, &[SURPLUS, SEALED, OFFERED]);
}

#[test]
fn i_03_an_operation_that_is_sent_again_happens_once() {
    holds(COMPETING, &[]);
}

#[test]
fn i_13_a_recovery_makes_one_server() {
    holds(RECOVERY, &[SURPLUS, SEALED, OFFERED, RECOVERED, COMMITTED_UNHEARD]);
}

#[test]
fn i_15_with_sync_a_recovery_loses_nothing() {
    holds(RECOVERY_SYNC, &[SURPLUS, SEALED, OFFERED, RECOVERED, COMMITTED_UNHEARD]);
}

#[test]
fn i_13_a_recovery_and_a_takeover_exclude_each_other() {
    holds(RIVALS, &[SEALED, RECOVERED, COMMITTED_UNHEARD, TAKEN_AGAIN]);
}

#[test]
fn i_04_a_server_that_was_put_back_is_noticed() {
    holds(SERVER_PUT_BACK, &[ROLLED_BACK]);
}

#[test]
fn i_13_two_reigns_of_one_number_are_noticed() {
    holds(REPLICA_PUT_BACK, &[SURPLUS, SEALED, OFFERED, FORK_REFUSED]);
}

/// Known: an edit whose answer was lost, and which others have seen, may go over what one of those made of it.
#[test]
fn i_17_an_edit_that_is_offered_late_may_go_over_its_successor() {
    let scope = Scope { promotion: true, ..COMPETING };
    let checker = Model::new(scope, None).checker();
    let checker = checker.finish_when(HasDiscoveries::AnyOf([PUT_BACK].into())).spawn_bfs().join();
    let path = checker.discovery(PUT_BACK).expect("no order of steps leads there any more");
    println!("{PUT_BACK}: {:?}", path.into_actions());
}
