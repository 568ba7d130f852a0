//! Who reigns, exhaustively: one server, its replica, a spare machine and two clients, with every order of
//! their steps, messages that are lost or late, crashes between any two durable steps, machines that are
//! lost, operators who hand over and choose, and disks that are put back. In each [scope](scope) all states are visited. With every
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
mod choice;
mod client;
mod fault;
mod guard;
mod property;
mod replica;
mod scope;
mod server;
mod set;
mod state;
mod takeover;
mod without;

use std::collections::BTreeSet;
use std::time::Instant;

use mfpsync_tests::rounds;
use stateright::{Checker, Expectation, HasDiscoveries, Model as _};

use self::property::{
    CHOSEN, CHOSEN_TWICE, CONTESTED, FORK_REFUSED, HANDED_BACK, MOVED_TWICE, NOT_TAKEN_OVER, OFFERED,
    PUT_BACK, RECOVERED, REUSED, ROLLED_BACK, SEALED, SURPLUS, SWAPPED,
};
use self::scope::{
    COMPETING, HANDOVER, HANDOVER_PUT_BACK, HEARD, Model, RECOVERY, RECOVERY_SYNC, REPLACED, REPLACED_SYNC,
    REPLICA_PUT_BACK, RIVALS, SERVER_PUT_BACK, STAY, STAY_PUT_BACK, Scope, TAKEOVER, TAKEOVER_SYNC, larger,
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
fn i_13_a_server_and_its_replica_exchange_their_roles() {
    holds(HANDOVER, &[SEALED, SWAPPED, REUSED, HANDED_BACK, NOT_TAKEN_OVER]);
}

#[test]
fn i_13_a_recovery_makes_one_server() {
    holds(RECOVERY, &[SURPLUS, SEALED, OFFERED, RECOVERED, SWAPPED, REUSED, NOT_TAKEN_OVER]);
}

#[test]
fn i_15_with_sync_a_recovery_loses_nothing() {
    holds(RECOVERY_SYNC, &[SURPLUS, SEALED, OFFERED, RECOVERED, SWAPPED, REUSED]);
}

#[test]
fn i_13_a_recovery_and_a_takeover_exclude_each_other() {
    holds(RIVALS, &[SEALED, RECOVERED, MOVED_TWICE, HANDED_BACK]);
}

#[test]
fn i_08_a_choice_between_two_reigns_loses_nothing() {
    let twice: &[_] = if rounds(0, 1) == 1 { &[CHOSEN_TWICE] } else { &[] };
    holds(STAY, &[&[SEALED, OFFERED, CONTESTED, CHOSEN], twice].concat());
}

/// How two replicas come about is among it: more states than each run has time for.
#[test]
fn i_08_a_replica_that_was_replaced_takes_over_as_well() {
    if rounds(0, 1) == 1 {
        holds(REPLACED, &[SURPLUS, SEALED, OFFERED, CONTESTED]);
        holds(REPLACED_SYNC, &[SURPLUS, SEALED, OFFERED]);
    }
}

#[test]
fn i_04_a_server_that_was_put_back_is_noticed() {
    holds(SERVER_PUT_BACK, &[ROLLED_BACK]);
}

#[test]
fn i_13_two_reigns_of_one_number_are_noticed() {
    holds(REPLICA_PUT_BACK, &[SURPLUS, SEALED, OFFERED, FORK_REFUSED]);
}

#[test]
fn i_08_a_choice_ends_a_reign_of_before_a_disk_was_put_back() {
    holds(STAY_PUT_BACK, &[SURPLUS, SEALED, OFFERED, FORK_REFUSED]);
}

#[test]
fn i_11_a_server_that_was_put_back_and_handed_over_is_no_copy() {
    if rounds(0, 1) == 1 {
        holds(HANDOVER_PUT_BACK, &[SEALED, SWAPPED, REUSED, ROLLED_BACK]);
    }
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
