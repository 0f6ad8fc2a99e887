//! Rows sorted by keys that their owner gives.

mod bounds;
mod leaf;
mod sequence;
mod tree;

use std::ops::Range;

use arrow::array::{Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use millstream_delta::{Chunk, Delta};

use crate::store::Store;
use crate::{Error, Result, Spillable, Spilling, Tables};
pub use leaf::Entry;
pub use sequence::Sequence;
use tree::Tree;

/// A multiset of rows, each with a key: bytes that determine its order, and that no different row has.
///
/// A position counts the copies of all rows before it. Rows are found by key and by position. The cost of a
/// change is linear in its size and logarithmic in the total number of rows.
#[derive(Debug)]
pub struct Ordered {
    store: Store,
    tree: Tree,
}

/// A changed row.
#[derive(Clone, Copy, Debug)]
pub struct Moved<'a> {
    /// Its key; no two rows have the same.
    pub key: &'a [u8],
    /// Its index in the batch.
    pub row: u32,
    /// +n inserts n copies, -n deletes n.
    pub weight: i64,
}

impl Ordered {
    /// Returns an empty multiset.
    pub fn new(schema: SchemaRef) -> Ordered {
        Ordered { store: Store::new(schema), tree: Tree::new() }
    }

    /// Returns the schema of the rows.
    pub fn schema(&self) -> &SchemaRef {
        self.store.schema()
    }

    /// Returns the number of rows, with each copy counted.
    pub fn num_rows(&self) -> usize {
        self.tree.total() as usize
    }

    /// Returns the approximate memory of the rows and their keys in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.store.memory_bytes() + self.tree.memory_bytes()
    }

    /// Returns the number of copies of a key's row.
    pub fn copies(&self, key: &[u8]) -> u64 {
        self.tree.get(key).map_or(0, |entry| entry.copies)
    }

    /// Returns the number of copies of the rows with smaller keys.
    pub fn position(&self, key: &[u8]) -> u64 {
        self.tree.find(key).0
    }

    /// Returns both: the number of copies of the rows with smaller keys, and of the key's row.
    pub fn place(&self, key: &[u8]) -> (u64, u64) {
        let (position, entry) = self.tree.find(key);
        (position, entry.map_or(0, |entry| entry.copies))
    }

    /// Returns the range of positions of the keys that begin with `prefix`.
    pub fn positions(&self, prefix: &[u8]) -> Range<u64> {
        let end = match successor(prefix) {
            Some(end) => self.position(&end),
            None => self.tree.total(),
        };
        self.position(prefix)..end
    }

    /// Calls `take` with the rows in order, each with the position of its first copy. Begins at the row that
    /// has the copy at `position`, and ends when `take` returns false.
    pub fn scan<'a>(&'a self, position: u64, take: &mut dyn FnMut(u64, Entry<'a>) -> bool) {
        self.tree.scan(position, take);
    }

    /// Returns the rows with these ids, in that order.
    pub fn gather(&self, ids: &[u64]) -> Result<RecordBatch> {
        Ok(self.store.gather(ids)?)
    }

    /// Returns all rows with their numbers of copies, in order of arrival, without their keys.
    pub fn delta(&self) -> Result<Delta> {
        let mut counted = Vec::new();
        self.scan(0, &mut |_, entry| {
            counted.push((entry.id, entry.copies as i64));
            true
        });
        let mut delta = Delta::default();
        self.store.weighted(counted.into_iter())?.into_iter().for_each(|chunk| delta.push(chunk));
        Ok(delta)
    }

    /// Adds the changes since the newest checkpoint as a table, or all rows if the checkpoint holds the
    /// complete state. The merged runs equal [`Ordered::delta`].
    pub fn save_changed(&self, name: &str, to: &mut Tables) -> Result<()> {
        self.store.save_run(&self.store.marks().run(), None, name, to);
        Ok(())
    }

    /// Inserts and deletes rows of a batch. If a batch deletes more copies than exist, fails with
    /// [`Error::Negative`] and changes nothing.
    pub fn apply(&mut self, rows: &RecordBatch, moved: &[Moved<'_>]) -> Result<()> {
        let mut missing = Vec::new();
        let (mut fresh, mut fresh_copies) = (Vec::new(), Vec::new());
        let mut counted = Vec::new();
        let mut changes = Vec::with_capacity(moved.len());
        for moved in moved {
            let found = self.tree.get(moved.key).map(|entry| (entry.id, entry.copies));
            let copies = found.map_or(0, |(_, copies)| copies).checked_add_signed(moved.weight);
            match (found, copies) {
                (Some((id, _)), Some(copies)) => {
                    changes.push((moved.key, id, copies));
                    counted.push((id, copies as i64));
                }
                (None, Some(0)) => {}
                (None, Some(copies)) => {
                    changes.push((moved.key, self.store.next_id() + fresh.len() as u64, copies));
                    fresh.push(moved.row);
                    fresh_copies.push(copies as i64);
                }
                (found, None) => {
                    let there = found.map_or(0, |(_, copies)| copies as i64);
                    missing.push((moved.row, -(there + moved.weight)));
                }
            }
        }
        if !missing.is_empty() {
            let weights = Int64Array::from_iter_values(missing.iter().map(|(_, copies)| *copies));
            let places = UInt32Array::from_iter_values(missing.iter().map(|(row, _)| *row));
            let rows = take_record_batch(rows, &places)?;
            return Err(Error::Negative(Delta::of(Chunk { rows, weights: Some(weights) })));
        }
        self.store.push(&take_record_batch(rows, &UInt32Array::from(fresh))?, Some(fresh_copies))?;
        for (key, id, copies) in changes {
            self.tree.set(Entry { key, id, copies });
        }
        // The tree has the counts, too; checkpoints don't read the tree and need them in the rows.
        self.store.set_counts(&counted);
        Ok(())
    }

    /// Removes the copies at these positions.
    pub fn remove(&mut self, positions: Range<u64>) {
        let mut left: Vec<(Vec<u8>, u64, u64)> = Vec::new();
        if !positions.is_empty() {
            self.scan(positions.start, &mut |start, entry| {
                let goes = (start + entry.copies).min(positions.end) - start.max(positions.start);
                left.push((entry.key.to_vec(), entry.id, entry.copies - goes));
                start + entry.copies < positions.end
            });
        }
        for (key, id, copies) in &left {
            self.tree.set(Entry { key, id: *id, copies: *copies });
        }
        let counts: Vec<(u64, i64)> = left.iter().map(|(_, id, copies)| (*id, *copies as i64)).collect();
        self.store.set_counts(&counts);
    }
}

/// Returns the least byte string above all that begin with `prefix`, if there is one.
pub fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut bytes = prefix[..=last].to_vec();
    bytes[last] += 1;
    Some(bytes)
}

impl Spillable for Ordered {
    fn spill(&mut self, spilling: &mut Spilling<'_>) {
        self.store.spill(spilling);
        self.tree.spill(spilling);
    }

    fn spilled_bytes(&self) -> usize {
        self.store.spilled_bytes() + self.tree.spilled_bytes()
    }
}
