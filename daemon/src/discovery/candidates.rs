//! Servers that were heard of, bounded in number and age. Pure: time is an argument.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mfpsync_storage::model::GroupId;

use super::announcement::Announcement;

/// Servers remembered at once: more than any network has, less than a flood wants.
pub(super) const SERVERS: usize = 64;
/// Addresses of one server.
pub(super) const ADDRESSES: usize = 8;
/// What was not heard again for so long is forgotten: the time to live of DNS-SD host records.
pub(super) const FORGET: Duration = Duration::from_secs(120);

/// A server that was heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// What it says.
    pub announcement: Announcement,
    /// Where it says it is, addresses that every device can use first.
    pub addresses: Vec<SocketAddr>,
}

/// All that were heard of.
#[derive(Debug, Default)]
pub struct Candidates {
    heard: BTreeMap<String, (Duration, Candidate)>,
}

impl Candidates {
    /// Takes what `instance` says now. When the table is full a new instance is not taken: those that
    /// were there first stay.
    pub fn hear(
        &mut self,
        now: Duration,
        instance: &str,
        announcement: Announcement,
        addresses: Vec<SocketAddr>,
    ) {
        self.forget_old(now);
        let addresses = usable(addresses);
        let known = self.heard.contains_key(instance);
        if addresses.is_empty() || (!known && self.heard.len() >= SERVERS) {
            return;
        }
        self.heard.insert(instance.to_owned(), (now, Candidate { announcement, addresses }));
    }

    /// `instance` said goodbye.
    pub fn forget(&mut self, instance: &str) {
        self.heard.remove(instance);
    }

    /// Those heard of lately, by name.
    pub fn list(&mut self, now: Duration) -> Vec<Candidate> {
        self.forget_old(now);
        let mut all: Vec<Candidate> = self.heard.values().map(|(_, candidate)| candidate.clone()).collect();
        all.sort_by(|one, other| {
            let key = |candidate: &Candidate| {
                (candidate.announcement.name.clone(), candidate.addresses.first().copied())
            };
            key(one).cmp(&key(other))
        });
        all
    }

    /// Where servers may be that claim to be of `group`, the best address of each first.
    pub fn of_group(&mut self, now: Duration, group: GroupId) -> Vec<SocketAddr> {
        let own: Vec<Candidate> =
            self.list(now).into_iter().filter(|candidate| candidate.announcement.is_of(group)).collect();
        let ranked = (0..ADDRESSES).flat_map(|rank| own.iter().map(move |one| one.addresses.get(rank)));
        let mut places: Vec<SocketAddr> = Vec::new();
        for place in ranked.flatten() {
            if !places.contains(place) {
                places.push(*place);
            }
        }
        places
    }

    fn forget_old(&mut self, now: Duration) {
        self.heard.retain(|_, (heard, _)| now.saturating_sub(*heard) < FORGET);
    }
}

fn usable(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let wrong = |ip: IpAddr| ip.is_unspecified() || ip.is_multicast();
    addresses.retain(|address| !wrong(address.ip()) && address.port() != 0);
    addresses.sort_by_key(|address| (rank(address.ip()), *address));
    addresses.dedup();
    addresses.truncate(ADDRESSES);
    addresses
}

fn rank(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(ip) if ip.is_loopback() => 4,
        IpAddr::V6(ip) if ip.is_loopback() => 4,
        IpAddr::V4(ip) if ip.is_link_local() => 2,
        IpAddr::V6(ip) if ip.is_unicast_link_local() => 3,
        IpAddr::V4(_) => 0,
        IpAddr::V6(_) => 1,
    }
}
