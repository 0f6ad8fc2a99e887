//! The content of system tables: snapshots of the loop's state.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use millstream_connect::Limit;
use millstream_delta::Timestamp;
use millstream_flow::Explained;
use millstream_sql::{Error, Result};

use super::backpressure::{HeldBack, shown_status};
use super::measure::epoch_rows;
use super::query::RunningQuery;
use super::query_names::{node_offsets, queries_by_name};
use super::source::RunningSource;
use super::sources::Sources;
use super::tables::BaseTables;
use crate::catalog::{Catalog, Definition};
use crate::engine::Shared;
use crate::error;
use crate::jobs::Job;
use crate::listener::Batch;
use crate::run::read_view::ReadView;
use crate::settings::{SETTINGS, Settings};
use crate::system::{ERRORS, Excerpt, SystemColumnKind, SystemTableDoc, UTC};

/// A value of a system table.
pub(super) enum Cell {
    Text(Option<String>),
    Number(Option<i64>),
    Real(f64),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::Text(Some(text.to_string()))
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::Text(Some(text))
    }
}

impl From<i64> for Cell {
    fn from(number: i64) -> Cell {
        Cell::Number(Some(number))
    }
}

impl From<f64> for Cell {
    fn from(number: f64) -> Cell {
        Cell::Real(number)
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Cell {
        Cell::Number(i64::try_from(number).ok())
    }
}

impl From<Timestamp> for Cell {
    /// Converts to microseconds, the unit of columns of times.
    fn from(time: Timestamp) -> Cell {
        Cell::Number(Some(time.0))
    }
}

impl From<usize> for Cell {
    fn from(number: usize) -> Cell {
        Cell::from(number as u64)
    }
}

pub(super) const NULL: Cell = Cell::Text(None);

pub(super) type Lines = Vec<Vec<Cell>>;

impl ReadView<'_> {
    /// Returns the present rows of a system table.
    pub(super) fn system_rows(&self, table: &SystemTableDoc, excerpt: Excerpt) -> Result<RecordBatch> {
        let is_wanted = |batch: &Batch| excerpt.has_epoch(batch.epoch);
        let lines = match table.name {
            "epochs" => {
                let batches = self.measures.history.batches(0);
                return epoch_rows(batches.iter().map(Arc::as_ref).filter(|batch| is_wanted(batch)));
            }
            "checkpoints" => self.durability.checkpoint_lines(),
            "dependencies" => self.statuses().dependency_lines(),
            ERRORS => self.errors().lines(),
            "history" => self.outputs.logs.history_lines(),
            "jobs" => job_lines(&self.setup.shared),
            "materialized_views" => self.statuses().view_lines(),
            "memory" => self.memory.lines(self.queries, self.tables, &self.setup.settings),
            "sinks" => self.outputs.sink_lines(&self.statuses()),
            "subscriptions" => self.outputs.subscription_lines(),
            "streams" => self.statuses().stream_lines(),
            "source_partitions" => self.sources.partition_lines(self.watermarks),
            "tables" => self.statuses().table_lines(),
            "operators" => operator_lines(self.queries, self.tables, self.sources, &self.setup.catalog),
            "problems" => self.problem_lines(),
            "metrics" => self.metric_lines()?,
            "metrics_history" => self.metric_history_lines(),
            "epoch_operators" => self.epoch_operator_lines(excerpt),
            "operator_history" => self.operator_history_lines(excerpt),
            "settings" => setting_lines(&self.setup.settings)?,
            "sources" => self.sources.source_lines(
                &self.setup.catalog,
                &self.setup.settings,
                self.sources.budget.limit(&self.setup.settings),
                self.clock.now(&self.setup.settings),
                &self.flow_control.held_back(),
            ),
            other => return Err(Error::bug(format!("the system table \"{other}\" has no rows"))),
        };
        batch(table, lines)
    }
}

fn operator_lines(
    queries: &[RunningQuery],
    tables: &BaseTables,
    sources: &Sources,
    catalog: &Catalog,
) -> Lines {
    let line = |name: &str, operator: Explained, inputs: &str| {
        let meter = operator.meter;
        let (kind, detail) = operator.title.split_once(' ').unwrap_or((&operator.title, ""));
        vec![
            name.into(),
            operator.place.node.into(),
            kind.into(),
            said(detail),
            said(inputs),
            operator.cost.map_or(NULL, |cost| cost.name().into()),
            meter.steps.into(),
            meter.rows_in.into(),
            meter.rows_out.into(),
            meter.errors.into(),
            (meter.time.as_micros() as u64).into(),
            operator.state.rows.into(),
            operator.state.bytes.into(),
            meter.spilled_bytes.into(),
            operator.state.key.map_or(NULL, Cell::from),
            operator.key.map_or(NULL, Cell::from),
            operator.state.forgotten.map_or(NULL, |counted| counted.keys.into()),
            operator.state.forgotten.map_or(NULL, |counted| counted.deletes.into()),
            operator.late.map_or(NULL, Cell::from),
            said(&operator.shared_by.join(", ")),
        ]
    };
    let upserts = sources.upserts(tables, catalog).into_iter().map(|(name, upsert)| line(name, upsert, ""));
    let mut lines: Lines = upserts.collect();
    let offsets = node_offsets(queries);
    for (name, query) in queries_by_name(queries) {
        let mut all = query.operators();
        let offset = offsets.get(&query.name).copied().unwrap_or_default();
        all.iter_mut().for_each(|operator| operator.place.node += offset);
        let inputs: Vec<String> = (0..all.len()).map(|place| inputs_of(&all, place)).collect();
        let mut operators: Vec<_> = all.into_iter().zip(inputs).collect();
        operators.retain(|(operator, _)| !operator.place.repeated);
        operators.sort_by_key(|(operator, _)| operator.place.node);
        lines.extend(operators.into_iter().map(|(operator, inputs)| line(name, operator, &inputs)));
    }
    lines
}

impl Sources {
    fn source_lines(
        &self,
        catalog: &Catalog,
        settings: &Settings,
        limit: Limit,
        now: Timestamp,
        held: &HeldBack,
    ) -> Lines {
        let line = |(name, source): (&Arc<str>, &RunningSource)| {
            let (status, reason) = shown_status(settings, limit, now, name, source, held);
            let connector = match catalog.find(name).map(|object| &object.definition) {
                Some(Definition::Source { connector, .. }) => connector.name(),
                _ => "",
            };
            vec![
                name.as_ref().into(),
                connector.into(),
                status.into(),
                reason.map_or(NULL, Cell::from),
                source.counts.rows().into(),
                source.bad.count().into(),
                (source.rows_per_second(now).round() as i64).into(),
                source.waiting_size().0.into(),
                source.waiting_size().1.into(),
                source.health.restarts().into(),
                source.health.changes().into(),
                source.position.duplicates().into(),
                source.rate_limit(settings).map_or(NULL, |rate| rate.to_string().into()),
            ]
        };
        self.iter().map(line).collect()
    }
}

fn job_lines(shared: &Weak<Shared>) -> Lines {
    let jobs = shared.upgrade().map_or_else(Vec::new, |shared| shared.statements.jobs.all());
    let line = |job: Arc<Job>| {
        let total = job.rows_total.load(Ordering::Relaxed);
        vec![
            job.number.into(),
            job.backend.into(),
            job.user.as_str().into(),
            job.shown_statement().into(),
            job.began.into(),
            job.rows_done.load(Ordering::Relaxed).into(),
            if total > 0 { total.into() } else { NULL },
            job.memory_bytes().into(),
            format!("SELECT pg_cancel_backend({})", job.backend).into(),
        ]
    };
    jobs.into_iter().map(line).collect()
}

fn setting_lines(settings: &Settings) -> Result<Lines> {
    let line =
        |doc: &crate::SettingDoc| Ok(vec![doc.name.into(), settings.show(doc.name)?.into(), doc.doc.into()]);
    SETTINGS.iter().map(line).collect()
}

/// Returns a text, or NULL if it is empty.
fn said(text: &str) -> Cell {
    if text.is_empty() { NULL } else { text.into() }
}

/// Returns the nodes that the operator at a place reads; `all` are the operators of a query from the root down.
fn inputs_of(all: &[Explained], place: usize) -> String {
    let depth = all[place].place.depth;
    let below = all[place + 1..].iter().take_while(|operator| operator.place.depth > depth);
    let inputs = below.filter(|operator| operator.place.depth == depth + 1);
    inputs.map(|operator| operator.place.node.to_string()).collect::<Vec<_>>().join(", ")
}

/// Returns lines as rows of a table.
pub(super) fn batch(table: &SystemTableDoc, lines: Lines) -> Result<RecordBatch> {
    let number = |cell: &Cell| match cell {
        Cell::Number(number) => *number,
        Cell::Text(_) | Cell::Real(_) => None,
    };
    let real = |cell: &Cell| match cell {
        Cell::Real(number) => Some(*number),
        Cell::Text(_) | Cell::Number(_) => None,
    };
    let column = |place: usize| -> ArrayRef {
        let cells = lines.iter().map(|line| &line[place]);
        match table.columns[place].kind {
            SystemColumnKind::Number => Arc::new(Int64Array::from_iter(cells.map(number))),
            SystemColumnKind::Real => Arc::new(Float64Array::from_iter(cells.map(real))),
            SystemColumnKind::Time => {
                Arc::new(TimestampMicrosecondArray::from_iter(cells.map(number)).with_timezone(UTC))
            }
            SystemColumnKind::Bytes | SystemColumnKind::Text => {
                Arc::new(StringViewArray::from_iter(cells.map(|cell| match cell {
                    Cell::Text(text) => text.as_deref(),
                    Cell::Number(_) | Cell::Real(_) => None,
                })))
            }
        }
    };
    let columns = (0..table.columns.len()).map(column).collect();
    RecordBatch::try_new(table.schema(), columns).map_err(error::arrow)
}
