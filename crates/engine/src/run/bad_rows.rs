//! Bad rows: records of a source that could not be decoded.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryViewArray, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Int64Type};
use millstream_connect::BadRow;
use millstream_sql::Result;
use millstream_state::Tables;

use crate::catalog::bad_rows_schema;
use crate::error;

/// Most bad rows, and most of their bytes, kept for each source. Older ones are only counted.
const BAD_ROWS_MAX: usize = 10_000;
const BAD_ROW_BYTES_MAX: usize = 16 << 20;

/// The bad rows of one source: a count of all, and the newest ones.
#[derive(Debug, Default)]
pub(crate) struct BadRows {
    count: u64,
    kept: VecDeque<BadRow>,
    kept_bytes: usize,
    /// Rows that queries over the bad rows have not received yet.
    fresh: Vec<BadRow>,
}

impl BadRows {
    /// Adds rows that have just arrived.
    pub(crate) fn receive(&mut self, rows: Vec<BadRow>) {
        self.fresh.extend(rows.iter().cloned());
        self.add(rows);
    }

    /// Takes the rows that have arrived since the last call, in the form of [`BadRows::batch`].
    pub(crate) fn take_fresh(&mut self) -> Result<Option<RecordBatch>> {
        let fresh = std::mem::take(&mut self.fresh);
        if fresh.is_empty() { Ok(None) } else { batch_of(fresh.iter()).map(Some) }
    }

    /// Keeps and counts more rows.
    pub(crate) fn add(&mut self, rows: Vec<BadRow>) {
        self.count += rows.len() as u64;
        self.kept_bytes += rows.iter().map(|row| row.bytes.len()).sum::<usize>();
        self.kept.extend(rows);
        while (self.kept.len() > BAD_ROWS_MAX || self.kept_bytes > BAD_ROW_BYTES_MAX)
            && let Some(oldest) = self.kept.pop_front()
        {
            self.kept_bytes -= oldest.bytes.len();
        }
    }

    /// Saves the kept rows and the count.
    pub(crate) fn save(&self) -> Result<Tables> {
        let mut all = Tables::default();
        all.put_number("count", self.count as i64);
        all.put("rows", vec![self.batch()?]);
        Ok(all)
    }

    /// Loads the saved rows and count.
    pub(crate) fn load(&mut self, all: &mut Tables) -> Result<()> {
        let schema = bad_rows_schema();
        let types: Vec<DataType> = schema.fields().iter().map(|field| field.data_type().clone()).collect();
        let columns = all.take_columns("rows", &types).map_err(error::state)?;
        let (splits, offsets) = (columns[0].as_string_view(), columns[1].as_primitive::<Int64Type>());
        let (reasons, bytes) = (columns[2].as_string_view(), columns[3].as_binary_view());
        let row = |row: usize| BadRow {
            split: splits.value(row).into(),
            offset: offsets.value(row) as u64,
            reason: reasons.value(row).to_string(),
            bytes: bytes.value(row).to_vec(),
        };
        self.add((0..offsets.len()).map(row).collect());
        self.count = all.take_number("count").map_err(error::state)? as u64;
        Ok(())
    }

    /// Returns true if older rows were dropped.
    pub(crate) fn has_lost(&self) -> bool {
        self.count > self.kept.len() as u64
    }

    /// Returns the number of all bad rows, kept or dropped.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Returns the kept rows, as rows of [`bad_rows_schema`].
    pub(crate) fn batch(&self) -> Result<RecordBatch> {
        batch_of(self.kept.iter())
    }
}

fn batch_of<'a>(rows: impl Iterator<Item = &'a BadRow> + Clone) -> Result<RecordBatch> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter_values(rows.clone().map(|row| row.split.as_ref()))),
        Arc::new(Int64Array::from_iter_values(rows.clone().map(|row| row.offset as i64))),
        Arc::new(StringViewArray::from_iter_values(rows.clone().map(|row| row.reason.as_str()))),
        Arc::new(BinaryViewArray::from_iter_values(rows.map(|row| row.bytes.as_slice()))),
    ];
    RecordBatch::try_new(bad_rows_schema(), columns).map_err(error::arrow)
}
