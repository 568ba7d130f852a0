//! Where edits go, and what becomes of one item, case by case.

use std::collections::BTreeSet;

use mfpsync_storage::model::FieldSequences;

use super::*;

fn held(value: &str, sequence: u64) -> Held {
    let fields = texts(&[("x", value)]);
    let mut sequences = FieldSequences::default();
    sequences.set("x", Sequence(sequence));
    Held { fields, sequences, deleted: false, sequence: Sequence(sequence), before: None }
}

fn gone(before: Option<&str>, sequence: u64) -> Held {
    let before = before.map(|value| texts(&[("x", value)]));
    Held { fields: Fields::new(), deleted: true, before, ..held("", sequence) }
}

fn forms(shared: Option<Held>, own: &[(usize, Held)]) -> Forms {
    let mut forms = Forms::new(key(LANGUAGE, "panel"));
    forms.shared = shared;
    forms.own = own.iter().map(|(device, held)| (id(*device).to_string(), held.clone())).collect();
    forms
}

/// A name, what is asked for, what there is, and whose form becomes what.
type Case = (&'static str, Target, Forms, &'static [(&'static str, &'static str)]);

/// Whose form becomes what; `-` for one that goes.
fn moves(to: Target, forms: &Forms) -> Vec<(String, String)> {
    let devices = BTreeSet::from([id(A), id(B)]);
    let names = BTreeMap::from([(String::new(), "all"), (id(A).to_string(), "a"), (id(B).to_string(), "b")]);
    let shown = |one: Move| {
        let value = one.becomes.map_or_else(
            || "-".to_owned(),
            |(fields, _)| match fields.get("x") {
                Some(Value::Text(text)) => text.clone(),
                _ => String::new(),
            },
        );
        ((*names.get(&one.device).unwrap_or(&"c")).to_owned(), value)
    };
    decide(to, forms, &devices).moves.into_iter().map(shown).collect()
}

#[test]
fn edits_go_to_what_their_author_may_mean() {
    let shared = key(LANGUAGE, "panel");
    let own = shared.of_device(id(A));
    for (sharing, key, goes) in [
        (Sharing::Shared, &shared, Destination::Item(shared.clone())),
        (Sharing::Shared, &own, Destination::SetAside),
        (Sharing::DeviceSpecific, &shared, Destination::Item(own.clone())),
        (Sharing::DeviceSpecific, &own, Destination::Item(own.clone())),
    ] {
        assert_eq!(destination(sharing, key, id(A)), goes, "{sharing:?} {:?}", key.device);
        let of_other = shared.of_device(id(B));
        assert_eq!(destination(sharing, &of_other, id(A)), Destination::NotTheirs);
    }
}

#[test]
fn every_case_of_one_item() {
    const SEEN: Target = Target::DeviceSpecific(Start::Seen);
    const AGAIN: Target = Target::DeviceSpecific(Start::Before);
    const NEWEST: Target = Target::Shared(Choice::Newest);
    const GROUPS: Target = Target::Shared(Choice::Before);
    let of_b = Target::Shared(Choice::Of(id(B)));
    let (one, two) = (held("1", 1), held("2", 2));
    let had = |value| gone(Some(value), 9);
    let cases: &[Case] = &[
        ("all get it", SEEN, forms(Some(one.clone()), &[]), &[("a", "1"), ("b", "1"), ("all", "-")]),
        ("nothing to split", SEEN, forms(Some(gone(None, 3)), &[]), &[]),
        (
            "old tombstones do not matter",
            SEEN,
            forms(Some(one.clone()), &[(B, had("2"))]),
            &[("a", "1"), ("b", "1"), ("all", "-")],
        ),
        (
            "own ones come back, the others get what they see",
            AGAIN,
            forms(Some(one.clone()), &[(B, had("2"))]),
            &[("a", "1"), ("b", "2"), ("all", "-")],
        ),
        (
            "a released device's comes back, but it gets no copy",
            AGAIN,
            forms(Some(one.clone()), &[(C, had("3"))]),
            &[("a", "1"), ("b", "1"), ("c", "3"), ("all", "-")],
        ),
        (
            "a released device gets no copy",
            SEEN,
            forms(Some(one.clone()), &[(C, had("3"))]),
            &[("a", "1"), ("b", "1"), ("all", "-")],
        ),
        ("left out, then back", AGAIN, forms(None, &[(B, had("2"))]), &[("b", "2")]),
        ("deleted for all", AGAIN, forms(Some(gone(None, 10)), &[(B, had("2"))]), &[]),
        (
            "b's",
            of_b,
            forms(None, &[(A, one.clone()), (B, two.clone())]),
            &[("all", "2"), ("a", "-"), ("b", "-")],
        ),
        ("b has none", of_b, forms(Some(had("0")), &[(A, one.clone())]), &[("a", "-")]),
        (
            "the newest",
            NEWEST,
            forms(None, &[(A, two.clone()), (B, one.clone())]),
            &[("all", "2"), ("a", "-"), ("b", "-")],
        ),
        (
            "deletions are not news",
            NEWEST,
            forms(None, &[(A, gone(None, 8)), (B, one.clone())]),
            &[("all", "1"), ("b", "-")],
        ),
        ("the group's", GROUPS, forms(Some(had("0")), &[(A, one.clone())]), &[("all", "0"), ("a", "-")]),
        ("new since", GROUPS, forms(None, &[(A, one)]), &[("all", "1"), ("a", "-")]),
        ("all deleted it since", GROUPS, forms(Some(had("0")), &[(A, gone(None, 12))]), &[]),
    ];
    for (name, to, forms, expected) in cases {
        let expected: Vec<_> =
            expected.iter().map(|(whose, value)| ((*whose).to_owned(), (*value).to_owned())).collect();
        assert_eq!(moves(*to, forms), expected, "{name}");
    }
}

#[test]
fn secrets_that_go_are_counted_as_gone() {
    let forms = forms(None, &[(A, held("1", 1)), (B, held("2", 2))]);
    let decided = decide(Target::Shared(Choice::Newest), &forms, &BTreeSet::new());
    let mut tally = Tally::default();
    decided.count(&forms, false, &mut tally);
    assert_eq!(tally, Tally { items: 1, chosen: 1, identical: 1, not_kept: 1, ..Tally::default() });
}
