//! Table providers over the rows of a snapshot.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use millstream_delta::under_schema;
use millstream_sql::{Error, Result};

use crate::error;
use crate::stamp::names_batch;

/// The number of rows below which a second partition costs more than it saves.
const PARTITION_ROWS_MIN: usize = 8 * 1024;

/// Creates a table over `batches` with the columns of `schema`, divided into at most `partitions` partitions.
/// If the batches also have hidden columns, finds the columns by name.
pub(crate) fn table(
    batches: &[RecordBatch],
    schema: &SchemaRef,
    partitions: usize,
) -> Result<Arc<dyn TableProvider>> {
    let width = schema.fields().len();
    let named = names_batch(schema);
    let total: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let partitions = partitions.min(total / PARTITION_ROWS_MIN).max(1);
    let mut parts: Vec<Vec<RecordBatch>> = vec![Vec::new(); partitions];
    let mut rows_before = 0;
    for batch in batches {
        let batch = match named || batch.num_columns() > width {
            true => batch.project(&places(batch, schema)?).map_err(error::arrow)?,
            false => batch.clone(),
        };
        let batch = under_schema(&batch, schema).map_err(error::arrow)?;
        let mut offset = 0;
        while offset < batch.num_rows() {
            let part = (rows_before * partitions / total.max(1)).min(partitions - 1);
            let part_end = ((part + 1) * total).div_ceil(partitions);
            let length = (batch.num_rows() - offset).min((part_end - rows_before).max(1));
            parts[part].push(batch.slice(offset, length));
            offset += length;
            rows_before += length;
        }
    }
    Ok(Arc::new(MemTable::try_new(schema.clone(), parts)?))
}

/// Returns the positions of the columns of `schema` in a batch.
fn places(batch: &RecordBatch, schema: &SchemaRef) -> Result<Vec<usize>> {
    let place = |name: &String| {
        batch.schema_ref().index_of(name).map_err(|_| {
            Error::invalid(format!("column \"{name}\" of a relation whose rows change")).hint(
                "Only append-only rows belong to a batch. Read its changes with CHANGES(…) FOR EACH BATCH.",
            )
        })
    };
    schema.fields().iter().map(|field| place(field.name())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};

    #[test]
    fn every_row_is_in_one_partition() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true)]));
        let batch = |rows: i64| {
            RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from_iter_values(0..rows))])
                .unwrap()
        };
        for sizes in [vec![], vec![1], vec![100_000], vec![3, 50_000, 7, 20_000]] {
            let batches: Vec<RecordBatch> = sizes.iter().map(|size| batch(*size)).collect();
            let table = table(&batches, &schema, 3).unwrap();
            let table: &dyn std::any::Any = table.as_ref();
            let table = table.downcast_ref::<MemTable>().unwrap();
            let rows: usize = table
                .batches
                .iter()
                .map(|part| part.try_read().unwrap().iter().map(RecordBatch::num_rows).sum::<usize>())
                .sum();
            assert_eq!(rows as i64, sizes.iter().sum::<i64>());
        }
    }
}
