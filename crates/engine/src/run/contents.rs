//! The rows of relations, as queries read them.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_sql::{Error, Result};

use super::dead_letters::all_late_rows;
use super::late_rows::LateRows;
use super::queries::Queries;
use super::query_names::query_called;
use super::sources::Sources;
use super::tables::BaseTables;
use crate::catalog::{ALL_BAD_ROWS, ALL_LATE_ROWS, bad_rows_of, late_rows_of};
use crate::content::Content;

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
            return query.content(stamped);
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
