//! How long the replica takes to have what was committed: the moments of the last commits.

use std::collections::VecDeque;
use std::time::Duration;

use mfpsync_storage::figures::Histogram;
use tokio::time::Instant;

/// Commits whose moment is kept; of later ones none is, until the replica has the first of them.
const KEPT: usize = 1_024;
/// In microseconds: from below the round trip of a local network to ten seconds.
const BOUNDS: &[u64] = &[
    200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000, 10_000_000,
];

/// A distribution of such times.
pub(super) fn histogram() -> Histogram {
    Histogram::new(BOUNDS)
}

/// Commits that the replica has not said it has.
#[derive(Debug, Default)]
pub(super) struct Lag(VecDeque<(u64, Instant)>);

impl Lag {
    /// A transaction is on stable storage here.
    pub(super) fn committed(&mut self, transaction: u64) {
        if self.0.len() < KEPT {
            self.0.push_back((transaction, Instant::now()));
        }
    }

    /// The replica has all up to this transaction on stable storage.
    pub(super) fn confirmed(&mut self, transaction: u64, histogram: &Histogram) {
        while let Some((_, at)) = self.0.pop_front_if(|(first, _)| *first <= transaction) {
            histogram.observe(u64::try_from(at.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// Another run of transactions begins.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// How long ago the first commit was that a replica which has all up to `has` lacks.
    pub(super) fn behind(&self, has: Option<u64>) -> Option<Duration> {
        let missing = |(transaction, _): &&(u64, Instant)| has.is_none_or(|has| has < *transaction);
        self.0.iter().find(missing).map(|(_, at)| at.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_commit_is_timed_until_the_replica_has_it() {
        let (mut lag, histogram) = (Lag::default(), histogram());
        lag.committed(7);
        tokio::time::advance(Duration::from_millis(3)).await;
        lag.committed(8);
        lag.committed(9);
        tokio::time::advance(Duration::from_millis(4)).await;
        assert_eq!(lag.behind(Some(7)), Some(Duration::from_millis(4)));
        lag.confirmed(8, &histogram);
        assert_eq!(histogram.sum(), 11_000);
        assert_eq!(lag.behind(Some(8)), Some(Duration::from_millis(4)));
        assert_eq!(lag.behind(Some(9)), None);
        lag.confirmed(9, &histogram);
        assert_eq!(histogram.cumulative().last(), Some(&(None, 3)));
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_counts() {
        let mut lag = Lag::default();
        (0..5_000).for_each(|transaction| lag.committed(transaction));
        assert_eq!(lag.0.len(), KEPT);
        lag.confirmed(u64::MAX, &histogram());
        assert_eq!(lag.behind(None), None);
    }
}
