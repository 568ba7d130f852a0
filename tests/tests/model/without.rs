//! Without any one guard something falls: what, and how few steps that takes.

use std::num::NonZeroUsize;

use stateright::{Checker, HasDiscoveries, Model as _};

use super::act::{Act, Heard, Way};
use super::guard::Guard;
use super::property::{
    CHOICE_HOLDS, CONTESTED_IS_STILL, ENDS_BY_SUCCESSOR, IS_FED, NEVER_BACK, NO_REUSE, NOT_DISCARDED,
    NOT_LOST, NOTHING_ENDED, ONCE, ONE_SUCCESSOR, PLAN_IS_LOSSLESS, SEALED_IS_SILENT, SYNC_OUTLASTS,
    choice_holds, not_lost,
};
use super::scope::{
    Appoints, COMPETING, HANDOVER, HANDOVER_PUT_BACK, HEARD, Model, RECOVERY, REPLACED, REPLACED_SYNC,
    REPLICA_PUT_BACK, RIVALS, SERVER_PUT_BACK, STAY, Scope, TAKEOVER, TAKEOVER_SYNC,
};
use super::state::Who::{Replica, Server, Spare};
use super::state::{Breach, State, Who};

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
    falls(Guard::NonceTellsReignsApart, REPLICA_PUT_BACK, NEVER_BACK, 17);
}

#[test]
fn i_14_needs_that_seal_is_durable() {
    falls(Guard::SealIsDurable, TAKEOVER, SEALED_IS_SILENT, 13);
}

#[test]
fn i_14_needs_that_sealed_takes_nothing() {
    falls(Guard::SealedTakesNothing, TAKEOVER, SEALED_IS_SILENT, 11);
}

#[test]
fn i_13_needs_that_claims_are_verified() {
    falls(Guard::ClaimsAreVerified, TAKEOVER, ENDS_BY_SUCCESSOR, 2);
}

#[test]
fn i_14_needs_that_starts_not_below_what_was_seen() {
    falls(Guard::StartsNotBelowWhatWasSeen, TAKEOVER, SEALED_IS_SILENT, 14);
}

#[test]
fn i_13_needs_that_decides_by_what_was_seen() {
    falls(Guard::DecidesByWhatWasSeen, HANDOVER, ONE_SUCCESSOR, 20);
}

#[test]
fn i_15_needs_that_nothing_of_an_ended_reign() {
    falls(Guard::NothingOfAnEndedReign, REPLACED_SYNC, NOTHING_ENDED, 12);
}

#[test]
fn i_15_needs_that_floor_is_read_each_time() {
    falls(Guard::FloorIsReadEachTime, REPLACED_SYNC, NOTHING_ENDED, 12);
}

#[test]
fn i_13_needs_that_one_replica() {
    falls(Guard::OneReplica, RIVALS, ONE_SUCCESSOR, 17);
}

#[test]
fn i_16_needs_that_ships_to_its_replica() {
    falls(Guard::ShipsToItsReplica, REPLACED_SYNC, SYNC_OUTLASTS, 14);
}

#[test]
fn i_17_needs_that_waits_for_the_copy() {
    falls(Guard::WaitsForTheCopy, HANDOVER, PLAN_IS_LOSSLESS, 10);
}

#[test]
fn i_17_needs_that_asks_once_more() {
    falls(Guard::AsksOnceMore, HANDOVER, PLAN_IS_LOSSLESS, 10);
}

#[test]
fn i_06_needs_that_decides_what_is_under_way() {
    falls(Guard::DecidesWhatIsUnderWay, HANDOVER, IS_FED, 12);
}

#[test]
fn i_11_needs_that_reused_where_nothing_is_left() {
    falls(Guard::ReusedWhereNothingIsLeft, RECOVERY, NOT_DISCARDED, 28);
}

#[test]
fn i_14_needs_that_stays_while_it_reigns() {
    falls(Guard::StaysWhileItReigns, Scope { reigns: 5, ..STAY }, SEALED_IS_SILENT, 16);
}

#[test]
fn i_08_needs_that_chosen_ends_the_others() {
    falls(Guard::ChosenEndsTheOthers, STAY, CHOICE_HOLDS, 15);
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
    falls(Guard::RetainedUntilSafe, TAKEOVER, NOT_LOST, 14);
}

#[test]
fn i_17_needs_that_retained_is_offered() {
    falls(Guard::RetainedIsOffered, TAKEOVER, NOT_LOST, 14);
}

/// Where all ways are too many, one is followed. It begins where a run does.
fn follow(scope: Scope, without: Option<Guard>, way: &[&[Act]]) -> (Model, State) {
    let model = Model::new(scope, without);
    let step = |state: State, act: &Act| {
        model.after(&state, *act).unwrap_or_else(|| panic!("{act:?} is not possible in {state:?}"))
    };
    let end = way.concat().iter().fold(model.begins(), step);
    (model, end)
}

/// A replica takes over, from the operator's decision to the open port.
fn takes_over(who: Who, way: Way) -> Vec<Act> {
    use Act::*;
    let mut acts = vec![Promote(who, way)];
    acts.extend((way == Way::HandedOver).then_some(AskAgain(who)));
    acts.extend([Decide(who), Place(who), Reign(who), EndTakeover(who), Open(who)]);
    acts
}

#[test]
fn i_17_needs_that_undecided_is_offered() {
    use Act::*;
    let served = [Edit(0), Edit(1), Open(Server), Greet(0, Server), Push(0)];
    let put_back =
        [Connect(Replica, Server), Copy(Server), Write(0), Ship(Replica, Heard::Yes), PutBack(Server)];
    let acknowledged = [Open(Server), Greet(1, Server), Push(1), Write(1), Settle(1)];
    let lost = takes_over(Replica, Way::Lost);
    let way: [&[Act]; 5] = [&served, &put_back, &acknowledged, &lost, &[Greet(1, Replica), Pull(1)]];
    let scope = Scope { promotion: true, ..SERVER_PUT_BACK };
    let holds = |without| {
        let (model, end) = follow(scope, without, &way);
        not_lost(&model, &end)
    };
    assert!(holds(None));
    assert!(!holds(Some(Guard::UndecidedIsOffered)));
}

/// A server hands over, is put back to before its last change, and makes another one.
#[test]
fn i_11_needs_that_reused_of_the_same_history() {
    use Act::*;
    let served = [Edit(0), Edit(1), Open(Server), Greet(0, Server), Push(0), Connect(Replica, Server)];
    let copied = [Copy(Server), Write(0), Ship(Replica, Heard::Yes), StandDown(Replica)];
    let handed_over = takes_over(Replica, Way::HandedOver);
    let put_back = [PutBack(Server), Open(Server), Greet(1, Server), Push(1), Write(1)];
    let way: [&[Act]; 5] = [
        &served,
        &copied,
        &handed_over,
        &put_back,
        &[Ask(Server, Replica), Stop(Server), Meet(Server, Replica)],
    ];
    let scope = Scope { clients: 2, ..HANDOVER_PUT_BACK };
    let (model, end) = follow(scope, None, &way);
    assert_eq!(model.after(&end, Seed(Server)), None);
    let (model, end) = follow(scope, Some(Guard::ReusedOfTheSameHistory), &way);
    assert!(model.after(&end, Seed(Server)).unwrap().breaches.has(Breach::Discarded));
}

/// The spare machine becomes the replica in the place of another one, and takes over.
fn parts() -> Vec<Act> {
    use Act::*;
    let named = [Open(Server), Appoint(Spare, Server), Meet(Spare, Server), Connect(Spare, Server)];
    [&named[..], &[Ship(Spare, Heard::Yes)], &takes_over(Spare, Way::Lost)].concat()
}

/// Two branches of two reigns each, and a device that slept since the first one.
#[test]
fn i_08_needs_that_chosen_ends_those_before() {
    use Act::*;
    let asleep = [Greet(0, Spare)];
    let beside = takes_over(Replica, Way::Lost);
    let moved = [Ask(Replica, Server), Stop(Server), Appoint(Server, Replica), Meet(Server, Replica)];
    let copied = [Connect(Server, Replica), Ship(Server, Heard::Yes)];
    let again = takes_over(Server, Way::Lost);
    let chosen = [Ask(Spare, Replica), Stay(Spare), Ask(Server, Spare), Stay(Server)];
    let parts = parts();
    let way: [&[Act]; 7] = [&parts, &asleep, &beside, &moved, &copied, &again, &chosen];
    let scope = Scope { edits: 0, reigns: 6, appoints: Appoints::Any, ..REPLACED };
    let holds = |without| {
        let (model, end) = follow(scope, without, &way);
        choice_holds(&model, &end)
    };
    assert!(holds(None));
    assert!(!holds(Some(Guard::ChosenEndsThoseBefore)));
}

/// A device edits what it saw in the reign that is ended, under a sequence that the chosen one gave to something
/// else.
#[test]
fn i_08_needs_that_bases_are_limited() {
    use Act::*;
    let replica = [Ask(Spare, Server), Stop(Server), Appoint(Server, Spare), Meet(Server, Spare)];
    let beside = takes_over(Replica, Way::Lost);
    let there = [Greet(0, Replica), Edit(0), Push(0), Write(0), Settle(0)];
    let here = [Connect(Server, Spare), Greet(1, Spare), Edit(1), Push(1), Write(1), Settle(1)];
    let safe = [Ship(Server, Heard::Yes), Pull(1), Edit(1)];
    let chosen = [Ask(Replica, Spare), Stay(Replica), Greet(1, Replica), Push(1), Write(1)];
    let parts = parts();
    let way: [&[Act]; 7] = [&parts, &replica, &beside, &there, &here, &safe, &chosen];
    let scope = Scope { clients: 2, edits: 3, one_item: true, appoints: Appoints::Any, ..REPLACED };
    let falls = |without| follow(scope, without, &way).1.breaches.has(Breach::OverUnseen);
    assert!(!falls(None));
    assert!(falls(Some(Guard::BasesAreLimited)));
}

#[test]
fn i_13_needs_that_contested_takes_nothing() {
    falls(Guard::ContestedTakesNothing, STAY, CONTESTED_IS_STILL, 16);
}

#[test]
fn i_17_needs_that_mirror_is_offered() {
    falls(Guard::MirrorIsOffered, TAKEOVER, NOT_LOST, 15);
}

#[test]
fn i_17_needs_that_met_and_offered_at_once() {
    falls(Guard::MetAndOfferedAtOnce, TAKEOVER, NOT_LOST, 16);
}

#[test]
fn i_17_needs_that_heard_is_not_met() {
    falls(Guard::HeardIsNotMet, HEARD, NOT_LOST, 16);
}

#[test]
fn i_17_needs_that_answers_belong_to_a_connection() {
    falls(Guard::AnswersBelongToAConnection, TAKEOVER, NOT_LOST, 14);
}

#[test]
fn i_13_needs_that_forks_are_refused() {
    falls(Guard::ForksAreRefused, REPLICA_PUT_BACK, NEVER_BACK, 17);
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
