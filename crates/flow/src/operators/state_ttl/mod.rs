//! `state_ttl`: forgets the state of idle keys.
//!
//! StateTtl wraps an operator with state by key. It keeps the batch time of each key's last touch. If a key
//! was idle for too long, the operator forgets it, as if its rows had never existed. The key's output stays
//! in the result. If the operator computes a value of a key (the row of a group), that output is kept here
//! and retracted when the key returns. Result rows that represent input rows (the pairs of a join, a row with
//! its rank) stay for good.
//!
//! A delete of a forgotten row is counted and dropped, so that no operator gets a negative weight. For this a
//! hash is kept of each row of the live keys, if rows may be deleted.
//!
//! Everything depends only on the times and rows of the cuts, so a replay forgets the same keys at the same
//! times.

mod idle;
mod persistence;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::physical_expr::PhysicalExpr;
use foldhash::fast::FixedState;
use millstream_delta::{Chunk, Cut, Delta, RowEncoder, Timestamp, consolidate};
use millstream_state::{Arranged, KeyIndex, NO_SLOT, Paged, Placed, Size, Spillable, Tables};

use crate::Result;
use crate::driver::evaluate;
use crate::failure::{Failure, keep, surviving_exprs};
use crate::operator::{
    Abilities, Content, Counted, Description, ExpiresKeys, Forgotten, Growth, KeepsResult, KeyedBy, Operator,
    Output, Properties, State, Timers, forget,
};
use crate::persistence::load_inner;
use crate::point_lookup::{Wanted, keys_wanted};
use idle::Idle;

/// The maximum number of keys to forget at once.
const KEYS: Size = Size::of(8192);

/// An operator that forgets keys.
#[derive(Debug)]
pub struct StateTtl {
    inner: Box<dyn Operator>,
    properties: Properties,
    by: KeyedBy,
    ttl_us: i64,
    /// The live keys, and those with remembered rows in the result.
    index: KeyIndex,
    idle: Idle,
    /// The number of rows of each live key, by slot.
    counts: Paged<i64>,
    inputs: Vec<Input>,
    /// The output of forgotten keys, by slot.
    remembered: Arranged,
    counted: Counted,
    stepped: bool,
}

/// One input.
#[derive(Debug)]
struct Input {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
    /// The hashes of rows; `None` if the input is append-only.
    rows: Option<Hashes>,
}

/// The rows of the live keys: the number of copies of each, by slot and hash.
#[derive(Debug)]
struct Hashes {
    encoder: RowEncoder,
    counts: BTreeMap<(u32, u128), i64>,
}

/// The slots that a step visits.
#[derive(Debug, Default)]
struct Visited {
    touched: Vec<u32>,
    /// The slots given to keys that didn't exist.
    new: Vec<u32>,
}

impl StateTtl {
    /// Wraps an operator that can forget keys. `inputs` are the inputs' columns, each with true if it is
    /// append-only. Returns the operator unchanged if it can't forget, or if its rows can't be hashed.
    pub fn around(
        mut inner: Box<dyn Operator>,
        inputs: Vec<(SchemaRef, bool)>,
        ttl_us: i64,
    ) -> Box<dyn Operator> {
        let has_one = |by: &KeyedBy| by.keys.iter().all(|keys| keys.len() == by.types.len());
        let by = inner.as_keyed().and_then(|keyed| keyed.keyed_by().ok());
        let Some(by) = by.filter(|by| !by.is_result && has_one(by)) else { return inner };
        let Ok(index) = KeyIndex::new(by.types.clone()) else { return inner };
        let mut kept = Vec::with_capacity(inputs.len());
        for (keys, (schema, append_only)) in by.keys.iter().cloned().zip(inputs) {
            let rows = match RowEncoder::new(&schema) {
                _ if append_only => None,
                Ok(encoder) => Some(Hashes { encoder, counts: BTreeMap::new() }),
                Err(_) => return inner,
            };
            kept.push(Input { keys, schema, rows });
        }
        let mut properties = inner.properties().clone();
        if !by.remembers {
            // A key that returns has new rows beside those that stayed.
            properties.key = None;
        }
        Box::new(StateTtl {
            index,
            idle: Idle::new(ttl_us),
            counts: Paged::default(),
            inputs: kept,
            remembered: Arranged::new(properties.schema.clone()),
            counted: Counted::default(),
            stepped: false,
            inner,
            properties,
            by,
            ttl_us,
        })
    }

    /// Forgets the keys that are idle by now.
    fn forget_idle(&mut self, now: Timestamp, output: &mut Output) -> Result<()> {
        let idle = self.idle.take(now);
        for slots in idle.chunks(KEYS.get()) {
            let Forgotten { rows, failures } = forget(self.inner.as_mut(), &self.index.keys(slots)?)?;
            output.failures.extend(failures);
            if self.by.remembers {
                let placed = rows.into_iter().map(|(rows, of)| {
                    let slots = of.iter().map(|place| slots[*place as usize]).collect();
                    Placed { chunk: Chunk::insert(rows), slots, tallies: None }
                });
                self.remembered.apply(placed.collect())?;
            }
            for slot in slots {
                self.counts[*slot as usize] = 0;
                self.inputs.iter_mut().filter_map(|input| input.rows.as_mut()).for_each(|rows| {
                    rows.forget(*slot);
                });
                if self.remembered.rows_of(*slot) == 0 {
                    self.index.free(*slot);
                }
            }
            self.counted.keys += slots.len() as u64;
        }
        Ok(())
    }

    /// Returns the rows of a delta for the operator: all but deletes of forgotten rows.
    fn take(
        &mut self,
        at: usize,
        delta: &Delta,
        now: Timestamp,
        visited: &mut Visited,
        failures: &mut Vec<Failure>,
    ) -> Result<Delta> {
        let input = &self.inputs[at];
        let delta = match (&input.rows, delta.is_append_only()) {
            // A row that is inserted and deleted in one delta was never forgotten.
            (Some(_), false) => consolidate(delta.clone(), &input.schema)?,
            _ => delta.clone(),
        };
        let mut taken = Delta::default();
        for chunk in delta.chunks {
            let exprs = self.inputs[at].keys.clone();
            // A row whose key fails would fail in the operator for the same reason, so the operator doesn't
            // get it.
            for (chunk, keys) in
                surviving_exprs(&exprs, chunk, failures, |chunk| evaluate(&exprs, &chunk.rows))?
            {
                let apart = self.by.nulls_apart.then(|| nulls(&keys, chunk.rows.num_rows())).flatten();
                let Some(apart) = apart else {
                    taken.push(self.take_chunk(at, chunk, &keys, now, visited)?);
                    continue;
                };
                // No row matches NULL, so there is no state for these.
                taken.push(keep(&chunk, &apart)?);
                let rest = arrow::compute::not(&apart)?;
                let keys = keys.iter().map(|key| Ok(arrow::compute::filter(key, &rest)?));
                let keys = keys.collect::<Result<Vec<ArrayRef>>>()?;
                taken.push(self.take_chunk(at, keep(&chunk, &rest)?, &keys, now, visited)?);
            }
        }
        Ok(taken)
    }

    fn take_chunk(
        &mut self,
        at: usize,
        chunk: Chunk,
        keys: &[ArrayRef],
        now: Timestamp,
        visited: &mut Visited,
    ) -> Result<Chunk> {
        let count = chunk.rows.num_rows();
        let mut slots = Vec::with_capacity(count);
        visited.new.extend(self.index.slots(keys, &mut slots)?);
        self.counts.resize(self.index.slots_end(), 0);
        let mut weights = Vec::with_capacity(count);
        match &mut self.inputs[at].rows {
            None => weights.extend((0..count).map(|row| chunk.weight(row))),
            Some(hashes) => {
                let rows = hashes.encoder.encode(&chunk.rows)?;
                for (row, slot) in slots.iter().enumerate() {
                    let weight = hashes.add(*slot, rows.row(row).as_ref(), chunk.weight(row));
                    self.counted.deletes += weight.abs_diff(chunk.weight(row));
                    weights.push(weight);
                }
            }
        }
        for (slot, weight) in slots.iter().zip(&weights).filter(|(_, weight)| **weight != 0) {
            self.counts[*slot as usize] += weight;
            if !self.idle.is_alive(*slot) || *weight < 0 {
                visited.touched.push(*slot);
            }
            self.idle.touch(*slot, now);
        }
        if weights.iter().enumerate().all(|(row, weight)| *weight == chunk.weight(row)) {
            return Ok(chunk);
        }
        let there: BooleanArray = weights.iter().map(|weight| Some(*weight != 0)).collect();
        keep(&Chunk { rows: chunk.rows, weights: Some(Int64Array::from(weights)) }, &there)
    }

    /// Retracts the output of keys that have returned.
    fn take_back(&mut self, visited: &[u32], rows: &mut Delta) -> Result<()> {
        let back: Vec<u32> =
            visited.iter().copied().filter(|slot| self.remembered.rows_of(*slot) > 0).collect();
        if back.is_empty() {
            return Ok(());
        }
        let mut gone = Vec::new();
        for slot in &back {
            for batch in self.remembered.gather(&[*slot])? {
                let slots = vec![*slot; batch.num_rows()];
                rows.push(Chunk::delete(batch.clone()));
                gone.push(Placed { chunk: Chunk::delete(batch), slots, tallies: None });
            }
        }
        self.remembered.apply(gone)?;
        *rows = consolidate(std::mem::take(rows), &self.properties.schema)?;
        Ok(())
    }

    /// Frees the slots of keys without rows.
    fn free_empty(&mut self, visited: Visited) {
        // Slots that only deletes of forgotten rows have named.
        visited
            .new
            .into_iter()
            .filter(|slot| !self.idle.is_alive(*slot))
            .for_each(|slot| self.index.free(slot));
        for slot in visited.touched {
            if self.idle.is_alive(slot) && self.counts[slot as usize] == 0 {
                self.idle.remove(slot);
                self.index.free(slot);
            }
        }
    }

    fn advance(&mut self, cut: &Cut, inputs: &[&Delta], read: bool) -> Result<Output> {
        let mut output = Output::default();
        self.forget_idle(cut.now, &mut output)?;
        let mut visited = Visited::default();
        let mut taken = Vec::with_capacity(inputs.len());
        for (at, delta) in inputs.iter().enumerate() {
            taken.push(self.take(at, delta, cut.now, &mut visited, &mut output.failures)?);
        }
        let first = !std::mem::replace(&mut self.stepped, true);
        if first || self.inner.abilities().is_due(cut) || taken.iter().any(|delta| !delta.is_empty()) {
            let given: Vec<&Delta> = taken.iter().collect();
            let step = match read {
                true => self.inner.step(cut, &given)?,
                false => self.inner.step_unread(cut, &given)?,
            };
            output.rows = step.rows;
            output.left_out = step.left_out;
            output.failures.extend(step.failures);
        }
        visited.touched.sort_unstable();
        visited.touched.dedup();
        self.take_back(&visited.touched, &mut output.rows)?;
        self.free_empty(visited);
        if !read {
            // Not all changes were emitted, so none may be.
            output.rows = Delta::default();
        }
        Ok(output)
    }

    /// Returns all remembered rows.
    fn all_remembered(&self) -> Result<Vec<RecordBatch>> {
        let slots: Vec<u32> =
            self.index.live().into_iter().filter(|slot| self.remembered.rows_of(*slot) > 0).collect();
        Ok(self.remembered.gather(&slots)?)
    }

    /// Returns the wanted remembered rows, and perhaps others. A result begins with its key.
    fn remembered_of(&self, wanted: &Wanted) -> Result<Vec<RecordBatch>> {
        let Some(keys) = keys_wanted(wanted, 0..self.by.types.len()) else { return self.all_remembered() };
        let mut slots = Vec::new();
        self.index.find(&keys?, &mut slots)?;
        slots.retain(|slot| *slot != NO_SLOT);
        slots.sort_unstable();
        slots.dedup();
        Ok(self.remembered.gather(&slots)?)
    }
}

impl Hashes {
    /// Adds copies of a row, or removes as many as exist. Returns the number of added or removed copies.
    fn add(&mut self, slot: u32, row: &[u8], weight: i64) -> i64 {
        let key = (slot, hash(row));
        let count = self.counts.entry(key).or_insert(0);
        let weight = weight.max(-*count);
        *count += weight;
        if *count == 0 {
            self.counts.remove(&key);
        }
        weight
    }

    fn forget(&mut self, slot: u32) {
        let of = (slot, 0)..=(slot, u128::MAX);
        let keys: Vec<(u32, u128)> = self.counts.range(of).map(|(key, _)| *key).collect();
        keys.iter().for_each(|key| {
            self.counts.remove(key);
        });
    }
}

/// Returns a hash that identifies a row.
fn hash(row: &[u8]) -> u128 {
    let half = |seed| u128::from(FixedState::with_seed(seed).hash_one(row));
    half(1) << 64 | half(2)
}

/// Returns a mask of the rows with a NULL in their key; `None` if there is none.
fn nulls(keys: &[ArrayRef], count: usize) -> Option<BooleanArray> {
    let nulls: Vec<_> =
        keys.iter().filter_map(|key| key.logical_nulls()).filter(|nulls| nulls.null_count() > 0).collect();
    if nulls.is_empty() {
        return None;
    }
    Some((0..count).map(|row| Some(nulls.iter().any(|nulls| nulls.is_null(row)))).collect())
}

impl Operator for StateTtl {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn describe(&self) -> Description {
        let mut about = self.inner.describe();
        let ttl = ttl_text(self.ttl_us);
        about.state.push_str(&format!("; state_ttl {ttl}: not equal to batch"));
        let alive = format!("the keys updated within {ttl}");
        about.growth = match self.by.remembers {
            false => Growth::BoundedBy(alive),
            true => Growth::With(format!("its result; its other state, with {alive}")),
        };
        about
    }

    fn step(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        self.advance(cut, inputs, true)
    }

    fn step_unread(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        self.advance(cut, inputs, false)
    }

    fn abilities(&self) -> Abilities<'_> {
        Abilities {
            timers: Some(self),
            expiry: Some(self),
            result: self.by.remembers.then_some(self as _),
            ..Abilities::default()
        }
    }
}

impl State for StateTtl {
    fn reset(&mut self) -> Result<()> {
        self.inner.reset()?;
        self.index = KeyIndex::new(self.by.types.clone())?;
        self.idle = Idle::new(self.ttl_us);
        self.counts = Paged::default();
        self.remembered = Arranged::new(self.properties.schema.clone());
        self.inputs.iter_mut().filter_map(|input| input.rows.as_mut()).for_each(|rows| rows.counts.clear());
        self.stepped = false;
        Ok(())
    }

    fn save(&self) -> Result<Tables> {
        let inner = self.inner.save()?;
        self.saved(inner)
    }

    fn save_changed(&self) -> Result<Tables> {
        let inner = self.inner.save_changed()?;
        self.saved(inner)
    }

    fn load(&mut self, kept: &mut Tables) -> Result<()> {
        load_inner(self.inner.as_mut(), kept)?;
        self.load_saved(kept)
    }

    fn state_rows(&self) -> usize {
        self.inner.state_rows() + self.remembered.num_rows()
    }

    fn state_bytes(&self) -> usize {
        let hashes = self.inputs.iter().filter_map(|input| input.rows.as_ref()).map(|rows| rows.counts.len());
        let of_hash = size_of::<((u32, u128), i64)>() * 3 / 2;
        self.inner.state_bytes()
            + self.index.memory_bytes()
            + self.idle.memory_bytes()
            + self.counts.memory_bytes()
            + self.remembered.memory_bytes()
            + hashes.sum::<usize>() * of_hash
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.index);
        show(&mut self.counts);
        self.inner.each_store(show);
        show(&mut self.remembered);
    }
}

impl Timers for StateTtl {
    fn is_due(&self, cut: &Cut) -> bool {
        self.inner.abilities().is_due(cut) || self.idle.next().is_some_and(|time| time <= cut.now)
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.inner.abilities().wake_at().into_iter().chain(self.idle.next()).min()
    }
}

impl ExpiresKeys for StateTtl {
    fn counted(&self) -> Counted {
        self.counted
    }
}

impl KeepsResult for StateTtl {
    fn content(&self, input: &dyn Fn(usize) -> Content) -> Content {
        let rows = self.inner.abilities().content(input)?;
        Some(rows.and_then(|mut rows| {
            rows.extend(self.all_remembered()?);
            Ok(rows)
        }))
    }

    fn content_wanted(&self, wanted: &Wanted, input: &dyn Fn(usize, &Wanted) -> Content) -> Content {
        let rows = self.inner.abilities().content_wanted(wanted, input)?;
        Some(rows.and_then(|mut rows| {
            rows.extend(self.remembered_of(wanted)?);
            Ok(rows)
        }))
    }
}

/// Formats a time to live for people: in the largest unit of which it is a multiple.
fn ttl_text(us: i64) -> String {
    let units = [
        (86_400_000_000, "day"),
        (3_600_000_000, "hour"),
        (60_000_000, "minute"),
        (1_000_000, "second"),
        (1_000, "millisecond"),
        (1, "microsecond"),
    ];
    let (length, unit) = units.into_iter().find(|(length, _)| us % length == 0).unwrap_or((1, "microsecond"));
    let count = us / length;
    if count == 1 { format!("1 {unit}") } else { format!("{count} {unit}s") }
}
