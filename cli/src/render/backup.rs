//! Settings of backups, archives and jobs, in text and JSON.

use mfpsync_proto::backup::{
    Archive, ArchivesReply, BroughtBack, Comparison, Dialect, Drill, Encryption, Job, JobKind, SettingsReply,
    Share, Standing, Step,
};
use serde_json::{Value, json};

use super::units::{ago, count, size, span};
use crate::output::printable;

/// What a job is doing, in words.
fn step(step: Step) -> &'static str {
    match step {
        Step::Unspecified => "begins",
        Step::Taking => "reads and seals the data",
        Step::Proving => "opens the archive in scratch",
        Step::Connecting => "connects to the share",
        Step::Sending => "sends",
        Step::ReadingBack => "reads back",
        Step::Publishing => "publishes",
        Step::Removing => "removes old archives",
        Step::Fetching => "fetches and opens the archive",
        Step::Comparing => "compares",
        Step::Writing => "writes items",
        Step::Switching => "begins anew with the archive",
    }
}

fn kind(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Unspecified => "job",
        JobKind::Backup => "backup",
        JobKind::Drill => "drill",
        JobKind::Preview => "preview",
        JobKind::Restore => "restore",
        JobKind::BringBack => "bring-back",
    }
}

fn dialect(minimum: Dialect) -> &'static str {
    match minimum {
        Dialect::Smb300 => "3.0",
        Dialect::Smb302 => "3.0.2",
        Dialect::Unspecified | Dialect::Smb311 => "3.1.1",
    }
}

fn encryption(encryption: Encryption) -> &'static str {
    match encryption {
        Encryption::Required => "required",
        Encryption::Unspecified | Encryption::Preferred => "preferred",
        Encryption::Off => "off",
    }
}

fn share_line(share: &Share) -> String {
    let folder = if share.folder.is_empty() { String::new() } else { format!("/{}", share.folder) };
    let port = if share.port == 445 { String::new() } else { format!(":{}", share.port) };
    let domain = if share.domain.is_empty() { String::new() } else { format!("{}\\", share.domain) };
    let line = format!(
        "//{}{port}/{}{folder} as {domain}{}, SMB {} or newer, encryption {}",
        share.host,
        share.share,
        share.user,
        dialect(share.minimum()),
        encryption(share.encryption())
    );
    printable(&line).into_owned()
}

/// What is set and how it goes.
pub(crate) fn settings_text(reply: &SettingsReply, now: u64) -> String {
    let mut lines = Vec::new();
    let mut line = |label: &str, text: String| lines.push(format!("{label:<8} {text}"));
    match &reply.share {
        None => line("Share", "none is set (`mfpsync backup set`)".to_owned()),
        Some(share) if reply.has_password => line("Share", share_line(share)),
        Some(share) => {
            line("Share", share_line(share));
            line("", "no password is stored for it (`mfpsync backup set --password-file FILE`)".to_owned());
        }
    }
    line("Sealed", match reply.recipients.as_slice() {
        [] => "with a passphrase, by hand only (a key for archives made by themselves: `mfpsync backup key`)".to_owned(),
        recipients => format!("for {}", printable(&recipients.join(", "))),
    });
    line(
        "Made",
        match &reply.schedule {
            None => "by hand only (`mfpsync backup set --every 24 --at 02:30`)".to_owned(),
            Some(set) => {
                format!(
                    "every {} h, counted from {:02}:{:02} UTC",
                    set.every_hours,
                    set.at_minute / 60,
                    set.at_minute % 60
                )
            }
        },
    );
    if let Some(keep) = &reply.keep {
        let kept = format!(
            "the newest {}, and the newest of each of {} days, {} weeks, {} months",
            keep.newest, keep.days, keep.weeks, keep.months
        );
        line("Kept", kept);
    }
    if let Some(standing) = &reply.standing {
        for (label, text) in standing_lines(standing, now) {
            line(label, text);
        }
    }
    lines.join("\n")
}

fn standing_lines(standing: &Standing, now: u64) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    match &standing.newest {
        Some(newest) => lines.push(("Newest", archive_line(newest, now))),
        None => lines.push(("Newest", "none was made here yet (`mfpsync backup now`)".to_owned())),
    }
    if standing.next_unix_millis > 0 {
        let wait = standing.next_unix_millis.saturating_sub(now);
        lines.push(("Next", if wait == 0 { "now".to_owned() } else { format!("in {}", span(wait)) }));
    }
    if let Some(job) = standing.job.as_ref().filter(|job| !job.ended) {
        lines.push(("Job", format!("{}: {}", kind(job.kind()), under_way(job))));
    }
    if let Some(drill) = &standing.drill {
        lines.push(("Drill", drill_line(drill, now)));
    }
    if !standing.failure.is_empty() {
        let times =
            if standing.failures > 1 { format!(", {} in a row", standing.failures) } else { String::new() };
        let when = ago(standing.failed_unix_millis, now);
        lines.push(("Wrong", format!("the last one failed {when}{times}: {}", printable(&standing.failure))));
    }
    if !standing.not_removed.is_empty() {
        lines.push(("Wrong", format!("no old archive was removed: {}", printable(&standing.not_removed))));
    }
    lines
}

/// What a job is at, and what it has to do again.
pub(crate) fn under_way(job: &Job) -> String {
    let step = step(job.step());
    if job.retrying.is_empty() {
        step.to_owned()
    } else {
        format!("{step}; tried again: {}", printable(&job.retrying))
    }
}

fn drill_line(drill: &Drill, now: u64) -> String {
    let how = if drill.opened { "opened with its key" } else { "read back and compared" };
    let found = if drill.wrong.is_empty() {
        "it is what it should be".to_owned()
    } else {
        format!("WRONG: {}", printable(&drill.wrong))
    };
    format!("{} was {how} {}: {found}", printable(&drill.archive_id), ago(drill.at_unix_millis, now))
}

fn archive_line(archive: &Archive, now: u64) -> String {
    let items: u64 = archive.items.values().sum();
    let mut line = format!(
        "{}  {}, {}, {} at {}:{}, {} of data",
        archive.id,
        ago(archive.made_unix_millis, now),
        size(archive.bytes),
        count(items, "item", "items"),
        archive.epoch,
        archive.sequence,
        size(archive.database_bytes),
    );
    if !archive.complete {
        line += "  INCOMPLETE";
    }
    if !archive.verified {
        line += "  not verified: no key of its group is here";
    }
    printable(&line).into_owned()
}

pub(crate) fn archive_json(archive: &Archive) -> Value {
    json!({
        "id": archive.id,
        "made_unix_millis": archive.made_unix_millis,
        "revision": { "epoch": archive.epoch, "sequence": archive.sequence },
        "bytes": archive.bytes,
        "database_bytes": archive.database_bytes,
        "items": archive.items.iter().collect::<std::collections::BTreeMap<_, _>>(),
        "devices": archive.devices,
        "device_id": archive.device_id,
        "program": archive.program,
        "verified": archive.verified,
        "complete": archive.complete,
    })
}

/// What is set and how it goes, for scripts.
pub(crate) fn settings_json(reply: &SettingsReply) -> Value {
    let standing = reply.standing.clone().unwrap_or_default();
    json!({
        "share": reply.share.as_ref().map(|share| json!({
            "host": share.host,
            "port": share.port,
            "share": share.share,
            "folder": share.folder,
            "domain": share.domain,
            "user": share.user,
            "smb": dialect(share.minimum()),
            "encryption": encryption(share.encryption()),
        })),
        "has_password": reply.has_password,
        "recipients": reply.recipients,
        "schedule": reply.schedule.as_ref().map(|set| json!({
            "every_hours": set.every_hours,
            "at_minute_utc": set.at_minute,
        })),
        "keep": reply.keep.as_ref().map(|keep| json!({
            "newest": keep.newest, "days": keep.days, "weeks": keep.weeks, "months": keep.months,
        })),
        "newest": standing.newest.as_ref().map(archive_json),
        "next_unix_millis": (standing.next_unix_millis > 0).then_some(standing.next_unix_millis),
        "failure": (!standing.failure.is_empty()).then(|| json!({
            "text": standing.failure,
            "at_unix_millis": standing.failed_unix_millis,
            "in_a_row": standing.failures,
        })),
        "not_removed": (!standing.not_removed.is_empty()).then_some(standing.not_removed),
        "drill": standing.drill.as_ref().map(|drill| json!({
            "at_unix_millis": drill.at_unix_millis,
            "archive_id": drill.archive_id,
            "opened": drill.opened,
            "wrong": (!drill.wrong.is_empty()).then_some(&drill.wrong),
        })),
        "job": standing.job.as_ref().map(job_json),
    })
}

/// What lies on the share.
pub(crate) fn archives_text(reply: &ArchivesReply, now: u64) -> String {
    let mut lines: Vec<String> = reply.archives.iter().map(|archive| archive_line(archive, now)).collect();
    if lines.is_empty() {
        lines.push("no archive of this group is there".to_owned());
    }
    for unusable in &reply.unusable {
        lines.push(format!("{}  NOT USED: {}", printable(&unusable.id), printable(&unusable.why)));
    }
    lines.push(format!("{} free; {}", size(reply.free_bytes), printable(&reply.protection)));
    lines.join("\n")
}

/// What lies on the share, for scripts.
pub(crate) fn archives_json(reply: &ArchivesReply) -> Value {
    json!({
        "group_id": reply.group_id,
        "archives": reply.archives.iter().map(archive_json).collect::<Vec<_>>(),
        "unusable": reply.unusable.iter().map(|unusable| json!({
            "id": unusable.id, "why": unusable.why,
        })).collect::<Vec<_>>(),
        "free_bytes": reply.free_bytes,
        "protection": reply.protection,
    })
}

/// What came of a job.
pub(crate) fn job_text(job: &Job, now: u64) -> String {
    let archive = job.archive.as_ref().map(|archive| archive_line(archive, now)).unwrap_or_default();
    let mut lines = match job.kind() {
        JobKind::Backup => vec![format!("made and proven: {archive}")],
        JobKind::Drill => vec![format!("it is what it should be: {archive}")],
        JobKind::Preview => vec![archive],
        JobKind::Restore => vec![format!("restored: {archive}; all devices follow by themselves")],
        JobKind::BringBack | JobKind::Unspecified => vec![archive],
    };
    if job.removed > 0 {
        lines.push(format!("{} removed", count(job.removed, "old archive was", "old archives were")));
    }
    if let Some(comparison) = &job.comparison {
        lines.extend(comparison_lines(comparison));
    }
    if let Some(brought) = &job.brought_back {
        lines.extend(brought_lines(brought));
    }
    if !job.protection.is_empty() {
        lines.push(format!("connection: {}", printable(&job.protection)));
    }
    lines.join("\n")
}

fn comparison_lines(comparison: &Comparison) -> Vec<String> {
    let Comparison { changes_lost, items_back, items_gone, items_changed, .. } = comparison;
    let mut lines = vec![format!(
        "{} back, {} gone, {} other than now",
        count(*items_back, "item", "items"),
        items_gone,
        items_changed
    )];
    if *changes_lost > 0 {
        lines.push(format!(
            "{} made since and not in it; devices offer again what they still hold of them",
            count(*changes_lost, "change was", "changes were")
        ));
    }
    let kept = [
        (
            comparison.releases_kept,
            "device was released since, and stays so",
            "devices were released since, and stay so",
        ),
        (
            comparison.erasures_kept,
            "user was erased since, and stays so",
            "users were erased since, and stay so",
        ),
        (comparison.devices_kept, "device joined since, and stays", "devices joined since, and stay"),
    ];
    lines.extend(
        kept.into_iter()
            .filter(|(number, ..)| *number > 0)
            .map(|(number, one, many)| count(number, one, many)),
    );
    lines
}

fn brought_lines(brought: &BroughtBack) -> Vec<String> {
    let mut lines = vec![if brought.sequence > 0 {
        format!(
            "{} brought back, {} of them new here; `mfpsync undo` takes them back",
            count(brought.items, "item was", "items were"),
            brought.restored
        )
    } else {
        format!(
            "{} to bring back, {} of them new here",
            count(brought.items, "item", "items"),
            brought.restored
        )
    }];
    let left = [
        (brought.same, "as it is", "as they are"),
        (
            brought.differ,
            "here is another, and was left (`--replace`)",
            "here are others, and were left (`--replace`)",
        ),
        (brought.left, "must not come back, and was left", "must not come back, and were left"),
        (brought.no_room, "has no room", "have no room"),
    ];
    lines.extend(
        left.into_iter()
            .filter(|(number, ..)| *number > 0)
            .map(|(number, one, many)| count(number, one, many)),
    );
    lines
}

/// A job, for scripts.
pub(crate) fn job_json(job: &Job) -> Value {
    json!({
        "number": job.number,
        "kind": kind(job.kind()),
        "step": job.step().as_str_name().trim_start_matches("STEP_").to_lowercase(),
        "done_bytes": job.done_bytes,
        "of_bytes": job.of_bytes,
        "scheduled": job.scheduled,
        "since_unix_millis": job.since_unix_millis,
        "retrying": (!job.retrying.is_empty()).then_some(&job.retrying),
        "ended": job.ended,
        "failure": (!job.failure.is_empty()).then_some(&job.failure),
        "archive": job.archive.as_ref().map(archive_json),
        "removed": job.removed,
        "comparison": job.comparison.as_ref().map(|comparison| json!({
            "here": { "epoch": comparison.here_epoch, "sequence": comparison.here_sequence },
            "changes_lost": comparison.changes_lost,
            "items_back": comparison.items_back,
            "items_gone": comparison.items_gone,
            "items_changed": comparison.items_changed,
            "releases_kept": comparison.releases_kept,
            "erasures_kept": comparison.erasures_kept,
            "devices_kept": comparison.devices_kept,
        })),
        "brought_back": job.brought_back.as_ref().map(|brought| json!({
            "items": brought.items,
            "restored": brought.restored,
            "differ": brought.differ,
            "same": brought.same,
            "left": brought.left,
            "no_room": brought.no_room,
            "sequence": brought.sequence,
        })),
        "protection": job.protection,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn archive() -> Archive {
        Archive {
            id: "20261130T023000Z-0123456789abcdef".to_owned(),
            made_unix_millis: NOW - 7_200_000,
            epoch: 2,
            sequence: 48,
            bytes: 1 << 20,
            database_bytes: 3 << 20,
            items: [("address".to_owned(), 40), ("ui".to_owned(), 2)].into(),
            verified: true,
            complete: true,
            ..Archive::default()
        }
    }

    #[test]
    fn nothing_set_says_what_to_do() {
        let text = settings_text(&SettingsReply::default(), NOW);
        assert!(text.contains("mfpsync backup set") && text.contains("mfpsync backup key"), "{text}");
    }

    #[test]
    fn a_failure_is_seen_and_a_password_never() {
        let reply = SettingsReply {
            share: Some(Share {
                host: "nas".to_owned(),
                port: 445,
                share: "backup".to_owned(),
                folder: "printers".to_owned(),
                user: "printer".to_owned(),
                ..Share::default()
            }),
            standing: Some(Standing {
                newest: Some(archive()),
                failure: "connect: user or password is refused".to_owned(),
                failed_unix_millis: NOW - 60_000,
                failures: 2,
                job: Some(Job {
                    step: Step::Sending.into(),
                    retrying: "connection broke, 3 in a row".to_owned(),
                    ..Job::default()
                }),
                ..Standing::default()
            }),
            ..SettingsReply::default()
        };
        let text = settings_text(&reply, NOW);
        assert!(
            text.contains("//nas/backup/printers as printer, SMB 3.1.1 or newer, encryption preferred"),
            "{text}"
        );
        assert!(text.contains("no password is stored"), "{text}");
        assert!(text.contains("42 items at 2:48"), "{text}");
        assert!(text.contains("failed 60 s ago, 2 in a row: connect: user or password is refused"), "{text}");
        assert!(text.contains("tried again: connection broke, 3 in a row"), "{text}");
        let json = settings_json(&reply);
        assert_eq!(json["failure"]["in_a_row"], 2);
        assert_eq!(json["job"]["retrying"], "connection broke, 3 in a row");
    }

    #[test]
    fn a_preview_says_what_comes_goes_and_stays() {
        let job = Job {
            kind: JobKind::Preview.into(),
            archive: Some(archive()),
            comparison: Some(Comparison {
                changes_lost: 3,
                items_back: 2,
                items_gone: 1,
                items_changed: 0,
                releases_kept: 1,
                ..Comparison::default()
            }),
            ..Job::default()
        };
        let text = job_text(&job, NOW);
        assert!(text.contains("2 items back, 1 gone, 0 other than now"), "{text}");
        assert!(text.contains("3 changes were made since"), "{text}");
        assert!(text.contains("1 device was released since, and stays so"), "{text}");
    }
}
