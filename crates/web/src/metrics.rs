//! The metrics of an engine.

use crate::health::behind_epochs;
use crate::history::{BOUNDS_US, Second, Totals};
use crate::openmetrics::{Exposition, Metric, MetricKind};
use crate::reading::{Reading, Row, last_success, number, text};

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

static BUILD: Metric = metric("millstream_build", Info, "", &["version"], "The version of Millstream.");
static READY: Metric =
    metric("millstream_ready", Gauge, "", &[], "1 if the engine has recovered and answers, else 0.");
static EPOCHS: Metric = metric("millstream_epochs", Counter, "", &[], "Epochs completed since the start.");
static INPUT_ROWS: Metric =
    metric("millstream_input_rows", Counter, "", &[], "Rows of sources and tables that epochs have read.");
static OUTPUT_ROWS: Metric =
    metric("millstream_output_rows", Counter, "", &[], "Rows by which the results of queries have changed.");
static MERGED: Metric = metric(
    "millstream_merged_intervals",
    Counter,
    "",
    &[],
    "Intervals merged into a later epoch, because too many were due.",
);
static MISSED: Metric = metric(
    "millstream_missed_notifications",
    Counter,
    "",
    &[],
    "Notifications of epochs dropped because this listener was slow; the figures of epochs lack them.",
);
static PROCESSING: Metric = metric(
    "millstream_epoch_processing_seconds",
    Histogram,
    "seconds",
    &[],
    "Processing times of epochs: from their start to their end.",
);
static SCHEDULING: Metric = metric(
    "millstream_epoch_scheduling_delay_seconds",
    Histogram,
    "seconds",
    &[],
    "Scheduling delays of epochs: from when they were due, or their first row arrived, to their start.",
);
static LAST_TOTAL: Metric = metric(
    "millstream_epoch_total_delay_max_seconds",
    Gauge,
    "seconds",
    &[],
    "Longest total delay (scheduling and processing) of an epoch in the last 10 seconds; absent without epochs.",
);
static INTERVAL: Metric = metric(
    "millstream_batch_interval_seconds",
    Gauge,
    "seconds",
    &[],
    "The setting batch_interval; absent if it is auto.",
);
static STATE: Metric = metric(
    "millstream_state_bytes",
    Gauge,
    "bytes",
    &[],
    "Memory of tables and of the operators of queries.",
);
static SPILLED: Metric = metric(
    "millstream_spilled_bytes",
    Gauge,
    "bytes",
    &[],
    "Bytes of state that are in files instead of memory.",
);
static LIMIT: Metric = metric(
    "millstream_memory_limit_bytes",
    Gauge,
    "bytes",
    &[],
    "The setting memory_limit; absent if there is no limit.",
);
static STATEMENTS: Metric =
    metric("millstream_statements", Gauge, "", &[], "Statements that run, or whose rows are being read.");
static RESIDENT: Metric = metric(
    "process_resident_memory_bytes",
    Gauge,
    "bytes",
    &[],
    "Memory of the process that is in RAM; Linux only.",
);
static CHECKPOINT_AGE: Metric = metric(
    "millstream_checkpoint_age_seconds",
    Gauge,
    "seconds",
    &[],
    "Age of the newest checkpoint of this process; absent before the first.",
);
static CHECKPOINT_DURATION: Metric = metric(
    "millstream_checkpoint_duration_seconds",
    Gauge,
    "seconds",
    &[],
    "Time that the newest checkpoint took until it was on the disk.",
);
static CHECKPOINT_BYTES: Metric =
    metric("millstream_checkpoint_bytes", Gauge, "bytes", &[], "Bytes written of the newest checkpoint.");
static CHECKPOINT_FAILURES: Metric =
    metric("millstream_checkpoint_recent_failures", Gauge, "", &[], "Failed checkpoints among the last 100.");
static CHECKPOINT_OK: Metric = metric(
    "millstream_checkpoint_ok",
    Gauge,
    "",
    &[],
    "1 if the newest checkpoint succeeded, 0 if it failed; absent before the first.",
);
const SOURCE: &[&str] = &["source"];
static SOURCE_UP: Metric =
    metric("millstream_source_up", Gauge, "", SOURCE, "0 if the source has failed or is restarting, else 1.");
static SOURCE_ROWS: Metric =
    metric("millstream_source_rows", Counter, "", SOURCE, "Rows read of the source.");
static SOURCE_BAD: Metric = metric(
    "millstream_source_bad_rows",
    Counter,
    "",
    SOURCE,
    "Records of the source that could not be decoded.",
);
static SOURCE_RESTARTS: Metric =
    metric("millstream_source_restarts", Counter, "", SOURCE, "Restarts of the source after a failure.");
static SOURCE_WAITING: Metric = metric(
    "millstream_source_waiting_rows",
    Gauge,
    "",
    SOURCE,
    "Rows that were read of the source and wait for an epoch.",
);
static SOURCE_WAITING_BYTES: Metric =
    metric("millstream_source_waiting_bytes", Gauge, "bytes", SOURCE, "Bytes of these rows.");
const QUERY: &[&str] = &["query"];
static QUERY_STATUS: Metric = metric(
    "millstream_query_status",
    Gauge,
    "",
    &["query", "status"],
    "1, with the status of the view or stream as a label.",
);
static QUERY_ROWS: Metric = metric(
    "millstream_query_rows",
    Gauge,
    "",
    QUERY,
    "Rows of the query's result, or rows that it keeps; absent where they are not counted.",
);
static QUERY_STATE: Metric =
    metric("millstream_query_state_bytes", Gauge, "bytes", QUERY, "Bytes of state that the query keeps.");
static QUERY_ERRORS: Metric =
    metric("millstream_query_errors", Gauge, "", QUERY, "Rows for which the query fails now.");
static QUERY_BEHIND: Metric = metric(
    "millstream_query_behind_epochs",
    Gauge,
    "",
    QUERY,
    "Epochs that the query is behind; absent if it is behind and has errors.",
);
const SINK: &[&str] = &["sink"];
static SINK_UP: Metric = metric(
    "millstream_sink_up",
    Gauge,
    "",
    SINK,
    "0 if the sink has failed, is retried or suspended, else 1.",
);
static SINK_ROWS: Metric = metric("millstream_sink_rows", Counter, "", SINK, "Rows delivered by the sink.");
static SINK_WAITING: Metric =
    metric("millstream_sink_waiting_epochs", Gauge, "", SINK, "Epochs that wait for the sink.");
static SINK_WAITING_BYTES: Metric =
    metric("millstream_sink_waiting_bytes", Gauge, "bytes", SINK, "Bytes that wait for the sink.");
static LEFT_OUT: Metric = metric(
    "millstream_metrics_omitted_series",
    Gauge,
    "",
    &[],
    "Series left out of this page, because a metric had more than 1,000.",
);

/// Every metric, in the order of the page.
static ALL: &[&Metric] = &[
    &BUILD,
    &READY,
    &EPOCHS,
    &INPUT_ROWS,
    &OUTPUT_ROWS,
    &MERGED,
    &MISSED,
    &PROCESSING,
    &SCHEDULING,
    &LAST_TOTAL,
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
    &QUERY_STATUS,
    &QUERY_ROWS,
    &QUERY_STATE,
    &QUERY_ERRORS,
    &QUERY_BEHIND,
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

/// The facts that need no reading of the engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) is_ready: bool,
    pub(crate) totals: Totals,
    /// The last seconds.
    pub(crate) recent: &'a [Second],
    pub(crate) resident_bytes: Option<u64>,
    /// The current time, in milliseconds since 1970.
    pub(crate) now_ms: u64,
}

/// Returns the text of all metrics. Without a reading, it has those of the facts alone.
pub(crate) fn expose(facts: &Facts<'_>, reading: Option<&Reading>) -> String {
    let mut text = Exposition::default();
    text.metric(&BUILD, [(vec![env!("CARGO_PKG_VERSION")], 1)]);
    text.single(&READY, Some(u8::from(facts.is_ready)));
    epochs(&mut text, facts);
    text.single(&RESIDENT, facts.resident_bytes);
    if let Some(reading) = reading {
        engine(&mut text, facts, reading);
        sources(&mut text, &reading.sources);
        queries(&mut text, &reading.queries);
        sinks(&mut text, &reading.sinks);
    }
    let left_out = text.left_out();
    text.single(&LEFT_OUT, Some(left_out));
    text.finish()
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn epochs(text: &mut Exposition, facts: &Facts<'_>) {
    let totals = &facts.totals;
    text.single(&EPOCHS, Some(totals.epochs));
    text.single(&INPUT_ROWS, Some(totals.rows_in));
    text.single(&OUTPUT_ROWS, Some(totals.rows_out));
    text.single(&MERGED, Some(totals.merged_intervals));
    text.single(&MISSED, Some(totals.missed));
    let bounds = BOUNDS_US.map(seconds);
    for (metric, times) in [(&PROCESSING, &totals.processing), (&SCHEDULING, &totals.scheduling)] {
        text.histogram(metric, &bounds, &times.buckets, seconds(times.sum_us));
    }
    let with_epochs = facts.recent.iter().filter(|second| second.epochs > 0);
    text.single(&LAST_TOTAL, with_epochs.map(|second| second.total_max_us).max().map(seconds));
}

fn engine(text: &mut Exposition, facts: &Facts<'_>, reading: &Reading) {
    text.single(&INTERVAL, reading.interval.map(|interval| interval.as_secs_f64()));
    text.single(&STATE, number(&reading.memory, "state_bytes"));
    text.single(&SPILLED, number(&reading.memory, "spilled_bytes"));
    text.single(&LIMIT, number(&reading.memory, "limit_bytes"));
    text.single(&STATEMENTS, Some(reading.statements));
    let is_failure = |row: &&Row| row.get("reason").is_some_and(|reason| !reason.is_null());
    let newest = reading.checkpoints.iter().rev().find(|row| !is_failure(row));
    let age = last_success(&reading.checkpoints).map(|at| facts.now_ms.saturating_sub(at) as f64 / 1e3);
    text.single(&CHECKPOINT_AGE, age);
    text.single(&CHECKPOINT_DURATION, newest.and_then(|row| number(row, "duration_us")).map(seconds));
    text.single(&CHECKPOINT_BYTES, newest.and_then(|row| number(row, "bytes")));
    text.single(&CHECKPOINT_OK, reading.checkpoints.last().map(|row| u8::from(!is_failure(&row))));
    text.single(&CHECKPOINT_FAILURES, Some(reading.checkpoints.iter().filter(is_failure).count()));
}

/// Appends a metric of objects: the value of a column for each row that has one.
fn column(text: &mut Exposition, metric: &Metric, rows: &[Row], of: impl Fn(&Row) -> Option<u64>) {
    text.metric(metric, rows.iter().filter_map(|row| Some((vec![name(row)], of(row)?))));
}

fn name(row: &Row) -> &str {
    text(row, "name").unwrap_or_default()
}

fn status(row: &Row) -> &str {
    text(row, "status").unwrap_or_default()
}

fn sources(text: &mut Exposition, rows: &[Row]) {
    let up = |row: &Row| Some(u64::from(!matches!(status(row), "failed" | "restarting")));
    column(text, &SOURCE_UP, rows, up);
    for (metric, name) in [
        (&SOURCE_ROWS, "rows"),
        (&SOURCE_BAD, "bad_rows"),
        (&SOURCE_RESTARTS, "restarts"),
        (&SOURCE_WAITING, "waiting_rows"),
        (&SOURCE_WAITING_BYTES, "waiting_bytes"),
    ] {
        column(text, metric, rows, |row| number(row, name));
    }
}

fn queries(text: &mut Exposition, rows: &[Row]) {
    text.metric(&QUERY_STATUS, rows.iter().map(|row| (vec![name(row), status(row)], 1)));
    for (metric, name) in [(&QUERY_ROWS, "rows"), (&QUERY_STATE, "state_bytes"), (&QUERY_ERRORS, "errors")] {
        column(text, metric, rows, |row| number(row, name));
    }
    column(text, &QUERY_BEHIND, rows, behind_epochs);
}

fn sinks(text: &mut Exposition, rows: &[Row]) {
    let up = |row: &Row| Some(u64::from(!matches!(status(row), "failed" | "retrying" | "suspended")));
    column(text, &SINK_UP, rows, up);
    for (metric, name) in
        [(&SINK_ROWS, "rows"), (&SINK_WAITING, "waiting_epochs"), (&SINK_WAITING_BYTES, "waiting_bytes")]
    {
        column(text, metric, rows, |row| number(row, name));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    fn rows(value: serde_json::Value) -> Vec<Row> {
        vec![value.as_object().unwrap().clone()]
    }

    #[test]
    fn the_page_has_every_metric_that_is_documented() {
        let reading = Reading {
            sources: rows(
                json!({"name": "s", "status": "restarting", "rows": 1, "bad_rows": 2, "restarts": 3,
                                 "waiting_rows": 4, "waiting_bytes": 5}),
            ),
            queries: rows(json!({"name": "q", "status": "behind", "reason": "6 epochs behind", "rows": 1,
                                 "state_bytes": 2, "errors": 0})),
            sinks: rows(json!({"name": "k", "status": "running", "rows": 1, "waiting_epochs": 2,
                               "waiting_bytes": 3})),
            memory: rows(json!({"state_bytes": 1, "spilled_bytes": 2, "limit_bytes": 3})).remove(0),
            checkpoints: rows(json!({"at": 4_000, "duration_us": 5, "bytes": 6, "reason": null})),
            batches: Vec::new(),
            statements: 7,
            interval: Some(std::time::Duration::from_millis(500)),
        };
        let recent = [Second { epochs: 1, total_max_us: 2_000_000, ..Second::default() }];
        let facts = Facts {
            is_ready: true,
            totals: Totals::default(),
            recent: &recent,
            resident_bytes: Some(8),
            now_ms: 5_500,
        };
        let text = expose(&facts, Some(&reading));
        let typed: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        assert_eq!(typed, ALL.iter().map(|metric| metric.name).collect::<Vec<_>>());
        for line in [
            "millstream_source_up{source=\"s\"} 0",
            "millstream_source_bad_rows_total{source=\"s\"} 2",
            "millstream_query_behind_epochs{query=\"q\"} 6",
            "millstream_query_status{query=\"q\",status=\"behind\"} 1",
            "millstream_sink_up{sink=\"k\"} 1",
            "millstream_checkpoint_age_seconds 1.5",
            "millstream_batch_interval_seconds 0.5",
            "millstream_epoch_total_delay_max_seconds 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn names_follow_the_rules() {
        let names: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        for metric in ALL {
            assert!(metric.name.ends_with(metric.unit), "{}", metric.name);
            assert!(metric.help.ends_with('.') && !metric.name.ends_with("_total"), "{}", metric.name);
        }
    }

    #[test]
    fn without_a_reading_the_facts_remain() {
        let facts = Facts {
            is_ready: false,
            totals: Totals::default(),
            recent: &[],
            resident_bytes: None,
            now_ms: 0,
        };
        let text = expose(&facts, None);
        assert!(text.contains("\nmillstream_ready 0\n") && text.ends_with("# EOF\n"));
        assert!(!text.contains("millstream_state_bytes"));
    }
}
