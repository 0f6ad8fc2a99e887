//! The rows of relations, as queries read them.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_flow::Wanted;
use millstream_sql::{Error, Result};

use super::dead_letters::all_late_rows;
use super::late_rows::LateRows;
use super::own_flow::COUNTED_BYTES_MAX;
use super::queries::Queries;
use super::query::{ResultRows, RunningQuery};
use super::query_names::query_called;
use super::sources::Sources;
use super::tables::BaseTables;
use crate::catalog::{ALL_BAD_ROWS, ALL_LATE_ROWS, bad_rows_of, late_rows_of};
use crate::content::{Content, ThroughPart};

/// The relations below all queries.
#[derive(Clone, Copy)]
pub(super) struct Bases<'a> {
    pub(super) tables: &'a BaseTables,
    pub(super) sources: &'a Sources,
}

impl<'a> Bases<'a> {
    pub(super) fn new(tables: &'a BaseTables, sources: &'a Sources) -> Bases<'a> {
        Bases { tables, sources }
    }

    /// Returns the contents of these relations and of the results of queries.
    pub(super) fn contents(self, queries: &'a Queries) -> Contents<'a> {
        Contents { bases: self, queries }
    }
}

/// Reads the rows of each relation that a query may read, as of the last epoch.
///
/// Its methods lie in the modules of their topics.
#[derive(Clone, Copy)]
pub(super) struct Contents<'a> {
    pub(super) bases: Bases<'a>,
    pub(super) queries: &'a Queries,
}

/// Reads the results of queries, wherever their rows are: in their operators, beside these, or in the part that they read.
#[derive(Clone, Copy)]
pub(super) struct Results<'a>(pub(super) &'a Queries);

impl<'a> Results<'a> {
    /// Returns the query whose operators or rows have the result of a query: itself, or the part that it reads.
    pub(super) fn keeper(self, query: &'a RunningQuery) -> &'a RunningQuery {
        let ResultRows::Part(_) = &query.result.rows else { return query };
        query.reads().next().and_then(|part| self.0.query(part)).unwrap_or(query)
    }

    /// Returns the way from the rows of the part to the result of a query whose result the part keeps.
    pub(super) fn through(self, query: &RunningQuery) -> Option<ThroughPart> {
        let ResultRows::Part(stages) = &query.result.rows else { return None };
        // The query has not taken in these changes of the part yet.
        let since = query.status.lag().and_then(|lag| lag.waiting_changes(1).pop()).unwrap_or_default();
        Some(ThroughPart::new(since, stages.clone()))
    }

    /// Returns all rows of the result that have an answer. If the query keeps only the newest rows, `stamped` adds the
    /// columns of their batch, at its end.
    pub(super) fn content(self, query: &RunningQuery, stamped: Option<&SchemaRef>) -> Result<Content> {
        query.check_there()?;
        match self.through(query) {
            None => query.result.rows.content(&query.flow, stamped),
            Some(through) => through.rows(self.keeper(query).flow.content()?).map(Content::Batches),
        }
    }

    /// Returns the wanted rows of the result, and perhaps others, if operators find them by their key.
    pub(super) fn wanted(self, query: &RunningQuery, wanted: &Wanted) -> Option<Result<Vec<RecordBatch>>> {
        match self.through(query) {
            None => query.read_wanted(wanted),
            Some(through) if query.status.is_running() => {
                let rows = self.keeper(query).flow.content_wanted(&through.wanted(wanted))?;
                Some(rows.and_then(|rows| through.rows(rows)))
            }
            Some(_) => None,
        }
    }

    /// Returns the number of rows of the result, if the query keeps it and counting takes little time.
    pub(super) fn num_rows(self, query: &RunningQuery) -> Option<u64> {
        let part = &self.keeper(query).flow;
        match self.through(query) {
            None => query.result.rows.num_rows(&query.flow),
            Some(through) if through.hands_on() => part.result_rows(),
            Some(through) => {
                part.here().filter(|flow| flow.state_bytes() <= COUNTED_BYTES_MAX)?;
                let rows = through.rows(part.content().ok()?).ok()?;
                Some(rows.iter().map(|batch| batch.num_rows() as u64).sum())
            }
        }
    }

    /// Returns true if a step is not over that changes the result of this name, or moves its rows.
    pub(super) fn is_away(self, name: &str) -> bool {
        let is_away = |query| RunningQuery::is_away(query) || self.keeper(query).is_away();
        self.0.query(name).is_some_and(is_away)
    }
}

impl Contents<'_> {
    /// Returns the rows of a relation that have an answer: queries and sinks over it take these.
    pub(super) fn answered(&self, name: &str) -> Result<Vec<RecordBatch>> {
        self.content_as(name, None)?.batches_now()
    }

    /// The same without assembling rows that a reader can share; `stamped` adds the columns of the batch that it ends
    /// with, if rows have a batch.
    pub(super) fn content_as(&self, name: &str, stamped: Option<&SchemaRef>) -> Result<Content> {
        let Bases { tables, sources } = self.bases;
        if let Some(table) = tables.get(name) {
            return Ok(Content::Snapshot(table.published()));
        }
        if let Some(query) = self.queries.query(name) {
            return Results(self.queries).content(query, stamped);
        }
        if let Some(retained) = sources.get(name).and_then(|source| source.retained.as_ref()) {
            return retained.batches(stamped).map(Content::Batches);
        }
        if let Some(source) = bad_rows_of(name).and_then(|source| sources.get(source)) {
            return Ok(Content::Batches(vec![source.bad.batch()?]));
        }
        if let Some(query) = late_rows_of(name).and_then(|query| query_called(self.queries, query)) {
            let late = query.result.late.as_ref().map_or(Ok(Vec::new()), LateRows::batches);
            return late.map(Content::Batches);
        }
        if let Some(row) = tables.sequences.row(name)? {
            return Ok(Content::Batches(vec![row]));
        }
        match name {
            ALL_BAD_ROWS => Ok(Content::Batches(vec![sources.all_bad_rows()?])),
            ALL_LATE_ROWS => Ok(Content::Batches(vec![all_late_rows(self.queries)?])),
            _ if sources.contains_key(name) => Err(Error::invalid(format!(
                "source \"{name}\" keeps no rows, so a SELECT has nothing to read"
            ))
            .hint(format!(
                "CREATE MATERIALIZED VIEW v AS SELECT … FROM {name}, and SELECT from that; or create the source WITH \
                 (retention = '10 minutes'), and it keeps its newest rows."
            ))),
            _ => Err(Error::invalid(format!("there is no relation \"{name}\""))),
        }
    }
}
