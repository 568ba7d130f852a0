//! The addresses this device has on its interfaces, as others may dial them.

use std::net::{IpAddr, Ipv6Addr};

/// Enough for an office; a device with more names its addresses in the configuration.
const ADDRESSES: usize = 6;

/// Addresses of the interfaces in use that mean the same to every device: neither loopback nor
/// link-local. Sorted, so that an unchanged device gives an unchanged answer; none when the system
/// does not say.
#[must_use]
pub fn own_addresses(interfaces: &[String]) -> Vec<IpAddr> {
    let all = match if_addrs::get_if_addrs() {
        Ok(all) => all,
        Err(error) => {
            tracing::warn!(%error, "read the addresses of the interfaces");
            return Vec::new();
        }
    };
    let chosen = |name: &String| interfaces.is_empty() || interfaces.contains(name);
    let addresses = all.into_iter().filter(|one| chosen(&one.name)).map(|one| one.ip());
    let mut addresses: Vec<IpAddr> = addresses.filter(|ip| is_for_all(*ip)).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(ADDRESSES);
    addresses
}

fn is_for_all(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified(),
        IpAddr::V6(ip) => ip != Ipv6Addr::LOCALHOST && !ip.is_unicast_link_local() && !ip.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_to_others_is_never_an_address_of_this_machine_alone() {
        for (text, told) in [
            ("192.0.2.1", true),
            ("2001:db8::1", true),
            ("fd00::1", true),
            ("127.0.0.1", false),
            ("169.254.1.1", false),
            ("::1", false),
            ("fe80::1", false),
        ] {
            assert_eq!(is_for_all(text.parse().unwrap()), told, "{text}");
        }
        assert!(own_addresses(&["no such interface".to_owned()]).is_empty());
    }
}
