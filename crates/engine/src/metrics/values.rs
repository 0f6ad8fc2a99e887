//! The values of metrics, as they are collected.

use super::history::{BOUNDS_US, History};
use super::{Metric, MetricKind, MetricValue, definitions as all};

/// Maximum number of series of one metric; names of objects are labels, and there may be any number of objects.
const SERIES_MAX: usize = 1000;

/// Seconds over which the longest delay is taken.
const RECENT_SECONDS: u64 = 10;

/// The values so far.
#[derive(Debug, Default)]
pub(crate) struct Values {
    all: Vec<MetricValue>,
    /// The series of the current metric.
    series: usize,
    left_out: u64,
}

impl Values {
    /// Adds a value of a metric with the values of its labels.
    pub(crate) fn add(&mut self, metric: &'static Metric, labels: &[&str], value: f64) {
        let is_further = self.all.last().is_some_and(|last| std::ptr::eq(last.metric, metric));
        self.series = if is_further { self.series + 1 } else { 1 };
        if self.series > SERIES_MAX {
            self.left_out += 1;
            return;
        }
        let labels = metric.labels.iter().copied().zip(labels.iter().map(ToString::to_string)).collect();
        self.all.push(MetricValue { metric, suffix: metric.kind.suffix(), labels, value });
    }

    /// Adds the value of a metric without labels, if it is known.
    pub(crate) fn single(&mut self, metric: &'static Metric, value: Option<f64>) {
        if let Some(value) = value {
            self.add(metric, &[], value);
        }
    }

    /// Adds a histogram of times.
    fn histogram(&mut self, metric: &'static Metric, buckets: &[u64], sum_us: u64) {
        debug_assert_eq!(metric.kind, MetricKind::Histogram);
        let mut count = 0;
        for (at, bucket) in buckets.iter().enumerate() {
            count += bucket;
            let bound = BOUNDS_US
                .get(at)
                .map_or_else(|| "+Inf".to_string(), |bound| format!("{:?}", *bound as f64 / 1e6));
            let labels = vec![("le", bound)];
            self.all.push(MetricValue { metric, suffix: "_bucket", labels, value: count as f64 });
        }
        for (suffix, value) in [("_count", count as f64), ("_sum", seconds(sum_us))] {
            self.all.push(MetricValue { metric, suffix, labels: Vec::new(), value });
        }
    }

    /// Adds the metrics of epochs.
    pub(crate) fn epochs(&mut self, history: &History) {
        let totals = history.totals();
        self.single(&all::EPOCHS, Some(totals.epochs as f64));
        self.single(&all::INPUT_ROWS, Some(totals.rows_in as f64));
        self.single(&all::OUTPUT_ROWS, Some(totals.rows_out as f64));
        self.single(&all::MERGED, Some(totals.merged_intervals as f64));
        self.histogram(&all::PROCESSING, &totals.processing.buckets, totals.processing.sum_us);
        self.histogram(&all::SCHEDULING, &totals.scheduling.buckets, totals.scheduling.sum_us);
        let recent = history.seconds(history.now().saturating_sub(RECENT_SECONDS));
        let with_epochs = recent.iter().filter(|second| second.epochs > 0);
        let longest = with_epochs.map(|second| second.total_max_us).max();
        self.single(&all::LAST_TOTAL, longest.map(seconds));
        for (metric, value) in history.active_values() {
            self.single(metric, Some(value));
        }
    }

    /// Ends the collection. Returns the values in the order in which they were added.
    pub(crate) fn finish(mut self) -> Vec<MetricValue> {
        let left_out = self.left_out as f64;
        self.single(&all::LEFT_OUT, Some(left_out));
        self.all
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}
