//! The communication log for people, as JSON, and as CSV. Pure.

use mfpsync_proto::monitor::{Communication, Level};
use serde_json::{Value, json};

use super::units::ago;
use crate::output::printable;

const HEADER: &str =
    "number,first,last,times,level,code,text,peer_device_id,peer_name,address,reason,counts\n";

/// One line an entry.
pub(crate) fn text(entries: &[Communication], now_unix_millis: u64) -> String {
    if entries.is_empty() {
        return "nothing of that kind is in the communication log".to_owned();
    }
    entries.iter().map(|entry| line(entry, now_unix_millis)).collect::<Vec<_>>().join("\n")
}

/// When, how much it matters, what, with whom, why, how much.
pub(crate) fn line(entry: &Communication, now_unix_millis: u64) -> String {
    let mut line = format!(
        "{}  {:7} {}: {}",
        utc(entry.last_unix_millis),
        level(entry),
        printable(&entry.code),
        printable(&entry.text)
    );
    let peer = match (entry.peer_name.as_str(), entry.peer_device_id.as_str()) {
        ("", "") => String::new(),
        ("", id) => format!(", {}", printable(id)),
        (name, _) => format!(", {}", printable(name)),
    };
    line += &peer;
    for part in [&entry.address, &entry.reason] {
        if !part.is_empty() {
            line += &format!(", {}", printable(part));
        }
    }
    for (name, many) in counts(entry) {
        line += &format!(", {many} {}", printable(name));
    }
    if entry.times > 1 {
        line += &format!(" ({} times, first {})", entry.times, ago(entry.first_unix_millis, now_unix_millis));
    }
    line
}

/// All of them for scripts.
pub(crate) fn json(entries: &[Communication]) -> Value {
    json!({ "entries": entries.iter().map(entry).collect::<Vec<_>>() })
}

/// One of them for scripts.
pub(crate) fn entry(entry: &Communication) -> Value {
    json!({
        "number": entry.number,
        "first_unix_millis": entry.first_unix_millis,
        "last_unix_millis": entry.last_unix_millis,
        "times": entry.times,
        "level": level(entry),
        "code": entry.code,
        "text": entry.text,
        "peer_device_id": entry.peer_device_id,
        "peer_name": entry.peer_name,
        "address": entry.address,
        "reason": entry.reason,
        "counts": entry.counts,
    })
}

/// A file of JSON lines.
pub(crate) fn json_lines(entries: &[Communication]) -> String {
    entries.iter().map(|communication| format!("{}\n", entry(communication))).collect()
}

/// A file of comma-separated values with a header. **Source**: RFC 4180, but lines end in a newline.
pub(crate) fn csv(entries: &[Communication]) -> String {
    let mut text = HEADER.to_owned();
    for entry in entries {
        let sums: Vec<String> = counts(entry).iter().map(|(name, many)| format!("{name}={many}")).collect();
        let cells = [
            entry.number.to_string(),
            utc(entry.first_unix_millis),
            utc(entry.last_unix_millis),
            entry.times.to_string(),
            level(entry).to_owned(),
            entry.code.clone(),
            entry.text.clone(),
            entry.peer_device_id.clone(),
            entry.peer_name.clone(),
            entry.address.clone(),
            entry.reason.clone(),
            sums.join(" "),
        ];
        text += &cells.map(|cell| quoted(&cell)).join(",");
        text.push('\n');
    }
    text
}

/// A cell that a spreadsheet would take for a formula is marked as text: devices are named by people.
fn quoted(cell: &str) -> String {
    let mark = if cell.starts_with(['=', '+', '-', '@']) { "'" } else { "" };
    if mark.is_empty() && !cell.contains([',', '"', '\n', '\r']) {
        return cell.to_owned();
    }
    format!("\"{mark}{}\"", cell.replace('"', "\"\""))
}

fn counts(entry: &Communication) -> Vec<(&str, u64)> {
    let mut counts: Vec<_> = entry.counts.iter().map(|(name, many)| (name.as_str(), *many)).collect();
    counts.sort_unstable();
    counts
}

fn level(entry: &Communication) -> &'static str {
    match entry.level() {
        Level::Unspecified => "",
        Level::Info => "info",
        Level::Notice => "notice",
        Level::Warning => "warning",
        Level::Error => "error",
    }
}

/// The moment in UTC to the second. **Source**: the civil calendar of 400-year eras that begin in March.
fn utc(unix_millis: u64) -> String {
    let (days, second) = (unix_millis / 86_400_000, unix_millis / 1_000 % 86_400);
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> Communication {
        Communication {
            number: 7,
            first_unix_millis: 0,
            last_unix_millis: 1_709_210_096_000,
            times: 3,
            level: Level::Warning.into(),
            code: "C-LOST".to_owned(),
            text: "the connection with the server was lost".to_owned(),
            peer_device_id: "ab".to_owned(),
            peer_name: "=Copier, \"2nd\" floor".to_owned(),
            reason: "silent".to_owned(),
            counts: [("accepted".to_owned(), 5)].into(),
            ..Communication::default()
        }
    }

    #[test]
    fn moments_are_shown_in_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_709_210_096_789), "2024-02-29T12:34:56Z");
        assert_eq!(utc(4_107_542_399_000), "2100-02-28T23:59:59Z");
    }

    #[test]
    fn a_line_says_when_what_with_whom_why_and_how_often() {
        assert_eq!(
            line(&lost(), 60_000),
            "2024-02-29T12:34:56Z  warning C-LOST: the connection with the server was lost, \
             =Copier, \"2nd\" floor, silent, 5 accepted (3 times, first 60 s ago)"
        );
    }

    #[test]
    fn a_csv_has_a_header_and_as_many_cells_in_each_line() {
        let text = csv(&[lost()]);
        let (header, line) = text.trim_end().split_once('\n').unwrap();
        assert_eq!(header.split(',').count(), 12);
        assert_eq!(
            line,
            "7,1970-01-01T00:00:00Z,2024-02-29T12:34:56Z,3,warning,C-LOST,\
             the connection with the server was lost,ab,\"'=Copier, \"\"2nd\"\" floor\",,silent,accepted=5"
        );
        assert_eq!(json_lines(&[lost(), lost()]).lines().count(), 2);
    }
}
