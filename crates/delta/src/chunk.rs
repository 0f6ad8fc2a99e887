//! Rows with signed weights.

use std::borrow::Cow;

use arrow::array::{Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use crate::consolidate;

/// Rows that change a relation.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The rows.
    pub rows: RecordBatch,
    /// One weight per row: +n inserts n copies, -n deletes n. `None`: every row is +1, the append-only fast
    /// path. Never null.
    pub weights: Option<Int64Array>,
}

impl Chunk {
    /// Returns a chunk that inserts each row once.
    pub fn insert(rows: RecordBatch) -> Chunk {
        Chunk { rows, weights: None }
    }

    /// Returns a chunk that deletes each row once.
    pub fn delete(rows: RecordBatch) -> Chunk {
        let weights = Int64Array::from(vec![-1; rows.num_rows()]);
        Chunk { rows, weights: Some(weights) }
    }

    /// Returns the weight of row `row`.
    pub fn weight(&self, row: usize) -> i64 {
        self.weights.as_ref().map_or(1, |weights| weights.value(row))
    }

    /// Returns a range of the rows without copying them.
    pub fn slice(&self, from: usize, count: usize) -> Chunk {
        let weights = self.weights.as_ref().map(|weights| weights.slice(from, count));
        Chunk { rows: self.rows.slice(from, count), weights }
    }

    /// Returns the weights as an array. If the chunk has none, creates one.
    pub fn weights_or_ones(&self) -> Int64Array {
        self.weights.clone().unwrap_or_else(|| Int64Array::from(vec![1; self.rows.num_rows()]))
    }

    /// Returns the same rows with negated weights.
    pub fn negated(self) -> Chunk {
        let weights = match self.weights {
            Some(weights) => weights.unary(|weight| -weight),
            None => Int64Array::from(vec![-1; self.rows.num_rows()]),
        };
        Chunk { rows: self.rows, weights: Some(weights) }
    }

    /// Returns the rows with each positive weight written out as that many copies. Omits rows of weight zero
    /// or less.
    pub fn expand(&self) -> Result<RecordBatch, ArrowError> {
        let Some(weights) = &self.weights else { return Ok(self.rows.clone()) };
        if weights.values().iter().all(|weight| *weight == 1) {
            return Ok(self.rows.clone());
        }
        let mut indices = Vec::with_capacity(weights.len());
        for (row, weight) in weights.values().iter().enumerate() {
            indices.extend(std::iter::repeat_n(row as u32, (*weight).max(0) as usize));
        }
        if self.rows.num_columns() == 0 {
            // `take` has no columns to work on, and without columns only this option sets the number of rows.
            let options = RecordBatchOptions::new().with_row_count(Some(indices.len()));
            return RecordBatch::try_new_with_options(self.rows.schema(), Vec::new(), &options);
        }
        take_record_batch(&self.rows, &UInt32Array::from(indices))
    }
}

/// The change of one relation in one epoch: chunks of one schema, each bounded in rows.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    /// The chunks in the order in which they happened, which does not affect the result.
    pub chunks: Vec<Chunk>,
}

impl FromIterator<RecordBatch> for Delta {
    /// Returns a delta that inserts all rows of these batches.
    fn from_iter<T: IntoIterator<Item = RecordBatch>>(batches: T) -> Delta {
        let mut delta = Delta::default();
        batches.into_iter().for_each(|batch| delta.push(Chunk::insert(batch)));
        delta
    }
}

impl Delta {
    /// Returns a delta that inserts `rows`; empty if there are none.
    pub fn insert(rows: RecordBatch) -> Delta {
        Delta::of(Chunk::insert(rows))
    }

    /// Returns a delta of one chunk; empty if the chunk has no rows.
    pub fn of(chunk: Chunk) -> Delta {
        let mut delta = Delta::default();
        delta.push(chunk);
        delta
    }

    /// Adds a chunk unless it is empty.
    pub fn push(&mut self, chunk: Chunk) {
        if chunk.rows.num_rows() > 0 {
            self.chunks.push(chunk);
        }
    }

    /// Adds all chunks of `other`.
    pub fn append(&mut self, other: Delta) {
        self.chunks.extend(other.chunks);
    }

    /// Returns the same rows with negated weights: the change that undoes this one.
    pub fn negated(self) -> Delta {
        Delta { chunks: self.chunks.into_iter().map(Chunk::negated).collect() }
    }

    /// Returns true if the delta has no rows.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Returns true if every row is an insert of one copy.
    pub fn is_append_only(&self) -> bool {
        self.chunks.iter().all(|chunk| chunk.weights.is_none())
    }

    /// Returns the number of rows, whatever their weights.
    pub fn num_rows(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.rows.num_rows()).sum()
    }

    /// Returns the sum of the rows' weights.
    pub fn weight(&self) -> i64 {
        let of_chunk = |chunk: &Chunk| match &chunk.weights {
            None => chunk.rows.num_rows() as i64,
            Some(weights) => weights.values().iter().sum(),
        };
        self.chunks.iter().map(of_chunk).sum()
    }

    /// Returns the memory of its arrays in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.rows.get_array_memory_size()).sum()
    }

    /// Returns all chunks as one; `None` if the delta is empty.
    pub fn into_one(self, schema: &SchemaRef) -> Result<Option<Chunk>, ArrowError> {
        let mut chunks = self.chunks;
        if chunks.len() <= 1 {
            return Ok(chunks.pop());
        }
        let weights = if chunks.iter().all(|chunk| chunk.weights.is_none()) {
            None
        } else {
            let weights: Vec<i64> =
                chunks.iter().flat_map(|chunk| chunk.weights_or_ones().values().to_vec()).collect();
            Some(Int64Array::from(weights))
        };
        let rows = concat_batches(schema, chunks.iter().map(|chunk| &chunk.rows))?;
        Ok(Some(Chunk { rows, weights }))
    }

    /// Returns the rows with positive weights, and the rows with negative weights, negated.
    pub fn split_by_sign(&self) -> Result<(Delta, Delta), ArrowError> {
        let (mut inserts, mut deletes) = (Delta::default(), Delta::default());
        for chunk in &self.chunks {
            let Some(weights) = &chunk.weights else {
                inserts.push(chunk.clone());
                continue;
            };
            for (delta, sign) in [(&mut inserts, 1), (&mut deletes, -1)] {
                let mask =
                    weights.values().iter().map(|weight| weight.signum() == sign).collect::<Vec<_>>().into();
                let kept = arrow::compute::filter(weights, &mask)?;
                let kept: Int64Array =
                    arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(&kept)
                        .unary(|weight| weight * sign);
                delta.push(Chunk { rows: filter_record_batch(&chunk.rows, &mask)?, weights: Some(kept) });
            }
        }
        Ok((inserts, deletes))
    }

    /// Returns the changes of the first `count` columns. Changes of the other columns alone cancel each
    /// other.
    pub fn first_columns(&self, count: usize) -> Result<Cow<'_, Delta>, ArrowError> {
        let is_wide = |chunk: &Chunk| chunk.rows.num_columns() > count;
        if !self.chunks.iter().any(is_wide) {
            return Ok(Cow::Borrowed(self));
        }
        let columns: Vec<usize> = (0..count).collect();
        let cut = |chunk: &Chunk| {
            let rows = if is_wide(chunk) { chunk.rows.project(&columns)? } else { chunk.rows.clone() };
            Ok(Chunk { rows, weights: chunk.weights.clone() })
        };
        let chunks = self.chunks.iter().map(cut).collect::<Result<Vec<_>, ArrowError>>()?;
        let cut = Delta { chunks };
        let sum = match cut.chunks.first().filter(|_| !cut.is_append_only()) {
            // Rows of an incomparable type stay unconsolidated: the sum is the same.
            Some(first) => consolidate(cut.clone(), &first.rows.schema()).unwrap_or(cut),
            None => cut,
        };
        Ok(Cow::Owned(sum))
    }

    /// Returns the same changes under another schema of the same shape (other names, other metadata).
    pub fn with_schema(self, schema: &SchemaRef) -> Result<Delta, ArrowError> {
        let mut delta = Delta::default();
        for chunk in self.chunks {
            delta.push(Chunk { rows: under_schema(&chunk.rows, schema)?, weights: chunk.weights });
        }
        Ok(delta)
    }
}

/// Returns the columns of `batch` under a schema of the same shape: other names, metadata or nullability.
pub fn under_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), batch.columns().to_vec(), &options)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::ArrayRef;
    use arrow::datatypes::Schema;

    use super::*;

    #[test]
    fn of_first_columns_only_what_changes_in_them_is_left() {
        let column = |values: [i64; 2]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
        let rows = |a, b| RecordBatch::try_from_iter([("a", column(a)), ("b", column(b))]).unwrap();
        let mut delta = Delta::insert(rows([1, 2], [3, 4]));
        let all = delta.first_columns(2).unwrap();
        assert!(matches!(all, Cow::Borrowed(_)));
        assert_eq!(delta.first_columns(1).unwrap().chunks[0].rows.num_columns(), 1);
        delta.push(Chunk::delete(rows([1, 7], [0, 4])));
        let cut = delta.first_columns(1).unwrap().into_owned();
        let [chunk] = &cut.chunks[..] else { panic!("{cut:?}") };
        assert_eq!(chunk.rows.column(0).to_data(), column([2, 7]).to_data());
        assert_eq!(chunk.weights_or_ones().values(), &[1, -1]);
    }

    #[test]
    fn rows_without_columns_expand_to_their_number() {
        let options = RecordBatchOptions::new().with_row_count(Some(4));
        let rows =
            RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options).unwrap();
        let expanded = |weights: Option<Vec<i64>>| {
            let chunk = Chunk { rows: rows.clone(), weights: weights.map(Int64Array::from) };
            chunk.expand().unwrap().num_rows()
        };
        assert_eq!(expanded(None), 4);
        assert_eq!(expanded(Some(vec![1, 1, 1, 1])), 4);
        assert_eq!(expanded(Some(vec![2, -1, 0, 3])), 5);
        assert_eq!(expanded(Some(vec![-1, -1, -1, -1])), 0);
        let (inserts, deletes) =
            Delta::of(Chunk { rows: rows.clone(), weights: Some(vec![2, -1, 0, 3].into()) })
                .split_by_sign()
                .unwrap();
        let counts = |delta: &Delta| delta.chunks[0].expand().unwrap().num_rows();
        assert_eq!((counts(&inserts), counts(&deletes)), (5, 1));
    }
}
