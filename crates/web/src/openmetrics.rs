//! Writes metrics in the text format of OpenMetrics 1.0.

use std::fmt::Write;

use millstream_engine::{Metric, MetricValue};

/// The content type of the format.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Returns the text of values. Those of one metric follow each other.
pub(crate) fn exposition(values: impl Iterator<Item = MetricValue>) -> String {
    let mut text = String::new();
    let mut last = None;
    for MetricValue { metric, suffix, labels, value } in values {
        if !last.is_some_and(|last| std::ptr::eq(last, metric)) {
            head(&mut text, metric);
        }
        last = Some(metric);
        text.push_str(metric.name);
        text.push_str(suffix);
        write_labels(&mut text, &labels);
        let _ = writeln!(text, " {value}");
    }
    text.push_str("# EOF\n");
    text
}

fn head(text: &mut String, metric: &Metric) {
    let Metric { name, kind, unit, help, .. } = metric;
    let _ = writeln!(text, "# TYPE {name} {}", kind.name());
    if !unit.is_empty() {
        let _ = writeln!(text, "# UNIT {name} {unit}");
    }
    let _ = write!(text, "# HELP {name} ");
    escape(text, help);
    text.push('\n');
}

fn write_labels(text: &mut String, labels: &[(&str, String)]) {
    let mut separator = '{';
    for (name, value) in labels {
        text.push(separator);
        let _ = write!(text, "{name}=\"");
        escape(text, value);
        text.push('"');
        separator = ',';
    }
    if separator == ',' {
        text.push('}');
    }
}

fn escape(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use millstream_engine::MetricKind;

    use super::*;

    static ROWS: Metric = Metric {
        name: "m_rows",
        kind: MetricKind::Counter,
        unit: "",
        labels: &["source", "kind"],
        help: "Rows \"read\".",
    };

    static TIMES: Metric = Metric {
        name: "m_seconds",
        kind: MetricKind::Histogram,
        unit: "seconds",
        labels: &[],
        help: "Times.",
    };

    fn value(
        metric: &'static Metric,
        suffix: &'static str,
        labels: &[(&'static str, &str)],
        value: f64,
    ) -> MetricValue {
        let labels = labels.iter().map(|(name, of)| (*name, of.to_string())).collect();
        MetricValue { metric, suffix, labels, value }
    }

    #[test]
    fn labels_are_escaped_and_a_metric_has_one_head() {
        let labels = [("source", "a\"b\\c\nd"), ("kind", "<script>")];
        let all = [value(&ROWS, "_total", &labels, 7.0), value(&ROWS, "_total", &[("source", "b")], 8.0)];
        assert_eq!(
            exposition(all.into_iter()),
            "# TYPE m_rows counter\n# HELP m_rows Rows \\\"read\\\".\n\
             m_rows_total{source=\"a\\\"b\\\\c\\nd\",kind=\"<script>\"} 7\nm_rows_total{source=\"b\"} 8\n# EOF\n"
        );
    }

    #[test]
    fn a_histogram_has_a_unit_buckets_a_count_and_a_sum() {
        let all = [
            value(&TIMES, "_bucket", &[("le", "0.5")], 1.0),
            value(&TIMES, "_bucket", &[("le", "+Inf")], 3.0),
            value(&TIMES, "_count", &[], 3.0),
            value(&TIMES, "_sum", &[], 9.25),
        ];
        assert_eq!(
            exposition(all.into_iter()),
            "# TYPE m_seconds histogram\n# UNIT m_seconds seconds\n# HELP m_seconds Times.\n\
             m_seconds_bucket{le=\"0.5\"} 1\nm_seconds_bucket{le=\"+Inf\"} 3\nm_seconds_count 3\n\
             m_seconds_sum 9.25\n# EOF\n"
        );
    }
}
