//! The metrics of an engine: their definitions, their values, and their history.
//!
//! The loop computes the values of objects when they are asked for (`run/metrics.rs`), and counts epochs in a
//! [`History`].

mod active;
pub(crate) mod definitions;
mod history;
mod process;
mod values;

use std::fmt::Write;

pub use active::ActiveBatch;
pub(crate) use active::{Queue, Started};
pub use definitions::{MetricDoc, metrics};
pub use history::{Busy, History, Sample, Second, Series, Totals};
pub(crate) use history::{OperatorWork, SAMPLE_SECONDS};

pub(crate) use process::resident_bytes;
pub(crate) use values::Values;

/// The type of a metric, as OpenMetrics defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// A total, which only grows until the next start. Its samples end with `_total`.
    Counter,
    /// A value of now.
    Gauge,
    /// Counts of values by upper bounds.
    Histogram,
    /// Facts in labels. Its sample ends with `_info`.
    Info,
}

impl MetricKind {
    /// Returns its name in OpenMetrics.
    pub fn name(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
            MetricKind::Info => "info",
        }
    }

    /// Returns the suffix of the samples; those of a histogram have several.
    pub fn suffix(self) -> &'static str {
        match self {
            MetricKind::Counter => "_total",
            MetricKind::Info => "_info",
            MetricKind::Gauge | MetricKind::Histogram => "",
        }
    }
}

/// The definition of a metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name without a suffix of samples: `millstream_source_rows`.
    pub name: &'static str,
    /// Its type.
    pub kind: MetricKind,
    /// The unit at the end of the name: `seconds`, `bytes`; else empty.
    pub unit: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// Its meaning.
    pub help: &'static str,
}

/// One value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricValue {
    /// The metric.
    pub metric: &'static Metric,
    /// The suffix of the sample: `_total`, or `_bucket`, `_count` and `_sum` of a histogram; may be empty.
    pub suffix: &'static str,
    /// Labels and their values, in the order of the metric's labels. A bucket has the further label `le`.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
}

impl MetricValue {
    /// Returns the name of the sample: `millstream_source_rows_total`.
    pub fn name(&self) -> String {
        format!("{}{}", self.metric.name, self.suffix)
    }

    /// Returns the labels as a JSON object: `{"source": "clicks"}`.
    pub fn labels_json(&self) -> String {
        labels_json(&self.labels)
    }
}

/// Returns labels as a JSON object.
pub(crate) fn labels_json(labels: &[(&'static str, String)]) -> String {
    let mut json = String::from("{");
    for (at, (name, value)) in labels.iter().enumerate() {
        let separator = if at == 0 { "" } else { ", " };
        let _ = write!(json, "{separator}\"{name}\": {}", serde_json::Value::from(value.as_str()));
    }
    json.push('}');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_a_json_object() {
        let value = |labels: Vec<(&'static str, String)>| {
            MetricValue { metric: &definitions::EPOCHS, suffix: "_total", labels, value: 1.0 }.labels_json()
        };
        assert_eq!(value(Vec::new()), "{}");
        let labels = vec![("source", "a\"b\\".to_string()), ("le", "0.5".to_string())];
        assert_eq!(value(labels), r#"{"source": "a\"b\\", "le": "0.5"}"#);
    }
}
