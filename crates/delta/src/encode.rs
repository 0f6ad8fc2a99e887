//! Rows as comparable bytes, and deltas with one row per distinct change.

use arrow::array::{Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

use crate::{Chunk, Delta};

/// The seed of every hash that determines an order or a shard, so that runs are reproducible.
const HASH_SEED: u64 = 0x6d69_6c6c;

/// Encodes rows as bytes that are equal exactly if the rows are, bit for bit.
#[derive(Debug)]
pub struct RowEncoder {
    converter: RowConverter,
    hasher: FixedState,
}

impl RowEncoder {
    /// Returns an encoder for rows of `schema`; fails for types without a row encoding.
    pub fn new(schema: &SchemaRef) -> Result<RowEncoder, ArrowError> {
        let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        Ok(RowEncoder { converter: RowConverter::new(fields)?, hasher: FixedState::with_seed(HASH_SEED) })
    }

    /// Encodes the rows of `batch`.
    pub fn encode(&self, batch: &RecordBatch) -> Result<Rows, ArrowError> {
        if batch.num_columns() == 0 {
            // Without columns arrow-row can't determine the number of rows; each row is the empty row.
            let mut rows = self.converter.empty_rows(batch.num_rows(), 0);
            let one = self.converter.convert_columns(&[])?;
            for _ in 0..batch.num_rows() {
                if one.num_rows() > 0 {
                    rows.push(one.row(0));
                }
            }
            return Ok(rows);
        }
        self.converter.convert_columns(batch.columns())
    }

    /// Returns the hash of one encoded row; it is the same in every run.
    pub fn hash(&self, row: &[u8]) -> u64 {
        self.hasher.hash_one(row)
    }
}

/// Returns the same changes with one row per distinct row and no weight of zero, in the order of first
/// appearance.
pub fn consolidate(delta: Delta, schema: &SchemaRef) -> Result<Delta, ArrowError> {
    let Some(chunk) = delta.into_one(schema)? else { return Ok(Delta::default()) };
    if schema.fields().is_empty() {
        return consolidate_without_columns(&chunk, schema);
    }
    let encoder = RowEncoder::new(schema)?;
    let rows = encoder.encode(&chunk.rows)?;
    let mut first: Vec<u32> = Vec::new();
    let mut sums: Vec<i64> = Vec::new();
    let mut table: HashTable<u32> = HashTable::new();
    for row in 0..chunk.rows.num_rows() {
        let bytes = rows.row(row);
        let hash = encoder.hash(bytes.as_ref());
        let entry = table.entry(
            hash,
            |group| rows.row(first[*group as usize] as usize) == bytes,
            |group| encoder.hash(rows.row(first[*group as usize] as usize).as_ref()),
        );
        match entry {
            hashbrown::hash_table::Entry::Occupied(group) => sums[*group.get() as usize] += chunk.weight(row),
            hashbrown::hash_table::Entry::Vacant(vacant) => {
                vacant.insert(first.len() as u32);
                first.push(row as u32);
                sums.push(chunk.weight(row));
            }
        }
    }
    let kept: Vec<usize> = (0..first.len()).filter(|group| sums[*group] != 0).collect();
    let indices = UInt32Array::from_iter_values(kept.iter().map(|group| first[*group]));
    let weights = Int64Array::from_iter_values(kept.iter().map(|group| sums[*group]));
    let weights = if weights.values().iter().all(|weight| *weight == 1) { None } else { Some(weights) };
    Ok(Delta::of(Chunk { rows: take_record_batch(&chunk.rows, &indices)?, weights }))
}

fn consolidate_without_columns(chunk: &Chunk, schema: &SchemaRef) -> Result<Delta, ArrowError> {
    let sum: i64 = chunk.weights_or_ones().values().iter().sum();
    if sum == 0 {
        return Ok(Delta::default());
    }
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let rows = RecordBatch::try_new_with_options(schema.clone(), Vec::new(), &options)?;
    Ok(Delta::of(Chunk { rows, weights: (sum != 1).then(|| Int64Array::from(vec![sum])) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;

    #[test]
    fn opposite_changes_cancel_and_copies_add_up() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![
            Field::new("word", DataType::Utf8, true),
            Field::new("x", DataType::Float64, true),
        ]));
        let rows = |words: Vec<Option<&str>>, x: Vec<f64>| {
            RecordBatch::try_new(
                schema.clone(),
                vec![Arc::new(StringArray::from(words)), Arc::new(Float64Array::from(x))],
            )
            .expect("columns fit the schema")
        };
        let mut delta = Delta::insert(rows(vec![Some("a"), None, Some("a")], vec![1.0, f64::NAN, 1.0]));
        delta.push(Chunk::delete(rows(vec![None, Some("b")], vec![f64::NAN, 2.0])));
        let delta = consolidate(delta, &schema).expect("rows of these types encode");
        let chunk = &delta.chunks[0];
        assert_eq!(chunk.rows, rows(vec![Some("a"), Some("b")], vec![1.0, 2.0]));
        assert_eq!(chunk.weights_or_ones().values(), &[2, -1]);
    }
}
