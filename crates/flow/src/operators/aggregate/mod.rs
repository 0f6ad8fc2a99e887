//! GROUP BY and DISTINCT over columnar slots.
//!
//! Each group has a slot, a small number given by its key. What an aggregate keeps of a group lies at that place
//! in a column, and is changed where it lies. A step finds the slots of all its rows, sets down the results of
//! the groups it will touch, takes the rows in, and puts out the old rows with weight -1 and the new ones with +1
//! where they differ. A group without rows leaves nothing behind.
//!
//! Deliberately absent: GROUPING SETS, DISTINCT arguments, and min and max of rows that may be deleted.

mod count;
mod extreme;
mod float;
mod lower;
mod slot;
mod sum;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{or, prep_null_mask_filter, take};
use arrow::datatypes::SchemaRef;
use datafusion::physical_expr::PhysicalExpr;
use millstream_delta::{Chunk, Cut, Delta};
use millstream_state::KeyIndex;

use crate::failure::keep;
use crate::operator::{Content, Cost, Description, Growth, Operator, Output, Properties};
use crate::{Error, Result};
pub use lower::{Kind, lower, supports};
use slot::{Batch, SlotAggregate};

/// How many groups are put out in one batch.
const OUTPUT_ROWS: usize = 8192;

/// Keeps one row a group, or one row in all where there are no group columns.
#[derive(Debug)]
pub struct Aggregate {
    properties: Properties,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    calls: Vec<Call>,
    /// `None` without group columns: then slot 0 is the only one.
    index: Option<KeyIndex>,
    groups: Vec<Group>,
    steps: u64,
}

/// A call of an aggregate function.
#[derive(Debug)]
struct Call {
    text: String,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    /// The number of the group's rows, which is kept anyway.
    Rows,
    Slots(Box<dyn SlotAggregate>),
}

/// What is kept of a group besides its aggregates.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    rows: i64,
    /// The last step that touched it.
    step: u64,
}

/// A group that a step touches.
#[derive(Clone, Copy, Debug)]
struct Touched {
    slot: u32,
    /// How many rows it had before.
    rows: i64,
}

impl Aggregate {
    fn new(
        keys: Vec<Arc<dyn PhysicalExpr>>,
        calls: Vec<Call>,
        schema: SchemaRef,
        append_only: bool,
    ) -> Result<Aggregate> {
        let types: Vec<_> =
            schema.fields()[..keys.len()].iter().map(|field| field.data_type().clone()).collect();
        let index = if keys.is_empty() { None } else { Some(KeyIndex::new(types)?) };
        // DISTINCT over rows that stay only gains rows.
        let append_only = append_only && calls.is_empty() && index.is_some();
        let key = Some((0..keys.len()).collect());
        let mut aggregate = Aggregate {
            properties: Properties { schema, append_only, key, cost: Cost::Delta },
            keys,
            calls,
            index,
            groups: Vec::new(),
            steps: 0,
        };
        if aggregate.index.is_none() {
            aggregate.resize(1);
        }
        Ok(aggregate)
    }

    fn resize(&mut self, end: usize) {
        self.groups.resize(end, Group::default());
        for call in &mut self.calls {
            if let Kept::Slots(slots) = &mut call.kept {
                slots.resize(end);
            }
        }
    }

    /// Finds the slots of a chunk's rows, counts the rows of their groups, and adds the groups that this step
    /// hasn't touched before to `touched`.
    fn place(&mut self, chunk: &Chunk, touched: &mut Vec<Touched>) -> Result<Vec<u32>> {
        let count = chunk.rows.num_rows();
        let mut slots = Vec::with_capacity(count);
        match &mut self.index {
            None => slots.resize(count, 0),
            Some(index) => {
                let keys = evaluate(&self.keys, &chunk.rows)?;
                index.slots(&keys, &mut slots)?;
                let end = index.slots_end();
                self.resize(end);
            }
        }
        let step = self.steps;
        let groups = &mut self.groups;
        let mut touch = |slot: u32, weight: i64| {
            let group = &mut groups[slot as usize];
            if group.step != step {
                group.step = step;
                touched.push(Touched { slot, rows: group.rows });
            }
            group.rows += weight;
        };
        match &chunk.weights {
            None => slots.iter().for_each(|slot| touch(*slot, 1)),
            Some(weights) => {
                slots.iter().zip(weights.values()).for_each(|(slot, weight)| touch(*slot, *weight))
            }
        }
        Ok(slots)
    }

    fn update(&mut self, chunk: &Chunk, slots: &[u32]) -> Result<()> {
        let global = self.index.is_none();
        for call in &mut self.calls {
            let Kept::Slots(kept) = &mut call.kept else { continue };
            let passed = call.filter.as_ref().map(|filter| passed(filter, &chunk.rows)).transpose()?;
            // As in a batch query: without groups, arguments aren't evaluated for rows that the filter holds back,
            // and can't fail for them; with groups they are evaluated for all.
            let mut filtered = None;
            let (chunk, passed) = match passed {
                Some(passed) if global => (&*filtered.insert(keep(chunk, &passed)?), None),
                passed => (chunk, passed.map(|passed| NullBuffer::new(passed.values().clone()))),
            };
            let values = evaluate(&call.arguments, &chunk.rows)?;
            let mut valid = passed;
            for value in &values {
                valid = NullBuffer::union(valid.as_ref(), value.logical_nulls().as_ref());
            }
            let valid = valid.as_ref().filter(|valid| valid.null_count() > 0);
            let weights = chunk.weights.as_ref().map(|weights| &weights.values()[..]);
            let slots = &slots[..chunk.rows.num_rows()];
            kept.update(&Batch { slots, values: &values, valid, weights })?;
        }
        Ok(())
    }

    /// The results of all calls for these groups, whose numbers of rows are given.
    fn results(&self, groups: impl Iterator<Item = Touched> + Clone) -> Result<Vec<ArrayRef>> {
        let slots: Vec<u32> = groups.clone().map(|group| group.slot).collect();
        let result = |call: &Call| match &call.kept {
            Kept::Rows => {
                Ok(Arc::new(Int64Array::from_iter_values(groups.clone().map(|group| group.rows))) as ArrayRef)
            }
            Kept::Slots(kept) => kept.evaluate(&slots),
        };
        self.calls.iter().map(result).collect()
    }

    /// Whether a group with so many rows has a row in the result. The one group of a global aggregate always
    /// has, from the first step on.
    fn is_there(&self, rows: i64) -> bool {
        rows > 0 || self.index.is_none()
    }

    fn was_there(&self, touched: &Touched) -> bool {
        touched.rows > 0 || (self.index.is_none() && self.steps > 1)
    }

    /// Puts out what changed of some groups, whose results were `old` where they were there.
    fn emit(&mut self, touched: &[Touched], old: &[ArrayRef], output: &mut Emitted) -> Result<()> {
        let now =
            |touched: &Touched| Touched { slot: touched.slot, rows: self.groups[touched.slot as usize].rows };
        if let Some(group) = touched.iter().map(now).find(|group| group.rows < 0) {
            let message = format!("a group has {} rows: more were deleted than inserted", group.rows);
            return Err(Error::Bug(message));
        }
        let there = touched.iter().map(now).filter(|group| self.is_there(group.rows));
        let new = self.results(there)?;
        // Where each group is in `old` and in `new`.
        let (mut old_at, mut new_at) = (Vec::new(), Vec::new());
        let (mut old_end, mut new_end) = (0u32, 0u32);
        for group in touched {
            let (was, is) = (self.was_there(group), self.is_there(now(group).rows));
            old_at.push(was.then_some(old_end));
            new_at.push(is.then_some(new_end));
            (old_end, new_end) = (old_end + u32::from(was), new_end + u32::from(is));
        }
        let both: Vec<(u32, u32)> =
            old_at.iter().zip(&new_at).filter_map(|(old, new)| old.zip(*new)).collect();
        let mut differs = differing(old, &new, &both)?.into_iter();
        let (mut deleted, mut inserted) = (Rows::default(), Rows::default());
        for ((group, old), new) in touched.iter().zip(old_at).zip(new_at) {
            if old.is_some() && new.is_some() && !differs.next().unwrap_or(true) {
                continue;
            }
            old.into_iter().for_each(|at| deleted.push(group.slot, at));
            new.into_iter().for_each(|at| inserted.push(group.slot, at));
        }
        let deleted_keys = self.key_columns(&deleted.slots)?;
        let inserted_keys = if deleted.slots == inserted.slots {
            deleted_keys.clone()
        } else {
            self.key_columns(&inserted.slots)?
        };
        output.deletes.push(Chunk::delete(self.rows(deleted_keys, old, deleted)?));
        output.inserts.push(Chunk::insert(self.rows(inserted_keys, &new, inserted)?));
        self.free_empty(touched);
        Ok(())
    }

    fn free_empty(&mut self, touched: &[Touched]) {
        let Some(index) = &mut self.index else { return };
        for Touched { slot, .. } in touched {
            if self.groups[*slot as usize].rows > 0 {
                continue;
            }
            index.free(*slot);
            for call in &mut self.calls {
                if let Kept::Slots(kept) = &mut call.kept {
                    kept.free(*slot);
                }
            }
        }
    }

    fn key_columns(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        match &self.index {
            Some(index) => Ok(index.keys(slots)?),
            None => Ok(Vec::new()),
        }
    }

    fn rows(&self, keys: Vec<ArrayRef>, results: &[ArrayRef], rows: Rows) -> Result<RecordBatch> {
        let count = rows.slots.len();
        let at = UInt32Array::from(rows.at);
        let mut columns = keys;
        for result in results {
            columns.push(pick(result, &at)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(self.properties.schema.clone(), columns, &options)?)
    }

    fn all(&self) -> Result<Vec<RecordBatch>> {
        let live = match &self.index {
            Some(index) => index.live(),
            None => (0..u32::from(self.steps > 0)).collect(),
        };
        let mut batches = Vec::new();
        for slots in live.chunks(OUTPUT_ROWS) {
            let group = |slot: &u32| Touched { slot: *slot, rows: self.groups[*slot as usize].rows };
            let results = self.results(slots.iter().map(group))?;
            let at = (0..slots.len() as u32).collect();
            batches.push(self.rows(
                self.key_columns(slots)?,
                &results,
                Rows { slots: slots.to_vec(), at },
            )?);
        }
        Ok(batches)
    }
}

impl Operator for Aggregate {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn describe(&self) -> Description {
        let keys: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
        let calls: Vec<&str> = self.calls.iter().map(|call| call.text.as_str()).collect();
        let mut detail = calls.join(", ");
        if !keys.is_empty() {
            let by = format!("by {}", keys.join(", "));
            detail = if detail.is_empty() { by } else { format!("{detail} {by}") };
        }
        let (state, growth) = match keys.is_empty() {
            true => ("one row", Growth::Bounded),
            false => ("one row a group", Growth::With("the number of groups".into())),
        };
        Description { name: "Aggregate", detail, state: state.into(), growth, ..Description::default() }
    }

    fn step(&mut self, _cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        self.steps += 1;
        let chunks = inputs.iter().flat_map(|delta| &delta.chunks);
        let mut touched = Vec::new();
        if self.index.is_none() {
            self.groups[0].step = self.steps;
            touched.push(Touched { slot: 0, rows: self.groups[0].rows });
        }
        let placed =
            chunks.map(|chunk| Ok((chunk, self.place(chunk, &mut touched)?))).collect::<Result<Vec<_>>>()?;
        let mut old = Vec::new();
        for groups in touched.chunks(OUTPUT_ROWS) {
            old.push(self.results(groups.iter().filter(|group| self.was_there(group)).copied())?);
        }
        for (chunk, slots) in &placed {
            self.update(chunk, slots)?;
        }
        let mut output = Emitted::default();
        for (groups, old) in touched.chunks(OUTPUT_ROWS).zip(&old) {
            self.emit(groups, old, &mut output)?;
        }
        output.deletes.append(output.inserts);
        Ok(output.deletes.into())
    }

    fn content(&self, _input: &dyn Fn(usize) -> Content) -> Content {
        Some(self.all())
    }

    fn state_rows(&self) -> usize {
        self.index.as_ref().map_or(1, KeyIndex::len)
    }

    fn state_bytes(&self) -> usize {
        let calls = self.calls.iter().map(|call| match &call.kept {
            Kept::Rows => 0,
            Kept::Slots(kept) => kept.memory_bytes(),
        });
        let index = self.index.as_ref().map_or(0, KeyIndex::memory_bytes);
        index + self.groups.capacity() * size_of::<Group>() + calls.sum::<usize>()
    }
}

/// What a step puts out: all that goes before all that comes.
#[derive(Default)]
struct Emitted {
    deletes: Delta,
    inserts: Delta,
}

/// Rows to put out: their groups, and where their results are.
#[derive(Default)]
struct Rows {
    slots: Vec<u32>,
    at: Vec<u32>,
}

impl Rows {
    fn push(&mut self, slot: u32, at: u32) {
        self.slots.push(slot);
        self.at.push(at);
    }
}

fn evaluate(exprs: &[Arc<dyn PhysicalExpr>], rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
    let count = rows.num_rows();
    exprs.iter().map(|expr| Ok(expr.evaluate(rows)?.into_array(count)?)).collect()
}

/// The rows for which a filter is true.
fn passed(filter: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<BooleanArray> {
    let mask = filter.evaluate(rows)?.into_array(rows.num_rows())?;
    let mask = mask.as_boolean_opt().ok_or_else(|| Error::Bug("a filter gave no booleans".into()))?;
    Ok(if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() })
}

/// For each pair of places, whether the results there differ.
fn differing(old: &[ArrayRef], new: &[ArrayRef], both: &[(u32, u32)]) -> Result<Vec<bool>> {
    if both.is_empty() || old.is_empty() {
        return Ok(vec![false; both.len()]);
    }
    let old_at = UInt32Array::from_iter_values(both.iter().map(|(old, _)| *old));
    let new_at = UInt32Array::from_iter_values(both.iter().map(|(_, new)| *new));
    let mut differs = None;
    for (old, new) in old.iter().zip(new) {
        let changed = distinct(&pick(old, &old_at)?, &pick(new, &new_at)?)?;
        differs = Some(match differs {
            None => changed,
            Some(before) => or(&before, &changed)?,
        });
    }
    Ok(differs.map_or(Vec::new(), |differs| differs.values().iter().collect()))
}

/// The values at some places, ascending and each once.
fn pick(values: &ArrayRef, at: &UInt32Array) -> Result<ArrayRef> {
    Ok(if at.len() == values.len() { values.clone() } else { take(values, at, None)? })
}
