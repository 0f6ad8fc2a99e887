//! The values of metrics now, and the system tables of metrics and of the work of operators.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use millstream_delta::{Epoch, Timestamp};
use millstream_sql::{Error, Result};

use super::query::{RunningQuery, Status};
use super::query_names::{displayed_name, node_offsets, queries_by_name};
use super::read_view::ReadView;
use super::system::{Cell, Lines, NULL};
use crate::metrics::{Busy, History, Metric, MetricValue, Values, definitions as all, resident_bytes};
use crate::settings::Pace;
use crate::statements::sink_of;
use crate::system::{self, Excerpt};

impl Values {
    /// Adds a column of a system table: a value for each row that has one.
    fn column(&mut self, metric: &'static Metric, rows: &Rows, name: &str, scale: f64) {
        for at in 0..rows.batch.num_rows() {
            if let Some(number) = rows.number(name, at) {
                self.add(metric, &[rows.text("name", at)], number as f64 * scale);
            }
        }
    }

    /// Adds 1 for each row whose status is none of `down`, else 0.
    fn up(&mut self, metric: &'static Metric, rows: &Rows, down: &[&str]) {
        for at in 0..rows.batch.num_rows() {
            let is_up = !down.contains(&rows.text("status", at));
            self.add(metric, &[rows.text("name", at)], f64::from(u8::from(is_up)));
        }
    }
}

/// The rows of a system table.
struct Rows {
    batch: RecordBatch,
}

impl Rows {
    fn text(&self, column: &str, row: usize) -> &str {
        let Some(column) = self.batch.column_by_name(column) else { return "" };
        column.as_string_view_opt().filter(|texts| texts.is_valid(row)).map_or("", |texts| texts.value(row))
    }

    /// Returns a number, or a time in microseconds.
    fn number(&self, column: &str, row: usize) -> Option<i64> {
        let column = self.batch.column_by_name(column)?;
        if !column.is_valid(row) {
            return None;
        }
        let number = column.as_primitive_opt::<Int64Type>().map(|numbers| numbers.value(row));
        number.or_else(|| Some(column.as_primitive_opt::<TimestampMicrosecondType>()?.value(row)))
    }
}

impl ReadView<'_> {
    /// Returns the values of all metrics now.
    pub(super) fn metrics(&self) -> Result<Vec<MetricValue>> {
        let mut values = Values::default();
        values.add(&all::BUILD, &[env!("CARGO_PKG_VERSION")], 1.0);
        values.epochs(&self.measures.history);
        self.engine_metrics(&mut values)?;
        self.source_metrics(&mut values)?;
        self.query_metrics(&mut values)?;
        let sinks = self.rows_of("sinks")?;
        values.up(&all::SINK_UP, &sinks, &["failed", "retrying", "suspended"]);
        values.column(&all::SINK_ROWS, &sinks, "rows", 1.0);
        values.column(&all::SINK_WAITING, &sinks, "waiting_epochs", 1.0);
        values.column(&all::SINK_WAITING_BYTES, &sinks, "waiting_bytes", 1.0);
        Ok(values.finish())
    }

    /// Adds a sample of all metrics to the history.
    pub(super) fn sample(&self) -> Result<()> {
        self.measures.history.sample(&self.metrics()?);
        self.note_problems();
        Ok(())
    }

    fn rows_of(&self, table: &str) -> Result<Rows> {
        let found = system::find(table);
        let table = found.ok_or_else(|| Error::bug(format!("there is no system table \"{table}\"")))?;
        Ok(Rows { batch: self.system_rows(table, Excerpt::All)? })
    }

    fn engine_metrics(&self, values: &mut Values) -> Result<()> {
        let settings = &self.setup.settings;
        values.single(&all::RESIDENT, resident_bytes().map(|bytes| bytes as f64));
        let interval = match settings.pace {
            Pace::Fixed(interval) => Some(interval.as_secs_f64()),
            Pace::Auto => None,
        };
        values.single(&all::INTERVAL, interval);
        let memory = self.rows_of("memory")?;
        for (metric, column) in
            [(&all::STATE, "state_bytes"), (&all::SPILLED, "spilled_bytes"), (&all::LIMIT, "limit_bytes")]
        {
            values.single(metric, memory.number(column, 0).map(|bytes| bytes as f64));
        }
        let jobs = self.setup.shared.upgrade().map(|shared| shared.statements.jobs.all().len() as f64);
        values.single(&all::STATEMENTS, jobs);
        let checkpoints = self.rows_of("checkpoints")?;
        let count = checkpoints.batch.num_rows();
        let has_failed = |at: usize| !checkpoints.text("reason", at).is_empty();
        let newest = (0..count).rev().find(|at| !has_failed(*at));
        if let Some(newest) = newest {
            let now = self.clock.now(settings).0;
            let age = checkpoints.number("at", newest).map(|at| now.saturating_sub(at).max(0) as f64 / 1e6);
            values.single(&all::CHECKPOINT_AGE, age);
            let took = checkpoints.number("duration_us", newest).map(|us| us as f64 / 1e6);
            values.single(&all::CHECKPOINT_DURATION, took);
            let bytes = checkpoints.number("bytes", newest).map(|bytes| bytes as f64);
            values.single(&all::CHECKPOINT_BYTES, bytes);
        }
        let last = count.checked_sub(1).map(|last| f64::from(u8::from(!has_failed(last))));
        values.single(&all::CHECKPOINT_OK, last);
        let failures = (0..count).filter(|at| has_failed(*at)).count();
        values.single(&all::CHECKPOINT_FAILURES, Some(failures as f64));
        Ok(())
    }

    fn source_metrics(&self, values: &mut Values) -> Result<()> {
        let sources = self.rows_of("sources")?;
        values.up(&all::SOURCE_UP, &sources, &["failed", "restarting"]);
        for (metric, column) in [
            (&all::SOURCE_ROWS, "rows"),
            (&all::SOURCE_BAD, "bad_rows"),
            (&all::SOURCE_RESTARTS, "restarts"),
            (&all::SOURCE_WAITING, "waiting_rows"),
            (&all::SOURCE_WAITING_BYTES, "waiting_bytes"),
        ] {
            values.column(metric, &sources, column, 1.0);
        }
        let partitions = self.rows_of("source_partitions")?;
        let mut lags: BTreeMap<&str, i64> = BTreeMap::new();
        for at in 0..partitions.batch.num_rows() {
            if let Some(lag) = partitions.number("lag", at) {
                *lags.entry(partitions.text("source", at)).or_default() += lag;
            }
        }
        for (source, lag) in lags {
            values.add(&all::SOURCE_LAG, &[source], lag as f64);
        }
        let now = self.clock.now(&self.setup.settings);
        for (name, at) in self.watermarks.instants() {
            let lag = now.0.saturating_sub(at.0);
            values.add(&all::SOURCE_WATERMARK, &[name], lag as f64 / 1e6);
        }
        Ok(())
    }

    fn query_metrics(&self, values: &mut Values) -> Result<()> {
        let (views, streams) = (self.rows_of("materialized_views")?, self.rows_of("streams")?);
        let both = [&views, &streams];
        for rows in both {
            for at in 0..rows.batch.num_rows() {
                values.add(&all::QUERY_STATUS, &[rows.text("name", at), rows.text("status", at)], 1.0);
            }
        }
        for (metric, column) in
            [(&all::QUERY_ROWS, "rows"), (&all::QUERY_STATE, "state_bytes"), (&all::QUERY_ERRORS, "errors")]
        {
            both.iter().for_each(|rows| values.column(metric, rows, column, 1.0));
        }
        // A view and the queries below its windows have one name.
        let mut behind: BTreeMap<&str, u64> = BTreeMap::new();
        let mut busy: BTreeMap<&str, f64> = BTreeMap::new();
        let mut late: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, query) in queries_by_name(self.queries) {
            *busy.entry(name).or_default() += self.measures.activity.busy(&query.name).as_secs_f64();
            if let Status::Lagging(lag) = &query.status {
                let epochs = self.clock.epoch.0.saturating_sub(lag.through().0);
                behind.entry(name).and_modify(|most| *most = epochs.max(*most)).or_insert(epochs);
            }
            if let Some(rows) = query.flow.late() {
                *late.entry(name).or_default() += rows;
            }
        }
        behind.into_iter().for_each(|(name, epochs)| values.add(&all::QUERY_BEHIND, &[name], epochs as f64));
        busy.into_iter().for_each(|(name, time)| values.add(&all::QUERY_BUSY, &[name], time));
        late.into_iter().for_each(|(name, rows)| values.add(&all::QUERY_LATE, &[name], rows as f64));
        Ok(())
    }

    /// Returns the rows of `millstream.metrics`.
    pub(super) fn metric_lines(&self) -> Result<Lines> {
        let line =
            |value: &MetricValue| vec![value.name().into(), value.labels_json().into(), value.value.into()];
        Ok(self.metrics()?.iter().map(line).collect())
    }

    /// Returns the rows of `millstream.epoch_operators`, of all epochs or of one.
    pub(super) fn epoch_operator_lines(&self, excerpt: Excerpt) -> Lines {
        let mut operators = Operators::of(self.queries);
        let mut lines = Lines::new();
        let is_wanted = |epoch: Epoch| excerpt.has_epoch(epoch);
        for (epoch, work) in self.measures.activity.epochs().filter(|(epoch, _)| is_wanted(*epoch)) {
            let mut line = vec![epoch.0.into()];
            line.extend(operators.cells(&work.query, Some(work.node)));
            line.extend([work.time_us.into(), work.rows_in.into(), work.rows_out.into()]);
            lines.push(line);
        }
        lines
    }

    /// Returns the rows of `millstream.operator_history`.
    pub(super) fn operator_history_lines(&self, excerpt: Excerpt) -> Lines {
        let mut operators = Operators::of(self.queries);
        let history = &self.measures.history;
        let mut lines = Lines::new();
        let (from, to) = match excerpt {
            Excerpt::Seconds(from, to) => (from, to),
            Excerpt::All | Excerpt::Epoch(_) => (0, u64::MAX),
        };
        for (number, all) in history.busy_between(from, to) {
            for Busy { query, node, time_us } in all.iter() {
                let mut line = vec![time_of(history, number)];
                line.extend(operators.cells(query, *node));
                line.push((*time_us).into());
                lines.push(line);
            }
        }
        lines
    }

    /// Returns the rows of `millstream.metrics_history`.
    pub(super) fn metric_history_lines(&self) -> Lines {
        let history = &self.measures.history;
        let mut lines = Lines::new();
        for sample in history.samples(0) {
            for (series, value) in &sample.values {
                lines.push(vec![
                    time_of(history, sample.number),
                    series.name.as_str().into(),
                    series.labels.as_str().into(),
                    (*value).into(),
                ]);
            }
        }
        lines
    }
}

/// Returns the time at which a second of the history began.
fn time_of(history: &History, second: u64) -> Cell {
    let ms = history.began_ms() + 1000 * second;
    Timestamp(i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1000)).into()
}

/// The names of queries and operators, each looked up once.
struct Operators<'a> {
    queries: &'a [RunningQuery],
    /// The numbers to add to nodes, see [`node_offsets`].
    offsets: BTreeMap<Arc<str>, usize>,
    found: BTreeMap<Arc<str>, Named>,
}

/// The names of a query.
struct Named {
    shown: String,
    /// The names of its operators by node.
    operators: BTreeMap<usize, String>,
}

impl<'a> Operators<'a> {
    fn of(queries: &'a [RunningQuery]) -> Operators<'a> {
        Operators { queries, offsets: node_offsets(queries), found: BTreeMap::new() }
    }

    /// Returns the cells of a query, a node and the name of its operator. A query that was dropped has no operators.
    fn cells(&mut self, name: &Arc<str>, node: Option<usize>) -> [Cell; 3] {
        if !self.found.contains_key(name) {
            let named = self.named(name);
            self.found.insert(name.clone(), named);
        }
        let named = &self.found[name];
        let operator = node.and_then(|node| named.operators.get(&node));
        let offset = self.offsets.get(name).copied().unwrap_or_default();
        [
            named.shown.as_str().into(),
            node.map_or(NULL, |node| (node + offset).into()),
            operator.map_or(NULL, |name| name.as_str().into()),
        ]
    }

    fn named(&self, name: &Arc<str>) -> Named {
        let Some(query) = self.queries.iter().find(|query| query.name == *name) else {
            let shown = sink_of(name).unwrap_or(name).trim_start_matches('\0').to_string();
            return Named { shown, operators: BTreeMap::new() };
        };
        let shown = displayed_name(self.queries, query).to_string();
        let operators = query.operators().into_iter().filter(|one| !one.place.repeated);
        let first_word = |title: &str| title.split(' ').next().unwrap_or_default().to_string();
        Named { shown, operators: operators.map(|one| (one.place.node, first_word(&one.title))).collect() }
    }
}
