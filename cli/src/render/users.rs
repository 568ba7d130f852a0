//! Users and erasures as text and JSON. Pure.

use data_encoding::HEXLOWER;
use mfpsync_proto::local::{LoginReply, Notice, Value as FieldValue};
use mfpsync_proto::records::{DeviceRef, Erasure, ErasuresReply, User};
use serde_json::{Value, json};

use super::units::{count, revision_json, size};
use crate::output::printable;
use crate::value;

/// One line a user.
pub(crate) fn text(users: &[User], more: bool) -> String {
    let line = |user: &User| {
        let name =
            if user.display_name.is_empty() { String::new() } else { format!(" ({})", user.display_name) };
        let items = count(user.items, "item", "items");
        format!("{}: {items}, {}", printable(&format!("{}{name}", user.id)), size(user.bytes))
    };
    let mut lines: Vec<String> = users.iter().map(line).collect();
    lines.push(count(users.len() as u64, "user", "users"));
    if more {
        lines.push("there are more: raise --limit".to_owned());
    }
    lines.join("\n")
}

/// The same for scripts.
pub(crate) fn json(users: &[User], more: bool) -> Value {
    let user = |user: &User| {
        json!({
            "id": user.id, "display_name": user.display_name, "items": user.items, "bytes": user.bytes,
        })
    };
    json!({ "users": users.iter().map(user).collect::<Vec<_>>(), "more": more })
}

/// Who has confirmed, for each erased user.
pub(crate) fn erasures_text(reply: &ErasuresReply) -> String {
    if reply.erasures.is_empty() {
        return "nobody was erased".to_owned();
    }
    reply.erasures.iter().map(erasure_text).collect::<Vec<_>>().join("\n")
}

fn erasure_text(erasure: &Erasure) -> String {
    let who = if erasure.user.is_empty() { &erasure.hash } else { &erasure.user };
    let state = if erasure.readmitted { "erased, then readmitted" } else { "erased" };
    let names = |devices: &[DeviceRef]| -> String {
        let name = |device: &DeviceRef| {
            printable(if device.name.is_empty() { &device.id } else { &device.name }).into_owned()
        };
        if devices.is_empty() {
            "none".to_owned()
        } else {
            devices.iter().map(name).collect::<Vec<_>>().join(", ")
        }
    };
    format!(
        "{}: {state}\n    confirmed: {}\n    still to confirm: {}",
        printable(who),
        names(&erasure.passed),
        names(&erasure.waiting)
    )
}

/// The same for scripts.
pub(crate) fn erasures_json(reply: &ErasuresReply) -> Value {
    let devices = |devices: &[DeviceRef]| -> Vec<Value> {
        devices.iter().map(|device| json!({ "id": device.id, "name": device.name })).collect()
    };
    let erasure = |erasure: &Erasure| {
        json!({
            "hash": erasure.hash,
            "user": erasure.user,
            "readmitted": erasure.readmitted,
            "at_unix_millis": erasure.at_unix_millis,
            "generation": erasure.generation,
            "revision": revision_json(erasure.revision.as_ref()),
            "passed": devices(&erasure.passed),
            "waiting": devices(&erasure.waiting),
        })
    };
    json!({ "erasures": reply.erasures.iter().map(erasure).collect::<Vec<_>>() })
}

/// Both versions of each conflict, below what a login shows.
pub(crate) fn notices_text(reply: &LoginReply) -> String {
    if reply.notices.is_empty() {
        return String::new();
    }
    let line = |notice: &Notice| {
        let key = notice.key.clone().unwrap_or_default();
        let shown = |value: &Option<FieldValue>| match value {
            Some(_) => value::to_text(value.as_ref()),
            None => "(nothing, or a secret)".to_owned(),
        };
        let item = format!("{} {} {} {}", key.scope, key.kind, key.id, notice.field);
        format!(
            "    {} ({}): here {}, in the group {}",
            printable(item.trim_end()),
            printable(&notice.reason),
            shown(&notice.ours),
            shown(&notice.standing)
        )
    };
    let mut lines = vec![String::new(), String::new(), "Conflicts".to_owned()];
    lines.extend(reply.notices.iter().map(line));
    if reply.more_notices > 0 {
        lines.push(format!("    and {} more", reply.more_notices));
    }
    lines.join("\n")
}

/// The same for scripts.
pub(crate) fn notices_json(reply: &LoginReply) -> Value {
    let notice = |notice: &Notice| {
        let key = notice.key.clone().unwrap_or_default();
        json!({
            "id": HEXLOWER.encode(&notice.id),
            "key": { "scope": key.scope, "kind": key.kind, "device": key.device, "id": key.id },
            "field": notice.field,
            "ours": value::to_json(notice.ours.as_ref()),
            "standing": value::to_json(notice.standing.as_ref()),
            "reason": notice.reason,
        })
    };
    Value::Array(reply.notices.iter().map(notice).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_erasure_names_who_has_still_to_confirm() {
        let device = |name: &str| DeviceRef { id: String::new(), name: name.to_owned() };
        let erasure = Erasure {
            hash: "00ff".to_owned(),
            passed: vec![device("copier-1")],
            waiting: vec![device("copier-2")],
            ..Erasure::default()
        };
        assert_eq!(
            erasures_text(&ErasuresReply { erasures: vec![erasure] }),
            "00ff: erased\n    confirmed: copier-1\n    still to confirm: copier-2"
        );
    }
}
