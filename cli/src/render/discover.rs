//! Servers that announce themselves. Pure.

use mfpsync_proto::panel::{DiscoverReply, DiscoveredServer};
use serde_json::{Value, json};

use crate::output::printable;

/// Two lines a server: who it says it is, then where.
pub(crate) fn text(reply: &DiscoverReply) -> String {
    if reply.servers.is_empty() {
        return "no server announces itself on this network".to_owned();
    }
    reply.servers.iter().map(server_text).collect::<Vec<_>>().join("\n")
}

/// The same, for a choice.
pub(crate) fn numbered(reply: &DiscoverReply) -> String {
    let line = |(place, server)| format!("{}. {}", place + 1, server_text(server));
    reply.servers.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
}

fn server_text(server: &DiscoveredServer) -> String {
    let mut state = vec![if server.pairing_open { "pairing is open" } else { "pairing is closed" }];
    state.extend(server.own_group.then_some("this device's group"));
    format!(
        "{} (group {}): {}\n    {}",
        printable(&server.name),
        printable(&server.group_name),
        state.join(", "),
        printable(&server.addresses.join("  "))
    )
}

/// The same for scripts.
pub(crate) fn json(reply: &DiscoverReply) -> Value {
    let server = |server: &DiscoveredServer| {
        json!({
            "name": server.name,
            "group_name": server.group_name,
            "addresses": server.addresses,
            "pairing_open": server.pairing_open,
            "own_group": server.own_group,
        })
    };
    json!({ "servers": reply.servers.iter().map(server).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_who_it_is_and_where_and_steers_no_terminal() {
        let server = DiscoveredServer {
            name: "copier\u{1b}[2J".to_owned(),
            group_name: "Head office".to_owned(),
            addresses: vec!["192.0.2.1:7450".to_owned(), "[2001:db8::1]:7450".to_owned()],
            pairing_open: true,
            own_group: false,
        };
        let reply = DiscoverReply { servers: vec![server] };
        let expected = "copier\\u{1b}[2J (group Head office): pairing is open\n    \
                        192.0.2.1:7450  [2001:db8::1]:7450";
        assert_eq!(text(&reply), expected);
        assert_eq!(numbered(&reply), format!("1. {expected}"));
        assert_eq!(text(&DiscoverReply::default()), "no server announces itself on this network");
    }
}
