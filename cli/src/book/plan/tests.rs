//! Imports planned over the sample list: first, again, after edits on both sides.

use super::*;
use crate::value::field;

const SAMPLE: &[u8] = include_bytes!("../../../../tests/samples/address-list.csv");

fn book() -> Book {
    mfpsync_addressbook::read(SAMPLE).unwrap().0
}

fn target() -> Target {
    Target::new("shared", None).unwrap()
}

/// What the group holds once a plan was carried out on nothing.
fn stored(plan: Plan) -> (Vec<Item>, Vec<Item>) {
    plan.edits
        .into_iter()
        .map(|edit| match edit.edit {
            Some(EditKind::Put(put)) => Item { key: put.key, fields: put.fields, ..Item::default() },
            other => panic!("not a put: {other:?}"),
        })
        .partition(|item| item.key.as_ref().unwrap().kind != layout::KIND)
}

fn first() -> (Vec<Item>, Vec<Item>) {
    stored(Plan::new(&book(), &target(), &[], &[]))
}

#[test]
fn a_first_import_adds_every_entry_and_the_files_looks() {
    let plan = Plan::new(&book(), &target(), &[], &[]);
    assert_eq!((plan.added, plan.changed, plan.identical), (200, 0, 0));
    assert_eq!(plan.edits.len(), 201);
    let batches = plan.into_batches();
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [50, 50, 50, 50, 1]);
}

#[test]
fn the_same_import_again_writes_nothing() {
    let (items, looks) = first();
    let plan = Plan::new(&book(), &target(), &items, &looks);
    assert_eq!((plan.added, plan.changed, plan.identical, plan.untouched), (0, 0, 200, 0));
    assert!(plan.edits.is_empty());
}

#[test]
fn a_changed_entry_is_patched_in_what_differs_alone() {
    let (mut items, looks) = first();
    let name = items[0].fields.iter_mut().find(|field| field.name == "name").unwrap();
    *name = field("name=Another").unwrap();
    // Neither of these has a column: a file cannot carry them, so it cannot remove them.
    items[0].fields.push(field("pinned:=true").unwrap());
    items[0].fields.push(field("note=kept").unwrap());
    let plan = Plan::new(&book(), &target(), &items, &looks);
    assert_eq!((plan.added, plan.changed, plan.identical), (0, 1, 199));
    let Some(EditKind::Patch(patch)) = &plan.edits[0].edit else { panic!("not a patch") };
    assert_eq!(patch.set.iter().map(|field| field.name.as_str()).collect::<Vec<_>>(), ["name"]);
    assert!(patch.remove.is_empty());
}

#[test]
fn a_cell_that_was_emptied_removes_its_field() {
    let (mut items, looks) = first();
    items[0].fields.push(field("number=0312345678").unwrap());
    let plan = Plan::new(&book(), &target(), &items, &looks);
    let Some(EditKind::Patch(patch)) = &plan.edits[0].edit else { panic!("not a patch") };
    assert!(patch.set.is_empty());
    assert_eq!(patch.remove, ["number"]);
}

#[test]
fn entries_that_only_the_group_has_stay() {
    let (mut items, looks) = first();
    let mut own = items[0].clone();
    own.key.as_mut().unwrap().id = "made-at-a-panel".to_owned();
    items.push(own);
    let plan = Plan::new(&book(), &target(), &items, &looks);
    assert!(plan.edits.is_empty());
    assert_eq!(plan.untouched, 1);
}

#[test]
fn large_entries_make_smaller_batches() {
    let big = || put(target().key("x"), vec![field(&format!("note={}", "n".repeat(60_000))).unwrap()]);
    let plan = Plan { edits: (0..40).map(|_| big()).collect(), ..Plan::default() };
    let batches = plan.into_batches();
    assert!(batches.len() > 1);
    assert!(batches.iter().all(|batch| batch.iter().map(weight).sum::<usize>() <= BATCH_BYTES));
}

#[test]
fn a_format_without_columns_removes_only_its_own_fields() {
    let (mut items, looks) = first();
    items[0].fields.push(field("vcard.NOTE=NOTE:old").unwrap());
    let cards = include_bytes!("../../../../tests/samples/contacts.vcf");
    let cards = mfpsync_addressbook::read(cards).unwrap().0;
    let plan = Plan::new(&cards, &target(), &items, &looks);
    assert_eq!((plan.added, plan.changed, plan.identical, plan.untouched), (0, 1, 119, 80));
    let [Edit { edit: Some(EditKind::Patch(patch)) }] = plan.edits.as_slice() else {
        panic!("not one patch")
    };
    assert!(patch.set.is_empty());
    assert_eq!(patch.remove, ["vcard.NOTE"]);
}
