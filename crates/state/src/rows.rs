//! A multiset of rows.

use arrow::array::{Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as TableEntry;
use millstream_delta::{Chunk, Delta, RowEncoder};

use crate::key_index::{SlotTable, Slots};
use crate::store::{AddColumns, RowsSnapshot, Store};
use crate::{Error, Paged, Result, Size, Spillable, Spilling, Tables};

/// Number of rows indexed at once.
const INDEXED_ROWS: Size = Size::of(8192);

/// A multiset of rows of one schema, in immutable chunks.
///
/// Rows that are only inserted need no index. The first delete builds an index of rows by content; later rows
/// are indexed at the next delete. Rows are equal if they are bit for bit.
#[derive(Debug)]
pub struct Rows {
    store: Store,
    index: Option<Box<Index>>,
    /// The number of rows, if they have no columns.
    copies: u64,
}

/// The index of each distinct row with an id below `through`.
#[derive(Debug)]
struct Index {
    encoder: RowEncoder,
    table: SlotTable,
    slots: Slots,
    /// By slot: the id of the row.
    ids: Paged<u64>,
    through: u64,
}

/// One of the distinct rows of a batch.
struct Group {
    row: u32,
    hash: u64,
    weight: i64,
}

impl Rows {
    /// Returns an empty multiset.
    pub fn new(schema: SchemaRef) -> Rows {
        Rows { store: Store::new(schema), index: None, copies: 0 }
    }

    /// Returns the schema of the rows.
    pub fn schema(&self) -> &SchemaRef {
        self.store.schema()
    }

    /// Returns the rows with additional columns, which `add` adds to a batch, for [`Rows::replace`]. Takes time in
    /// proportion to the new values.
    pub fn with_columns(&self, schema: &SchemaRef, add: &AddColumns<'_>) -> Result<Store> {
        Ok(self.store.with_columns(schema, add)?)
    }

    /// Replaces the rows by the same ones with additional columns. The next delete indexes them anew.
    pub fn replace(&mut self, store: Store) {
        (self.store, self.index) = (store, None);
    }

    /// Returns the number of rows, with each copy counted.
    pub fn num_rows(&self) -> usize {
        (self.store.copies() + self.copies) as usize
    }

    /// Returns the approximate memory of the rows and their index in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.store.memory_bytes() + self.index.as_ref().map_or(0, |index| index.memory_bytes())
    }

    /// Returns a snapshot of the rows in constant time; later changes copy the chunks they touch.
    pub fn snapshot(&self) -> RowsSnapshot {
        if self.schema().fields().is_empty() {
            return RowsSnapshot::without_columns(self.schema().clone(), self.copies);
        }
        self.store.snapshot()
    }

    /// Returns the number of rows that the next delete indexes first.
    pub fn num_unindexed(&self) -> usize {
        let through = self.index.as_ref().map_or(0, |index| index.through);
        (self.store.next_id() - through) as usize
    }

    /// Indexes some rows; returns true if all are indexed.
    pub fn index_some(&mut self) -> Result<bool> {
        let before = self.num_unindexed();
        if before > 0 {
            self.index_piece()?;
        }
        Ok(before <= INDEXED_ROWS.get())
    }

    /// Adds the changes since the newest checkpoint as a table, or all rows if the checkpoint holds the
    /// complete state.
    pub fn save_changed(&self, name: &str, to: &mut Tables) -> Result<()> {
        if self.schema().fields().is_empty() {
            return to.put_delta(name, &self.snapshot().delta()?);
        }
        self.store.save_run(&self.store.marks().run(), None, name, to);
        Ok(())
    }

    /// Inserts and deletes rows. Only the sum of each row's weights counts: within a delta, a row may be
    /// deleted before it is inserted. If a delta deletes more copies than exist, fails with
    /// [`Error::Negative`] and changes nothing.
    pub fn apply(&mut self, delta: &Delta) -> Result<()> {
        if self.schema().fields().is_empty() {
            return self.apply_without_columns(delta);
        }
        let deletes = delta.chunks.iter().any(|chunk| {
            chunk.weights.as_ref().is_some_and(|weights| weights.values().iter().any(|weight| *weight < 0))
        });
        if deletes { self.apply_net(delta) } else { self.append(delta) }
    }

    fn append(&mut self, delta: &Delta) -> Result<()> {
        for chunk in &delta.chunks {
            let Some(weights) = &chunk.weights else {
                self.store.push(&chunk.rows, None)?;
                continue;
            };
            let kept: Vec<u32> =
                (0..weights.len() as u32).filter(|row| weights.value(*row as usize) != 0).collect();
            if kept.len() == weights.len() {
                self.store.push(&chunk.rows, Some(weights.values().to_vec()))?;
            } else {
                let counts = kept.iter().map(|row| weights.value(*row as usize)).collect();
                let rows = take_record_batch(&chunk.rows, &UInt32Array::from(kept))?;
                self.store.push(&rows, Some(counts))?;
            }
        }
        Ok(())
    }

    fn apply_net(&mut self, delta: &Delta) -> Result<()> {
        let Some(chunk) = delta.clone().into_one(self.schema())? else { return Ok(()) };
        self.index_new_rows()?;
        let index = self.index.as_mut().expect("indexing made it");
        let encoded = index.encoder.encode(&chunk.rows)?;
        let groups = distinct(&index.encoder, &encoded, |row| chunk.weight(row));
        let bytes = |group: &Group| encoded.row(group.row as usize).data();
        let (deletes, inserts): (Vec<Group>, Vec<Group>) =
            groups.into_iter().filter(|group| group.weight != 0).partition(|group| group.weight < 0);

        let found = index.find(&self.store, &deletes, bytes)?;
        let mut changes = Vec::with_capacity(deletes.len());
        let mut missing = Vec::new();
        for (group, id) in deletes.iter().zip(&found) {
            let count = id.map_or(0, |id| self.store.count(id)) + group.weight;
            match id {
                Some(id) if count >= 0 => changes.push((*id, count)),
                _ => missing.push((group.row, -count)),
            }
        }
        if !missing.is_empty() {
            return Err(negative(&chunk.rows, &missing)?);
        }
        for (group, (id, count)) in deletes.iter().zip(&changes) {
            if *count == 0 {
                index.remove(group.hash, *id);
            }
        }
        self.store.set_counts(&changes);
        let rows = UInt32Array::from_iter_values(inserts.iter().map(|group| group.row));
        let counts = inserts.iter().map(|group| group.weight).collect();
        self.store.push(&take_record_batch(&chunk.rows, &rows)?, Some(counts))?;
        Ok(())
    }

    /// Indexes the rows added since the last delete. Equal rows become one row with a count.
    fn index_new_rows(&mut self) -> Result<()> {
        self.begin_index()?;
        while self.num_unindexed() > 0 {
            self.index_piece()?;
        }
        Ok(())
    }

    fn begin_index(&mut self) -> Result<&mut Index> {
        if self.index.is_none() {
            let encoder = RowEncoder::new(self.schema())?;
            self.index = Some(Box::new(Index::new(encoder)));
        }
        Ok(self.index.as_mut().expect("made above"))
    }

    fn index_piece(&mut self) -> Result<()> {
        let through = self.begin_index()?.through;
        let piece = self.store.piece(through, INDEXED_ROWS.get())?;
        let index = self.index.as_mut().expect("made above");
        index.slots.check()?;
        let Some(piece) = piece else {
            index.through = self.store.next_id();
            return Ok(());
        };
        let encoded = index.encoder.encode(&piece.rows)?;
        let groups = distinct(&index.encoder, &encoded, |row| piece.counts[row]);
        let found = index.find(&self.store, &groups, |group| encoded.row(group.row as usize).data())?;
        let mut counts: Vec<i64> = vec![0; piece.ids.len()];
        let mut changes = Vec::new();
        for (group, id) in groups.iter().zip(found) {
            match id {
                Some(id) => changes.push((id, self.store.count(id) + group.weight)),
                None => {
                    counts[group.row as usize] = group.weight;
                    index.insert(group.hash, piece.ids[group.row as usize]);
                }
            }
        }
        let moved = counts.iter().zip(&piece.counts).zip(&piece.ids).filter(|((new, old), _)| new != old);
        changes.extend(moved.map(|((new, _), id)| (*id, *new)));
        index.through = piece.ids.last().map_or(self.store.next_id(), |id| id + 1);
        self.store.set_counts(&changes);
        Ok(())
    }

    fn apply_without_columns(&mut self, delta: &Delta) -> Result<()> {
        let change = delta.weight();
        match self.copies.checked_add_signed(change) {
            Some(copies) => self.copies = copies,
            None => {
                let missing = -(self.copies as i64 + change);
                let weights = Some(Int64Array::from(vec![missing]));
                let rows = delta.chunks.iter().find(|chunk| chunk.rows.num_rows() > 0);
                let rows = rows.expect("a sum that isn't zero has a row").rows.slice(0, 1);
                return Err(Error::Negative(Delta::of(Chunk { rows, weights })));
            }
        }
        Ok(())
    }
}

fn negative(rows: &RecordBatch, missing: &[(u32, i64)]) -> Result<Error> {
    let indices = UInt32Array::from_iter_values(missing.iter().map(|(row, _)| *row));
    let weights = Int64Array::from_iter_values(missing.iter().map(|(_, copies)| *copies));
    Ok(Error::Negative(Delta::of(Chunk { rows: take_record_batch(rows, &indices)?, weights: Some(weights) })))
}

/// Returns the distinct rows in order of first appearance, with the sum of their weights.
fn distinct(encoder: &RowEncoder, encoded: &arrow::row::Rows, weight: impl Fn(usize) -> i64) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::with_capacity(encoded.num_rows());
    let mut table: HashTable<u32> = HashTable::with_capacity(encoded.num_rows());
    for row in 0..encoded.num_rows() {
        let bytes = encoded.row(row).data();
        let hash = encoder.hash(bytes);
        let same = |group: &u32| {
            let group = &groups[*group as usize];
            group.hash == hash && encoded.row(group.row as usize).data() == bytes
        };
        match table.entry(hash, same, |group| groups[*group as usize].hash) {
            TableEntry::Occupied(group) => groups[*group.get() as usize].weight += weight(row),
            TableEntry::Vacant(vacant) => {
                vacant.insert(groups.len() as u32);
                groups.push(Group { row: row as u32, hash, weight: weight(row) });
            }
        }
    }
    groups
}

/// Returns the bits of a hash that the table keeps. Two rows may share them, so the caller compares rows.
fn kept(hash: u64) -> u32 {
    hash as u32
}

impl Index {
    fn new(encoder: RowEncoder) -> Index {
        let (table, slots, ids) = (SlotTable::default(), Slots::default(), Paged::default());
        Index { encoder, table, slots, ids, through: 0 }
    }

    fn memory_bytes(&self) -> usize {
        self.table.memory_bytes() + self.slots.memory_bytes() + self.ids.memory_bytes()
    }

    fn insert(&mut self, hash: u64, id: u64) {
        let slot = self.slots.take();
        self.ids.resize(slot as usize + 1, 0);
        self.ids[slot as usize] = id;
        self.table.insert(kept(hash), slot);
    }

    fn remove(&mut self, hash: u64, id: u64) {
        if let Some(slot) = self.table.find(kept(hash), |slot| self.ids[slot as usize] == id) {
            self.table.remove(kept(hash), slot);
            self.slots.put(slot);
        }
    }

    /// Returns the ids of the rows that equal these groups. Gathers, encodes and compares all rows with an
    /// equal hash at once. Different rows that share a hash take another round.
    fn find<'a>(
        &self,
        store: &Store,
        groups: &'a [Group],
        bytes: impl Fn(&'a Group) -> &'a [u8],
    ) -> Result<Vec<Option<u64>>> {
        let mut found = vec![None; groups.len()];
        let mut open: Vec<usize> = (0..groups.len()).collect();
        for round in 0.. {
            let mut candidates = Vec::with_capacity(open.len());
            open.retain(|group| {
                let mut passed = 0..round;
                let slot = self.table.find(kept(groups[*group].hash), |_| passed.next().is_none());
                candidates.extend(slot.map(|slot| self.ids[slot as usize]));
                slot.is_some()
            });
            if open.is_empty() {
                break;
            }
            let encoded = self.encoder.encode(&store.gather(&candidates)?)?;
            let mut position = 0;
            open.retain(|group| {
                let equal = encoded.row(position).data() == bytes(&groups[*group]);
                if equal {
                    found[*group] = Some(candidates[position]);
                }
                position += 1;
                !equal
            });
        }
        Ok(found)
    }
}

impl Spillable for Rows {
    fn spill(&mut self, spilling: &mut Spilling<'_>) {
        self.store.spill(spilling);
        if let Some(index) = &mut self.index {
            index.table.spill(spilling);
            index.ids.spill(spilling);
        }
    }

    fn spilled_bytes(&self) -> usize {
        let index = self.index.as_ref();
        let index = index.map_or(0, |index| index.table.spilled_bytes() + index.ids.spilled_bytes());
        self.store.spilled_bytes() + index
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StringViewArray};
    use arrow::datatypes::{DataType, Field, Float64Type, Schema};

    use super::*;
    use millstream_seeds::Random;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("word", DataType::Utf8View, true),
            Field::new("x", DataType::Float64, true),
        ]))
    }

    type Plain = (Option<String>, u64);

    fn batch(rows: &[Plain]) -> RecordBatch {
        let words: StringViewArray = rows.iter().map(|row| row.0.clone()).collect();
        let x = Float64Array::from_iter_values(rows.iter().map(|row| f64::from_bits(row.1)));
        RecordBatch::try_new(schema(), vec![Arc::new(words) as ArrayRef, Arc::new(x)]).unwrap()
    }

    fn chunk(rows: &[(Plain, i64)]) -> Chunk {
        let plain: Vec<Plain> = rows.iter().map(|(row, _)| row.clone()).collect();
        let weights = Int64Array::from_iter_values(rows.iter().map(|(_, weight)| *weight));
        Chunk { rows: batch(&plain), weights: Some(weights) }
    }

    fn plain(batch: &RecordBatch) -> Vec<Plain> {
        let (words, x) = (batch.column(0).as_string_view(), batch.column(1).as_primitive::<Float64Type>());
        (0..batch.num_rows())
            .map(|row| (words.is_valid(row).then(|| words.value(row).to_string()), x.value(row).to_bits()))
            .collect()
    }

    fn content(snapshot: &RowsSnapshot) -> BTreeMap<Plain, i64> {
        let mut all = BTreeMap::new();
        for batch in snapshot.batches().unwrap() {
            plain(&batch).into_iter().for_each(|row| *all.entry(row).or_insert(0) += 1);
        }
        let mut from_delta = BTreeMap::new();
        for chunk in snapshot.delta().unwrap().chunks {
            for (position, row) in plain(&chunk.rows).into_iter().enumerate() {
                *from_delta.entry(row).or_insert(0) += chunk.weight(position);
            }
        }
        assert_eq!(all, from_delta);
        assert_eq!(all.values().sum::<i64>(), snapshot.num_rows() as i64);
        all
    }

    #[test]
    fn any_sequence_of_changes_leaves_the_sum_of_the_weights() {
        for seed in 0..40 {
            let mut random = Random(seed);
            let variety = [3, 40, 2000][seed as usize % 3];
            let (mut rows, mut expected) = (Rows::new(schema()), BTreeMap::<Plain, i64>::new());
            let mut held: Vec<(RowsSnapshot, BTreeMap<Plain, i64>)> = Vec::new();
            for _ in 0..60 {
                let mut changes = Vec::new();
                let deletes = random.below(3) > 0;
                for _ in 0..random.below(200) {
                    let word = random.below(variety);
                    let word = (word > 0).then(|| format!("word of some length {word}"));
                    let row = (word, [0.0f64, -0.0, f64::NAN][random.below(3) as usize].to_bits());
                    let there = expected.entry(row.clone()).or_insert(0);
                    let weight = if deletes && *there > 0 && random.below(5) > 0 {
                        -(1 + random.below(*there as u64) as i64)
                    } else {
                        random.below(3) as i64
                    };
                    *there += weight;
                    changes.push((row, weight));
                }
                expected.retain(|_, count| *count > 0);
                let (left, right) = changes.split_at(changes.len() / 2);
                let mut delta = Delta::of(chunk(right));
                delta.push(chunk(left));
                rows.apply(&delta).unwrap();
                if random.below(3) == 0 {
                    let left = rows.num_unindexed();
                    assert_eq!(
                        rows.index_some().unwrap(),
                        left <= INDEXED_ROWS.get(),
                        "{left} rows were left"
                    );
                    assert!(left == 0 || rows.num_unindexed() < left);
                }
                assert_eq!(content(&rows.snapshot()), expected, "seed {seed}");
                if random.below(8) == 0 {
                    held.push((rows.snapshot(), expected.clone()));
                }
            }
            for (snapshot, was) in held {
                assert_eq!(content(&snapshot), was, "a snapshot doesn't change, seed {seed}");
            }
        }
    }

    #[test]
    fn a_delete_of_what_is_not_there_names_it_and_changes_nothing() {
        let mut rows = Rows::new(schema());
        let row = |word: &str| (Some(word.to_string()), 0);
        rows.apply(&Delta::insert(batch(&[row("a"), row("b"), row("a")]))).unwrap();
        let before = content(&rows.snapshot());
        let change = Delta::of(chunk(&[(row("c"), 1), (row("a"), -3), (row("d"), -1), (row("b"), -1)]));
        let Err(Error::Negative(missing)) = rows.apply(&change) else { panic!("the delete was taken") };
        assert_eq!(plain(&missing.chunks[0].rows), [row("a"), row("d")]);
        assert_eq!(missing.chunks[0].weights_or_ones().values(), &[1, 1]);
        assert_eq!(content(&rows.snapshot()), before);
        rows.apply(&Delta::of(chunk(&[(row("e"), -1), (row("e"), 1), (row("a"), -2)]))).unwrap();
        assert_eq!(content(&rows.snapshot()), BTreeMap::from([(row("b"), 1)]));
    }

    #[test]
    fn many_small_epochs_leave_few_chunks_and_deletes_leave_little_memory() {
        let mut rows = Rows::new(schema());
        for n in 0..20_000u64 {
            rows.apply(&Delta::insert(batch(&[(Some(format!("a word longer than a view, {n}")), n)])))
                .unwrap();
        }
        assert!(rows.store.num_chunks() < 20, "{}", rows.store.num_chunks());
        let full = rows.memory_bytes();
        for from in (0..19_900u64).step_by(100) {
            let gone: Vec<_> = (from..from + 100)
                .map(|n| ((Some(format!("a word longer than a view, {n}")), n), -1))
                .collect();
            rows.apply(&Delta::of(chunk(&gone))).unwrap();
        }
        assert_eq!(rows.num_rows(), 100);
        let index = rows.index.as_ref().unwrap().memory_bytes();
        assert!(rows.memory_bytes() - index < full / 20, "{} of {full}", rows.memory_bytes() - index);
        assert!(index < 20_000 * 28 + 16_384, "{index}");
    }

    #[test]
    fn rows_without_columns_are_a_count() {
        let schema: SchemaRef = Arc::new(Schema::empty());
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(3));
        let three = RecordBatch::try_new_with_options(schema.clone(), Vec::new(), &options).unwrap();
        let mut rows = Rows::new(schema);
        rows.apply(&Delta::insert(three.clone())).unwrap();
        rows.apply(&Delta::of(Chunk { rows: three.slice(0, 1), weights: Some(Int64Array::from(vec![-2])) }))
            .unwrap();
        assert_eq!(rows.num_rows(), 1);
        assert_eq!(rows.snapshot().batches().unwrap()[0].num_rows(), 1);
        let Err(Error::Negative(missing)) = rows.apply(&Delta::of(Chunk::delete(three))) else {
            panic!("taken")
        };
        assert_eq!(missing.chunks[0].weight(0), 2);
        assert_eq!(rows.num_rows(), 1);
    }
}
