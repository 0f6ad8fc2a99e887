//! The rows of a relation, indexed by a key and kept once for all joins that look them up.
//!
//! Within an epoch an arrangement has two versions: the rows as of the epoch's start, and the epoch's change
//! beside them. The change becomes part of the rows when the next change is staged. So every reader finds the
//! version that it needs, at any time within the epoch and concurrently with other readers. These are the
//! shared arrangements of McSherry, Lattuada, Schwarzkopf and Roscoe, *Shared Arrangements*, VLDB 2020, with
//! two versions instead of any number.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::SchemaRef;
use foldhash::fast::FixedState;
use millstream_delta::{Chunk, Delta};
use millstream_state::{Arranged, KeyIndex, NO_SLOT, Paged, Placed, Spillable, Tables};

use crate::failure::keep;
use crate::parallelism::Threads;
use crate::{Error, Result};

/// The key of an arrangement and its rule for NULLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    /// The key's columns, by their numbers in the relation.
    pub keys: Vec<usize>,
    /// True if rows with a NULL in their key are kept.
    pub nulls_match: bool,
}

/// Some columns of a relation's rows, indexed by key.
#[derive(Debug)]
pub struct Arrangement {
    by: By,
    /// The columns that are kept of each row, by their numbers in the relation.
    columns: Vec<usize>,
    /// The places of the key's columns among the kept columns.
    key: Vec<usize>,
    /// The version of the last staged change, and true if that change is already part of the rows.
    staging: Mutex<(u64, bool)>,
    versions: RwLock<Versions>,
    /// The queries that read the arrangement.
    readers: Mutex<Vec<Arc<str>>>,
}

/// The rows as of the start of an epoch, and the epoch's change.
#[derive(Debug)]
pub(crate) struct Versions {
    schema: SchemaRef,
    pub(crate) index: KeyIndex,
    /// The rows as of the start of the epoch.
    pub(crate) rows: Arranged,
    /// The number of rows of each slot.
    totals: Paged<i64>,
    staged: Staged,
}

/// The change of an epoch.
#[derive(Debug, Default)]
struct Staged {
    placed: Vec<Placed>,
    /// The rows of the change by slot, computed on first use.
    by_slot: OnceLock<BySlot>,
    /// The effect of the change on the numbers of rows, computed on first use.
    moved: OnceLock<Moved>,
}

/// The places of rows, each a chunk and a row of that chunk, by slot.
type BySlot = HashMap<u32, Vec<(usize, usize)>, FixedState>;

/// The numbers of rows of slots before and after a change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moved {
    places: HashMap<u32, usize, FixedState>,
    /// Slot, number before, number after; in the order in which the slots were first touched.
    slots: Vec<(u32, i64, i64)>,
}

/// No change is staged, and the next one may have any version.
const UNSTAGED: (u64, bool) = (u64::MAX, true);

impl Moved {
    /// Adds `weight` rows to a slot that had `before` rows before the change.
    pub(crate) fn by(&mut self, slot: u32, before: i64, weight: i64) {
        let place = *self.places.entry(slot).or_insert(self.slots.len());
        if place == self.slots.len() {
            self.slots.push((slot, before, before));
        }
        self.slots[place].2 += weight;
    }

    /// Returns the slots that became nonempty (`now`), or those that became empty (not `now`).
    pub(crate) fn turned(&self, now: bool) -> Vec<u32> {
        let turned =
            self.slots.iter().filter(|(_, before, after)| (*before > 0) != now && (*after > 0) == now);
        turned.map(|(slot, ..)| *slot).collect()
    }

    /// Returns the number of rows of a slot after the change; `None` if the change doesn't touch the slot.
    fn after(&self, slot: u32) -> Option<i64> {
        self.places.get(&slot).map(|place| self.slots[*place].2)
    }
}

impl Arrangement {
    /// Returns an empty arrangement. `relation` has the columns of the changes that it will be given.
    /// `columns` are those that it keeps, and include the key's.
    pub fn new(relation: &SchemaRef, by: By, columns: Vec<usize>) -> Result<Arrangement> {
        let key = key_among(&by, &columns)?;
        let versions = Versions::new(&Arc::new(relation.project(&columns)?), &key)?;
        Ok(Arrangement::of(by, columns, key, versions, UNSTAGED))
    }

    /// Returns an arrangement of the rows that a join keeps: their index, which may have other keys as well, and the
    /// rows with all their columns, of which `columns` names the numbers in the relation. `None` if the index doesn't
    /// serve.
    pub(crate) fn of_rows(
        by: By,
        columns: Vec<usize>,
        (index, rows): (&KeyIndex, Arranged),
    ) -> Result<Option<Arrangement>> {
        let key = key_among(&by, &columns)?;
        let types = key.iter().map(|at| rows.schema().field(*at).data_type());
        if !index.types().iter().eq(types) {
            return Ok(None);
        }
        let mut index = index.try_clone()?;
        let others = index.live().into_iter().filter(|slot| rows.rows_of(*slot) == 0);
        others.for_each(|slot| index.free(slot));
        let (schema, totals) = (rows.schema().clone(), rows.totals(index.slots_end()));
        let versions = Versions { schema, index, rows, totals, staged: Staged::default() };
        Ok(Some(Arrangement::of(by, columns, key, versions, UNSTAGED)))
    }

    fn of(
        by: By,
        columns: Vec<usize>,
        key: Vec<usize>,
        versions: Versions,
        staging: (u64, bool),
    ) -> Arrangement {
        let (staging, versions) = (Mutex::new(staging), RwLock::new(versions));
        Arrangement { by, columns, key, staging, versions, readers: Mutex::default() }
    }

    /// Returns the key and its rule for NULLs.
    pub fn by(&self) -> &By {
        &self.by
    }

    /// Returns the kept columns of each row, by their numbers in the relation.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Returns true if all these columns are kept.
    pub fn has(&self, columns: &[usize]) -> bool {
        columns.iter().all(|column| self.columns.contains(column))
    }

    /// Returns the places of these columns among the kept columns.
    pub(crate) fn places_of(&self, columns: &[usize]) -> Result<Vec<usize>> {
        places_among(&self.columns, columns)
            .ok_or_else(|| Error::Bug("a join reads columns that its arrangement doesn't keep".into()))
    }

    /// Returns the queries that read the arrangement, as EXPLAIN names them.
    pub fn readers(&self) -> Vec<Arc<str>> {
        lock(&self.readers).clone()
    }

    /// Sets the queries that read the arrangement.
    pub fn set_readers(&self, readers: Vec<Arc<str>>) {
        *lock(&self.readers) = readers;
    }

    /// Adds rows with all columns of the relation; called between two epochs.
    pub fn take(&self, delta: &Delta) -> Result<()> {
        let delta = self.kept(delta)?;
        self.write(|versions| versions.take(delta, self))
    }

    /// Adds rows that have only the kept columns.
    pub(crate) fn take_kept(&self, rows: Delta) -> Result<()> {
        self.write(|versions| versions.take(rows, self))
    }

    /// Stages the change of an epoch beside the rows, and settles the change staged before. Each reader calls
    /// this with the same change before it reads; the first call counts. `version` identifies the epoch.
    pub(crate) fn stage(&self, version: u64, delta: &Delta, threads: &Threads) -> Result<()> {
        let mut staging = lock(&self.staging);
        match *staging {
            (staged, true) if staged == version && !delta.is_empty() => {
                return Err(Error::Bug("an epoch came to an arrangement twice".into()));
            }
            (staged, _) if staged == version => return Ok(()),
            _ => {}
        }
        // Readers read only after this returns, so a writer never waits for readers.
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

    /// Merges the staged change into the rows, between two epochs; the next epoch must not be `version`.
    pub fn settle(&self, version: u64) -> Result<()> {
        *lock(&self.staging) = (version, true);
        self.write(Versions::settle)
    }

    /// Merges the staged change into the rows, between two epochs, whatever its version.
    pub(crate) fn settle_now(&self) -> Result<()> {
        self.write(Versions::settle)
    }

    /// Removes all rows.
    pub(crate) fn reset(&self) -> Result<()> {
        *lock(&self.staging) = UNSTAGED;
        self.write(|versions| {
            *versions = Versions::new(&versions.schema, &self.key)?;
            Ok(())
        })
    }

    /// Returns an arrangement of its own with some columns, by their numbers in the relation, of the same rows:
    /// those as of the start of the epoch, and the staged change if `staged`. Both share the memory of the rows.
    pub(crate) fn fork(&self, columns: Vec<usize>, staged: bool) -> Result<Arrangement> {
        // While this is locked no reader stages a change.
        let staging = lock(&self.staging);
        let versions = self.read()?.fork(&self.places_of(&columns)?, staged)?;
        let key = key_among(&self.by, &columns)?;
        let staging = if staged { *staging } else { UNSTAGED };
        Ok(Arrangement::of(self.by.clone(), columns, key, versions, staging))
    }

    /// Returns a copy at the same version, with all columns.
    pub fn fork_whole(&self) -> Result<Arrangement> {
        self.fork(self.columns.clone(), true)
    }

    /// Makes it the arrangement of one flow, which stages its changes under versions of its own.
    pub(crate) fn own(&self) -> Result<()> {
        self.write(|versions| {
            versions.settle()?;
            // A checkpoint has the rows beside those of other flows, and the next one has them with this flow.
            versions.rows.track_anew();
            Ok(())
        })?;
        *lock(&self.staging) = UNSTAGED;
        self.set_readers(Vec::new());
        Ok(())
    }

    pub(crate) fn read(&self) -> Result<RwLockReadGuard<'_, Versions>> {
        self.versions.read().map_err(|_| broken())
    }

    /// Returns the kept columns of all rows; called between two epochs.
    pub(crate) fn content(&self) -> Result<Delta> {
        self.settle_now()?;
        let versions = self.read()?;
        Ok(versions.rows.delta(&versions.index.live())?)
    }

    /// Adds the changes of the rows since the newest checkpoint as a table; called between two epochs.
    pub(crate) fn save_changed(&self, name: &str, to: &mut Tables) -> Result<()> {
        self.settle_now()?;
        Ok(self.read()?.rows.save_changed_rows(name, to)?)
    }

    /// Returns the number of rows.
    pub fn num_rows(&self) -> usize {
        self.read().map_or(0, |versions| versions.num_rows())
    }

    /// Returns the approximate size in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.read().map_or(0, |versions| versions.memory_bytes())
    }

    /// Shows the parts that may be spilled; nothing if the arrangement is broken: its next step fails.
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

    /// Returns the rows that lookups may find, and their keys.
    fn keyed(&self, mut chunk: Chunk) -> Result<(Chunk, Vec<ArrayRef>)> {
        let mut keys = key_of(&chunk.rows, &self.key);
        if !self.by.nulls_match && keys.iter().any(|key| key.logical_null_count() > 0) {
            chunk = keep(&chunk, &whole(&keys))?;
            keys = key_of(&chunk.rows, &self.key);
        }
        Ok((chunk, keys))
    }

    /// Changes the versions. A panic during a change poisons the lock, so every later use fails.
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

    /// Returns the same with some of the columns, by their places, and without the staged change unless `staged`.
    fn fork(&self, columns: &[usize], staged: bool) -> Result<Versions> {
        let mut index = self.index.try_clone()?;
        let rows = self.rows.project(columns)?;
        let placed = match staged {
            true => {
                let project = |placed: &Placed| {
                    let chunk = Chunk { rows: placed.chunk.rows.project(columns)?, ..placed.chunk.clone() };
                    Ok(Placed { chunk, ..placed.clone() })
                };
                self.staged.placed.iter().map(project).collect::<Result<Vec<_>>>()?
            }
            false => {
                let mut new: Vec<u32> =
                    self.staged.placed.iter().flat_map(|placed| placed.slots.iter().copied()).collect();
                new.sort_unstable();
                new.dedup();
                new.into_iter().filter(|slot| rows.rows_of(*slot) == 0).for_each(|slot| index.free(slot));
                Vec::new()
            }
        };
        let staged = Staged { placed, ..Staged::default() };
        let schema = Arc::new(self.schema.project(columns)?);
        Ok(Versions { schema, index, rows, totals: self.totals.clone(), staged })
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
        // Lookups change nothing, so threads share them. One thread then gives new keys slots, in row order.
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

    /// Merges the staged change into the rows.
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

    /// Returns the number of rows of a key after the epoch.
    pub(crate) fn total(&self, slot: u32) -> i64 {
        if let Some(after) = self.moved().after(slot) {
            return after;
        }
        if (slot as usize) < self.totals.len() { self.totals[slot as usize] } else { 0 }
    }

    /// Returns the effect of the epoch on the numbers of rows.
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

    /// Returns the places of the staged rows of a key: the staged chunk, and the row in it.
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

    /// Returns some columns of staged rows, and the rows' weights.
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

/// Returns some columns of rows.
pub(crate) fn projected(delta: &Delta, columns: &[usize]) -> Result<Delta> {
    let mut some = Delta::default();
    for Chunk { rows, weights } in &delta.chunks {
        some.push(Chunk { rows: rows.project(columns)?, weights: weights.clone() });
    }
    Ok(some)
}

/// Returns the places of these columns among `all`, if all of them are there.
pub(crate) fn places_among(all: &[usize], columns: &[usize]) -> Option<Vec<usize>> {
    columns.iter().map(|column| all.iter().position(|known| known == column)).collect()
}

/// Returns the places of the key's columns among these columns.
fn key_among(by: &By, columns: &[usize]) -> Result<Vec<usize>> {
    places_among(columns, &by.keys)
        .ok_or_else(|| Error::Bug("an arrangement keeps the columns of its key".into()))
}

fn key_of(rows: &RecordBatch, key: &[usize]) -> Vec<ArrayRef> {
    key.iter().map(|at| rows.column(*at).clone()).collect()
}

/// Returns a mask of the rows in which no column is NULL.
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
