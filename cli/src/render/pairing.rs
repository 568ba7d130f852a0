//! The pairing code, big enough to be read across a room. Pure.

use mfpsync_proto::panel::OpenPairingReply;
use serde_json::{Value, json};

use super::units::span;
use crate::output::printable;

/// Five rows a digit, three columns wide.
const DIGITS: [[&str; 5]; 10] = [
    ["###", "# #", "# #", "# #", "###"],
    ["  #", "  #", "  #", "  #", "  #"],
    ["###", "  #", "###", "#  ", "###"],
    ["###", "  #", "###", "  #", "###"],
    ["# #", "# #", "###", "  #", "  #"],
    ["###", "#  ", "###", "  #", "###"],
    ["###", "#  ", "###", "# #", "###"],
    ["###", "  #", "  #", "  #", "  #"],
    ["###", "# #", "###", "# #", "###"],
    ["###", "# #", "###", "  #", "###"],
];

/// The code in figures and in type, how long it lasts, and what to do with it: `options` goes behind the command for
/// the joining device.
pub(crate) fn text(reply: &OpenPairingReply, options: &str) -> String {
    let addresses: Vec<_> = reply.addresses.iter().map(|address| printable(address)).collect();
    let address = addresses.first().map_or("ADDRESS", |address| address.as_ref());
    format!(
        "\n{}\n\nCode     {}\nOpen for {}, {} tries, one device\nAddress  {}\n\nOn the joining device:  mfpsync join {address}{options}",
        big(&reply.code),
        spaced(&reply.code),
        span(u64::from(reply.seconds) * 1000),
        reply.tries,
        addresses.join(", "),
    )
}

/// The same for scripts.
pub(crate) fn json(reply: &OpenPairingReply) -> Value {
    json!({
        "code": reply.code,
        "seconds": reply.seconds,
        "tries": reply.tries,
        "addresses": reply.addresses,
    })
}

/// The code in two halves, as people read figures to each other.
pub(crate) fn spaced(code: &str) -> String {
    match code.split_at_checked(4) {
        Some((left, right)) if !right.is_empty() => format!("{} {}", printable(left), printable(right)),
        Some(_) | None => printable(code).into_owned(),
    }
}

fn big(code: &str) -> String {
    let digits: Vec<_> = code.chars().filter_map(|c| c.to_digit(10)).collect();
    let row = |row: usize| {
        let mut line = String::from(" ");
        for (at, digit) in digits.iter().enumerate() {
            let gap = if at == 4 { "     " } else { "  " };
            let shape =
                DIGITS.get(*digit as usize).and_then(|rows| rows.get(row)).copied().unwrap_or_default();
            line.push_str(gap);
            line.push_str(shape);
        }
        line.trim_end().to_owned()
    };
    (0..5).map(row).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_shown_big_and_in_two_halves() {
        let reply = OpenPairingReply {
            code: "12304567".to_owned(),
            seconds: 600,
            tries: 5,
            addresses: vec!["192.0.2.1:7401".to_owned()],
        };
        let text = text(&reply, " --leave");
        assert!(text.contains("Code     1230 4567"), "{text}");
        assert!(text.contains("Open for 10 min, 5 tries"), "{text}");
        assert!(text.contains("mfpsync join 192.0.2.1:7401 --leave"), "{text}");
        let first = text.lines().nth(1).unwrap();
        assert_eq!(first, "     #  ###  ###  ###     # #  ###  ###  ###");
    }
}
