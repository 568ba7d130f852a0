//! Counting by key: how many connections one address or one device has, and giving the place back
//! when a connection ends.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Places for each key, up to a common limit.
#[derive(Debug)]
pub(super) struct Places<K> {
    limit: AtomicUsize,
    taken: Mutex<HashMap<K, usize>>,
}

impl<K: Hash + Eq + Copy> Places<K> {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: AtomicUsize::new(limit), taken: Mutex::default() })
    }

    /// Another limit from now on. Who has a place keeps it.
    pub(super) fn limit_to(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// A place for this key, given back when it is dropped; none if all are taken.
    pub(super) fn take(self: &Arc<Self>, key: K) -> Option<Place<K>> {
        let mut taken = self.lock();
        let count = taken.entry(key).or_insert(0);
        if *count >= self.limit.load(Ordering::Relaxed) {
            return None;
        }
        *count += 1;
        Some(Place { key, places: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        // Each step leaves the map whole.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A taken place.
#[derive(Debug)]
pub(super) struct Place<K: Hash + Eq + Copy> {
    key: K,
    places: Arc<Places<K>>,
}

impl<K: Hash + Eq + Copy> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(count) = taken.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.key);
            }
        }
    }
}

/// The part of an address that one host cannot vary: all of IPv4, the network half of IPv6.
pub(super) fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (!0 << 64)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_it_is_dropped() {
        let places = Places::new(2);
        let first = places.take(1).unwrap();
        let _second = places.take(1).unwrap();
        assert!(places.take(1).is_none());
        assert!(places.take(2).is_some());
        drop(first);
        assert!(places.take(1).is_some());
        assert_eq!(places.lock().len(), 1);
    }

    #[test]
    fn a_lower_limit_takes_no_place_away_and_gives_none_until_there_is_room() {
        let places = Places::new(2);
        let (first, second) = (places.take(()).unwrap(), places.take(()).unwrap());
        places.limit_to(1);
        drop(first);
        assert!(places.take(()).is_none());
        drop(second);
        assert!(places.take(()).is_some());
        places.limit_to(3);
        let taken: Vec<_> = (0..4).map_while(|_| places.take(())).collect();
        assert_eq!(taken.len(), 3);
    }

    #[test]
    fn hosts_of_one_ipv6_network_count_as_one() {
        let of = |text: &str| origin(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
