//! Without any one guard something falls: what, and how few steps that takes.

use std::num::NonZeroUsize;

use mfpsync_tests::rounds;
use stateright::{Checker, HasDiscoveries, Model as _};

use super::act::Act;
use super::guard::Guard;
use super::property::{
    CONTESTED_IS_STILL, ENDS_BY_SUCCESSOR, NEVER_BACK, NO_REUSE, NOT_DISCARDED, NOT_LOST, NOTHING_ENDED,
    ONCE, ONE_SUCCESSOR, PLAN_IS_LOSSLESS, SEALED_IS_SILENT, SYNC_OUTLASTS, not_lost,
};
use super::scope::{
    COMPETING, HEARD, Model, RECOVERY, RECOVERY_SYNC, REPLICA_PUT_BACK, RIVALS, SERVER_PUT_BACK, Scope,
    TAKEOVER, TAKEOVER_SYNC, larger,
};
use super::state::State;
use super::state::Who::{Replica, Server};

/// Leaves a guard out, and finds the shortest way on which the property falls.
fn falls(guard: Guard, scope: Scope, property: &'static str, steps: usize) {
    let mut shortest = path(guard, scope, property, None).expect("nothing falls");
    while let Some(shorter) = path(guard, scope, property, NonZeroUsize::new(shortest.len())) {
        shortest = shorter;
    }
    println!("without {guard:?}, {property} falls in {}, {} steps: {shortest:?}", scope.name, shortest.len());
    assert_eq!(shortest.len(), steps, "docs/model.md names another length");
}

/// Some way of fewer steps than `below` on which the property falls.
fn path(guard: Guard, scope: Scope, property: &'static str, below: Option<NonZeroUsize>) -> Option<Vec<Act>> {
    let checker = Model::new(scope, Some(guard)).checker();
    let checker = checker.finish_when(HasDiscoveries::AnyOf([property].into()));
    let checker = match below {
        // Depths count states, of which a path has one more than steps.
        Some(below) => checker.target_max_depth(below.get() + 1),
        None => checker,
    };
    Some(checker.spawn_bfs().join().discovery(property)?.into_actions())
}

#[test]
fn every_guard_is_left_out_in_a_test() {
    let tests = include_str!("without.rs");
    for guard in Guard::ALL {
        assert!(tests.contains(&format!("Guard::{guard:?}")), "{guard:?} is never left out");
    }
}

#[test]
fn i_13_needs_that_nonce_tells_reigns_apart() {
    falls(Guard::NonceTellsReignsApart, REPLICA_PUT_BACK, NEVER_BACK, 15);
}

#[test]
fn i_14_needs_that_seal_is_durable() {
    falls(Guard::SealIsDurable, TAKEOVER, SEALED_IS_SILENT, 12);
}

#[test]
fn i_14_needs_that_sealed_takes_nothing() {
    falls(Guard::SealedTakesNothing, TAKEOVER, SEALED_IS_SILENT, 10);
}

#[test]
fn i_13_needs_that_claims_are_verified() {
    falls(Guard::ClaimsAreVerified, TAKEOVER, ENDS_BY_SUCCESSOR, 2);
}

#[test]
fn i_14_needs_that_starts_not_below_what_was_seen() {
    falls(Guard::StartsNotBelowWhatWasSeen, TAKEOVER, SEALED_IS_SILENT, 13);
}

#[test]
fn i_13_needs_that_decides_by_what_was_seen() {
    falls(Guard::DecidesByWhatWasSeen, RIVALS, ONE_SUCCESSOR, 10);
}

#[test]
fn i_15_needs_that_nothing_of_an_ended_reign() {
    falls(Guard::NothingOfAnEndedReign, RECOVERY, NOTHING_ENDED, 9);
}

#[test]
fn i_15_needs_that_floor_is_read_each_time() {
    falls(Guard::FloorIsReadEachTime, RECOVERY, NOTHING_ENDED, 9);
}

#[test]
fn i_17_needs_that_activated_where_it_stands() {
    falls(Guard::ActivatedWhereItStands, RECOVERY_SYNC, SYNC_OUTLASTS, 10);
}

#[test]
fn i_13_needs_that_serves_once_activated() {
    falls(Guard::ServesOnceActivated, RIVALS, ONE_SUCCESSOR, 9);
}

#[test]
fn i_16_needs_that_sync_waits() {
    falls(Guard::SyncWaits, TAKEOVER_SYNC, SYNC_OUTLASTS, 8);
}

#[test]
fn i_16_needs_that_repeated_waits_as_well() {
    falls(Guard::RepeatedWaitsAsWell, TAKEOVER_SYNC, SYNC_OUTLASTS, 12);
}

#[test]
fn i_16_needs_that_shows_what_is_confirmed() {
    falls(Guard::ShowsWhatIsConfirmed, TAKEOVER_SYNC, SYNC_OUTLASTS, 8);
}

#[test]
fn i_03_needs_that_operations_are_remembered() {
    falls(Guard::OperationsAreRemembered, COMPETING, ONCE, 13);
}

#[test]
fn i_17_needs_that_retained_until_safe() {
    falls(Guard::RetainedUntilSafe, TAKEOVER, NOT_LOST, 13);
}

#[test]
fn i_17_needs_that_retained_is_offered() {
    falls(Guard::RetainedIsOffered, TAKEOVER, NOT_LOST, 13);
}

/// A put back server and a takeover behind it: more states than anybody has time for, so one way is followed.
#[test]
fn i_17_needs_that_undecided_is_offered() {
    use Act::*;
    let put_back = [Edit(0), Edit(1), Open(Server), Greet(0, Server), Push(0), Connect(Server), Copy(Server)];
    let twice = [Write(0), Ship { heard: true }, PutBack(Server), Open(Server), Greet(1, Server), Push(1)];
    let acknowledged = [Write(1), Settle(1), Promote { planned: false }, Decide, Place, Reign(Replica)];
    let met = [Open(Replica), Greet(1, Replica), Pull(1)];
    let way = [&put_back[..], &twice, &acknowledged, &met].concat();
    let scope = Scope { promotion: true, ..SERVER_PUT_BACK };
    let end = |without| {
        let model = Model::new(scope, without);
        let step = |state: State, act: &Act| model.after(&state, *act).expect("each act is possible");
        not_lost(&model, &way.iter().fold(State::new(), step))
    };
    assert!(end(None));
    assert!(!end(Some(Guard::UndecidedIsOffered)));
}

#[test]
fn i_13_needs_that_contested_takes_nothing() {
    // Two clients, which follow one reign each.
    if rounds(0, 1) == 1 {
        falls(Guard::ContestedTakesNothing, larger(REPLICA_PUT_BACK), CONTESTED_IS_STILL, 17);
    }
}

#[test]
fn i_17_needs_that_mirror_is_offered() {
    falls(Guard::MirrorIsOffered, TAKEOVER, NOT_LOST, 14);
}

#[test]
fn i_17_needs_that_met_and_offered_at_once() {
    falls(Guard::MetAndOfferedAtOnce, TAKEOVER, NOT_LOST, 15);
}

#[test]
fn i_17_needs_that_heard_is_not_met() {
    falls(Guard::HeardIsNotMet, HEARD, NOT_LOST, 15);
}

#[test]
fn i_17_needs_that_answers_belong_to_a_connection() {
    falls(Guard::AnswersBelongToAConnection, TAKEOVER, NOT_LOST, 13);
}

#[test]
fn i_13_needs_that_forks_are_refused() {
    falls(Guard::ForksAreRefused, REPLICA_PUT_BACK, NEVER_BACK, 15);
}

#[test]
fn i_04_needs_that_less_than_before_is_refused() {
    falls(Guard::LessThanBeforeIsRefused, SERVER_PUT_BACK, NO_REUSE, 12);
}

#[test]
fn i_17_needs_that_forgotten_answers_are_refused() {
    falls(Guard::ForgottenAnswersAreRefused, SERVER_PUT_BACK, NOT_LOST, 10);
}

#[test]
fn i_04_needs_that_other_history_is_refused() {
    falls(Guard::OtherHistoryIsRefused, SERVER_PUT_BACK, NEVER_BACK, 15);
}

#[test]
fn i_04_needs_that_rolled_back_takes_nothing() {
    falls(Guard::RolledBackTakesNothing, SERVER_PUT_BACK, NO_REUSE, 14);
}

#[test]
fn i_11_needs_that_copy_ahead_is_kept() {
    falls(Guard::CopyAheadIsKept, SERVER_PUT_BACK, NOT_DISCARDED, 12);
}

#[test]
fn i_11_needs_that_copy_of_another_history_is_kept() {
    falls(Guard::CopyOfAnotherHistoryIsKept, SERVER_PUT_BACK, NOT_DISCARDED, 16);
}

#[test]
fn i_17_needs_that_decided_in_the_writer() {
    falls(Guard::DecidedInTheWriter, TAKEOVER, PLAN_IS_LOSSLESS, 9);
}
