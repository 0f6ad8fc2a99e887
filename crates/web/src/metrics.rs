//! `/metrics`: the metrics of the engine, and whether it is ready, in the text format of OpenMetrics.

use millstream_engine::{Metric, MetricDoc, MetricKind, MetricValue};

use crate::openmetrics::exposition;

static READY: Metric = Metric {
    name: "millstream_ready",
    kind: MetricKind::Gauge,
    unit: "",
    labels: &[],
    help: "1 if the engine has recovered and answers, else 0.",
};

/// Returns the documentation of every metric, in the order of the page.
pub fn metrics() -> Vec<MetricDoc> {
    let ready = MetricDoc {
        name: READY.name.to_string(),
        kind: READY.kind.name(),
        labels: READY.labels,
        help: READY.help,
    };
    std::iter::once(ready).chain(millstream_engine::metrics()).collect()
}

/// Returns the text of metrics, after the one that says if the engine is ready.
pub(crate) fn expose(is_ready: bool, values: Vec<MetricValue>) -> String {
    let value = if is_ready { 1.0 } else { 0.0 };
    let ready = MetricValue { metric: &READY, suffix: "", labels: Vec::new(), value };
    exposition(std::iter::once(ready).chain(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_is_not_ready_says_so() {
        let text = expose(false, Vec::new());
        assert!(text.contains("\nmillstream_ready 0\n") && text.ends_with("# EOF\n"), "{text}");
        assert!(metrics().iter().any(|metric| metric.name == "millstream_source_rows_total"));
    }
}
