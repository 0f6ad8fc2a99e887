//! The definitions of all metrics.

use super::{Metric, MetricKind};

use MetricKind::{Counter, Gauge, Histogram, Info};

const fn metric(
    name: &'static str,
    kind: MetricKind,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, unit, labels, help }
}

pub(crate) static BUILD: Metric =
    metric("millstream_build", Info, "", &["version"], "The version of Millstream.");
pub(crate) static EPOCHS: Metric =
    metric("millstream_epochs", Counter, "", &[], "Epochs completed since the start.");
pub(crate) static INPUT_ROWS: Metric =
    metric("millstream_input_rows", Counter, "", &[], "Rows of sources and tables that epochs have read.");
pub(crate) static OUTPUT_ROWS: Metric =
    metric("millstream_output_rows", Counter, "", &[], "Rows by which the results of queries have changed.");
pub(crate) static MERGED: Metric = metric(
    "millstream_merged_intervals",
    Counter,
    "",
    &[],
    "Intervals merged into a later epoch, because too many were due.",
);
pub(crate) static PROCESSING: Metric = metric(
    "millstream_epoch_processing_seconds",
    Histogram,
    "seconds",
    &[],
    "Processing times of epochs: from their start to their end.",
);
pub(crate) static SCHEDULING: Metric = metric(
    "millstream_epoch_scheduling_delay_seconds",
    Histogram,
    "seconds",
    &[],
    "Scheduling delays of epochs: from when they were due, or their first row arrived, to their start.",
);
pub(crate) static LAST_TOTAL: Metric = metric(
    "millstream_epoch_total_delay_max_seconds",
    Gauge,
    "seconds",
    &[],
    "Longest total delay (scheduling and processing) of an epoch in the last 10 seconds; absent without epochs.",
);
pub(crate) static ACTIVE: Metric = metric(
    "millstream_active_batch_seconds",
    Gauge,
    "seconds",
    &[],
    "How long the batch that is running has been running; 0 if none is.",
);
pub(crate) static QUEUED: Metric = metric(
    "millstream_queued_batches",
    Gauge,
    "",
    &[],
    "Batches that are due and wait for the one that is running, under a fixed interval.",
);
pub(crate) static INTERVAL: Metric = metric(
    "millstream_batch_interval_seconds",
    Gauge,
    "seconds",
    &[],
    "The setting batch_interval; absent if it is auto.",
);
pub(crate) static STATE: Metric = metric(
    "millstream_state_bytes",
    Gauge,
    "bytes",
    &[],
    "Memory of tables and of the operators of queries.",
);
pub(crate) static SPILLED: Metric = metric(
    "millstream_spilled_bytes",
    Gauge,
    "bytes",
    &[],
    "Bytes of state that are in files instead of memory.",
);
pub(crate) static LIMIT: Metric = metric(
    "millstream_memory_limit_bytes",
    Gauge,
    "bytes",
    &[],
    "The setting memory_limit; absent if there is no limit.",
);
pub(crate) static STATEMENTS: Metric =
    metric("millstream_statements", Gauge, "", &[], "Statements that run, or whose rows are being read.");
pub(crate) static RESIDENT: Metric = metric(
    "process_resident_memory_bytes",
    Gauge,
    "bytes",
    &[],
    "Memory of the process that is in RAM; Linux only.",
);
pub(crate) static CHECKPOINT_AGE: Metric = metric(
    "millstream_checkpoint_age_seconds",
    Gauge,
    "seconds",
    &[],
    "Age of the newest checkpoint of this process; absent before the first.",
);
pub(crate) static CHECKPOINT_DURATION: Metric = metric(
    "millstream_checkpoint_duration_seconds",
    Gauge,
    "seconds",
    &[],
    "Time that the newest checkpoint took until it was on the disk.",
);
pub(crate) static CHECKPOINT_BYTES: Metric =
    metric("millstream_checkpoint_bytes", Gauge, "bytes", &[], "Bytes written of the newest checkpoint.");
pub(crate) static CHECKPOINT_FAILURES: Metric =
    metric("millstream_checkpoint_recent_failures", Gauge, "", &[], "Failed checkpoints among the last 100.");
pub(crate) static CHECKPOINT_OK: Metric = metric(
    "millstream_checkpoint_ok",
    Gauge,
    "",
    &[],
    "1 if the newest checkpoint succeeded, 0 if it failed; absent before the first.",
);
const SOURCE: &[&str] = &["source"];
pub(crate) static SOURCE_UP: Metric =
    metric("millstream_source_up", Gauge, "", SOURCE, "0 if the source has failed or is restarting, else 1.");
pub(crate) static SOURCE_ROWS: Metric =
    metric("millstream_source_rows", Counter, "", SOURCE, "Rows read of the source.");
pub(crate) static SOURCE_BAD: Metric = metric(
    "millstream_source_bad_rows",
    Counter,
    "",
    SOURCE,
    "Records of the source that could not be decoded.",
);
pub(crate) static SOURCE_RESTARTS: Metric =
    metric("millstream_source_restarts", Counter, "", SOURCE, "Restarts of the source after a failure.");
pub(crate) static SOURCE_WAITING: Metric = metric(
    "millstream_source_waiting_rows",
    Gauge,
    "",
    SOURCE,
    "Rows that were read of the source and wait for an epoch.",
);
pub(crate) static SOURCE_WAITING_BYTES: Metric =
    metric("millstream_source_waiting_bytes", Gauge, "bytes", SOURCE, "Bytes of these rows.");
pub(crate) static SOURCE_LAG: Metric = metric(
    "millstream_source_lag_rows",
    Gauge,
    "",
    SOURCE,
    "Records between the position and the end of the source's partitions; absent where no end is known.",
);
pub(crate) static SOURCE_WATERMARK: Metric = metric(
    "millstream_source_watermark_lag_seconds",
    Gauge,
    "seconds",
    SOURCE,
    "Age of the watermark of the source or table; absent without one.",
);
const QUERY: &[&str] = &["query"];
pub(crate) static QUERY_STATUS: Metric = metric(
    "millstream_query_status",
    Gauge,
    "",
    &["query", "status"],
    "1, with the status of the view or stream as a label.",
);
pub(crate) static QUERY_ROWS: Metric = metric(
    "millstream_query_rows",
    Gauge,
    "",
    QUERY,
    "Rows of the query's result, or rows that it keeps; absent where they are not counted.",
);
pub(crate) static QUERY_STATE: Metric =
    metric("millstream_query_state_bytes", Gauge, "bytes", QUERY, "Bytes of state that the query keeps.");
pub(crate) static QUERY_ERRORS: Metric =
    metric("millstream_query_errors", Gauge, "", QUERY, "Rows for which the query fails now.");
pub(crate) static QUERY_BEHIND: Metric =
    metric("millstream_query_behind_epochs", Gauge, "", QUERY, "Epochs that the query is behind.");
pub(crate) static QUERY_BUSY: Metric = metric(
    "millstream_query_busy_seconds",
    Counter,
    "seconds",
    QUERY,
    "Time that the operators of the query or sink took in epochs.",
);
pub(crate) static QUERY_LATE: Metric = metric(
    "millstream_query_late_rows",
    Counter,
    "",
    QUERY,
    "Rows that arrived for windows that had closed.",
);
const SINK: &[&str] = &["sink"];
pub(crate) static SINK_UP: Metric = metric(
    "millstream_sink_up",
    Gauge,
    "",
    SINK,
    "0 if the sink has failed, is retried or suspended, else 1.",
);
pub(crate) static SINK_ROWS: Metric =
    metric("millstream_sink_rows", Counter, "", SINK, "Rows delivered by the sink.");
pub(crate) static SINK_WAITING: Metric =
    metric("millstream_sink_waiting_epochs", Gauge, "", SINK, "Epochs that wait for the sink.");
pub(crate) static SINK_WAITING_BYTES: Metric =
    metric("millstream_sink_waiting_bytes", Gauge, "bytes", SINK, "Bytes that wait for the sink.");
pub(crate) static LEFT_OUT: Metric = metric(
    "millstream_metrics_omitted_series",
    Gauge,
    "",
    &[],
    "Series left out because their metric has more than 1,000.",
);

/// Every metric, in the order of the page.
pub(crate) static ALL: &[&Metric] = &[
    &BUILD,
    &EPOCHS,
    &INPUT_ROWS,
    &OUTPUT_ROWS,
    &MERGED,
    &PROCESSING,
    &SCHEDULING,
    &LAST_TOTAL,
    &ACTIVE,
    &QUEUED,
    &RESIDENT,
    &INTERVAL,
    &STATE,
    &SPILLED,
    &LIMIT,
    &STATEMENTS,
    &CHECKPOINT_AGE,
    &CHECKPOINT_DURATION,
    &CHECKPOINT_BYTES,
    &CHECKPOINT_OK,
    &CHECKPOINT_FAILURES,
    &SOURCE_UP,
    &SOURCE_ROWS,
    &SOURCE_BAD,
    &SOURCE_RESTARTS,
    &SOURCE_WAITING,
    &SOURCE_WAITING_BYTES,
    &SOURCE_LAG,
    &SOURCE_WATERMARK,
    &QUERY_STATUS,
    &QUERY_ROWS,
    &QUERY_STATE,
    &QUERY_ERRORS,
    &QUERY_BEHIND,
    &QUERY_BUSY,
    &QUERY_LATE,
    &SINK_UP,
    &SINK_ROWS,
    &SINK_WAITING,
    &SINK_WAITING_BYTES,
    &LEFT_OUT,
];

/// The documentation of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricDoc {
    /// The name of its samples: `millstream_source_rows_total`. Those of a histogram have further suffixes.
    pub name: String,
    /// `counter`, `gauge`, `histogram` or `info`.
    pub kind: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// Its meaning.
    pub help: &'static str,
}

/// Returns the documentation of every metric, in the order of the page.
pub fn metrics() -> Vec<MetricDoc> {
    let doc = |metric: &&Metric| MetricDoc {
        name: format!("{}{}", metric.name, metric.kind.suffix()),
        kind: metric.kind.name(),
        labels: metric.labels,
        help: metric.help,
    };
    ALL.iter().map(doc).collect()
}
