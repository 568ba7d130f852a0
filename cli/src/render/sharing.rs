//! How kinds are shared, and what a switch does, as text and JSON. Pure.

use data_encoding::HEXLOWER;
use mfpsync_proto::records::{
    DeviceRef, KindSharing, SharedItem, SharingPlan, SharingReply, SharingState, SharingTally,
};
use serde_json::{Value, json};

use super::history::{key_json, key_text};
use super::units::{count, revision_json};
use crate::output::printable;

/// Items a text names.
const NAMED: usize = 20;

fn word(state: SharingState) -> &'static str {
    match state {
        SharingState::Unspecified => "unknown",
        SharingState::Shared => "shared",
        SharingState::DeviceSpecific => "device-specific",
    }
}

fn name(device: &DeviceRef) -> &str {
    if device.name.is_empty() { &device.id } else { &device.name }
}

/// A line a kind, and a line a device that has its own.
pub(crate) fn text(reply: &SharingReply) -> String {
    if reply.kinds.is_empty() {
        return "the group has no items; every kind is shared".to_owned();
    }
    let lines = reply.kinds.iter().flat_map(|kind| {
        let fixed = if kind.fixed { ", written by the server alone" } else { "" };
        let items = match kind.state() {
            SharingState::DeviceSpecific => String::new(),
            _ => format!(", {}", count(kind.shared_items, "item", "items")),
        };
        let head = format!("{}: {}{items}{fixed}{}", printable(&kind.kind), word(kind.state()), to_be(kind));
        std::iter::once(head).chain(own_lines(kind))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What a kind is about to be.
fn to_be(kind: &KindSharing) -> String {
    kind.under_way.as_ref().map_or_else(String::new, |progress| {
        format!(", becoming {}: {} of {} items done", word(progress.to()), progress.done, progress.items)
    })
}

fn own_lines(kind: &KindSharing) -> Vec<String> {
    let line = |own: &mfpsync_proto::records::DeviceItems| {
        let device = own.device.clone().unwrap_or_default();
        let released = if own.released { " (released)" } else { "" };
        format!("    {}{released}: {}", printable(name(&device)), count(own.items, "item", "items"))
    };
    kind.own.iter().map(line).collect()
}

/// The same for scripts.
pub(crate) fn json(reply: &SharingReply) -> Value {
    let kind = |kind: &KindSharing| {
        let own = kind.own.iter().map(|own| {
            let device = own.device.clone().unwrap_or_default();
            json!({ "id": device.id, "name": device.name, "released": own.released, "items": own.items })
        });
        json!({
            "kind": kind.kind,
            "sharing": word(kind.state()),
            "fixed": kind.fixed,
            "switched": kind.switched.as_ref().map(|revision| revision_json(Some(revision))),
            "shared_items": kind.shared_items,
            "devices": own.collect::<Vec<_>>(),
            "under_way": kind.under_way.as_ref().map(|progress| {
                json!({ "to": word(progress.to()), "done": progress.done, "items": progress.items })
            }),
        })
    };
    json!({ "kinds": reply.kinds.iter().map(kind).collect::<Vec<_>>() })
}

/// What a switch does, or did.
pub(crate) fn plan_text(plan: &SharingPlan, done: bool) -> String {
    let tally = plan.tally.unwrap_or_default();
    let verb = if done { "is now" } else { "would become" };
    let before = if done { "" } else { "; nothing was changed yet" };
    let mut lines = vec![format!(
        "{} {verb} {}, before {}: {}{before}",
        printable(&plan.kind),
        word(plan.to()),
        word(plan.from()),
        count(tally.items, "item", "items"),
    )];
    let parts = [
        (tally.copies, "value(s) that devices have for their own from then on"),
        (tally.brought_back, "of these are values that devices had before"),
        (tally.chosen, "value(s) become the group's"),
        (tally.identical, "value(s) of devices are the same as the group's"),
        (tally.kept, "other value(s) no longer show and are kept in the history"),
        (tally.not_kept, "other value(s) no longer show and are NOT kept: there is no way back"),
        (tally.left_out, "item(s) the group will not have: the chosen device does not have them"),
    ];
    lines.extend(
        parts.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}")),
    );
    lines.extend(plan.first.iter().take(NAMED).map(item_text));
    if tally.items > NAMED as u64 && !plan.first.is_empty() {
        lines.push(format!("    and {} more", tally.items - NAMED as u64));
    }
    lines.join("\n")
}

fn item_text(item: &SharedItem) -> String {
    let key = key_text(&item.key.clone().unwrap_or_default());
    let devices = count(item.devices, "device", "devices");
    let fate = match (&item.of, item.left_out) {
        (_, true) => format!("left out; {devices} had it"),
        (Some(of), false) => format!("as at {}; {devices} had another value", name(of)),
        (None, false) => format!("for {devices}"),
    };
    format!("    {}: {}", printable(&key), printable(&fate))
}

/// The same for scripts.
pub(crate) fn plan_json(plan: &SharingPlan) -> Value {
    let scopes = plan
        .scopes
        .iter()
        .map(|scope| json!({ "scope": scope.scope, "tally": tally_json(scope.tally.unwrap_or_default()) }));
    let first = plan.first.iter().map(|item| {
        json!({
            "key": key_json(item.key.as_ref()),
            "of": item.of.as_ref().map(|of| json!({ "id": of.id, "name": of.name })),
            "devices": item.devices,
            "left_out": item.left_out,
        })
    });
    json!({
        "kind": plan.kind,
        "from": word(plan.from()),
        "to": word(plan.to()),
        "tally": tally_json(plan.tally.unwrap_or_default()),
        "scopes": scopes.collect::<Vec<_>>(),
        "first": first.collect::<Vec<_>>(),
        "plan_id": HEXLOWER.encode(&plan.plan_id),
        "revision": plan.revision.as_ref().map(|revision| revision_json(Some(revision))),
    })
}

fn tally_json(tally: SharingTally) -> Value {
    json!({
        "items": tally.items,
        "copies": tally.copies,
        "brought_back": tally.brought_back,
        "chosen": tally.chosen,
        "identical": tally.identical,
        "kept": tally.kept,
        "not_kept": tally.not_kept,
        "left_out": tally.left_out,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mfpsync_proto::local::ItemKey;
    use mfpsync_proto::records::SharingProgress;

    #[test]
    fn a_plan_says_what_is_kept_and_what_is_not() {
        let key = ItemKey {
            scope: "user/alice".to_owned(),
            kind: "ui.language".to_owned(),
            device: String::new(),
            id: "panel".to_owned(),
        };
        let of = DeviceRef { id: "00".to_owned(), name: "copier-3".to_owned() };
        let plan = SharingPlan {
            kind: "ui.language".to_owned(),
            from: SharingState::DeviceSpecific.into(),
            to: SharingState::Shared.into(),
            tally: Some(SharingTally { items: 1, chosen: 1, kept: 2, ..SharingTally::default() }),
            first: vec![SharedItem { key: Some(key), of: Some(of), devices: 2, left_out: false }],
            ..SharingPlan::default()
        };
        assert_eq!(
            plan_text(&plan, false),
            "ui.language would become shared, before device-specific: 1 item; nothing was changed yet\n\
             1 value(s) become the group's\n\
             2 other value(s) no longer show and are kept in the history\n    \
             user/alice ui.language panel: as at copier-3; 2 devices had another value"
        );
        assert_eq!(plan_json(&plan)["first"][0]["of"]["name"], "copier-3");
    }

    #[test]
    fn kinds_are_listed_with_the_devices_that_have_their_own() {
        let own = mfpsync_proto::records::DeviceItems {
            device: Some(DeviceRef { id: "00ff".to_owned(), name: String::new() }),
            released: true,
            items: 1,
        };
        let kind = KindSharing {
            kind: "job.recall".to_owned(),
            state: SharingState::DeviceSpecific.into(),
            own: vec![own],
            ..KindSharing::default()
        };
        let fixed = KindSharing {
            kind: "network".to_owned(),
            state: SharingState::Shared.into(),
            fixed: true,
            shared_items: 2,
            ..KindSharing::default()
        };
        let under_way = SharingProgress {
            to: SharingState::DeviceSpecific.into(),
            done: 200,
            items: 155_000,
            ..SharingProgress::default()
        };
        let becoming = KindSharing {
            kind: "ui.language".to_owned(),
            state: SharingState::Shared.into(),
            shared_items: 3,
            under_way: Some(under_way),
            ..KindSharing::default()
        };
        assert_eq!(
            text(&SharingReply { kinds: vec![kind, fixed, becoming] }),
            "job.recall: device-specific\n    00ff (released): 1 item\n\
             network: shared, 2 items, written by the server alone\n\
             ui.language: shared, 3 items, becoming device-specific: 200 of 155000 items done"
        );
    }
}
