//! How long to wait before the next attempt: full jitter under a rising, capped ceiling.
//!
//! Pure: randomness is an argument, and waiting is the caller's. **Source**: "Exponential Backoff
//! And Jitter", AWS Architecture Blog, 2015 (the "full jitter" variant).

use std::time::Duration;

/// Longest push-back of a server that is honoured: nobody is told to stay away for a day.
const PUSH_BACK_CAP: Duration = Duration::from_secs(600);

/// Counts failed attempts and draws the waits between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    attempt: u32,
}

impl Backoff {
    /// The first wait is below `first`, every later one below twice the ceiling before, and all
    /// below `cap`.
    #[must_use]
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, attempt: 0 }
    }

    /// All later waits are below another cap.
    pub fn limit_to(&mut self, cap: Duration) {
        self.cap = cap;
    }

    /// Failed attempts since the last success.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Notes a failed attempt and draws the wait; `random` is uniform over all its values. What
    /// the server asked for comes on top, so that those it sent away do not return together.
    pub fn wait(&mut self, random: u64, push_back: Option<Duration>) -> Duration {
        let ceiling = self.first.saturating_mul(1_u32.checked_shl(self.attempt).unwrap_or(u32::MAX));
        self.attempt = self.attempt.saturating_add(1).min(31);
        jitter(ceiling.min(self.cap), random) + push_back.unwrap_or_default().min(PUSH_BACK_CAP)
    }

    /// Notes a success: the next wait is a first one again.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

/// A uniformly drawn part of `ceiling`.
#[must_use]
pub fn jitter(ceiling: Duration, random: u64) -> Duration {
    let nanos = (ceiling.as_nanos() * u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const CAP: Duration = Duration::from_secs(30);

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let mut backoff = Backoff::new(FIRST, CAP);
        let ceilings: Vec<u128> = (0..40).map(|_| backoff.wait(u64::MAX, None).as_millis() + 1).collect();
        assert_eq!(ceilings[..4], [100, 200, 400, 800]);
        assert!(ceilings[9..].iter().all(|&ceiling| ceiling == 30_000));
    }

    #[test]
    fn a_success_starts_over() {
        let mut backoff = Backoff::new(FIRST, CAP);
        for _ in 0..7 {
            let _ = backoff.wait(0, None);
        }
        assert_eq!(backoff.attempt(), 7);
        backoff.reset();
        assert!(backoff.wait(u64::MAX, None) < FIRST);
    }

    #[test]
    fn a_server_is_heeded_within_reason() {
        let mut backoff = Backoff::new(FIRST, CAP);
        assert_eq!(backoff.wait(0, Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(backoff.wait(0, Some(Duration::MAX)), PUSH_BACK_CAP);
    }

    proptest! {
        #[test]
        fn every_wait_is_below_the_cap(draws in prop::collection::vec(any::<u64>(), 1..50)) {
            let mut backoff = Backoff::new(FIRST, CAP);
            for random in draws {
                prop_assert!(backoff.wait(random, None) < CAP);
            }
        }
    }
}
