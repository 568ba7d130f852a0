//! When a client without its server looks around, and which hints it follows. Pure: time is an
//! argument.
//!
//! A hint costs one dial and proves nothing; TLS with the expected key decides. The addresses of the
//! membership rows are tried as ever; hints come after them, a few at a time, each more seldom the
//! more often it led nowhere.

use std::collections::BTreeMap;
use std::time::Duration;

/// The server may only be restarting: nobody looks around at once.
const FIRST: Duration = Duration::from_secs(3);
/// Between two looks, twice as long each time.
const PAUSE: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Hints followed in one sweep.
pub(super) const HINTS: usize = 4;
/// A hint that led nowhere rests, twice as long each time.
const REST: Duration = Duration::from_secs(60);
const REST_MAX: Duration = Duration::from_secs(60 * 60);
/// Hints that are remembered as resting.
const RESTING: usize = 256;

/// What a client knows about looking around.
#[derive(Debug, Default)]
pub(super) struct Seek {
    /// When it looks around next, and the pause after that; none while its server is there.
    next: Option<(Duration, Duration)>,
    /// To be tried in the next sweep, or in the present one.
    hints: Vec<String>,
    /// The sweep with the hints has begun.
    sweeping: bool,
    /// Until when, and for how long.
    resting: BTreeMap<String, (Duration, Duration)>,
}

impl Seek {
    /// A server is there: what was learned about looking is forgotten.
    pub(super) fn arrived(&mut self) {
        self.next = None;
        self.hints.clear();
    }

    /// No endpoint led to the server; true when it is time to look around.
    pub(super) fn is_due(&mut self, now: Duration) -> bool {
        let (at, pause) = *self.next.get_or_insert((now + FIRST, PAUSE));
        if now < at {
            return false;
        }
        self.next = Some((now + pause, (pause * 2).min(PAUSE_MAX)));
        true
    }

    /// The hints to follow of those that were found.
    pub(super) fn follow(&mut self, now: Duration, known: &[String], found: Vec<String>) -> &[String] {
        let resting = |place: &String| self.resting.get(place).is_some_and(|(until, _)| now < *until);
        self.hints =
            found.into_iter().filter(|place| !known.contains(place) && !resting(place)).take(HINTS).collect();
        self.sweeping = false;
        for place in &self.hints {
            let rest = self.resting.get(place).map_or(REST, |(_, rest)| (*rest * 2).min(REST_MAX));
            self.resting.insert(place.clone(), (now + rest, rest));
        }
        while self.resting.len() > RESTING {
            let soonest = self.resting.iter().min_by_key(|(_, (until, _))| *until);
            let Some(soonest) = soonest.map(|(place, _)| place.clone()) else { break };
            self.resting.remove(&soonest);
        }
        &self.hints
    }

    /// Whether `endpoint` is only a hint.
    pub(super) fn is_hint(&self, endpoint: &str) -> bool {
        self.hints.iter().any(|hint| hint == endpoint)
    }

    /// An endpoint is dialled.
    pub(super) fn dialling(&mut self) {
        self.sweeping = true;
    }

    /// The client waits; true when a sweep with hints is behind it, which are no longer to be tried.
    pub(super) fn swept(&mut self) -> bool {
        self.sweeping && !std::mem::take(&mut self.hints).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    fn places(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn looks_come_late_and_then_more_and_more_seldom() {
        let mut seek = Seek::default();
        let due: Vec<u64> = (0..300).filter(|now| seek.is_due(seconds(*now))).collect();
        assert_eq!(due, [3, 8, 18, 38, 78, 138, 198, 258]);
        seek.arrived();
        assert!(!seek.is_due(seconds(300)) && seek.is_due(seconds(303)));
    }

    #[test]
    fn a_hint_is_dialled_once_then_rests_longer_each_time() {
        let mut seek = Seek::default();
        let mut dialled = Vec::new();
        for now in 0..1_000 {
            if !seek.follow(seconds(now), &[], places(&["spoofed"])).is_empty() {
                dialled.push(now);
            }
        }
        assert_eq!(dialled, [0, 60, 180, 420, 900]);
    }

    #[test]
    fn what_is_known_already_is_no_hint_and_a_hint_ends_with_its_sweep() {
        let mut seek = Seek::default();
        let known = places(&["here"]);
        assert_eq!(seek.follow(seconds(0), &known, places(&["here", "there"])), places(&["there"]));
        assert!(seek.is_hint("there") && !seek.is_hint("here"));
        assert!(!seek.swept() && seek.is_hint("there"), "its sweep has not begun");
        seek.dialling();
        assert!(seek.swept() && !seek.swept() && !seek.is_hint("there"));
    }

    proptest! {
        #[test]
        fn any_flood_is_followed_a_few_at_a_time(found in prop::collection::vec("[a-z]{1,2}", 0..600)) {
            let mut seek = Seek::default();
            for now in 0..90 {
                prop_assert!(seek.follow(seconds(now), &[], found.clone()).len() <= HINTS);
                prop_assert!(seek.resting.len() <= RESTING);
            }
        }
    }
}
