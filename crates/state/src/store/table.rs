//! Rows as a table, chunk by chunk, with a key per row from their owner.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use millstream_delta::Chunk;

use super::{Store, Stored};
use crate::{Error, Result};

/// The columns after those of the rows: the owner's key, the number of copies, and the stored number.
const NAMES: [&str; 3] = ["_key", "_weight", "_tally"];

/// The rows of such a table.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) rows: RecordBatch,
    /// The owner's key of each row.
    pub(crate) keys: Vec<i64>,
    pub(crate) counts: Vec<i64>,
    pub(crate) tallies: Vec<i64>,
}

impl Store {
    /// Calls `take` with the rows of some ids, each with its number, in the order of the ids. The input may
    /// have any order.
    fn by_chunk(
        &self,
        numbered: impl Iterator<Item = (u64, i64)>,
        mut take: impl FnMut(&Stored, RecordBatch, &[(u32, i64)]) -> Result<()>,
    ) -> Result<()> {
        let mut by_chunk: BTreeMap<usize, Vec<(u32, i64)>> = BTreeMap::new();
        for (id, number) in numbered {
            let (position, row) = self.locate(id);
            by_chunk.entry(position).or_default().push((row as u32, number));
        }
        for (position, mut rows) in by_chunk {
            let chunk = &self.chunks[position].chunk;
            rows.sort_unstable();
            // If the whole chunk is taken, nothing is copied.
            let batch = match rows.len() == chunk.rows.num_rows() {
                true => chunk.rows.clone(),
                false => {
                    let places = UInt32Array::from_iter_values(rows.iter().map(|(row, _)| *row));
                    take_record_batch(&chunk.rows, &places)?
                }
            };
            take(chunk, batch, &rows)?;
        }
        Ok(())
    }

    /// Returns the rows of some ids as a table, each with its key, in the order of the ids.
    pub(crate) fn told(&self, keyed: impl Iterator<Item = (u64, i64)>) -> Result<Vec<RecordBatch>> {
        let mut told = Vec::new();
        self.by_chunk(keyed, |chunk, rows, places| {
            let of = |number: fn(&Stored, usize) -> i64| -> Vec<i64> {
                places.iter().map(|(row, _)| number(chunk, *row as usize)).collect()
            };
            let keys = places.iter().map(|(_, key)| *key).collect();
            told.push(Told { rows, keys, counts: of(Stored::count), tallies: of(Stored::tally) });
            Ok(())
        })?;
        let tallied = told.iter().any(|told| told.tallies.iter().any(|tally| *tally != 0));
        let schema = told_schema(&self.schema, tallied);
        let batch = |Told { rows, keys, counts, tallies }: Told| {
            let numbers = [keys, counts].into_iter().chain(tallied.then_some(tallies));
            let mut columns = rows.columns().to_vec();
            columns.extend(numbers.map(|numbers| Arc::new(Int64Array::from(numbers)) as ArrayRef));
            Ok(RecordBatch::try_new(schema.clone(), columns)?)
        };
        told.into_iter().map(batch).collect()
    }

    /// Returns the rows of some ids with weights.
    pub(crate) fn weighted(&self, counted: impl Iterator<Item = (u64, i64)>) -> Result<Vec<Chunk>> {
        let mut chunks = Vec::new();
        self.by_chunk(counted, |_, rows, counts| {
            let plain = counts.iter().all(|(_, count)| *count == 1);
            let weights = (!plain).then(|| counts.iter().map(|(_, count)| *count).collect());
            chunks.push(Chunk { rows, weights });
            Ok(())
        })?;
        Ok(chunks)
    }
}

fn told_schema(schema: &Schema, tallied: bool) -> SchemaRef {
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    let numbers = NAMES.iter().take(if tallied { 3 } else { 2 });
    fields.extend(numbers.map(|name| Arc::new(Field::new(*name, DataType::Int64, false))));
    Arc::new(Schema::new(fields))
}

/// Decodes a batch of such a table, whose rows have this schema.
pub(crate) fn untold(batch: &RecordBatch, schema: &SchemaRef) -> Result<Told> {
    let count = schema.fields().len();
    let fields = batch.schema_ref().fields();
    let has = |at: usize| fields.get(count + at).is_some_and(|field| field.name() == NAMES[at]);
    let types = fields.iter().map(|field| field.data_type());
    let fits = types.take(count).eq(schema.fields().iter().map(|field| field.data_type()));
    if !fits || !has(0) || !has(1) || fields.len() != count + if has(2) { 3 } else { 2 } {
        let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        return Err(Error::Incomplete(format!("rows have other columns: {}", names.join(", "))));
    }
    let numbers = |at: usize| -> Result<Vec<i64>> {
        let numbers = batch.column(count + at).as_primitive_opt::<Int64Type>();
        let numbers = numbers.filter(|numbers| numbers.null_count() == 0);
        let missing = || Error::Incomplete(format!("a row has no number in column '{}'", NAMES[at]));
        Ok(numbers.ok_or_else(missing)?.values().to_vec())
    };
    let tallies = if has(2) { numbers(2)? } else { vec![0; batch.num_rows()] };
    let rows = RecordBatch::try_new(schema.clone(), batch.columns()[..count].to_vec());
    let rows = rows.map_err(|error: ArrowError| Error::Incomplete(error.to_string()))?;
    Ok(Told { rows, keys: numbers(0)?, counts: numbers(1)?, tallies })
}
/// Returns the columns of the rows in a table without stored numbers.
pub(crate) fn of_told(schema: &Schema) -> SchemaRef {
    let own = schema.fields().len().saturating_sub(2);
    Arc::new(Schema::new(schema.fields()[..own].to_vec()))
}
