//! Quantiles of samples and the spread of repeated rounds. Pure.

use std::time::Duration;

/// Durations of one kind of call, sorted.
#[derive(Debug)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn new(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        Self(all)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest sample that `share` (0 to 1) of all samples do not exceed, in milliseconds; NaN
    /// without samples.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        let sample = self.0.get(rank.clamp(1, self.0.len().max(1)) - 1);
        sample.map_or(f64::NAN, |sample| sample.as_secs_f64() * 1e3)
    }
}

/// What repeated rounds of one measurement gave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// NaN without values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |at: usize| values.get(at).copied().unwrap_or(f64::NAN);
        let (last, middle) = (values.len().saturating_sub(1), values.len() / 2);
        let median =
            if values.len() % 2 == 1 { at(middle) } else { (at(middle.wrapping_sub(1)) + at(middle)) / 2.0 };
        Self { min: at(0), median, max: at(last) }
    }

    /// The distance between the extremes as a share of the median.
    pub(crate) fn noise(&self) -> f64 {
        (self.max - self.min) / self.median
    }
}
