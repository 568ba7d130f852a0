//! The Prometheus text format: families with their help, samples under them. Pure.
//!
//! **Source**: <https://prometheus.io/docs/instrumenting/exposition_formats/>, version 0.0.4.

use std::fmt::Display;

use mfpsync_storage::figures::Histogram;

/// What a family's samples are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// It only rises.
    Counter,
    /// It goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// The text as it grows.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    name: &'static str,
}

impl Exposition {
    /// Begins a family; its samples follow.
    pub fn family(&mut self, name: &'static str, kind: Type, help: &str) -> &mut Self {
        let kind = match kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        };
        self.name = name;
        self.push(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        self
    }

    /// One value of the family.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        let name = self.name;
        self.line(name, "", labels, None, &value)
    }

    /// One distribution; its values are divided by `per`, as to seconds.
    pub fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram, per: f64) -> &mut Self {
        let (name, cumulative) = (self.name, histogram.cumulative());
        for (bound, count) in &cumulative {
            let bound = bound.map_or_else(|| "+Inf".to_owned(), |bound| (bound as f64 / per).to_string());
            self.line(name, "_bucket", labels, Some(&bound), count);
        }
        self.line(name, "_sum", labels, None, &(histogram.sum() as f64 / per));
        let count = cumulative.last().map_or(0, |(_, count)| *count);
        self.line(name, "_count", labels, None, &count)
    }

    /// The whole text.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }

    fn line(
        &mut self,
        name: &str,
        suffix: &str,
        labels: &[(&str, &str)],
        bound: Option<&str>,
        value: &dyn Display,
    ) -> &mut Self {
        let labels: Vec<String> = labels
            .iter()
            .copied()
            .chain(bound.map(|bound| ("le", bound)))
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.push(format_args!("{name}{suffix}{labels} {value}\n"));
        self
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        self.text += &text.to_string();
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_samples_and_labels_have_their_form() {
        let mut text = Exposition::default();
        text.family("a_total", Type::Counter, "Things.").sample(&[("of", "x\"\\\ny")], 3).sample(&[], 0.5);
        assert_eq!(
            text.finish(),
            "# HELP a_total Things.\n# TYPE a_total counter\na_total{of=\"x\\\"\\\\\\ny\"} 3\na_total 0.5\n"
        );
    }
}
