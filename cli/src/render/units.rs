//! Ages, sizes, counts and revisions in the words people use. Pure; called by the other renderers.

use mfpsync_proto::panel::Revision;
use serde_json::{Value, json};

/// A duration in its largest sensible unit, whole numbers only.
pub(crate) fn span(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// How long ago something was, by this device's clock; clocks that disagree give "just now".
pub(crate) fn ago(at_unix_millis: u64, now_unix_millis: u64) -> String {
    match now_unix_millis.saturating_sub(at_unix_millis) {
        0..=999 => "just now".to_owned(),
        millis => format!("{} ago", span(millis)),
    }
}

/// Bytes in binary units with one decimal.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(*unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

/// "1 entry", "2 entries".
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// An order position as `epoch:sequence`.
pub(crate) fn revision(revision: &Revision) -> String {
    format!("{}:{}", revision.epoch, revision.sequence)
}

/// An order position as JSON; null when there is none.
pub(crate) fn revision_json(revision: Option<&Revision>) -> Value {
    revision.map_or(Value::Null, |at| json!({ "epoch": at.epoch, "sequence": at.sequence }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_read_naturally() {
        let spans = [(0, "0 s"), (119_999, "119 s"), (120_000, "2 min"), (7_200_000, "2 h")];
        for (millis, text) in spans {
            assert_eq!(span(millis), text);
        }
        assert_eq!(span(3 * 86_400_000), "3 days");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1_572_864), "1.5 MiB");
        assert_eq!(count(1, "entry", "entries"), "1 entry");
    }

    #[test]
    fn a_clock_that_runs_ahead_is_not_shown_as_the_future() {
        assert_eq!(ago(5_000, 1_000), "just now");
        assert_eq!(ago(1_000, 61_000), "60 s ago");
    }
}
