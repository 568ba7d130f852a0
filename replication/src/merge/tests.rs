//! The conflict table row by row, and the corners of the merge.

use mfpsync_storage::model::{Kind, Sealed};

use super::kinds::TABLE;
use super::*;

/// What the author had seen: everything up to here. `theirs` was accepted later, `before` earlier.
const BASE: Sequence = Sequence(5);
const THEIRS: Sequence = Sequence(8);

pub(super) fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn secret(value: &str) -> Value {
    Value::Sealed(Sealed { key_id: vec![1], sealed: value.as_bytes().to_vec() })
}

pub(super) fn fields<const N: usize>(pairs: [(&str, Value); N]) -> Fields {
    pairs.into_iter().collect()
}

fn set<const N: usize>(pairs: [(&str, Value); N]) -> Action {
    Action::Patch { set: fields(pairs), remove: Vec::new() }
}

fn unset(name: &str) -> Action {
    Action::Patch { set: Fields::new(), remove: vec![name.to_owned()] }
}

fn item<const N: usize>(pairs: [(&str, Value, Sequence); N]) -> Standing {
    let mut sequences = FieldSequences::default();
    let mut fields = Fields::new();
    for (name, value, sequence) in pairs {
        fields.insert(name, value);
        sequences.set(name, sequence);
    }
    Standing { fields, deleted: false, sequence: sequences.latest(), sequences }
}

fn tombstone(sequence: Sequence) -> Standing {
    Standing { fields: Fields::new(), sequences: FieldSequences::default(), deleted: true, sequence }
}

fn of(kind: &str) -> Rule {
    rule(&Kind::parse(kind).unwrap())
}

fn merged(kind: &str, standing: &Standing, action: &Action) -> Merge {
    merge(&of(kind), Some(standing), action, &Seen::up_to(BASE))
}

fn written(merge: Merge) -> (Fields, Fields, MergeOutcome) {
    match merge {
        Merge::Write { fields, lost, outcome, .. } => (fields, lost, outcome),
        other => panic!("not written: {other:?}"),
    }
}

fn meets(name: &str) -> MergeOutcome {
    MergeOutcome::Merged { fields: vec![name.to_owned()] }
}

/// Every row of the table: kind, winner of one field, edit against delete, loser kept.
const ROWS: [(&str, &str, &str, bool); 17] = [
    ("ui.language", "later", "edit", true),
    ("ui.start-screen", "later", "edit", true),
    ("ui.accessibility", "later", "edit", true),
    ("button.personal", "later", "edit", true),
    ("job.defaults.copy", "later", "edit", true),
    ("job.defaults.fax", "later", "edit", true),
    ("job.defaults.send", "later", "edit", true),
    ("job.defaults.store", "later", "edit", true),
    ("job.defaults.access", "later", "edit", true),
    ("job.recall", "later", "edit", true),
    ("shortcut", "later", "edit", true),
    ("print.at-login", "later", "edit", true),
    ("address.personal", "later", "edit", true),
    ("address.group", "later", "edit", true),
    ("address.shared", "first", "delete", true),
    ("button.shared", "first", "delete", true),
    ("vendor.hologram", "first", "edit", true),
];

#[test]
fn every_row_decides_one_field_changed_on_both_sides() {
    for (kind, winner, _, _) in ROWS {
        let result = merged(kind, &item([("name", text("theirs"), THEIRS)]), &set([("name", text("ours"))]));
        if winner == "later" {
            let (now, lost, outcome) = written(result);
            assert_eq!(now, fields([("name", text("ours"))]), "{kind}");
            assert_eq!(lost, fields([("name", text("theirs"))]), "{kind}");
            assert_eq!(outcome, meets("name"), "{kind}");
        } else {
            let lost = fields([("name", text("ours"))]);
            let expected = Merge::Superseded { by: THEIRS, fields: vec!["name".to_owned()], lost };
            assert_eq!(result, expected, "{kind}");
        }
    }
}

#[test]
fn every_row_decides_an_edit_against_an_unseen_deletion() {
    for (kind, _, winner, _) in ROWS {
        let result = merged(kind, &tombstone(THEIRS), &Action::Put(fields([("name", text("ours"))])));
        if winner == "edit" {
            let (now, _, outcome) = written(result);
            assert_eq!((now, outcome), (fields([("name", text("ours"))]), meets("name")), "{kind}");
        } else {
            let lost = fields([("name", text("ours"))]);
            assert_eq!(result, Merge::Superseded { by: THEIRS, fields: vec![], lost }, "{kind}");
        }
    }
}

#[test]
fn every_row_decides_a_deletion_against_an_unseen_edit() {
    for (kind, _, winner, _) in ROWS {
        let standing = item([("name", text("theirs"), THEIRS), ("old", text("seen"), BASE)]);
        let result = merged(kind, &standing, &Action::Delete);
        if winner == "edit" {
            let lost = Fields::new();
            assert_eq!(result, Merge::Superseded { by: THEIRS, fields: vec![], lost }, "{kind}");
        } else {
            let Merge::Write { fields: now, deleted, touched, lost, outcome } = result else {
                panic!("{kind}: not written")
            };
            assert!(deleted && now.is_empty(), "{kind}");
            assert_eq!(touched, ["name", "old"], "{kind}");
            assert_eq!((lost, outcome), (fields([("name", text("theirs"))]), meets("name")), "{kind}");
        }
    }
}

#[test]
fn rows_and_table_name_the_same_kinds() {
    let special = ["keychain", "network", "group.settings", "group.sharing", "group.limits", "group.erased"];
    let mut tested: Vec<&str> =
        ROWS.iter().map(|row| row.0).filter(|kind| *kind != "vendor.hologram").collect();
    tested.extend(special);
    tested.sort_unstable();
    let known: Vec<&str> = TABLE.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(tested, known);
    for (kind, _, _, keep) in ROWS {
        assert_eq!(of(kind).keep_loser, keep, "{kind}");
    }
}

#[test]
fn server_only_kinds_are_refused() {
    for kind in ["network", "group.settings", "group.sharing", "group.limits", "group.erased"] {
        for action in [set([("name", text("x"))]), Action::Put(Fields::new()), Action::Delete] {
            let result = merge(&of(kind), None, &action, &Seen::default());
            assert_eq!(result, Merge::Rejected(RejectReason::ReadOnlyKind), "{kind}");
        }
    }
}

#[test]
fn keychain_takes_the_later_secret_and_keeps_no_loser() {
    let standing = item([("password", secret("theirs"), THEIRS)]);
    let (now, lost, outcome) = written(merged("keychain", &standing, &set([("password", secret("ours"))])));
    assert_eq!(now, fields([("password", secret("ours"))]));
    assert_eq!((lost.is_empty(), outcome), (true, meets("password")));
    let Merge::Write { deleted: true, lost, .. } = merged("keychain", &standing, &Action::Delete) else {
        panic!("deletion does not win")
    };
    assert!(lost.is_empty());
    let late = merged("keychain", &tombstone(THEIRS), &set([("password", secret("ours"))]));
    let name = vec!["password".to_owned()];
    assert_eq!(late, Merge::Superseded { by: THEIRS, fields: name, lost: Fields::new() });
}

#[test]
fn keychain_refuses_what_is_not_sealed() {
    let bare = set([("password", secret("a")), ("hint", text("b"))]);
    assert_eq!(
        merge(&of("keychain"), None, &bare, &Seen::default()),
        Merge::Rejected(RejectReason::NotSealed)
    );
    let sealed = Action::Put(fields([("password", secret("a"))]));
    assert!(matches!(merge(&of("keychain"), None, &sealed, &Seen::default()), Merge::Write { .. }));
}

#[test]
fn accessibility_stays_on_when_somebody_switched_it_on() {
    let (on, off) = (Value::Flag(true), Value::Flag(false));
    let kept = |action| merged("ui.accessibility", &item([("large", Value::Flag(true), THEIRS)]), &action);
    let by_ours = Merge::Superseded {
        by: THEIRS,
        fields: vec!["large".to_owned()],
        lost: fields([("large", off.clone())]),
    };
    assert_eq!(kept(set([("large", off.clone())])), by_ours);
    assert!(matches!(kept(unset("large")), Merge::Superseded { .. }));
    assert_eq!(kept(set([("large", on.clone())])), Merge::Unchanged);
    let (now, lost, _) = written(merged(
        "ui.accessibility",
        &item([("large", off.clone(), THEIRS)]),
        &set([("large", on.clone())]),
    ));
    assert_eq!((now, lost), (fields([("large", on)]), fields([("large", off.clone())])));
    let seen = item([("large", Value::Flag(true), BASE)]);
    let (now, _, outcome) = written(merged("ui.accessibility", &seen, &set([("large", off.clone())])));
    assert_eq!((now, outcome), (fields([("large", off)]), MergeOutcome::Applied));
}

#[test]
fn two_different_destinations_are_both_kept() {
    for (kind, name) in [("address.personal", "mail"), ("address.group", "number")] {
        let standing = item([(name, text("a@example.com"), THEIRS)]);
        let action = set([(name, text("b@example.com"))]);
        let result = merged(kind, &standing, &action);
        let slot = format!("{SECOND}{name}");
        let Merge::Write { fields: now, touched, lost, outcome, .. } = result else { panic!("{kind}") };
        assert_eq!(now.get(name), Some(&text("b@example.com")));
        assert_eq!(now.get(&slot), Some(&text("a@example.com")));
        assert_eq!((lost, outcome), (Fields::new(), meets(name)));
        assert_eq!(touched, [name.to_owned(), slot]);
    }
}

#[test]
fn a_folder_is_kept_with_its_host() {
    let standing = item([("host", text("h1"), THEIRS), ("path", text("/a"), BASE)]);
    let (now, lost, _) = written(merged("address.personal", &standing, &set([("path", text("/b"))])));
    let both = [
        ("host", text("h1")),
        ("path", text("/b")),
        ("second.host", text("h1")),
        ("second.path", text("/a")),
    ];
    assert_eq!((now, lost), (fields(both), Fields::new()));
}

#[test]
fn a_seen_destination_is_replaced_without_a_second() {
    let standing = item([("mail", text("a@example.com"), BASE), ("name", text("A"), THEIRS)]);
    let (now, _, outcome) =
        written(merged("address.personal", &standing, &set([("mail", text("b@example.com"))])));
    assert_eq!(now, fields([("mail", text("b@example.com")), ("name", text("A"))]));
    assert_eq!(outcome, MergeOutcome::Applied);
}

#[test]
fn a_third_destination_goes_to_the_history() {
    let standing =
        item([("mail", text("a@example.com"), THEIRS), ("second.mail", text("c@example.com"), THEIRS)]);
    let (now, lost, _) =
        written(merged("address.personal", &standing, &set([("mail", text("b@example.com"))])));
    assert_eq!(now.get("second.mail"), Some(&text("a@example.com")));
    assert_eq!(lost, fields([("second.mail", text("c@example.com"))]));
    let choice = set([("mail", text("b@example.com")), ("second.mail", text("d@example.com"))]);
    let (now, lost, _) = written(merged("address.personal", &standing, &choice));
    assert_eq!(now, fields([("mail", text("b@example.com")), ("second.mail", text("d@example.com"))]));
    assert_eq!(lost, fields([("mail", text("a@example.com")), ("second.mail", text("c@example.com"))]));
}

#[test]
fn ones_next_put_does_not_remove_a_second_destination_one_has_not_seen() {
    let own = Sequence(9);
    let standing = item([("mail", text("b@example.com"), own), ("second.mail", text("a@example.com"), own)]);
    let seen = Seen { base: BASE, own: BTreeSet::from([own]) };
    let put = Action::Put(fields([("mail", text("b@example.com")), ("name", text("B"))]));
    let (now, _, _) = written(merge(&of("address.personal"), Some(&standing), &put, &seen));
    assert_eq!(now.get("second.mail"), Some(&text("a@example.com")));
}

#[test]
fn a_put_leaves_what_its_author_never_saw() {
    let standing = item([("old", text("1"), BASE), ("new", text("2"), THEIRS)]);
    let (now, lost, outcome) =
        written(merged("ui.language", &standing, &Action::Put(fields([("mine", text("3"))]))));
    assert_eq!(now, fields([("mine", text("3")), ("new", text("2"))]));
    assert_eq!((lost.is_empty(), outcome), (true, MergeOutcome::Applied));
}

#[test]
fn ones_own_earlier_operation_is_no_conflict() {
    let standing = item([("name", text("mine"), Sequence(9))]);
    let seen = Seen { base: BASE, own: BTreeSet::from([Sequence(9)]) };
    let result = merge(&of("address.shared"), Some(&standing), &set([("name", text("newer"))]), &seen);
    assert_eq!(written(result).2, MergeOutcome::Applied);
    let between = item([("name", text("other's"), Sequence(8))]);
    let result = merge(&of("address.shared"), Some(&between), &set([("name", text("newer"))]), &seen);
    assert!(matches!(result, Merge::Superseded { by: Sequence(8), .. }));
}

#[test]
fn some_fields_may_lose_while_others_are_taken() {
    let standing = item([("name", text("theirs"), THEIRS), ("icon", text("old"), BASE)]);
    let action = set([("name", text("ours")), ("icon", text("new"))]);
    let (now, lost, outcome) = written(merged("button.shared", &standing, &action));
    assert_eq!(now, fields([("icon", text("new")), ("name", text("theirs"))]));
    assert_eq!(lost, fields([("name", text("ours"))]));
    assert_eq!(outcome, MergeOutcome::Superseded { by: THEIRS, fields: vec!["name".to_owned()] });
}

#[test]
fn removing_a_field_obeys_the_same_rules_as_setting_it() {
    let standing = item([("name", text("theirs"), THEIRS)]);
    let (now, lost, _) = written(merged("ui.language", &standing, &unset("name")));
    assert_eq!((now.is_empty(), lost), (true, fields([("name", text("theirs"))])));
    assert!(matches!(merged("button.shared", &standing, &unset("name")), Merge::Superseded { .. }));
    let mut removed = item([]);
    removed.sequences.set("name", THEIRS);
    let lost = fields([("name", text("ours"))]);
    let by_removal = Merge::Superseded { by: THEIRS, fields: vec!["name".to_owned()], lost };
    assert_eq!(merged("button.shared", &removed, &set([("name", text("ours"))])), by_removal);
}

#[test]
fn a_known_deletion_is_followed_by_a_new_item() {
    for kind in ["keychain", "address.shared", "ui.language"] {
        let value = secret("new");
        let mut gone = tombstone(BASE);
        gone.fields.insert("old", secret("old"));
        let (now, _, outcome) = written(merged(kind, &gone, &set([("name", value.clone())])));
        assert_eq!((now, outcome), (fields([("name", value)]), MergeOutcome::Applied), "{kind}");
    }
}

#[test]
fn a_patch_of_a_deleted_item_builds_on_what_the_history_still_has() {
    let mut gone = tombstone(THEIRS);
    let (now, _, _) = written(merged("address.personal", &gone, &set([("name", text("ours"))])));
    assert_eq!(now, fields([("name", text("ours"))]));
    gone.fields = fields([("mail", text("a@example.com")), ("name", text("old"))]);
    let Merge::Write { fields: now, touched, .. } =
        merged("address.personal", &gone, &set([("name", text("ours"))]))
    else {
        panic!("not written")
    };
    assert_eq!(now, fields([("mail", text("a@example.com")), ("name", text("ours"))]));
    assert_eq!(touched, ["mail", "name"]);
}

#[test]
fn nothing_comes_of_nothing() {
    let rule = of("ui.language");
    let seen = Seen::default();
    assert_eq!(merge(&rule, None, &Action::Delete, &seen), Merge::Unchanged);
    assert_eq!(merge(&rule, None, &unset("name"), &seen), Merge::Unchanged);
    assert_eq!(merge(&rule, Some(&tombstone(THEIRS)), &Action::Delete, &seen), Merge::Unchanged);
    assert_eq!(merge(&rule, Some(&tombstone(THEIRS)), &unset("name"), &seen), Merge::Unchanged);
    let empty = merge(&rule, None, &Action::Put(Fields::new()), &seen);
    assert_eq!(written(empty).2, MergeOutcome::Applied);
}

#[test]
fn an_item_over_the_limits_is_refused() {
    let many: Fields = (0..limit::ITEM_FIELDS).map(|n| (format!("f{n:03}"), Value::Flag(true))).collect();
    assert!(matches!(
        merge(&of("x"), None, &Action::Put(many.clone()), &Seen::default()),
        Merge::Write { .. }
    ));
    let mut full = item([]);
    full.fields = many;
    assert_eq!(merged("x", &full, &set([("one", text("more"))])), Merge::Rejected(RejectReason::OverLimit));
    let long = set([("long", Value::Bytes(vec![0; limit::ITEM_BYTES]))]);
    assert_eq!(merge(&of("x"), None, &long, &Seen::default()), Merge::Rejected(RejectReason::OverLimit));
}

#[test]
fn the_answer_names_the_reign_of_what_stands() {
    let standing = item([("name", text("theirs"), THEIRS)]);
    let result = merged("button.shared", &standing, &set([("name", text("ours"))]));
    let by = Revision { epoch: 3, sequence: THEIRS };
    let expected = EditOutcome::Superseded { by, fields: vec!["name".to_owned()] };
    assert_eq!(result.answer(|_| 3), Ok(expected));
    assert_eq!(Merge::Rejected(RejectReason::NotSealed).answer(|_| 3), Err(RejectReason::NotSealed));
}

#[test]
fn what_gives_way_changes_only_what_nobody_changed_since() {
    let standing = item([("name", text("newer"), THEIRS), ("mail", text("old"), BASE)]);
    let offered =
        Action::Put(fields([("name", text("lost")), ("mail", text("lost")), ("fax", text("lost"))]));
    for kind in ["ui.language", "address.personal", "button.shared", "x"] {
        let rule = of(kind).yielding(&offered);
        let (fields, _, outcome) = written(merge(&rule, Some(&standing), &offered, &Seen::up_to(BASE)));
        let shown = ["name", "mail", "fax"].map(|name| fields.get(name).cloned());
        assert_eq!(shown, [Some(text("newer")), Some(text("lost")), Some(text("lost"))], "{kind}");
        assert_eq!(outcome, MergeOutcome::Superseded { by: THEIRS, fields: vec!["name".to_owned()] });

        let deleted = merge(&rule, Some(&tombstone(THEIRS)), &offered, &Seen::up_to(BASE));
        assert!(matches!(deleted, Merge::Superseded { .. }), "{kind}: {deleted:?}");
        let deletion = of(kind).yielding(&Action::Delete);
        let edited = merge(&deletion, Some(&standing), &Action::Delete, &Seen::up_to(BASE));
        assert!(matches!(edited, Merge::Superseded { .. }), "{kind}: {edited:?}");
        let unseen = merge(&deletion, Some(&standing), &Action::Delete, &Seen::up_to(THEIRS));
        assert!(matches!(unseen, Merge::Write { deleted: true, .. }), "{kind}: {unseen:?}");
    }
    let server_only = of("group.sharing").yielding(&offered);
    assert!(matches!(merge(&server_only, None, &offered, &Seen::default()), Merge::Rejected(_)));
}
