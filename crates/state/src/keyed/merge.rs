//! Merging rows into those of their keys: NULL keeps the value that is there.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::interleave;

use super::{Conflict, Keyed};
use crate::Result;
use crate::key_index::NO_SLOT;

impl Keyed {
    /// Adds rows as [`Keyed::upsert`] does with [`Conflict::Merge`]. Returns each given row as its key has it from then
    /// on, or until the next row of the key. An error leaves the rows unchanged.
    pub fn merge(&mut self, rows: &RecordBatch) -> Result<RecordBatch> {
        Ok(self.add(rows, Conflict::Merge)?.0)
    }

    /// Returns the rows of a batch, where they have NULL with the value of the row before: an earlier row of the batch
    /// with that key, or else the existing one.
    pub(super) fn merged(&mut self, rows: RecordBatch, slots: &[u32]) -> Result<RecordBatch> {
        let earlier = self.earlier(slots);
        let mut ids = Vec::new();
        let mut existing = Vec::with_capacity(slots.len());
        for (slot, earlier) in slots.iter().zip(&earlier) {
            let id = self.row_of(*slot).filter(|_| *earlier == NO_SLOT);
            existing.push(id.map(|_| ids.len()));
            ids.extend(id);
        }
        if ids.is_empty() && earlier.iter().all(|row| *row == NO_SLOT) {
            return Ok(rows);
        }
        let old = self.store.gather(&ids)?;
        let columns = rows.columns().iter().zip(old.columns());
        let columns = columns.map(|(new, old)| merged_column(new, old, &earlier, &existing));
        let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        Ok(RecordBatch::try_new(rows.schema(), columns)?)
    }

    /// Returns, for each row of a batch, the last one before it with the same key, or [`NO_SLOT`].
    fn earlier(&mut self, slots: &[u32]) -> Vec<u32> {
        self.deciding.resize(self.keys.slots_end(), NO_SLOT);
        let mut earlier = Vec::with_capacity(slots.len());
        for (row, slot) in slots.iter().enumerate() {
            earlier.push(std::mem::replace(&mut self.deciding[*slot as usize], row as u32));
        }
        slots.iter().for_each(|slot| self.deciding[*slot as usize] = NO_SLOT);
        earlier
    }
}

/// Returns a column of new rows with earlier values instead of NULL. `earlier` has the row before of each row, and
/// `existing` its place in `old`.
fn merged_column(
    new: &ArrayRef,
    old: &ArrayRef,
    earlier: &[u32],
    existing: &[Option<usize>],
) -> Result<ArrayRef> {
    let Some(nulls) = new.logical_nulls().filter(|nulls| nulls.null_count() > 0) else {
        return Ok(new.clone());
    };
    let mut places: Vec<(usize, usize)> = Vec::with_capacity(earlier.len());
    for (row, (earlier, existing)) in earlier.iter().zip(existing).enumerate() {
        let place = match (*earlier, *existing) {
            _ if nulls.is_valid(row) => (0, row),
            (_, Some(old)) => (1, old),
            (NO_SLOT, None) => (0, row),
            (earlier, None) => places[earlier as usize],
        };
        places.push(place);
    }
    Ok(interleave(&[new.as_ref(), old.as_ref()], &places)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    type Row = (i64, Option<&'static str>, Option<i64>);

    fn batch(rows: &[Row]) -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("key", DataType::Int64, false),
            Field::new("name", DataType::Utf8, true),
            Field::new("number", DataType::Int64, true),
        ]);
        let keys = Int64Array::from_iter_values(rows.iter().map(|row| row.0));
        let names = StringArray::from_iter(rows.iter().map(|row| row.1));
        let numbers = Int64Array::from_iter(rows.iter().map(|row| row.2));
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(keys), Arc::new(names), Arc::new(numbers)])
            .unwrap()
    }

    fn rows(of: &RecordBatch) -> Vec<(i64, Option<String>, Option<i64>)> {
        let (keys, names) = (of.column(0).as_primitive::<Int64Type>(), of.column(1).as_string::<i32>());
        let numbers = of.column(2).as_primitive::<Int64Type>();
        let name = |row: usize| names.is_valid(row).then(|| names.value(row).to_string());
        let number = |row: usize| numbers.is_valid(row).then(|| numbers.value(row));
        (0..of.num_rows()).map(|row| (keys.value(row), name(row), number(row))).collect()
    }

    #[test]
    fn null_keeps_the_value_that_is_there_however_rows_are_batched() {
        let all: &[Row] = &[
            (1, Some("a"), None),
            (2, None, Some(20)),
            (1, None, Some(10)),
            (1, None, None),
            (2, Some("b"), None),
            (3, None, None),
            (1, Some("c"), None),
        ];
        let merged: &[Row] = &[
            (1, Some("a"), None),
            (2, None, Some(20)),
            (1, Some("a"), Some(10)),
            (1, Some("a"), Some(10)),
            (2, Some("b"), Some(20)),
            (3, None, None),
            (1, Some("c"), Some(10)),
        ];
        for size in 1..=all.len() {
            let mut keyed = Keyed::new(batch(&[]).schema(), vec![0]).unwrap();
            let mut left = Vec::new();
            for some in all.chunks(size) {
                left.extend(rows(&keyed.merge(&batch(some)).unwrap()));
            }
            assert_eq!(left, rows(&batch(merged)), "{size}");
            let content = keyed.snapshot().batches().unwrap();
            let mut content: Vec<_> = content.iter().flat_map(rows).collect();
            content.sort();
            let last: &[Row] = &[(1, Some("c"), Some(10)), (2, Some("b"), Some(20)), (3, None, None)];
            assert_eq!(content, rows(&batch(last)), "{size}");
        }
    }

    #[test]
    fn a_row_of_nulls_is_no_change() {
        let mut keyed = Keyed::new(batch(&[]).schema(), vec![0]).unwrap();
        keyed.upsert(&batch(&[(1, Some("a"), Some(1))]), Conflict::Merge).unwrap();
        assert!(keyed.upsert(&batch(&[(1, None, None)]), Conflict::Merge).unwrap().is_empty());
        let delta = keyed.upsert(&batch(&[(1, None, Some(2))]), Conflict::Merge).unwrap();
        assert_eq!(delta.num_rows(), 2);
    }
}
