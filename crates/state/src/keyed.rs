//! A set of rows with one row per key.

mod change;
mod merge;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use millstream_delta::{Chunk, Delta, RowEncoder};

use crate::key_index::{KeyIndex, NO_SLOT};
use crate::store::{AddColumns, RowsSnapshot, Store};
use crate::{Error, Paged, Result, Spillable, Spilling, Tables};
pub use change::Changed;

/// The id of a missing row.
const NO_ROW: u64 = u64::MAX;

/// The treatment of a row whose key exists already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// It replaces the existing row.
    Replace,
    /// Its values replace those of the existing row, except where it has NULL.
    Merge,
    /// It is dropped.
    Keep,
    /// It is an error, and no row of its batch is added.
    Fail,
}

/// Rows of one schema, at most one per key.
///
/// Keys are equal as in [`KeyIndex`], except that no key may contain NULL.
#[derive(Debug)]
pub struct Keyed {
    store: Store,
    key_columns: Vec<usize>,
    keys: KeyIndex,
    /// The id of each slot's row.
    rows: Paged<u64>,
    /// For each slot, the last row of the current batch that decides its content; all [`NO_SLOT`] between
    /// batches.
    deciding: Paged<u32>,
    encoder: Option<RowEncoder>,
}

impl Keyed {
    /// Returns an empty set. The columns at these indices, at least one, form the key.
    pub fn new(schema: SchemaRef, key_columns: Vec<usize>) -> Result<Keyed> {
        let types = key_columns.iter().map(|column| schema.field(*column).data_type().clone()).collect();
        // Rows of types without an encoding count as changed whenever they arrive again.
        let encoder = RowEncoder::new(&schema).ok();
        Ok(Keyed {
            keys: KeyIndex::new(types)?,
            store: Store::new(schema),
            key_columns,
            rows: Paged::default(),
            deciding: Paged::default(),
            encoder,
        })
    }

    /// Returns the schema of the rows.
    pub fn schema(&self) -> &SchemaRef {
        self.store.schema()
    }

    /// Returns the rows with additional columns at their end, which `add` adds to a batch, for [`Keyed::replace`].
    /// Takes time in proportion to the new values.
    pub fn with_columns(&self, schema: &SchemaRef, add: &AddColumns<'_>) -> Result<Store> {
        Ok(self.store.with_columns(schema, add)?)
    }

    /// Replaces the rows by the same ones with additional columns.
    pub fn replace(&mut self, store: Store) {
        self.encoder = RowEncoder::new(store.schema()).ok();
        self.store = store;
    }

    /// Returns the indices of the key's columns.
    pub fn key_columns(&self) -> &[usize] {
        &self.key_columns
    }

    /// Returns the number of rows.
    pub fn num_rows(&self) -> usize {
        self.store.copies() as usize
    }

    /// Returns the approximate memory of the rows and their index in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.store.memory_bytes()
            + self.keys.memory_bytes()
            + self.rows.memory_bytes()
            + self.deciding.memory_bytes()
    }

    /// Returns a snapshot of the rows in constant time; later changes copy the chunks they touch.
    pub fn snapshot(&self) -> RowsSnapshot {
        self.store.snapshot()
    }

    /// Adds the changes since the newest checkpoint as a table, or all rows if the checkpoint holds the
    /// complete state.
    pub fn save_changed(&self, name: &str, to: &mut Tables) -> Result<()> {
        self.store.save_run(&self.store.marks().run(), None, name, to);
        Ok(())
    }

    /// Returns the ids of the rows with these keys (one array per key column), for [`Keyed::gather`] until
    /// the next change.
    pub fn lookup(&self, keys: &[ArrayRef]) -> Result<Vec<Option<u64>>> {
        let mut slots = Vec::new();
        self.keys.find(keys, &mut slots)?;
        Ok(slots.into_iter().map(|slot| self.row_of(slot)).collect())
    }

    /// Returns the next id: no later row has a smaller one.
    pub fn next_id(&self) -> u64 {
        self.store.next_id()
    }

    /// Returns the rows with these ids, in that order.
    pub fn gather(&self, ids: &[u64]) -> Result<RecordBatch> {
        Ok(self.store.gather(ids)?)
    }

    /// Adds rows and returns the changes: old rows deleted, new ones inserted, nothing for a row that exists
    /// unchanged. If a batch repeats a key, the last row counts for [`Conflict::Replace`], the first for
    /// [`Conflict::Keep`], and all of them in order for [`Conflict::Merge`]. An error leaves the rows unchanged.
    pub fn upsert(&mut self, rows: &RecordBatch, on_conflict: Conflict) -> Result<Delta> {
        Ok(self.add(rows, on_conflict)?.1)
    }

    /// Returns the rows with the values that [`Conflict::Merge`] keeps, and the changes.
    fn add(&mut self, rows: &RecordBatch, on_conflict: Conflict) -> Result<(RecordBatch, Delta)> {
        let rows = RecordBatch::try_new(self.schema().clone(), rows.columns().to_vec())?;
        let keys = self.key_arrays(&rows);
        self.check_not_null(&keys)?;
        let mut slots = Vec::with_capacity(rows.num_rows());
        let new = self.keys.slots(&keys, &mut slots)?;
        self.rows.resize(self.keys.slots_end(), NO_ROW);
        let changed = self.apply(rows, &slots, on_conflict);
        if changed.is_err() {
            // A key that arrived with this batch has no row.
            new.iter().for_each(|slot| self.keys.free(*slot));
        }
        changed
    }

    fn apply(
        &mut self,
        rows: RecordBatch,
        slots: &[u32],
        on_conflict: Conflict,
    ) -> Result<(RecordBatch, Delta)> {
        let rows = match on_conflict {
            Conflict::Merge => self.merged(rows, slots)?,
            Conflict::Replace | Conflict::Keep | Conflict::Fail => rows,
        };
        let decided = self.decide(slots, on_conflict)?;
        let decided = self.without_unchanged(&rows, decided)?;
        let delta = self.put(&rows, &decided)?;
        Ok((rows, delta))
    }

    /// Returns the id of the row in a slot, if there is one.
    fn row_of(&self, slot: u32) -> Option<u64> {
        self.rows.get(slot).copied().filter(|id| *id != NO_ROW)
    }

    /// Deletes the rows that have the keys of `rows`, whatever their other columns contain, and returns the
    /// changes. Missing keys change nothing. An error leaves the rows unchanged.
    pub fn delete(&mut self, rows: &RecordBatch) -> Result<Delta> {
        self.delete_keys(&self.key_arrays(rows))
    }

    /// Like [`Keyed::delete`], for keys given as one array per key column.
    pub fn delete_keys(&mut self, keys: &[ArrayRef]) -> Result<Delta> {
        let mut slots = Vec::new();
        self.keys.find(keys, &mut slots)?;
        let (mut gone, mut ids) = (Vec::new(), Vec::new());
        for slot in slots.into_iter().filter(|slot| *slot != NO_SLOT) {
            let id = std::mem::replace(&mut self.rows[slot as usize], NO_ROW);
            if id != NO_ROW {
                gone.push(slot);
                ids.push(id);
            }
        }
        let old = match self.store.gather(&ids) {
            Ok(old) => old,
            Err(error) => {
                gone.iter().zip(&ids).for_each(|(slot, id)| self.rows[*slot as usize] = *id);
                return Err(error.into());
            }
        };
        gone.iter().for_each(|slot| self.keys.free(*slot));
        self.remove(&ids);
        Ok(Delta::of(Chunk::delete(old)))
    }

    fn key_arrays(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        self.key_columns.iter().map(|column| rows.column(*column).clone()).collect()
    }

    fn check_not_null(&self, keys: &[ArrayRef]) -> Result<()> {
        for (key, column) in keys.iter().zip(&self.key_columns) {
            let Some(nulls) = key.logical_nulls().filter(|nulls| nulls.null_count() > 0) else { continue };
            let row = (0..nulls.len()).find(|row| nulls.is_null(*row)).unwrap_or(0);
            return Err(Error::NullKey { column: self.schema().field(*column).name().clone(), row });
        }
        Ok(())
    }

    /// Returns the rows of a batch to put, each with its slot, in order.
    fn decide(&mut self, slots: &[u32], on_conflict: Conflict) -> Result<Vec<(u32, u32)>> {
        self.deciding.resize(self.keys.slots_end(), NO_SLOT);
        let mut failed = None;
        for (row, slot) in slots.iter().enumerate() {
            let deciding = &mut self.deciding[*slot as usize];
            let taken = *deciding != NO_SLOT || self.rows[*slot as usize] != NO_ROW;
            if !taken || matches!(on_conflict, Conflict::Replace | Conflict::Merge) {
                *deciding = row as u32;
            } else if on_conflict == Conflict::Fail {
                failed = Some(row);
                break;
            }
        }
        let mut decided = Vec::new();
        for (row, slot) in slots.iter().enumerate() {
            if self.deciding[*slot as usize] == row as u32 {
                decided.push((row as u32, *slot));
            }
        }
        slots.iter().for_each(|slot| self.deciding[*slot as usize] = NO_SLOT);
        failed.map_or(Ok(decided), |row| Err(Error::DuplicateKey { row }))
    }

    /// Omits rows that exist already, bit for bit.
    fn without_unchanged(&self, rows: &RecordBatch, decided: Vec<(u32, u32)>) -> Result<Vec<(u32, u32)>> {
        let Some(encoder) = &self.encoder else { return Ok(decided) };
        let known = |slot: u32| self.row_of(slot);
        let (at, ids): (Vec<u32>, Vec<u64>) =
            decided.iter().filter_map(|(row, slot)| Some((*row, known(*slot)?))).unzip();
        if ids.is_empty() {
            return Ok(decided);
        }
        let old = encoder.encode(&self.store.gather(&ids)?)?;
        let new = encoder.encode(&take_record_batch(rows, &UInt32Array::from(at))?)?;
        let mut position = 0;
        let mut kept = decided;
        kept.retain(|(_, slot)| {
            if known(*slot).is_none() {
                return true;
            }
            position += 1;
            old.row(position - 1) != new.row(position - 1)
        });
        Ok(kept)
    }

    fn put(&mut self, rows: &RecordBatch, decided: &[(u32, u32)]) -> Result<Delta> {
        let replaced: Vec<u64> = decided.iter().filter_map(|(_, slot)| self.row_of(*slot)).collect();
        let old = self.store.gather(&replaced)?;
        let new = if decided.len() == rows.num_rows() {
            rows.clone()
        } else {
            take_record_batch(rows, &UInt32Array::from_iter_values(decided.iter().map(|(row, _)| *row)))?
        };
        // Fallible steps come first.
        let first = self.store.push(&new, None)?;
        self.remove(&replaced);
        for (id, (_, slot)) in (first..).zip(decided) {
            self.rows[*slot as usize] = id;
        }
        let mut delta = Delta::of(Chunk::delete(old));
        delta.push(Chunk::insert(new));
        Ok(delta)
    }

    fn remove(&mut self, ids: &[u64]) {
        let changes: Vec<(u64, i64)> = ids.iter().map(|id| (*id, 0)).collect();
        self.store.set_counts(&changes);
    }
}

impl Spillable for Keyed {
    fn spill(&mut self, spilling: &mut Spilling<'_>) {
        self.store.spill(spilling);
        self.keys.spill(spilling);
        self.rows.spill(spilling);
        self.deciding.spill(spilling);
    }

    fn spilled_bytes(&self) -> usize {
        self.store.spilled_bytes()
            + self.keys.spilled_bytes()
            + self.rows.spilled_bytes()
            + self.deciding.spilled_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{AsArray, DictionaryArray, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Int8Type, Int64Type, Schema};
    use millstream_seeds::Random;

    use super::*;

    fn batch(rows: &[(i64, &str)]) -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("key", DataType::Int64, true),
            Field::new("value", DataType::Utf8, true),
        ]);
        let keys = Int64Array::from_iter_values(rows.iter().map(|row| row.0));
        let values = StringArray::from_iter_values(rows.iter().map(|row| row.1));
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(keys), Arc::new(values)]).unwrap()
    }

    /// Returns the rows with a third column of sevens.
    fn with_sevens(rows: &RecordBatch) -> std::result::Result<RecordBatch, arrow::error::ArrowError> {
        let mut fields: Vec<_> = rows.schema().fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new("more", DataType::Int64, true)));
        let sevens = Int64Array::from_value(7, rows.num_rows());
        let columns = [rows.columns(), &[Arc::new(sevens) as ArrayRef]].concat();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
    }

    #[test]
    fn rows_get_columns_in_place() {
        let schema = with_sevens(&batch(&[])).unwrap().schema();
        let mut keyed = Keyed::new(batch(&[]).schema(), vec![0]).unwrap();
        let mut rows = crate::Rows::new(batch(&[]).schema());
        for some in [&[(1, "a"), (2, "b")][..], &[(3, "c")], &[(4, "d"), (5, "e")]] {
            keyed.upsert(&batch(some), Conflict::Fail).unwrap();
            rows.apply(&Delta::of(Chunk { rows: batch(some), weights: None })).unwrap();
        }
        keyed.delete(&batch(&[(2, "b")])).unwrap();
        rows.apply(&Delta::of(Chunk { rows: batch(&[(2, "b")]), weights: Some(vec![-1].into()) })).unwrap();
        let before = (keyed.snapshot(), rows.snapshot());
        keyed.replace(keyed.with_columns(&schema, &with_sevens).unwrap());
        rows.replace(rows.with_columns(&schema, &with_sevens).unwrap());
        // Rows are found by key and by content, and the same row is no change.
        let same = with_sevens(&batch(&[(3, "c")])).unwrap();
        assert!(keyed.upsert(&same, Conflict::Replace).unwrap().is_empty());
        let gone = with_sevens(&batch(&[(1, "a")])).unwrap();
        keyed.delete(&gone).unwrap();
        rows.apply(&Delta::of(Chunk { rows: gone, weights: Some(vec![-1].into()) })).unwrap();
        let expected = with_sevens(&batch(&[(3, "c"), (4, "d"), (5, "e")])).unwrap();
        for snapshot in [keyed.snapshot(), rows.snapshot()] {
            let all = snapshot.batches().unwrap();
            assert_eq!(arrow::compute::concat_batches(&schema, &all).unwrap(), expected);
        }
        assert_eq!((before.0.num_rows(), before.1.schema().fields().len()), (4, 2));
    }

    fn changes(delta: &Delta) -> Vec<(i64, String, i64)> {
        let mut all = Vec::new();
        for chunk in &delta.chunks {
            let (keys, values) =
                (chunk.rows.column(0).as_primitive::<Int64Type>(), chunk.rows.column(1).as_string::<i32>());
            all.extend(
                (0..keys.len())
                    .map(|row| (keys.value(row), values.value(row).to_string(), chunk.weight(row))),
            );
        }
        all
    }

    fn content(keyed: &Keyed) -> BTreeMap<i64, String> {
        let all = changes(&keyed.snapshot().delta().unwrap());
        let rows = all.len();
        let content: BTreeMap<i64, String> = all.into_iter().map(|(key, value, _)| (key, value)).collect();
        assert_eq!((content.len(), rows), (rows, keyed.num_rows()));
        content
    }

    #[test]
    fn the_last_row_of_a_key_replaces_the_one_before() {
        let mut keyed = Keyed::new(batch(&[]).schema(), vec![0]).unwrap();
        let delta = keyed.upsert(&batch(&[(1, "a"), (2, "b"), (1, "c")]), Conflict::Replace).unwrap();
        assert_eq!(changes(&delta), [(2, "b".into(), 1), (1, "c".into(), 1)]);
        let delta = keyed.upsert(&batch(&[(1, "d"), (2, "b"), (3, "e")]), Conflict::Replace).unwrap();
        assert_eq!(changes(&delta), [(1, "c".into(), -1), (1, "d".into(), 1), (3, "e".into(), 1)]);
        let delta = keyed.upsert(&batch(&[(4, "f"), (1, "g"), (4, "h")]), Conflict::Keep).unwrap();
        assert_eq!(changes(&delta), [(4, "f".into(), 1)]);
        let delta = keyed.delete(&batch(&[(1, ""), (9, ""), (1, "")])).unwrap();
        assert_eq!(changes(&delta), [(1, "d".into(), -1)]);
        let error = keyed.upsert(&batch(&[(7, "i"), (1, "j"), (7, "k")]), Conflict::Fail).unwrap_err();
        assert!(matches!(error, Error::DuplicateKey { row: 2 }), "{error}");
        let before = content(&keyed);
        let found = keyed.lookup(&[Arc::new(Int64Array::from(vec![7, 3]))]).unwrap();
        assert_eq!(found[0], None);
        assert_eq!(keyed.gather(&[found[1].unwrap()]).unwrap(), batch(&[(3, "e")]));
        assert_eq!(content(&keyed), before);
        let delta = keyed.upsert(&batch(&[(7, "i"), (1, "j")]), Conflict::Fail).unwrap();
        assert_eq!(delta.num_rows(), 2);
        assert_eq!(content(&keyed).into_keys().collect::<Vec<_>>(), [1, 2, 3, 4, 7]);
    }

    #[test]
    fn a_batch_that_a_kernel_refuses_changes_nothing() {
        // Two hundred different values don't fit one dictionary with 8-bit keys.
        let value = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        let schema = Arc::new(Schema::new(vec![
            Field::new("key", DataType::Int64, true),
            Field::new("value", value, true),
        ]));
        let rows = |keys: std::ops::Range<i64>, text: &dyn Fn(i64) -> String| {
            let texts: Vec<String> = keys.clone().map(text).collect();
            let values: DictionaryArray<Int8Type> = texts.iter().map(String::as_str).collect();
            let keys = Int64Array::from_iter_values(keys);
            RecordBatch::try_new(schema.clone(), vec![Arc::new(keys), Arc::new(values)]).unwrap()
        };
        let mut keyed = Keyed::new(schema.clone(), vec![0]).unwrap();
        let own = |key: i64| format!("value {key}");
        keyed.upsert(&rows(0..100, &own), Conflict::Replace).unwrap();
        keyed.upsert(&rows(100..200, &own), Conflict::Replace).unwrap();
        let shared = |_: i64| "shared".to_string();
        let keys =
            |keys: std::ops::Range<i64>| vec![Arc::new(Int64Array::from_iter_values(keys)) as ArrayRef];
        let before = keyed.lookup(&keys(0..300)).unwrap();
        assert_eq!(before.iter().flatten().count(), 200);
        let error = keyed.upsert(&rows(0..300, &shared), Conflict::Replace).unwrap_err();
        assert!(matches!(error, Error::Arrow(_)), "{error}");
        assert!(matches!(keyed.delete(&rows(0..300, &shared)).unwrap_err(), Error::Arrow(_)));
        assert_eq!((keyed.lookup(&keys(0..300)).unwrap(), keyed.num_rows()), (before, 200));
        assert_eq!(keyed.keys.len(), 200);
        let delta = keyed.upsert(&rows(200..300, &shared), Conflict::Fail).unwrap();
        assert_eq!(delta.num_rows(), 100);
        assert_eq!(keyed.delete(&rows(0..100, &shared)).unwrap().num_rows(), 100);
        assert_eq!(keyed.delete(&rows(0..300, &shared)).unwrap().num_rows(), 200);
        assert_eq!(keyed.num_rows(), 0);
    }

    #[test]
    fn a_key_must_have_a_value() {
        let mut keyed = Keyed::new(batch(&[]).schema(), vec![0]).unwrap();
        let keys = Int64Array::from(vec![Some(1), None]);
        let rows = vec![Arc::new(keys) as ArrayRef, Arc::new(StringArray::from(vec!["a", "b"]))];
        let rows = RecordBatch::try_new(keyed.schema().clone(), rows).unwrap();
        let error = keyed.upsert(&rows, Conflict::Replace).unwrap_err();
        assert!(matches!(&error, Error::NullKey { column, row: 1 } if column == "key"), "{error}");
        assert_eq!(keyed.num_rows(), 0);
    }

    #[test]
    fn the_sum_of_all_changes_is_the_content() {
        let mut keyed = Keyed::new(batch(&[]).schema(), vec![0]).unwrap();
        let (mut expected, mut sum) = (BTreeMap::new(), BTreeMap::<(i64, String), i64>::new());
        let mut random = Random(7);
        let mut below = |bound| random.below(bound);
        for round in 0..300 {
            let rows: Vec<(i64, String)> =
                (0..below(40)).map(|_| (below(500) as i64, format!("value {}", below(3)))).collect();
            let plain: Vec<(i64, &str)> = rows.iter().map(|(key, value)| (*key, value.as_str())).collect();
            let delta = if round % 3 == 2 {
                rows.iter().for_each(|(key, _)| _ = expected.remove(key));
                keyed.delete(&batch(&plain)).unwrap()
            } else {
                expected.extend(rows.iter().cloned());
                keyed.upsert(&batch(&plain), Conflict::Replace).unwrap()
            };
            for (key, value, weight) in changes(&delta) {
                *sum.entry((key, value)).or_insert(0) += weight;
            }
            sum.retain(|_, count| *count != 0);
            assert_eq!(content(&keyed), expected);
            assert!(sum.values().all(|count| *count == 1));
            assert_eq!(sum.keys().cloned().collect::<BTreeMap<_, _>>(), expected);
        }
    }
}
