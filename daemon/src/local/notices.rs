//! Both versions of a conflict, for the person who logs in next.
//!
//! Gathered in the same read as the login's items: edits of this person that were set aside here, and
//! destinations that a merge kept beside another. What was acknowledged is not shown again.

use std::collections::{BTreeMap, BTreeSet};

use mfpsync_proto::local as wire;
use mfpsync_replication::merge::SECOND;
use mfpsync_storage::Result;
use mfpsync_storage::local::{LocalItem, LocalRead, LocalWrite, SetAside, notice_id};
use mfpsync_storage::model::{Action, Fields, ItemKey, Outcome, Scope, Value};

use super::convert;

/// Entries set aside that a login looks at, newest first.
const ENTRIES: u32 = 100;
/// Notices in one answer, and the bytes of their values.
const NOTICES: usize = 50;
const NOTICES_BYTES: usize = 256 << 10;
/// Notices one call may acknowledge.
pub(super) const ACKNOWLEDGED: usize = 200;

/// One notice, not yet bounded.
struct Found {
    id: Vec<u8>,
    kind: wire::NoticeKind,
    key: ItemKey,
    field: String,
    ours: Option<Value>,
    standing: Option<Value>,
    reason: String,
}

/// The notices of a user who logs in, and how many more there are.
pub(super) fn gather(
    read: &LocalRead<'_>,
    scope: &Scope,
    items: &[LocalItem],
) -> Result<(Vec<wire::Notice>, u32)> {
    let seen = read.acknowledged(scope)?;
    let mut found = all(read, scope, items)?;
    found.retain(|notice| !seen.contains(&notice.id));
    let mut bytes = 0;
    let fits = |notice: &&Found| {
        bytes += [&notice.ours, &notice.standing].into_iter().flatten().map(size).sum::<usize>();
        bytes <= NOTICES_BYTES
    };
    let shown: Vec<wire::Notice> = found.iter().take(NOTICES).take_while(fits).map(to_wire).collect();
    let more = u32::try_from(found.len() - shown.len()).unwrap_or(u32::MAX);
    Ok((shown, more))
}

/// Notes that notices were seen, and forgets those that no longer are.
pub(super) fn acknowledge(
    write: &LocalWrite<'_>,
    scope: &Scope,
    items: &[LocalItem],
    ids: &[Vec<u8>],
) -> Result<()> {
    let live: BTreeSet<Vec<u8>> = all(write, scope, items)?.into_iter().map(|notice| notice.id).collect();
    let mut kept = write.acknowledged(scope)?;
    kept.extend(ids.iter().cloned());
    kept.retain(|id| live.contains(id));
    write.set_acknowledged(scope, &kept)
}

fn all(read: &LocalRead<'_>, scope: &Scope, items: &[LocalItem]) -> Result<Vec<Found>> {
    let user = scope.as_str().split_once('/').map_or("", |(_, user)| user);
    let own: BTreeMap<&ItemKey, &Fields> = items.iter().map(|item| (&item.key, &item.fields)).collect();
    let mut found = Vec::new();
    for entry in read.set_aside(ENTRIES)? {
        for edit in entry.lost() {
            if edit.key.scope != *scope && entry.operation.actor != user {
                continue;
            }
            let standing = match own.get(&edit.key) {
                Some(fields) => Some((*fields).clone()),
                None => read.item(&edit.key)?.map(|item| item.fields),
            };
            lost(&entry, &edit.key, &edit.action, standing.as_ref(), &mut found);
        }
    }
    for item in items {
        both_kept(item, &mut found);
    }
    Ok(found)
}

/// A notice for each field of an edit that was not taken and differs from what stands.
fn lost(entry: &SetAside, key: &ItemKey, action: &Action, standing: Option<&Fields>, found: &mut Vec<Found>) {
    let (kind, reason) = match &entry.outcome {
        Outcome::Rejected { reason, .. } => (wire::NoticeKind::Refused, reason.to_string()),
        Outcome::Accepted { .. } => (wire::NoticeKind::Superseded, "superseded".to_owned()),
    };
    let mut push = |field: &str, ours: Option<&Value>, stands: Option<&Value>| {
        if ours != stands || field.is_empty() {
            found.push(notice(kind, &reason, key, field, ours, stands));
        }
    };
    match action {
        Action::Put(set) => {
            set.iter().for_each(|(name, value)| push(name, Some(value), stands(standing, name)))
        }
        Action::Patch { set, remove } => {
            set.iter().for_each(|(name, value)| push(name, Some(value), stands(standing, name)));
            remove.iter().for_each(|name| push(name, None, stands(standing, name)));
        }
        Action::Delete if standing.is_some() => push("", None, None),
        Action::Delete => {}
    }
}

fn stands<'a>(standing: Option<&'a Fields>, name: &str) -> Option<&'a Value> {
    standing.and_then(|fields| fields.get(name))
}

fn both_kept(item: &LocalItem, found: &mut Vec<Found>) {
    for (name, value) in item.fields.iter() {
        if let Some(first) = name.strip_prefix(SECOND) {
            let standing = item.fields.get(first);
            found.push(notice(
                wire::NoticeKind::BothKept,
                "both-kept",
                &item.key,
                name,
                Some(value),
                standing,
            ));
        }
    }
}

fn notice(
    kind: wire::NoticeKind,
    reason: &str,
    key: &ItemKey,
    field: &str,
    ours: Option<&Value>,
    standing: Option<&Value>,
) -> Found {
    let id = notice_id(key, field, ours, standing);
    let open = |value: Option<&Value>| value.filter(|value| !matches!(value, Value::Sealed(_))).cloned();
    Found {
        id,
        kind,
        key: key.clone(),
        field: field.to_owned(),
        ours: open(ours),
        standing: open(standing),
        reason: reason.to_owned(),
    }
}

fn size(value: &Value) -> usize {
    Fields::from_iter([("v", value.clone())]).encode().len()
}

fn to_wire(notice: &Found) -> wire::Notice {
    let value = |value: &Option<Value>| {
        value.as_ref().map(|value| wire::Value { value: Some(convert::shown(value)) })
    };
    wire::Notice {
        id: notice.id.clone().into(),
        kind: notice.kind.into(),
        key: Some(convert::shown_key(&notice.key)),
        field: notice.field.clone(),
        ours: value(&notice.ours),
        standing: value(&notice.standing),
        reason: notice.reason.clone(),
    }
}
