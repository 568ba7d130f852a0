//! What a database's writer counts: commits, how long they take, how many requests share one, and
//! checkpoints. Atomics only; read by whoever shows them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of [`Figures::commit_micros`], in microseconds.
const COMMIT_MICROS: &[u64] = &[1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];
/// Upper bounds of [`Figures::group_requests`].
const GROUP_REQUESTS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256];

/// A distribution by fixed bounds.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One for each bound, and one for what is above.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// Without values; `bounds` rise.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, sum: AtomicU64::new(0) }
    }

    /// Counts a value.
    pub fn observe(&self, value: u64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Each bound with the count of values up to it; none is without a bound, and has them all.
    #[must_use]
    pub fn cumulative(&self) -> Vec<(Option<u64>, u64)> {
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        let mut sum = 0;
        bounds
            .zip(self.buckets.iter())
            .map(|(bound, bucket)| {
                sum += bucket.load(Ordering::Relaxed);
                (bound, sum)
            })
            .collect()
    }

    /// The sum of all values.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }
}

/// Figures of one database since it was opened.
#[derive(Debug)]
pub struct Figures {
    /// Microseconds from the beginning of a group's transaction until it is on stable storage.
    pub commit_micros: Histogram,
    /// Requests in a group.
    pub group_requests: Histogram,
    checkpoints: [AtomicU64; 3],
}

/// How a checkpoint was run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Passive,
    Restart,
    Truncate,
}

impl Mode {
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::Passive => "PASSIVE",
            Self::Restart => "RESTART",
            Self::Truncate => "TRUNCATE",
        }
    }
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            commit_micros: Histogram::new(COMMIT_MICROS),
            group_requests: Histogram::new(GROUP_REQUESTS),
            checkpoints: Default::default(),
        }
    }
}

impl Figures {
    pub(crate) fn committed(&self, requests: usize, took: Duration) {
        self.group_requests.observe(requests as u64);
        self.commit_micros.observe(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn checkpointed(&self, mode: Mode) {
        self.checkpoints[mode as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Checkpoints tried, by mode.
    #[must_use]
    pub fn checkpoints(&self) -> [(&'static str, u64); 3] {
        [Mode::Passive, Mode::Restart, Mode::Truncate].map(|mode| {
            let name = match mode {
                Mode::Passive => "passive",
                Mode::Restart => "restart",
                Mode::Truncate => "truncate",
            };
            (name, self.checkpoints[mode as usize].load(Ordering::Relaxed))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_up_to_their_bounds() {
        let histogram = Histogram::new(GROUP_REQUESTS);
        for value in [1, 2, 3, 256, 999] {
            histogram.observe(value);
        }
        let counts = histogram.cumulative();
        assert_eq!((counts[0], counts[1], counts[2]), ((Some(1), 1), (Some(2), 2), (Some(4), 3)));
        assert_eq!((counts[8], counts[9]), ((Some(256), 4), (None, 5)));
        assert_eq!(histogram.sum(), 1_261);
    }
}
