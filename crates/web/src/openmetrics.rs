//! Writes metrics in the text format of OpenMetrics 1.0.

use std::fmt::{Display, Write};

/// Maximum number of series of one metric; names of objects are labels, and there may be any number of objects.
pub(crate) const SERIES_MAX: usize = 1000;

/// The content type of the format.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricKind {
    /// A total, which only grows until the next start. Its samples end with `_total`.
    Counter,
    /// A value of now.
    Gauge,
    /// Counts of values by upper bounds.
    Histogram,
    /// Facts in labels. Its sample ends with `_info`.
    Info,
}

/// A metric.
#[derive(Debug)]
pub(crate) struct Metric {
    /// The name without a suffix of samples: `millstream_source_rows`.
    pub(crate) name: &'static str,
    pub(crate) kind: MetricKind,
    /// The unit at the end of the name: `seconds`, `bytes`; else empty.
    pub(crate) unit: &'static str,
    pub(crate) labels: &'static [&'static str],
    pub(crate) help: &'static str,
}

impl MetricKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
            MetricKind::Info => "info",
        }
    }

    /// Returns the suffix of the samples.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            MetricKind::Counter => "_total",
            MetricKind::Info => "_info",
            MetricKind::Gauge | MetricKind::Histogram => "",
        }
    }
}

/// A text of metrics.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    text: String,
    /// Series left out because their metric has too many.
    left_out: usize,
}

impl Exposition {
    /// Appends a metric with a series for each item of `series`: the values of its labels, and its value.
    pub(crate) fn metric<'a, V: Display>(
        &mut self,
        metric: &Metric,
        series: impl IntoIterator<Item = (Vec<&'a str>, V)>,
    ) {
        self.head(metric);
        for (at, (values, value)) in series.into_iter().enumerate() {
            if at >= SERIES_MAX {
                self.left_out += 1;
                continue;
            }
            self.text.push_str(metric.name);
            self.text.push_str(metric.kind.suffix());
            self.labels(metric.labels.iter().copied().zip(values));
            let _ = writeln!(self.text, " {value}");
        }
    }

    /// Appends a metric without labels. `None` appends nothing: its value is not known.
    pub(crate) fn single(&mut self, metric: &Metric, value: Option<impl Display>) {
        if let Some(value) = value {
            self.metric(metric, [(Vec::new(), value)]);
        }
    }

    /// Appends a histogram: its buckets with their upper bounds in seconds, the last without one, and the sum.
    pub(crate) fn histogram(&mut self, metric: &Metric, bounds: &[f64], buckets: &[u64], sum: f64) {
        self.head(metric);
        let mut count = 0;
        for (at, bucket) in buckets.iter().enumerate() {
            count += bucket;
            let bound = bounds.get(at).map_or_else(|| "+Inf".to_string(), |bound| format!("{bound:?}"));
            let _ = writeln!(self.text, "{}_bucket{{le=\"{bound}\"}} {count}", metric.name);
        }
        let _ = writeln!(self.text, "{0}_count {count}\n{0}_sum {sum}", metric.name);
    }

    /// Returns the number of series left out.
    pub(crate) fn left_out(&self) -> usize {
        self.left_out
    }

    /// Ends the text.
    pub(crate) fn finish(mut self) -> String {
        self.text.push_str("# EOF\n");
        self.text
    }

    fn head(&mut self, metric: &Metric) {
        let Metric { name, kind, unit, help, .. } = metric;
        let _ = writeln!(self.text, "# TYPE {name} {}", kind.name());
        if !unit.is_empty() {
            let _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
        let _ = write!(self.text, "# HELP {name} ");
        self.escaped(help);
        self.text.push('\n');
    }

    fn labels<'a>(&mut self, labels: impl Iterator<Item = (&'a str, &'a str)>) {
        let mut separator = '{';
        for (name, value) in labels {
            self.text.push(separator);
            let _ = write!(self.text, "{name}=\"");
            self.escaped(value);
            self.text.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
    }

    fn escaped(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                c => self.text.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: Metric = Metric {
        name: "m_rows",
        kind: MetricKind::Counter,
        unit: "",
        labels: &["source", "kind"],
        help: "Rows \"read\".",
    };

    #[test]
    fn labels_are_escaped() {
        let mut text = Exposition::default();
        text.metric(&ROWS, [(vec!["a\"b\\c\nd", "<script>"], 7)]);
        assert_eq!(
            text.finish(),
            "# TYPE m_rows counter\n# HELP m_rows Rows \\\"read\\\".\n\
             m_rows_total{source=\"a\\\"b\\\\c\\nd\",kind=\"<script>\"} 7\n# EOF\n"
        );
    }

    #[test]
    fn a_unit_is_named_and_an_unknown_value_left_out() {
        let mut text = Exposition::default();
        let bytes =
            Metric { name: "m_bytes", kind: MetricKind::Gauge, unit: "bytes", labels: &[], help: "Bytes." };
        text.single(&bytes, None::<u64>);
        text.single(&bytes, Some(1.5));
        assert_eq!(
            text.finish(),
            "# TYPE m_bytes gauge\n# UNIT m_bytes bytes\n# HELP m_bytes Bytes.\nm_bytes 1.5\n# EOF\n"
        );
    }

    #[test]
    fn buckets_of_a_histogram_add_up() {
        let mut text = Exposition::default();
        let times = Metric {
            name: "t_seconds",
            kind: MetricKind::Histogram,
            unit: "seconds",
            labels: &[],
            help: "T.",
        };
        text.histogram(&times, &[0.1, 1.0], &[2, 0, 3], 4.5);
        let lines: Vec<String> = text.finish().lines().skip(3).map(str::to_owned).collect();
        assert_eq!(
            lines,
            [
                "t_seconds_bucket{le=\"0.1\"} 2",
                "t_seconds_bucket{le=\"1.0\"} 2",
                "t_seconds_bucket{le=\"+Inf\"} 5",
                "t_seconds_count 5",
                "t_seconds_sum 4.5",
                "# EOF"
            ]
        );
    }

    #[test]
    fn a_metric_has_a_bounded_number_of_series() {
        let mut text = Exposition::default();
        let names: Vec<String> = (0..SERIES_MAX + 5).map(|n| n.to_string()).collect();
        text.metric(&ROWS, names.iter().map(|name| (vec![name.as_str(), "x"], 1)));
        assert_eq!(text.left_out(), 5);
        assert_eq!(text.finish().lines().count(), SERIES_MAX + 3);
    }
}
