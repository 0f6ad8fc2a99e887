//! RETURNING: the rows that a statement changes. They are found, and the clause is evaluated, before the change is made:
//! a clause that fails changes nothing.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::physical_plan::memory::MemoryStream;
use millstream_sql::{Dml, Operation, Result};
use millstream_state::{Conflict, Keyed};

use crate::error;
use crate::run::part;
use crate::session::{Response, TAG};
use crate::statement::RowsTag;

/// The effect of a statement that changes rows.
#[derive(Debug, Default)]
pub(crate) struct DmlResult {
    /// The number of changed rows.
    pub(crate) count: u64,
    /// The rows of its RETURNING clause, if it has one.
    pub(crate) returned: Option<Vec<RecordBatch>>,
}

/// The rows of a statement with a RETURNING clause, before the change.
pub(crate) struct Affected<'a> {
    /// The new rows, or the old ones of a DELETE.
    pub(crate) rows: &'a RecordBatch,
    /// The new rows of ON CONFLICT DO UPDATE.
    pub(crate) updated: Option<&'a RecordBatch>,
    /// The rows of the table with the keys of an INSERT that skips or updates these.
    pub(crate) existing: Option<&'a [RecordBatch]>,
    /// The table's rule for rows whose key exists, if the statement has none.
    pub(crate) of_table: Conflict,
}

/// Returns true if an INSERT with a RETURNING clause doesn't add every row as it is, so that [`Affected::existing`] is needed.
pub(crate) fn skips_rows(dml: &Dml, of_table: Conflict) -> bool {
    dml.operation == Operation::Insert
        && (dml.on_conflict.is_some() || matches!(of_table, Conflict::Keep | Conflict::Merge))
}

/// Returns the rows that a statement with a RETURNING clause changes. Those of ON CONFLICT DO UPDATE come last.
pub(crate) fn changed_rows(dml: &Dml, key: &[usize], affected: &Affected<'_>) -> Result<RecordBatch> {
    let schema = &dml.columns;
    if dml.operation != Operation::Insert || key.is_empty() {
        return Ok(affected.rows.clone());
    }
    let none = || Keyed::new(schema.clone(), key.to_vec()).map_err(error::state);
    let mut table = none()?;
    if let Some(existing) = affected.existing {
        table.upsert(&part(existing, 0, schema)?, Conflict::Replace).map_err(error::change)?;
    }
    let (rows, conflict) = match affected.existing {
        Some(_) if dml.on_conflict.is_none() && affected.of_table == Conflict::Merge => {
            let merged = std::mem::replace(&mut table, none()?).merge(affected.rows);
            (merged.map_err(error::change)?, Conflict::Replace)
        }
        Some(_) => (affected.rows.clone(), Conflict::Keep),
        // Of several rows with one key, the last one wins, unless the table refuses them.
        None => (affected.rows.clone(), Conflict::Replace),
    };
    let added = table.upsert(&rows, conflict).map_err(error::change)?;
    let mut all = Vec::new();
    for chunk in &added.chunks {
        all.push(chunk.expand().map_err(error::arrow)?);
    }
    all.extend(affected.updated.cloned());
    concat_batches(schema, &all).map_err(error::arrow)
}

/// Returns the rows of a clause as a statement's result.
pub(crate) fn response(operation: Operation, columns: SchemaRef, rows: Vec<RecordBatch>) -> Result<Response> {
    let mut metadata = columns.metadata().clone();
    metadata.insert(TAG.into(), RowsTag::of(operation).word.into());
    let columns = Arc::new(Schema::new_with_metadata(columns.fields().clone(), metadata));
    let rows = rows.into_iter().map(|rows| rows.with_schema(Arc::clone(&columns)));
    let rows = rows.collect::<std::result::Result<Vec<_>, _>>().map_err(error::arrow)?;
    Ok(Response::Rows(Box::pin(MemoryStream::try_new(rows, columns, None)?)))
}
