//! Dead letters as relations: `bad_rows('source')` and `late_rows('query')`, and those of all objects in
//! `millstream.bad_rows` and `millstream.late_rows`.
//!
//! The rows that an epoch sets aside are a delta of these relations in the same epoch. They follow from the epoch, so a
//! replay yields the same rows. The relations are append-only for queries: a row that is dropped for lack of room, or
//! put into its window later, stays in the queries that took it.
//!
//! A step of a query makes rows late, so queries are ordered before the readers of their late rows. A query over
//! `millstream.late_rows` with windows that close would feed itself. So that relation omits rows that are late for
//! queries which depend on it.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use millstream_delta::Delta;
use millstream_sql::{Error, Result};

use super::deltas::Deltas;
use super::late_rows::LateRows;
use super::query::RunningQuery;
use super::query_names::{query_called, shown_name};
use super::sources::Sources;
use crate::catalog::{ALL_BAD_ROWS, ALL_LATE_ROWS, bad_rows_name, bad_rows_of, late_rows_name, late_rows_of};
use crate::run::queries::Queries;
use crate::{error, system};

/// The columns of `millstream.late_rows`, in its order, that late rows have.
const LATE_COLUMNS: [&str; 8] =
    ["_epoch", "_operator", "_window", "_watermark", "_weight", "_relation", "_event_time", "_row"];

impl Sources {
    /// Returns the bad rows of all sources.
    pub(super) fn all_bad_rows(&self) -> Result<RecordBatch> {
        let of = self.iter().map(|(name, source)| of_source(name, &source.bad.batch()?));
        together(&schema("bad_rows")?, &of.collect::<Result<Vec<_>>>()?)
    }

    /// Adds the records that sources could not decode to the deltas of an epoch.
    pub(super) fn add_bad_rows(&mut self, queries: &Queries, deltas: &mut Deltas) {
        let mut fresh = Vec::new();
        for (name, source) in self.iter_mut() {
            match source.bad.take_fresh() {
                Ok(rows) => fresh.extend(rows.map(|rows| (name.clone(), rows))),
                Err(reason) => tracing::error!(source = %name, %reason, "bad rows can't be shown"),
            }
        }
        for (source, rows) in fresh {
            if queries.is_taken(ALL_BAD_ROWS)
                && let Ok(rows) = of_source(&source, &rows)
            {
                deltas.entry(ALL_BAD_ROWS.into()).or_default().append(Delta::insert(rows));
            }
            let own = bad_rows_name(&source);
            if queries.is_taken(&own) {
                deltas.entry(own.into()).or_default().append(Delta::insert(rows));
            }
        }
    }
}

impl Queries {
    fn is_taken(&self, relation: &str) -> bool {
        self.all.iter().any(|query| query.reads_from(relation))
    }
}

/// Adds the late rows of a query to the deltas of an epoch.
pub(super) fn add_late_rows(queries: &mut Queries, place: usize, deltas: &mut Deltas) {
    let Some(late) = queries[place].result.late.as_mut() else { return };
    let fresh = late.take_fresh();
    if fresh.is_empty() {
        return;
    }
    let query = shown_name(queries, &queries[place]);
    if queries.is_taken(ALL_LATE_ROWS) && are_among_all(queries, place) {
        for rows in &fresh {
            match of_query(query, rows) {
                Ok(rows) => {
                    deltas.entry(ALL_LATE_ROWS.into()).or_default().append(Delta::insert(rows));
                }
                Err(reason) => tracing::error!(%query, %reason, "late rows can't be shown"),
            }
        }
    }
    let own = late_rows_name(query);
    if queries.is_taken(&own) {
        deltas.entry(own.into()).or_default().append(Delta::from_iter(fresh));
    }
}

/// Returns true if a relation of dead letters no longer has all rows that were ever set aside.
pub(super) fn has_lost_dead_letters(queries: &[RunningQuery], sources: &Sources, relation: &str) -> bool {
    let late = |query: &RunningQuery| query.result.late.as_ref().is_some_and(LateRows::has_lost);
    match relation {
        ALL_BAD_ROWS => sources.values().any(|source| source.bad.has_lost()),
        ALL_LATE_ROWS => queries.iter().any(late),
        _ => match (bad_rows_of(relation), late_rows_of(relation)) {
            (Some(source), _) => sources.get(source).is_some_and(|source| source.bad.has_lost()),
            (_, Some(query)) => query_called(queries, query).is_some_and(late),
            _ => false,
        },
    }
}

/// Returns the names of a relation and all that depends on it.
pub(super) fn below(queries: &[RunningQuery], relation: &str) -> BTreeSet<Arc<str>> {
    let mut below = BTreeSet::from([Arc::from(relation)]);
    for query in queries {
        if query.reads().any(|name| below.contains(name)) {
            below.insert(query.name.clone());
            below.extend(query.into.as_ref().map(|into| into.table.clone()));
            below.insert(late_rows_name(shown_name(queries, query)).into());
        }
    }
    below
}

/// Returns the late rows of all queries that are ordered before the first reader of this relation.
pub(super) fn all_late_rows(queries: &[RunningQuery]) -> Result<RecordBatch> {
    let mut all = Vec::new();
    for place in late_for(queries, ALL_LATE_ROWS) {
        let query = &queries[place];
        for rows in query.result.late.as_ref().map_or(Ok(Vec::new()), LateRows::batches)? {
            all.push(of_query(shown_name(queries, query), &rows)?);
        }
    }
    together(&schema("late_rows")?, &all)
}

/// True if the relation of all late rows has those of this query: it is ordered before the first reader.
fn are_among_all(queries: &[RunningQuery], place: usize) -> bool {
    let mut up_to = queries.iter().take(place + 1);
    !queries[place].role.is_temporary() && !up_to.any(|query| query.reads_from(ALL_LATE_ROWS))
}

/// Returns the relations that contain the late rows of a query; none if it has none.
pub(super) fn late_relations(queries: &[RunningQuery], place: usize) -> impl Iterator<Item = Arc<str>> {
    let late = queries[place].result.late.as_ref().map(|_| &queries[place]);
    let own = late.map(|query| late_rows_name(shown_name(queries, query)).into());
    own.into_iter().chain(late.filter(|_| are_among_all(queries, place)).map(|_| ALL_LATE_ROWS.into()))
}

/// Returns the places of the queries whose late rows a relation contains.
pub(super) fn late_for(queries: &[RunningQuery], relation: &str) -> Vec<usize> {
    if relation != ALL_LATE_ROWS && late_rows_of(relation).is_none() {
        return Vec::new();
    }
    (0..queries.len())
        .filter(|place| late_relations(queries, *place).any(|name| *name == *relation))
        .collect()
}

/// True if a query reads the result or the late rows of another.
pub(super) fn takes_from(queries: &[RunningQuery], reader: usize, of: usize) -> bool {
    let (by, query) = (&queries[reader], &queries[of]);
    let takes_late = || {
        let own = || by.reads().any(|name| late_rows_of(name) == Some(shown_name(queries, query)));
        own() || (by.reads_from(ALL_LATE_ROWS) && are_among_all(queries, of))
    };
    by.reads_from(&query.name) || (reader > of && query.result.late.as_ref().is_some() && takes_late())
}

fn schema(name: &str) -> Result<SchemaRef> {
    let table =
        system::find(name).ok_or_else(|| Error::bug(format!("there is no system table \"{name}\"")))?;
    Ok(table.schema())
}

/// Returns the bad rows of a source in the form of `millstream.bad_rows`.
fn of_source(source: &str, rows: &RecordBatch) -> Result<RecordBatch> {
    let names = StringViewArray::from_iter_values(std::iter::repeat_n(source, rows.num_rows()));
    let mut columns: Vec<ArrayRef> = vec![Arc::new(names)];
    columns.extend(rows.columns().iter().cloned());
    RecordBatch::try_new(schema("bad_rows")?, columns).map_err(error::arrow)
}

/// Returns the late rows of a query in the form of `millstream.late_rows`.
fn of_query(query: &str, rows: &RecordBatch) -> Result<RecordBatch> {
    let schema = schema("late_rows")?;
    let names = StringViewArray::from_iter_values(std::iter::repeat_n(query, rows.num_rows()));
    let mut columns: Vec<ArrayRef> = vec![Arc::new(names)];
    for (name, field) in LATE_COLUMNS.iter().zip(schema.fields().iter().skip(1)) {
        let column = rows.column_by_name(name).ok_or_else(|| Error::bug(format!("late rows have {name}")))?;
        columns.push(cast(column, field.data_type()).map_err(error::arrow)?);
    }
    RecordBatch::try_new(schema, columns).map_err(error::arrow)
}

fn together(schema: &SchemaRef, rows: &[RecordBatch]) -> Result<RecordBatch> {
    arrow::compute::concat_batches(schema, rows).map_err(error::arrow)
}
