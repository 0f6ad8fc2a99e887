//! Columns added at the end of a table: existing rows have a constant in them.

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use millstream_delta::{Chunk, Delta};
use millstream_sql::{Error, Result};
use millstream_state::{Conflict, Keyed, Rows};

use super::{Content, Table};
use crate::error;

impl Table {
    /// Returns the table with the columns of a schema that begins with its own. `added` has the values of the others.
    pub(crate) fn widened(&self, schema: &SchemaRef, added: &[ScalarValue]) -> Result<Table> {
        let added = [&self.added[..], added].concat();
        let wide = |rows: Vec<RecordBatch>| -> Result<Delta> {
            rows.iter().map(|rows| wider(rows, schema, &added)).collect()
        };
        let there = self.staged().batches().map_err(error::arrow)?;
        let rows = match &self.rows {
            Content::Bag(_) => {
                let mut rows = Rows::new(schema.clone());
                rows.apply(&wide(there)?).map_err(error::state)?;
                Content::Bag(Box::new(rows))
            }
            Content::Keyed(kept) => {
                let key = kept.key_columns().to_vec();
                let mut rows = Keyed::new(schema.clone(), key).map_err(error::state)?;
                for chunk in wide(there)?.chunks {
                    rows.upsert(&chunk.rows, Conflict::Fail).map_err(error::state)?;
                }
                Content::Keyed(Box::new(rows))
            }
        };
        let published = match &self.published {
            None => None,
            Some(published) => {
                let mut rows = Rows::new(schema.clone());
                rows.apply(&wide(published.batches().map_err(error::arrow)?)?).map_err(error::state)?;
                Some(rows.snapshot())
            }
        };
        let pending = wider_delta(&self.pending, schema, &added)?;
        let version = self.version + 1;
        Ok(Table {
            rows,
            intake: self.intake,
            pending,
            summed: 0,
            applying: None,
            published,
            replies: Vec::new(),
            version,
            added,
        })
    }

    /// Moves the statements that wait for the old table to this one.
    pub(crate) fn take_waiting(&mut self, before: &mut Table) {
        self.replies.append(&mut before.replies);
    }

    /// Completes rows of a writer that was created before columns were added.
    pub(crate) fn whole(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        wider(rows, self.staged().schema(), &self.added)
    }

    /// The same for changes.
    pub(crate) fn whole_delta(&self, delta: &Delta) -> Result<Delta> {
        wider_delta(delta, self.staged().schema(), &self.added)
    }
}

/// Adds the missing columns to changes.
pub(crate) fn wider_delta(delta: &Delta, schema: &SchemaRef, added: &[ScalarValue]) -> Result<Delta> {
    let chunk = |chunk: &Chunk| {
        Ok(Chunk { rows: wider(&chunk.rows, schema, added)?, weights: chunk.weights.clone() })
    };
    let chunks = delta.chunks.iter().map(chunk).collect::<Result<_>>()?;
    Ok(Delta { chunks })
}

/// Adds the missing columns of a schema to rows: `added` has the values of its last ones. Rows that lack more columns
/// stay as they are; the table refuses them.
pub(crate) fn wider(rows: &RecordBatch, schema: &SchemaRef, added: &[ScalarValue]) -> Result<RecordBatch> {
    let (count, width) = (rows.num_rows(), rows.num_columns());
    let missing = schema.fields().len().saturating_sub(width);
    if missing == 0 || missing > added.len() {
        return Ok(rows.clone());
    }
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    for (field, value) in schema.fields().iter().skip(width).zip(&added[added.len() - missing..]) {
        if value.is_null() && !field.is_nullable() && count > 0 {
            let name = field.name();
            return Err(Error::invalid(format!(
                "column \"{name}\" is NOT NULL and has no default, and a row has no value for it"
            )));
        }
        columns.push(value.to_array_of_size(count).map_err(Error::from)?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(error::arrow)
}
