//! A multiset of rows with many rows per key.

mod saving;
mod spilling;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::array::{Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use millstream_delta::{Chunk, Delta, RowEncoder};

use crate::lineage::{Bits, Marks};
use crate::lists::Lists;
use crate::store::{AddColumns, Store};
use crate::{Error, Paged, Result, Size};

/// Maximum number of rows gathered into one batch.
const GATHERED_ROWS: Size = Size::of(16_384);
/// Number of slots forgotten at once.
const FORGET_SLOTS: Size = Size::of(4096);
/// The number of rows from which a slot gets an index of its rows when it loses some.
const LONG: Size = Size::of(1024);

/// A multiset of rows, found by the slots of their keys.
///
/// A slot is a small number for a key, as assigned by a [`crate::KeyIndex`]; the caller gives the slot of
/// each row. Rows are stored in immutable chunks in order of arrival, and each slot has a list of its rows.
/// The cost of a change depends only on the number of rows of its slots. Rows are equal if they are bit for
/// bit.
#[derive(Debug)]
pub struct Arranged {
    store: Store,
    lists: Lists,
    /// Indexes of slots with many rows that have lost some.
    long: HashMap<u32, Long>,
    /// Created when the first row is deleted.
    encoder: Option<RowEncoder>,
    /// The slots that have received rows since checkpoints.
    marks: Marks<Bits>,
}

/// Changed rows, each with the slot of its key.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The rows with their weights.
    pub chunk: Chunk,
    /// One slot per row.
    pub slots: Vec<u32>,
    /// A number stored with each row, the same for equal rows; `None` means 0 for all rows.
    pub tallies: Option<Vec<i64>>,
}

/// Net changes of distinct rows.
struct Net {
    chunk: Chunk,
    slots: Vec<u32>,
    tallies: Option<Vec<i64>>,
    encoded: arrow::row::Rows,
    hashes: Vec<u64>,
    table: HashTable<u32>,
    /// The sum of the weights for the first of equal rows, 0 for the others.
    sums: Vec<i64>,
}

/// The effect of deletes on the existing rows.
#[derive(Default)]
struct Deletes {
    counts: Vec<(u64, i64)>,
    /// The indices of rows in their slots' lists, ascending.
    gone: BTreeMap<u32, Vec<u32>>,
    /// The slots, hashes and ids of the deleted rows.
    hashes: Vec<(u32, u64, u64)>,
}

/// An index of the rows of a slot with many rows, by content.
#[derive(Debug, Default)]
struct Long {
    /// Hashes and ids of the rows with ids below `through`.
    table: HashTable<(u64, u64)>,
    through: u64,
}

impl Arranged {
    /// Returns an empty multiset.
    pub fn new(schema: SchemaRef) -> Arranged {
        let store = Store::new(schema);
        let marks = Marks::beside(store.marks());
        Arranged { store, lists: Lists::default(), long: HashMap::new(), encoder: None, marks }
    }

    /// Returns a multiset with some columns of the same rows under the same slots. Both share the memory of the
    /// rows until they change.
    pub fn project(&self, columns: &[usize]) -> Result<Arranged> {
        let store = self.store.project(columns)?;
        let marks = Marks::beside(store.marks());
        Ok(Arranged { store, lists: self.lists.clone(), long: HashMap::new(), encoder: None, marks })
    }

    /// Returns the same rows with additional columns at their end, which `add` adds to a batch.
    pub fn with_columns(&self, schema: &SchemaRef, add: &AddColumns<'_>) -> Result<Arranged> {
        let store = self.store.with_columns(schema, add)?;
        let marks = Marks::beside(store.marks());
        Ok(Arranged { store, lists: self.lists.clone(), long: HashMap::new(), encoder: None, marks })
    }

    /// Begins to track changes anew, because the rows are saved in another place from now on: the next checkpoint
    /// holds all of them.
    pub fn track_anew(&mut self) {
        self.marks = Marks::beside(self.store.track_anew());
    }

    /// Returns the number of rows of each slot below `end`, with each copy counted.
    pub fn totals(&self, end: usize) -> Paged<i64> {
        let plain = self.store.is_plain();
        let total = |slot| match plain {
            true => self.lists.len(slot) as i64,
            false => self.lists.get(slot).iter().map(|id| self.store.count(*id)).sum(),
        };
        (0..end as u32).map(total).collect()
    }

    /// Returns the schema of the rows.
    pub fn schema(&self) -> &SchemaRef {
        self.store.schema()
    }

    /// Returns the number of rows, with each copy counted.
    pub fn num_rows(&self) -> usize {
        self.store.copies() as usize
    }

    /// Returns the number of rows of a slot. Copies that arrived together count once.
    pub fn rows_of(&self, slot: u32) -> usize {
        self.lists.len(slot)
    }

    /// Returns the approximate memory of the rows and their lists in bytes.
    pub fn memory_bytes(&self) -> usize {
        let long: usize = self.long.values().map(|index| index.table.allocation_size()).sum();
        self.store.memory_bytes() + self.lists.memory_bytes() + long
    }

    /// Returns the rows of some slots, slot by slot in order of arrival. n copies are n rows.
    pub fn gather(&self, slots: &[u32]) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        let mut ids: Vec<u64> = Vec::new();
        for slot in slots {
            let mut rest = self.lists.get(*slot);
            while !rest.is_empty() {
                let (some, more) = rest.split_at(rest.len().min(GATHERED_ROWS.get() - ids.len()));
                ids.extend_from_slice(some);
                rest = more;
                if ids.len() == GATHERED_ROWS.get() {
                    batches.push(self.store.gather_copies(&ids)?);
                    ids.clear();
                }
            }
        }
        if !ids.is_empty() {
            batches.push(self.store.gather_copies(&ids)?);
        }
        Ok(batches)
    }

    /// Returns the ids of a slot's rows in order of arrival. They are valid until the next change.
    pub fn ids(&self, slot: u32) -> &[u64] {
        self.lists.get(slot)
    }

    /// Returns some columns of the rows with these ids, in order, and the number of copies of each row.
    pub fn gather_counted(&self, ids: &[u64], columns: &[usize]) -> Result<(RecordBatch, Vec<i64>)> {
        Ok(self.store.gather_counted(ids, columns)?)
    }

    /// Returns the number of copies of a row.
    pub fn count(&self, id: u64) -> i64 {
        self.store.count(id)
    }

    /// Returns the number stored with a row.
    pub fn tally(&self, id: u64) -> i64 {
        self.store.tally(id)
    }

    /// Sets the numbers stored with some rows.
    pub fn set_tallies(&mut self, changes: &[(u64, i64)]) {
        self.store.set_tallies(changes);
    }

    /// Inserts and deletes rows. Only the sum of each row's weights counts: within a change, a row may be
    /// deleted before it is inserted. If a change deletes more copies than exist, fails with
    /// [`Error::Negative`] and changes nothing.
    pub fn apply(&mut self, changes: Vec<Placed>) -> Result<()> {
        let deletes = changes.iter().any(|placed| {
            let weights = placed.chunk.weights.as_ref();
            weights.is_some_and(|weights| weights.values().iter().any(|weight| *weight < 0))
        });
        if deletes {
            return self.apply_net(changes);
        }
        changes.into_iter().try_for_each(|Placed { chunk, slots, tallies }| {
            let weights = chunk.weights.as_ref().map(|weights| &weights.values()[..]);
            self.append(&chunk.rows, weights, tallies, &slots)
        })
    }

    /// Removes all rows of some slots.
    pub fn forget(&mut self, slots: &[u32]) -> Result<()> {
        let all: Vec<usize> = (0..self.schema().fields().len()).collect();
        for some in slots.chunks(FORGET_SLOTS.get()) {
            let mut ids = Vec::new();
            let mut of = Vec::new();
            for slot in some {
                ids.extend_from_slice(self.ids(*slot));
                of.resize(ids.len(), *slot);
            }
            if ids.is_empty() {
                continue;
            }
            let (rows, counts) = self.gather_counted(&ids, &all)?;
            let weights = Some(counts.into_iter().map(|count| -count).collect());
            self.apply(vec![Placed { chunk: Chunk { rows, weights }, slots: of, tallies: None }])?;
        }
        Ok(())
    }

    /// Returns the id of the next row. Ids only rise, and none is reused.
    pub fn next_id(&self) -> u64 {
        self.store.next_id()
    }

    /// Returns true if the row with this slot and id exists.
    pub fn holds(&self, slot: u32, id: u64) -> bool {
        self.lists.get(slot).binary_search(&id).is_ok()
    }

    /// Removes existing rows with all their copies, given by slot and id, ascending.
    pub fn remove(&mut self, rows: &[(u32, u64)]) -> Result<()> {
        let indexed = |(slot, id): &&(u32, u64)| self.long.get(slot).is_some_and(|long| *id < long.through);
        let indexed: Vec<(u32, u64)> = rows.iter().filter(indexed).copied().collect();
        let mut hashes = Vec::with_capacity(indexed.len());
        if let Some(encoder) = &self.encoder {
            for some in indexed.chunks(GATHERED_ROWS.get()) {
                let ids: Vec<u64> = some.iter().map(|(_, id)| *id).collect();
                let encoded = encoder.encode(&self.store.gather(&ids)?)?;
                let hash = |row: usize| encoder.hash(encoded.row(row).data());
                hashes.extend(some.iter().enumerate().map(|(row, (slot, id))| (*slot, hash(row), *id)));
            }
        }
        for same in rows.chunk_by(|a, b| a.0 == b.0) {
            let slot = same[0].0;
            let ids = self.lists.get(slot);
            let place = |(_, id): &(u32, u64)| ids.binary_search(id).ok().map(|place| place as u32);
            let places: Vec<u32> = same.iter().filter_map(place).collect();
            self.lists.remove(slot, &places)?;
        }
        self.unindex(&hashes);
        let gone: Vec<(u64, i64)> = rows.iter().map(|(_, id)| (*id, 0)).collect();
        self.store.set_counts(&gone);
        Ok(())
    }

    /// Adds the rows with positive weights.
    fn append(
        &mut self,
        rows: &RecordBatch,
        weights: Option<&[i64]>,
        tallies: Option<Vec<i64>>,
        slots: &[u32],
    ) -> Result<()> {
        let marks = self.marks.now(0);
        let Some(weights) = weights else {
            slots.iter().for_each(|slot| marks.set(*slot));
            let first = self.store.push_with(rows, None, tallies)?;
            return slots.iter().zip(first..).try_for_each(|(slot, id)| self.lists.push(*slot, id));
        };
        let taken: Vec<u32> = (0..weights.len() as u32).filter(|row| weights[*row as usize] > 0).collect();
        taken.iter().for_each(|row| marks.set(slots[*row as usize]));
        let counts = taken.iter().map(|row| weights[*row as usize]).collect();
        let tallies = tallies.map(|tallies| taken.iter().map(|row| tallies[*row as usize]).collect());
        let first = if taken.len() == rows.num_rows() {
            self.store.push_with(rows, Some(counts), tallies)?
        } else {
            let rows = take_record_batch(rows, &UInt32Array::from(taken.clone()))?;
            self.store.push_with(&rows, Some(counts), tallies)?
        };
        taken.iter().zip(first..).try_for_each(|(row, id)| self.lists.push(slots[*row as usize], id))
    }

    fn apply_net(&mut self, changes: Vec<Placed>) -> Result<()> {
        let slots: Vec<u32> = changes.iter().flat_map(|placed| &placed.slots).copied().collect();
        let tallies = changes.iter().any(|placed| placed.tallies.is_some()).then(|| {
            let of = |placed: &Placed| placed.tallies.clone().unwrap_or_else(|| vec![0; placed.slots.len()]);
            changes.iter().flat_map(of).collect()
        });
        let mut delta = Delta::default();
        changes.into_iter().for_each(|placed| delta.push(placed.chunk));
        let Some(chunk) = delta.into_one(self.schema())? else { return Ok(()) };
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            none => none.insert(RowEncoder::new(self.store.schema())?),
        };
        let mut net = Net::new(chunk, slots, tallies, encoder)?;
        let deletes = self.find(&mut net)?;
        for (slot, places) in &deletes.gone {
            self.lists.remove(*slot, places)?;
        }
        self.unindex(&deletes.hashes);
        self.store.set_counts(&deletes.counts);
        self.append(&net.chunk.rows, Some(&net.sums), net.tallies, &net.slots)
    }

    /// Finds the deleted rows among the rows of their slots, and sets the sums of found rows to zero.
    fn find(&mut self, net: &mut Net) -> Result<Deletes> {
        let slots = net.deleted_slots();
        for slot in &slots {
            self.index_long(*slot)?;
        }
        let mut deletes = Deletes::default();
        let mut candidates = Vec::new();
        for (row, slot) in (0..net.sums.len()).zip(&net.slots).filter(|(row, _)| net.sums[*row] < 0) {
            if let Some(index) = self.long.get(slot) {
                // Few other rows have the same hash.
                let copies = net.sums[row].unsigned_abs() as usize;
                let ids = index.with_hash(net.hashes[row]).take(copies.saturating_add(8));
                candidates.extend(ids.map(|id| (*slot, id)));
            }
        }
        candidates.sort_unstable();
        candidates.dedup();
        let short = slots.iter().filter(|slot| !self.long.contains_key(slot));
        candidates.extend(short.flat_map(|slot| self.lists.get(*slot).iter().map(|id| (*slot, *id))));
        self.delete_among(candidates, net, &mut deletes)?;
        // If the hashes did not help, compares all rows.
        let used: HashSet<u64> = deletes.counts.iter().map(|(id, _)| *id).collect();
        let all = |slot: u32| self.lists.get(slot).iter().map(move |id| (slot, *id));
        let rest = net.deleted_slots().into_iter().filter(|slot| self.long.contains_key(slot));
        let rest: Vec<(u32, u64)> = rest.flat_map(all).filter(|(_, id)| !used.contains(id)).collect();
        self.delete_among(rest, net, &mut deletes)?;
        net.check_found()?;
        deletes.gone.values_mut().for_each(|places| places.sort_unstable());
        Ok(deletes)
    }

    /// Deletes matching rows among the candidates, each given with its slot.
    fn delete_among(&self, candidates: Vec<(u32, u64)>, net: &mut Net, deletes: &mut Deletes) -> Result<()> {
        let encoder = self.encoder.as_ref().expect("made before rows are deleted");
        for some in candidates.chunks(GATHERED_ROWS.get()) {
            let ids: Vec<u64> = some.iter().map(|(_, id)| *id).collect();
            let encoded = encoder.encode(&self.store.gather(&ids)?)?;
            for (row, (slot, id)) in some.iter().enumerate() {
                let bytes = encoded.row(row).data();
                let hash = encoder.hash(bytes);
                let Some(sum) = net.sum(hash, bytes).filter(|sum| **sum < 0) else { continue };
                let count = self.store.count(*id);
                let left = (count + *sum).max(0);
                *sum += count - left;
                deletes.counts.push((*id, left));
                if left == 0 {
                    // Ids are assigned in ascending order, so lists are sorted.
                    let place = self.lists.get(*slot).partition_point(|other| other < id) as u32;
                    deletes.gone.entry(*slot).or_default().push(place);
                    deletes.hashes.push((*slot, hash, *id));
                }
            }
        }
        Ok(())
    }

    /// Indexes the rows that a slot received since its last delete, if the slot has many rows.
    fn index_long(&mut self, slot: u32) -> Result<()> {
        let ids = self.lists.get(slot);
        if ids.len() < LONG.get() && !self.long.contains_key(&slot) {
            return Ok(());
        }
        let encoder = self.encoder.as_ref().expect("made before rows are deleted");
        let index = self.long.entry(slot).or_default();
        let new = ids.partition_point(|id| *id < index.through);
        for some in ids[new..].chunks(GATHERED_ROWS.get()) {
            let encoded = encoder.encode(&self.store.gather(some)?)?;
            for (row, id) in some.iter().enumerate() {
                let hash = encoder.hash(encoded.row(row).data());
                index.table.insert_unique(hash, (hash, *id), |(hash, _)| *hash);
                index.through = id + 1;
            }
        }
        Ok(())
    }

    /// Removes deleted rows from the indexes of their slots, and drops indexes of slots that now have few
    /// rows.
    fn unindex(&mut self, gone: &[(u32, u64, u64)]) {
        for (slot, hash, id) in gone {
            if let Some(index) = self.long.get_mut(slot)
                && let Ok(entry) = index.table.find_entry(*hash, |(_, other)| other == id)
            {
                entry.remove();
                if index.table.len() < LONG.get() / 2 {
                    self.long.remove(slot);
                }
            }
        }
    }
}

impl Long {
    /// Returns the candidate rows for a hash.
    fn with_hash(&self, hash: u64) -> impl Iterator<Item = u64> {
        self.table.iter_hash(hash).filter(move |(other, _)| *other == hash).map(|(_, id)| *id)
    }
}

impl Net {
    fn new(chunk: Chunk, slots: Vec<u32>, tallies: Option<Vec<i64>>, encoder: &RowEncoder) -> Result<Net> {
        let encoded = encoder.encode(&chunk.rows)?;
        let count = chunk.rows.num_rows();
        let hashes: Vec<u64> = (0..count).map(|row| encoder.hash(encoded.row(row).data())).collect();
        let mut table: HashTable<u32> = HashTable::with_capacity(count);
        let mut sums = vec![0; count];
        for row in 0..count {
            let bytes = encoded.row(row).data();
            let same = |other: &u32| {
                hashes[*other as usize] == hashes[row] && encoded.row(*other as usize).data() == bytes
            };
            match table.entry(hashes[row], same, |other| hashes[*other as usize]) {
                Entry::Occupied(first) => sums[*first.get() as usize] += chunk.weight(row),
                Entry::Vacant(vacant) => {
                    vacant.insert(row as u32);
                    sums[row] = chunk.weight(row);
                }
            }
        }
        Ok(Net { chunk, slots, tallies, encoded, hashes, table, sums })
    }

    /// Returns the slots with deleted rows that have not been found yet.
    fn deleted_slots(&self) -> Vec<u32> {
        let rows = self.sums.iter().zip(&self.slots).filter(|(sum, _)| **sum < 0);
        let mut slots: Vec<u32> = rows.map(|(_, slot)| *slot).collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// Returns the sum of a row's weights, if the row is among these rows.
    fn sum(&mut self, hash: u64, bytes: &[u8]) -> Option<&mut i64> {
        let same =
            |row: &u32| self.hashes[*row as usize] == hash && self.encoded.row(*row as usize).data() == bytes;
        let row = *self.table.find(hash, same)?;
        Some(&mut self.sums[row as usize])
    }

    /// Fails if deleted rows have not been found.
    fn check_found(&self) -> Result<()> {
        let missing: Vec<u32> =
            (0..self.sums.len() as u32).filter(|row| self.sums[*row as usize] < 0).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let weights = Int64Array::from_iter_values(missing.iter().map(|row| -self.sums[*row as usize]));
        let rows = take_record_batch(&self.chunk.rows, &UInt32Array::from(missing))?;
        Err(Error::Negative(Delta::of(Chunk { rows, weights: Some(weights) })))
    }
}
