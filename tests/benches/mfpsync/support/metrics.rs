//! What a device counts, as it tells Prometheus.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::quantiles::Quantiles;

/// All samples of one moment.
#[derive(Debug)]
pub(crate) struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// # Errors
    /// A sample has no number.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let sample = |line: &str| -> Result<(String, f64)> {
            let (name, value) = line.rsplit_once(' ').context("a sample")?;
            Ok((name.to_owned(), value.parse()?))
        };
        text.lines().filter(|line| !line.starts_with('#')).map(sample).collect::<Result<_>>().map(Self)
    }

    /// How much counters rose since `earlier`; those that were not there began at 0.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let before = |name| earlier.0.get(name).copied().unwrap_or(0.0);
        Self(self.0.iter().map(|(name, value)| (name.clone(), value - before(name))).collect())
    }

    /// # Errors
    /// There is no such sample.
    pub(crate) fn value(&self, name: &str) -> Result<f64> {
        self.0.get(name).copied().with_context(|| format!("no sample {name}"))
    }

    /// Quantiles of a histogram without labels, in milliseconds.
    ///
    /// # Errors
    /// It has no samples.
    pub(crate) fn quantiles_ms(&self, name: &str) -> Result<Quantiles> {
        let prefix = format!("{name}_bucket{{le=\"");
        let mut buckets = Vec::new();
        for (sample, count) in &self.0 {
            let Some(bound) = sample.strip_prefix(&prefix) else { continue };
            let bound = bound.trim_end_matches("\"}");
            buckets.push((if bound == "+Inf" { f64::INFINITY } else { bound.parse::<f64>()? * 1e3 }, *count));
        }
        buckets.sort_by(|one, two| one.0.total_cmp(&two.0));
        Quantiles::of_buckets(&buckets).with_context(|| format!("nothing in {name}"))
    }
}
