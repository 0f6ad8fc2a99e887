//! Rows that came too late for a query: for windows that had closed.

use std::collections::VecDeque;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use millstream_flow::alone;
use millstream_sql::Result;

use crate::error;

/// What is kept a query; older rows are only counted.
const LATE_BYTES_MAX: usize = 16 << 20;

/// How many rows are kept, and given up, together.
const PIECE_ROWS: usize = 1024;

/// The newest late rows of a query, in the order in which they came.
#[derive(Debug)]
pub(crate) struct LateRows {
    schema: SchemaRef,
    pieces: VecDeque<RecordBatch>,
    bytes: usize,
}

impl LateRows {
    /// None so far, of these columns.
    pub(crate) fn new(schema: SchemaRef) -> LateRows {
        LateRows { schema, pieces: VecDeque::new(), bytes: 0 }
    }

    /// Their columns.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Keeps more of them, and gives up the oldest beyond the bound.
    pub(crate) fn add(&mut self, late: Vec<RecordBatch>) -> Result<()> {
        for rows in late.into_iter().filter(|rows| rows.num_rows() > 0) {
            let small = self.pieces.pop_back_if(|last| last.num_rows() + rows.num_rows() <= PIECE_ROWS);
            let rows = match small {
                Some(last) => {
                    self.bytes -= last.get_array_memory_size();
                    concat_batches(&self.schema, [&last, &rows]).map_err(error::arrow)?
                }
                None => rows,
            };
            for from in (0..rows.num_rows()).step_by(PIECE_ROWS) {
                let places = from as u32..rows.num_rows().min(from + PIECE_ROWS) as u32;
                let piece = take_record_batch(&rows, &UInt32Array::from_iter_values(places));
                let piece = piece.and_then(|piece| alone(&piece)).map_err(error::arrow)?;
                self.bytes += piece.get_array_memory_size();
                self.pieces.push_back(piece);
            }
        }
        while self.bytes > LATE_BYTES_MAX
            && let Some(oldest) = self.pieces.pop_front()
        {
            self.bytes -= oldest.get_array_memory_size();
        }
        Ok(())
    }

    /// Those that are kept.
    pub(crate) fn batches(&self) -> Vec<RecordBatch> {
        self.pieces.iter().cloned().collect()
    }

    /// How many bytes they take, about.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array, StringViewArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn the_newest_are_kept_in_their_order() {
        let rows = |from: i64, count: i64| {
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + count));
            let texts = (0..count).map(|n| format!("{n:_>100}"));
            let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
            RecordBatch::try_from_iter([("n", numbers), ("t", texts)]).unwrap()
        };
        let mut late = LateRows::new(rows(0, 0).schema());
        let mut next = 0;
        for count in (1..2000).chain([5000; 60]) {
            late.add(vec![rows(next, count)]).unwrap();
            next += count;
        }
        assert!(late.memory_bytes() <= LATE_BYTES_MAX && late.memory_bytes() > LATE_BYTES_MAX / 2);
        let kept: Vec<i64> = late
            .batches()
            .iter()
            .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec())
            .collect();
        assert!(kept.iter().copied().eq(next - kept.len() as i64..next));
    }
}
