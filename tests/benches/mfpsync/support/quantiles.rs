//! How a lag is distributed, from samples or from the buckets of a histogram. Pure.

use super::stats::Samples;

/// In milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Quantiles {
    pub(crate) fn of(samples: &Samples) -> Self {
        Self::at(|share| samples.quantile_ms(share))
    }

    /// From bounds with the count of values up to each. Within a bucket values are taken to be spread
    /// evenly; the highest is told as the bound of its bucket. None without values.
    pub(crate) fn of_buckets(buckets: &[(f64, f64)]) -> Option<Self> {
        let total = buckets.last().map(|(_, count)| *count).filter(|total| *total > 0.0)?;
        Some(Self::at(|share| {
            let (mut low, mut below) = (0.0, 0.0);
            for (bound, count) in buckets {
                if *count >= share * total {
                    let inside = ((share * total - below) / (count - below)).clamp(0.0, 1.0);
                    return if bound.is_finite() { low + (bound - low) * inside } else { *bound };
                }
                (low, below) = (*bound, *count);
            }
            low
        }))
    }

    fn at(quantile: impl Fn(f64) -> f64) -> Self {
        Self { p50: quantile(0.5), p95: quantile(0.95), p99: quantile(0.99), max: quantile(1.0) }
    }
}
