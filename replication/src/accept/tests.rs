//! Whose incarnation a push may name, how much stays unconfirmed, and what users may have.

use mfpsync_storage::master::{Founding, Master};
use mfpsync_storage::model::{
    Base, Capabilities, Epoch, GroupId, IssuingCertificate, Member, Promotion, PromotionReason, PublicKey,
    Signed, Value,
};
use mfpsync_storage::{Error, Inline};

use proptest::prelude::*;

use super::*;
use crate::follow::{Noted, note};

const OWN: DeviceId = DeviceId([1; 16]);
const OTHER: DeviceId = DeviceId([2; 16]);
const LIFE: Incarnation = Incarnation(7);

fn signed<T>(record: T, body: Vec<u8>) -> Signed<T> {
    Signed { record, body, signature: [0; 64] }
}

pub(super) fn master() -> Inline<Master> {
    let group = GroupId([7; 16]);
    let promotion = Promotion {
        group,
        epoch: Epoch { number: 1, nonce: [9; 16] },
        parent: None,
        ends: Vec::new(),
        device: OWN,
        operator: "admin".to_owned(),
        reason: PromotionReason::Founded,
        made_at: 0,
    };
    let issuer = IssuingCertificate { group, device: OWN, public_key: PublicKey([2; 32]) };
    let member = Member {
        group,
        device: OWN,
        public_key: PublicKey([1; 32]),
        name: "printer".to_owned(),
        capabilities: Capabilities::CLIENT,
        released: false,
        version: 1,
        endpoints: Vec::new(),
        issuer: OWN,
    };
    let founding = Founding {
        group_name: "office".to_owned(),
        root_key: PublicKey([3; 32]),
        promotion: signed(promotion.clone(), promotion.body()),
        issuer: signed(issuer.clone(), issuer.body()),
        member: signed(member.clone(), member.body()),
    };
    let mut master: Inline<Master> = Inline::in_memory().unwrap();
    master.write(|write| write.found(&founding)).unwrap();
    master
}

fn put(scope: &str, id: &str, text: &str) -> Edit {
    let fields = [("text", Value::Text(text.to_owned()))].into_iter().collect();
    let key = ItemKey::parse(scope, "x", "", id).unwrap();
    Edit { key, base: Base::default(), action: Action::Put(fields) }
}

fn push(device: DeviceId, number: u64, low_water: u64, edit: Edit) -> Submission {
    let number = OperationNumber(number);
    let operation =
        Operation { number, made_at: 0, actor: String::new(), yields: false, was: None, edits: vec![edit] };
    Submission {
        device,
        incarnation: LIFE,
        low_water: OperationNumber(low_water),
        operations: vec![operation.encode()],
        now: 0,
    }
}

fn answer(master: &mut Inline<Master>, submission: &Submission, limits: Limits) -> Answer {
    master.write(|write| accept(write, &mut Usage::default(), submission, limits)).unwrap()
}

#[test]
fn another_device_s_incarnation_is_neither_used_nor_confirmed() {
    let mut master = master();
    let first = push(OWN, 1, 0, put("user/a", "1", "x"));
    assert!(matches!(answer(&mut master, &first, Limits::default()), Answer::Outcomes(_)));
    let ledger = |master: &Inline<Master>| master.read(|read| read.ledger(LIFE)).unwrap();
    let before = ledger(&master);
    for number in [1, 2] {
        let theirs = push(OTHER, number, 1, put("user/a", "2", "y"));
        assert_eq!(answer(&mut master, &theirs, Limits::default()), Answer::OtherIncarnation);
    }
    assert_eq!(ledger(&master), before);
    assert!(master.read(|read| read.progress(OTHER)).unwrap().is_none(), "no contradiction of its own");
    let mut noted = |device| master.write(|write| note(write, device, LIFE, Sequence(1), true)).unwrap();
    assert_eq!((noted(OTHER), noted(OWN)), (Noted::OtherIncarnation, Noted::Done));
    assert!(master.read(|read| read.progress(OTHER)).unwrap().is_none());
}

#[test]
fn outcomes_that_nobody_confirms_are_bounded() {
    let mut master = master();
    let rejected = Outcome::Rejected { reason: RejectReason::Malformed, edit: 0 };
    let fill = master.write(|write| {
        let mut ledger = write.ledger(LIFE)?;
        (0..UNCONFIRMED).for_each(|_| ledger.record([0; 32], &rejected));
        write.put_ledger(LIFE, OWN, &ledger)
    });
    fill.unwrap();
    let mut next = push(OWN, UNCONFIRMED + 1, 0, put("user/a", "1", "x"));
    assert_eq!(answer(&mut master, &next, Limits::default()), Answer::Unconfirmed);
    next.low_water = OperationNumber(1);
    assert!(matches!(answer(&mut master, &next, Limits::default()), Answer::Outcomes(_)));
    let again = Submission { low_water: OperationNumber(0), ..next };
    assert!(matches!(answer(&mut master, &again, Limits::default()), Answer::Outcomes(_)), "a repetition");
}

#[test]
fn what_is_announced_is_what_is_enforced() {
    let limits = Limits { user_items: 3, user_bytes: 900, ..Limits::default() };
    let announced = limits.announced();
    assert_eq!((announced.user_items, announced.user_bytes), (3, 900));
    assert_eq!(announced.push_operations, mfpsync_proto::limit::PUSH_OPERATIONS);
}

/// What became of one edit of somebody who has seen everything, pushed under the next number.
fn pushed(master: &mut Inline<Master>, edit: Edit, limits: Limits) -> std::result::Result<(), RejectReason> {
    let (last, head) =
        master.read(|read| Ok((read.ledger(LIFE)?.last().0, read.founded_head()?.sequence))).unwrap();
    let base = Base { revision: Revision { epoch: 1, sequence: head }, after: None };
    let edit = Edit { base, ..edit };
    match answer(master, &push(OWN, last + 1, last, edit), limits) {
        Answer::Outcomes(outcomes) => match &outcomes[0].1 {
            Outcome::Accepted { .. } => Ok(()),
            Outcome::Rejected { reason, .. } => Err(*reason),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_group_has_no_more_users_than_it_may() {
    let mut master = master();
    let limits = Limits { users: 2, ..Limits::default() };
    let over = Err(RejectReason::OverLimit);
    assert_eq!(pushed(&mut master, put("user/a", "1", "x"), limits), Ok(()));
    assert_eq!(pushed(&mut master, put("user/b", "1", "x"), limits), Ok(()));
    assert_eq!(pushed(&mut master, put("user/c", "1", "x"), limits), over);
    assert_eq!(pushed(&mut master, put("user/b", "2", "x"), limits), Ok(()), "not a new user");
    assert_eq!(pushed(&mut master, put("shared", "1", "x"), limits), Ok(()));
    assert_eq!(master.read(|read| read.count_users()).unwrap(), 2);
    let delete = Edit { action: Action::Delete, ..put("user/a", "1", "") };
    assert_eq!(pushed(&mut master, delete, limits), Ok(()));
    assert_eq!(pushed(&mut master, put("user/c", "1", "x"), limits), Ok(()), "a place became free");
    assert_eq!(pushed(&mut master, put("user/a", "2", "x"), limits), over);
}

#[test]
fn an_item_grows_only_within_its_user_s_bytes() {
    let mut master = master();
    let limits = Limits { user_bytes: 100, ..Limits::default() };
    let over = Err(RejectReason::OverLimit);
    let mut change =
        |id: &str, length: usize, limits| pushed(&mut master, put("user/a", id, &"x".repeat(length)), limits);
    assert_eq!(change("1", 30, limits), Ok(()));
    assert_eq!(change("2", 30, limits), Ok(()));
    assert_eq!(change("1", 80, limits), over);
    assert_eq!(change("1", 31, limits), Ok(()));
    assert_eq!(change("3", 50, limits), over);
    assert_eq!(change("1", 80, Limits::default()), Ok(()));
    assert_eq!(change("1", 75, limits), Ok(()), "what shrinks may stay over the limit");
}

/// Several devices offer one item of a reign that ended early, as each saw it last.
#[test]
fn of_what_is_offered_again_the_later_one_stands_in_whatever_order_it_comes() {
    let offer = |number, was, yields, text| {
        let edits = vec![put("shared", "1", text)];
        let number = OperationNumber(number);
        let was = Some(Sequence(was));
        let operation = Operation { number, made_at: 0, actor: String::new(), yields, was, edits };
        Submission { operations: vec![operation.encode()], ..push(OWN, number.0, 0, put("shared", "1", "")) }
    };
    let shown = |master: &Inline<Master>| {
        let key = ItemKey::parse("shared", "x", "", "1").unwrap();
        let item = master.read(|read| read.item(&key)).unwrap().unwrap();
        let Some(Value::Text(text)) = item.fields.get("text").cloned() else { panic!("{item:?}") };
        text
    };
    let orders: [[(u64, bool, &str); 3]; 4] = [
        [(50, true, "older"), (105, true, "newer"), (70, true, "between")],
        [(105, true, "newer"), (50, true, "older"), (70, true, "between")],
        [(50, false, "older"), (70, true, "between"), (105, true, "newer")],
        [(105, true, "newer"), (70, false, "between"), (50, false, "older")],
    ];
    for order in orders {
        let mut master = master();
        for (number, (was, yields, text)) in (1..).zip(order) {
            let taken = answer(&mut master, &offer(number, was, yields, text), Limits::default());
            assert!(matches!(taken, Answer::Outcomes(_)), "{taken:?}");
        }
        assert_eq!(shown(&master), "newer", "{order:?}");
        // What somebody edits in the new reign stands against whatever comes late.
        pushed(&mut master, put("shared", "1", "edited"), Limits::default()).unwrap();
        answer(&mut master, &offer(5, 200, true, "late"), Limits::default());
        assert_eq!(shown(&master), "edited");
    }
}

/// What happens to a database while somebody follows what its users have.
#[derive(Debug, Clone)]
enum Step {
    /// A device puts a text of some length, or deletes.
    Pushed { user: u8, item: u8, length: Option<usize> },
    /// The same, and the transaction is undone.
    Undone { user: u8, item: u8, length: usize },
    /// Somebody else writes, also an item of the device's own.
    Written { user: u8, item: u8, own: bool, length: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let (user, item, length) = (0..2u8, 0..4u8, 0..60usize);
    prop_oneof![
        (user.clone(), item.clone(), proptest::option::of(length.clone()))
            .prop_map(|(user, item, length)| Step::Pushed { user, item, length }),
        (user.clone(), item.clone(), length.clone()).prop_map(|(user, item, length)| Step::Undone {
            user,
            item,
            length
        }),
        (user, item, any::<bool>(), length).prop_map(|(user, item, own, length)| Step::Written {
            user,
            item,
            own,
            length
        }),
    ]
}

fn text_of(user: u8, item: u8, length: usize) -> Edit {
    put(&format!("user/{user}"), &item.to_string(), &"x".repeat(length))
}

proptest! {
    #[test]
    fn what_users_have_is_followed_as_it_would_be_counted(steps in proptest::collection::vec(step(), 1..40)) {
        let (mut master, mut usage, mut number) = (master(), Usage::default(), 0);
        let limits = Limits { user_items: 3, user_bytes: 120, ..Limits::default() };
        for step in steps {
            match step {
                Step::Pushed { user, item, length } => {
                    number += 1;
                    let mut edit = text_of(user, item, length.unwrap_or(0));
                    if length.is_none() {
                        edit.action = Action::Delete;
                    }
                    edit.base.revision =
                        Revision { epoch: 1, sequence: master.read(|read| read.founded_head()).unwrap().sequence };
                    let push = push(OWN, number, number - 1, edit);
                    master.write(|write| accept(write, &mut usage, &push, limits)).unwrap();
                }
                Step::Undone { user, item, length } => {
                    let push = push(OWN, number + 1, number, text_of(user, item, length));
                    let undone = master.write(|write| {
                        accept(write, &mut usage, &push, limits)?;
                        Err::<(), _>(Error::Busy)
                    });
                    undone.unwrap_err();
                }
                Step::Written { user, item, own, length } => {
                    let edit = text_of(user, item, length);
                    let Action::Put(fields) = edit.action else { unreachable!() };
                    let device = if own { OWN.to_string() } else { String::new() };
                    let item = ItemWrite {
                        key: ItemKey { device, ..edit.key },
                        deleted: false,
                        fields,
                        touched: vec!["text".to_owned()],
                        sequences: None,
                        lost: Fields::new(),
                        keep_prior: false,
                    };
                    let author = Author {
                        device: OTHER,
                        incarnation: Incarnation(9),
                        operation: OperationNumber(1),
                        actor: String::new(),
                        made_at: 0,
                        accepted_at: 0,
                    };
                    master.write(|write| write.accept(&author, &[item])).unwrap();
                }
            }
            let (followed, counted) = master
                .read(|read| {
                    let head = read.founded_head()?;
                    let (mut followed, mut counted) = (Vec::new(), Vec::new());
                    usage.begin(&head);
                    for user in ["user/0", "user/1"] {
                        let scope = Scope::parse(user).unwrap();
                        followed.push(usage.of(read, &scope, &OWN.to_string())?);
                        counted.push(Usage::default().of(read, &scope, &OWN.to_string())?);
                    }
                    usage.end(&head);
                    Ok((followed, counted))
                })
                .unwrap();
            prop_assert_eq!(followed, counted);
        }
    }
}
