//! Servers that were heard of, bounded in number and age. Pure: time is an argument.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mfpsync_storage::model::GroupId;

use super::announcement::Announcement;

/// Servers remembered at once: more than any network has, less than a flood wants.
pub(super) const SERVERS: usize = 64;
/// Of these at one address: a machine for tests runs several, an office machine one.
pub(super) const OF_SOURCE: usize = 4;
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
#[derive(Debug)]
pub struct Candidates {
    heard: BTreeMap<String, (Duration, Candidate)>,
    /// New instances since the table became full.
    crowd: u64,
    random: u64,
}

impl Candidates {
    /// Nothing heard yet; chance comes from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { heard: BTreeMap::new(), crowd: 0, random: seed }
    }

    /// Takes what `instance` says now. Where there is no room, chance decides who stays: who floods the
    /// network must not be able to keep a server out by being first, nor to drive one out by being last.
    pub fn hear(
        &mut self,
        now: Duration,
        instance: &str,
        announcement: Announcement,
        addresses: Vec<SocketAddr>,
    ) {
        self.forget_old(now);
        let addresses = usable(addresses);
        let Some(source) = addresses.first().map(SocketAddr::ip) else { return };
        if !self.heard.contains_key(instance) && !self.make_room(source) {
            return;
        }
        self.heard.insert(instance.to_owned(), (now, Candidate { announcement, addresses }));
    }

    /// Whether a newcomer has room. One address makes room at its own expense; in a full table each
    /// instance of the crowd has the same chance (reservoir sampling).
    fn make_room(&mut self, source: IpAddr) -> bool {
        let is_of_source =
            |candidate: &Candidate| candidate.addresses.first().is_some_and(|at| at.ip() == source);
        let of_source: Vec<String> = self
            .heard
            .iter()
            .filter(|(_, (_, candidate))| is_of_source(candidate))
            .map(|(instance, _)| instance.clone())
            .collect();
        if of_source.len() >= OF_SOURCE {
            let chosen = self.below(of_source.len() as u64);
            self.heard.remove(&of_source[chosen]);
            return true;
        }
        if self.heard.len() < SERVERS {
            self.crowd = SERVERS as u64;
            return true;
        }
        self.crowd += 1;
        let chosen = self.below(self.crowd);
        let displaced = self.heard.keys().nth(chosen).cloned();
        displaced.is_some_and(|instance| self.heard.remove(&instance).is_some())
    }

    /// SplitMix64: fairness among strangers, no secret.
    fn below(&mut self, end: u64) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end.max(1)).unwrap_or(0)
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

    /// Where servers may be that claim to be of `group`, the best address of each first. Which server comes
    /// first is chance: the claim can be repeated by anybody, and only a few places are tried at a time.
    pub fn of_group(&mut self, now: Duration, group: GroupId) -> Vec<SocketAddr> {
        let mut own: Vec<Candidate> =
            self.list(now).into_iter().filter(|candidate| candidate.announcement.is_of(group)).collect();
        for end in (1..own.len()).rev() {
            let chosen = self.below(end as u64 + 1);
            own.swap(end, chosen);
        }
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
