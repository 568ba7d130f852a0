//! A join's plan, its items and its undo, for people and for scripts. Pure.

use std::collections::BTreeMap;

use mfpsync_proto::panel::{JoinFate, JoinItem, JoinPlanReply, JoinTally, UndoJoinReply};
use serde_json::{Value, json};

use super::units::count;
use crate::output::printable;

/// What a person does next.
pub(crate) const DECIDE: &str = "nothing was changed yet: `mfpsync join accept` carries it out, `mfpsync join cancel` \
    gives it up, `mfpsync join plan --items` names the items";

/// The plan's numbers.
pub(crate) fn plan_text(plan: &JoinPlanReply) -> String {
    let group = printable(&plan.group_name);
    if plan.tallies.is_empty() {
        return format!("joining {group}: this device brings nothing");
    }
    let mut text = format!("joining {group}, this device's items become:\n{}", tallies_text(&plan.tallies));
    let unsent = plan.tallies.iter().map(|tally| tally.unsent).sum();
    if unsent > 0 {
        text += &format!(
            "\n{} with edits that this group never got when the device was in it before \
             (`mfpsync join plan --unsent`)",
            count(unsent, "item", "items")
        );
    }
    text
}

/// One line for each kind: a thousand users would be a thousand lines each; JSON has them all.
pub(crate) fn tallies_text(tallies: &[JoinTally]) -> String {
    let mut kinds: BTreeMap<&str, [u64; 5]> = BTreeMap::new();
    for tally in tallies {
        let sums = kinds.entry(&tally.kind).or_default();
        for (sum, number) in sums.iter_mut().zip(numbers(tally)) {
            *sum += number;
        }
    }
    let width = kinds.keys().map(|kind| kind.len()).max().unwrap_or(0).max(4);
    let mut lines = vec![format!(
        "{:<width$}  {:>9} {:>9} {:>9} {:>9} {:>9}",
        "KIND", "ADDED", "CHANGED", "IDENTICAL", "REPLACED", "LEFT OUT"
    )];
    lines.extend(kinds.into_iter().map(|(kind, [added, changed, identical, replaced, left_out])| {
        let kind = printable(kind);
        format!("{kind:<width$}  {added:>9} {changed:>9} {identical:>9} {replaced:>9} {left_out:>9}")
    }));
    lines.join("\n")
}

fn numbers(tally: &JoinTally) -> [u64; 5] {
    [tally.added, tally.changed, tally.identical, tally.replaced, tally.left_out]
}

/// One line for each item.
pub(crate) fn items_text(items: &[JoinItem]) -> String {
    let line = |item: &JoinItem| {
        let meets = match item.group_item_id.as_str() {
            "" => String::new(),
            id => format!(" as {id}"),
        };
        let fields = match item.fields.as_slice() {
            [] => String::new(),
            fields => format!(": {}", fields.join(", ")),
        };
        let unsent = if item.unsent { " [unsent]" } else { "" };
        let line = format!(
            "{:<9} {} {} {}{meets}{fields}{unsent}",
            fate_name(item.fate()),
            item.scope,
            item.kind,
            item.item_id
        );
        printable(&line).into_owned()
    };
    items.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn fate_name(fate: JoinFate) -> &'static str {
    match fate {
        JoinFate::Unspecified => "unknown",
        JoinFate::Added => "added",
        JoinFate::Changed => "changed",
        JoinFate::Identical => "identical",
        JoinFate::Replaced => "replaced",
        JoinFate::LeftOut => "left-out",
    }
}

/// The plan for scripts.
pub(crate) fn plan_json(plan: &JoinPlanReply, items: &[JoinItem]) -> Value {
    let item = |item: &JoinItem| {
        json!({
            "scope": item.scope,
            "kind": item.kind,
            "item_id": item.item_id,
            "group_item_id": item.group_item_id,
            "fate": fate_name(item.fate()),
            "fields": item.fields,
            "unsent": item.unsent,
        })
    };
    json!({
        "group_name": plan.group_name,
        "plan_id": data_encoding::HEXLOWER.encode(&plan.plan_id),
        "tallies": tallies_json(&plan.tallies),
        "matching": plan.matching,
        "items": items.iter().map(item).collect::<Vec<_>>(),
    })
}

/// The numbers for scripts, by scope and kind.
pub(crate) fn tallies_json(tallies: &[JoinTally]) -> Value {
    let tally = |tally: &JoinTally| {
        json!({
            "scope": tally.scope,
            "kind": tally.kind,
            "added": tally.added,
            "changed": tally.changed,
            "identical": tally.identical,
            "replaced": tally.replaced,
            "left_out": tally.left_out,
            "unsent": tally.unsent,
        })
    };
    tallies.iter().map(tally).collect()
}

/// What an undo would do, or does.
pub(crate) fn undo_text(undo: &UndoJoinReply, done: bool) -> String {
    let items = |number| count(number, "item", "items");
    let mut lines = vec![
        if done {
            "the join is being taken back; the device leaves the group when that has reached the server"
                .to_owned()
        } else {
            "taking the join back would do this, nothing was written yet:".to_owned()
        },
        format!(
            "  in the group {} that came with it go, {} get their values back",
            items(undo.removed),
            items(undo.restored)
        ),
    ];
    if undo.standing > 0 {
        lines.push(format!("  {} stay as others edited them since", items(undo.standing)));
    }
    lines.push(format!("  this device leaves with the {} it had before", items(undo.own_items)));
    lines.join("\n")
}

/// The same for scripts.
pub(crate) fn undo_json(undo: &UndoJoinReply, done: bool) -> Value {
    json!({
        "removed": undo.removed,
        "restored": undo.restored,
        "standing": undo.standing,
        "own_items": undo.own_items,
        "joined_at_unix_millis": undo.joined_at_unix_millis,
        "undone": done,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_summed_by_kind() {
        let tally = |scope: &str, added| JoinTally {
            scope: scope.to_owned(),
            kind: "address.personal".to_owned(),
            added,
            ..JoinTally::default()
        };
        let text = tallies_text(&[tally("user/a", 2), tally("user/b", 3)]);
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.ends_with("        5         0         0         0         0"), "{text}");
    }

    #[test]
    fn an_item_that_meets_another_id_names_it() {
        let item = JoinItem {
            scope: "shared".to_owned(),
            kind: "address.shared".to_owned(),
            item_id: "a".to_owned(),
            group_item_id: "b".to_owned(),
            fate: JoinFate::Changed.into(),
            fields: vec!["name".to_owned()],
            unsent: true,
        };
        assert_eq!(items_text(&[item]), "changed   shared address.shared a as b: name [unsent]");
    }

    #[test]
    fn an_undo_says_what_stands() {
        let undo = UndoJoinReply { removed: 1, standing: 2, own_items: 500, ..UndoJoinReply::default() };
        let text = undo_text(&undo, false);
        assert!(text.contains("1 item that came") && text.contains("2 items stay"), "{text}");
        assert!(!undo_text(&UndoJoinReply::default(), true).contains("stay"));
    }
}
