//! Rows in the order of keys that come with them.

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

/// A multiset of rows, each with a key: bytes that decide its place, and that no different row has.
///
/// A position counts the copies of all rows before it. Rows are found by key and by position, and what a change costs
/// depends on what it changes, and on the logarithm of all there is.
#[derive(Debug)]
pub struct Ordered {
    store: Store,
    tree: Tree,
}

/// A row to change.
#[derive(Clone, Copy, Debug)]
pub struct Moved<'a> {
    /// Its key; no two have the same.
    pub key: &'a [u8],
    /// Where it is in its batch.
    pub row: u32,
    /// +n inserts n copies, -n deletes n.
    pub weight: i64,
}

impl Ordered {
    /// No rows yet.
    pub fn new(schema: SchemaRef) -> Ordered {
        Ordered { store: Store::new(schema), tree: Tree::new() }
    }

    /// The rows' schema.
    pub fn schema(&self) -> &SchemaRef {
        self.store.schema()
    }

    /// How many rows there are, each copy counted.
    pub fn num_rows(&self) -> usize {
        self.tree.total() as usize
    }

    /// About how many bytes the rows and their keys take.
    pub fn memory_bytes(&self) -> usize {
        self.store.memory_bytes() + self.tree.memory_bytes()
    }

    /// How many copies of a key's row there are.
    pub fn copies(&self, key: &[u8]) -> u64 {
        self.tree.get(key).map_or(0, |entry| entry.copies)
    }

    /// How many copies the rows have whose keys are below this one.
    pub fn position(&self, key: &[u8]) -> u64 {
        self.tree.find(key).0
    }

    /// Both: how many copies the rows below a key have, and the key's row.
    pub fn place(&self, key: &[u8]) -> (u64, u64) {
        let (position, entry) = self.tree.find(key);
        (position, entry.map_or(0, |entry| entry.copies))
    }

    /// How many copies the rows have whose keys are below all that begin with `prefix`, and how many those have that
    /// are not above them.
    pub fn positions(&self, prefix: &[u8]) -> Range<u64> {
        let end = match successor(prefix) {
            Some(end) => self.position(&end),
            None => self.tree.total(),
        };
        self.position(prefix)..end
    }

    /// Shows the rows one by one from the one that has the copy at `position` on, each with the position of its first
    /// copy, until `take` says that it is enough.
    pub fn scan<'a>(&'a self, position: u64, take: &mut dyn FnMut(u64, Entry<'a>) -> bool) {
        self.tree.scan(position, take);
    }

    /// The rows with these ids, in that order.
    pub fn gather(&self, ids: &[u64]) -> Result<RecordBatch> {
        Ok(self.store.gather(ids)?)
    }

    /// All rows with their numbers of copies, in the order in which they came, without their keys.
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

    /// Adds what has changed of the rows since the newest checkpoint as a table, all of them where it is to have all: what
    /// [`Ordered::delta`] has, put together with what checkpoints before have.
    pub fn save_changed(&self, name: &str, to: &mut Tables) -> Result<()> {
        self.store.save_run(&self.store.marks().run(), None, name, to)
    }

    /// Inserts and deletes rows of a batch. Fails with [`Error::Negative`] and changes nothing when more is deleted
    /// than there is.
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
        // The tree knows them, too; the rows have them for checkpoints, which don't look at the tree.
        self.store.set_counts(&counted);
        Ok(())
    }

    /// Lets the copies at these positions go.
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

/// The least bytes that are above all that begin with `prefix`, if there are any.
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
