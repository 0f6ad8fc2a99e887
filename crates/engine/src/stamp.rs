//! The hidden columns with the batch of a row: `_batch_id`, `_batch_time`, `_batch_start`.
//!
//! Rows carry them only for readers that need them. They are constants of the cut that the rows came with.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use millstream_delta::{Chunk, Cut, Delta, Epoch, Timestamp};
use millstream_sql::{Error, Result, hide_field};

use crate::error;

/// The columns in their order.
const COLUMNS: [&str; 3] = ["_batch_id", "_batch_time", "_batch_start"];

/// The batch of some rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// The epoch that closed it.
    pub(crate) id: Epoch,
    /// Its end.
    pub(crate) time: Timestamp,
    /// The end of the previous batch.
    pub(crate) start: Timestamp,
}

impl From<&Cut> for Batch {
    fn from(cut: &Cut) -> Batch {
        Batch { id: cut.epoch, time: cut.now, start: cut.started }
    }
}

/// Returns the schema of a streaming relation with the hidden columns of the batch appended. Columns with one
/// of these names stay as they are.
pub(crate) fn stamped(schema: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    for name in COLUMNS {
        if schema.index_of(name).is_err() {
            let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into()));
            let kind = if name == COLUMNS[0] { DataType::Int64 } else { time };
            fields.push(hide_field(Field::new(name, kind, false)));
        }
    }
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Returns true if these columns, as a query sees them, include one of the batch.
pub(crate) fn names_batch(columns: &Schema) -> bool {
    columns.fields().iter().any(|field| COLUMNS.contains(&field.name().as_str()))
}

/// Returns the rows with the additional columns of `schema`.
pub(crate) fn stamp(rows: &RecordBatch, batch: Batch, schema: &SchemaRef) -> Result<RecordBatch> {
    let count = rows.num_rows();
    let time = |time: Timestamp| -> ArrayRef {
        let nanos = time.0.saturating_mul(1000);
        Arc::new(TimestampNanosecondArray::from_value(nanos, count).with_timezone("+00:00"))
    };
    let mut columns = rows.columns().to_vec();
    for field in schema.fields().iter().skip(columns.len()) {
        columns.push(match COLUMNS.iter().position(|name| name == field.name()) {
            Some(0) => Arc::new(Int64Array::from_value(batch.id.0 as i64, count)),
            Some(1) => time(batch.time),
            Some(_) => time(batch.start),
            None => return Err(Error::bug(format!("\"{}\" is no column of a batch", field.name()))),
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(error::arrow)
}

/// Adds the columns of the batch to all rows of a delta.
pub(crate) fn stamp_all(delta: &Delta, batch: Batch, schema: &SchemaRef) -> Result<Delta> {
    let mut stamped = Delta::default();
    for chunk in &delta.chunks {
        stamped.push(Chunk { rows: stamp(&chunk.rows, batch, schema)?, weights: chunk.weights.clone() });
    }
    Ok(stamped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_sql::is_hidden;

    #[test]
    fn rows_get_the_columns_that_are_missing() {
        let columns =
            vec![Field::new("x", DataType::Int64, true), Field::new("_batch_id", DataType::Utf8, true)];
        let plain: SchemaRef = Arc::new(Schema::new(columns));
        let full = stamped(&plain);
        let names: Vec<&str> = full.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["x", "_batch_id", "_batch_time", "_batch_start"]);
        assert_eq!(full.fields().iter().filter(|field| is_hidden(field)).count(), 2);
        assert!(names_batch(&full) && names_batch(&plain));
        let rows = RecordBatch::new_empty(plain);
        let batch = Batch { id: Epoch(3), time: Timestamp(20), start: Timestamp(10) };
        assert_eq!(stamp(&rows, batch, &full).unwrap().schema(), full);
    }
}
