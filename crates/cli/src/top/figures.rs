//! The figures of a server: the newest reading, and rates since the one before.

use crate::top::health::Problem;
use crate::top::reading::{Reading, Row};

/// The figures of a server.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// The engine.
    pub head: Head,
    /// The problems, the worst first.
    pub problems: Vec<Problem>,
    /// The materialized views and streams.
    pub queries: Vec<Query>,
    /// The sources.
    pub sources: Vec<Source>,
    /// The sinks.
    pub sinks: Vec<Sink>,
}

/// The figures of the engine. Times are in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Head {
    /// The version of the server.
    pub version: String,
    /// The time since the start.
    pub uptime: Option<f64>,
    /// Epochs a second.
    pub epochs: Option<f64>,
    /// Rows a second that epochs read.
    pub rows_in: Option<f64>,
    /// Rows a second by which results changed.
    pub rows_out: Option<f64>,
    /// The mean processing time of epochs.
    pub processing: Option<f64>,
    /// The mean scheduling delay of epochs.
    pub scheduling: Option<f64>,
    /// The setting `batch_interval`.
    pub interval: Option<f64>,
    /// Bytes of state in memory, and those in files.
    pub state: (Option<f64>, Option<f64>),
    /// The setting `memory_limit`.
    pub limit: Option<f64>,
    /// Bytes of memory of the process.
    pub resident: Option<f64>,
    /// The age of the newest checkpoint.
    pub checkpoint_age: Option<f64>,
}

/// The figures of a query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// `materialized view` or `stream`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its status.
    pub status: String,
    /// The share of the time that its operators took, of one thread.
    pub busy: Option<f64>,
    /// Rows of its result, where they are counted.
    pub rows: Option<f64>,
    /// Bytes of its state.
    pub state: Option<f64>,
    /// Rows for which it fails.
    pub errors: Option<f64>,
    /// Epochs that it is behind.
    pub behind: Option<f64>,
}

/// The figures of a source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Its status.
    pub status: String,
    /// Rows a second.
    pub rate: Option<f64>,
    /// Records up to its end, where that is known.
    pub lag: Option<f64>,
    /// The age of its watermark in seconds.
    pub watermark_lag: Option<f64>,
    /// Rows that wait for an epoch.
    pub waiting: Option<f64>,
    /// Records that could not be decoded.
    pub bad: Option<f64>,
}

/// The figures of a sink.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sink {
    /// Its name.
    pub name: String,
    /// Its status.
    pub status: String,
    /// The share of the time that its operators took, of one thread.
    pub busy: Option<f64>,
    /// Rows a second.
    pub rate: Option<f64>,
    /// Epochs that wait for it.
    pub waiting: Option<f64>,
    /// Bytes that wait for it.
    pub waiting_bytes: Option<f64>,
}

/// Two readings, or one.
struct Pair<'a> {
    before: Option<&'a Reading>,
    now: &'a Reading,
}

impl Figures {
    /// Computes the figures of a reading. Without one before, there are no rates.
    pub fn between(before: Option<&Reading>, now: &Reading) -> Figures {
        let pair = Pair { before, now };
        Figures {
            head: pair.head(),
            problems: now.problems.iter().map(Problem::of).collect(),
            queries: now.queries.iter().map(|row| pair.query(row)).collect(),
            sources: now.sources.iter().map(|row| pair.source(row)).collect(),
            sinks: now.sinks.iter().map(|row| pair.sink(row)).collect(),
        }
    }
}

impl Pair<'_> {
    fn get(&self, metric: &str, object: &str) -> Option<f64> {
        self.now.metrics.get(metric, object)
    }

    /// Returns by how much a counter has grown; `None` if it is new, or of another process.
    fn growth(&self, metric: &str, object: &str) -> Option<f64> {
        let growth = self.get(metric, object)? - self.before?.metrics.get(metric, object)?;
        (growth >= 0.0).then_some(growth)
    }

    /// Returns the growth of a counter a second.
    fn rate(&self, metric: &str, object: &str) -> Option<f64> {
        let seconds = self.now.at.duration_since(self.before?.at).as_secs_f64();
        (seconds > 0.0).then_some(self.growth(metric, object)? / seconds)
    }

    /// Returns the mean of the values that a histogram has counted.
    fn mean(&self, metric: &str) -> Option<f64> {
        let count = self.growth(&format!("{metric}_count"), "")?;
        (count > 0.0).then_some(self.growth(&format!("{metric}_sum"), "")? / count)
    }

    /// Returns the time since the start; `None` under a manual clock, which has a time of its own.
    fn uptime(&self) -> Option<f64> {
        self.now.facts.get("uptime")?.parse().ok().filter(|uptime| *uptime >= 0.0)
    }

    fn head(&self) -> Head {
        Head {
            version: self.now.metrics.object("millstream_build_info").unwrap_or_default().to_owned(),
            uptime: self.uptime(),
            epochs: self.rate("millstream_epochs_total", ""),
            rows_in: self.rate("millstream_input_rows_total", ""),
            rows_out: self.rate("millstream_output_rows_total", ""),
            processing: self.mean("millstream_epoch_processing_seconds"),
            scheduling: self.mean("millstream_epoch_scheduling_delay_seconds"),
            interval: self.get("millstream_batch_interval_seconds", ""),
            state: (self.get("millstream_state_bytes", ""), self.get("millstream_spilled_bytes", "")),
            limit: self.get("millstream_memory_limit_bytes", ""),
            resident: self.get("process_resident_memory_bytes", ""),
            checkpoint_age: self.get("millstream_checkpoint_age_seconds", ""),
        }
    }

    fn query(&self, row: &Row) -> Query {
        let name = text(row, "name");
        Query {
            kind: text(row, "kind"),
            status: text(row, "status"),
            busy: self.rate("millstream_query_busy_seconds_total", &name),
            rows: self.get("millstream_query_rows", &name),
            state: self.get("millstream_query_state_bytes", &name),
            errors: self.get("millstream_query_errors", &name),
            behind: self.get("millstream_query_behind_epochs", &name),
            name,
        }
    }

    fn source(&self, row: &Row) -> Source {
        let name = text(row, "name");
        Source {
            status: text(row, "status"),
            rate: self.rate("millstream_source_rows_total", &name),
            lag: self.get("millstream_source_lag_rows", &name),
            watermark_lag: self.get("millstream_source_watermark_lag_seconds", &name),
            waiting: self.get("millstream_source_waiting_rows", &name),
            bad: self.get("millstream_source_bad_rows_total", &name),
            name,
        }
    }

    fn sink(&self, row: &Row) -> Sink {
        let name = text(row, "name");
        Sink {
            status: text(row, "status"),
            busy: self.rate("millstream_query_busy_seconds_total", &name),
            rate: self.rate("millstream_sink_rows_total", &name),
            waiting: self.get("millstream_sink_waiting_epochs", &name),
            waiting_bytes: self.get("millstream_sink_waiting_bytes", &name),
            name,
        }
    }
}

/// Returns a column of a row; an empty text for NULL.
pub fn text(row: &Row, column: &str) -> String {
    row.get(column).cloned().unwrap_or_default()
}

#[cfg(test)]
pub mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::top::reading::Metrics;

    /// Returns a row of these columns.
    pub fn row(columns: &[(&str, &str)]) -> Row {
        columns.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// Returns a reading at a time with these metrics, and one object of each kind.
    pub fn reading(at: Instant, metrics: &[(&str, &str, f64)]) -> Reading {
        let metric = |(name, labels, value): &(&str, &str, f64)| {
            row(&[("name", name), ("labels", labels), ("value", &value.to_string())])
        };
        Reading {
            at,
            metrics: Metrics::of(&metrics.iter().map(metric).collect::<Vec<_>>()),
            sources: vec![row(&[("name", "clicks"), ("status", "running")])],
            queries: vec![row(&[("kind", "materialized view"), ("name", "per_page"), ("status", "running")])],
            sinks: vec![row(&[("name", "out"), ("status", "running")])],
            problems: Vec::new(),
            facts: row(&[("uptime", "90.5")]),
        }
    }

    const QUERY: &str = r#"{"query": "per_page"}"#;

    #[test]
    fn rates_are_differences_of_two_readings() {
        let begin = Instant::now();
        let before = reading(
            begin,
            &[
                ("millstream_epochs_total", "{}", 10.0),
                ("millstream_epoch_processing_seconds_sum", "{}", 1.0),
                ("millstream_epoch_processing_seconds_count", "{}", 10.0),
                ("millstream_query_busy_seconds_total", QUERY, 3.0),
            ],
        );
        let now = reading(
            begin + Duration::from_secs(2),
            &[
                ("millstream_epochs_total", "{}", 14.0),
                ("millstream_epoch_processing_seconds_sum", "{}", 1.4),
                ("millstream_epoch_processing_seconds_count", "{}", 14.0),
                ("millstream_query_busy_seconds_total", QUERY, 4.0),
                ("millstream_source_rows_total", r#"{"source": "clicks"}"#, 4.0),
            ],
        );
        let figures = Figures::between(Some(&before), &now);
        assert_eq!((figures.head.epochs, figures.head.uptime), (Some(2.0), Some(90.5)));
        assert!((figures.head.processing.unwrap() - 0.1).abs() < 1e-9);
        assert_eq!(figures.queries[0].busy, Some(0.5));
        // The source is new, and has no rate yet.
        assert_eq!(figures.sources[0].rate, None);
        assert_eq!(Figures::between(None, &now).head.epochs, None);
        let mut manual = now.clone();
        manual.facts.insert("uptime".into(), "-1795709685.0".into());
        assert_eq!(Figures::between(None, &manual).head.uptime, None);
        // A server that was started again counts from zero.
        assert_eq!(
            Figures::between(Some(&now), &reading(begin + Duration::from_secs(3), &[])).head.epochs,
            None
        );
        assert_eq!(Figures::between(Some(&now), &before).queries[0].busy, None);
    }
}
