//! The roster: the verified membership rows in memory, as every connection and service asks it
//! whether a key may do something.
//!
//! It neither verifies signatures ([`crate::authority`]) nor stores rows; whoever does calls
//! [`Roster::update`] with what is new.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use mfpsync_proto::sync::Reason;
use mfpsync_storage::model::{Capabilities, DeviceId, Member, PublicKey};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Why a key may not do what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No device of the group has this key.
    #[error("not a device of this group")]
    Unknown,
    /// The device was released from the group.
    #[error("device was released from the group")]
    Released,
    /// The device belongs to the group but may not do this.
    #[error("device lacks a capability")]
    Capability,
}

impl Refusal {
    /// The reason as it travels.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Unknown => Reason::UnknownDevice,
            Self::Released => Reason::Released,
            Self::Capability => Reason::Capability,
        }
    }
}

#[derive(Clone)]
struct Entry {
    member: Arc<Member>,
    /// Cancelled when this device, with this key and these capabilities, is no longer admitted.
    token: CancellationToken,
}

#[derive(Default)]
struct View {
    by_device: HashMap<DeviceId, Entry>,
    by_key: HashMap<PublicKey, Entry>,
}

/// Who belongs to the group, as of the newest rows this device has seen.
///
/// Reading takes no lock; an update publishes a whole new view.
#[derive(Default)]
pub struct Roster {
    view: ArcSwap<View>,
    updating: Mutex<()>,
    changed: watch::Sender<()>,
}

impl Roster {
    /// A roster nobody is on yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in rows that were verified against the group's root. Of each device the highest
    /// version counts, whatever the order of arrival; connections it no longer permits are cut (I-21).
    pub fn update(&self, rows: impl IntoIterator<Item = Member>) {
        let _one_at_a_time = self.lock();
        let mut by_device = self.view.load().by_device.clone();
        let mut cut = Vec::new();
        for row in rows {
            take_in(&mut by_device, row, &mut cut);
        }
        let by_key = index_by_key(&by_device);
        self.view.store(Arc::new(View { by_device, by_key }));
        // Only now: whoever is cut and comes back at once must meet the new view.
        cut.iter().for_each(CancellationToken::cancel);
        self.changed.send_replace(());
    }

    /// Forgets everyone and cuts all their connections, as when the device leaves its group.
    pub fn clear(&self) {
        let _one_at_a_time = self.lock();
        let former = self.view.swap(Arc::default());
        former.by_device.values().for_each(|entry| entry.token.cancel());
    }

    /// Hears of every update.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The device with this key, if it is admitted and has all `needed` capabilities.
    ///
    /// # Errors
    /// Why not.
    pub fn authorise(&self, key: PublicKey, needed: Capabilities) -> Result<Arc<Member>, Refusal> {
        self.admit(key, needed).map(|(member, _)| member)
    }

    /// As [`Roster::authorise`], with the token that ends what was permitted. Both come from the
    /// same view, so that no release slips between the question and the token.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(
        &self,
        key: PublicKey,
        needed: Capabilities,
    ) -> Result<(Arc<Member>, CancellationToken), Refusal> {
        let view = self.view.load();
        let Entry { member, token } = view.by_key.get(&key).ok_or(Refusal::Unknown)?;
        if member.released {
            return Err(Refusal::Released);
        }
        if !member.capabilities.contains(needed) {
            return Err(Refusal::Capability);
        }
        Ok((member.clone(), token.clone()))
    }

    /// Cancelled as soon as a newer row releases the device, changes its key or takes a capability
    /// from it; already cancelled for a device that is not admitted.
    #[must_use]
    pub fn released_token(&self, device: DeviceId) -> CancellationToken {
        match self.view.load().by_device.get(&device) {
            Some(entry) => entry.token.clone(),
            None => cancelled(),
        }
    }

    /// Whose key this is, released or not.
    #[must_use]
    pub fn device_of(&self, key: PublicKey) -> Option<DeviceId> {
        self.view.load().by_key.get(&key).map(|entry| entry.member.device)
    }

    /// The newest row of a device, released or not.
    #[must_use]
    pub fn member(&self, device: DeviceId) -> Option<Arc<Member>> {
        self.view.load().by_device.get(&device).map(|entry| entry.member.clone())
    }

    /// The newest row of every device, in the order of their ids.
    #[must_use]
    pub fn members(&self) -> Vec<Arc<Member>> {
        let mut members: Vec<_> =
            self.view.load().by_device.values().map(|entry| entry.member.clone()).collect();
        members.sort_unstable_by_key(|member| member.device);
        members
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // It guards no data that a panic could leave half-made.
        self.updating.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take_in(by_device: &mut HashMap<DeviceId, Entry>, row: Member, cut: &mut Vec<CancellationToken>) {
    let former = by_device.get(&row.device);
    if former.is_some_and(|former| !row.supersedes(&former.member)) {
        return;
    }
    let kept = former.filter(|former| still_permits(&former.member, &row));
    let token = match kept {
        Some(former) => former.token.clone(),
        None => {
            cut.extend(former.map(|former| former.token.clone()));
            if row.released { cancelled() } else { CancellationToken::new() }
        }
    };
    by_device.insert(row.device, Entry { member: Arc::new(row), token });
}

fn still_permits(old: &Member, new: &Member) -> bool {
    !new.released
        && !old.released
        && new.public_key == old.public_key
        && new.capabilities.contains(old.capabilities)
}

fn index_by_key(by_device: &HashMap<DeviceId, Entry>) -> HashMap<PublicKey, Entry> {
    let mut by_key: HashMap<PublicKey, Entry> = HashMap::with_capacity(by_device.len());
    let mut doubtful = Vec::new();
    for entry in by_device.values() {
        let key = entry.member.public_key;
        match by_key.get(&key) {
            // A key that was released under one id and paired again under another.
            Some(other) if !other.member.released && entry.member.released => continue,
            Some(other) if !other.member.released => doubtful.push(key),
            _ => {}
        }
        by_key.insert(key, entry.clone());
    }
    // One key for two devices tells neither; pairing never admits that.
    for key in doubtful {
        by_key.remove(&key);
    }
    by_key
}

fn cancelled() -> CancellationToken {
    let token = CancellationToken::new();
    token.cancel();
    token
}

#[cfg(test)]
mod tests {
    use mfpsync_storage::model::GroupId;

    use super::*;

    fn row(device: u8, version: u64) -> Member {
        Member {
            group: GroupId([9; 16]),
            device: DeviceId([device; 16]),
            public_key: PublicKey([device; 32]),
            name: format!("device {device}"),
            capabilities: Capabilities::CLIENT.with(Capabilities::SERVE),
            released: false,
            version,
            endpoints: Vec::new(),
            issuer: DeviceId([1; 16]),
        }
    }

    fn key(device: u8) -> PublicKey {
        PublicKey([device; 32])
    }

    fn released(device: u8, version: u64) -> Member {
        Member { released: true, ..row(device, version) }
    }

    #[test]
    fn authorisation_tells_unknown_released_and_incapable_apart() {
        let roster = Roster::new();
        roster.update([row(2, 1), released(3, 4)]);
        let ask = |device, needed| roster.authorise(key(device), needed).map(|member| member.device);
        assert_eq!(ask(2, Capabilities::CLIENT), Ok(DeviceId([2; 16])));
        assert_eq!(ask(2, Capabilities::ADMINISTER), Err(Refusal::Capability));
        assert_eq!(ask(3, Capabilities::CLIENT), Err(Refusal::Released));
        assert_eq!(ask(4, Capabilities(0)), Err(Refusal::Unknown));
    }

    #[test]
    fn the_highest_version_counts_in_any_order() {
        for rows in [[row(2, 1), released(2, 2)], [released(2, 2), row(2, 1)]] {
            let roster = Roster::new();
            roster.update(rows);
            assert_eq!(roster.authorise(key(2), Capabilities(0)), Err(Refusal::Released));
        }
    }

    #[test]
    fn of_two_rows_of_one_version_the_release_counts() {
        for rows in [[row(2, 5), released(2, 5)], [released(2, 5), row(2, 5)]] {
            let roster = Roster::new();
            roster.update(rows);
            assert_eq!(roster.authorise(key(2), Capabilities(0)), Err(Refusal::Released));
        }
    }

    #[test]
    fn a_release_cancels_the_token_and_pairing_anew_gives_a_fresh_one() {
        let roster = Roster::new();
        roster.update([row(2, 1), row(3, 1)]);
        let (two, three) =
            (roster.released_token(DeviceId([2; 16])), roster.released_token(DeviceId([3; 16])));
        roster.update([released(2, 2)]);
        assert!(two.is_cancelled() && !three.is_cancelled());
        assert!(roster.released_token(DeviceId([2; 16])).is_cancelled());
        roster.update([row(2, 3)]);
        assert!(!roster.released_token(DeviceId([2; 16])).is_cancelled());
        assert!(roster.authorise(key(2), Capabilities::CLIENT).is_ok());
    }

    #[test]
    fn a_new_name_keeps_connections_and_a_new_key_or_fewer_capabilities_cut_them() {
        let renamed = Member { name: "renamed".to_owned(), ..row(2, 2) };
        let rekeyed = Member { public_key: key(7), ..row(2, 2) };
        let reduced = Member { capabilities: Capabilities::CLIENT, ..row(2, 2) };
        for (newer, cut) in [(renamed, false), (rekeyed, true), (reduced, true)] {
            let roster = Roster::new();
            roster.update([row(2, 1)]);
            let token = roster.released_token(DeviceId([2; 16]));
            roster.update([newer]);
            assert_eq!(token.is_cancelled(), cut);
        }
    }

    #[test]
    fn a_released_device_cannot_take_itself_back() {
        let roster = Roster::new();
        let own = |member| Member { issuer: DeviceId([2; 16]), ..member };
        roster.update([own(row(2, 1)), released(2, 2), own(row(2, 3))]);
        assert_eq!(roster.authorise(key(2), Capabilities(0)), Err(Refusal::Released));
        roster.update([row(2, 4)]);
        assert!(roster.authorise(key(2), Capabilities(0)).is_ok());
    }

    #[test]
    fn one_key_for_two_devices_admits_neither_unless_one_is_released() {
        let twin = Member { public_key: key(2), ..row(3, 1) };
        let roster = Roster::new();
        roster.update([row(2, 1), twin.clone()]);
        assert_eq!(roster.authorise(key(2), Capabilities(0)), Err(Refusal::Unknown));
        roster.update([released(2, 2)]);
        let found = roster.authorise(key(2), Capabilities(0)).map(|member| member.device);
        assert_eq!(found, Ok(DeviceId([3; 16])));
    }

    #[test]
    fn an_old_key_is_unknown_after_pairing_anew_and_clearing_forgets_all() {
        let roster = Roster::new();
        roster.update([row(2, 1)]);
        roster.update([Member { public_key: key(7), ..row(2, 2) }]);
        assert_eq!(roster.authorise(key(2), Capabilities(0)), Err(Refusal::Unknown));
        let (_, token) = roster.admit(key(7), Capabilities::CLIENT).unwrap();
        roster.clear();
        assert!(token.is_cancelled() && roster.members().is_empty());
    }
}
