use mfpsync_storage::model::{Chain, DeviceId, PromotionReason};

use super::*;

const GROUP: GroupId = GroupId([7; 16]);

fn epoch(number: u64, nonce: u8) -> Epoch {
    Epoch { number, nonce: [nonce; 16] }
}

fn parent(epoch: Epoch, sequence: u64) -> Parent {
    let chain = Chain([u8::try_from(sequence).unwrap(); 32]);
    Parent { epoch, sequence: Sequence(sequence), chain, transaction: 0, page_digest: [0; 16] }
}

fn reign(epoch: Epoch, parent: Option<Parent>) -> Promotion {
    Promotion {
        group: GROUP,
        epoch,
        parent,
        ends: Vec::new(),
        device: DeviceId([1; 16]),
        operator: "admin".to_owned(),
        reason: PromotionReason::Promoted,
        made_at: 0,
    }
}

/// A chain given as (number, nonce, parent sequence).
fn chain(links: &[(u64, u8, u64)]) -> Result<Lineage, LineageError> {
    let mut before: Option<Epoch> = None;
    let promotions = links.iter().map(|&(number, nonce, sequence)| {
        let this = epoch(number, nonce);
        reign(this, before.replace(this).map(|before| parent(before, sequence)))
    });
    Lineage::new(GROUP, promotions.collect())
}

fn cursor(number: u64, nonce: u8, sequence: u64) -> Cursor {
    let chain = Chain([u8::try_from(sequence).unwrap(); 32]);
    Cursor { group: GROUP, epoch: epoch(number, nonce), sequence: Sequence(sequence), chain }
}

fn three() -> Lineage {
    chain(&[(1, 1, 0), (2, 2, 100), (5, 5, 150)]).unwrap()
}

#[test]
fn a_cursor_continues_up_to_the_fork_and_not_past_it() {
    let lineage = three();
    let table = [
        (cursor(5, 5, 200), Standpoint::Continue),
        (cursor(5, 5, 120), Standpoint::Continue),
        (cursor(2, 2, 150), Standpoint::Continue),
        (cursor(2, 2, 151), Standpoint::PastFork { fork: Sequence(150) }),
        (cursor(1, 1, 100), Standpoint::Continue),
        (cursor(1, 1, 101), Standpoint::PastFork { fork: Sequence(100) }),
        (cursor(2, 9, 10), Standpoint::Unknown),
        (cursor(3, 3, 10), Standpoint::Unknown),
        (cursor(6, 6, 10), Standpoint::Unknown),
        (Cursor { group: GroupId([8; 16]), ..cursor(5, 5, 10) }, Standpoint::Unknown),
        (Cursor { chain: Chain::START, ..cursor(2, 2, 150) }, Standpoint::Unknown),
    ];
    for (cursor, place) in table {
        assert_eq!(lineage.standpoint(&cursor), place, "{cursor:?}");
    }
}

#[test]
fn a_lineage_may_begin_after_the_founding() {
    let tail = Lineage::new(GROUP, vec![reign(epoch(4, 4), Some(parent(epoch(3, 3), 90)))]).unwrap();
    assert_eq!(tail.standpoint(&cursor(3, 3, 90)), Standpoint::Continue);
    assert_eq!(tail.standpoint(&cursor(3, 3, 91)), Standpoint::PastFork { fork: Sequence(90) });
    assert_eq!(tail.standpoint(&cursor(2, 2, 1)), Standpoint::Unknown);
    assert_eq!(tail.epoch_of(Sequence(90)), 3);
    assert_eq!(tail.highest().epoch, epoch(4, 4));
}

/// Proves I-13.
#[test]
fn records_that_form_no_chain_are_refused() {
    let founded = || reign(epoch(1, 1), None);
    let second = |nonce| reign(epoch(2, nonce), Some(parent(epoch(1, 1), 50)));
    let third = |from, sequence| reign(epoch(3, 3), Some(parent(from, sequence)));
    let mut foreign = second(2);
    foreign.group = GroupId([8; 16]);
    let mut other_chain = third(epoch(2, 2), 50);
    if let Some(parent) = &mut other_chain.parent {
        parent.chain = Chain::START;
    }
    let table = [
        (vec![], LineageError::Empty),
        (vec![founded(), foreign], LineageError::ForeignGroup(2)),
        (vec![founded(), second(2), second(9)], LineageError::Fork { parent: 1 }),
        (vec![founded(), second(2), third(epoch(2, 9), 60)], LineageError::Broken(3)),
        (vec![founded(), founded()], LineageError::Broken(1)),
        (vec![founded(), second(2), third(epoch(2, 2), 49)], LineageError::SequenceFalls(3)),
        (vec![founded(), second(2), other_chain], LineageError::Broken(3)),
        (vec![reign(epoch(3, 3), Some(parent(epoch(3, 2), 1)))], LineageError::NumberFalls(3)),
        (vec![reign(epoch(0, 1), None)], LineageError::NumberFalls(0)),
    ];
    for (records, error) in table {
        assert_eq!(Lineage::new(GROUP, records), Err(error));
    }
}

#[test]
fn a_base_counts_as_far_as_this_history_has_it() {
    let lineage = three();
    let base = |epoch, sequence| lineage.base(Revision { epoch, sequence: Sequence(sequence) }).0;
    assert_eq!(base(5, 170), 170);
    assert_eq!(base(2, 140), 140);
    assert_eq!(base(2, 190), 150);
    assert_eq!(base(1, 130), 100);
    assert_eq!(base(4, 130), 0);
    assert_eq!(base(0, 0), 0);
}

#[test]
fn each_sequence_was_given_by_one_reign() {
    let lineage = three();
    let given = [(1, 1), (100, 1), (101, 2), (150, 2), (151, 5), (999, 5), (0, 1)];
    for (sequence, number) in given {
        assert_eq!(lineage.epoch_of(Sequence(sequence)), number, "{sequence}");
    }
}

#[test]
fn two_lineages_are_told_apart() {
    let ours = three();
    let longer = chain(&[(1, 1, 0), (2, 2, 100), (5, 5, 150), (6, 6, 180), (7, 7, 190)]).unwrap();
    let tail = Lineage::new(GROUP, vec![reign(epoch(8, 8), Some(parent(epoch(5, 5), 200)))]).unwrap();
    let restored = chain(&[(1, 1, 0), (2, 2, 100), (6, 9, 120)]).unwrap();
    let sibling = chain(&[(1, 1, 0), (2, 2, 100), (5, 9, 140), (6, 6, 160)]).unwrap();
    let other = chain(&[(1, 2, 0), (9, 9, 1)]).unwrap();
    let table = [
        (&ours, Relation::Same),
        (&longer, Relation::Extended { fork: Sequence(180) }),
        (&tail, Relation::Extended { fork: Sequence(200) }),
        (&restored, Relation::Replaced { fork: Sequence(120) }),
        (&sibling, Relation::Forked { parent: 2 }),
        (&other, Relation::Unrelated),
    ];
    for (theirs, relation) in table {
        assert_eq!(ours.relation(theirs), relation);
    }
    assert_eq!(longer.relation(&ours), Relation::Behind);
    assert_eq!(tail.relation(&ours), Relation::Behind);
    assert_eq!(sibling.relation(&ours), Relation::Forked { parent: 2 });
}

#[test]
fn a_choice_between_two_reigns_leads_the_followers_of_the_other_one() {
    let chosen = |mut lineage: Lineage, ends: &[Epoch]| {
        lineage.highest.ends = ends.to_vec();
        lineage
    };
    let stays = |nonce| chain(&[(1, 1, 0), (2, nonce, 100), (3, nonce, 130)]).unwrap();
    let other = chain(&[(1, 1, 0), (2, 9, 90)]).unwrap();
    assert_eq!(other.relation(&stays(2)), Relation::Forked { parent: 1 });
    let kept = chosen(stays(2), &[epoch(2, 9)]);
    assert_eq!(other.relation(&kept), Relation::Replaced { fork: Sequence(90) });
    let contested = |epoch| kept.is_contested_by(&epoch);
    assert!(!contested(epoch(2, 9)) && !contested(epoch(1, 1)) && !contested(epoch(4, 4)));
    assert!(contested(epoch(2, 8)) && contested(epoch(3, 9)) && stays(2).is_contested_by(&epoch(2, 9)));
    // The other one went on before it heard: a person decides again.
    let went_on = chain(&[(1, 1, 0), (2, 9, 90), (3, 9, 95)]).unwrap();
    assert_eq!(went_on.relation(&kept), Relation::Forked { parent: 1 });
    assert_eq!(kept.relation(&went_on), Relation::Forked { parent: 1 });
    let settled = chosen(went_on.clone(), &[epoch(3, 2)]);
    assert_eq!(kept.relation(&settled), Relation::Replaced { fork: Sequence(90) });
}
