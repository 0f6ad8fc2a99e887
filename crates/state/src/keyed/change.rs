//! Changes by key in order of arrival: rows that are inserted or replace another, and keys that are deleted.

use arrow::array::{BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use millstream_delta::{Chunk, Delta};

use super::{Conflict, Keyed, NO_ROW};
use crate::Result;
use crate::key_index::NO_SLOT;

/// The result of changes by key.
#[derive(Debug)]
pub struct Changed {
    /// The net change of the batch: old rows deleted, new ones inserted.
    pub delta: Delta,
    /// The rows of the batch that were to delete a key that did not exist at that point.
    pub missing: Vec<u32>,
}

/// The decision for each key of a batch.
struct Decided {
    /// Rows of the batch to put, each with its slot.
    put: Vec<(u32, u32)>,
    /// Slots whose rows are deleted.
    gone: Vec<u32>,
    missing: Vec<u32>,
}

impl Keyed {
    /// Applies changes, one per row, in order. If `goes` is true, deletes the row with this key, whatever the
    /// other columns contain; else inserts the row, or replaces the one with its key. An error leaves the
    /// rows unchanged.
    pub fn change(&mut self, rows: &RecordBatch, goes: &BooleanArray) -> Result<Changed> {
        if goes.true_count() == 0 {
            return Ok(Changed { delta: self.upsert(rows, Conflict::Replace)?, missing: Vec::new() });
        }
        let keys = self.key_arrays(rows);
        self.check_not_null(&keys)?;
        let mut slots = Vec::with_capacity(rows.num_rows());
        let new = self.keys.slots(&keys, &mut slots)?;
        self.rows.resize(self.keys.slots_end(), NO_ROW);
        let decided = self.decide_changes(&slots, goes);
        let changed = self.carry_out(rows, decided);
        // A key that arrived with this batch and has no row was to be deleted, or the batch has failed.
        for slot in new.into_iter().filter(|slot| self.rows[*slot as usize] == NO_ROW) {
            self.keys.free(slot);
        }
        changed
    }

    /// Plays the changes of each key; the last one decides.
    fn decide_changes(&mut self, slots: &[u32], goes: &BooleanArray) -> Decided {
        self.deciding.resize(self.keys.slots_end(), NO_SLOT);
        let mut missing = Vec::new();
        for (row, slot) in slots.iter().enumerate() {
            let there = match self.deciding[*slot as usize] {
                NO_SLOT => self.rows[*slot as usize] != NO_ROW,
                last => !goes.value(last as usize),
            };
            if goes.value(row) && !there {
                missing.push(row as u32);
            } else {
                self.deciding[*slot as usize] = row as u32;
            }
        }
        let (mut put, mut gone) = (Vec::new(), Vec::new());
        for (row, slot) in slots.iter().enumerate() {
            if self.deciding[*slot as usize] != row as u32 {
            } else if !goes.value(row) {
                put.push((row as u32, *slot));
            } else if self.rows[*slot as usize] != NO_ROW {
                gone.push(*slot);
            }
        }
        slots.iter().for_each(|slot| self.deciding[*slot as usize] = NO_SLOT);
        Decided { put, gone, missing }
    }

    fn carry_out(&mut self, rows: &RecordBatch, decided: Decided) -> Result<Changed> {
        let Decided { put, gone, missing } = decided;
        let places = UInt32Array::from_iter_values(put.iter().map(|(row, _)| *row));
        let coming = take_record_batch(rows, &places)?;
        let coming = RecordBatch::try_new(self.schema().clone(), coming.columns().to_vec())?;
        let put = put.into_iter().enumerate().map(|(place, (_, slot))| (place as u32, slot)).collect();
        let put = self.without_unchanged(&coming, put)?;
        let ids: Vec<u64> = gone.iter().filter_map(|slot| self.row_of(*slot)).collect();
        let mut delta = Delta::of(Chunk::delete(self.store.gather(&ids)?));
        // Fallible steps come first.
        delta.append(self.put(&coming, &put)?);
        for slot in gone {
            self.rows[slot as usize] = NO_ROW;
            self.keys.free(slot);
        }
        self.remove(&ids);
        Ok(Changed { delta, missing })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use millstream_seeds::Random;

    use super::*;
    use crate::Error;

    fn batch(changes: &[(i64, Option<&str>)]) -> (RecordBatch, BooleanArray) {
        let fields = |nullable| {
            vec![Field::new("key", DataType::Int64, false), Field::new("value", DataType::Utf8, nullable)]
        };
        let keys = Int64Array::from_iter_values(changes.iter().map(|(key, _)| *key));
        let values = StringArray::from_iter(changes.iter().map(|(_, value)| *value));
        let schema = Arc::new(Schema::new(fields(true)));
        let rows = RecordBatch::try_new(schema, vec![Arc::new(keys), Arc::new(values)]).unwrap();
        (rows, changes.iter().map(|(_, value)| Some(value.is_none())).collect())
    }

    fn keyed() -> Keyed {
        let schema = Schema::new(vec![
            Field::new("key", DataType::Int64, false),
            Field::new("value", DataType::Utf8, false),
        ]);
        Keyed::new(Arc::new(schema), vec![0]).unwrap()
    }

    type Rows = BTreeMap<(i64, String), i64>;

    fn add(rows: &mut Rows, delta: &Delta) {
        for chunk in &delta.chunks {
            let keys = chunk.rows.column(0).as_primitive::<Int64Type>();
            let values = chunk.rows.column(1).as_string::<i32>();
            for row in 0..chunk.rows.num_rows() {
                *rows.entry((keys.value(row), values.value(row).to_string())).or_default() +=
                    chunk.weight(row);
            }
        }
        rows.retain(|_, weight| *weight != 0);
    }

    fn change(keyed: &mut Keyed, changes: &[(i64, Option<&str>)]) -> (Rows, Vec<u32>) {
        let (rows, goes) = batch(changes);
        let Changed { delta, missing } = keyed.change(&rows, &goes).unwrap();
        let mut sum = Rows::new();
        add(&mut sum, &delta);
        (sum, missing)
    }

    fn rows(rows: &[(i64, &str, i64)]) -> Rows {
        rows.iter().map(|(key, value, weight)| ((*key, value.to_string()), *weight)).collect()
    }

    #[test]
    fn the_order_of_changes_decides() {
        let mut keyed = keyed();
        let (delta, missing) =
            change(&mut keyed, &[(1, Some("a")), (1, None), (1, Some("b")), (2, Some("c"))]);
        assert_eq!((delta, missing), (rows(&[(1, "b", 1), (2, "c", 1)]), vec![]));
        let (delta, missing) =
            change(&mut keyed, &[(1, None), (1, None), (3, None), (2, Some("d")), (2, None)]);
        assert_eq!((delta, missing), (rows(&[(1, "b", -1), (2, "c", -1)]), vec![1, 2]));
        assert_eq!((keyed.num_rows(), keyed.keys.len()), (0, 0));
        let (delta, missing) = change(&mut keyed, &[(1, None), (1, Some("e")), (4, Some("f")), (4, None)]);
        assert_eq!((delta, missing), (rows(&[(1, "e", 1)]), vec![0]));
        assert_eq!(keyed.keys.len(), 1);
    }

    #[test]
    fn a_row_that_goes_and_comes_back_changes_nothing() {
        let mut keyed = keyed();
        change(&mut keyed, &[(1, Some("a"))]);
        assert_eq!(change(&mut keyed, &[(1, None), (1, Some("a"))]), (rows(&[]), vec![]));
    }

    #[test]
    fn a_batch_that_fails_changes_nothing() {
        let mut keyed = keyed();
        change(&mut keyed, &[(1, Some("a"))]);
        let (rows, _) = batch(&[(1, None), (2, None)]);
        // The second row is an insert, but lacks a value in a column that needs one.
        let error = keyed.change(&rows, &BooleanArray::from(vec![true, false])).unwrap_err();
        assert!(matches!(error, Error::Arrow(_)), "{error}");
        assert_eq!((keyed.num_rows(), keyed.keys.len()), (1, 1));
        assert_eq!(change(&mut keyed, &[(2, None), (1, None)]).1, vec![0]);
    }

    /// Compares random changes in random batches with a map.
    #[test]
    fn changes_are_as_those_of_a_map() {
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let mut next = |below| random.below(below);
        let (mut keyed, mut model, mut sum) = (keyed(), BTreeMap::<i64, String>::new(), Rows::new());
        for _ in 0..300 {
            let changes: Vec<(i64, Option<String>)> = (0..next(20))
                .map(|_| (next(12) as i64, (next(3) > 0).then(|| next(3).to_string())))
                .collect();
            let mut expected = Vec::new();
            for (place, (key, value)) in changes.iter().enumerate() {
                match value {
                    Some(value) => drop(model.insert(*key, value.clone())),
                    None if model.remove(key).is_none() => expected.push(place as u32),
                    None => {}
                }
            }
            let changes: Vec<(i64, Option<&str>)> =
                changes.iter().map(|(key, value)| (*key, value.as_deref())).collect();
            let (rows, goes) = batch(&changes);
            let Changed { delta, missing } = keyed.change(&rows, &goes).unwrap();
            assert_eq!(missing, expected);
            add(&mut sum, &delta);
            let now: Rows = model.iter().map(|(key, value)| ((*key, value.clone()), 1)).collect();
            assert_eq!(sum, now);
            assert_eq!((keyed.num_rows(), keyed.keys.len()), (model.len(), model.len()));
        }
    }
}
