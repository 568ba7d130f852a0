//! Edits that did not become part of the group's data. Pure; values stay in the databases.

use mfpsync_proto::panel::{SetAsideEdit, SetAsideReply};
use serde_json::{Value, json};

use super::units::{ago, revision, revision_json};
use crate::output::printable;

/// Two lines an edit: what became of which item, then why.
pub(crate) fn text(reply: &SetAsideReply, now_unix_millis: u64) -> String {
    if reply.edits.is_empty() {
        return "nothing is set aside: every edit of this device became part of the group's data".to_owned();
    }
    reply.edits.iter().map(|edit| edit_text(edit, now_unix_millis)).collect::<Vec<_>>().join("\n")
}

fn edit_text(edit: &SetAsideEdit, now_unix_millis: u64) -> String {
    let by = edit.by.as_ref().map(|by| format!(" by {}", revision(by))).unwrap_or_default();
    let fields =
        if edit.fields.is_empty() { String::new() } else { format!(" ({})", edit.fields.join(", ")) };
    format!(
        "operation {}: {}{by} {}: {} {} {}{}\n    {}",
        edit.operation,
        printable(&edit.outcome),
        ago(edit.at_unix_millis, now_unix_millis),
        printable(&edit.scope),
        printable(&edit.kind),
        printable(&edit.item_id),
        printable(&fields),
        printable(&edit.reason),
    )
}

/// The same for scripts.
pub(crate) fn json(reply: &SetAsideReply) -> Value {
    let edit = |edit: &SetAsideEdit| {
        json!({
            "operation": edit.operation,
            "outcome": edit.outcome,
            "reason": edit.reason,
            "scope": edit.scope,
            "kind": edit.kind,
            "item_id": edit.item_id,
            "fields": edit.fields,
            "by": revision_json(edit.by.as_ref()),
            "at_unix_millis": edit.at_unix_millis,
        })
    };
    json!({ "edits": reply.edits.iter().map(edit).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mfpsync_proto::panel::Revision;

    #[test]
    fn a_lost_edit_names_item_fields_winner_and_reason() {
        let edit = SetAsideEdit {
            operation: 7,
            outcome: "superseded".to_owned(),
            reason: "another device's value was accepted first".to_owned(),
            scope: "shared".to_owned(),
            kind: "address.shared".to_owned(),
            item_id: "a1".to_owned(),
            fields: vec!["mail".to_owned()],
            by: Some(Revision { epoch: 1, sequence: 212 }),
            at_unix_millis: 1_000,
        };
        assert_eq!(
            text(&SetAsideReply { edits: vec![edit] }, 3_000),
            "operation 7: superseded by 1:212 2 s ago: shared address.shared a1 (mail)\n    \
             another device's value was accepted first"
        );
    }
}
