//! The rows of a relation by key, kept once for all joins that look for them there.
//!
//! Within an epoch there are two versions of it: the rows that were there before, and this epoch's change beside
//! them, which becomes part of the rows when the next change comes. So every reader finds the version it needs,
//! whenever it is stepped within the epoch and whoever else reads at the same time (the shared arrangements of
//! McSherry, Lattuada, Schwarzkopf and Roscoe, *Shared Arrangements*, VLDB 2020, with two versions instead of any
//! number).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::SchemaRef;
use foldhash::fast::FixedState;
use millstream_delta::{Chunk, Delta};
use millstream_state::{Arranged, KeyIndex, NO_SLOT, Paged, Placed, Spillable, Tables};

use crate::failure::keep;
use crate::spread::Threads;
use crate::{Error, Result};

/// Which rows of a relation are found by which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    /// The columns of the key, by their numbers in the relation.
    pub keys: Vec<usize>,
    /// Whether rows are kept whose key holds a NULL.
    pub nulls_match: bool,
}

/// Some columns of a relation's rows, found by key.
#[derive(Debug)]
pub struct Arrangement {
    by: By,
    /// What is kept of each row: columns by their numbers in the relation.
    columns: Vec<usize>,
    /// The key's columns among these.
    key: Vec<usize>,
    /// Which change was staged last, and whether it is part of the rows by now.
    staging: Mutex<(u64, bool)>,
    versions: RwLock<Versions>,
    /// The queries that read it.
    readers: Mutex<Vec<Arc<str>>>,
}

/// The rows as they were before an epoch, and what the epoch changes.
#[derive(Debug)]
pub(crate) struct Versions {
    schema: SchemaRef,
    pub(crate) index: KeyIndex,
    /// The rows before.
    pub(crate) rows: Arranged,
    /// By slot, how many there are.
    totals: Paged<i64>,
    staged: Staged,
}

/// The change of an epoch.
#[derive(Debug, Default)]
struct Staged {
    placed: Vec<Placed>,
    /// Its rows by slot, once somebody asks.
    by_slot: OnceLock<BySlot>,
    /// What it does to the numbers of rows, once somebody asks.
    moved: OnceLock<Moved>,
}

/// Chunks and rows in them, by slot.
type BySlot = HashMap<u32, Vec<(usize, usize)>, FixedState>;

/// What slots had before a change, and have after it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moved {
    places: HashMap<u32, usize, FixedState>,
    /// In the order in which they were touched.
    slots: Vec<(u32, i64, i64)>,
}

impl Moved {
    /// Counts some rows of a slot, which had so many before.
    pub(crate) fn by(&mut self, slot: u32, before: i64, weight: i64) {
        let place = *self.places.entry(slot).or_insert(self.slots.len());
        if place == self.slots.len() {
            self.slots.push((slot, before, before));
        }
        self.slots[place].2 += weight;
    }

    /// The slots that have rows now and had none, or the other way round.
    pub(crate) fn turned(&self, now: bool) -> Vec<u32> {
        let turned =
            self.slots.iter().filter(|(_, before, after)| (*before > 0) != now && (*after > 0) == now);
        turned.map(|(slot, ..)| *slot).collect()
    }

    /// How many rows a slot has after the change, if that touches it.
    fn after(&self, slot: u32) -> Option<i64> {
        self.places.get(&slot).map(|place| self.slots[*place].2)
    }
}

impl Arrangement {
    /// No rows yet. `relation` has the columns of the changes it will be given, of which it keeps some, the key's
    /// among them.
    pub fn new(relation: &SchemaRef, by: By, columns: Vec<usize>) -> Result<Arrangement> {
        let place = |column: &usize| columns.iter().position(|kept| kept == column);
        let key: Option<Vec<usize>> = by.keys.iter().map(place).collect();
        let key = key.ok_or_else(|| Error::Bug("an arrangement keeps the columns of its key".into()))?;
        let schema = Arc::new(relation.project(&columns)?);
        let versions = RwLock::new(Versions::new(&schema, &key)?);
        Ok(Arrangement { by, columns, key, staging: Mutex::default(), versions, readers: Mutex::default() })
    }

    /// What its rows are found by.
    pub fn by(&self) -> &By {
        &self.by
    }

    /// What it keeps of each row: columns by their numbers in the relation.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Whether all these columns are kept.
    pub fn has(&self, columns: &[usize]) -> bool {
        columns.iter().all(|column| self.columns.contains(column))
    }

    /// Where these columns lie among those that are kept.
    pub(crate) fn places_of(&self, columns: &[usize]) -> Result<Vec<usize>> {
        let place = |column: &usize| self.columns.iter().position(|kept| kept == column);
        let places: Option<Vec<usize>> = columns.iter().map(place).collect();
        places.ok_or_else(|| Error::Bug("a join reads columns that its arrangement doesn't keep".into()))
    }

    /// The queries that read it, as EXPLAIN names them.
    pub fn readers(&self) -> Vec<Arc<str>> {
        lock(&self.readers).clone()
    }

    /// Says which queries read it.
    pub fn set_readers(&self, readers: Vec<Arc<str>>) {
        *lock(&self.readers) = readers;
    }

    /// Takes in rows of the relation, all of whose columns are there, between two epochs.
    pub fn take(&self, delta: &Delta) -> Result<()> {
        let delta = self.kept(delta)?;
        self.write(|versions| versions.take(delta, self))
    }

    /// The same with rows that have just the columns that are kept.
    pub(crate) fn take_kept(&self, rows: Delta) -> Result<()> {
        self.write(|versions| versions.take(rows, self))
    }

    /// Holds the change of an epoch ready beside the rows; what was held before becomes part of them. Each reader
    /// does so before it reads, with the same change; the first one's counts. `version` names the epoch.
    pub(crate) fn stage(&self, version: u64, delta: &Delta, threads: &Threads) -> Result<()> {
        let mut staging = lock(&self.staging);
        match *staging {
            (staged, true) if staged == version && !delta.is_empty() => {
                return Err(Error::Bug("an epoch came to an arrangement twice".into()));
            }
            (staged, _) if staged == version => return Ok(()),
            _ => {}
        }
        // Nobody reads before all of this is done, so a writer never waits for readers.
        if !delta.is_empty() || self.is_staged()? {
            let delta = self.kept(delta)?;
            self.write(|versions| {
                versions.settle()?;
                versions.stage(delta, self, threads)
            })?;
        }
        *staging = (version, false);
        Ok(())
    }

    /// Makes what an epoch has changed part of the rows, between two epochs; the next one is not `version`.
    pub fn settle(&self, version: u64) -> Result<()> {
        *lock(&self.staging) = (version, true);
        self.write(Versions::settle)
    }

    /// Forgets all rows.
    pub(crate) fn reset(&self) -> Result<()> {
        *lock(&self.staging) = (0, false);
        self.write(|versions| {
            *versions = Versions::new(&versions.schema, &self.key)?;
            Ok(())
        })
    }

    pub(crate) fn read(&self) -> Result<RwLockReadGuard<'_, Versions>> {
        self.versions.read().map_err(|_| broken())
    }

    /// All rows, as the columns that are kept; between two epochs.
    pub(crate) fn content(&self) -> Result<Delta> {
        self.write(Versions::settle)?;
        let versions = self.read()?;
        Ok(versions.rows.delta(&versions.index.live())?)
    }

    /// All rows as they were before the epoch whose change is staged, within that.
    pub(crate) fn content_before(&self) -> Result<Delta> {
        let versions = self.read()?;
        Ok(versions.rows.delta(&versions.index.live())?)
    }

    /// Adds what has changed of these rows since the newest checkpoint as a table; between two epochs.
    pub(crate) fn save_changed(&self, name: &str, to: &mut Tables) -> Result<()> {
        self.write(Versions::settle)?;
        Ok(self.read()?.rows.save_changed_rows(name, to)?)
    }

    /// How many rows there are.
    pub fn num_rows(&self) -> usize {
        self.read().map_or(0, |versions| versions.num_rows())
    }

    /// About how many bytes it takes.
    pub fn memory_bytes(&self) -> usize {
        self.read().map_or(0, |versions| versions.memory_bytes())
    }

    /// Shows what of it may lie in files; nothing where it is broken, which who steps it is told.
    pub(crate) fn each_store(&self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        let _ = self.write(|versions| {
            show(&mut versions.index);
            show(&mut versions.rows);
            show(&mut versions.totals);
            Ok(())
        });
    }

    fn is_staged(&self) -> Result<bool> {
        Ok(!self.read()?.staged.placed.is_empty())
    }

    fn kept(&self, delta: &Delta) -> Result<Delta> {
        projected(delta, &self.columns)
    }

    /// Those rows that may be looked for, and their keys.
    fn keyed(&self, mut chunk: Chunk) -> Result<(Chunk, Vec<ArrayRef>)> {
        let mut keys = key_of(&chunk.rows, &self.key);
        if !self.by.nulls_match && keys.iter().any(|key| key.logical_null_count() > 0) {
            chunk = keep(&chunk, &whole(&keys))?;
            keys = key_of(&chunk.rows, &self.key);
        }
        Ok((chunk, keys))
    }

    /// Who panics while it changes leaves nothing that others could go on with.
    fn write<T>(&self, change: impl FnOnce(&mut Versions) -> Result<T>) -> Result<T> {
        let mut versions = self.versions.write().map_err(|_| broken())?;
        change(&mut versions)
    }
}

impl Versions {
    fn new(schema: &SchemaRef, key: &[usize]) -> Result<Versions> {
        let types = key.iter().map(|at| schema.field(*at).data_type().clone()).collect();
        Ok(Versions {
            schema: schema.clone(),
            index: KeyIndex::new(types)?,
            rows: Arranged::new(schema.clone()),
            totals: Paged::default(),
            staged: Staged::default(),
        })
    }

    fn take(&mut self, delta: Delta, of: &Arrangement) -> Result<()> {
        self.settle()?;
        for chunk in delta.chunks {
            self.stage(Delta::of(chunk), of, &Threads::one())?;
            self.settle()?;
        }
        Ok(())
    }

    fn stage(&mut self, delta: Delta, of: &Arrangement, threads: &Threads) -> Result<()> {
        let rows = delta.num_rows();
        if !threads.share(rows) {
            for chunk in delta.chunks {
                let (chunk, keys) = of.keyed(chunk)?;
                let mut slots = Vec::with_capacity(chunk.rows.num_rows());
                self.index.slots(&keys, &mut slots)?;
                self.staged.placed.push(Placed { chunk, slots, tallies: None });
            }
            return Ok(());
        }
        // Looking keys up changes nothing; then one thread gives slots to those that are new, in the order of the rows.
        let index = &self.index;
        let found = threads.spread(delta.chunks, |chunk| {
            let (chunk, keys) = of.keyed(chunk)?;
            let mut slots = Vec::with_capacity(chunk.rows.num_rows());
            index.find(&keys, &mut slots)?;
            Ok::<_, Error>((chunk, keys, slots))
        });
        for found in found {
            let (chunk, keys, mut slots) = found?;
            self.index.settle(&keys, &mut slots)?;
            self.staged.placed.push(Placed { chunk, slots, tallies: None });
        }
        Ok(())
    }

    /// Makes the staged change part of the rows.
    fn settle(&mut self) -> Result<()> {
        let staged = std::mem::take(&mut self.staged).placed;
        let mut emptied = Vec::new();
        for Placed { chunk, slots, .. } in &staged {
            for (row, slot) in slots.iter().enumerate() {
                let weight = chunk.weight(row);
                self.totals.resize(*slot as usize + 1, 0);
                self.totals[*slot as usize] += weight;
                if weight <= 0 {
                    emptied.push(*slot);
                }
            }
        }
        if !staged.is_empty() {
            self.rows.apply(staged)?;
        }
        emptied.sort_unstable();
        emptied.dedup();
        for slot in emptied.into_iter().filter(|slot| self.rows.rows_of(*slot) == 0) {
            self.index.free(slot);
        }
        Ok(())
    }

    /// How many rows a key has after the epoch.
    pub(crate) fn total(&self, slot: u32) -> i64 {
        if let Some(after) = self.moved().after(slot) {
            return after;
        }
        if (slot as usize) < self.totals.len() { self.totals[slot as usize] } else { 0 }
    }

    /// What the epoch does to the numbers of rows.
    pub(crate) fn moved(&self) -> &Moved {
        self.staged.moved.get_or_init(|| {
            let mut moved = Moved::default();
            for Placed { chunk, slots, .. } in &self.staged.placed {
                for (row, slot) in slots.iter().enumerate() {
                    let before =
                        if (*slot as usize) < self.totals.len() { self.totals[*slot as usize] } else { 0 };
                    moved.by(*slot, before, chunk.weight(row));
                }
            }
            moved
        })
    }

    /// The rows of a key that the epoch changes: the staged chunk, and the row in it.
    pub(crate) fn staged(&self, slot: u32) -> &[(usize, usize)] {
        let by_slot = self.staged.by_slot.get_or_init(|| {
            let mut by_slot = BySlot::default();
            for (chunk, placed) in self.staged.placed.iter().enumerate() {
                for (row, slot) in placed.slots.iter().enumerate() {
                    by_slot.entry(*slot).or_default().push((chunk, row));
                }
            }
            by_slot
        });
        if slot == NO_SLOT { &[] } else { by_slot.get(&slot).map_or(&[], Vec::as_slice) }
    }

    /// Some columns of staged rows, and their weights.
    pub(crate) fn gather_staged(
        &self,
        places: &[(usize, usize)],
        columns: &[usize],
    ) -> Result<(RecordBatch, Vec<i64>)> {
        let placed = &self.staged.placed;
        let batches = placed.iter().map(|placed| placed.chunk.rows.project(columns));
        let batches = batches.collect::<Result<Vec<_>, _>>()?;
        let rows = interleave_record_batch(&batches.iter().collect::<Vec<_>>(), places)?;
        Ok((rows, places.iter().map(|(chunk, row)| placed[*chunk].chunk.weight(*row)).collect()))
    }

    fn num_rows(&self) -> usize {
        let staged = self
            .staged
            .placed
            .iter()
            .flat_map(|placed| (0..placed.slots.len()).map(|row| placed.chunk.weight(row)));
        self.rows.num_rows().saturating_add_signed(staged.sum::<i64>() as isize)
    }

    fn memory_bytes(&self) -> usize {
        let staged = self.staged.placed.iter().map(|placed| {
            placed.chunk.rows.get_array_memory_size() + placed.slots.capacity() * size_of::<u32>()
        });
        self.index.memory_bytes()
            + self.rows.memory_bytes()
            + self.totals.memory_bytes()
            + staged.sum::<usize>()
    }
}

/// Some columns of rows.
pub(crate) fn projected(delta: &Delta, columns: &[usize]) -> Result<Delta> {
    let mut some = Delta::default();
    for Chunk { rows, weights } in &delta.chunks {
        some.push(Chunk { rows: rows.project(columns)?, weights: weights.clone() });
    }
    Ok(some)
}

fn key_of(rows: &RecordBatch, key: &[usize]) -> Vec<ArrayRef> {
    key.iter().map(|at| rows.column(*at).clone()).collect()
}

/// Where no column is NULL.
pub(crate) fn whole(columns: &[ArrayRef]) -> BooleanArray {
    let count = columns.first().map_or(0, |column| column.len());
    let nulls: Vec<_> = columns.iter().filter_map(|column| column.logical_nulls()).collect();
    (0..count).map(|row| Some(nulls.iter().all(|nulls| nulls.is_valid(row)))).collect()
}

fn broken() -> Error {
    Error::Bug(
        "an arrangement that several queries share is broken since a step of one of them panicked".into(),
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
